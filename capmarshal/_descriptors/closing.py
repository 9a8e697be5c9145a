"""What cannot block when it is closed, and is closed on the spot: the rest is the reaper's.

A descriptor is judged in C, by what the kernel says of it without asking anybody.  A Python object is judged by its
descriptor, where its class is known to do no more in close() than to write what is pending and close that.
"""

from __future__ import annotations

import contextlib
import errno
import io
import socket
from typing import TYPE_CHECKING, Any, Protocol

from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.mounts import mounts
from capmarshal._descriptors.private import Private
from capmarshal._descriptors.process import process
from capmarshal._kernel.native import lib

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Looked up once: an attribute of cffi's costs as much as the rest.
_cm_closing, _cm_reads_own_file = lib.cm_closing, lib.cm_reads_own_file
_CM_MAY_BLOCK, _CM_CLOSES_FILE = lib.CM_MAY_BLOCK, lib.CM_CLOSES_FILE

# Their close() runs no code of the user's.  What else has a fileno() is closed by the reaper, whatever it is.
_KNOWN = frozenset(
    (
        Descriptor,
        Private,
        Dataspace,
        socket.socket,
        io.FileIO,
        io.BufferedReader,
        io.BufferedWriter,
        io.BufferedRandom,
        io.TextIOWrapper,
    )
)
# Closing these may write.  What cannot be written is dropped: they close what is underneath all the same.
_WRITERS = (io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)


class ClosableFile(Protocol):
    """A file, a socket, a :class:`Descriptor`: its close() does nothing the second time."""

    def fileno(self) -> int:
        """The descriptor, borrowed; raises ValueError once it is closed."""
        ...

    def close(self) -> None:
        """Closes it."""
        ...


def sorted_out(things: Sequence[ClosableFile | DescriptorList]) -> tuple[DescriptorList, list[Any]]:
    """All plain descriptors, in one list, taken from their owners; and the rest."""
    kinds = set(map(type, things))
    if kinds == {Descriptor}:
        return DescriptorList.of(things), []  # type: ignore[arg-type]  # that is what they are
    descriptors = DescriptorList()
    descriptors.take(DescriptorList.of([thing for thing in things if type(thing) is Descriptor]))
    files = []
    for thing in things:
        if type(thing) is DescriptorList:
            descriptors.take(thing)
        elif type(thing) is not Descriptor:
            files.append(thing)
    return descriptors, files


def close_quick(descriptors: DescriptorList) -> int:
    """Closes what cannot block; how many are left."""
    known = _known_mounts()
    # C does not hold the interpreter meanwhile, so that another thread may fork: the child closes what is left.
    key = id(descriptors)
    try:
        process.lists[key] = descriptors
        left = lib.cm_close_quick(descriptors.struct, known)
        if left == -errno.ESTALE:
            mounts.read()
            left = lib.cm_close_quick(descriptors.struct, mounts.struct)
    finally:
        process.lists.pop(key, None)
    # Mounts that change so fast are not worth a third look.
    return left if left >= 0 else len(descriptors)


def close_unladen(ends: DescriptorList) -> None:
    """Closes those unix sockets in whose queues no descriptor lies; nothing comes any more to any of them."""
    quick = DescriptorList.with_room(len(ends))
    quick.struct.count = len(ends)
    key = id(quick)
    try:
        # A child that is forked while they are being closed closes its copies.
        process.lists[key] = quick
        with process.lock:
            lib.cm_move_unladen(quick.struct, ends.struct)
        quick.close()
    finally:
        process.lists.pop(key, None)


def _known_mounts() -> Any:
    if mounts.struct.mountinfo < 0:
        mounts.open()
    return mounts.struct


def _closing(number: int) -> int:
    """What closing a descriptor means, see ``enum cm_closing``; or -ESTALE, where mounts change too fast."""
    return _told(_cm_closing, number, _cm_closing(number, mounts.struct))


def _told(by: Callable[[int, Any], int], number: int, how: int) -> int:
    """What a function of C's says of a descriptor, that said ``how`` by the mounts as they were known; or -ESTALE."""
    if how == _CM_MAY_BLOCK and mounts.struct.mountinfo < 0:
        mounts.open()
        how = by(number, mounts.struct)
    if how == -errno.ESTALE:
        mounts.read()
        how = by(number, mounts.struct)
    return how


def is_own_reader(number: int) -> bool:
    """Whether a descriptor is of a file of this machine's own that is open for reading, and no directory."""
    how = _cm_reads_own_file(number, mounts.struct)
    return how > 0 or _told(_cm_reads_own_file, number, how) > 0


# Whether what :func:`is_own_reader` has told to be one is closed on the spot, which costs less to ask than
# :func:`closes_now`; of what else it may be asked is said in csrc/cm_close.h.
closes_own_reader: Callable[[int], int] = lib.cm_closes_own_reader


def closes_now(number: int) -> bool:
    """Whether a descriptor is of a file that is closed on the spot; one that has to be freed first is not."""
    how = _cm_closing(number, mounts.struct)
    return how == _CM_CLOSES_FILE or _told(_cm_closing, number, how) == _CM_CLOSES_FILE


def _is_systems_own(file: Any) -> bool:
    """Whether what a file of Python's stands on is the system's, and not a class of the user's.

    Not by layers_of(), which passes over what is no file: whatever is unknown here is the user's.
    """
    buffer = file.buffer if type(file) is io.TextIOWrapper else file
    if type(buffer) in (io.BufferedReader, io.BufferedWriter, io.BufferedRandom):
        return type(buffer.raw) in (io.FileIO, socket.SocketIO)
    return buffer is file


def asks_nobody(number: int) -> bool:
    """Whether a descriptor is of a file of this machine's own: to write to it, or ask what it is, waits for nobody."""
    return _closing(number) in (lib.CM_CLOSES_FILE, lib.CM_FREES_FILE)


def close_whole(file: Any) -> None:
    """Closes what was taken; also a socket of which files were made, whose own close() waits for theirs."""
    file.close()
    if type(file) is socket.socket:
        socket.SocketType.close(file)


def type_of_file(number: int) -> int:
    """What kind of file a descriptor is of, as ``stat.S_IFIFO``, negative if unknown; its file system is not asked."""
    return lib.cm_file_type(number)


def closed_at_once(file: Any) -> bool:
    """Closes a file where that cannot block; whether it is closed."""
    if type(file) not in _KNOWN or not _is_systems_own(file):
        return False
    try:
        number = file.fileno()
    except ValueError:  # closed already
        return True
    how = _closing(number)
    if how == lib.CM_CLOSES_FILE or (how == lib.CM_CLOSES_SOCKET and not isinstance(file, _WRITERS)):
        with contextlib.suppress(Exception):
            close_whole(file)
        return True
    return False
