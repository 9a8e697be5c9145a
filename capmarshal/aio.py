"""Capabilities in event loops: asyncio, uvloop and trio.

The same capabilities, rules and errors as in :mod:`capmarshal`.  Needs anyio: ``pip install 'capmarshal[async]'``.
"""

try:
    import anyio as _anyio  # noqa: F401 - whether it is there
except ImportError as _error:
    raise ImportError("capmarshal.aio needs anyio: pip install 'capmarshal[async]'") from _error

__all__: list[str] = []
