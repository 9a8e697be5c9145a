"""Capabilities between Python processes on Linux."""

from capmarshal._descriptor import Descriptor
from capmarshal._message import Message

__all__ = ["Descriptor", "Message"]
