"""Descriptor: an open file descriptor with exactly one owner."""

from __future__ import annotations

import codecs
import io
import operator
import os
import socket
import sys
import warnings
from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, overload

from capmarshal._descriptors.moving import made, stolen
from capmarshal._descriptors.new_process import hand_down, inherited, refuse_unless_created
from capmarshal._descriptors.process import process
from capmarshal._kernel.errors import DENIED, Closed, Error, check, name_of, with_article
from capmarshal._kernel.native import lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Self


class HasFileno(Protocol):
    """Anything that has a descriptor: a file, a socket, a :class:`Descriptor`."""

    def fileno(self) -> int:
        """The descriptor, borrowed."""
        ...


_File: TypeAlias = io.BufferedReader | io.BufferedWriter | io.BufferedRandom | io.TextIOWrapper

# Per mode of open(): does it read, does it write.  A descriptor is already open, so nothing is created or truncated.
_MODES = {"r": (True, False), "w": (False, True), "a": (False, True), "r+": (True, True)}


def _named(file: object) -> str:
    return with_article(f"`{type(file).__qualname__}`")


B = TypeVar("B", io.BufferedReader, io.BufferedWriter, io.BufferedRandom)

_new = io.FileIO.__new__
# Hundreds may be closed one after the other.
_close = os.close

# limits.h: descriptors are ints.
_INT_MAX = 2**31 - 1


class OnlyPolled:
    """Has a ``fileno()`` to be polled: the descriptor is nothing to send, copy, read from or write to."""

    __slots__ = ()

    _advice = "pass it on as an argument or result of a call"


# What to do with one where something else is due, in words.
advice_for: Callable[[OnlyPolled], str] = operator.attrgetter("_advice")


def number_of(file: HasFileno | int) -> int:
    """The descriptor of ``file``, borrowed.

    Raises:
        Closed: it is closed or negative.
        TypeError: it is neither an int nor has a ``fileno()`` that gives one, or has one that is only to be polled.
    """
    if isinstance(file, OnlyPolled):
        raise TypeError(f"{_named(file)} is no descriptor, and has one to be polled only: {advice_for(file)}")
    try:
        number = file if isinstance(file, int) else file.fileno()
    except (io.UnsupportedOperation, AttributeError, NotImplementedError):
        if hasattr(file, "fileno"):
            # In memory, or a member of an archive.
            words = f"{_named(file)} has no descriptor: send its bytes, or a Dataspace of them"
            raise TypeError(words) from None
        number = None
    except TypeError:
        if not isinstance(file, type):
            raise
        # Its fileno() wants an object.
        words = f"the class {name_of(file)} itself is no file: pass an object of it"
        raise TypeError(words) from None
    except ValueError as error:
        if isinstance(error, Error):
            raise
        # As a file's fileno() has it, which does not say which file.
        raise Closed(f"{_named(file)} that was closed before") from None
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"a descriptor, or what has a fileno(), as a file or a socket, is due, not {file!r}")
    if number < 0:
        closed = f"{_named(file)} that was closed before"
        raise Closed(f"closed, or never open: {file}" if isinstance(file, int) else closed)
    if number > _INT_MAX:
        raise TypeError(f"{number} is no descriptor: it is more than an int of C holds")
    return number


def numbers_in(things: list[Any]) -> list[int] | None:
    """What a list of :class:`Descriptor` owns, borrowed, -1 for one that is closed; None if one is something else."""
    numbers = [thing._number for thing in things if type(thing) is Descriptor]  # noqa: SLF001 - fileno() costs more
    return numbers if len(numbers) == len(things) else None


def numbers_of(things: list[Any]) -> list[int] | None:
    """What a list of :class:`Descriptor` owns, borrowed; None if one of them is closed, or something else."""
    numbers = numbers_in(things)
    return None if numbers is None or -1 in numbers else numbers


def buffered_of(descriptor: Descriptor, mode: str, kind: type[B]) -> B:
    """A file object of this kind, which then owns what the descriptor did.

    Raises:
        OSError: a directory.  The descriptor owns it still.
    """
    # Made first, and empty: it can be asked whether it has the descriptor, whatever came in between.
    raw = _new(io.FileIO)
    number, descriptor._number = descriptor._number, -1  # noqa: SLF001 - as in `moving`, in one step
    try:
        raw.__init__(number, mode)  # type: ignore[misc]  # of exactly that class
    except BaseException:
        if raw.closed:
            descriptor._number = number  # noqa: SLF001 - as above
        raw.close()
        raise
    try:
        return kind(raw)
    except BaseException:
        raw.close()
        raise


