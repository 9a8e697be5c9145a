"""What is lost, late, repeated or given up between two bridges: calls end, run once at most, and leave nothing."""

import asyncio
import logging
import os

import msgspec
import pytest

import bridge_in_process
import capmarshal as cm
from bridge_in_process import PLENTY, Thing, ThingServer, Work, WorkServer, kind, settle
from capmarshal import aio
from capmarshal._bridge import incoming_calls, pinging
from capmarshal._bridge.bridge import Bridge
from capmarshal._bridge_engine.engine import Unanswered
from capmarshal._bridge_engine.handling import CONCURRENCY
from capmarshal._bridge_link import clocks
from capmarshal._bridge_link.messages import ANSWER, Call, Failed, Kind, Ring, State, Taken
from engine_in_process import Slow
from hostile_bridges import HostileImporter


@pytest.fixture
def run(caplog):
    """run(program): in a world of two bridges, which have logged no fault."""
    caplog.set_level(logging.WARNING, "capmarshal")
    return lambda program: bridge_in_process.run(program, caplog=caplog)


def losing(network, *kinds, times=1):
    """The next bodies of these kinds are lost, so many."""
    left = [times]

    def judge(flight):
        if kind(flight) in kinds and left[0]:
            left[0] -= 1
            return "lose"
        return "carry"

    network.judge = judge


@pytest.mark.parametrize("lost", [Kind.CALL, Kind.CALL | ANSWER, Kind.DONE, Kind.DONE | ANSWER])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("method", ["run", "hold"])
def test_what_is_lost_costs_time_alone(run, lost, times, method):
    """A call whose question, or whose answer, is lost runs once, and is answered."""

    async def program(world):
        losing(world.network, lost, times=times)
        call = asyncio.create_task(getattr(world.work, method)(1))
        while not world.served.ran[1]:
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        world.served.let_go(1)
        async with asyncio.timeout(PLENTY):
            assert await call == 1
        assert world.served.ran == {1: 1}
        await world.idle()

    run(program)


def delaying(network, delay, *kinds):
    """Bodies of these kinds take so many seconds from here on."""

    def judge(flight):
        if kind(flight) not in kinds:
            return "carry"
        asyncio.get_running_loop().call_later(delay, network.land, flight)
        return "later"

    network.judge = judge


def test_what_expires_on_its_way_is_sent_again(run):
    """The other's clock is as old as its last answer: what takes as long comes too late, and has not been taken."""

    async def program(world):
        delaying(world.network, 0.9, Kind.PING | ANSWER)
        await asyncio.sleep(3)
        delaying(world.network, 0.3, Kind.PING, Kind.CALL, Kind.DONE, Kind.FETCH)
        async with asyncio.timeout(PLENTY):
            assert await world.work.run(1) == 1
            assert await world.work.blob(2, bytes(1 << 20)) == bytes(1 << 20)
        await asyncio.sleep(20)
        assert world.near.counts
        assert await world.work.run(3) == 3
        assert world.served.ran == {1: 1, 2: 1, 3: 1}
        await world.idle()

    run(program)


def test_who_can_remember_no_more_says_later_what_has_become_of_a_call(run):
    """Meanwhile it is neither taken nor barred."""

    async def program(world):
        [far] = world.far._partners
        once = far.link._once
        losing(world.network, Kind.CALL)
        call = asyncio.create_task(world.work.run(1))
        given_up = asyncio.create_task(world.work.take(2, world.thing()))
        await asyncio.sleep(0.5)
        once._most, most = 0, once._most
        given_up.cancel()
        await asyncio.sleep(3)
        assert not call.done()
        once._most = most
        async with asyncio.timeout(PLENTY):
            assert await call == 1
        assert world.served.ran[1] == 1
        await world.idle()

    run(program)


