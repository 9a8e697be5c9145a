"""The key of a link: two agree on it, and nobody else has it, whatever he has heard, with or without their token."""

import asyncio
import gc
import itertools
import weakref

import msgspec
import pytest

import bridge_in_process
import leaping_loop
from bridge_in_process import Work
from capmarshal._bridge_link import clocks, messages
from capmarshal._bridge_link.agreeing import Half, Halves
from capmarshal._bridge_link.sealing import Direction, NotGenuine, Seal
from capmarshal._bridge_link.tokens import Token
from hostile_bridges import HostileImporter, Refused


@pytest.fixture
def run(caplog):
    """run(program): in a world of two bridges."""
    return lambda program: bridge_in_process.run(program, caplog=caplog)


def test_both_have_the_same_key_and_nobody_else():
    token, one, other, third = Token.new("far"), Half(), Half(), Half()
    key = one.key(other.public, token, b"name")
    assert other.key(one.public, token, b"name") == key
    assert len(key) == 32
    others = [
        one.key(other.public, token, b"another"),
        one.key(other.public, Token.new("far"), b"name"),
        third.key(other.public, token, b"name"),
        third.key(one.public, token, b"name"),
    ]
    assert len({key, *others}) == 5


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), bytes(32), b"\1" + bytes(31)])
def test_what_is_no_half(public):
    """Nor one that has the same in common with everybody."""
    with pytest.raises(NotGenuine):
        Half().key(public, Token.new("far"), b"")


def test_a_half_is_shown_for_some_time_good_for_some_more_and_forgotten():
    async def program():
        halves, second = Halves(), 1_000_000_000
        first = halves.current(0)
        assert halves.current(59 * second) is first
        assert halves.shown(first.public) is first
        next_one = halves.current(60 * second)
        assert next_one is not first
        assert halves.shown(first.public) is first
        halves.current(120 * second)
        assert halves.shown(first.public) is None
        assert halves.shown(next_one.public) is next_one
        assert halves.shown(b"") is None
        halves.forget_all()
        assert halves.shown(next_one.public) is None

    asyncio.run(program())


def test_a_half_is_forgotten_although_nobody_says_hello_again():
    """Its private part is in no memory two minutes later; nor when nobody may join any more."""

    async def program():
        halves = Halves()
        half = weakref.ref(halves.current(0))
        await asyncio.sleep(100)
        assert half() is not None
        await asyncio.sleep(60)
        assert half() is None
        half = weakref.ref(halves.current(0))
        halves.forget_all()
        assert half() is None

    with leaping_loop.runner() as runner:
        runner.run(program())


def test_what_a_key_was_made_of_is_forgotten_while_the_link_lasts(run):
    async def program(world):
        assert await world.work.run(1) == 1
        halves = [weakref.ref(each) for each in gc.get_objects() if type(each) is Half]
        assert halves
        await asyncio.sleep(160)
        assert not [half for half in halves if half() is not None]
        assert await world.work.run(2) == 2
        await world.idle()

    run(program)


def opened(bodies, token, *subjects):
    """What somebody reads of them who has a token."""
    plain = []
    for direction, subject in itertools.product(Direction, subjects):
        seal = Seal(token, direction, subject)
        for body in bodies:
            try:
                plain.append(seal.open(body))
            except NotGenuine:
                continue
    return plain


def fields(plain):
    """All bytes that could be a key, in what was read."""
    found = []

    def look(thing):
        if isinstance(thing, list):
            for each in thing:
                look(each)
        elif isinstance(thing, bytes) and len(thing) == 32:
            found.append(thing)

    for _label, message in plain:
        look(msgspec.msgpack.decode(message))
    return found


def test_who_has_the_same_token_and_overhears_all_reads_nothing_of_a_link(run):
    """Nor does who gets it later; only of what is asked by the token itself."""

    async def program(world):
        assert await world.work.run(1) == 1
        [partner] = world.near._partners
        link = partner.link.token
        at_importer = f"cm.near.{link.subject.rpartition('.')[2]}"
        bodies = [body for _subject, body in world.network.seen]
        read = opened(bodies, world.token, world.token.subject)
        kinds = {label.kind for label, _ in read}
        assert {messages.Kind.HELLO, messages.Kind.JOIN, messages.Kind.JOIN | messages.ANSWER} <= kinds
        assert len(opened(bodies, link, link.subject, at_importer)) > 3
        [join] = [messages.read(plain, messages.Join) for label, plain in read if label.kind == messages.Kind.JOIN]
        candidates = [*fields(read), world.token.derive(b"", b"")]
        assert len(candidates) > 3
        for key in candidates:
            for guessed in (key, Half().key(join.half, world.token, join.link_name)):
                assert not opened(bodies, Token("far", join.link_name, guessed), link.subject, at_importer)
        await world.idle()

    run(program)


def test_who_shows_no_half_is_refused_and_others_join(run):
    async def program(world):
        for half in (b"", bytes(32)):
            evil = HostileImporter(world.network.engine(), world.token, "evil", clocks.time)
            with pytest.raises(Refused, match="no half of a key"):
                await evil.join(half=half)
            await evil.close()
        assert await (await world.near.connect(world.token)).cast(Work).run(2) == 2

    run(program)
