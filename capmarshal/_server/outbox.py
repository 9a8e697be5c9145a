"""An answer on its way out: the one that a client is allowed to cost its server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._kernel.native import DESCRIPTORS_MAX
from capmarshal._protocol import parts, wire
from capmarshal._protocol.parts import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capmarshal._descriptors.closing import ClosableFile
    from capmarshal._descriptors.descriptor_list import DescriptorList
    from capmarshal._server.answer import Answer


class Outbox:
    """The pieces of an answer that are not sent yet.

    Args:
        answer: taken; its arguments are closed already, or being closed.
        room: bytes that one record may have.

    Attributes:
        call_id: of the call.
        next: the piece to send; None if all are sent.
        begun: a piece is sent.
        give_up: until when it is borne that no more descriptors may be in flight; None while they may.
        moved: when some of it was last sent; CLOCK_MONOTONIC, nanoseconds.
        wants_room: the client's queue was full, and nothing of it is sent since.

    Raises:
        TableFull: no room for duplicates of what the server keeps and may close at any time.
        KernelError: what it keeps is closed already.
    """

    __slots__ = (
        "__weakref__",
        "_answer",
        "_copies",
        "_pieces",
        "_record",
        "begun",
        "call_id",
        "give_up",
        "moved",
        "next",
        "wants_room",
    )

    def __init__(self, answer: Answer, room: int) -> None:
        self.call_id = answer.id
        self.give_up: int | None = None
        self.moved = time.monotonic_ns()
        self.begun = self.wants_room = False
        self._answer = answer
        self._copies: list[Descriptor] = []
        numbers = list(answer.numbers)
        try:
            for slot in answer.kept:
                copy = Descriptor.dup_of(numbers[slot])
                self._copies.append(copy)
                numbers[slot] = copy.fileno()
        except BaseException:
            for made in self._copies:
                made.close()
            raise
        in_one = answer.size <= room and len(numbers) <= DESCRIPTORS_MAX
        most = room if in_one else min(room - wire.HEAD_SIZE, parts.PART_BYTES)
        self._record = record = parts.Gathered((answer.data, answer.rest), most)
        self._pieces: Iterator[Piece] = (
            iter((Piece(b"", record.size, numbers, waits=False),)) if in_one else record.cut(answer.id, numbers)
        )
        self.next: Piece | None = next(self._pieces)

    def send(self, number: int, piece: Piece) -> int:
        """Sends the next piece, or the rest of it; 0 or -errno."""
        before = self._record.sent
        status = self._record.send(number, piece)
        if status == 0 or self._record.sent > before:
            self.begun, self.give_up, self.wants_room = True, None, False
            self.moved = time.monotonic_ns()
        if status == 0:
            self.next = next(self._pieces, None)
        return status

    @property
    def size(self) -> int:
        """Bytes of the answer."""
        return self._record.size

    def steal_owned(self) -> list[ClosableFile | DescriptorList]:
        """What the call still owned, to be closed by the caller: its results, and what was made to be sent."""
        owned: list[ClosableFile | DescriptorList] = [*self._answer.results, *self._copies]
        self._copies = []
        self._answer = self._answer._replace(results=())
        return owned
