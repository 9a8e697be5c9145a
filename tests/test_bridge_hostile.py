"""Who has a token, and speaks the bridges' protocol by hand to do harm: others are served, and its cost is bounded.

In one event loop, whose time leaps, with a bridge beside it that does no harm.
"""

import asyncio
import logging
import os
import socket

import pytest

import bridge_in_process
import capmarshal as cm
from bridge_in_process import PLENTY, WorkServer
from capmarshal._bridge import clocks, messages
from capmarshal._bridge.messages import REFUSED, Kind
from hostile_bridges import HostileImporter


@pytest.fixture
def run(caplog):
    """run(program): in a world of two bridges, which log neither fault nor warning."""
    caplog.set_level(logging.WARNING, "capmarshal")
    return lambda program: bridge_in_process.run(program, caplog=caplog)


async def hostile(world, *, name="evil"):
    """An importer that is hostile, by a token of its own."""
    token = await world.far.export(world.entrypoint.manage(WorkServer()))
    return HostileImporter(world.network.engine(), token, name, clocks.time)


async def others_are_served(world):
    """The bridge beside it is called, and can join."""
    async with asyncio.timeout(PLENTY):
        assert await world.work.run(1) == 1
        assert await (await world.near.connect(world.token)).cast(bridge_in_process.Work).run(2) == 2


@pytest.mark.parametrize("shown", [-(2**63), -1, 2**63, 2**64 - 1])
def test_a_clock_that_shows_what_no_clock_shows(run, shown):
    """Who joins with it is refused; of a link that shows it later, all ends; and nothing is logged of either."""

    async def program(world):
        evil = await hostile(world)
        with pytest.raises(Exception, match="no clock shows"):
            await evil.join(clock=shown)
        evil.answers[Kind.PING] = lambda _ping: messages.Pong(shown, [])
        await evil.join()
        await asyncio.sleep(3)
        assert [peer.link.other for peer in world.far._peers] == ["near"]
        await others_are_served(world)
        await evil.close()

    run(program)


def test_a_ping_with_very_much_to_say_is_taken_in_turns(run):
    """Meanwhile others have theirs; it is taken once, and one beside it is refused."""

    async def program(world):
        evil = await (await hostile(world)).join()
        ids = [os.urandom(16) for _ in range(10_000)]
        turns = 0

        async def count():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        first, again, beside = await asyncio.gather(
            evil.ping(number=1, asked=ids, ended=ids, given_up=ids),
            evil.ping(number=1, asked=ids),
            evil.ping(number=2, asked=ids),
        )
        counting.cancel()
        assert turns > 30_000 / 1000
        assert first[1].states == again[1].states
        assert len(first[1].states) == 10_000
        assert beside[0] == REFUSED
        assert (await evil.ping(number=3, asked=[*ids, ids[0]]))[0] == REFUSED
        assert (await evil.ping(number=3, asked=[b""]))[0] == REFUSED
        await others_are_served(world)
        await evil.close()

    run(program)


def test_a_door_that_a_holder_has_shut_is_given_to_nobody_else(run):
    """Whoever is given it from then on has another one."""

    async def program(world):
        held = await world.near.connect(world.token)
        with socket.socket(fileno=os.dup(held.fileno())) as shared:
            shared.shutdown(socket.SHUT_RDWR)
        with pytest.raises(cm.Disconnected):
            await held.cast(bridge_in_process.Work).run(1)
        again = await world.near.connect(world.token)
        assert await again.cast(bridge_in_process.Work).run(2) == 2

    run(program)
