"""Proxies: objects whose methods are calls of the object behind a capability.

Each proxy method is a generated function with the parameters of the declared one: Python itself binds the arguments,
at a fortieth of the cost of ``inspect.Signature.bind``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import Proxy, badge_of, capability_behind, door_of, open_door_of, timeout_of
from capmarshal._client import logged_proxy
from capmarshal._client.conversation import Unanswered
from capmarshal._client.knocking import exchange
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.inbox import Inbox, give_back
from capmarshal._descriptors.refused import REFUSALS
from capmarshal._kernel.deadline import with_proxy_timeout
from capmarshal._kernel.errors import Error, InterfaceError, KernelError
from capmarshal._protocol.faults import to_exception
from capmarshal._protocol.wire import PLAIN, Fail, Reply
from capmarshal._typed.arguments import NOT_GIVEN
from capmarshal._typed.codec import BAD_PAYLOAD
from capmarshal._typed.colour import colour_of
from capmarshal._typed.marks import defined_by
from capmarshal._typed.method import methods_of
from capmarshal._typed.table import NOTHING, Incoming, Outgoing, Owned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._capabilities.door import Door
    from capmarshal._client.channel import Entries
    from capmarshal._client.conversation import Whole
    from capmarshal._client.logged_proxy import Exchange
    from capmarshal._typed.arguments import Given
    from capmarshal._typed.in_order import Lent
    from capmarshal._typed.long import Payload
    from capmarshal._typed.method import Method


def invoke(proxy: Proxy, called: Method, arguments: Given, exchange: Exchange = exchange) -> Any:
    """Makes a call, through a door by ``exchange``: what every proxy method does."""
    target = capability_behind(proxy)
    payload: Payload | None = None
    outgoing = NOTHING
    entries: Entries = ()
    numbers: Sequence[int] = ()
    # Holds doors until they are sent: a capability may be closed meanwhile.
    lent: Lent | None = None
    if called.arguments_are_data:
        try:
            payload = called.encode_data_arguments(arguments)
        except BAD_PAYLOAD:  # said below, with the name of the parameter
            payload = None
    elif called.arguments_in_order is not None and type(arguments) is tuple:
        try:
            lent = called.arguments_in_order.lent(arguments)
        except Exception:
            # Says which argument it was; where it was none, it was a signal handler's, and its program's.
            called.encode_arguments(arguments, Outgoing())
            raise
        if lent is not None:
            payload, numbers, entries, _ = lent
    if payload is None:
        outgoing = Outgoing()
        payload = called.encode_arguments(arguments, outgoing)
        entries, numbers = outgoing.entries, outgoing.numbers
    try:
        door, badge, name = door_of(target) or open_door_of(target), badge_of(target), called.wire_name
        home = door.home() if door.home is not None else None
        if home is None or not home.serves_this_thread():
            answer = exchange(door, called.wire_size + badge + name, payload, entries, numbers)
        else:
            # Its own thread is this one: waiting for it would be waiting for ever.
            whole = payload if isinstance(payload, bytes) else payload.joined()
            answer = home.call_inline(badge, name, whole, entries, numbers)
    except Unanswered as left:
        raise left.becomes(f"{called.where}, entrypoint {target.label!r}: {left}", left.ran) from None
    except Error as error:
        if isinstance(error, KernelError) and error.errno in REFUSALS and numbers:
            if outgoing is NOTHING:
                outgoing = Outgoing()
                called.encode_arguments(arguments, outgoing)
            refused = called.unsendable(arguments, outgoing)
            if refused is not None:
                raise refused from error
        error.add_note(f"in a call of {called.where}, entrypoint {target.label!r}")
        raise
    if type(answer) is bytes and called.result_is_data:
        try:
            return called.decode_data_result(answer)
        except BAD_PAYLOAD:  # said below, in words of ours; anything else is a signal handler's, and its program's
            pass
    elif type(answer) is tuple and type(answer[1]) is Inbox:
        return _result_in_order(called, answer[0], answer[1], door)
    return _result(called, answer, door)  # type: ignore[arg-type]  # of no inbox


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
            raise to_exception(record.payload, called.raises, f"{called.where}, entrypoint {door.label!r}")
        payload, incoming = record.payload, Incoming(record.entries, descriptors, closing=door.closing)
    try:
        result = called.decode_result(payload, incoming)
    except BaseException:
        incoming.close_all()
        raise
    incoming.close_rest()
    incoming.close_dropped()
    return result


def _in_time(invoke: Callable[..., Any]) -> Callable[..., Any]:
    """Makes calls of proxies with a timeout by ``invoke``."""

    def invoke_in_time(proxy: Proxy, called: Method, arguments: Given) -> Any:
        return with_proxy_timeout(timeout_of(proxy), invoke, proxy, called, arguments)

    return invoke_in_time


def _proxy_method(called: Method, invoke: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the parameters of the declared one, that makes the call by ``invoke``."""
    called.will_be_called()
    scope: dict[str, Any] = {
        "_capmarshal_invoke": invoke,
        "_capmarshal_called": called,
        "_capmarshal_given": called.given,
        "_capmarshal_not_given": NOT_GIVEN,
    }
    signature, seen_keyword = [called.receiver], False
    positional_only = False
    for parameter in called.parameters:
        if positional_only and parameter.kind is not parameter.POSITIONAL_ONLY:
            signature.append("/")
        positional_only = parameter.kind is parameter.POSITIONAL_ONLY
        if parameter.kind is parameter.KEYWORD_ONLY and not seen_keyword:
            signature.append("*")
            seen_keyword = True
        default = "" if parameter.default is parameter.empty else "=_capmarshal_not_given"
        signature.append(f"{parameter.name}{default}")
    if positional_only:
        signature.append("/")
    values = "".join(f"{parameter.name}, " for parameter in called.parameters)
    arguments = f"({values})"
    optional = [parameter.name for parameter in called.parameters if parameter.default is not parameter.empty]
    if seen_keyword:
        arguments = f"_capmarshal_given({values})"
    elif optional:
        all_given = " and ".join(f"{name} is not _capmarshal_not_given" for name in optional)
        arguments = f"({values}) if {all_given} else _capmarshal_given({values})"
    head = f"def {called.name}({', '.join(signature)}):"
    source = f"{head}\n    return _capmarshal_invoke({called.receiver}, _capmarshal_called, {arguments})\n"
    exec(compile(source, f"<proxy of {called.where}>", "exec"), scope)  # noqa: S102 - names of parameters, no data
    made: Callable[..., Any] = scope[called.name]
    made.__doc__ = called.function.__doc__
    made.__qualname__ = called.where
    made.__annotations__ = called.function.__annotations__
    made.__module__ = called.function.__module__
    # Whoever evaluates annotations that are strings needs the globals of the declaration.
    made.__wrapped__ = called.function  # type: ignore[attr-defined]  # as functools.wraps does
    return made


