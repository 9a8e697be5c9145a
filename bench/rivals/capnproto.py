"""pycapnp: Cap'n Proto's own remote calls over a unix socket, by the schema adder.capnp beside this file.

https://capnproto.github.io/pycapnp/quickstart.html#rpc: asyncio is the only way since version 2; ``TwoPartyServer`` and
``TwoPartyClient`` on an ``AsyncIoStream``, of which the unix kinds are documented in the reference.  The schema is
compiled when it is loaded.  Of the two syntaxes that are documented for a call, and of the two for a method, the longer
ones: they are the faster ones.  One client in a thread at a time: a thread can have only one of its event loops.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from bench.rivals import client

_SCHEMA = Path(__file__).with_name("adder.capnp")


def serve(directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    import capnp

    schema = capnp.load(str(_SCHEMA))

    class Adder(schema.Adder.Server):  # type: ignore[name-defined]  # made from the schema
        async def add_context(self, context: Any) -> None:
            parameters = context.params
            context.results.sum = parameters.a + parameters.b

    async def greet(stream: Any) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=Adder()).on_disconnect()

    async def listen() -> None:
        async with await capnp.AsyncIoStream.create_unix_server(greet, client.path(directory)) as server:
            await server.serve_forever()

    client.end_with_input()
    asyncio.run(capnp.run(listen()))


def connect(directory: str) -> client.Client:
    """A client of that server."""
    import capnp

    schema = capnp.load(str(_SCHEMA))
    runner = asyncio.Runner()
    running = contextlib.AsyncExitStack()

    async def bootstrap() -> Any:
        await running.enter_async_context(capnp.kj_loop())
        stream = await capnp.AsyncIoStream.create_unix_connection(client.path(directory))
        return capnp.TwoPartyClient(stream).bootstrap().cast_as(schema.Adder)

    adder = runner.run(bootstrap())

    async def add(a: int, b: int) -> int:
        request = adder.add_request()
        request.a = a
        request.b = b
        result: int = (await request.send()).sum
        return result

    def close() -> None:
        with runner:
            runner.run(running.aclose())

    return client.Client(add, close, runner=runner)
