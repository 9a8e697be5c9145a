"""``with`` where ``async with`` is due, and the other way round, says what is to be written."""

from __future__ import annotations

import sys

import pytest

import capmarshal as cm
import child_program
from capmarshal import aio
from loops import each_loop, run


def test_with_an_entrypoint_of_an_event_loop():
    """It is entered by async with, and one that blocks has another name."""
    entrypoint = aio.Entrypoint("loop")
    with pytest.raises(TypeError, match=r"aio\.Entrypoint is .* entered by `async with`, not by `with`"), entrypoint:
        pass
    entrypoint.close()


@each_loop
def test_async_with_an_entrypoint_of_a_thread(loop):
    """It is entered by with, and one that awaits has another name; it can be entered so afterwards."""

    async def main():
        entrypoint = cm.Entrypoint("thread")
        with pytest.raises(TypeError, match=r"entered by `with`.* event loop serves is a capmarshal\.aio\.Entrypoint"):
            async with entrypoint:
                pass
        with entrypoint:
            pass

    run(loop, main)


@each_loop
def test_async_with_a_timeout(loop):
    """As asyncio's own is entered."""

    async def main():
        with pytest.raises(TypeError, match=r"cm\.timeout is entered by `with`, without `async`"):
            async with cm.timeout(1):
                pass
        assert cm.remaining() > 1

    run(loop, main)


@each_loop
def test_with_a_process_of_an_event_loop(loop):
    """Whose end would be waited for."""

    async def main():
        with child_program.registry() as (_, capability):
            process = await aio.spawn([sys.executable, "-c", ""], parent=capability)
            with pytest.raises(TypeError, match=r"aio\.spawn\(\) is awaited: enter it by `async with`"), process:
                pass
            async with process:
                assert await process.wait() == 0

    run(loop, main)
