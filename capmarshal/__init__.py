"""Capabilities between Python processes on Linux.

A process that holds a capability may call the object behind it, and may hand it on: as an argument or a result of a
call, or to a child when it is created.  Nothing else gives access.  Open files travel the same way.
"""

from typing import TYPE_CHECKING, Any

from capmarshal import lx
from capmarshal._capabilities import pickling as _pickling
from capmarshal._capabilities.capability import Capability
from capmarshal._capabilities.connecting import connect
from capmarshal._capabilities.gone import wait_gone
from capmarshal._capabilities.handover import receive_capability, send_capability
from capmarshal._capabilities.signal_capability import Signal
from capmarshal._capabilities.signal_receiver import SignalReceiver
from capmarshal._child.activation import activated, notify_ready
from capmarshal._child.confine import confine
from capmarshal._child.confinement import Confinement
from capmarshal._child.inherited import parent
from capmarshal._child.spawn import spawn
from capmarshal._descriptors.buffer_pool import BufferPool
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.message import Message
from capmarshal._descriptors.shared_buffer import SharedBuffer
from capmarshal._kernel.deadline import remaining, timeout
from capmarshal._kernel.errors import (
    ArgumentError,
    CallTimeout,
    Closed,
    DescriptorsLost,
    Disconnected,
    Error,
    InterfaceError,
    KernelError,
    MessageTruncated,
    NoParent,
    NotActivated,
    NotConfined,
    ProtocolError,
    RecordTooBig,
    Refused,
    RemoteError,
    Revoked,
    StaleCapability,
    TableFull,
    TooLarge,
    TooManyInFlight,
    UnknownMethod,
)

if TYPE_CHECKING:
    from capmarshal._calling import (
        Caller,
        Entrypoint,
        Forwarder,
        Interface,
        Limits,
        UntypedCall,
        UntypedResult,
        awaitable,
        awaitable_stream,
        blocking,
        blocking_stream,
        caller,
        capability,
        forward,
        keep,
        method,
        raises,
    )

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "BufferPool",
    "CallTimeout",
    "Caller",
    "Capability",
    "Closed",
    "Confinement",
    "Dataspace",
    "Descriptor",
    "DescriptorsLost",
    "Disconnected",
    "Entrypoint",
    "Error",
    "Forwarder",
    "Interface",
    "InterfaceError",
    "KernelError",
    "Limits",
    "Message",
    "MessageTruncated",
    "NoParent",
    "NotActivated",
    "NotConfined",
    "ProtocolError",
    "RecordTooBig",
    "Refused",
    "RemoteError",
    "Revoked",
    "SharedBuffer",
    "Signal",
    "SignalReceiver",
    "StaleCapability",
    "TableFull",
    "TooLarge",
    "TooManyInFlight",
    "UnknownMethod",
    "UntypedCall",
    "UntypedResult",
    "activated",
    "awaitable",
    "awaitable_stream",
    "blocking",
    "blocking_stream",
    "caller",
    "capability",
    "confine",
    "connect",
    "forward",
    "keep",
    "lx",
    "method",
    "notify_ready",
    "parent",
    "raises",
    "receive_capability",
    "remaining",
    "send_capability",
    "spawn",
    "timeout",
    "wait_gone",
]

# What calls and serves, with msgspec and the log that it needs, takes longer to import than all the rest; and a process
# that holds capabilities and passes them on, as many a parent does, needs none of it.
_CALLING = frozenset(
    {
        "Caller",
        "Entrypoint",
        "Forwarder",
        "Interface",
        "Limits",
        "UntypedCall",
        "UntypedResult",
        "awaitable",
        "awaitable_stream",
        "blocking",
        "blocking_stream",
        "caller",
        "capability",
        "forward",
        "keep",
        "method",
        "raises",
    }
)


def _show(name: str, thing: Any) -> None:
    # Tracebacks, reprs and pickles say `capmarshal.Disconnected`: where it is to be had, not where it is written.
    thing.__module__ = __name__
    globals()[name] = thing


if not TYPE_CHECKING:
    # To a type checker it would say that the package has every name.
    def __getattr__(name: str) -> object:
        if name == "aio":
            raise AttributeError(
                f"module {__name__!r} has no attribute 'aio' unless that is imported, for it needs anyio: say `from "
                "capmarshal import aio`, after pip install 'anyio>=4.7'"
            )
        if name == "testing":
            raise AttributeError(
                f"module {__name__!r} has no attribute 'testing' unless that is imported: say `from capmarshal import "
                "testing`"
            )
        if name not in _CALLING:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from capmarshal import _calling

        for each in _CALLING:
            _show(each, getattr(_calling, each))
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


_pickling.enable()

for _name in {*__all__} - _CALLING - {"lx"}:
    _show(_name, globals()[_name])
del _name