def test_who_can_remember_no_more_is_asked_once_a_second(run):
    """And not as often as an answer comes."""

    async def program(world):
        [far] = world.far._partners
        losing(world.network, Kind.CALL)
        call = asyncio.create_task(world.work.run(1))
        await asyncio.sleep(0.5)
        # As where it remembers as much as it may, but for one ping after the other.
        far.link.bar = lambda _kind, _number: None
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(0.5)
        pings = []

        def judge(flight):
            if kind(flight) == Kind.PING and flight.sender is world.near._engine:
                pings.append(flight)
            return "carry"

        world.network.judge = judge
        await asyncio.sleep(10)
        assert 1 < len(pings) <= 11
        del far.link.bar, call
        await world.idle()
        assert not world.served.ran[1]

    run(program)


@pytest.mark.parametrize("lost", [Kind.CALL, Kind.CALL | ANSWER, Kind.PING, Kind.PING | ANSWER, Kind.DONE, None])
@pytest.mark.parametrize("method", ["take", "same", "hold_thing", "give"])
@pytest.mark.parametrize("after", [0, 0.01, 0.3, 1.5])
def test_what_a_call_that_is_given_up_has_carried_is_let_go(run, lost, method, after):
    """Whether it came, runs or has ended; and what it was answered, and nobody has heard."""

    async def program(world):
        thing = world.thing()
        if lost is not None:
            losing(world.network, lost, times=2)
        making = world.work.give(1) if method == "give" else getattr(world.work, method)(1, thing)
        call = asyncio.create_task(making)
        if after:
            await asyncio.sleep(after)
        else:
            await settle()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        del call, thing, making
        await world.idle()
        assert world.served.ran[1] <= 1

    run(program)


def test_a_call_that_is_given_up_as_it_comes(run):
    """What says so comes in the same moment as the call, which then never begins."""

    async def program(world):
        world.network.holding = True
        call = asyncio.create_task(world.work.take(1, world.thing()))
        await settle()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await settle()
        assert [kind(flight) for flight in world.network.held] == [Kind.CALL, Kind.PING]
        world.network.release()
        del call
        await world.idle()
        assert not world.served.ran[1]

    run(program)


def test_many_long_calls_hold_up_nothing_else_of_their_link(run, monkeypatch):
    """Those that are waited for leave places to what else is asked there: pings among it."""
    # Longer than a lease.
    monkeypatch.setattr(incoming_calls, "_AT_ONCE", 1000.0)

    async def program(world):
        calls = [asyncio.create_task(world.work.hold(number)) for number in range(CONCURRENCY)]
        while world.far.counts["near"]["calls"] < CONCURRENCY:
            await asyncio.sleep(0.01)
        [near] = world.near._partners
        async with asyncio.timeout(PLENTY):
            await near.link.insist(Kind.RING, Ring(99), Taken)
        for number in range(CONCURRENCY):
            world.served.let_go(number)
        async with asyncio.timeout(PLENTY):
            assert await asyncio.gather(*calls) == list(range(CONCURRENCY))
        del calls, near
        await world.idle()

    run(program)


@pytest.mark.parametrize("bye", [True, False])
def test_who_waits_is_told_when_the_other_is_lost(run, bye):
    """At once: of a call that runs, one that was never answered, one whose result is being fetched, and a connect()."""

    async def program(world):
        calls = [
            asyncio.create_task(making)
            for making in (world.work.hold(1), world.work.blob(2, bytes(1 << 20)), world.near.connect(world.token))
        ]
        # One that has arrived is told by DONE; of the second, chunks are asked for that never come.
        world.network.judge = lambda flight: "lose" if kind(flight) in (Kind.FETCH, Kind.OPEN | ANSWER) else "carry"
        await asyncio.sleep(0.5)
        world.network.judge = lambda flight: "lose" if kind(flight) == Kind.CALL else world_judge(flight)
        calls.append(asyncio.create_task(world.work.run(3)))
        await asyncio.sleep(0.5)
        assert not any(call.done() for call in calls)
        [near], [far] = world.near._partners, world.far._partners
        loop = asyncio.get_running_loop()
        before = loop.time()
        if bye:
            await far.close("the test")
        else:
            world.network.judge = lambda _flight: "lose"
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, cm.Disconnected) for result in results), results
        # Who says farewell says what has come.
        assert [result.ran for result in results] == ["maybe", "maybe", "no", "no" if bye else "maybe"]
        assert near.link.lost
        assert loop.time() - before < (1 if bye else 11)
        world.served.let_go(1)
        await world.idle()
        assert not world.served.ran[3]

    def world_judge(flight):
        return "lose" if kind(flight) in (Kind.FETCH, Kind.OPEN | ANSWER) else "carry"

    run(program)


