"""Descriptors that a forked child must not keep."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.process import identity_of, process
from capmarshal._kernel.errors import check
from capmarshal._kernel.native import ffi, lib
from capmarshal._kernel.waiting import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._kernel.native import CData
    from capmarshal._kernel.waiting import Steps

lock = process.lock


class Private:
    """Owns a descriptor that is this process's alone.

    One that is forgotten is closed.

    Args:
        number: the descriptor, taken; the caller holds :data:`lock` since before it was made.
        epoll: it is an epoll descriptor, which a child closes before all others.

    Attributes:
        number: the descriptor, or -1 once it is closed, here or by a fork.
    """

    __slots__ = ("__weakref__", "epoll", "number")

    def __init__(self, number: int, *, epoll: bool = False) -> None:
        self.number = number
        self.epoll = epoll
        process.privates.add(self)

    def fileno(self) -> int:
        """The descriptor, borrowed; -1 once it is closed."""
        return self.number

    def close(self) -> None:
        """Closes it.  Does nothing the second time, nor in a child.

        The last close of a socket can block, so it holds no lock meanwhile: a child that is forked just then knows it
        as the socket that it is.  What is no socket does not block.
        """
        identity = identity_of(self.number)
        if identity == 0:
            with process.lock:
                # No call between these two: Ctrl-C raises where one ends.
                number, self.number = self.number, -1
                lib.lx_close(number)
            return
        try:
            process.closing[identity] = self.number
            number, self.number = self.number, -1
            lib.lx_close(number)
        finally:
            process.closing.pop(identity, None)

    def release(self) -> Descriptor:
        """Moves it to an owner that a child shares."""
        owner = object.__new__(Descriptor)
        # No call between these two: Ctrl-C raises where one ends, or begins.
        owner._number, self.number = self.number, -1
        return owner

    def in_child(self) -> None:
        """Closes the child's copy."""
        number, self.number = self.number, -1
        lib.lx_close(number)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the end of the interpreter, what the reaper is needed for is gone, as are the names of this module, and the
        # kernel closes all in a moment.
        if getattr(self, "number", -1) < 0 or is_finalizing() or process.reaper is None:
            return
        # Another object: this one is gone for good, and may be seen by the finalizers of others in the same cycle.
        heir = Private(-1, epoll=self.epoll)
        heir.number, self.number = self.number, -1
        process.reaper.close([heir])


def _attempt(make: Callable[[CData], int], owners: Sequence[Private]) -> int:
    """Has a C function make as many descriptors as there are owners; its result, 0 or -errno."""
    places = ffi.new("struct cm_descriptors *", (len(owners), [-1] * len(owners)))
    numbers = places.numbers
    with process.lock:
        try:
            result = make(numbers)
            for place, owner in enumerate(owners):
                owner.number, numbers[place] = numbers[place], -1
        except BaseException:
            # Ctrl-C: each that no owner has yet, in one crossing, which the next Ctrl-C does not end.
            lib.cm_close_all(places)
            raise
        return result


def _make(make: Callable[[CData], int], owners: Sequence[Private], doing: str, calls: str = "") -> Steps[None]:
    """As :func:`_attempt`, and waits for room in the table.

    Raises:
        TableFull, KernelError: nothing was made.
    """
    check((yield from process.with_room(lambda: _attempt(make, owners))), doing, calls)


def make_pair(doing: str) -> tuple[Private, Private]:
    """The two ends of a new SEQPACKET socket.

    Args:
        doing: what for, as "making a channel".

    Raises:
        TableFull, KernelError: nothing was made.
    """
    return drive(pair_made(doing))


def pair_made(doing: str) -> Steps[tuple[Private, Private]]:
    """As :func:`make_pair`, in steps: a full table is waited for."""
    one, other = Private(-1), Private(-1)
    yield from _make(lib.cm_make_pair, (one, other), doing, "socketpair(2)")
    return one, other


def make_copy(of: Private) -> Private:
    """Another descriptor of the same open file; waits for no room in the table, and raises as :func:`make_pair`."""
    made = Private(-1)
    check(_attempt(lambda place: lib.cm_make_copy(place, of.number), (made,)), "duplicating a descriptor")
    return made


def make_epoll_set() -> Private:
    """A new epoll set; raises as :func:`make_pair`."""
    made = Private(-1, epoll=True)
    drive(_make(lib.cm_make_epoll, (made,), "making an epoll set", "epoll_create1(2)"))
    return made


def make_event() -> Private:
    """A new eventfd that does not block; raises as :func:`make_pair`."""
    made = Private(-1)
    drive(_make(lib.cm_make_event, (made,), "making an eventfd", "eventfd2(2)"))
    return made


def make_pidfd(process: int) -> Private:
    """Polls readable when a process has ended; waits for no room in the table, and raises as :func:`make_pair`."""
    made = Private(-1)
    check(_attempt(lambda place: lib.cm_make_pidfd(place, process), (made,)), "looking at a process", "pidfd_open(2)")
    return made


def make_reader(path: bytes) -> Private:
    """A file, opened for reading, which waits for no room in the table; raises as :func:`make_pair`."""
    made = Private(-1)
    check(_attempt(lambda place: lib.cm_make_file(place, path, os.O_RDONLY, 0), (made,)), "opening a file")
    return made


def make_file(path: bytes, flags: int, mode: int, doing: str) -> Private:
    """A file, opened as by ``os.open()``; raises as :func:`make_pair`."""
    made = Private(-1)
    drive(_make(lambda place: lib.cm_make_file(place, path, flags, mode), (made,), doing))
    return made


def make_memfd(doing: str) -> Private:
    """Memory as a file, a memfd; raises as :func:`make_pair`."""
    made = Private(-1)
    drive(_make(lambda place: lib.cm_make_memfd(place, b"capmarshal"), (made,), doing, "memfd_create(2)"))
    return made


def make_socket(doing: str) -> Private:
    """A SEQPACKET socket that is connected to nothing; raises as :func:`make_pair`."""
    return drive(socket_made(doing))


def socket_made(doing: str) -> Steps[Private]:
    """As :func:`make_socket`, in steps: a full table is waited for."""
    made = Private(-1)
    yield from _make(lib.cm_make_socket, (made,), doing, "socket(2)")
    return made


def accept_into(place: Private, listener: Private) -> int:
    """Moves the next connection of a listening socket to an owner that has none, and waits for no room; 0 or -errno."""
    return _attempt(lambda number: lib.cm_make_accepted(number, listener.number), (place,))
