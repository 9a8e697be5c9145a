"""Calls as they travel, awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._async_client.calling import exchange
from capmarshal._async_client.proxy import invoke, invoke_and_log
from capmarshal._client.forwarding import check_call, untyped
from capmarshal._kernel import call_log
from capmarshal._kernel.errors import Error
from capmarshal._protocol import faults
from capmarshal._typed.untyped import method_of

if TYPE_CHECKING:
    from capmarshal._capabilities.capability import Capability
    from capmarshal._typed.untyped import UntypedCall, UntypedResult


class Onward:
    """What calls are passed on to, for who passes on many.

    Args:
        to: the object that is called.

    Raises:
        TypeError, ArgumentError, Closed: it cannot be.
    """

    __slots__ = ("_proxy",)

    def __init__(self, to: object) -> None:
        self._proxy = untyped(to)

    async def forward(self, call: UntypedCall) -> UntypedResult:
        """Makes a call; as :func:`forward`."""
        called = method_of(call)
        try:
            if call_log.wanted():
                logged: UntypedResult = await invoke_and_log(exchange, self._proxy, called, (call,))
                return logged
            result: UntypedResult = await invoke(self._proxy, called, (call,))
            return result
        except Error as error:
            faults.carry(error, faults.of_call(error))
            raise


async def forward(call: UntypedCall, to: Capability) -> UntypedResult:
    """As :func:`capmarshal.forward`, awaited.  Where it is cancelled, the call is.

    Raises:
        RemoteError, Disconnected, CallTimeout, Revoked, ArgumentError, UnknownMethod, StaleCapability: as that.
    """
    check_call(call)
    return await Onward(to).forward(call)
