"""The peers that speak over a unix socket of their own, each used as its own documentation recommends."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from multiprocessing import reduction
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

from bench import contenders
from bench.loops import Client, in_asyncio
from bench.processes import PATIENCE


class Adder:
    """What is served by those that serve an object of Python's."""

    def add(self, a: int, b: int) -> int:
        return a + b

    def inode(self, file: Any) -> int:
        """That of a file that multiprocessing has pickled."""
        with os.fdopen(file.detach()) as own:
            return os.fstat(own.fileno()).st_ino


class _Manager(BaseManager):
    pass


def serve_managers(path: str) -> None:
    """``multiprocessing.managers``: a proxy of an object that a manager's server holds.

    https://docs.python.org/3/library/multiprocessing.html#using-a-remote-manager: ``register``, ``get_server`` and
    ``serve_forever``, ``connect``; the proxy that it makes by itself.  Pickling is the default serializer and the
    faster one (the other is XML).  A descriptor is an argument as ``multiprocessing.reduction.DupFd``, as the package
    itself pickles sockets: the receiver fetches it from a thread of the sender, which asks for a password.
    """
    adder = Adder()
    _Manager.register("adder", callable=lambda: adder)
    _Manager(path, contenders.know_password()).get_server().serve_forever()


@contextlib.contextmanager
def managers(path: str) -> Iterator[Client]:
    _Manager.register("adder")
    manager = _Manager(path, contenders.know_password())
    manager.connect()
    # A proxy's connection ends with it.
    adder: Any = manager.adder()  # type: ignore[attr-defined]  # register() made it
    yield Client(adder.add, lambda number: adder.inode(reduction.DupFd(number)))


def serve_rpyc(path: str) -> None:
    """rpyc: a ``Service`` behind the threaded server.

    https://rpyc.readthedocs.io/en/latest/docs/services.html and servers.html: ``rpyc.exposed`` methods,
    ``socket_path=`` of the server, ``unix_connect``.  Numbers travel by value in its own format; there is no serializer
    to choose.  The method is looked up once, and its remote reference is kept: to look it up by each call would be a
    second round trip.
    """
    import rpyc
    from rpyc.utils.server import ThreadedServer

    @rpyc.service
    class Service(rpyc.Service):
        @rpyc.exposed
        def add(self, a: int, b: int) -> int:
            return a + b

    ThreadedServer(Service, socket_path=path).start()


@contextlib.contextmanager
def rpyc(path: str) -> Iterator[Client]:
    from rpyc.utils.factory import unix_connect

    with unix_connect(path) as connection:
        yield Client(connection.root.add)


def serve_pyro(path: str) -> None:
    """Pyro5 with the marshal serializer.

    https://pyro5.readthedocs.io/en/latest/servercode.html: ``Daemon(unixsocket=)`` and an exposed class;
    clientcode.html calls marshal "very limited but very fast", and the package's own benchmark uses it.  The threaded
    server, which is the default and which it says to take if in doubt: a connection has a thread that waits for it.
    """
    import Pyro5.api

    with Pyro5.api.Daemon(unixsocket=path) as daemon:
        daemon.register(Pyro5.api.expose(Adder)(), "adder")
        daemon.requestLoop()


@contextlib.contextmanager
def pyro(path: str) -> Iterator[Client]:
    import Pyro5.api

    with Pyro5.api.Proxy(f"PYRO:adder@./u:{path}") as adder:
        adder._pyroSerializer = "marshal"  # noqa: SLF001 - documented, and named so
        yield Client(adder.add)


def serve_zeromq(path: str) -> None:
    """ZeroMQ by pyzmq over ipc: REQ and REP, with msgspec.

    https://pyzmq.readthedocs.io/en/latest/howto/serialization.html: ``send_json`` and ``send_pyobj`` are not meant for
    performance, an application should define its own; msgspec is one that it names.  Messages this small are copied,
    which is the default, and cheaper by the documentation of ``copy_threshold``.  Blocking sockets, not those for
    asyncio.
    """
    import zmq

    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.bind(f"ipc://{path}")
        while True:
            match contenders.decode_tagged(socket.recv()):
                case contenders.AddRequest(a, b):
                    socket.send(contenders.encode(a + b))


@contextlib.contextmanager
def zeromq(path: str) -> Iterator[Client]:
    import zmq

    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        # The first call would wait for ever for a server that is not there.
        socket.rcvtimeo = round(PATIENCE * 1000)
        socket.linger = 0
        socket.connect(f"ipc://{path}")

        def add(a: int, b: int) -> int:
            socket.send(contenders.encode(contenders.AddRequest(a, b)))
            return contenders.decode_int(socket.recv())

        yield Client(add)


def serve_capnproto(path: str) -> None:
    """Cap'n Proto's own remote calls by pycapnp, by the schema adder.capnp beside this file.

    https://capnproto.github.io/pycapnp/quickstart.html#rpc: asyncio is the only way since version 2; ``TwoPartyServer``
    and ``TwoPartyClient`` on an ``AsyncIoStream``, of which the unix kinds are documented in the reference.  The schema
    is compiled when it is loaded.  Of the two syntaxes that are documented for a call, and of the two for a method, the
    longer ones: they are the faster ones.  One client in a thread at a time: a thread can have only one of its event
    loops.  Without a path by TCP on loopback, at a port that is printed.
    """
    import capnp

    class Server(_schema().Adder.Server):  # type: ignore[misc]  # made from the schema
        async def add_context(self, context: Any) -> None:
            parameters = context.params
            context.results.sum = parameters.a + parameters.b

    async def greet(stream: Any) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=Server()).on_disconnect()

    async def listen() -> None:
        if path:
            listening = await capnp.AsyncIoStream.create_unix_server(greet, path)
        else:
            listening = await capnp.AsyncIoStream.create_server(greet, "127.0.0.1", 0)
            print(listening.sockets[0].getsockname()[1], flush=True)
        async with listening as server:
            await server.serve_forever()

    asyncio.run(capnp.run(listen()))


@in_asyncio
async def capnproto(path: str, port: int = 0) -> AsyncIterator[Client]:
    """A client of a server at a path, or of one by TCP on loopback."""
    import capnp

    async with capnp.kj_loop():
        if path:
            stream = await capnp.AsyncIoStream.create_unix_connection(path)
        else:
            stream = await capnp.AsyncIoStream.create_connection("127.0.0.1", port)
        adder = capnp.TwoPartyClient(stream).bootstrap().cast_as(_schema().Adder)

        async def add(a: int, b: int) -> Any:
            request = adder.add_request()
            request.a = a
            request.b = b
            return (await request.send()).sum

        yield Client(add)


def serve_grpc(path: str) -> None:
    """grpcio: ``grpc.aio`` over a unix socket, with msgspec where protobuf would be.

    https://grpc.github.io/grpc/python/grpc_asyncio.html: server, channel, ``unary_unary``.  What ``protoc`` generates
    is the same handler and the same multi-callable, with protobuf's serializers; any functions may take their place.
    """
    import grpc

    async def add(parameters: tuple[int, int], _context: Any) -> int:
        a, b = parameters
        return a + b

    async def serve() -> None:
        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(add, contenders.decode_pair, contenders.encode)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Adder", {"add": method})])
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


@in_asyncio
async def grpc(path: str) -> AsyncIterator[Client]:
    import grpc

    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        call = channel.unary_unary("/Adder/add", contenders.encode, contenders.decode_int)

        async def add(a: int, b: int) -> Any:
            return await call((a, b))

        yield Client(add)


def _schema() -> Any:
    import capnp

    return capnp.load(str(Path(__file__).with_name("adder.capnp")))
