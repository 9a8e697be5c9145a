"""Proxies whose calls are awaited: what their methods do.

Nothing is encoded or sent before the call is awaited, and none runs inline: the thread that would wait is free.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from capmarshal._async_client.calling import exchange
from capmarshal._async_client.passing import passing
from capmarshal._capabilities.capability import (
    Proxy,
    capability_behind,
    make_wire_key,
    open_door_of,
    timeout_of,
)
from capmarshal._client.coding import explain, result_after, result_of
from capmarshal._client.logged_proxy import Line
from capmarshal._client.proxy_class import class_by
from capmarshal._client.pulling import check
from capmarshal._client.unanswered import Unanswered
from capmarshal._kernel.call_log import CANCELLED
from capmarshal._kernel.deadline import await_with_proxy_timeout
from capmarshal._kernel.errors import Error
from capmarshal._protocol.answer_bound import in_force, of_items
from capmarshal._typed.async_stream import AsyncStream
from capmarshal._typed.codec import BAD_PAYLOAD
from capmarshal._typed.marks import CALLED
from capmarshal._typed.stream import timed_as

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from capmarshal._capabilities.door import Door
    from capmarshal._client.channel import Answer, Entries
    from capmarshal._client.passing import Serve
    from capmarshal._typed.arguments import Given, Held
    from capmarshal._typed.long import Payload
    from capmarshal._typed.method import Method

    Exchange = Callable[[Door, bytes, Payload, Entries, Sequence[int]], Awaitable[Answer]]


async def invoke(proxy: Proxy, called: Method, arguments: Given, exchange: Exchange = exchange) -> Any:
    """Makes a call, through a door by ``exchange``: what every proxy method does."""
    way = proxy._way  # noqa: SLF001 - by a function it would cost as much as all that is taken from it
    payload: Payload | None = None
    entries: Entries = ()
    numbers: Sequence[int] = ()
    held: Held = ()
    # As where calls block: what is mostly due is done here.
    if called.arguments_are_data:
        encode = called.encode_data_arguments
        try:  # noqa: SIM105 - contextlib.suppress() costs more than all of it
            payload = encode(arguments)
        except BAD_PAYLOAD:  # said there, with the name of the parameter
            pass
    if payload is None:
        lend = called.lend
        payload, numbers, entries, held = lend(arguments)
    try:
        door = way.door
        if door is None:
            door = open_door_of(capability_behind(proxy))
        try:
            key = way.wire_keys[called.wire_name]
        except KeyError:
            key = make_wire_key(capability_behind(proxy), called.wire_size, called.wire_name)
        answer = await exchange(door, key, payload, entries, numbers)
    except (Unanswered, Error) as error:
        explain(error, called, capability_behind(proxy), arguments, numbers, held)
        raise
    read = called.read_data_result
    if read is not None:
        try:
            return read(answer)  # type: ignore[arg-type]  # what is no payload is refused: see below
        except BAD_PAYLOAD as error:  # said there; anything else is a signal handler's, and its program's
            # Else it is a table, or an error: that msgspec refuses what is none costs less than to ask each time.
            if type(answer) is bytes:
                return result_after(called, error, answer, door)
    return result_of(called, answer, door)


class _AwaitedLine(Line):
    """The line of a call that is awaited."""

    def ended_by(self, kind: type[BaseException]) -> str:
        """What is said of a call that such an error has ended: each event loop has a cancellation of its own."""
        # Thrown away, where the event loop is gone.
        cancelled = kind is GeneratorExit or issubclass(kind, anyio.get_cancelled_exc_class())
        return CANCELLED if cancelled else super().ended_by(kind)


async def _pull(door: Door, key: bytes, payload: Payload, entries: Entries, numbers: Sequence[int]) -> Answer:
    """As ``exchange``, within the bound of the items that are taken here: see :mod:`capmarshal._client.pulling`."""
    bound = of_items.get()
    if bound is None:
        return await exchange(door, key, payload, entries, numbers)
    try:
        in_force.set(bound)
        answer = await exchange(door, key, payload, entries, numbers)
    finally:
        # Not in the context of whoever throws it away.
        if in_force.get() is bound:
            in_force.set(None)
    return check(answer, bound, door)


async def invoke_and_log(exchange: Exchange, proxy: Proxy, called: Method, arguments: Given) -> Any:
    """As :func:`invoke`, through a door by ``exchange``, and logs the call."""
    with _AwaitedLine(proxy, called) as line:

        async def counted(door: Door, key: bytes, payload: Payload, entries: Entries, numbers: Sequence[int]) -> Answer:
            line.count(payload, numbers, None)
            answer: Answer = await exchange(door, key, payload, entries, numbers)
            line.count(payload, numbers, answer)
            return answer

        return await invoke(proxy, called, arguments, counted)


def _in_time(invoke: Callable[..., Any]) -> Callable[..., Any]:
    """Makes calls of proxies with a timeout by ``invoke``."""

    async def invoke_in_time(proxy: Proxy, called: Method, arguments: Given) -> Any:
        return await await_with_proxy_timeout(timeout_of(proxy), invoke, proxy, called, arguments)

    return invoke_in_time


def _stream(invoke: Callable[..., Any], proxy: Proxy, called: Method, arguments: Given) -> AsyncStream[Any]:
    """What iterates over the result of a call, which is made when the first item is awaited; each may take as long."""

    async def begin() -> Any:
        return timed_as(proxy, called.result, await invoke(proxy, called, arguments))

    return AsyncStream(begin)


def make_class(interface: type[Any], timed: bool, logged: bool, serve: Serve) -> type[Any]:
    """A class of proxies for an interface whose methods are awaited.

    Args:
        interface: the class.
        timed: its proxies have timeouts.
        logged: their calls are logged.
        serve: serves arguments that are streams.

    Raises:
        InterfaceError: it has abstract methods that are not remote, or one is declared in a way that cannot work.
    """
    by: Callable[..., Any] = invoke
    through: Exchange = exchange
    if CALLED in vars(interface):
        through = _pull
        by = partial(invoke, exchange=through)
    if logged:
        by = partial(invoke_and_log, through)
    return class_by(interface, _in_time(by) if timed else by, _stream, partial(passing, serve=serve))