@pytest.mark.parametrize("cause", ["fault", "cancelled"])
@pytest.mark.parametrize("told", [True, False])
def test_a_call_that_ends_by_a_fault_of_its_bridge_or_is_cancelled_there(run, monkeypatch, caplog, cause, told):
    """Who has made it is told so, also where it was told before that it runs."""

    def broken(*_arguments):
        raise ZeroDivisionError("of the test")

    async def program(world):
        call = asyncio.create_task(world.work.hold(1))
        while not world.served.ran[1]:
            await asyncio.sleep(0.01)
        if told:
            await asyncio.sleep(1)
        [far] = world.far._partners
        if cause == "fault":
            with monkeypatch.context() as patched:
                patched.setattr(far.crossing, "leave", broken)
                patched.setattr(incoming_calls, "_fault", broken)
                world.served.let_go(1)
                async with asyncio.timeout(PLENTY):
                    [error] = await asyncio.gather(call, return_exceptions=True)
            messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
            assert messages == ["bridge: a fault in a call of hold()"]
            caplog.clear()
        else:
            [incoming] = far._incoming._calls.values()
            incoming.hand.task.cancel()
            del incoming
            async with asyncio.timeout(PLENTY):
                [error] = await asyncio.gather(call, return_exceptions=True)
        assert isinstance(error, cm.Disconnected), error
        assert (error.ran, "has broken it off" in str(error)) == ("maybe", True)
        assert await world.work.run(2) == 2
        del call, error, far
        await world.idle()

    run(program)


def test_a_call_whose_answer_was_lost_before_the_farewell_may_have_run(run):
    """It has; and the other has not heard of its end."""

    async def program(world):
        losing(world.network, Kind.CALL | ANSWER, Kind.PING, times=100)
        call = asyncio.create_task(world.work.run(1))
        while not world.served.ran[1]:
            await asyncio.sleep(0.01)
        [far] = world.far._partners
        await far.close("the test")
        [result] = await asyncio.gather(call, return_exceptions=True)
        assert isinstance(result, cm.Disconnected), result
        assert result.ran == "maybe"
        await world.idle()

    run(program)


def test_what_comes_with_the_loss_of_the_other_is_gone_with_it(run):
    """Its holder is told, as all are: nobody waits for it in vain."""

    async def program(world):
        world.network.judge = lambda flight: "hold" if kind(flight) == Kind.CALL | ANSWER else "carry"
        call = asyncio.create_task(world.work.give(1))
        await settle()
        [near] = world.near._partners
        world.network.arrive()
        near.link.lose("the test")
        [result] = await asyncio.gather(call, return_exceptions=True)
        if not isinstance(result, cm.Disconnected):
            async with asyncio.timeout(PLENTY):
                await aio.wait_gone(cm.capability(result))
        await world.idle()

    run(program)


async def is_revoked(thing):
    """Whoever holds it is told, and told why."""
    async with asyncio.timeout(PLENTY):
        await aio.wait_gone(cm.capability(thing))
    with pytest.raises(cm.Revoked, match="the test"):
        await thing.touch(2)


def test_what_is_gone_before_it_is_mentioned(run):
    """Revoked while the result that brings it is on its way."""

    async def program(world):
        world.network.judge = lambda flight: "hold" if kind(flight) == Kind.CALL | ANSWER else "carry"
        call = asyncio.create_task(world.work.give(1))
        await settle()
        await world.far.revoke(world.token, "the test")
        await settle()
        world.network.release()
        thing = await call
        await is_revoked(thing)
        del thing, call
        await world.idle()

    run(program)


def test_what_is_returned_after_its_token_was_revoked(run):
    """By a call that ran meanwhile: it is revoked as well."""

    async def program(world):
        call = asyncio.create_task(world.work.hold_and_give(1))
        await settle()
        await world.far.revoke(world.token, "the test")
        world.served.let_go(1)
        thing = await call
        await is_revoked(thing)
        del thing, call
        await world.idle()

    run(program)


