"""Long calls on their way in: put together part by part, refused where they are too long, and bounded for each peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._protocol import wire as _wire
from capmarshal._protocol.parts import Assembly
from capmarshal._server.dispatch import Received

if TYPE_CHECKING:
    from capmarshal._capabilities.space import Peer
    from capmarshal._server.channels import Client, Clients


class _Coming:
    """What one peer has on its way in, over all its channels: no more than one call may have.

    Attributes:
        taken: by slot, the calls that are being received.
        waiting: slots whose calls are not read on until there is room.
    """

    __slots__ = ("taken", "waiting")

    def __init__(self) -> None:
        self.taken: dict[int, Assembly] = {}
        self.waiting: dict[int, Assembly] = {}


class Reception:
    """Receives the long calls of a server's clients.

    Args:
        clients: of the server.
        max_bytes: of one call's record.
        max_descriptors: of one call.
    """

    def __init__(self, clients: Clients, max_bytes: int, max_descriptors: int) -> None:
        self._clients = clients
        self._max_bytes = max_bytes
        self._max_descriptors = max_descriptors
        self._coming: dict[Peer, _Coming] = {}

    def refusal(self, size: int, descriptors: int, of: str) -> str:
        """Why a record is not taken; empty if it is."""
        if size > self._max_bytes:
            return f"{of} of {size} bytes; the entrypoint's maximum is {self._max_bytes} (max_bytes)"
        if descriptors > self._max_descriptors:
            most = self._max_descriptors
            return f"{of} with {descriptors} descriptors; the entrypoint's maximum is {most} (max_descriptors)"
        return ""

    def begin(self, slot: int, client: Client, begin: _wire.Begin) -> str:
        """A long call is announced; why it is refused, or empty."""
        reason = self.refusal(begin.size, begin.descriptors, "arguments")
        if reason:
            client.refused = begin.id
            return reason
        client.assembly = Assembly(begin)
        self._clients.mark(slot)
        coming = self._coming.setdefault(client.peer, _Coming())
        if self._fits(coming, client.assembly):
            coming.taken[slot] = client.assembly
        else:
            coming.waiting[slot] = client.assembly
            self._clients.pause(slot)
        return ""

    def _fits(self, coming: _Coming, assembly: Assembly) -> bool:
        """Whether the peer may have this one on its way too; one alone always may."""
        if not coming.taken:
            return True
        size = sum(other.size for other in coming.taken.values()) + assembly.size
        descriptors = sum(other.total for other in coming.taken.values()) + assembly.total
        return size <= self._max_bytes and descriptors <= self._max_descriptors

    def part(self, slot: int, client: Client, part: _wire.Part, received: Received) -> tuple[bool, Received | None]:
        """The next part of a long call: whether its client waits for a GO, and the whole call, if it is complete.

        Raises:
            Malformed: it is no such part; the descriptors are the client's assembly's all the same, or closed.
        """
        assembly = client.assembly
        if assembly is None:
            received.close()
            if part.id != client.refused:
                raise _wire.Malformed("a part of nothing", part.id)
            # Sent before the client had read that its call is refused.
            return part.descriptors > 0, None
        go = assembly.add(part, received.descriptors, received.lost)
        if received.cut:
            raise _wire.Malformed("a part is larger than any may be", part.id)
        if not assembly.complete:
            return go, None
        whole = Received(bytes(assembly.data), assembly.steal(), assembly.lost)
        self.end(slot, client)
        return False, whole

    def end(self, slot: int, client: Client) -> None:
        """Ends what is on its way on a channel: it is complete, abandoned, or the channel is being dropped."""
        if client.assembly is None:
            return
        client.assembly.close()
        client.assembly = None
        self._clients.mark(slot)
        coming = self._coming[client.peer]
        coming.taken.pop(slot, None)
        coming.waiting.pop(slot, None)
        for next_slot, assembly in tuple(coming.waiting.items()):
            if not self._fits(coming, assembly):
                break
            coming.taken[next_slot] = coming.waiting.pop(next_slot)
            self._clients.resume(next_slot)
        if not coming.taken:
            del self._coming[client.peer]
