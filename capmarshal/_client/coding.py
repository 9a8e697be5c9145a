"""What comes of a call's answer, and what is said of its errors: for proxies of both colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.identity import whose_in
from capmarshal._client.unanswered import Unanswered
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.inbox import Inbox, give_back
from capmarshal._descriptors.refused import REFUSALS
from capmarshal._kernel.deadline import in_force
from capmarshal._kernel.errors import KernelError
from capmarshal._kernel.native import FOREVER
from capmarshal._protocol.wire import PLAIN, Fail, Reply
from capmarshal._typed.codec import BAD_PAYLOAD
from capmarshal._typed.incoming import Incoming, Owned
from capmarshal._typed.outgoing import Outgoing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._capabilities.capability import Capability
    from capmarshal._capabilities.door import Door
    from capmarshal._client.channel import Answer
    from capmarshal._client.conversation import Whole
    from capmarshal._kernel.errors import Error
    from capmarshal._typed.arguments import Given, Held
    from capmarshal._typed.method import Method


def explain(
    error: Unanswered | Error, called: Method, target: Capability, arguments: Given, numbers: Sequence[int], held: Held
) -> None:
    """Adds a note to an error of a call that says whose it was; or raises one in its place that says more.

    Args:
        error: that was raised.
        called: the method.
        target: of which object.
        arguments: that were given.
        numbers: the descriptors that were sent.
        held: what has held them until then.

    Raises:
        CallTimeout, Disconnected: there was no answer.
        ArgumentError: it was an argument that the kernel sends to nobody.
    """
    if isinstance(error, Unanswered):
        raise error.becomes(f"{called.where}, {whose_in(target.name)}: {error}", error.ran) from None
    if isinstance(error, KernelError) and error.errno in REFUSALS and numbers:
        if not isinstance(held, Outgoing):
            held = Outgoing()
            called.encode_arguments(arguments, held)
        refused = called.unsendable(arguments, held)
        if refused is not None:
            raise refused from error
    error.add_note(f"in a call of {called.where}, {whose_in(target.name)}")


def result_of(called: Method, answer: Answer | Whole, door: Door) -> Any:
    """What the answer that came through a door says; its descriptors are taken, and an inbox is given back.

    Raises:
        Exception: that the method raised, or :class:`RemoteError`.
        CallTimeout: it raised that too late, and may have for that.
        ArgumentError, StaleCapability: it is not what the interface says.
    """
    if type(answer) is tuple and type(answer[1]) is Inbox:
        return _result_in_order(called, answer[0], answer[1], door)
    if type(answer) is bytes and called.result_is_data:
        try:
            return called.decode_data_result(answer)
        except BAD_PAYLOAD as error:  # anything else is a signal handler's, and its program's
            return result_after(called, error, answer, door)
    return _result(called, answer, door)  # type: ignore[arg-type]  # of none


def result_after(called: Method, error: Exception, answer: bytes, door: Door) -> Any:
    """As :func:`result_of`, of data that was decoded already, which has raised ``error``."""
    called.refuse_result(error, answer)
    return _result(called, answer, door)


def _result_in_order(called: Method, payload: bytes, inbox: Inbox, door: Door) -> Any:
    """The result for a payload, and plain descriptors in order, in an inbox that is given back."""
    owned = Owned()
    try:
        made = None
        if called.result_in_order is not None:
            try:  # noqa: SIM105 - contextlib.suppress() costs more than all of it
                made = called.result_in_order.received(payload, inbox, owned)
            except BAD_PAYLOAD:  # said below
                pass
        if made is not None:
            give_back(inbox)
            return made[0]
        inbox.steal_each(owned.produced)
        count = len(owned.produced)
        give_back(inbox)
        reply = Reply(0, PLAIN[:count], count, memoryview(payload))
        return _result(called, (reply, DescriptorList.of(owned.produced)), door)
    except BaseException:
        reaper.close(owned.produced, door.closing)
        raise


def _result(called: Method, answer: bytes | Whole, door: Door) -> Any:
    """What the answer that came through a door says; its descriptors are taken."""
    if isinstance(answer, bytes):
        payload, incoming = memoryview(answer), Incoming([], DescriptorList())
    else:
        record, descriptors = answer
        if isinstance(record, Fail):
            # Whoever makes its items has the same deadline: which of the three finds first that it has passed is all
            # one.
            until = in_force() if called.stream_arguments else FOREVER
            raise called.error_for(record.payload, f"{called.where}, {door.whose}", until)
        payload, incoming = record.payload, Incoming(record.entries, descriptors, closing=door.closing, door=door)
    try:
        result = called.decode_result(payload, incoming)
    except BaseException:
        incoming.close_all()
        raise
    incoming.close_rest()
    incoming.close_dropped()
    return result
