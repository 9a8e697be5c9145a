"""From what the kernel lists, sockets and processes, to who holds what: pure."""

from __future__ import annotations

import socket
from collections import defaultdict
from typing import TYPE_CHECKING

from capmarshal._capabilities.identity import GRANTS, NAME_PREFIX
from capmarshal._inspect.view import Channel, Door, Entrypoint, Holder, Listener, Queue
from capmarshal._kernel.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from capmarshal._inspect.processes import Process
    from capmarshal._inspect.sockets import Socket

_PREFIX = b"\0" + NAME_PREFIX.encode()
# SOCK_MIN_SNDBUF (net/sock.h), with some room for what a struct sk_buff may grow to.
_SHORTEST = 8192


def is_door(end: Socket) -> bool:
    """Whether this is named as a server's end of a door is; whoever likes may name a pair of its so."""
    return end.kind == socket.SOCK_SEQPACKET and not end.listens and end.name.startswith(_PREFIX)


def waiting_at(end: Socket, sockets: Mapping[int, Socket]) -> int:
    """Of what has come to an end and was not taken, the memory: a record may be of no bytes.

    That is what its peer has sent and is charged for; where there is none, or no more, the bytes.
    """
    if end.listens:
        return 0
    peer = sockets.get(end.peer)
    return end.unread if peer is None else peer.sent


