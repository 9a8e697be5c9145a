"""Proxies whose calls block: what their methods do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import (
    Proxy,
    badge_of,
    capability_behind,
    make_wire_key,
    open_door_of,
    timeout_of,
)
from capmarshal._client import logged_proxy, pulling
from capmarshal._client.coding import explain, result_after, result_of
from capmarshal._client.knocking import exchange
from capmarshal._client.passing import passing
from capmarshal._client.proxy_class import class_by
from capmarshal._client.unanswered import Unanswered
from capmarshal._kernel.deadline import with_proxy_timeout
from capmarshal._kernel.errors import Error
from capmarshal._typed.codec import BAD_PAYLOAD
from capmarshal._typed.marks import CALLED
from capmarshal._typed.stream import Stream, timed_as

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._client.channel import Entries
    from capmarshal._client.logged_proxy import Exchange
    from capmarshal._client.passing import Serve
    from capmarshal._typed.arguments import Given, Held
    from capmarshal._typed.long import Payload
    from capmarshal._typed.method import Method


def invoke(proxy: Proxy, called: Method, arguments: Given, exchange: Exchange = exchange) -> Any:
    """Makes a call, through a door by ``exchange``: what every proxy method does."""
    way = proxy._way  # noqa: SLF001 - by a function it would cost as much as all that is taken from it
    payload: Payload
    entries: Entries = ()
    numbers: Sequence[int] = ()
    held: Held = ()
    # Data: to call lend() and result_of() costs more than what they do first with it, which so is done here, too.  And
    # CPython 3.11 takes more steps to call an attribute that is no method than to take it and call that.
    if called.arguments_are_data:
        encode = called.encode_data_arguments
        try:
            payload = encode(arguments)
        except BAD_PAYLOAD:  # said there, with the name of the parameter
            payload, numbers, entries, held = called.lend(arguments)
    else:
        lend = called.lend
        payload, numbers, entries, held = lend(arguments)
    try:
        door = way.door
        if door is None:
            door = open_door_of(capability_behind(proxy))
        if door.home is None or (home := door.home()) is None or not home.serves_this_thread():
            try:
                key = way.wire_keys[called.wire_name]
            except KeyError:
                key = make_wire_key(capability_behind(proxy), called.wire_size, called.wire_name)
            answer = exchange(door, key, payload, entries, numbers)
        else:
            # Its own thread is this one: waiting for it would be waiting for ever.
            whole = payload if isinstance(payload, bytes) else payload.joined()
            badge = badge_of(capability_behind(proxy))
            answer = home.call_inline(door, badge, called.wire_name, whole, entries, numbers)
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


def _in_time(invoke: Callable[..., Any]) -> Callable[..., Any]:
    """Makes calls of proxies with a timeout by ``invoke``."""

    def invoke_in_time(proxy: Proxy, called: Method, arguments: Given) -> Any:
        return with_proxy_timeout(timeout_of(proxy), invoke, proxy, called, arguments)

    return invoke_in_time


def _stream(invoke: Callable[..., Any], proxy: Proxy, called: Method, arguments: Given) -> Stream[Any]:
    """What iterates over the result of a call: each further one may take as long."""
    return Stream(timed_as(proxy, called.result, invoke(proxy, called, arguments)))


def make_class(interface: type[Any], timed: bool, logged: bool, serve: Serve) -> type[Any]:
    """A class of proxies for an interface whose methods block.

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
        through = pulling.exchange
        by = partial(invoke, exchange=through)
    if logged:
        by = logged_proxy.logged(invoke, through)
    return class_by(interface, _in_time(by) if timed else by, _stream, partial(passing, serve=serve))
