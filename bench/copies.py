"""100 MiB of a dataspace to another machine, by two bridges, against nats-py alone: a part of :mod:`bench.bridge`.

``python -m bench.copies ADDRESS SIZE`` gives, to whoever requests them, chunks of so many bytes.
"""

import asyncio
import contextlib
import os
import struct
import sys
import time
from functools import partial
from typing import Any

import capmarshal as cm
from bench import loops
from bench.contenders import look_at_bytes
from bench.figures import in_words
from bench.measuring import Work, against, checked, often
from bench.processes import PATIENCE, Cores, line_of, run_on, running
from bench.server import Works

SIZE, QUICK_SIZE = 100 << 20, 3 << 20

# As bridges ask: bytes, and how many of these are in flight; and as many as nats-py is quickest with.
_CHUNK, _WINDOWS = 512 << 10, (4, 16)
_NATS = "nats-py by hand, {} in flight"
_TARGETS = {_NATS.format(4): 2.0}

_SUBJECT, _ASK = "bench.chunk", struct.Struct("<QQ")


def _data(size: int) -> bytes:
    """So many bytes; their period is no power of two, so that no chunk is like the one before."""
    pattern = bytes(range(251))
    return (pattern * (size // len(pattern) + 1))[:size]


async def _copy(address: str, size: int, window: int) -> float:
    """Seconds for all of it, by so many requests in flight."""
    import nats

    client = await nats.connect(address)
    offsets = iter(range(0, size, _CHUNK))

    async def fetch(number: int) -> None:
        for offset in offsets:
            asked = _ASK.pack(offset, min(_CHUNK, size - offset))
            os.pwrite(number, (await client.request(_SUBJECT, asked, PATIENCE)).data, offset)

    begin = time.perf_counter_ns()
    number = os.memfd_create("copy", os.MFD_CLOEXEC)
    try:
        await asyncio.gather(*(fetch(number) for _ in range(window)))
        arrived = os.fstat(number).st_size, os.pread(number, 1, size - 1)[0]
        taken = time.perf_counter_ns() - begin
    finally:
        os.close(number)
        await client.close()
    if arrived != look_at_bytes(_data(size)):
        raise SystemExit("a wrong copy came")
    return taken / 1e9


def work(stack: contextlib.ExitStack, cores: Cores, address: str, name: str, through_bridges: Works, size: int) -> Work:
    """So many bytes, by bridges that have that name here, and by nats-py."""
    run_on(cores.server)
    line_of(stack.enter_context(running("copies", address, str(size))))
    run_on(cores.client)
    data = stack.enter_context(cm.Dataspace.from_buffer(_data(size)))
    take = checked(through_bridges.take_dataspace, (data,), look_at_bytes(_data(size)))
    timed = {
        name: partial(often, take, 1, partial(through_bridges.use, "settle")),
        **{_NATS.format(window): partial(loops.run, "asyncio", _copy, address, size, window) for window in _WINDOWS},
    }
    return Work(cores.named(f"{in_words(size, 'byte')} of a dataspace"), cores, timed, against(name, timed, _TARGETS))


async def _serve(address: str, size: int) -> None:
    import nats

    client = await nats.connect(address)
    data = memoryview(_data(size))

    async def give(message: Any) -> None:
        offset, count = _ASK.unpack(message.data)
        await message.respond(bytes(data[offset : offset + count]))

    await client.subscribe(_SUBJECT, cb=give)
    await client.flush()
    print("serves", flush=True)
    await loops.await_end()
    await client.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
