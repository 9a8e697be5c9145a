"""What tokens stand for, asked for where their bridge is silent, was started again, or is this one itself."""

import asyncio
import logging

import pytest

import bridge_in_process
import capmarshal as cm
from bridge_in_process import PLENTY, Kept, Thing, Work, kind, settle
from capmarshal import aio
from capmarshal._bridge.bridge import Bridge
from capmarshal._bridge_engine.engine import EngineError, NobodyThere
from capmarshal._bridge_link.messages import Kind
from capmarshal._bridge_link.tokens import Token


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
        assert len(list(world.near._partners)) == 1
        assert world.served.ran == {2: 1}
        del again, old
        await world.idle()

    run(program)


def test_a_bridge_that_is_silent_is_not_asked_again_for_each_who_waits(run):
    """All who want it at the same time have waited as long as one; nothing of them stays."""

    async def program(world):
        await asyncio.gather(*(partner.close("the test") for partner in tuple(world.near._partners)))
        world.network.judge = lambda _flight: "lose"
        loop = asyncio.get_running_loop()
        begun = loop.time()
        connecting = [asyncio.create_task(world.near.connect(world.token)) for _ in range(20)]
        results = await asyncio.gather(*connecting, return_exceptions=True)
        assert all(isinstance(result, cm.Disconnected) for result in results), results
        assert loop.time() - begun < 10
        world.network.release()
        assert await (await world.near.connect(world.token)).cast(Work).run(1) == 1
        for number in range(3):
            with pytest.raises(cm.Disconnected):
                await world.near.connect(Token.new(f"nobody-{number}"))
        assert not world.near._reaching._joining
        del connecting, results
        await world.idle()

    run(program)


def test_a_path_of_this_machine_where_nobody_listens(run, tmp_path):
    """A bridge's own token is not reached by the same error as that of another."""

    async def program(world):
        token = await world.far.export(tmp_path / "nobody")
        for bridge in (world.near, world.far):
            with pytest.raises(cm.Disconnected, match=r"not there.*no such file"):
                await bridge.connect(token)
        await world.idle()

    run(program)


def test_who_connects_gives_up_while_two_links_are_put_together(run):
    """They are all the same: what came by the one goes home by the other."""

    async def program(world):
        thing = world.thing()
        token = await world.near.export(thing)
        world.network.judge = lambda flight: "hold" if kind(flight) == Kind.PAIR else "carry"
        connecting = asyncio.create_task(world.far.connect(token))
        await settle()
        assert [kind(flight) for flight in world.network.held] == [Kind.PAIR]
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        world.network.release()
        there = await world.far.connect(token)
        world.served._kept.append(there.cast(Thing))
        back = await world.work.give_back(1)
        assert cm.capability(back) is cm.capability(thing)
        await world.far.revoke(world.token)
        await world.near.revoke(token)
        del thing, connecting, there, back
        await world.idle()

    run(program)


def slow_to_stop(engine):
    """What is served from here on takes for ever to be stopped, as where a node stands still."""
    serve = engine.serve

    async def slow(subject, handler):
        stop = await serve(subject, handler)

        async def stop_at_last():
            try:
                await asyncio.Event().wait()
            finally:
                await stop()

        return stop_at_last

    engine.serve = slow


def test_a_bridge_that_exports_much_ends_in_its_time(run):
    """What is exported is given up beside each other, and not for longer than it was to wait altogether."""

    async def program(world):
        engine, loop = world.network.engine(), asyncio.get_running_loop()
        async with Bridge("third", engine, close_timeout=5) as third:
            slow_to_stop(engine)
            for _ in range(20):
                await third.export(world.exported)
            before = loop.time()
        assert 5 <= loop.time() - before < 6

    run(program)


def test_nothing_is_exported_by_a_bridge_that_ends(run):
    """Neither from then on, nor what was about to be."""

    async def program(world):
        engine = world.network.engine()
        kept = Kept(Bridge("third", engine, close_timeout=PLENTY))
        third = await kept.enter()
        call = asyncio.create_task((await world.near.connect(await third.export(world.exported))).cast(Work).hold(1))
        while not world.served.ran[1]:
            await asyncio.sleep(0.01)
        serve, go_on, served = engine.serve, asyncio.Event(), []

        async def late(subject, handler):
            served.append(subject)
            await go_on.wait()
            return await serve(subject, handler)

        engine.serve = late
        exporting = asyncio.create_task(third.export(world.exported))
        await settle()
        leaving = asyncio.create_task(kept.leave())
        await settle()
        with pytest.raises(EngineError, match="the bridge has ended"):
            await third.export(world.exported)
        go_on.set()
        with pytest.raises(EngineError, match="the bridge has ended"):
            await exporting
        assert len(served) == 1
        with pytest.raises(NobodyThere):
            await world.near._engine.call(served[0], b"", within=PLENTY)
        assert not leaving.done()
        world.served.let_go(1)
        assert await call == 1
        await leaving

    run(program)


def test_a_token_of_its_own_at_a_path(run, tmp_path):
    """Each client has a grant of its own there, too, which is revoked with the token; what was exported is not."""

    async def program(world):
        world.far.listen(tmp_path / "own.sock", world.token)
        one, other = [await aio.connect(tmp_path / "own.sock") for _ in range(2)]
        assert one != other
        assert await one.cast(Work).run(1) == await other.cast(Work).run(1) == 1
        thing = world.thing()
        assert cm.capability(await one.cast(Work).same(2, thing)) is cm.capability(thing)
        await world.far.revoke(world.token, "the test")
        for each in (one, other):
            with pytest.raises(cm.Revoked, match="the test"):
                await each.cast(Work).run(3)
        with pytest.raises(cm.Disconnected):
            await aio.connect(tmp_path / "own.sock")
        assert await world.exported.cast(Work).run(4) == 4
        assert world.served.ran == {1: 2, 2: 1, 4: 1}

    run(program)
