"""Hosts that are parted from each other, each with a node of NATS: what calls between them become."""

import asyncio
import contextlib

import pytest

import engines
import hosts
import loops
from capmarshal._bridge_engine.engine import NobodyThere, NotSent, Unanswered
from capmarshal._bridge_engine.nats_engine import NatsEngine
from engines import PLENTY
from traffic import Traffic

# Seconds after which a node that is not heard of is left; and that a call waits which is not to be answered.
LIVENESS, SOON = 0.5, 0.5


@pytest.fixture(params=hosts.KINDS)
def network(request, tmp_path):
    """network(extra): three hosts, of each kind; ``extra`` is more of their nodes' configuration."""
    with contextlib.ExitStack() as stack:

        def make(extra=""):
            return stack.enter_context(hosts.hosts(request.param, tmp_path, extra=extra))

        yield make


@contextlib.asynccontextmanager
async def connected(*addresses):
    """An engine for each, closed with the block."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for address in addresses:
            made.append(await NatsEngine.connect([address], liveness=LIVENESS))
            stack.push_async_callback(made[-1].close, within=0)
        yield made


async def echo(body):
    """Serves what it is sent."""
    return body


async def in_thread(function, *arguments):
    """A function that waits, while engines go on."""
    return await asyncio.to_thread(function, *arguments)


def test_a_call_over_a_partition_ends_in_its_time_and_the_way_is_not_lost(network):
    """Either way: first it is not known what became of it, later nobody is there; joined again, it is served."""
    net = network()
    here, there, third = net.hosts

    async def program():
        async with connected(here.address, there.address) as (one, other):
            await one.serve("cm.host.one", echo)
            await other.serve("cm.host.other", echo)
            ways = [(one, "cm.host.other"), (other, "cm.host.one")]
            for engine, subject in ways:
                assert await engines.answered(engine, subject, b"before") == b"before"
            net.part([here], [there, third])
            for engine, subject in ways:
                with pytest.raises((Unanswered, NobodyThere)):
                    await engine.call(subject, b"parted", within=SOON)
            await in_thread(net.parted, [here], [there, third])
            for engine, subject in ways:
                with pytest.raises(NobodyThere):
                    await engine.call(subject, b"parted", within=PLENTY)
                # Its own node is there all the time: nothing else tells it of the partition.
                assert engine.connected
            net.join()
            for engine, subject in ways:
                assert await engines.answered(engine, subject, b"after") == b"after"

    loops.run("asyncio", program)


def test_who_is_left_with_its_node_goes_on(network):
    """Whoever they are: the one that is alone, and the two."""
    net = network()
    here, there, third = net.hosts

    async def program():
        async with connected(here.address, here.address, there.address, third.address) as all_of_them:
            one, beside, two, three = all_of_them
            await one.serve("cm.host.one", echo)
            await two.serve("cm.host.two", echo)
            assert await engines.answered(three, "cm.host.two", b"before") == b"before"
            net.part([here], [there, third])
            for _ in range(2):
                assert await beside.call("cm.host.one", b"alone", within=PLENTY) == b"alone"
                assert await three.call("cm.host.two", b"two", within=PLENTY) == b"two"
                await in_thread(net.parted, [here], [there, third])
            assert all(engine.connected for engine in all_of_them)

    loops.run("asyncio", program)


def test_a_short_partition_costs_nothing_but_time(network):
    """A call that is served when it begins, and one that is made in it, are answered after it."""
    # As it is unless it is told otherwise: routes are not given up so soon.
    net = network('ping_interval: "2m"')
    here, *others = net.hosts

    async def program():
        asked, go = asyncio.Event(), asyncio.Event()

        async def serve(body):
            asked.set()
            await go.wait()
            return b"answer to " + body

        async with connected(here.address, others[0].address) as (server, caller):
            await server.serve("cm.host.a", serve)
            await server.serve("cm.host.b", echo)
            await engines.answered(caller, "cm.host.b", b"")
            before = asyncio.create_task(caller.call("cm.host.a", b"before", within=PLENTY))
            await asked.wait()
            net.part([here], others)
            meanwhile = asyncio.create_task(caller.call("cm.host.b", b"meanwhile", within=PLENTY))
            go.set()
            with pytest.raises(Unanswered):
                await caller.call("cm.host.b", b"given up", within=SOON)
            assert not before.done()
            assert not meanwhile.done()
            net.join()
            assert await before == b"answer to before"
            assert await meanwhile == b"meanwhile"

    loops.run("asyncio", program)


def test_calls_go_on_through_partitions_and_what_was_not_sent_never_arrives(network):
    """Of a caller at its own node, and of one whose node is across, and who has no other: that one is told at once."""
    net = network()
    here, there, third = net.hosts

    async def program():
        async with (
            connected(here.address, there.address, there.address_of(here)) as (server, caller, far),
            Traffic(caller, server, within=SOON, subject="cm.host.near") as near_traffic,
            Traffic(far, server, within=SOON, subject="cm.host.far") as far_traffic,
        ):
            for groups in (([here], [there, third]), ([here, third], [there])):
                for traffic in (near_traffic, far_traffic):
                    await traffic.more()
                net.part(*groups)
                # The engine by itself: its node says nothing any more.
                await engines.awaited(lambda: not far.connected)
                await far_traffic.refused()
                # By its node, which has given the other one up.
                await near_traffic.refused()
                assert caller.connected
                assert server.connected
                net.join()
        for traffic in (near_traffic, far_traffic):
            traffic.check()
            assert traffic.unknown

    loops.run("asyncio", program)


def test_hosts_may_be_joined_otherwise_than_they_were(network):
    """Each for itself at first, then two of them, then all: who reaches another one is served."""
    net = network()
    here, there, third = net.hosts

    async def program():
        async with connected(here.address, there.address, third.address) as (one, two, three):
            await one.serve("cm.host.one", echo)
            await engines.answered(two, "cm.host.one", b"")
            net.part([here], [there], [third])
            await in_thread(net.parted, [here], [there], [third])
            for engine in (two, three):
                with pytest.raises(NotSent):
                    await engine.call("cm.host.one", b"x", within=PLENTY)
            net.part([here, third], [there])
            assert await engines.answered(three, "cm.host.one", b"x") == b"x"
            with pytest.raises(NobodyThere):
                await two.call("cm.host.one", b"x", within=PLENTY)
            net.join()
            assert await engines.answered(two, "cm.host.one", b"x") == b"x"

    loops.run("asyncio", program)
