"""Who has what of a server: users, their processes, and the channels of each."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import termios
from typing import TYPE_CHECKING

from capmarshal._descriptors import inbox
from capmarshal._descriptors.closing_jobs import Sender
from capmarshal._kernel.native import NOW, TIMED_OUT, ffi, lib
from capmarshal._protocol.states import READS, WRITES, State
from capmarshal._protocol.wire import NO_SECRET
from capmarshal._server.ledger import Resource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._descriptors.private import Private
    from capmarshal._protocol.parts import Assembly
    from capmarshal._server.grant import Grant
    from capmarshal._server.handler import Handler
    from capmarshal._server.outbox import Outbox
    from capmarshal._server.shares import Shares


def all_received(number: int) -> bool:
    """Whether all that was sent on a socket has been received; also where the kernel does not tell."""
    unsent = bytearray(4)
    try:
        # SIOCOUTQ, unix(7): what lies in the other end's queue.
        fcntl.ioctl(number, termios.TIOCOUTQ, unsent)
    except OSError:
        return True
    return not any(unsent)


def lies_unread(number: int) -> bool:
    """Whether there is a record that was sent to a socket and not read."""
    nothing = ffi.new("struct msghdr *")
    # No room for any of it: a record is cut short, and nothing at the end of all is not.
    lib.lx_recvmsg(number, nothing, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return bool(nothing.msg_flags & socket.MSG_TRUNC)


class Load:
    """What calls that run beside others have, together.

    Attributes:
        calls: how many they are.
        descriptors: that came with them.
        size: bytes that did.
    """

    __slots__ = ("calls", "descriptors", "size")

    def __init__(self) -> None:
        self.calls = self.descriptors = self.size = 0


class User(Sender):
    """The processes of one user, and the account of what of their descriptors waits to be closed.

    Attributes:
        load: of its processes' calls that run beside others.
        peers: those of its processes that have a place in C's ring of turns.
        uid: as the server's user namespace has it.
        doors: the keys of those that came from its processes, those that have ended included, and are held.
        unread: descriptors that were sent to its processes and not received.
    """

    __slots__ = ("__weakref__", "doors", "load", "peers", "uid", "unread")

    def __init__(self, uid: int) -> None:
        super().__init__()
        self.load = Load()
        self.peers: dict[Peer, None] = {}
        self.uid = uid
        self.doors: set[int] = set()
        self.unread = 0


class Peer(Sender):
    """One process, and the account of what of its descriptors waits to be closed: known as long as any does.

    Where the kernel does not tell who knocks, since a filter refuses that, all processes together are one.

    Args:
        pid: of the process, as the server's pid namespace has it; 0 for one of another, and where nobody tells.
        user: whose it is.
        shares: how much it may have.

    Attributes:
        shares: as given.
        channels: that it has, by slot, roughly in the order in which they were last looked at.
        index: of its place in C's ring of turns; 0: it has no channel.
        pidfd: becomes readable when the process has ended; None where there is none.
        ended: there is none for that the process has ended already.
        pidfd_slot: where that is watched; 0: it is not.
        unread: descriptors that were sent to it, and may not have been received.
        held: why it begins no calls for now; empty while it may.
        own: it is this process.
        load: of its calls that run beside others.
    """

    __slots__ = (
        "__weakref__",
        "channels",
        "doors",
        "ended",
        "held",
        "index",
        "load",
        "own",
        "pid",
        "pidfd",
        "pidfd_slot",
        "shares",
        "unread",
        "user",
    )

    def __init__(self, pid: int, user: User, shares: Shares) -> None:
        super().__init__(user)
        self.pid = pid
        self.user = user
        self.shares = shares
        self.channels: dict[int, Channel] = {}
        self.index = 0
        self.pidfd: Private | None = None
        self.ended = False
        self.pidfd_slot = 0
        self.unread = 0
        self.held: set[str] = set()
        self.doors: set[int] = set()
        self.own = pid == os.getpid()
        self.load = Load()

    @property
    def closing(self) -> Sender:
        """The account that its descriptors are closed on: its own."""
        return self

    @property
    def uid(self) -> int:
        """The user's number, as the server's user namespace has it."""
        return self.user.uid

    def door_refusal(self) -> str:
        """Why no more doors that come from it are held; empty if they are."""
        may = self.shares.doors
        if len(self.doors) >= may.process:
            return f"{len(self.doors)} doors that came from {self.process} are held already (limits.doors)"
        if len(self.user.doors) >= may.user:
            return f"{len(self.user.doors)} doors that came from user {self.uid} are held already (limits.doors)"
        return ""

    def hold_door(self, key: int) -> None:
        """Counts a door that came from it: for its user also when the process has ended."""
        self.doors.add(key)
        self.user.doors.add(key)

    def let_door_go(self, key: int) -> None:
        """Counts it no more, if it was."""
        self.doors.discard(key)
        self.user.doors.discard(key)

    def book_unread(self, count: int) -> None:
        """Counts descriptors that were sent to it, or received."""
        self.unread += count
        self.user.unread += count

    @property
    def process(self) -> str:
        """What people call it."""
        return f"process {self.pid}" if self.uid != lib.CM_NOBODY else "a process that a filter hides"

    def __repr__(self) -> str:
        return f"{self.process} (user {self.uid})" if self.uid != lib.CM_NOBODY else self.process


class Channel:
    """One channel, as its server sees it.

    Attributes:
        far: the server's end.
        peer: who knocked.
        gid: of the process's group, as the knock's credentials say.
        grant: through whose door; None: through the entrypoint's own.
        slot: where C has it.
        room: bytes that one record to it may have.
        state: what it is in; IDLE also while a call that is data alone runs, which is answered in the same turn.
        handler: the call whose method runs beside others.
        outbox: the answer that is not fully sent yet, or whose results are not closed.
        assembly: the call that has not fully come yet.
        refused: the ID of a call that was answered before it had come.
        unread: descriptors that were sent, and may not have been received.
        booked: of each resource, what it is charged with.
    """

    __slots__ = (
        "assembly",
        "booked",
        "far",
        "gid",
        "grant",
        "handler",
        "outbox",
        "peer",
        "refused",
        "room",
        "slot",
        "state",
        "unread",
    )

    def __init__(self, far: Private, peer: Peer, gid: int, grant: Grant | None) -> None:
        self.far = far
        self.peer = peer
        self.gid = gid
        self.grant = grant
        self.slot = 0
        self.room = inbox.record_room(far.number)
        self.state = State.IDLE
        self.handler: Handler | None = None
        self.outbox: Outbox | None = None
        self.assembly: Assembly | None = None
        self.refused: int | None = None
        self.unread = 0
        self.booked = [0] * len(Resource)

    @property
    def secret(self) -> bytes:
        """Of the door that it was made through."""
        return self.grant.secret if self.grant is not None else NO_SECRET

    def send(self, record: bytes, numbers: Sequence[int] = ()) -> int:
        """Sends a record, and does not wait; 0 or -errno."""
        return lib.cm_send_record(self.far.number, record, len(record), numbers, len(numbers))

    def all_received(self) -> bool:
        """Whether the client has received all that was sent to it; also where the kernel does not tell."""
        return all_received(self.far.number)

    def has_come(self) -> bool:
        """Whether there is something to be read, or the end of it."""
        return lib.cm_wait(self.far.number, select.POLLIN, NOW) not in TIMED_OUT

    def lies_unread(self) -> bool:
        """Whether there is a record that was sent to us and not read."""
        return lies_unread(self.far.number)

    def awaits_server(self) -> bool:
        """Whether the client has done its part, and the server has not come round to it: a call may take its time."""
        events = (select.POLLIN if self.state in READS else 0) | (select.POLLOUT if self.state in WRITES else 0)
        return lib.cm_wait(self.far.number, events, NOW) not in TIMED_OUT