class Seeing:
    """One look, put together.

    Args:
        sockets: by inode.
        processes: by number.
        travelling: how many descriptors wait in the queue of a process's descriptor.
        stuck: the ends at which the same waits for long.
        never_blocks: whether a process's descriptor has O_NONBLOCK.
    """

    def __init__(
        self,
        sockets: Mapping[int, Socket],
        processes: Mapping[int, Process],
        travelling: Callable[[int, int], int | None] = lambda _pid, _number: None,
        stuck: frozenset[int] = frozenset(),
        never_blocks: Callable[[int, int], bool] = lambda _pid, _number: False,
    ) -> None:
        self._sockets, self._processes = sockets, processes
        self._travelling, self._stuck, self._never_blocks = travelling, stuck, never_blocks
        self._holders: dict[int, list[Holder]] = defaultdict(list)
        for pid, process in processes.items():
            for inode, numbers in process.sockets.items():
                self._holders[inode].append(Holder(pid, len(numbers)))

    def holders(self, inode: int) -> tuple[Holder, ...]:
        """Who has it open."""
        return tuple(self._holders.get(inode, ()))

    def ends(self) -> frozenset[int]:
        """Both of every door, channel and signal of which somebody who was seen has an end."""
        near = {end.inode for end in self._sockets.values() if is_door(end)}
        near.update(inode for watched in self._sets() for inode in watched if self._is_one_of_a_pair(inode))
        near &= self._sockets.keys()
        both = near | {self._sockets[inode].peer for inode in near}
        return frozenset(inode for inode in both if self.holders(inode))

    def unclaimed(self) -> list[Door]:
        """Doors of which no end is held by a process that was seen."""
        ends = (end for end in self._sockets.values() if is_door(end))
        return [self._door(end) for end in ends if not self.holders(end.inode) and not self.holders(end.peer)]

    def in_flight(self) -> Iterator[Queue]:
        """Queues in which descriptors wait."""
        for end in self._sockets.values():
            queue = self._queue(end)
            if queue is not None and queue.descriptors:
                yield queue

    def entrypoints(self) -> Iterator[Entrypoint]:
        """Those of which somebody who was seen has an end."""
        sets = {inode: watched for watched in self._sets() for inode in watched}
        together: dict[frozenset[int], list[int]] = defaultdict(list)
        for end in self._sockets.values():
            if is_door(end) and (self.holders(end.inode) or self.holders(end.peer)):
                together[sets.get(end.inode, frozenset((end.inode,)))].append(end.inode)
        # A grant that nobody watches at the moment is its process's only entrypoint's, if there is one only.
        only = self._only_sets(together)
        for watched in [watched for watched, (inode, *_) in together.items() if watched == {inode}]:
            owner = only.get(self._server_of(*watched))
            if owner is not None and owner != watched and _is_grant(self._sockets[min(watched)]):
                together[owner] += together.pop(watched)
        for watched, inodes in together.items():
            yield self._entrypoint(inodes, watched)

    def _sets(self) -> Iterator[frozenset[int]]:
        """The epoll sets that have a door in them; of processes that share one, once."""
        for process in self._processes.values():
            for watched in process.watched:
                if any(inode in self._sockets and is_door(self._sockets[inode]) for inode in watched):
                    yield watched

    def _only_sets(self, together: Mapping[frozenset[int], list[int]]) -> dict[int | None, frozenset[int]]:
        """By process: what is served there, of those that serve one entrypoint."""
        owners: dict[int | None, list[frozenset[int]]] = defaultdict(list)
        for watched, inodes in together.items():
            if any(not _is_grant(self._sockets[inode]) for inode in inodes):
                owners[self._server_of(inodes[0])].append(watched)
        return {pid: sets[0] for pid, sets in owners.items() if pid is not None and len(sets) == 1}

    def _server_of(self, inode: int) -> int | None:
        return next((holder.pid for holder in self.holders(inode)), None)

    def _entrypoint(self, inodes: Iterable[int], watched: frozenset[int]) -> Entrypoint:
        pairs = [inode for inode in sorted(watched) if self._is_one_of_a_pair(inode) and not self._wakes(inode)]
        signals = [inode for inode in pairs if self._is_signal(inode)]
        doors = sorted((self._door(self._sockets[inode]) for inode in inodes), key=lambda door: (door.label, door.name))
        own = next((door for door in doors if not door.is_grant), None)
        return Entrypoint(
            own,
            tuple(door for door in doors if door is not own),
            tuple(self._channel(inode) for inode in pairs if inode not in signals),
            len(signals),
            tuple(self._listeners(watched)),
        )

    def _door(self, end: Socket) -> Door:
        name = printable(end.name[1:].decode("utf-8", "backslashreplace"))
        client_end = self._sockets.get(end.peer)
        return Door(
            name.removeprefix(NAME_PREFIX).rpartition("/")[0],
            name,
            _is_grant(end),
            end.user,
            self.holders(end.inode),
            client_end is not None,
            self.holders(end.peer) if client_end is not None else (),
            self._queue(end),
            end.shut and client_end is not None,
        )

    def _is_one_of_a_pair(self, inode: int) -> bool:
        """Whether it is a channel's end, or a signal's: where its pair was made in another namespace, unknown here."""
        end = self._sockets.get(inode)
        if end is None:
            return bool(self.holders(inode))
        return end.kind == socket.SOCK_SEQPACKET and not end.name and not end.listens and end.peer != 0

    def _wakes(self, inode: int) -> bool:
        """Whether it is what a signal handler wakes the loop by: of one process alone, whose channels may all block."""
        end = self._sockets.get(inode)
        pids = {holder.pid for holder in self.holders(inode)}
        if end is None or len(pids) != 1 or pids != {holder.pid for holder in self.holders(end.peer)}:
            return False
        pid = min(pids)
        return self._never_blocks(pid, self._processes[pid].sockets[inode][0])

    def _is_signal(self, inode: int) -> bool:
        """The client end of a signal has the shortest queue there is."""
        end = self._sockets.get(inode)
        peer = self._sockets.get(end.peer) if end is not None else None
        return peer is not None and 0 < peer.room <= _SHORTEST

    def _channel(self, inode: int) -> Channel:
        end = self._sockets.get(inode)
        if end is None:
            return Channel((), None, None)
        peer = self._sockets.get(end.peer)
        return Channel(self.holders(end.peer), self._queue(end), self._queue(peer) if peer is not None else None)

    def _listeners(self, watched: frozenset[int]) -> Iterator[Listener]:
        for inode in sorted(watched):
            end = self._sockets.get(inode)
            if end is not None and end.listens:
                yield Listener(printable(end.name.removesuffix(b"\0").decode("utf-8", "backslashreplace")), end.unread)

    def _queue(self, end: Socket) -> Queue | None:
        memory = waiting_at(end, self._sockets)
        if not memory:
            return None
        readers = self.holders(end.inode)
        numbers = ((holder.pid, self._processes[holder.pid].sockets[end.inode][0]) for holder in readers)
        travelling = next((self._travelling(pid, number) for pid, number in numbers), None)
        return Queue(readers, memory, travelling, end.inode in self._stuck)


def _is_grant(end: Socket) -> bool:
    return end.name.rpartition(b"/")[2].startswith(GRANTS.encode())
