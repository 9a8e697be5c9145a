"""All that makes calls and serves them: what the package imports with the first of these names that is asked for.

Not each with its own: whoever has an :class:`Interface` may go into a sandbox, fill its descriptor table, or fork while
other threads run, and then make its first call or entrypoint, when a file can't be opened or another thread's import
never ends.
"""

# Before msgspec, whose C part takes it without looking whether it came: Ctrl-C would be lost in there, and what msgspec
# does next kill the process (SIGSEGV).
import datetime as _datetime  # noqa: F401, ICN001 - see above

from capmarshal._capabilities.capability import make_proxies_by
from capmarshal._client.proxy import make_class
from capmarshal._entrypoint import Entrypoint
from capmarshal._server.keeping import keep
from capmarshal._server.limits import Limits
from capmarshal._server.listener import Caller
from capmarshal._typed.interface import Interface, capability, method, raises
from capmarshal._typed.twins import awaitable, blocking

__all__ = [
    "Caller",
    "Entrypoint",
    "Interface",
    "Limits",
    "awaitable",
    "blocking",
    "capability",
    "keep",
    "method",
    "raises",
]

make_proxies_by(make_class)
