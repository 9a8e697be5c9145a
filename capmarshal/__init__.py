"""Capabilities between Python processes on Linux.

A process that holds a capability may call the object behind it, and may hand it on: as an argument or a result of a
call, or to a child when it is created.  Nothing else gives access.  Open files travel the same way.
"""

from capmarshal import lx
from capmarshal._capability import Capability
from capmarshal._child import parent, spawn
from capmarshal._dataspace import Dataspace
from capmarshal._deadline import timeout
from capmarshal._descriptor import Descriptor
from capmarshal._dispatch import keep
from capmarshal._entrypoint import Entrypoint
from capmarshal._errors import (
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
from capmarshal._interface import Interface, capability, method, raises
from capmarshal._message import Message

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
    "spawn",
    "timeout",
]
