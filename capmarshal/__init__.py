"""Capabilities between Python processes on Linux.

A process that holds a capability may call the object behind it, and may hand it on: as an argument or a result of a
call, or to a child when it is created.  Nothing else gives access.  Open files travel the same way.
"""

from capmarshal import lx
from capmarshal._capabilities.capability import Capability, make_proxies_by
from capmarshal._capabilities.gone import wait_gone
from capmarshal._child.spawn import parent, spawn
from capmarshal._client.proxy import make_class
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.message import Message
from capmarshal._entrypoint import Entrypoint
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
    ProtocolError,
    RecordTooBig,
    RemoteError,
    StaleCapability,
    TableFull,
    TooLarge,
    TooManyInFlight,
    UnknownMethod,
)
from capmarshal._server.keeping import keep
from capmarshal._server.limits import Limits
from capmarshal._typed.interface import Interface, capability, method, raises

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "CallTimeout",
    "Capability",
    "Closed",
    "Dataspace",
    "Descriptor",
    "DescriptorsLost",
    "Disconnected",
    "Entrypoint",
    "Error",
    "Interface",
    "InterfaceError",
    "KernelError",
    "Limits",
    "Message",
    "MessageTruncated",
    "NoParent",
    "ProtocolError",
    "RecordTooBig",
    "RemoteError",
    "StaleCapability",
    "TableFull",
    "TooLarge",
    "TooManyInFlight",
    "UnknownMethod",
    "capability",
    "keep",
    "lx",
    "method",
    "parent",
    "raises",
    "remaining",
    "spawn",
    "timeout",
    "wait_gone",
]

make_proxies_by(make_class)
del make_class, make_proxies_by

for _name in __all__:
    # Tracebacks, reprs and pickles say `capmarshal.Disconnected`: where it is to be had, not where it is written.
    if _name != "lx":
        globals()[_name].__module__ = __name__
del _name
