"""pyzmq over ipc: REQ and REP, with msgspec.

https://pyzmq.readthedocs.io/en/latest/howto/serialization.html: ``send_json`` and ``send_pyobj`` are not meant for
performance, an application should define its own; msgspec is one that it names.  Messages this small are copied, which
is the default, and cheaper by the documentation of ``copy_threshold``.  Blocking sockets, not those for asyncio.
"""

from bench.rivals import client
from bench.rivals.records import Add, decode_request, decode_result, encode


def serve(directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    import zmq

    client.end_with_input()
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.bind("ipc://" + client.path(directory))
        while True:
            match decode_request(socket.recv()):
                case Add(a, b):
                    socket.send(encode(a + b))


def connect(directory: str) -> client.Client:
    """A client of that server."""
    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.REQ)
    # The first call would wait for ever for a server that is not there.
    socket.rcvtimeo = round(client.PATIENCE * 1000)
    socket.linger = 0
    socket.connect("ipc://" + client.path(directory))

    def add(a: int, b: int) -> int:
        socket.send(encode(Add(a, b)))
        return decode_result(socket.recv())

    return client.Client(add, context.destroy)
