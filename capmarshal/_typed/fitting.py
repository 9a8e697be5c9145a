"""What is passed against what is due, before anything is sent.

In a payload a descriptor or a capability is an index, an int: without a look, one passed where an int is due would be
one, and an int where a file is due an index.  What needs no such look is data, which msgspec refuses to take for more.
"""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import SIGNALS, Capability, Delegable, Proxy
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import OnlyPolled, advice_for
from capmarshal._descriptors.shared_buffer import SharedBuffer
from capmarshal._kernel.errors import name_of, with_article
from capmarshal._typed import placing
from capmarshal._typed.codec import encode
from capmarshal._typed.sendable import optional_in
from capmarshal._typed.table import DESCRIPTOR_TYPES, FORGOTTEN, Search, is_delegable, is_file

if TYPE_CHECKING:
    from collections.abc import Callable


def words_for(annotation: Any) -> str:
    """What people call an annotation."""
    if annotation is types.NoneType:
        return "None"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return name_of(annotation)
    return str(annotation).replace("typing.", "")


class Due:
    """A parameter or result for a descriptor or a capability.

    Args:
        kind: the annotation's class.
        optional: None will do as well.
    """

    __slots__ = ("_is_file", "_kind", "_optional")

    def __init__(self, kind: type, *, optional: bool) -> None:
        self._kind = kind
        self._optional = optional
        self._is_file = issubclass(kind, DESCRIPTOR_TYPES)

    def count(self, value: object) -> int:
        """How many lines of a table the value will be.

        Raises:
            TypeError: it is not what is due; says what it is, and what to do.
        """
        if value is None and self._optional:
            return 0
        # A buffer without its lease would be used again while its receiver reads it.
        fits = is_file(value) and isinstance(value, SharedBuffer) is (self._kind is SharedBuffer)
        if fits if self._is_file else is_delegable(value):
            return 1
        raise TypeError(f"{_described(value)} where {words_for(self._kind)} is due{self._advice(value)}")

    def _advice(self, value: object) -> str:
        if value is None:
            return f": where there may be none, it is annotated {words_for(self._kind)} | None"
        if isinstance(value, Awaitable):
            return FORGOTTEN
        if isinstance(value, OnlyPolled) and not is_delegable(value):
            return f": {advice_for(value)}"
        if SIGNALS in vars(self._kind):
            return ": pass what SignalReceiver.signal or Entrypoint.on_signal() gives"
        if not self._is_file:
            return ": pass a proxy, or an object of a class derived from it that an entrypoint manages"
        if self._kind is SharedBuffer:
            return ": take() one out of a cm.BufferPool, and write to that"
        if isinstance(value, SharedBuffer):
            if issubclass(self._kind, Dataspace):
                return ": cm.Dataspace.from_buffer(buffer.view()) is a copy, which nobody can change"
            return ": it goes as cm.SharedBuffer only, with its lease, so that its pool knows who holds it"
        if issubclass(self._kind, Dataspace) and _is_buffer(value):
            return ": cm.Dataspace.from_buffer(data) makes one of it"
        if isinstance(value, (str, os.PathLike)):
            return ': open it, and pass the file: open(path, "rb")'
        if isinstance(value, int):
            return ": pass what has a fileno(), as a file or a socket; Descriptor.dup_of() makes such of a number"
        return ": pass what has a fileno(), as a file, a socket or a Descriptor"


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True


def due_for(annotation: Any) -> Due | None:
    """What an annotation that is no data wants; None where such things are within others."""
    kind, optional = optional_in(annotation)
    if isinstance(kind, type) and issubclass(kind, (Capability, Delegable, *DESCRIPTOR_TYPES)):
        return Due(kind, optional=optional)
    return None


def _described(value: object) -> str:
    """What a value is, with an article."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {words_for(value)}"
    words = words_for(type(value))
    if isinstance(value, Proxy):
        return f"a proxy of {words}"
    return with_article(words)


def check_data(value: object, annotation: Any) -> int:
    """Refuses a value that is not, or has within it what is not, data; as :func:`check_for` has it.

    Raises:
        TypeError: it is none; says what is due.
        Whatever msgspec raises for other values that cannot be sent.
    """
    search = Search()
    encode(value, search)
    if search.found:
        it_is = search.found[0] is value
        words = _described(value) if it_is else "a descriptor or capability within what is data,"
        raise TypeError(f"{words} where {words_for(annotation)} is due")
    return 0


def check_for(annotation: Any, *, is_data: bool) -> Callable[[Any], int]:
    """A function that refuses values that are not, or have within them what is not, what is due.

    The function returns how many lines of a table a value will be.  It raises TypeError that says what is due, and
    whatever msgspec raises for what cannot be sent.
    """
    if is_data:
        return lambda value: check_data(value, annotation)
    due = due_for(annotation)
    return placing.check_for(annotation) if due is None else due.count
