"""Who has a token, and speaks the bridges' protocol by hand to do harm: others are served, and its cost is bounded.

In one event loop, whose time leaps, with a bridge beside it that does no harm.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from dataclasses import replace

import msgspec
import pytest

import bridge_in_process
import capmarshal as cm
from bridge_in_process import PLENTY, Thing, ThingServer, WorkServer
from capmarshal import aio
from capmarshal._bridge import imports, lending, pinging
from capmarshal._bridge_engine.engine import Unanswered
from capmarshal._bridge_link import clocks, lines, messages, reception, sealing
from capmarshal._bridge_link.agreeing import Half
from capmarshal._bridge_link.messages import REFUSED, Copied, Described, Kind, Mine
from hostile_bridges import HostileImporter, Refused
from patience import PATIENCE


@pytest.fixture
def run(caplog):
    """run(program): in a world of two bridges, which log neither fault nor warning."""
    caplog.set_level(logging.WARNING, "capmarshal")
    return lambda program: bridge_in_process.run(program, caplog=caplog)


async def hostile(world, *, name="evil", served=None):
    """An importer that is hostile, by a token of its own."""
    served = served or WorkServer()
    token = await world.far.export(world.entrypoint.manage(served))
    made = HostileImporter(world.network.engine(), token, name, clocks.time)
    made.served = served
    return made


def arguments(**named):
    """As they travel."""
    return msgspec.msgpack.encode(named)


async def others_are_served(world):
    """The bridge beside it is called, and can join."""
    async with asyncio.timeout(PLENTY):
        assert await world.work.run(1) == 1
        assert await (await world.near.connect(world.token)).cast(bridge_in_process.Work).run(2) == 2


async def join_as(world, name, exported=None):
    """Somebody who speaks by hand, with a token of its own; and the number of what the others call, too."""
    token = await world.far.export(exported or world.exported)
    joined = await HostileImporter(world.network.engine(), token, name, clocks.time).join()
    return joined, await joined.open()


async def hold_many(evil, number, count, *, client=0, first=1000):
    """Calls that do not end, of which none has to be waited for; how many run."""
    calls = [evil.call(number, "hold", arguments(number=first + call), client=client) for call in range(count)]
    came = await asyncio.gather(*calls, return_exceptions=True)
    return sum(isinstance(each, messages.Running) for each in came)


def test_calls_that_do_not_end_leave_room_for_those_of_others_at_the_same_object(run):
    """And for those of other clients of the same bridge; what waits runs when one has ended, or is given up."""

    async def program(world):
        all_others = world.far._partners
        all_others._limits = replace(all_others._limits, calls=1000)
        evil, at = await join_as(world, "evil")
        # A call is asked for once alone: none of them is lost.
        evil.answers[Kind.DONE] = lambda _done: messages.Taken()
        assert await hold_many(evil, at, 150) == 150
        assert world.served.ran.total() == 40
        before = world.served.ran.total()
        assert (await evil.call(at, "run", arguments(number=1), client=7)).payload == b"\x01"
        third, there = await join_as(world, "third")
        assert (await third.call(there, "run", arguments(number=2))).payload == b"\x02"
        await others_are_served(world)
        assert world.served.ran.total() == before + 4
        for number in range(1000, 1150):
            world.served.let_go(number)
        await asyncio.sleep(1)
        assert len(world.served.ended) == 150
        for each in (evil, third):
            await each.ask(Kind.BYE, messages.Bye([]))
            await each.close()
        await world.idle()

    run(program)


def test_a_call_that_waits_for_those_of_its_own_ends_by_its_deadline_and_when_it_is_given_up(run):
    """It has not run then, and never will."""

    async def program(world):
        all_others = world.far._partners
        all_others._limits = replace(all_others._limits, calls=1000)
        evil, at = await join_as(world, "evil")
        await hold_many(evil, at, 60)
        late, given_up = os.urandom(16), os.urandom(16)
        await evil.call(at, "run", arguments(number=1), call=late, deadline=evil.expiry(1))
        await evil.call(at, "run", arguments(number=2), call=given_up)
        await evil.ping(given_up=[given_up])
        await asyncio.sleep(2)
        [outcome] = [done.outcome for kind, done in evil.heard if kind == Kind.DONE and done.call == late]
        assert b"did not end" in outcome.fault
        for number in range(1000, 1060):
            world.served.let_go(number)
        await asyncio.sleep(1)
        assert len(world.served.ended) == 60
        assert world.served.ran[1] == world.served.ran[2] == 0
        await evil.ask(Kind.BYE, messages.Bye([]))
        await evil.close()
        await world.idle()

    run(program)


def test_a_call_that_waits_does_not_run_once_its_token_is_revoked(run):
    async def program(world):
        all_others = world.far._partners
        all_others._limits = replace(all_others._limits, calls=1000)
        evil, at = await join_as(world, "evil")
        await hold_many(evil, at, 60)
        await evil.call(at, "run", arguments(number=1))
        await world.far.revoke(evil.token)
        for number in range(1000, 1060):
            world.served.let_go(number)
        await asyncio.sleep(1)
        assert len(world.served.ended) < 51
        assert world.served.ran[1] == 0
        await evil.ask(Kind.BYE, messages.Bye([]))
        await evil.close()
        await world.idle()

    run(program)


@pytest.mark.parametrize("shown", [-(2**63), -1, 2**63, 2**64 - 1])
def test_a_clock_that_shows_what_no_clock_shows(run, shown):
    """Who joins with it is refused; of a link that shows it later, all ends; and nothing is logged of either."""

    async def program(world):
        evil = await hostile(world)
        with pytest.raises(Refused, match="no clock shows"):
            await evil.join(clock=shown)
        evil.answers[Kind.PING] = lambda _ping: messages.Pong(shown, [])
        await evil.join()
        await asyncio.sleep(3)
        assert [partner.link.other for partner in world.far._partners] == ["near"]
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


class Generous(WorkServer):
    """Gives what costs whoever passes it on a descriptor each."""

    def __init__(self, entrypoint):
        super().__init__()
        self._entrypoint = entrypoint

    async def give(self, number):
        return self._entrypoint.grant(ThingServer(self.ran)).cast(Thing)

    async def array(self, number, data):
        return cm.Dataspace.from_buffer(b"%d" % number)


async def take_doors(evil, number):
    """Objects of a door of their own, which it says that it has heard of, and never lets go of."""
    call = os.urandom(16)
    await evil.call(number, "give", arguments(number=1), call=call)
    await evil.ping(ended=[call])


async def take_dataspaces(evil, number):
    """They are lent to who never says that it has heard of them."""
    await evil.call(number, "array", arguments(number=1, data=0), [Copied(1, Described(0, sealed=True))])


async def give_objects(evil, number):
    """It mentions new ones in calls that are held."""
    evil.last = getattr(evil, "last", 0) + 1
    await evil.call(number, "hold_thing", arguments(number=1, thing=0), [Mine(evil.last, is_signal=False)])


async def hold_calls(evil, number):
    """They never end."""
    await evil.call(number, "hold", arguments(number=1))


async def give_dataspaces(evil, number):
    """Of no bytes, and very many at once, before one of which nothing ever comes."""
    table = [Copied(1, Described(0, sealed=False)) for _ in range(20)]
    await evil.call(number, "run", arguments(number=1), [*table, Copied(2, Described(1, sealed=False))])


def descriptors():
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one descriptor less


FLOODS = [take_doors, take_dataspaces, give_objects, hold_calls, give_dataspaces]


@pytest.mark.parametrize("flood", FLOODS)
def test_descriptors_that_are_held_for_one_leave_some_for_others(run, flood):
    """By however many links it has joined; and when it is gone, they are there again."""

    async def program(world):
        world.far._partners._pools.descriptors.free = before = 60
        evil = [await (await hostile(world, served=Generous(world.entrypoint))).join()]
        evil += [await HostileImporter(evil[0].engine, evil[0].token, name, clocks.time).join() for name in "abc"]
        refused, had = 0, descriptors()
        for each in evil:
            number = await each.open()
            for _ in range(40):
                try:
                    async with asyncio.timeout(PLENTY):
                        await flood(each, number)
                except Refused:
                    refused += 1
                for one in evil:
                    await one.ping()
        assert refused > 40
        # Those of its server, which is in this process, among them.
        assert descriptors() - had < 3 * before
        assert world.far._partners._pools.descriptors.free > before // 3
        await others_are_served(world)
        third = await (await hostile(world, name="third")).join()
        assert (await third.call(await third.open(), "run", arguments(number=7))).payload == b"\x07"
        for each in [*evil, third]:
            await each.ask(Kind.BYE, messages.Bye([]))
            await each.close()
        await world.idle()
        world.served.let_go(1)
        assert world.far._partners._pools.descriptors.free == before + 1

    run(program)


def test_links_that_one_makes_leave_some_for_others(run):
    """Under however many names; and when they are lost, they are there again."""

    async def program(world):
        pool = world.far._partners._pools.links
        pool.free = 10
        first = await (await hostile(world)).join()
        evil = [first]
        with contextlib.suppress(Refused):
            for number in range(20):
                one = HostileImporter(first.engine, first.token, f"evil{number}", clocks.time)
                evil.append(one)
                await one.join()
        assert len(evil) == 6
        third = await (await hostile(world, name="third")).join()
        await others_are_served(world)
        for each in [*evil, third]:
            await each.close()
        await asyncio.sleep(2 * clocks.LEASE)
        assert pool.free == 10

    run(program)


@pytest.mark.parametrize(
    ("name", "entries"), [("x" * 65_536, 0), ("\u20ac" * 30_000, 0), ("run", 1_025), ("run", 200_000)]
)
def test_a_call_that_no_call_can_be(run, name, entries):
    """It is not taken: of nothing in its table anything is kept, and nothing is logged."""

    async def program(world):
        evil = await (await hostile(world)).join()
        number = await evil.open()
        table = [Mine(entry % 100, is_signal=False) for entry in range(entries)]
        with pytest.raises(Refused, match=r"than a call can have|its maximum is 1,024"):
            await evil.call(number, name, b"\x80", table)
        [partner] = [partner for partner in world.far._partners if partner.link.other == "evil"]
        assert partner.counts == {"exported": 1, "imported": 0, "lent": 0, "calls": 0}
        await others_are_served(world)
        await evil.close()

    run(program)


@contextlib.asynccontextmanager
async def most_at_once(count):
    """The most by which a count grows, or shrinks, before others have their turn: a list with that in it at the end."""
    steps, last = [0], count()

    async def look():
        nonlocal last
        while True:
            await asyncio.sleep(0)
            now = count()
            steps[0], last = max(steps[0], abs(now - last)), now

    looking = asyncio.create_task(look())
    try:
        yield steps
    finally:
        looking.cancel()


def test_what_tokens_stand_for_is_asked_of_its_service_in_turns(run):
    """A service that takes its time, and many links that ask for it: who comes then does not wait for all of them."""

    async def program(world):
        evil = [await (await hostile(world)).join()]
        evil += [await HostileImporter(evil[0].engine, evil[0].token, name, clocks.time).join() for name in "ab"]
        third = await (await hostile(world, name="third")).join()
        slow = asyncio.Lock()

        async def connected():
            async with slow:
                await asyncio.sleep(0.05)
                return world.exported

        for each in (evil[0], third):
            world.far._offers._by_subject[each.token.subject].source = connected
        opening = [asyncio.create_task(each.open()) for each in evil for _ in range(100)]
        await asyncio.sleep(0.1)
        begun = asyncio.get_running_loop().time()
        await third.open()
        assert asyncio.get_running_loop().time() - begun < 2
        came = await asyncio.gather(*opening, return_exceptions=True)
        assert sum(isinstance(number, int) for number in came) > 50
        await others_are_served(world)
        for each in [*evil, third]:
            await each.ask(Kind.BYE, messages.Bye([]))
            await each.close()
        await world.idle()

    run(program)


async def hold_things(evil, at, call):
    """A call that does not end, with 150 objects."""
    table = [Mine(number, is_signal=False) for number in range(1, 151)]
    return await evil.call(at, "hold_things", arguments(number=1, things=list(range(150))), table, call=call)


@pytest.mark.parametrize("given_up", [False, True])
def test_a_table_of_very_many_objects_is_taken_in_turns(run, given_up):
    """Others have theirs meanwhile; and where it is given up, whoever mentioned them is told that nobody has them."""

    async def program(world):
        evil, at = await join_as(world, "evil")
        [partner] = [partner for partner in world.far._partners if partner.link.other == "evil"]
        call = os.urandom(16)
        async with most_at_once(lambda: partner.counts["imported"]) as most:
            coming = asyncio.create_task(hold_things(evil, at, call))
            await asyncio.sleep(0 if given_up else 1)
            await evil.ping(given_up=[call])
            counts = partner.counts
        coming.cancel()
        assert 0 < most[0] <= 50
        assert (counts["imported"] < 150) is given_up
        released, deadline = [], time.monotonic() + PATIENCE
        while len(released) < 150 and time.monotonic() < deadline:
            # An entrypoint looks at its doors by the clock of the kernel, which leaps for nobody.
            await asyncio.sleep(bridge_in_process.RELEASED)
            released = [each for kind, ping in evil.heard if kind == Kind.PING for each in ping.released]
        assert sorted(released) == [(number, 1) for number in range(1, 151)]
        await others_are_served(world)
        await evil.close()

    run(program)


def test_objects_of_a_link_that_is_lost_end_in_turns(run, monkeypatch):
    """Others have theirs meanwhile."""
    monkeypatch.setattr(imports, "_A_TURN", 20)

    async def program(world):
        evil, at = await join_as(world, "evil")
        pool = world.far._partners._pools.descriptors
        await hold_things(evil, at, os.urandom(16))
        before = pool.free
        async with most_at_once(lambda: pool.free) as most:
            await evil.ask(Kind.BYE, messages.Bye([]))
            await asyncio.sleep(1)
        assert pool.free >= before + 300
        # What its call has besides, and its exports, at once.
        assert most[0] < 60
        await others_are_served(world)
        await evil.close()
        world.served.let_go(1)

    run(program)


def test_a_result_with_more_in_its_table_than_a_bridge_takes(run):
    """Whoever calls is told whose limit it is; nothing of it stays."""

    async def program(world):
        async with aio.Entrypoint("many", max_descriptors=2000) as entrypoint:
            many = entrypoint.manage(WorkServer())
            work = (await world.near.connect(await world.far.export(many))).cast(bridge_in_process.Work)
            assert len(await work.give_many(1, 1000)) == 1000
            with pytest.raises(cm.TooLarge, match=r"1,025 .* a bridge's maximum is 1,024"):
                await work.give_many(2, 1025)
            del work, many
        await world.idle()

    run(program)


def test_who_mentions_more_than_it_lets_itself_be_told(run, monkeypatch):
    """What it is to be told of that waits for it is bounded: it is lost."""
    monkeypatch.setattr(pinging, "_RELEASED_MOST", 1000)

    async def program(world):
        world.far._partners._pools.descriptors.free = 0
        evil = await (await hostile(world)).join()
        [partner] = [partner for partner in world.far._partners if partner.link.other == "evil"]
        # As if it had exported as much as anybody may, none of which there is room for.
        evil.answers[Kind.PING] = None
        for _ in range(10):
            partner.crossing.arrive([Mine(number, is_signal=False) for number in range(100)])
        await asyncio.sleep(0.1)
        assert "lets itself be told" in partner.link.lost
        await evil.close()

    run(program)


def test_questions_to_join_by_one_token_leave_room_for_those_by_others(run, monkeypatch):
    """Whoever asks so often that no more is remembered is answered no more, for some time; others are."""
    monkeypatch.setattr(reception, "_JOINS_MOST", 20)

    async def program(world):
        evil, asked = await hostile(world), 0
        with contextlib.suppress(Unanswered):
            while asked < 30:
                with contextlib.suppress(Refused):
                    asked += 1
                    await evil.join(name="NO-NAME")
        assert asked == 21
        third = await (await hostile(world, name="third")).join()
        await others_are_served(world)
        await third.close()
        await evil.close()

    run(program)


def test_calls_that_end_and_are_not_said_to_be_heard_leave_room_for_others(run):
    """They are remembered until the one who made them has said so, or is lost."""

    async def program(world):
        pool = world.far._partners._pools.calls
        pool.free = 30
        evil = await (await hostile(world)).join()
        number, taken = await evil.open(), 0
        for call in range(30):
            with contextlib.suppress(Refused):
                await evil.call(number, "run", arguments(number=call))
                taken += 1
        assert taken == 10
        await others_are_served(world)
        await evil.ask(Kind.BYE, messages.Bye([]))
        await world.idle()
        assert pool.free == 30
        await evil.close()

    run(program)


def test_a_call_that_runs_and_is_said_to_be_heard_has_nothing_afterwards(run):
    """It is cancelled, as one that is given up: what it has taken comes back."""

    async def program(world):
        kept = world.far._partners._pools.kept
        before = kept.free
        evil = await (await hostile(world)).join()
        number, call = await evil.open(), os.urandom(16)
        await evil.call(number, "hold", messages.Long(1, 1 << 20), call=call)
        assert kept.free == before - (1 << 20)
        await evil.ping(ended=[call])
        await asyncio.sleep(1)
        assert kept.free == before
        # And one that would have a result.
        held = os.urandom(16)
        await evil.call(number, "hold", arguments(number=2), call=held)
        await evil.ping(ended=[held])
        # A ping is answered before the service has heard of it.
        await asyncio.sleep(1)
        evil.served.let_go(2)
        await asyncio.sleep(1)
        assert evil.served.ran[2] == 1
        assert not evil.served.ended
        assert kept.free == before
        await evil.ask(Kind.BYE, messages.Bye([]))
        await evil.close()
        await world.idle()

    run(program)


def test_what_strangers_send_is_dropped_before_it_is_opened(run, monkeypatch, caplog):
    """By its head; whoever copies that is dropped, too, and it is said once that there are very many."""
    monkeypatch.setattr(lines, "strays", lines.Strays())
    opened = []
    opening = sealing.Seal.open
    monkeypatch.setattr(sealing.Seal, "open", lambda seal, body: opened.append(body) or opening(seal, body))

    async def program(world):
        [partner] = world.far._partners
        engine, junk = world.network.engine(), os.urandom(200)
        genuine = [body for subject, body in world.network.seen if subject == partner.link.token.subject][-1]
        for subject in (partner.link.token.subject, world.token.subject):
            for _ in range(10_000):
                with contextlib.suppress(Unanswered):
                    await engine.call(subject, junk, within=1)
        assert junk not in opened
        forged = genuine[:-1] + bytes([genuine[-1] ^ 1])
        assert await engine.call(partner.link.token.subject, forged, within=1) == b""
        assert opened.count(forged) == 1
        await others_are_served(world)

    run(program)
    assert sum("nobody with a key" in message for message in caplog.messages) == 1


def test_an_id_of_a_call_that_runs_is_used_again(run):
    """When the bridge remembers no more that it has come: the second is refused, and the first counts once."""

    async def program(world):
        pools = world.far._partners._pools
        free = {name: pool.free for name, pool in vars(pools).items()}
        evil = await (await hostile(world)).join()
        number, call = await evil.open(), os.urandom(16)
        await evil.call(number, "hold", arguments(number=1), call=call)
        for _ in range(3):
            await asyncio.sleep(6)
            await evil.ping()
            with pytest.raises(Refused, match="ID"):
                await evil.call(number, "hold", arguments(number=2), call=call)
        await evil.ask(Kind.BYE, messages.Bye([]))
        await evil.close()
        await world.idle()
        after = {name: pool.free for name, pool in vars(pools).items()}
        assert all(after[name] >= before for name, before in free.items()), (free, after)

    run(program)


def test_two_links_of_one_key(run):
    """Each takes its own alone; the end of one is not that of the other."""

    async def program(world):
        first = await hostile(world)
        second = HostileImporter(world.network.engine(), first.token, "evil", clocks.time)
        own, name = Half(), os.urandom(16)
        await first.join(own=own, link_name=name)
        await second.join(own=own, link_name=name)
        assert first.link == second.link
        one, other = await first.open(), await second.open()
        call = os.urandom(16)
        for each, at in ((first, one), (second, other)):
            assert (await each.call(at, "run", arguments(number=1), call=call)).payload == b"\x01"
        await first.ask(Kind.BYE, messages.Bye([]))
        await first.close()
        assert (await second.call(other, "run", arguments(number=2))).payload == b"\x02"
        await second.ask(Kind.BYE, messages.Bye([]))
        await second.close()
        await others_are_served(world)
        await world.idle()

    run(program)


def test_who_joins_in_the_name_of_another(run):
    """It is that one for people; what the other has, it does not have."""

    async def program(world):
        thing = world.thing()
        there = await world.far.connect(await world.near.export(thing))
        assert await there.cast(Thing).touch(1) == 1
        evil = await hostile(world, name="near")
        await evil.join()
        number = await evil.open()
        [made] = [each for each in world.far._partners if each.link.other == "near" and each.link.instance]
        lies = [os.urandom(32), b"", made.link.token.derive(b"", b"")]
        for proof in lies:
            question = messages.Pair(made.link.token.subject, proof)
            assert (await evil.ask(Kind.PAIR, question))[0] == REFUSED
        with pytest.raises(Refused, match="not there any more"):
            await evil.call(number, "take", arguments(number=2, thing=0), [messages.Others(1)])
        assert [kind for kind, _ in evil.heard if kind == Kind.PAIR] == []
        await others_are_served(world)
        await evil.ask(Kind.BYE, messages.Bye([]))
        await evil.close()
        del there, thing, made

    run(program)


class Bell(cm.Interface):
    @cm.method
    async def take(self) -> cm.Signal: ...


class BellServer(Bell):
    """Gives a signal."""

    def __init__(self, bell):
        self._bell = bell

    async def take(self):
        return self._bell


def test_a_signal_that_is_sent_very_often(run):
    """Also where nobody looks at it: others are served, and nothing is kept of it."""

    async def program(world):
        with cm.SignalReceiver() as nobody_waits:
            token = await world.far.export(world.entrypoint.manage(BellServer(nobody_waits.signal)))
            evil = await HostileImporter(world.network.engine(), token, "evil", clocks.time).join()
            number = await evil.open()
            [mine] = (await evil.call(number, "take", b"\x80")).table
            assert mine.is_signal
            for _ in range(50):
                rings = [evil.ask(Kind.RING, messages.Ring(mine.number)) for _ in range(100)]
                assert {kind for kind, _ in await asyncio.gather(*rings)} == {Kind.RING | messages.ANSWER}
            await others_are_served(world)
            await evil.ask(Kind.BYE, messages.Bye([]))
            await evil.close()

    run(program)


def test_a_chunk_that_is_fetched_over_and_over(run):
    """What it costs is bounded by what was paid for it: a call."""

    async def program(world):
        evil = await (await hostile(world)).join()
        number, call = await evil.open(), os.urandom(16)
        data = os.urandom(lending.LARGEST_CHUNK)
        answer = await evil.call(number, "blob", arguments(number=1, data=data[:100_000] * 8), call=call)
        assert isinstance(answer.payload, messages.Long)
        came = []
        while len(came) < 1000 and (not came or came[-1] != REFUSED):
            came.append((await evil.ask(Kind.FETCH, messages.Fetch(answer.payload.number, 0, 100_000)))[0])
        assert came[-1] == REFUSED
        assert 64 < len(came) < 150
        await others_are_served(world)
        await evil.ask(Kind.BYE, messages.Bye([]))
        await evil.close()
        await world.idle()

    run(program)


def test_lines_that_others_bring_about_are_so_many_a_second(caplog):
    """And the next one says how many were left out."""
    caplog.set_level(logging.INFO, "capmarshal")
    some = lines.Lines()
    for number in range(100_000):
        some.log(logging.INFO, "a link with %s", number)
    written = len(caplog.records)
    assert 100 <= written < 10_000
    some._looked -= 1
    some.log(logging.INFO, "a link with %s", "one more")
    assert caplog.messages[-1].startswith("a link with one more (and ")
    assert caplog.messages[-1].endswith(" such lines were left out)")