def test_what_comes_home_late(run):
    """The server lets go of it when it has returned it, and says so before its result is heard."""

    async def program(world):
        thing = world.thing()
        await world.work.keep(1, thing)
        # It is held for some time since it was mentioned.
        await asyncio.sleep(20)
        assert ("far", "imported", 1) in world.counts()
        world.network.judge = lambda flight: "hold" if kind(flight) in (Kind.CALL | ANSWER, Kind.DONE) else "carry"
        call = asyncio.create_task(world.work.give_back(2))
        await asyncio.sleep(5)
        world.network.release()
        async with asyncio.timeout(PLENTY):
            came = await call
        assert cm.capability(came) is cm.capability(thing)
        del came, thing, call
        await world.idle()

    run(program)


def test_calls_that_have_ended_are_not_counted_among_those_that_run(run):
    """More of them in a second than may run at a time; the other says now and then which it has heard of."""

    async def program(world):
        [far] = world.far._partners
        far._incoming._most = 6
        for number in range(100):
            assert await world.work.run(number) == number
        calls = [asyncio.create_task(world.work.hold(1000 + number)) for number in range(4)]
        await settle()
        with pytest.raises(cm.Disconnected, match="refuses: 4 calls") as caught:
            await world.work.run(100)
        assert caught.value.ran == "no"
        del caught
        for number in range(4):
            world.served.let_go(1000 + number)
        await asyncio.gather(*calls)
        assert await world.work.run(101) == 101
        assert set(world.served.ran.values()) == {1}
        assert 100 not in world.served.ran
        await world.idle()

    run(program)


@pytest.mark.parametrize("lost", [Kind.HELLO, Kind.JOIN, Kind.OPEN])
@pytest.mark.parametrize("answer", [0, ANSWER])
@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_connecting_that_is_cut_off(run, lost, answer, cancelled, first):
    """Whatever was lost, and whether who connects waits for it: nothing of it stays, on either side."""

    async def program(world):
        if first:
            # Another link than that of the world: whoever has the token may join.
            await asyncio.gather(*(partner.close("the test") for partner in tuple(world.near._partners)))
        losing(world.network, lost | answer)
        connecting = asyncio.create_task(world.near.connect(world.token))
        await asyncio.sleep(0.5)
        if cancelled:
            connecting.cancel()
        [result] = await asyncio.gather(connecting, return_exceptions=True)
        if first or lost is Kind.OPEN:
            assert isinstance(result, asyncio.CancelledError if cancelled else cm.Disconnected), result
        world.network.release()
        await asyncio.sleep(5)
        assert len(list(world.far._partners)) == len(list(world.near._partners))
        again = await world.near.connect(world.token)
        assert await again.cast(bridge_in_process.Work).run(1) == 1
        del again, connecting, result
        await world.idle()

    run(program)


def test_who_is_lost_while_its_link_begins_to_be_served(run):
    """It is told so, and no link is left."""

    async def program(world):
        token, engine = world.token, world.network.engine()
        async with Bridge("third", engine, close_timeout=0) as third:
            reception = world.far._offers._by_subject[token.subject].reception
            reception._engine = slow = Slow(world.far._engine)
            connecting = asyncio.create_task(third.connect(token))
            while "third" not in world.far.counts:
                await asyncio.sleep(0.01)
            [link] = [partner.link for partner in world.far._partners if partner.link.other == "third"]
            link.lose("the test")
            slow.go.set()
            with pytest.raises(cm.Disconnected, match="refuses: the test"):
                await connecting
            assert not world.network.served(link.token.subject)
            assert not any(task.get_coro().__qualname__ == "Pinging.run" for task in link._tasks)
            reception._engine = world.far._engine
            assert await (await third.connect(token)).cast(Work).run(1) == 1
            del connecting
        await world.idle()

    run(program)


