"""An answer on its way out: the one that a client is allowed to cost its server."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from capmarshal._descriptors import reaper as _reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._kernel.native import DESCRIPTORS_MAX, ffi
from capmarshal._protocol import parts as _parts
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.parts import Piece, send_piece

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capmarshal._server.answer import Answer

# What send() says when it can go on only after a GO of the client.
AWAITS_GO = 1


class Outbox:
    """Sends an answer, whole or in parts, as far as its receiver has room, and goes on later.

    Args:
        answer: taken: its arguments are closed already, and its results are when all is sent.
        room: bytes that one record may have.

    Attributes:
        call_id: of the call.
        give_up: until when the kernel's refusal of more descriptors in flight is borne; None while there is none.
        awaits_go: the client is to say when it goes on.
        begun: a part of it is sent.
        moved: when some of it was last sent; CLOCK_MONOTONIC, nanoseconds.
        stalled: there was no room where the kernel had reported some.
        waited: it could not be sent at once.

    Raises:
        TableFull: no room for duplicates of what the server keeps and may close at any time.
    """

    __slots__ = (
        "_answer", "_copies", "_next", "_pieces", "_wanted_room",
        "awaits_go", "begun", "call_id", "give_up", "moved", "stalled", "waited",
    )  # fmt: skip

    def __init__(self, answer: Answer, room: int) -> None:
        self.call_id = answer.id
        self.give_up: int | None = None
        self.moved = time.monotonic_ns()
        self.awaits_go = self.begun = self.stalled = self.waited = self._wanted_room = False
        self._answer = answer
        self._copies = DescriptorList()
        numbers = list(answer.numbers)
        try:
            self._copies = DescriptorList.dup_of([numbers[slot] for slot in answer.kept])
            for slot, copy in zip(answer.kept, self._copies.numbers(), strict=True):
                numbers[slot] = copy
        except BaseException:
            self.close()
            raise
        size = len(answer.data)
        self._pieces: Iterator[Piece] = (
            iter((Piece(b"", 0, size, numbers, waits=False),))
            if size <= room and len(numbers) <= DESCRIPTORS_MAX
            else _parts.cut(answer.id, size, numbers, min(room - _wire.HEAD_SIZE, _parts.PART_BYTES))
        )
        self._next: Piece | None = next(self._pieces)

    def send(self, number: int) -> int:
        """Sends what can be sent: 0 when that was all, AWAITS_GO, or the -errno of the piece that was not sent."""
        memory = ffi.from_buffer(self._answer.data)
        self.awaits_go = False
        while self._next is not None:
            piece = self._next
            status = send_piece(number, piece, memory)
            if status != 0:
                self.waited = True
                self.stalled = self._wanted_room and status == -errno.EAGAIN
                self._wanted_room = status == -errno.EAGAIN
                return status
            self.begun, self.give_up, self._wanted_room = True, None, False
            self.moved = time.monotonic_ns()
            self._next = next(self._pieces, None)
            if piece.waits:
                self.waited = self.awaits_go = True
                return AWAITS_GO
        return 0

    @property
    def size(self) -> int:
        """Bytes of the answer."""
        return len(self._answer.data)

    def close(self) -> None:
        """Ends the call: closes what it still owned."""
        if self._copies:
            _reaper.close([self._copies])
        self._answer.close_results()
