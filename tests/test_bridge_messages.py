"""Whatever numbers, names and tables a message says, sealed as it should be: its link may end by it, and no other."""

import asyncio
import contextlib
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bridge_in_process
from bridge_in_process import PLENTY, Work
from capmarshal._bridge.dataspaces import Described
from capmarshal._bridge_engine.engine import EngineError
from capmarshal._bridge_link import clocks, messages
from capmarshal._bridge_link.messages import ANSWER, Kind
from capmarshal._bridge_link.sealing import NotGenuine
from hostile_bridges import HostileImporter

# Those of what is there among them: the first thing of each sort has the number 1.
NUMBERS = st.sampled_from([0, 1, 2, 3, -1, 255, 2**31, 2**32, -(2**63), 2**63 - 1, 2**63, 2**64 - 1])
IDS = st.sampled_from([bytes(16), b"\1" * 16, b"\2" * 16, b"", b"\0", bytes(15), bytes(17), bytes(1000)])
WORDS = st.sampled_from(["", "run", "hold", "give", "\0", "a" * 300, "\u20ac" * 30_000, "\U0001f9f5", "cm.far.x"])
DESCRIBED = st.builds(
    Described, NUMBERS, st.booleans(), st.none() | WORDS, st.lists(NUMBERS, max_size=3).map(tuple) | st.just((1,) * 70)
)
MENTIONS = st.one_of(
    st.builds(messages.Mine, NUMBERS, st.booleans()),
    st.builds(messages.Yours, NUMBERS),
    st.builds(messages.Others, NUMBERS),
    st.builds(messages.Copied, NUMBERS, DESCRIBED),
)
TABLES = st.lists(MENTIONS, max_size=4) | MENTIONS.map(lambda mention: [mention] * 1_025)
PAYLOADS = st.one_of(
    st.sampled_from([b"", b"\x80", b"\xc1", b"\x81\xa6number\x01", b"\x82\xa6number\x01\xa5thing\x00", bytes(600_000)]),
    st.builds(messages.Long, NUMBERS, NUMBERS),
)
OUTCOMES = st.builds(messages.Result, PAYLOADS, TABLES) | st.builds(messages.Failed, IDS)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3)
QUESTIONS = {
    Kind.HELLO: st.builds(messages.Hello, NUMBERS),
    Kind.JOIN: st.builds(messages.Join, IDS, IDS, IDS, WORDS, IDS, NUMBERS),
    Kind.OPEN: st.builds(messages.Open, WORDS, IDS),
    Kind.CALL: st.builds(messages.Call, NUMBERS, WORDS, PAYLOADS, TABLES, NUMBERS, NUMBERS),
    Kind.DONE: st.builds(messages.Done, IDS, OUTCOMES),
    Kind.PING: st.builds(
        messages.Ping,
        NUMBERS,
        *[st.lists(IDS, max_size=3)] * 3,
        PAIRS,
        st.lists(st.tuples(NUMBERS, st.none() | WORDS), max_size=3),
    ),
    Kind.FETCH: st.builds(messages.Fetch, NUMBERS, NUMBERS, NUMBERS),
    Kind.RING: st.builds(messages.Ring, NUMBERS),
    Kind.PAIR: st.builds(messages.Pair, WORDS, IDS),
}
JUNK = st.binary(max_size=40) | st.just(b"\x91" * 5_000)
ASKED = st.one_of(
    *(st.tuples(st.just(kind), made, IDS) for kind, made in QUESTIONS.items()),
    st.tuples(st.sampled_from([0, *Kind, 0x7F, ANSWER, 0xFF]), JUNK, IDS),
)
ANSWERED = {
    Kind.PING: st.builds(messages.Pong, NUMBERS, st.lists(st.sampled_from(messages.State), max_size=3)),
    Kind.FETCH: st.builds(messages.Fetched, IDS | st.just(bytes(1 << 19))),
    Kind.RING: st.just(messages.Taken()),
    Kind.DONE: st.just(messages.Taken()),
}
ANSWERS = st.one_of(*(st.tuples(st.just(kind), made | JUNK) for kind, made in ANSWERED.items()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(asked=st.lists(ASKED, min_size=10, max_size=40), answers=st.lists(ANSWERS, max_size=1))
def test_other_links_go_on_and_nothing_of_it_stays(caplog, asked, answers):
    """However it is asked for, and whatever the other answers to what it is asked."""
    caplog.clear()

    async def program(world):
        # Of its own, so that what it has of this is told apart.
        token = await world.far.export(world.entrypoint.manage(bridge_in_process.WorkServer()))
        pools = world.far._partners._pools
        free = {name: pool.free for name, pool in vars(pools).items()}
        evil = await HostileImporter(world.network.engine(), token, "evil", clocks.time).join()
        with contextlib.suppress(EngineError):
            assert await evil.open() == 1
        for kind, answer in answers:
            evil.answers[kind] = lambda _question, answer=answer: answer
        for kind, message, number in asked:
            with contextlib.suppress(EngineError, NotGenuine):
                await evil.ask(kind, message, number=number if len(number) == 16 else os.urandom(16), within=0.3)
        async with asyncio.timeout(PLENTY):
            assert await world.work.run(1) == 1
            assert await (await world.near.connect(world.token)).cast(Work).run(2) == 2
        await evil.close()
        await asyncio.sleep(3 * clocks.LEASE)
        assert [partner.link.other for partner in world.far._partners] == ["near"]
        await world.idle()
        after = {name: pool.free for name, pool in vars(pools).items()}
        assert all(after[name] >= before for name, before in free.items()), (free, after)

    bridge_in_process.run(program, caplog=caplog)