def test_many_connect_at_once(run):
    """By one link; one that gives up takes nothing from the others."""

    async def program(world):
        await asyncio.gather(*(partner.close("the test") for partner in tuple(world.near._partners)))
        tasks = [asyncio.create_task(world.near.connect(world.token)) for _ in range(20)]
        # Until the first has asked who is there, and has not joined: the other knows of no link.
        for _ in range(3):
            await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[7].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [number for number, result in enumerate(results) if not isinstance(result, cm.Capability)] == [0, 7]
        assert len(set(results) - {results[0], results[7]}) == 1
        assert len(list(world.near._partners)) == len(list(world.far._partners)) == 1
        del tasks, results
        await world.idle()

    run(program)


@pytest.mark.parametrize("which", ["near", "far"])
def test_closing_a_bridge_while_calls_run(run, which):
    """Who waits is told; what the other had of it is gone, and nobody can connect to it any more."""

    async def program(world):
        calls = [asyncio.create_task(world.work.hold(number)) for number in range(3)]
        await settle()
        await getattr(world, which).__aexit__(None, None, None)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, cm.Disconnected) and result.ran == "maybe" for result in results), results
        with pytest.raises(cm.Disconnected):
            await world.near.connect(world.token)
        with pytest.raises(cm.Disconnected):
            await world.work.run(9)
        assert world.served.ran == {0: 1, 1: 1, 2: 1}
        await asyncio.sleep(5)
        assert not list(world.near._partners)
        assert not list(world.far._partners)

    run(program)


def test_a_result_that_does_not_go_and_is_given_up(run, monkeypatch):
    """What it would have mentioned is taken back once: what its caller has of the same by another call stays."""

    async def program(world):
        same = [world.things.manage(ThingServer(world.served.ran)).cast(Thing) for _ in range(600)]

        async def give_many(_number, _count):
            return same

        world.served.give_many = give_many
        had = await world.work.give_many(1, 600)
        monkeypatch.setattr(incoming_calls, "_OUTCOME_MOST", 2_000)
        losing(world.network, Kind.CALL | ANSWER, Kind.DONE, times=1000)
        call = asyncio.create_task(world.work.give_many(2, 600))
        await asyncio.sleep(0.5)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(3)
        world.network.release()
        assert await had[0].touch(3) == 3
        assert await had[-1].touch(4) == 4
        same.clear()
        del had, call, world.served.give_many
        await world.idle()

    run(program)


def test_a_result_whose_table_is_too_long(run, monkeypatch):
    """It fits into no body, which is short here: the caller is told, and nothing of it stays exported."""
    monkeypatch.setattr(incoming_calls, "_OUTCOME_MOST", 2_000)

    async def program(world):
        with pytest.raises(cm.TooLarge, match="entries in the table of its result"):
            await world.work.give_many(1, 600)
        await world.idle()

    run(program)


def test_a_call_with_a_dataspace_that_asks_for_another(run):
    """Whoever holds one among its arguments waits for no room that it has itself."""

    async def program(world):
        mine = world.things.manage(WorkServer())
        await world.work.keep(1, mine.cast(Thing))
        for budget in [budget for partner in world.far._partners for budget in budgets_of_dataspaces(partner)]:
            budget._most = 1 << 20

        async def array(_number, data):
            back = cm.capability(world.served._kept[0]).cast(Work)
            with cm.Dataspace.from_buffer(bytes(1 << 20)) as asked, await back.array(2, asked) as came:
                assert came.size == 1 << 20
            return data

        world.served.array = array
        with cm.Dataspace.from_buffer(bytes(1 << 20)) as data:
            async with asyncio.timeout(PLENTY):
                (await world.work.array(1, data)).close()
        world.served._kept.clear()
        del mine, world.served.array
        await world.idle()

    run(program)


def budgets_of_dataspaces(partner):
    return partner._incoming._copying, partner._outgoing._copying


@pytest.mark.parametrize("reason", ["of a file named \udc80", "\N{BROKEN HEART}" * 1000])
def test_any_text_is_a_reason(run, reason):
    """Also one that no message can have, or that is long: who is told of it is told no more than it can be."""

    async def program(world):
        await world.far.revoke(world.token, reason)
        async with asyncio.timeout(PLENTY):
            await aio.wait_gone(cm.capability(world.work))
        with pytest.raises(cm.Revoked, match="of a file named" if reason.startswith("of") else reason[:1]):
            await world.work.run(1)
        await world.idle()

    run(program)


