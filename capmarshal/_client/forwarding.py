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
    from types import TracebackType
    from typing import Self

    from capmarshal._capabilities.capability import Proxy
    from capmarshal._typed.untyped import UntypedMethod, UntypedResult


class Carrying:
    """A block in which a call is made for another: what is raised for that is carried on as it is."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Error):
            faults.carry(error, faults.of_call(error))


def target_of(call: UntypedCall, to: Capability) -> tuple[Proxy, UntypedMethod]:
    """What is called, and by which method.

    Raises:
        TypeError, ValueError, Closed: it cannot be.
    """
    if not isinstance(call, UntypedCall):
        raise TypeError(f"what is forwarded is an UntypedCall, not {with_article(type(call).__name__)}")
    if not isinstance(to, Capability):
        raise TypeError(f"a call is forwarded to a Capability, not to {to!r}: capmarshal.capability() gives a proxy's")
    proxy: Any = to.cast(Untyped)
    return proxy, method_of(call)


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
    proxy, called = target_of(call, to)
    with Carrying():
        by = logged(invoke, exchange) if call_log.wanted() else invoke
        result: UntypedResult = by(proxy, called, (call,))
        return result
