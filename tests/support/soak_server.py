"""A server of a soak: ``soak_server.py DRIVER DIRECTORY``; it says what it holds for each line of standard input."""

from __future__ import annotations

import sys

import anyio
import anyio.to_thread

import capmarshal as cm
import soak_process
from capmarshal import aio
from soak_work import AwaitedWorker, Worker


def serve(path):
    """In a thread."""
    with cm.Entrypoint("soak") as entrypoint:
        entrypoint.listen(path, Worker(entrypoint))
        soak_process.tell(ready=True)
        while sys.stdin.readline():
            soak_process.tell(**soak_process.holdings())


async def serve_awaited(path):
    """In an event loop."""
    async with aio.Entrypoint("soak") as entrypoint:
        entrypoint.listen(path, AwaitedWorker(entrypoint))
        soak_process.tell(ready=True)
        while await anyio.to_thread.run_sync(sys.stdin.readline):
            soak_process.tell(**soak_process.holdings())


if __name__ == "__main__":
    soak_process.begin()
    driver, directory = sys.argv[1:]
    if driver == "blocking":
        serve(f"{directory}/{driver}")
    else:
        anyio.run(serve_awaited, f"{directory}/{driver}", **soak_process.LOOPS[driver])
