"""What a node does not permit an engine: said at once to who asks for it, and in the log, with what is missing."""

import asyncio
import contextlib
import logging

import pytest

import engines
import loops
import nats_servers
from capmarshal._bridge_engine.engine import EngineError, NobodyThere, NotAllowed, NotSent
from capmarshal._bridge_engine.login import Login
from capmarshal._bridge_engine.nats_engine import NatsEngine
from engines import PLENTY, SHORT

LIVENESS = 0.1
ALL = 'permissions { subscribe: ">", publish: ">" }'
INBOX = 'publish: ["cm.*.*", "_INBOX.*.*.*"]'


def configuration(permissions):
    """Of one user with these, and of one with all."""
    return (
        f'accounts {{ B {{ users: [ {{ user: "render1", password: "x", permissions {{ {permissions} }} }}\n'
        f'{{ user: "web1", password: "x", {ALL} }} ] }} }}'
    )


@pytest.fixture
def node(tmp_path):
    """node(permissions): one node."""
    with contextlib.ExitStack() as stack:

        def start(permissions):
            return stack.enter_context(nats_servers.nodes(tmp_path, extra=configuration(permissions)))[0]

        yield start


@contextlib.asynccontextmanager
async def connected(node, name):
    """An engine of that user."""
    login = Login(user=name, password="x")
    engine = await NatsEngine.connect([node.address], login, inbox=f"_INBOX.{name}", liveness=LIVENESS)
    try:
        yield engine
    finally:
        await engine.close(within=0)


@pytest.fixture
def log(caplog, forgotten_log):
    """log(words): how many lines of the log have them."""
    caplog.set_level(logging.INFO, "capmarshal")
    return lambda words: sum(words in record.getMessage() for record in caplog.records)


async def echo(body):
    """Serves what it is sent."""
    return body


def subject(number, bridge="web1"):
    """That of a grant."""
    return f"cm.{bridge}.{number:032x}"


def test_a_call_that_may_not_be_sent_is_told_so_at_once(node, log):
    """And those that wait beside it; the log says it once, of however many subjects."""
    one = node('subscribe: "_INBOX.render1.*.*", publish: "cm.other.*"')

    async def program():
        async with connected(one, "render1") as engine:
            calls = [engine.call(subject(number % 3), b"x", within=PLENTY) for number in range(6)]
            for ended in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(ended, NotAllowed)
                assert isinstance(ended, PermissionError)
                # Nobody can say of which calls it is true.
                assert not isinstance(ended, NotSent)
                assert str(ended) == 'its user may not publish to "cm.web1.*": give it the permission to'
            with pytest.raises(NobodyThere):
                await engine.call(subject(0, "other"), b"x", within=PLENTY)

    loops.run("asyncio", program)
    assert log('its user may not publish to "cm.web1.*"') == 1


def test_what_may_not_be_served_or_watched_is_not(node, log):
    """It is raised, and nothing is left of it."""
    one = node(f'subscribe: ["cm.render1.*", "_INBOX.render1.*.*"], {INBOX}')

    async def program():
        async with connected(one, "render1") as engine:
            for verb in (engine.serve, engine.watch):
                words = 'its user may not subscribe to "cm.web1.*": give it the permission to'
                with pytest.raises(NotAllowed, match=words.replace("*", "[*]")):
                    await verb(subject(1), echo)
            await engine.serve(subject(1, "render1"), echo)
            assert await engine.call(subject(1, "render1"), b"x", within=PLENTY) == b"x"
            assert [interest.denied for interest in engine._interests._all] == ["", ""]

    loops.run("asyncio", program)
    assert log('its user may not subscribe to "cm.web1.*"') == 1


