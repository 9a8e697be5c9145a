"""Calls between two processes by NATS alone, as nats-py's documentation has them: ``request()`` and ``respond()``.

Encoded by msgspec; nothing is sealed, nothing said of what has become of a call without an answer, and who else uses
the node may read, answer and repeat.  ``python -m bench.requests ADDRESS SUBJECT`` is the server.
"""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from bench import loops
from bench.contenders import decode_int, decode_pair, encode
from bench.peers.client import Client
from bench.processes import PATIENCE, Cores, line_of, run_on, running

_SUBJECT = "bench.add"


@contextlib.contextmanager
def connected(address: str, cores: Cores) -> Iterator[tuple[Client, int]]:
    """A client of a server that runs on its core, and that one's process ID."""
    import nats

    run_on(cores.server)
    with running("requests", address) as server:
        line_of(server)
        run_on(cores.client)
        with asyncio.Runner() as runner:
            client = runner.run(nats.connect(address))

            async def add(a: int, b: int) -> int:
                return decode_int((await client.request(_SUBJECT, encode((a, b)), PATIENCE)).data)

            yield Client(add, runner=runner), server.pid
            runner.run(client.close())


async def _serve(address: str) -> None:
    import nats

    client = await nats.connect(address)

    async def answer(message: Any) -> None:
        a, b = decode_pair(message.data)
        await message.respond(encode(a + b))

    await client.subscribe(_SUBJECT, cb=answer)
    await client.flush()
    print("serves", flush=True)
    await loops.await_end()
    await client.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(sys.argv[1]))
