"""Capabilities in event loops: asyncio, uvloop and trio.

The same capabilities, rules and errors as in :mod:`capmarshal`.  Needs anyio, which the extra `async` brings.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

import capmarshal as _capmarshal

try:
    import anyio as _anyio  # noqa: F401 - whether it is there
except ImportError as _error:
    raise ImportError("capmarshal.aio needs anyio: pip install 'anyio>=4.7'") from _error

# Whoever has an awaitable interface may go into a sandbox before it casts to it, or before its event loop begins, and
# can't import anything there.
from capmarshal._async_client import asyncio_watch as _asyncio_watch  # noqa: F401 - see above
from capmarshal._async_client import proxy as _proxy  # noqa: F401 - see above
from capmarshal._async_client.connecting import connect, wait_gone
from capmarshal._async_client.forwarding import forward
from capmarshal._async_client.signals import wait_signal
from capmarshal._async_client.spawn import spawn
from capmarshal._async_server import asyncio_block as _asyncio_block  # noqa: F401 - see above
from capmarshal._async_server import asyncio_driver as _asyncio_driver  # noqa: F401 - see above
from capmarshal._async_server import passed_streams as _passed_streams  # noqa: F401 - see above
from capmarshal._async_server.entrypoint import Entrypoint

__all__ = ["Entrypoint", "connect", "forward", "spawn", "wait_gone", "wait_signal"]

for _name in __all__:
    # Where it is to be had, not where it is written.
    globals()[_name].__module__ = __name__
del _name

if not _TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        words = f"module {__name__!r} has no attribute {name!r}"
        if name in _capmarshal.__all__:
            words += f": that is capmarshal.{name}, also in event loops"
        raise AttributeError(words)