def test_an_engine_that_may_not_hear_answers_is_none(node):
    """Else all of its calls would end by time, and nobody would know why."""
    one = node('subscribe: "cm.render1.*", publish: "cm.*.*"')

    async def program():
        words = r'its user may not subscribe to "_INBOX.render1.\*.\*": give it the permission to'
        with pytest.raises(EngineError, match=words):
            async with connected(one, "render1"):
                pass

    loops.run("asyncio", program)


def test_an_answer_that_may_not_be_sent_is_in_the_log_of_who_made_it(node, log):
    """Its caller hears nothing, since nobody may tell it."""
    one = node('subscribe: ["cm.render1.*", "_INBOX.render1.*.*"], publish: "cm.*.*"')

    async def program():
        async with connected(one, "render1") as server, connected(one, "web1") as caller:
            await server.serve(subject(1, "render1"), echo)
            for _ in range(2):
                with pytest.raises(EngineError, match="no answer within"):
                    await caller.call(subject(1, "render1"), b"x", within=SHORT)

    loops.run("asyncio", program)
    assert log('its user may not publish to "_INBOX.web1.*.*": give it the permission to; allow_responses ends') == 1


def test_what_may_not_be_sent_to_who_watches_is_in_the_log(node, log):
    """Nobody waits for what is sent."""
    one = node('subscribe: "_INBOX.render1.*.*", publish: "cm.other.*"')

    async def program():
        async with connected(one, "render1") as engine:
            for _ in range(3):
                await engine.send(subject(1), b"x")
            await engines.awaited(lambda: log('its user may not publish to "cm.web1.*"'))

    loops.run("asyncio", program)
    assert log('its user may not publish to "cm.web1.*"') == 1


def test_permissions_may_be_given_and_withdrawn_while_there_is_a_connection(node, log):
    """A node that reads its configuration again ends what is served without a word to its caller: it is asked again."""
    allowed = f'subscribe: ["cm.render1.*", "_INBOX.render1.*.*"], {INBOX}'
    withdrawn = f'subscribe: "_INBOX.render1.*.*", {INBOX}'
    one = node(allowed)

    async def program():
        async with connected(one, "render1") as server, connected(one, "web1") as caller:
            await server.serve(subject(1, "render1"), echo)
            connection = server._keeper.connection
            for number in (1, 2):
                assert await engines.answered(caller, subject(1, "render1"), b"x") == b"x"
                await asyncio.to_thread(one.reload, configuration(withdrawn))
                await engines.awaited(lambda: log('its user may not subscribe to "cm.render1.*"') == number)  # noqa: B023
                with pytest.raises(NobodyThere):
                    await caller.call(subject(1, "render1"), b"x", within=PLENTY)
                await asyncio.to_thread(one.reload, configuration(allowed))
                await engines.awaited(lambda: log("its user may subscribe to cm.render1.* now") == number)  # noqa: B023
            assert await caller.call(subject(1, "render1"), b"x", within=PLENTY) == b"x"
            assert server._keeper.connection is connection

    loops.run("asyncio", program)


def test_an_engine_that_may_no_longer_hear_answers_sends_no_call(node, log):
    """Until it may again."""
    allowed, withdrawn = f'subscribe: "_INBOX.render1.*.*", {INBOX}', f'subscribe: "cm.render1.*", {INBOX}'
    one = node(allowed)

    async def program():
        async with connected(one, "render1") as caller, connected(one, "web1") as server:
            await server.serve(subject(1), echo)
            assert await caller.call(subject(1), b"x", within=PLENTY) == b"x"
            await asyncio.to_thread(one.reload, configuration(withdrawn))
            await engines.awaited(lambda: caller._answered.denied)
            with pytest.raises(NotAllowed, match="may not subscribe to"):
                await caller.call(subject(1), b"x", within=PLENTY)
            await asyncio.to_thread(one.reload, configuration(allowed))
            await engines.awaited(lambda: log("its user may subscribe to _INBOX.render1.*.* now"))
            assert await caller.call(subject(1), b"x", within=PLENTY) == b"x"

    loops.run("asyncio", program)
