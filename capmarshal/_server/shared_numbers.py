"""Which of several objects with one number closes it, so that each number that a call owns is closed once.

A method may make an owner of a number that has one: ``open(descriptor.fileno(), "rb")``.  Each of the two would close
it, and the second would close what somebody else has by that number then.
"""

from __future__ import annotations

import contextlib
import io
import socket
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors.closing import close_whole
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.layers import layers_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from capmarshal._descriptors.closing import ClosableFile

# What may write when it is closed, and so must be closed before its number is.
_WRITERS = (io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)


def _never_close(file: Any) -> None:
    """Has nobody ever close a file that would close what another object closes, and then names something else.

    Python cannot tell a FileIO to let go of its number, and closes it when it lets go of the file: of one that a module
    holds, too, when the interpreter ends.  Whoever makes one has made a mistake, which his caller is told.
    """
    import ctypes  # here: needed for a mistake, and not by all who import this

    # A reference that nobody has, and so nobody can give up.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(file))


def number_of_known(file: Any) -> int:
    """The number of something whose class is Python's or ours; -1 if that is not so, or it has none any more."""
    if not isinstance(file, (Descriptor, Dataspace, io.IOBase, socket.socket)):
        return -1
    try:
        number: int = file.fileno()
    except Exception:  # noqa: BLE001 - ValueError of one that is closed, and anything of a class derived from io's
        return -1
    return number


def _closer_of(file: Any) -> Any:
    """What closes the number of a file: the lowest of its layers.

    None where nothing does (``closefd=False``), or nobody knows: a class of the method's own is taken to close the
    object that it stands on, which does nothing the second time.
    """
    lowest = file if type(file) is Descriptor else layers_of(file)[-1]
    if isinstance(lowest, io.FileIO):
        return lowest if lowest.closefd else None
    if isinstance(lowest, Dataspace):
        return lowest._descriptor  # noqa: SLF001 - its owner of one
    return lowest if isinstance(lowest, (Descriptor, socket.socket)) else None


def closers_in(kept: Sequence[object]) -> dict[int, Any]:
    """By their numbers, what closes what a method has kept."""
    closers = {number_of_known(thing): _closer_of(thing) for thing in kept}
    return {number: closer for number, closer in closers.items() if number >= 0 and closer is not None}


def closed_once(
    owned: Iterable[tuple[ClosableFile, int]], keepers: dict[int, Any]
) -> tuple[list[tuple[ClosableFile, int]], bool]:
    """What is left to close of what a call owns, if each number is to be closed once.

    Of several objects that would close one number, one does; the others forget it, or are never closed.

    Args:
        owned: files, and their numbers; -1 of what is closed.
        keepers: by number, what the method has kept: that closes it, whenever the method likes.

    Returns:
        That, and whether there was something that cannot forget its number.
    """
    groups: dict[int, dict[int, ClosableFile]] = {}
    left: list[tuple[ClosableFile, int]] = []
    for file, number in owned:
        if number < 0:
            left.append((file, number))
        else:
            groups.setdefault(number, {})[id(file)] = file
    clash = False
    for number, group in groups.items():
        files, forgotten = _one_closes(list(group.values()), keepers.get(number))
        left += [(file, number) for file in files]
        clash = clash or not forgotten
    return left, clash


def _one_closes(files: list[ClosableFile], keeper: Any) -> tuple[list[ClosableFile], bool]:
    """The files of one number that are left to close, and whether all others have forgotten it."""
    by_closer = [(file, _closer_of(file)) for file in files]
    closers = {id(closer): closer for _, closer in by_closer if closer is not None}
    # A FileIO before all else: it cannot forget its number.
    first = sorted(closers.values(), key=lambda closer: not isinstance(closer, io.FileIO))
    closes = keeper if keeper is not None or not first else first[0]
    forgotten = True
    for file, closer in by_closer:
        if closer is None or closer is closes:
            continue
        if isinstance(closer, io.FileIO):
            _never_close(file)
            forgotten = False
        else:
            # Where two files stand on one Descriptor, the second has nothing left to forget.
            with contextlib.suppress(ValueError):
                closer.detach()
    left = [file for file, closer in by_closer if closer is None]
    may_write = any(isinstance(file, _WRITERS) for file in left)
    if keeper is None:
        left += [file for file, closer in by_closer if closer is closes and closer is not None]
    return [_InTurn(left)] if may_write and len(left) > 1 else left, forgotten


class _InTurn:
    """Files of one number, closed one after the other: the first may still write."""

    def __init__(self, files: Sequence[ClosableFile]) -> None:
        self._files = files

    def fileno(self) -> int:
        return self._files[-1].fileno()

    def close(self) -> None:
        for file in self._files:
            with contextlib.suppress(Exception):
                close_whole(file)
