"""What goes back to a client, and what the call owned that is to be closed around it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple, Protocol

from capmarshal._descriptors import reaper
from capmarshal._descriptors.closing import close_whole
from capmarshal._kernel.native import lib
from capmarshal._protocol import faults, wire
from capmarshal._protocol.faults import Code, Fault
from capmarshal._typed.long import parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._capabilities.door import Door
    from capmarshal._descriptors.closing import ClosableFile
    from capmarshal._descriptors.descriptor_list import DescriptorList
    from capmarshal._typed.long import Payload


class Turn(Protocol):
    """The record that is being answered."""

    @property
    def id(self) -> int:
        """Of the call."""

    @property
    def slot(self) -> int:
        """Of the channel that it came by."""


class Answer(NamedTuple):
    """What goes back to the client.

    Attributes:
        id: of the call.
        data: the record, or where it is long the beginning of it.
        numbers: the descriptors to send with it, borrowed from ``results``, ``doors`` and what the server keeps.
        arguments: that the call owned; to be closed before the answer leaves.  None of them has one of ``numbers``.
        results: that the call owned; to be closed when the answer is sent, before the channel is read again.
        kept: slots of descriptors that the server has kept, and may close at any time.
        doors: whose client ends are sent; held until they are.
        rest: of the record.  Joined with the beginning, it would be copied.
        escape: what the method raised, if that is to end the service too; see :meth:`let_escape`.
    """

    id: int
    data: bytes
    numbers: Sequence[int] = ()
    arguments: Sequence[ClosableFile | DescriptorList] = ()
    results: Sequence[ClosableFile | DescriptorList] = ()
    kept: Sequence[int] = ()
    doors: Sequence[Door] = ()
    rest: bytes = b""
    escape: list[BaseException] | None = None

    @property
    def size(self) -> int:
        """Bytes of the record."""
        return len(self.data) + len(self.rest)

    def let_escape(self) -> None:
        """Raises what is to end the service, where the call has brought something like that, and is over."""
        if self.escape:
            # Out of the list: else what is raised would know frames that know it, and keep what is in them.
            raise self.escape.pop()

    def close(self) -> None:
        """Closes all that the call owned, where the answer will not be sent."""
        reaper.close([*self.arguments, *self.results])

    def close_here(self) -> None:
        """Closes all that the call owned in a forked child, where no reaper's thread must outlive the one that forked.

        Its parent has the same files open, so no close is the last, which could block.
        """
        for file in (*self.arguments, *self.results):
            # Whatever it is that an object of the application's raises here.
            with contextlib.suppress(BaseException):
                close_whole(file)


def reply(call_id: int, payload: Payload) -> Answer:
    """An answer that is data alone, of a call that owned nothing."""
    start, rest = parts_of(payload)
    return Answer(call_id, wire.pack_data_reply(call_id, start, lib.cm_cpu()), rest=rest)


def fail(call_id: int, code: Code, message: str, owned: Sequence[ClosableFile | DescriptorList] = ()) -> Answer:
    """An answer that says what went wrong; what came with the call is closed before it leaves, as for any answer."""
    return Answer(call_id, wire.pack_fail(call_id, faults.encode(Fault(code, message))), arguments=owned)
