"""What a Bridge is not to be used for, and what says so."""

import asyncio
import gc

import pytest

import capmarshal as cm
from bridge_hosts import hosts
from capmarshal import aio
from capmarshal._bridge.bridge import Bridge
from capmarshal._bridge_link.tokens import Token
from engine_in_process import Network, Slow
from forwarding import AsyncPage, Desk, DeskServer
from nats_servers import nodes


def run(program):
    """In an event loop; no misuse makes it hang."""

    async def bounded():
        async with asyncio.timeout(25):
            await program()

    asyncio.run(bounded())


class PageServer(AsyncPage):
    async def title(self):
        return "a page"


def test_a_bridge_that_was_not_entered():
    async def program():
        bridge = Bridge("never", Network().engine())
        token = Token.new("other")
        for use in (bridge.connect(token), bridge.export("/tmp/x"), bridge.revoke(Token.new("never"))):
            with pytest.raises(RuntimeError, match="async with Bridge"):
                await use
        with pytest.raises(RuntimeError, match="async with Bridge"):
            bridge.listen("/tmp/x", token)
        assert bridge.counts == {}
        # Nothing of it was begun, and so nothing is left open.
        del bridge, use
        gc.collect()

    run(program)


def test_two_bridges_have_an_engine_each():
    async def program():
        engine = Network().engine()
        async with Bridge("one", engine), aio.Entrypoint("pages"):
            with pytest.raises(ValueError, match="another bridge's"):
                Bridge("two", engine)

    run(program)


@pytest.mark.parametrize("engine", [None, "nats://127.0.0.1:4222"])
def test_what_is_no_engine(engine):
    with pytest.raises(TypeError, match=r"NatsEngine.connect\(\) gives"):
        Bridge("one", engine)


def test_an_engine_that_was_not_awaited():
    async def connect():
        """As NatsEngine.connect."""

    made = connect()
    with pytest.raises(TypeError, match="to be awaited"):
        Bridge("one", made)
    made.close()


def test_what_is_no_token_of_its_own():
    async def program():
        async with Bridge("one", Network().engine()) as bridge, aio.Entrypoint("pages") as entrypoint:
            page = entrypoint.manage(PageServer())
            text = (await bridge.export(page)).reveal()
            for use in (bridge.connect(text), bridge.export(page, token=text), bridge.revoke(text)):
                with pytest.raises(TypeError, match=r"Token\.parse") as caught:
                    await use
                assert text not in str(caught.value)
            for use in (bridge.export(page, token=Token.new("two")), bridge.revoke(Token.new("two"))):
                with pytest.raises(ValueError, match="a token of 'two', and this bridge is 'one'"):
                    await use

    run(program)


def test_a_revoked_token_that_is_exported_again():
    async def program():
        network = Network()
        async with (
            Bridge("one", network.engine()) as one,
            Bridge("two", network.engine()) as two,
            aio.Entrypoint("pages") as entrypoint,
        ):
            page = entrypoint.manage(PageServer())
            token = await one.export(page)
            await one.revoke(token)
            with pytest.raises(cm.Disconnected, match=r"revoked|nobody"):
                await two.connect(token)
            await one.export(page, token=token)
            assert await (await two.connect(token)).cast(AsyncPage).title() == "a page"

    run(program)


@pytest.mark.parametrize("again", [True, False])
def test_a_token_that_is_revoked_while_it_is_exported(again):
    """Nobody has it then, and nobody is served; exported again meanwhile, it stands for that."""

    async def program():
        network = Network()
        engine = network.engine()
        async with (
            aio.Entrypoint("page") as entrypoint,
            Bridge("far", engine, close_timeout=0) as far,
            Bridge("near", network.engine(), close_timeout=0) as near,
        ):
            token, page = Token.new("far"), entrypoint.manage(PageServer())
            far._offers._engine = slow = Slow(engine)
            first = asyncio.create_task(far.export(page, token=token))
            await asyncio.sleep(0)
            await far.revoke(token)
            if again:
                far._offers._engine = engine
                assert await far.export(page, token=token) == token
            slow.go.set()
            with pytest.raises(ValueError, match="was revoked while it was being exported"):
                await first
            assert network.served(token.subject) == int(again)
            if again:
                assert await (await near.connect(token)).cast(AsyncPage).title() == "a page"
                await far.revoke(token)
                assert not network.served(token.subject)
            with pytest.raises(cm.Disconnected, match=r"nobody serves|no such token"):
                await near.connect(token)

    run(program)


def test_a_call_that_is_not_sent_by_its_deadline(tmp_path):
    """Since there is no node: that it has not run is known, and said."""
    with (
        nodes(tmp_path) as [node],
        hosts([node], "near", "far") as (near, far),
        cm.Entrypoint("desk") as entrypoint,
    ):
        desk = near.host.connect(far.host.export(entrypoint.manage(DeskServer()))).cast(Desk)
        assert desk.made() == 0
        node.kill()
        # The first ones may have been on their way.
        while True:
            with cm.timeout(1), pytest.raises((cm.CallTimeout, cm.Disconnected)) as caught:
                desk.made()
            if caught.value.ran == "no":
                break
        assert isinstance(caught.value, cm.CallTimeout)
        assert "not sent" in str(caught.value)
