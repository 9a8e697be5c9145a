"""Calls that are awaited, on each event loop: their answers, deadlines, and how many there are at a time."""

from __future__ import annotations

import functools
import math

import anyio
import pytest

import capmarshal as cm
from capmarshal._async.calling import exchange
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._client.coding import in_a_table, result_of
from capmarshal._client.conversation import Unanswered
from capmarshal._typed.method import methods_of
from loops import LOOPS
from loops import run as run_in


@pytest.fixture(params=LOOPS)
def run(request):
    """run(function, *arguments): what a coroutine function returns, in an event loop of each kind."""
    return functools.partial(run_in, request.param)


class Plain(cm.Interface):
    @cm.method
    def add(self, a: int, b: int) -> int: ...

    @cm.method
    def remaining(self) -> float: ...


class PlainServer(Plain):
    def add(self, a, b):
        return a + b

    def remaining(self):
        left = cm.remaining()
        return -1.0 if left == math.inf else left


async def call(capability, method, *arguments):
    """A call by hand: what a proxy's method does."""
    called = next(each for each in methods_of(Plain).values() if each.name == method)
    payload, numbers, entries, _ = in_a_table(called, arguments)
    door = open_door_of(capability)
    key = called.wire_size + badge_of(capability) + called.wire_name
    try:
        answer = await exchange(door, key, payload, entries, numbers)
    except Unanswered as left:
        raise left.becomes(str(left), left.ran) from None
    return result_of(called, answer, door)


@pytest.fixture
def capability():
    """One of a server in another thread."""
    with cm.Entrypoint("plain") as entrypoint:
        managed = entrypoint.manage(PlainServer())
        yield managed
        managed.close()


def test_an_awaited_call_is_answered(run, capability):
    """More often than there are turns without a checkpoint."""

    async def twenty():
        return [await call(capability, "add", number, 1) for number in range(20)]

    assert run(twenty) == list(range(1, 21))


def test_the_server_is_told_the_earlier_deadline(run, capability):
    """Of a cancel scope's and of cm.timeout; or that there is none."""

    async def each():
        with anyio.CancelScope(shield=True):
            never = await call(capability, "remaining")
        with anyio.fail_after(20):
            scope = await call(capability, "remaining")
            with cm.timeout(10):
                both = await call(capability, "remaining")
        with cm.timeout(10), anyio.fail_after(20):
            ours = await call(capability, "remaining")
        return never, scope, both, ours

    never, scope, both, ours = run(each)
    assert never == -1
    assert 10 < scope <= 20
    assert 0 < both <= 10
    assert 0 < ours <= 10
