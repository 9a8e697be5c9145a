"""What ``capmarshal inspect`` shows, as whatever it does: the entrypoints, who holds what of them, and what waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capmarshal._inspect.processes import Process

# As many doors of one process as make it unknown by which of them it called.
_SEVERAL = 2


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has one end of a pair.

    Attributes:
        pid: a process.
        descriptors: under how many.
    """

    pid: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Queue:
    """What has come to one end, and nobody has taken yet.

    Attributes:
        readers: who has that end.
        memory: how much of the kernel's it takes, in bytes.
        descriptors: how many travel in it; None where the kernel does not tell.
        stuck: it was there at each look, and no reader was at work meanwhile.
    """

    readers: tuple[Holder, ...]
    memory: int
    descriptors: int | None
    stuck: bool


@dataclass(frozen=True, slots=True)
class Door:
    """An entrypoint's, or a grant's.

    Attributes:
        label: what the server calls it; printable.
        name: the whole name; printable.
        is_grant: whether it leads to one object.
        user: who made it.
        servers: who has the server's end: one process, or none that was seen.
        open: whether there is a client end.
        holders: who has that, of those that were seen.
        knocks: what waits at the server's end.
        shut: whether one of its holders has shut it, so that nobody can knock any more.
    """

    label: str
    name: str
    is_grant: bool
    user: int
    servers: tuple[Holder, ...]
    open: bool
    holders: tuple[Holder, ...]
    knocks: Queue | None
    shut: bool

    @property
    def stuck(self) -> bool:
        """Whether knocks wait that nobody takes."""
        return self.knocks is not None and self.knocks.stuck

    @property
    def out_of_sight(self) -> bool:
        """Whether there is a client end, and nobody who was seen holds it."""
        return self.open and not self.holders


@dataclass(frozen=True, slots=True)
class Channel:
    """One of an entrypoint's.

    Attributes:
        clients: who has the client's end; nobody, where that was not seen.
        calls: what the server has not taken.
        answers: what the client has not taken.
    """

    clients: tuple[Holder, ...]
    calls: Queue | None
    answers: Queue | None

    @property
    def stuck(self) -> bool:
        """Whether something waits in it that nobody takes."""
        return any(queue is not None and queue.stuck for queue in (self.calls, self.answers))


@dataclass(frozen=True, slots=True)
class Listener:
    """A path where an entrypoint hands out capabilities.

    Attributes:
        path: as it was bound; printable.
        waiting: how many have connected and were not accepted.
    """

    path: str
    waiting: int


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """What one epoll set watches.

    Attributes:
        door: its own; None where only grants are known.
        grants: those of which it was seen that they are its.
        channels: its clients'.
        signals: how many it can be sent (``on_signal``).
        listeners: where it listens.
    """

    door: Door | None
    grants: tuple[Door, ...]
    channels: tuple[Channel, ...]
    signals: int
    listeners: tuple[Listener, ...]

    @property
    def doors(self) -> tuple[Door, ...]:
        """Its own, and those of its grants."""
        return self.grants if self.door is None else (self.door, *self.grants)

    @property
    def servers(self) -> tuple[Holder, ...]:
        """Who serves it, if that was seen."""
        return self.doors[0].servers

    @property
    def queues(self) -> Iterator[Queue]:
        """All in which something waits."""
        for door in self.doors:
            if door.knocks is not None:
                yield door.knocks
        for channel in self.channels:
            yield from (queue for queue in (channel.calls, channel.answers) if queue is not None)

    def channels_by_door(self) -> list[list[Channel]]:
        """Of each of :attr:`doors`, those that were made through it, as far as can be told.

        Which one that was, no kernel tells: it was the only one that the client holds, or else it counts for the first.
        """
        # By process, the first doors that it holds: of thousands of grants, two say as much as all.
        held: dict[int, list[int]] = {}
        for number, door in enumerate(self.doors):
            for holder in door.holders:
                doors = held.setdefault(holder.pid, [])
                if len(doors) < _SEVERAL and number not in doors:
                    doors.append(number)
        made: list[list[Channel]] = [[] for _ in self.doors]
        for channel in self.channels:
            through = {number for holder in channel.clients for number in held.get(holder.pid, ())}
            made[through.pop() if len(through) == 1 else 0].append(channel)
        return made

    def processes(self) -> frozenset[int]:
        """All that have to do with it."""
        ends = [self.servers, *(door.holders for door in self.doors), *(channel.clients for channel in self.channels)]
        return frozenset(holder.pid for end in ends for holder in end)


@dataclass(frozen=True, slots=True)
class View:
    """One look.

    Attributes:
        processes: those that have to do with an entrypoint, by number.
        entrypoints: in the order of their labels.
        in_flight: queues in which descriptors wait, which no process has: capabilities may be among them.
        unseen: what could not be seen, in words.
    """

    processes: dict[int, Process] = field(default_factory=dict)
    entrypoints: tuple[Entrypoint, ...] = ()
    in_flight: tuple[Queue, ...] = ()
    unseen: tuple[str, ...] = ()

    def stuck_processes(self) -> frozenset[int]:
        """Those that were stopped, and those that take nothing of what waits for them."""
        queues = [queue for entrypoint in self.entrypoints for queue in entrypoint.queues if queue.stuck]
        stopped = {pid for pid, process in self.processes.items() if process.stopped}
        return frozenset(stopped | {reader.pid for queue in queues for reader in queue.readers})

    def only(self, pids: frozenset[int]) -> View:
        """What has to do with any of these processes."""
        entrypoints = tuple(each for each in self.entrypoints if each.processes() & pids)
        shown = pids.union(*(each.processes() for each in entrypoints))
        # What one is given when it is created waits for it: its parent has sent that, and closed the socket.
        near = shown | {pid for pid, process in self.processes.items() if process.parent in shown}
        in_flight = tuple(queue for queue in self.in_flight if any(reader.pid in near for reader in queue.readers))
        shown |= {reader.pid for queue in in_flight for reader in queue.readers}
        processes = {pid: process for pid, process in self.processes.items() if pid in shown}
        return View(processes, entrypoints, in_flight, self.unseen)