def _refuse_server(interface: type[Any]) -> None:
    """Refuses a class that defines what it declares: a proxy of it would have methods that run here.

    Raises:
        InterfaceError: it is one; names the interface.
    """
    defined = defined_by(interface)
    if defined:
        declared = {called.name: called.where.rpartition(".")[0] for called in methods_of(interface).values()}
        its_own = ", ".join(sorted({declared[name] for name in defined}))
        words = f"{interface.__qualname__} defines {', '.join(defined)}, as a server does"
        raise InterfaceError(f"{words}; cast to the interface: {its_own}")


def make_class(interface: type[Any], timed: bool, logged: bool) -> type[Any]:
    """A class of proxies for an interface: a subclass of it, with every remote method a call.

    Args:
        interface: the class.
        timed: its proxies have timeouts.
        logged: their calls are logged.

    Raises:
        InterfaceError: it has abstract methods that are not remote, or one is declared in a way that cannot work.
    """
    _refuse_server(interface)
    methods_of(interface)
    if colour_of(interface) == "awaitable":
        raise InterfaceError(f"{interface.__qualname__}: awaitable proxies are not supported yet")
    by: Callable[..., Any] = logged_proxy.logged(invoke) if logged else invoke
    by = _in_time(by) if timed else by
    body: dict[str, Any] = {called.name: _proxy_method(called, by) for called in methods_of(interface).values()}
    body["__module__"] = interface.__module__
    metaclass: Any = type(interface)
    made = metaclass(interface.__name__, (Proxy, interface), body)
    if made.__abstractmethods__:
        missing = ", ".join(sorted(made.__abstractmethods__))
        raise InterfaceError(f"{interface.__qualname__}: {missing} abstract, but not declared with @method")
    return made  # type: ignore[no-any-return]  # made by a metaclass that is known at run time only
