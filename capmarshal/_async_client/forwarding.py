"""Calls as they travel, awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._async_client.calling import exchange
from capmarshal._async_client.proxy import invoke, invoke_and_log
from capmarshal._client.forwarding import Carrying, target_of
from capmarshal._kernel import call_log

if TYPE_CHECKING:
    from capmarshal._capabilities.capability import Capability
    from capmarshal._typed.untyped import UntypedCall, UntypedResult


async def forward(call: UntypedCall, to: Capability) -> UntypedResult:
    """As :func:`capmarshal.forward`, awaited.  Where it is cancelled, the call is.

    Raises:
        RemoteError, Disconnected, CallTimeout, Revoked, ArgumentError, UnknownMethod, StaleCapability: as that.
    """
    proxy, called = target_of(call, to)
    with Carrying():
        if call_log.wanted():
            logged: UntypedResult = await invoke_and_log(exchange, proxy, called, (call,))
            return logged
        result: UntypedResult = await invoke(proxy, called, (call,))
        return result
