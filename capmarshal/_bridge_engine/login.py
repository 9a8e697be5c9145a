"""Who a bridge is to the nodes that carry its bodies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .tls import Tls

if TYPE_CHECKING:
    import ssl
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Login:
    """Who this is to a node, whichever it is; none of it is shown.

    Attributes:
        user: with ``password``.
        password: that of the user.
        credentials: a file as NATS's tools write it, ``.creds``, or with a user's seed alone; read for each connection.
        tls: for connections that are encrypted; then no other one is used.  Files that are read anew for each, or what
            was made of them once.
        name: which NATS shows in its lists of connections.
    """

    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    credentials: str | Path | None = field(default=None, repr=False)
    tls: Tls | ssl.SSLContext | None = field(default=None, repr=False)
    name: str = "capmarshal"

    def context(self) -> ssl.SSLContext | None:
        """What a connection is encrypted with; None: it is not.

        Raises:
            OSError: a file can't be read.
            ValueError: it is no such file.
        """
        return self.tls.context() if isinstance(self.tls, Tls) else self.tls
