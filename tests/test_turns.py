"""Calls through one door: what one bridge, and one client of its, leave for others, and who waits."""

import asyncio
import itertools

import pytest

import leaping_loop
from capmarshal._bridge.turns import Doors, Turns


def run(program):
    """In a loop whose time leaps."""
    with leaping_loop.runner() as made:
        made.run(program())


def taken(turns, bridge, client=0):
    """How many one gets that wants all of them."""
    return next(count for count in itertools.count() if not turns.take_now(bridge, client))


def test_each_leaves_room_for_whoever_comes_next():
    turns = Turns(100)
    assert taken(turns, "one") == 40
    assert taken(turns, "one", 1) == 8
    assert taken(turns, "one", 2) == 2
    assert taken(turns, "other") > 15
    assert taken(turns, "third") > 5


def test_who_gives_back_all_of_it_is_forgotten():
    turns = Turns(100)
    for bridge, client in itertools.product("ab", range(3)):
        count = taken(turns, bridge, client)
        for _ in range(count):
            turns.give_back(bridge, client)
    assert len(turns) == 0


def test_who_waits_gets_a_place_in_turn():
    """Of each bridge, and of each of its clients, one after the other."""

    async def program():
        turns = Turns(1)
        assert turns.take_now("one", 0)
        order = []

        async def want(bridge, client):
            assert await turns.take(bridge, client, None)
            order.append((bridge, client))

        async with asyncio.TaskGroup() as group:
            for bridge, client in [("one", 0)] * 3 + [("one", 1)] * 2 + [("two", 0)] * 2:
                group.create_task(want(bridge, client))
            await asyncio.sleep(0)
            holder = ("one", 0)
            for count in range(7):
                turns.give_back(*holder)
                await asyncio.sleep(0.1)
                assert len(order) == count + 1
                holder = order[-1]
        turns.give_back(*holder)
        assert [bridge for bridge, _ in order[:4]] == ["one", "two"] * 2
        assert [client for bridge, client in order if bridge == "one"] == [0, 1, 0, 1, 0]
        assert len(turns) == 0

    run(program)


@pytest.mark.parametrize("given", [False, True])
def test_who_is_cancelled_leaves_its_place_to_the_next(given):
    """Also where it has got it at the same moment."""

    async def program():
        turns = Turns(1)
        assert turns.take_now("one", 0)
        first, second = (asyncio.create_task(turns.take("one", client, None)) for client in (1, 2))
        await asyncio.sleep(0.1)
        if given:
            turns.give_back("one", 0)
        first.cancel()
        if not given:
            turns.give_back("one", 0)
        assert await second
        assert first.cancelled()
        turns.give_back("one", 2)
        assert len(turns) == 0

    run(program)


def test_who_waits_in_vain():
    async def program():
        turns = Turns(1)
        assert turns.take_now("one", 0)
        assert not await turns.take("one", 1, 1.5)
        turns.give_back("one", 0)
        assert len(turns) == 0

    run(program)


def test_all_who_hold_a_door_have_the_same_turns():
    doors = Doors()
    turns = doors.turns(7)
    assert doors.turns(7) is turns
    assert doors.turns(8) is not turns
