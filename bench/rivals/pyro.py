"""Pyro5 over a unix socket, with the marshal serializer.

https://pyro5.readthedocs.io/en/latest/servercode.html: ``Daemon(unixsocket=)`` and an exposed class; clientcode.html
calls marshal "very limited but very fast", and the package's own benchmark uses it.  The threaded server, which is the
default and which it says to take if in doubt: a connection has a thread that waits for it.
"""

from bench.rivals import client

_OBJECT = "adder"


def serve(directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    import Pyro5.api

    @Pyro5.api.expose
    class Adder:
        def add(self, a: int, b: int) -> int:
            return a + b

    client.end_with_input()
    with Pyro5.api.Daemon(unixsocket=client.path(directory)) as daemon:
        daemon.register(Adder(), _OBJECT)
        daemon.requestLoop()


def connect(directory: str) -> client.Client:
    """A client of that server."""
    import Pyro5.api

    adder = Pyro5.api.Proxy(f"PYRO:{_OBJECT}@./u:{client.path(directory)}")
    adder._pyroSerializer = "marshal"  # noqa: SLF001 - documented, and named so
    return client.Client(adder.add, adder._pyroRelease)  # noqa: SLF001 - documented, and named so
