"""What tokens stand for, asked for where their bridge is silent, was started again, or is this one itself."""

import asyncio
import logging

import pytest

import bridge_in_process
import capmarshal as cm
from bridge_in_process import PLENTY, Work


@pytest.fixture
def run(caplog):
    """run(program): in a world of two bridges, which have logged no fault."""
    caplog.set_level(logging.WARNING, "capmarshal")
    return lambda program: bridge_in_process.run(program, caplog=caplog)


def test_a_bridge_that_was_started_again(run):
    """What was joined is no more, and nobody has told: it is joined anew at once, and who had the old one is told."""

    async def program(world):
        old = world.work
        await world.restart_far()
        async with asyncio.timeout(PLENTY):
            again = (await world.near.connect(world.token)).cast(Work)
            assert await again.run(2) == 2
            with pytest.raises(cm.Disconnected):
                await old.run(1)
        assert len(world.near._peers) == 1
        assert world.served.ran == {2: 1}
        del again, old
        await world.idle()

    run(program)
