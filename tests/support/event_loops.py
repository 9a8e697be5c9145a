"""The event loops that there are, and running a coroutine function in one of them, with a deadline."""

from __future__ import annotations

import anyio

from patience import PATIENCE

# What anyio.run() is told.
LOOPS = {
    "asyncio": {"backend": "asyncio", "backend_options": {"use_uvloop": False}},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


# uvloop keeps a pipe for signals from when it is first needed, which is no leak of a test's.
anyio.run(anyio.sleep, 0, **LOOPS["uvloop"])


def run_in(loop, function, *arguments):
    """What a coroutine function returns; fails after a generous while."""

    async def within_patience():
        with anyio.fail_after(PATIENCE):
            return await function(*arguments)

    return anyio.run(within_patience, **LOOPS[loop])
