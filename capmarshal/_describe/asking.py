"""Asking an object which methods it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._calling import Interface, method
from capmarshal._capabilities.identity import whose_in
from capmarshal._client.proxy import invoke
from capmarshal._kernel.errors import ArgumentError, ProtocolError, TooLarge, UnknownMethod
from capmarshal._protocol.answer_bound import in_force
from capmarshal._protocol.wire import DESCRIBE, pack_size
from capmarshal._typed.description import Description
from capmarshal._typed.method import Method

if TYPE_CHECKING:
    from capmarshal._capabilities.capability import Capability

# Bytes of what a server may say: all that is in it is read by people, or typed by them.
MOST = 1 << 20
_ASKING = "asking what can be called"


class _Bound:
    """What an answer may have that is a description: one in parts is refused before it has come."""

    @staticmethod
    def too_large(size: int, _: int) -> str:
        """Why an answer is more than is taken; empty if it is not."""
        return f"what the entrypoint says of its object has {size} bytes, and may have {MOST}" if size > MOST else ""


class _Described(Interface):
    """What every object has whose entrypoint says what can be called."""

    @method
    def describe(self) -> msgspec.Raw:
        """Gives the description, as it is."""


class _Describe(Method):
    """Its method, under the name that no other has."""

    def __init__(self) -> None:
        super().__init__(_Described, "describe", _Described.describe)
        self.where = _ASKING
        self.wire_name, self.wire_size = DESCRIBE, pack_size(DESCRIBE)
        self.will_be_called()


def description_of(capability: Capability) -> Description:
    """What the entrypoint of an object says of it.

    Raises:
        UnknownMethod: nothing; the message says why.
        ProtocolError: what cannot be understood.
        Disconnected, CallTimeout, Revoked, StaleCapability: as any call.
    """
    try:
        proxy: Any = capability.cast(_Described)
    except ArgumentError:
        raise UnknownMethod(f"{capability!r} is a signal, which has no methods") from None
    bounded = in_force.set(_Bound())
    try:
        raw: msgspec.Raw = invoke(proxy, _Describe(), ())
    except UnknownMethod as error:
        words = str(error).removeprefix(f"{_ASKING}, {whose_in(capability.name)}: ")
        # Where an entrypoint has never heard of it, it says that there is no such method.
        if "does not say" not in words:
            words = f"it is not said what can be called: its capmarshal is older than that ({words})"
        raise UnknownMethod(words) from None
    except ArgumentError as error:
        raise ProtocolError(f"what the entrypoint says of its object cannot be understood: {error}") from None
    except TooLarge as error:
        raise ProtocolError(str(error)) from None
    finally:
        in_force.reset(bounded)
    if refusal := _Bound.too_large(memoryview(raw).nbytes, 0):
        raise ProtocolError(refusal)
    try:
        return msgspec.msgpack.decode(raw, type=Description)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"what the entrypoint says of its object cannot be understood: {error}") from None