def test_what_is_added_while_some_is_taken_stays():
    """A finalizer tells of a signal that nobody holds, in any thread, or here where memory is asked for."""

    class Interrupted(list):
        def __getitem__(self, place):
            taken = super().__getitem__(place)
            self.append("added")
            return taken

    waiting = Interrupted(["first"])
    assert pinging._taken(waiting) == ["first"]
    assert list(waiting) == ["added"]


# One end, by hand ---------------------------------------------------------------------------------------------------


async def by_hand(world):
    """An importer that speaks by hand, the number of what it may call, and what serves that."""
    served = WorkServer()
    token = await world.far.export(world.entrypoint.manage(served))
    importer = await HostileImporter(world.network.engine(), token, "hand", clocks.time).join()
    return importer, await importer.open(), served


def run_one():
    """What `run(number=1)` is given."""
    return msgspec.msgpack.encode({"number": 1})


def test_what_was_said_never_to_have_come_never_runs(run):
    """Although it comes then, and in time: who was told so may have sent another one in its place."""

    async def program(world):
        importer, number, served = await by_hand(world)
        call = os.urandom(16)
        world.network.judge = lambda flight: "hold" if kind(flight) == Kind.CALL else "carry"
        sent = asyncio.create_task(importer.call(number, "run", run_one(), call=call))
        await settle()
        _, pong = await importer.ping(asked=[call])
        assert pong.states == [State.NEVER]
        assert [kind(flight) for flight in world.network.held] == [Kind.CALL]
        world.network.release()
        with pytest.raises(Unanswered):
            await sent
        assert not served.ran
        await importer.close()

    run(program)


def test_a_call_that_comes_when_it_has_expired_does_not_run(run):
    """Whoever has kept it for so long: that it had not come then, or would not any more, may have been relied on."""

    async def program(world):
        importer, number, served = await by_hand(world)
        world.network.judge = lambda flight: "hold" if kind(flight) == Kind.CALL else "carry"
        with pytest.raises(Unanswered):
            await importer.call(number, "run", run_one())
        await asyncio.sleep(0.5)
        assert [kind(flight) for flight in world.network.held] == [Kind.CALL]
        world.network.release()
        await asyncio.sleep(1)
        assert not served.ran
        await importer.close()

    run(program)


def test_a_call_that_comes_after_its_deadline_does_not_run(run):
    """Although it has not expired: it could be asked after still."""

    async def program(world):
        importer, number, served = await by_hand(world)
        message = Call(number, "run", run_one(), [], deadline=importer.expiry(-0.1))
        _, outcome = await importer.ask(Kind.CALL, message)
        assert isinstance(outcome, Failed)
        assert not served.ran
        await importer.close()

    run(program)


@pytest.mark.parametrize("where", ["on its way", "being looked for", "on its way back"])
def test_who_asks_what_a_token_stands_for_and_gives_up(run, where):
    """It is not exported to it then: nobody would ever release that."""

    async def program(world):
        token = await world.far.export(world.thing())
        go_on, source = asyncio.Event(), world.far._offers._by_subject[token.subject].source

        async def slow():
            await go_on.wait()
            return await source()

        world.far._offers._by_subject[token.subject].source = slow
        if where != "being looked for":
            go_on.set()
        held = {"on its way": Kind.OPEN, "on its way back": Kind.OPEN | ANSWER}.get(where)
        world.network.judge = lambda flight: "hold" if kind(flight) == held else "carry"
        connecting = asyncio.create_task(world.near.connect(token))
        await settle()
        exported = {"on its way back": 2}.get(where, 1)
        assert world.far.counts["near"]["exported"] == exported
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await settle()
        go_on.set()
        world.network.release()
        await asyncio.sleep(3)
        assert world.far.counts["near"]["exported"] == 1
        del connecting
        await world.idle()

    run(program)