def name_in_proc(number: int) -> str:
    """What /proc calls a descriptor, as "pipe:[1234]" or the path of a file; empty if it cannot be had."""
    try:
        return os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 - pathlib is not imported, and this is no path
    except OSError:
        return ""


class Descriptor:
    """Owns one file descriptor, and closes it.

    A context manager.  One that is forgotten warns (:class:`ResourceWarning`) and is closed.

    Args:
        descriptor: taken: from here on this object owns it.

    Raises:
        ValueError: negative.
        TypeError: not an int.
    """

    __slots__ = ("__weakref__", "_number")

    def __init__(self, descriptor: int) -> None:
        self._number = -1
        if not isinstance(descriptor, int) or isinstance(descriptor, bool):
            raise TypeError(f"a descriptor is an int, not {descriptor!r}; Descriptor.dup_of() copies that of a file")
        if not 0 <= descriptor <= _INT_MAX:
            raise ValueError(f"a descriptor is 0 or more, and an int of C, not {descriptor}")
        self._number = descriptor

    @classmethod
    def dup_of(cls, file: HasFileno | int) -> Self:
        """A new descriptor for what ``file`` has open, CLOEXEC; ``file`` keeps its own.

        Both share the open file: its offset and its status flags (``dup(2)``).

        Raises:
            TableFull: no room in the descriptor table.
            KernelError: the number ``file`` is not open.
            Closed, TypeError: ``file`` is closed, or has no descriptor.
        """
        number = number_of(file)
        return made(lambda place: lib.cm_make_copy(place, number), "duplicating a descriptor", cls)

    @property
    def closed(self) -> bool:
        """Whether it was closed, detached or turned into something else."""
        return self._number < 0

    def fileno(self) -> int:
        """The descriptor, borrowed.

        Raises:
            Closed: there is none any more.
        """
        if self._number < 0:
            raise Closed("this descriptor was closed, detached or turned into a file or socket")
        return self._number

    def dup(self) -> Descriptor:
        """As :meth:`dup_of` this one."""
        return Descriptor.dup_of(self)

    def detach(self) -> int:
        """Gives the descriptor up: the caller owns it, in a server's method too, whose call closes it no more.

        Raises:
            Closed: there is none any more.
        """
        number = self.fileno()
        self._number = -1
        return number

    @overload
    def open(self, mode: Literal["rb"] = "rb", *, encoding: None = None) -> io.BufferedReader: ...
    @overload
    def open(self, mode: Literal["wb", "ab"], *, encoding: None = None) -> io.BufferedWriter: ...
    @overload
    def open(self, mode: Literal["r+b", "rb+"], *, encoding: None = None) -> io.BufferedRandom: ...
    @overload
    def open(self, mode: Literal["r", "w", "a", "r+"], *, encoding: str | None = None) -> io.TextIOWrapper: ...
    @overload
    def open(self, mode: str, *, encoding: str | None = None) -> _File: ...
    def open(self, mode: str = "rb", *, encoding: str | None = None) -> _File:
        """Turns it into a buffered file object, which then owns the descriptor.

        Args:
            mode: "r", "w", "a" or "r+", with "b" for bytes; without, text in ``encoding``.
            encoding: of text; UTF-8 unless given.

        Raises:
            ValueError: no such mode, or an encoding for bytes.
            LookupError: no such encoding.
            OSError: a directory, or "r+" on what has no position.  This object still owns the descriptor then.
        """
        text = "b" not in mode
        reads, writes = _MODES.get(mode.replace("b", "", 1), (False, False))
        if not (reads or writes):
            raise ValueError(f"mode {mode!r} is none of r, w, a, r+, with b for bytes")
        if not text and encoding is not None:
            raise ValueError("bytes have no encoding")
        if text:
            # Tried before anything owns the descriptor twice: not every codec is one of text.
            encoding = codecs.lookup(encoding or "utf-8").name
            io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        kind: Any = io.BufferedReader if reads else io.BufferedWriter
        if reads and writes:
            os.lseek(self.fileno(), 0, os.SEEK_CUR)
            kind = io.BufferedRandom
        self.fileno()
        buffered: Any = buffered_of(self, mode.replace("b", ""), kind)
        try:
            return io.TextIOWrapper(buffered, encoding=encoding) if text else buffered
        except BaseException:
            buffered.close()
            raise

    def socket(self) -> socket.socket:
        """Turns it into a socket object, which then owns the descriptor.

        Its timeout is None, or 0 where the open file is non-blocking: ``socket.setdefaulttimeout()`` does not count
        here, for to put that in force would make the open file non-blocking, and whoever sent it shares that.

        Raises:
            OSError: not a socket, or a filter does not let that be asked.  This object still owns the descriptor then.
        """
        kind = check(lib.cm_socket_option(self.fileno(), socket.SO_TYPE), "making a socket")
        # As in open().
        made = socket.socket.__new__(socket.socket)
        # And what asks that and gives the number back where it has none, in one step; as undoing() is made.
        lent: dict[int, int] = {}
        give_back = map(_set_number, (self,), map(lent.get, iter(made.fileno, None), (-1,)))
        lent[-1], self._number = self._number, -1
        try:
            number = lent[-1]
            # Said to be non-blocking already, no flag of the open file is touched.
            kind |= socket.SOCK_NONBLOCK
            try:
                made.__init__(type=kind, fileno=number)  # type: ignore[misc]  # as there
            except OSError as error:
                # Of what is told its family, Python does not insist on that of its name (getsockname(2)).
                family = lib.cm_socket_option(number, socket.SO_DOMAIN)
                if error.errno not in DENIED or family < 0:
                    raise
                made.__init__(family, kind, fileno=number)  # type: ignore[misc]  # as there
            if os.get_blocking(number):
                made.setblocking(True)
        except BaseException:
            in_one_step(give_back)
            if self._number < 0:
                # Not by its own close(), which needs more than __init__() may have come to.
                socket.SocketType.close(made)
            raise
        return made

    def close(self) -> None:
        """Closes it.  Does nothing the second time.

        Never raises: the descriptor is gone whatever close(2) says.
        """
        # -1 first: after the system call the number may be another's already, and whoever runs in between (a second
        # thread, a signal handler) must not close that.  Ctrl-C raises where a call ends: not between these two.
        number, self._number = self._number, -1
        try:  # noqa: SIM105 - contextlib.suppress() costs more than all of it
            _close(number)
        except OSError:
            # It was closed before, and is no descriptor.
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            if self._number < 0:
                return
        except AttributeError:
            # Ctrl-C came before there was any.
            return
        if not process:
            # The names of this module are gone at the end of the interpreter, and the kernel closes all in a moment.
            return
        try:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        finally:
            # Also where warnings are errors.  Closing what a stranger sent can block, and this runs in any thread.
            if process.reaper is None or sys.is_finalizing():
                self.close()
            else:
                process.reaper.close([stolen(self, Descriptor)])

    def __reduce__(self) -> tuple[Any, ...]:
        # What copy.copy() asks, too: two owners would both close it.
        refuse_unless_created("a Descriptor is neither copied nor pickled, for it has one owner: dup() makes another")
        return _inherited, (hand_down(self.fileno()),)

    def __repr__(self) -> str:
        return f"<Descriptor {self._number}>" if self._number >= 0 else "<Descriptor closed>"


def _inherited(handed_down: Any) -> Descriptor:
    return Descriptor(inherited(handed_down))


_set_number = Descriptor._number.__set__  # type: ignore[attr-defined, misc]  # noqa: SLF001 - the slot itself

# Of any number of owners.
_NOTHING = repeat(-1)

# Goes through an iterator of C's, in C: no handler of another signal raises in the middle.
in_one_step: Callable[[Iterable[object]], None] = deque[object](maxlen=0).extend


def undoing(owners: Sequence[Descriptor], numbers: Iterable[int] = _NOTHING) -> Iterable[object]:
    """For :func:`in_one_step`: has all of them own nothing, or these again.

    Made before there is anything to undo: two signals may have come, and the second's handler raises where a call ends.
    """
    return map(_set_number, owners, numbers)
