"""Who stands between a client and a server, at a door and on its channels, and writes down each record that passes.

The client is given the end of a door of the middleman's own.  What is knocked there, the middleman knocks at the real
one, and hands on whatever comes then, either way.  A door that travels through it is replaced by one more of its own,
and one of its own that comes back by the door that it leads to.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import stat
import threading
from typing import NamedTuple

import capmarshal as cm
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._capabilities.space import space
from capmarshal._kernel.native import lib
from capmarshal._protocol import wire
from doors_by_hand import cookie_of
from patience import PATIENCE

_ROOM = 1 << 18
_DESCRIPTORS = socket.CMSG_SPACE(253 * array.array("i").itemsize)


class Passed(NamedTuple):
    """A record that has passed: on its way to whom, by which door or its channels, and with how many descriptors."""

    to: str
    door: int
    data: bytes
    descriptors: int


def is_seqpacket(number):
    """Whether a descriptor is a socket as doors and channels are."""
    return stat.S_ISSOCK(os.fstat(number).st_mode) and lib.cm_is_seqpacket(number) == 1


def receive(sock, flags=0):
    """One record and its descriptors, as sockets or numbers nobody knows; empty bytes at the end."""
    data, control, _, _ = sock.recvmsg(_ROOM, _DESCRIPTORS, flags | socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for level, kind, part in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(part)
    return data, list(numbers)


class Middleman:
    """Stands between, until the block ends.

    Attributes:
        passed: the records, in order.
    """

    def __init__(self):
        self.passed = []
        self._doors = 0
        # What is done when a socket is readable, and what is held besides.
        self._when = {}
        self._held = []
        # Those whose other side has ended without having read all that was sent there.
        self._unread = set()
        # The doors that it stands before, by the cookies of its own.
        self._behind = {}
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._wake.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the middleman hangs"
        for sock in (self._woken, *self._when, *self._held):
            sock.close()

    def before(self, capability):
        """The same capability, by a door of the middleman's."""
        with socket.socket(fileno=socket.dup(open_door_of(capability).number)) as door:
            mine = self._stand_before(door.dup())
            self._wake.send(b".")
        try:
            return space.capability(space.receive_door(cm.Descriptor(mine.detach()), None), badge_of(capability))
        finally:
            mine.close()

    def _stand_before(self, door):
        """The client end of a door that leads to one, which is taken."""
        self._doors += 1
        own, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = self._doors
        self._behind[cookie_of(client)] = door
        self._when[own] = lambda: self._knocked(own, door, number)
        self._when[door] = lambda: self._hung_up(own, door, number)
        return client

    def _run(self):
        while True:
            ready, _, _ = select.select([self._woken, *self._when], [], [])
            for sock in ready:
                if sock is self._woken:
                    if not sock.recv(100):
                        return
                elif sock in self._when:
                    self._when[sock]()

    def _drop(self, *socks):
        for sock in socks:
            self._when.pop(sock, None)
            self._unread.discard(sock)
            sock.close()

    def _next(self, sock, flags=0):
        """As :func:`receive`; that something of ours was not read there, the kernel says first, and once."""
        try:
            return receive(sock, flags)
        except ConnectionResetError:
            self._unread.add(sock)
            return receive(sock, flags)

    def _knocked(self, own, door, number):
        data, numbers = self._next(own)
        if not data:
            self._drop(own, door)
            return
        self.passed.append(Passed("the door", number, data, len(numbers)))
        if not numbers:
            # No knock, but a signal.  Where the door has been shut meanwhile, the next look there tells.
            with contextlib.suppress(ConnectionError):
                door.send(data)
            return
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs = socket.socket(fileno=numbers[0])
        try:
            socket.send_fds(door, [data], [far.fileno()])
        except ConnectionError:
            self._drop(near, theirs)
        else:
            self._when[theirs] = lambda: self._hand_on("the server", number, theirs, near)
            self._when[near] = lambda: self._hand_on("the client", number, near, theirs)
        far.close()

    def _hand_on(self, to, number, source, target):
        data, numbers = self._next(source)
        if data:
            self.passed.append(Passed(to, number, data, len(numbers)))
            with contextlib.ExitStack() as stack:
                sent = [stack.enter_context(self._replaced(one)) for one in numbers]
                try:
                    socket.send_fds(target, [data], [one.fileno() for one in sent])
                except ConnectionError:
                    # It has gone; what it has sent before is handed on yet, and its end behind that.
                    self._unread.add(target)
            return
        if to == "the client" and source in self._unread:
            # The client has had its record taken, by us, and so is not told by the kernel that the server has not.
            with contextlib.suppress(ConnectionError):
                target.send(wire.GONE_RECORD)
        self._drop(source, target)

    def _replaced(self, number):
        """What is sent on in the place of a descriptor, which is taken."""
        if not is_seqpacket(number):
            return cm.Descriptor(number)
        door = socket.socket(fileno=number)
        behind = self._behind.get(cookie_of(door))
        if behind is None:
            return self._stand_before(door)
        door.close()
        return behind.dup()

    def _hung_up(self, own, door, number):
        data, _ = self._next(door, socket.MSG_PEEK)
        if data:
            self.passed.append(Passed("all who hold the door", number, data, 0))
            with contextlib.suppress(ConnectionError):
                own.send(data)
        # With the knocks that wait there, so that who has knocked is told that nothing was read.
        self._drop(own)
        # The record stays where it was; nobody looks there any more.
        self._when.pop(door, None)
        self._held.append(door)
