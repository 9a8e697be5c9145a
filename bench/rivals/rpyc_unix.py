"""rpyc over a unix socket: a ``Service`` behind the threaded server.

https://rpyc.readthedocs.io/en/latest/docs/services.html and servers.html: ``rpyc.exposed`` methods, ``socket_path=`` of
the server, ``unix_connect``.  Numbers travel by value in its own format; there is no serializer to choose.  The method
is looked up once, and its remote reference is kept: to look it up by each call would be a second round trip.
"""

from bench.rivals import client


def serve(directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    import rpyc
    from rpyc.utils.server import ThreadedServer

    @rpyc.service
    class Adder(rpyc.Service):
        @rpyc.exposed
        def add(self, a: int, b: int) -> int:
            return a + b

    client.end_with_input()
    ThreadedServer(Adder, socket_path=client.path(directory)).start()


def connect(directory: str) -> client.Client:
    """A client of that server."""
    from rpyc.utils.factory import unix_connect

    connection = unix_connect(client.path(directory))
    return client.Client(connection.root.add, connection.close)
