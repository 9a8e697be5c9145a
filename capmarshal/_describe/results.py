"""What a call has given, written: as JSON, or as it is.

Within JSON all that a terminal would obey is escaped; JSON has an escape for each character.
"""

from __future__ import annotations

import os
import re
import select
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._capabilities.capability import Capability, Delegable
from capmarshal._capabilities.space import capability_of
from capmarshal._descriptors import reaper
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import number_of
from capmarshal._descriptors.shared_buffer import SharedBuffer
from capmarshal._kernel.errors import CallTimeout
from capmarshal._typed.files import describe
from capmarshal._typed.table import is_file

if TYPE_CHECKING:
    from collections.abc import Callable

# Control characters, those that turn the direction of what follows, those that end a line, and what stands alone.
_OBEYED = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
_AT_ONCE = 1 << 16
# Milliseconds, of poll(2): it takes an int.
_LONGEST = (1 << 31) - 1


def without_escapes(text: str) -> str:
    """JSON of the same meaning that has nothing that a terminal obeys."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def put(number: int, data: Any) -> None:
    """Writes all of some bytes to a descriptor, at once."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(number, view) :]


class Writer:
    """Writes results to a descriptor.

    Args:
        number: of it, borrowed.
        raw: bytes, text and what can be read from a descriptor are written as they are.
        emptied: a file there loses what is in it, as soon as there is something to be written.
        seconds: that more of what a descriptor leads to is waited for; None: without limit.

    Attributes:
        left_out: what was only named in what was written, for it ends with this process: "capability", "descriptor".
    """

    def __init__(self, number: int, *, raw: bool, emptied: bool = False, seconds: float | None = None) -> None:
        self._number = number
        self._raw = raw
        self._to_be_emptied = emptied
        self._seconds = seconds
        self.left_out: set[str] = set()

    def write(self, result: Any) -> None:
        """Writes one result, or an item of one; what has come with it is closed.

        Raises:
            OSError: it cannot be written, or what is copied not be read.
            CallTimeout: no more of that came in time.
            TypeError: JSON has no words for it.
        """
        opened: list[Any] = []
        try:
            if self._raw and isinstance(result, (bytes, str)):
                self._put(result.encode() if isinstance(result, str) else result)
            elif self._raw and isinstance(result, (Dataspace, SharedBuffer)):
                opened.append(result)
                self._put(result.view())
            elif self._raw and is_file(result):
                opened.append(result)
                self._copy(number_of(result))
            else:
                self._put(self._line(result, opened.append))
        finally:
            # A socket may be one that takes as long to close as whoever sent it has said.
            reaper.close(opened)

    def end(self) -> None:
        """All has been written, if only that there is nothing."""
        if self._to_be_emptied:
            self._to_be_emptied = False
            os.ftruncate(self._number, 0)

    def _put(self, data: Any) -> None:
        # Not before: what was there stays where nothing comes in its place.
        self.end()
        put(self._number, data)

    def _line(self, result: Any, note: Callable[[Any], None]) -> bytes:
        def hook(thing: Any) -> Any:
            if isinstance(thing, (Capability, Delegable)):
                self.left_out.add("capability")
                return {"capability": capability_of(thing).label}
            if not is_file(thing):
                # Of what JSON has words for, it is only a key of a dict that comes here.
                where = " as a key" if thing is None or isinstance(thing, (bool, tuple, frozenset)) else ""
                raise TypeError(f"a {type(thing).__qualname__}{where}")
            note(thing)
            self.left_out.add("descriptor")
            # Nothing is asked that whoever serves it could delay.
            return {"descriptor": describe(number_of(thing))}

        try:
            text = msgspec.json.encode(result, enc_hook=hook).decode()
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"the result has no words in JSON: {error}") from None
        return without_escapes(text).encode() + b"\n"

    def _copy(self, number: int) -> None:
        waiting = select.poll()
        waiting.register(number, select.POLLIN)
        while True:
            # Whoever sent it may have made it one that does not wait.
            if not waiting.poll(None if self._seconds is None else min(self._seconds * 1000, _LONGEST)):
                raise CallTimeout(f"no more of what the descriptor leads to in {self._seconds:g} s")
            try:
                data = os.read(number, _AT_ONCE)
            except BlockingIOError:
                continue
            if not data:
                return
            self._put(data)
