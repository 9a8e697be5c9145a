"""Nodes as docs/bridge_nodes.md configures them: what a bridge may there, and what others see."""

import asyncio
import contextlib

import pytest

import engines
import hosts
import loops
import secured_nodes
from capmarshal._bridge.engine import NobodyThere
from capmarshal._bridge.nats_engine import NatsEngine
from capmarshal._bridge.sealing import Direction, Label, NotGenuine, Seal
from capmarshal._bridge.tokens import Token
from engines import PLENTY

LIVENESS = 0.5


@pytest.fixture
def secured(tmp_path):
    """Three nodes, and two bridges that may use them: "render1" and "web1"."""
    with secured_nodes.secured(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def bridges(secured, *names):
    """An engine for each bridge, at nodes of their own."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for number, name in enumerate(names):
            engine = await NatsEngine.connect(
                [secured.addresses[number]], secured.login(name), inbox=secured.inbox(name), liveness=LIVENESS
            )
            stack.push_async_callback(engine.close, within=0)
            made.append(engine)
        yield made


async def upper(body):
    """Serves."""
    return body.upper()


def test_who_hears_all_reads_subjects_and_nothing_that_was_sealed(secured):
    """Two bridges call each other, by nodes of their own; spies with all rights are at every node."""
    token = Token.new("render1")
    there, back = Seal(token, Direction.TO_EXPORTER), Seal(token, Direction.TO_IMPORTER)
    label = Label(kind=1, call=bytes(16), lease=bytes(16))

    async def serve(body):
        return back.seal(label, there.open(body)[1].upper())

    def genuine(body):
        with contextlib.suppress(NotGenuine):
            return back.open(body)[0] == label
        return False

    async def program(spies):
        async with bridges(secured, "render1", "web1") as (exporter, importer):
            await exporter.serve(token.subject, serve)
            await exporter.serve("cm.render1.open", upper)
            body = there.seal(label, b"transfer payload")
            answer = await engines.answered(importer, token.subject, body, accept=genuine)
            assert back.open(answer)[1] == b"TRANSFER PAYLOAD"
            for spy in spies[:2]:
                spy.check_hidden(token, "transfer", "TRANSFER", "payload", "PAYLOAD")
                assert token.subject in spy.subjects()
                assert len(spy.bodies()) >= 2
            # It is not blind.
            assert await engines.answered(importer, "cm.render1.open", b"transfer") == b"TRANSFER"
            for spy in spies[:2]:
                for secret in ("transfer", b"TRANSFER"):
                    with pytest.raises(AssertionError, match="the spy has seen"):
                        spy.check_hidden(secret)

    with secured.spy(node=0) as first, secured.spy(node=1) as second, secured.spy(node=2) as third:
        loops.run("asyncio", program, (first, second, third))


def test_who_was_given_nothing_hears_nothing_and_sends_nothing(secured):
    """Although it is a user of the same account: what is not said of it, its account says."""

    async def program(nobody, spy):
        async with bridges(secured, "render1", "web1") as (exporter, importer):
            await exporter.serve("cm.render1.00", upper)
            assert await engines.answered(importer, "cm.render1.00", b"x") == b"X"
            nobody.publish("cm.render1.00", b"from nobody")
            nobody.subscribe("cm.render1.00")
            nobody.subscribe("_INBOX.web1.*.*")
            nobody.subscribe("$SYS.>")
            assert await importer.call("cm.render1.00", b"y", within=PLENTY) == b"Y"
        assert not nobody.heard
        assert nobody.told == [
            'Permissions Violation for Subscription to ">"',
            'Permissions Violation for Publish to "cm.render1.00"',
            'Permissions Violation for Subscription to "cm.render1.00"',
            'Permissions Violation for Subscription to "_INBOX.web1.*.*"',
            'Permissions Violation for Subscription to "$SYS.>"',
        ]
        spy.catch_up()
        assert b"from nobody" not in spy.bodies()

    with secured.spy(user="nobody", password="nothing") as nobody, secured.spy() as spy:
        loops.run("asyncio", program, nobody, spy)


@pytest.mark.parametrize("kind", hosts.KINDS)
def test_such_nodes_find_each_other_again(kind, tmp_path):
    """Over a network that was parted, by encrypted routes."""

    async def program():
        async with bridges(secured, "render1", "web1") as (exporter, importer):
            await exporter.serve("cm.render1.00", upper)
            assert await engines.answered(importer, "cm.render1.00", b"x") == b"X"
            one, two, three = network.hosts
            network.part([one], [two, three])
            await asyncio.to_thread(network.parted, [one], [two, three])
            with pytest.raises(NobodyThere):
                await importer.call("cm.render1.00", b"x", within=PLENTY)
            network.join()
            assert await engines.answered(importer, "cm.render1.00", b"x") == b"X"

    with secured_nodes.secured_hosts(kind, tmp_path) as (secured, network):
        loops.run("asyncio", program)
