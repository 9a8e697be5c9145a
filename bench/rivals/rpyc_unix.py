"""rpyc over a unix socket: a ``Service`` behind the threaded server.

https://rpyc.readthedocs.io/en/latest/docs/services.html and servers.html: ``rpyc.exposed`` methods, ``socket_path=`` of
the server, ``unix_connect``.  Numbers travel by value in its own format; there is no serializer to choose.  The method
is looked up once, and its remote reference is kept: to look it up by each call would be a second round trip.
"""

from __future__ import annotations

from . import _common

NAME = "rpyc"
PURE_PYTHON = True
PACKAGE = "rpyc"
CANNOT = "rpyc sends values and references to Python objects: a descriptor's number means nothing to the other process"


def unavailable() -> str:
    """Why it cannot be measured here; empty if it can."""
    return _common.missing("rpyc")


def version() -> str:
    """That of the package."""
    return _common.version(PACKAGE)


def serve(directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    import rpyc
    from rpyc.utils.server import ThreadedServer

    @rpyc.service
    class Adder(rpyc.Service):
        @rpyc.exposed
        def add(self, a: int, b: int) -> int:
            return a + b

    _common.end_with_input()
    ThreadedServer(Adder, socket_path=_common.path(directory)).start()


def connect(directory: str) -> _common.Client:
    """A client of that server."""
    from rpyc.utils.factory import unix_connect

    connection = _common.patiently(lambda: unix_connect(_common.path(directory)), OSError)
    return _common.Blocking(directory, connection.root.add, connection.close)
