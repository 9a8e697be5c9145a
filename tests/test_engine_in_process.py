"""The engine within one loop that tests of a bridge's rules stand on: what it does to bodies when it is told to."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loops
from capmarshal._bridge_engine.engine import NobodyThere, NotSent, Unanswered
from capmarshal._bridge_link.replays import Once
from capmarshal._bridge_link.sealing import Direction, Label, NotGenuine, Seal
from capmarshal._bridge_link.tokens import Token
from engine_in_process import Network
from engines import PLENTY, SHORT

SUBJECT = "cm.host.a"


def run(program):
    """In a loop of asyncio; all engines are closed afterwards."""
    network = Network()

    async def whole():
        try:
            await program(network)
        finally:
            network.holding = False
            for engine in list(network.engines):
                await engine.close(within=0)

    loops.run("asyncio", whole)


async def pause():
    """Until all that can happen now has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_is_held_arrives_when_it_is_told_to():
    """A call, then its answer; seen on the way."""

    async def program(network):
        one, other = network.engine(), network.engine()

        async def serve(body):
            return body.upper()

        await one.serve(SUBJECT, serve)
        network.holding = True
        call = asyncio.create_task(other.call(SUBJECT, b"x", within=PLENTY))
        await pause()
        assert [(flight.kind, flight.body) for flight in network.held] == [("call", b"x")]
        network.arrive()
        await pause()
        assert [(flight.kind, flight.body) for flight in network.held] == [("answer", b"X")]
        assert not call.done()
        network.arrive()
        assert await call == b"X"
        assert network.seen == [(SUBJECT, b"x"), (SUBJECT, b"X")]

    run(program)


@pytest.mark.parametrize("lost", ["call", "answer"])
def test_what_is_lost_never_arrives(lost):
    """The call may have been served, or not: its caller can't tell."""

    async def program(network):
        one, other = network.engine(), network.engine()
        served = []

        async def serve(body):
            served.append(body)
            return body

        await one.serve(SUBJECT, serve)
        network.holding = True
        call = asyncio.create_task(other.call(SUBJECT, b"x", within=SHORT))
        await pause()
        if lost == "answer":
            network.arrive()
            await pause()
        network.lose()
        with pytest.raises(Unanswered):
            await call
        assert served == ([b"x"] if lost == "answer" else [])

    run(program)


def test_who_is_parted_is_unheard_and_later_nobody():
    """First nodes don't know of it, and bodies are lost; then they do."""

    async def program(network):
        one, other, third = network.engine(), network.engine(), network.engine()

        async def serve(body):
            return body

        await one.serve(SUBJECT, serve)
        network.part([one, third], [other], noticed=False)
        with pytest.raises(Unanswered):
            await other.call(SUBJECT, b"x", within=SHORT)
        assert await third.call(SUBJECT, b"x", within=PLENTY) == b"x"
        network.part([one, third], [other], noticed=True)
        with pytest.raises(NobodyThere):
            await other.call(SUBJECT, b"x", within=PLENTY)
        network.join()
        assert await other.call(SUBJECT, b"x", within=PLENTY) == b"x"

    run(program)


@settings(max_examples=60)
@given(st.data())
def test_whatever_the_engine_does_a_sealed_call_is_taken_once_and_answered_rightly(data):
    """Lost, repeated, kept back, reordered: the rules that a bridge will have hold, since each is of one piece here."""
    token, lease = Token.new("host"), bytes(16)
    there, back = Seal(token, Direction.TO_EXPORTER), Seal(token, Direction.TO_IMPORTER)
    count = data.draw(st.integers(1, 4))

    async def program(network):
        exporter, importer = network.engine(), network.engine()
        once, ran = Once(lease, ends=100), []

        async def serve(body):
            label, plain = there.open(body)
            try:
                once.take(label, now=1)
            except NotGenuine:
                return b"refused"
            ran.append(label.call)
            return back.seal(Label(9, label.call, lease), plain.upper())

        async def call(number):
            wanted = number.to_bytes(16, "little")

            def accept(body):
                try:
                    return back.open(body)[0].call == wanted
                except NotGenuine:
                    return False

            try:
                sealed = there.seal(Label(2, wanted, lease, expires=100), b"call %d" % number)
                answer = await importer.call(token.subject, sealed, within=PLENTY, accept=accept)
            except (NotSent, Unanswered):
                return wanted, None
            return wanted, back.open(answer)[1]

        await exporter.serve(token.subject, serve)
        network.holding = True
        calls = [asyncio.create_task(call(number)) for number in range(count)]
        await pause()
        for _ in range(data.draw(st.integers(0, 12))):
            if not network.held:
                break
            place = data.draw(st.integers(0, len(network.held) - 1))
            deed = data.draw(st.sampled_from(["arrive", "again", "lose"]))
            if deed == "lose":
                network.lose(place)
            else:
                network.arrive(place, again=deed == "again")
            await pause()
        network.release()
        await pause()
        await importer.close()
        for number, task in enumerate(calls):
            wanted, answer = await task
            assert answer in (None, b"CALL %d" % number)
            assert answer is None or wanted in ran
        assert len(ran) == len(set(ran))

    run(program)
