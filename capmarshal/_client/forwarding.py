"""Calls as they travel, made by who needs no interface for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import Capability
from capmarshal._client.knocking import exchange
from capmarshal._client.logged_proxy import logged
from capmarshal._client.proxy import invoke
from capmarshal._kernel import call_log
from capmarshal._kernel.errors import Error, with_article
from capmarshal._protocol import faults
from capmarshal._typed.untyped import Untyped, UntypedCall, method_of

if TYPE_CHECKING:
    from capmarshal._capabilities.capability import Proxy
    from capmarshal._typed.untyped import UntypedResult


def check_call(call: UntypedCall) -> None:
    """Refuses what is none.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(call, UntypedCall):
        raise TypeError(f"what is forwarded is an UntypedCall, not {with_article(type(call).__name__)}")


def untyped(to: object) -> Proxy:
    """What calls are made by that are passed on.

    Raises:
        TypeError, ArgumentError, Closed: it cannot be called.
    """
    if not isinstance(to, Capability):
        raise TypeError(f"a call is forwarded to a Capability, not to {to!r}: capmarshal.capability() gives a proxy's")
    proxy: Any = to.cast(Untyped)
    made: Proxy = proxy
    return made


def forward(call: UntypedCall, to: Capability) -> UntypedResult:
    """Makes a call as it is, and gives the result as it came.

    The call is lent what is in its table; what is in the table of the result is the caller's.  It takes no longer than
    a :class:`timeout` that is in force; in a server's method, than the call that this runs for.

    Args:
        call: as :meth:`Forwarder.forward` has it, or made by the caller.
        to: the object that is called.

    Raises:
        RemoteError: the method raised an error, declared or not: :attr:`RemoteError.type` says which.  Let through by
            :meth:`Forwarder.forward`, it is that error again.
        Disconnected, CallTimeout, Revoked, ArgumentError, UnknownMethod, StaleCapability: as of any call.
    """
    check_call(call)
    proxy, called = untyped(to), method_of(call)
    try:
        by = logged(invoke, exchange) if call_log.wanted() else invoke
        result: UntypedResult = by(proxy, called, (call,))
    except Error as error:
        # What is raised for a call that is made for another is carried on as it is.
        faults.carry(error, faults.of_call(error))
        raise
    return result
