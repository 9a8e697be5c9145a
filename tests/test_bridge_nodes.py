"""Nodes as docs/bridge_nodes.md configures them: what a bridge may there, and what others see."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess

import pytest

import capmarshal as cm
import engines
import hosts
import loops
import nats_accounts
import nats_servers
import secured_nodes
from capmarshal import aio
from capmarshal._bridge_engine.engine import NobodyThere, NotAllowed
from capmarshal._bridge_engine.nats_engine import NatsEngine
from capmarshal._bridge_link.sealing import Direction, Label, NotGenuine, Seal
from capmarshal._bridge_link.tokens import Token
from capmarshal.bridge import Bridge, Login
from documents import Reader, fenced, read
from engines import PLENTY
from patience import PATIENCE
from traffic import Traffic

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


class Vault(cm.Interface):
    """What is called from another machine."""

    @cm.method
    async def withdraw(self, account: str, by: Vault | None) -> str: ...


class VaultServer(Vault):
    """Gives what whoever it is to ask gives."""

    async def withdraw(self, account, by):
        return f"1000 of {account}" if by is None else await by.withdraw(account, None)


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


@pytest.mark.parametrize("responses", [False, True])
def test_two_bridges_need_no_more(tmp_path, responses):
    """Capabilities go both ways, of a token at first; nothing of what is called and said is heard at the nodes."""

    async def program(spies):
        async with contextlib.AsyncExitStack() as stack:
            made = []
            for number, name in enumerate(("render1", "web1")):
                engine = await NatsEngine.connect(
                    [secured.addresses[number]], secured.login(name), inbox=secured.inbox(name), liveness=LIVENESS
                )
                made.append(await stack.enter_async_context(Bridge(name, engine)))
            exporter, importer = made
            entrypoint = await stack.enter_async_context(aio.Entrypoint("vault"))
            vault, own = VaultServer(), VaultServer()
            entrypoint.manage(vault)
            entrypoint.manage(own)
            token = await exporter.export(vault)
            there = (await importer.connect(token)).cast(Vault)
            assert await there.withdraw("numbered-account", own) == "1000 of numbered-account"
            for spy in spies:
                spy.check_hidden(token, "withdraw", "numbered-account", "1000 of ")
                assert {subject.split(".")[1] for subject in spy.subjects()} == {"render1", "web1"}

    with secured_nodes.secured(tmp_path, responses=responses) as secured:
        with secured.spy(node=0) as first, secured.spy(node=1) as second:
            loops.run("asyncio", program, (first, second))


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


def test_who_hears_a_call_says_in_the_nodes_place_that_nobody_is_there(secured):
    """It takes both: to hear it, and to send to inboxes; the call may be served all the same."""

    async def program(spy):
        async with bridges(secured, "render1", "web1") as (exporter, importer):
            asked, go = asyncio.Event(), asyncio.Event()

            async def held(body):
                asked.set()
                await go.wait()
                return body

            await exporter.serve("cm.render1.00", held)
            await exporter.serve("cm.render1.11", upper)
            await engines.answered(importer, "cm.render1.11", b"")
            call = asyncio.create_task(importer.call("cm.render1.00", b"x", within=PLENTY))
            await asked.wait()
            spy.catch_up()
            [heard] = [message for message in spy.heard if message.body == b"x"]
            # What a neighbour would have to guess.
            assert re.fullmatch(r"_INBOX\.web1(\.[0-9a-f]{32}){2}", heard.reply)
            spy.say_nobody_is_there(heard.reply)
            with pytest.raises(NobodyThere):
                await call
            go.set()

    with secured.spy(node=1) as spy:
        loops.run("asyncio", program, spy)


def test_a_bridge_hears_no_other_and_is_in_no_others_place(secured):
    """Neither what another one is asked, nor what it is answered; but it may call any."""

    async def program():
        async with bridges(secured, "render1", "web1") as (exporter, importer):
            for subject in (f"cm.render1.{'0' * 32}", f"_INBOX.render1.{'0' * 32}.{'0' * 32}", "cm.new.x"):
                with pytest.raises(NotAllowed, match="its user may not subscribe to"):
                    await importer.watch(subject, upper)
            for subject in ("_INBOX.render1", "other.place", "cm.render1", "cm.render1.00.more"):
                with pytest.raises(NotAllowed, match="its user may not publish to"):
                    await importer.call(subject, b"x", within=PLENTY)
            await exporter.serve("cm.render1.00", upper)
            assert await engines.answered(importer, "cm.render1.00", b"x") == b"X"

    loops.run("asyncio", program)


@pytest.mark.parametrize("responses", [False, True])
def test_an_answer_after_a_lost_node_needs_the_permission_of_all_inboxes(tmp_path, responses):
    """The next node knows nothing of the call, and so nothing of who may be answered."""

    async def program():
        asked, go = asyncio.Event(), asyncio.Event()

        async def serve(body):
            asked.set()
            await go.wait()
            return body.upper()

        async with bridges(secured, "render1", "web1") as (exporter, importer):
            await exporter.serve("cm.render1.00", serve)
            await exporter.serve("cm.render1.11", upper)
            assert await engines.answered(importer, "cm.render1.11", b"x") == b"X"
            call = asyncio.create_task(importer.call("cm.render1.00", b"x", within=PLENTY))
            await asked.wait()
            secured.nodes[0].kill()
            await engines.awaited(lambda: not exporter.connected)
            await engines.awaited(lambda: exporter.connected)
            go.set()
            if responses:
                await engines.awaited(lambda: ("publish", "_INBOX.web1.*.*") in denied(exporter))
                assert not call.done()
                call.cancel()
            else:
                assert await call == b"X"
                assert not denied(exporter)

    def denied(engine):
        return {(verb, subject.replace("_inbox", "_INBOX")) for verb, subject in engine._interests._denials}

    with secured_nodes.secured(tmp_path, responses=responses) as secured:
        loops.run("asyncio", program)


def test_a_bridge_that_is_taken_out_is_cut_off(secured):
    """While it is connected; the others go on."""

    async def program():
        async with bridges(secured, "render1", "web1") as (exporter, importer):
            await exporter.serve("cm.render1.00", upper)
            await importer.serve("cm.web1.00", upper)
            assert await engines.answered(importer, "cm.render1.00", b"x") == b"X"
            await asyncio.to_thread(secured.without, "render1")
            await engines.awaited(lambda: not exporter.connected)
            with pytest.raises(NobodyThere):
                await importer.call("cm.render1.00", b"x", within=PLENTY)
            assert await importer.call("cm.web1.00", b"x", within=PLENTY) == b"X"

    loops.run("asyncio", program)


def test_nodes_are_ended_one_after_the_other_and_started_again(tmp_path):
    """Sent away by the node itself, or cut off by its end: calls go on, and none runs twice."""

    async def program(nodes):
        async with contextlib.AsyncExitStack() as stack:
            made = []
            for node in nodes[:2]:
                made.append(await NatsEngine.connect([node.address], liveness=LIVENESS))
                stack.push_async_callback(made[-1].close, within=0)
            traffic = await stack.enter_async_context(Traffic(*made))
            for number, node in enumerate(nodes):
                await traffic.more()
                await asyncio.to_thread(node.retire if number else node.kill)
                await traffic.more()
                await asyncio.to_thread(node.start)
        traffic.check()

    # The shortest that a node takes; of few clients one goes a second.
    with nats_servers.nodes(tmp_path, 3, 'lame_duck_duration: "30s"\nlame_duck_grace_period: "10ms"') as nodes:
        loops.run("asyncio", program, nodes)


def test_nobody_is_a_node_without_a_certificate(secured):
    """Where nodes are connected to, who shows none is told nothing."""

    def told(client):
        place = "127.0.0.1", secured.nodes[0].port("cluster")
        with (
            socket.create_connection(place, timeout=PATIENCE) as plain,
            contextlib.suppress(OSError),
            secured.authority.context(client).wrap_socket(plain, server_hostname="127.0.0.1") as encrypted,
        ):
            return encrypted.recv(5)
        return b""

    assert told(None) == b""
    assert told(secured.authority.issue("another")) == b"INFO "


def test_a_user_of_an_operators_has_the_same_permissions(tmp_path):
    """What nsc writes into its token."""
    [subscribe, publish] = re.findall(r'--allow-\w+ "(.*?)"', "".join(fenced(read("docs/bridge_nodes.md"), "text")))
    kinds = nats_accounts.OPERATOR, nats_accounts.ACCOUNT, nats_accounts.USER
    operator, account, user = map(nats_accounts.Key, kinds)
    path = tmp_path / "render1.creds"
    path.write_text(nats_accounts.credentials(account, user, None, subscribe.split(","), publish.split(",")))

    async def program(node):
        engine = await NatsEngine.connect([node.address], Login(credentials=path), inbox="_INBOX.render1")
        try:
            await engine.serve("cm.render1.00", upper)
            assert await engine.call("cm.render1.00", b"x", within=PLENTY) == b"X"
            with pytest.raises(NotAllowed):
                await engine.serve("cm.web1.00", upper)
            with pytest.raises(NotAllowed):
                await engine.call("other.place", b"x", within=PLENTY)
        finally:
            await engine.close(within=0)

    with nats_servers.nodes(tmp_path, extra=nats_accounts.configuration(operator, account)) as [node]:
        loops.run("asyncio", program, node)


# What the page shows ------------------------------------------------------------------------------------------------


def test_the_page_is_followed(tmp_path):
    """Certificates and keys are made as it says; its files are a node's configuration; its login is let in."""
    if shutil.which("openssl") is None:
        pytest.skip("the page makes certificates with openssl, which is not here")
    page = read("docs/bridge_nodes.md")
    shown = fenced(page)
    [program] = [text for text in shown if text.startswith("# new_key.py")]
    [login] = [text for text in shown if "Login(" in text]
    (tmp_path / "new_key.py").write_text(program)
    with Reader("docs/bridge_nodes.md", tmp_path) as reader:
        printed = {}
        for command in re.findall(r"^\$ (.*)$", "".join(fenced(page, "console")), re.MULTILINE):
            # By which the test reaches it.
            said, status = reader.run(command.replace("DNS:node1.example", "DNS:node1.example,IP:127.0.0.1"))
            assert status == 0, said
            printed[command] = said.strip()
        [public] = [said for command, said in printed.items() if "new_key.py" in command]
    assert (tmp_path / "render1.nk").stat().st_mode & 0o777 == 0o600
    # As it stands there, with the files of here and that key.
    key = re.search(r'# render1\n +nkey: "(\w+)"', page)[1]
    (tmp_path / "users.conf").write_text(secured_nodes.shown("users.conf").replace(key, public))
    text = secured_nodes.shown("node.conf").replace("/etc/nats/", f"{tmp_path}/")
    (tmp_path / "shown.conf").write_text(text)
    command = [nats_servers.find_program(), "-t", "-c", str(tmp_path / "shown.conf")]
    tested = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert tested.returncode == 0, tested.stderr
    place = tmp_path / "node"
    place.mkdir()
    # One node, where there is none else, at ports that are free.
    cluster = secured_nodes.block(text, "cluster")
    alone = text.replace(cluster, "").replace("cluster {\n}\n", "").replace("users.conf", "../users.conf")
    alone = re.sub(r"^(?:server_name|listen|client_advertise|http):.*\n", "", alone, flags=re.MULTILINE)
    node = nats_servers.Node(place, alone)
    try:
        login = re.sub(r"^nodes = .*$", f"nodes = [{node.address!r}]", login, flags=re.MULTILINE)
        names = {}
        exec(login.replace("/etc/capmarshal/", f"{tmp_path}/"), names)

        async def connect():
            engine = await names["connect"]()
            try:
                await engine.serve("cm.render1.00", upper)
                assert await engine.call("cm.render1.00", b"x", within=PLENTY) == b"X"
            finally:
                await engine.close(within=0)

        loops.run("asyncio", connect)
    finally:
        node.kill()
