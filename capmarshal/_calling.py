"""All that makes calls and serves them: what the package imports with the first of these names that is asked for.

Not each with its own: whoever has an :class:`Interface` may go into a sandbox, fill its descriptor table, or fork while
other threads run, and then make its first call or entrypoint, when a file can't be opened or another thread's import
never ends.
"""

# Before msgspec, whose C part takes it without looking whether it came: Ctrl-C would be lost in there, and what msgspec
# does next kill the process (SIGSEGV).
import datetime as _datetime  # noqa: F401, ICN001 - see above
from typing import Any

from capmarshal._capabilities.capability import make_proxies_by
from capmarshal._client import proxy as _blocking
from capmarshal._client.forwarding import forward
from capmarshal._entrypoint import Entrypoint
from capmarshal._server.caller import Caller
from capmarshal._server.limits import Limits
from capmarshal._server.ownership import caller, keep
from capmarshal._server.passed_streams import serve as _serve
from capmarshal._typed import streams as _streams  # noqa: F401 - says how what is a stream is read
from capmarshal._typed.colour import colour_of as _colour_of
from capmarshal._typed.forwarder import Forwarder
from capmarshal._typed.interface import Interface, capability, method, raises
from capmarshal._typed.twins import awaitable, awaitable_stream, blocking, blocking_stream
from capmarshal._typed.untyped import UntypedCall, UntypedResult

__all__ = [
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
]


def _make_class(interface: type[Any], timed: bool, logged: bool) -> type[Any]:
    """A class of proxies for an interface, of its colour; see :func:`capmarshal._client.proxy.make_class`.

    Raises:
        ImportError: its methods are awaited, and anyio is not there.
    """
    if _colour_of(interface) != "awaitable":
        return _blocking.make_class(interface, timed, logged, _serve)
    # Not before: who awaits nothing has no use for anyio, and may not have it.
    try:
        import anyio as _anyio  # noqa: F401 - whether it is there
    except ImportError as error:
        words = f"{interface.__qualname__} is awaitable, which needs anyio: pip install 'anyio>=4.7'"
        raise ImportError(words) from error
    from capmarshal._async_client import proxy
    from capmarshal._async_server.passed_streams import serve

    return proxy.make_class(interface, timed, logged, serve)


make_proxies_by(_make_class)
