"""Pyro5 over a unix socket, with the marshal serializer.

https://pyro5.readthedocs.io/en/latest/servercode.html: ``Daemon(unixsocket=)`` and an exposed class; clientcode.html
calls marshal "very limited but very fast", and the package's own benchmark uses it.  The threaded server, which is the
default and which it says to take if in doubt: a connection has a thread that waits for it.
"""

from __future__ import annotations

from . import _common

NAME = "Pyro5"
PURE_PYTHON = True
PACKAGE = "Pyro5"
CANNOT = "Pyro5 serializes arguments to bytes on a stream; its sockets do not send descriptors"

_OBJECT = "adder"


def unavailable() -> str:
    """Why it cannot be measured here; empty if it can."""
    return _common.missing("Pyro5")


def version() -> str:
    """That of the package."""
    return _common.version(PACKAGE)


def serve(directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    import Pyro5.api

    @Pyro5.api.expose
    class Adder:
        def add(self, a: int, b: int) -> int:
            return a + b

    _common.end_with_input()
    with Pyro5.api.Daemon(unixsocket=_common.path(directory)) as daemon:
        daemon.register(Adder(), _OBJECT)
        daemon.requestLoop()


def connect(directory: str) -> _common.Client:
    """A client of that server."""
    import Pyro5.api
    import Pyro5.errors

    adder = Pyro5.api.Proxy(f"PYRO:{_OBJECT}@./u:{_common.path(directory)}")
    adder._pyroSerializer = "marshal"  # noqa: SLF001 - documented, and named so
    _common.patiently(adder._pyroBind, Pyro5.errors.CommunicationError)  # noqa: SLF001 - documented, and named so
    return _common.Blocking(directory, adder.add, adder._pyroRelease)  # noqa: SLF001 - documented, and named so
