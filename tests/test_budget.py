"""How many bytes of another bridge's may be here at a time."""

import asyncio

import pytest

import capmarshal as cm
import leaping_loop
from capmarshal._bridge.budget import Budget, Spending
from capmarshal._bridge.shares import Part, Pool, Share


def budget(most):
    """One of so many bytes, and of no more than that among others."""
    return Budget("results", most, Part(Share(Pool(10 * most))))


def run(program):
    """In a loop whose time leaps."""
    with leaping_loop.runner() as made:
        made.run(program())


def test_who_waits_gets_them_in_turn():
    async def program():
        bytes_ = budget(100)
        first, order = Spending(bytes_), []
        first.take(100)

        async def want(size):
            with Spending(bytes_) as mine:
                await mine.wait(size)
                order.append(size)

        waiting = [asyncio.create_task(want(size)) for size in (80, 10, 30)]
        await asyncio.sleep(1)
        assert order == []
        first.end()
        await asyncio.gather(*waiting)
        assert order == [80, 10, 30]
        assert bytes_.spent == 0

    run(program)


def test_who_has_them_may_wait_for_who_waits():
    """As two calls to and fro, each with much in it: that ends."""

    async def program():
        bytes_ = budget(100)
        with Spending(bytes_) as outer, Spending(bytes_) as inner:
            outer.take(60)
            with pytest.raises(cm.TooLarge, match="60 are in use"):
                await inner.wait(60)
            assert bytes_.spent == 60
        assert bytes_.spent == 0

    run(program)


def test_more_than_there_are():
    async def program():
        bytes_ = budget(100)
        with Spending(bytes_) as mine, pytest.raises(cm.TooLarge, match="101 bytes more of results"):
            await mine.wait(101)

    run(program)
