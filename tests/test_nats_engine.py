"""The engine that carries a bridge's bodies by NATS, with real nodes, which are killed, stopped and started again."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import engines
import loops
import nats_accounts
import nats_servers
from capmarshal._bridge_engine.engine import LARGEST, EngineError, NobodyThere, NotSent
from capmarshal._bridge_engine.login import Login
from capmarshal._bridge_engine.nats_connection import Connection, Unusable
from capmarshal._bridge_engine.nats_engine import NatsEngine
from capmarshal._bridge_link.sealing import Direction, Label, NotGenuine, Seal
from capmarshal._bridge_link.tokens import Token
from engines import PLENTY
from patience import PATIENCE, until
from traffic import Traffic

# Seconds after which a node that stands still is left.
LIVENESS = 0.5
# The second where it closes with what was sent to it unread, and its words are lost by that.
DENIED = "(nats: 'Authorization Violation'|.*Connection reset by peer: perhaps it does not let this user in)"
USERS = 'authorization { users: [{ user: "bridge", password: "secret" }] }'


def run(program, *arguments):
    """In a loop of asyncio."""
    return loops.run("asyncio", program, *arguments)


@contextlib.asynccontextmanager
async def connected(*addresses, login=None, **options):
    """An engine, closed with the block."""
    engine = await NatsEngine.connect(addresses, login, **{"liveness": LIVENESS, **options})
    try:
        yield engine
    finally:
        await engine.close(within=0)


@pytest.fixture
def node(tmp_path):
    """node(extra): one node, with that configuration."""
    with contextlib.ExitStack() as stack:

        def start(extra="", name="one"):
            place = tmp_path / name
            place.mkdir()
            return stack.enter_context(nats_servers.nodes(place, extra=extra))[0]

        yield start


@pytest.fixture
def cluster(tmp_path):
    """Three nodes."""
    with nats_servers.nodes(tmp_path, 3) as made:
        yield made


async def echo(body):
    """Serves what it is sent."""
    return body


def test_calls_go_on_where_either_side_loses_its_node(cluster):
    """Of three nodes two are killed, one after the other; no call runs twice, and none that was said not to be sent."""

    async def program():
        async with (
            connected(cluster[0].address) as server,
            connected(cluster[1].address) as caller,
            Traffic(caller, server) as traffic,
        ):
            await traffic.more()
            cluster[0].kill()
            await traffic.more()
            cluster[1].kill()
            await traffic.more()
        traffic.check()

    run(program)


def test_the_node_of_a_client_is_started_again_under_load(node):
    """It has no other one: calls are refused meanwhile, and go on after that."""
    one = node()

    async def program():
        async with (
            connected(one.address) as server,
            connected(one.address) as caller,
            Traffic(caller, server) as traffic,
        ):
            for _ in range(3):
                await traffic.more()
                one.kill()
                await traffic.refused()
                one.start()
                await traffic.more()
        traffic.check()

    run(program)


def test_what_was_cancelled_before_it_was_served_is_not_served(node):
    """Nobody has what would stop it: neither the node nor the next connection has it."""
    one = node()

    async def program():
        async with connected(one.address) as server, connected(one.address) as caller:
            serving = asyncio.create_task(server.serve("cm.host.a", echo))
            # It has begun, and waits for the node.
            await asyncio.sleep(0)
            serving.cancel()
            await asyncio.wait([serving])
            assert serving.cancelled()
            for again in (False, True):
                if again:
                    one.kill()
                    await engines.awaited(lambda: not (server.connected or caller.connected))
                    one.start()
                    await engines.awaited(lambda: server.connected and caller.connected)
                async with asyncio.timeout(PATIENCE):
                    while await is_there(caller, "cm.host.a"):
                        pass

    run(program)


async def is_there(engine, subject):
    """Whether anybody serves a subject."""
    try:
        await engine.call(subject, b"", within=PLENTY)
    except NobodyThere:
        return False
    return True


@pytest.mark.parametrize("whose", ["server", "caller"])
def test_a_node_that_stands_still_is_left(cluster, whose):
    """Its connections stay open, and it answers nothing; then it goes on, with what it had been sent."""

    async def program():
        async with (
            connected(cluster[0].address) as server,
            connected(cluster[1].address) as caller,
            Traffic(caller, server) as traffic,
        ):
            await traffic.more()
            still = cluster[0 if whose == "server" else 1]
            still.stop()
            await traffic.more()
            still.go_on()
            await traffic.more()
        traffic.check()

    run(program)


def test_what_a_node_had_not_taken_when_it_was_lost_is_not_sent_to_the_next(node):
    """More than the kernel takes for a node that stands still: nats-py itself would send the rest later."""
    one = node()

    async def program():
        async with connected(one.address) as watching, connected(one.address, liveness=PLENTY) as sending:
            heard = []

            async def watch(body):
                heard.append(body[:5])

            await watching.watch("cm.host.a", watch)
            await watching.serve("cm.host.b", echo)
            one.stop()
            refused = 0
            for number in range(300):
                try:
                    await sending.send("cm.host.a", b"%05d" % number + bytes(100_000))
                except NotSent as error:
                    assert "has not yet taken 16 MiB" in str(error)
                    refused += 1
            assert refused
            one.kill()
            await engines.awaited(lambda: not sending.connected)
            one.start()
            await engines.awaited(lambda: sending.connected and watching.connected)
            await engines.answered(sending, "cm.host.b", b"")
            await sending.send("cm.host.a", b"after")
            await engines.awaited(lambda: heard)
            assert heard == [b"after"]

    run(program)


def test_an_answer_that_is_made_without_a_connection_waits_for_the_next(tmp_path):
    """The server's node is killed while it serves; its caller, at another node, is answered all the same."""

    async def program(nodes):
        asked, go, again = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def serve(body):
            asked.set()
            await go.wait()
            return b"answer to " + body

        async with connected(nodes[0].address) as server, connected(nodes[1].address) as caller:
            await server.serve("cm.host.a", serve)
            await server.serve("cm.host.b", echo)
            await engines.answered(caller, "cm.host.b", b"")
            call = asyncio.create_task(caller.call("cm.host.a", b"x", within=PLENTY))
            await asked.wait()
            connect = server._keeper._open_any

            async def later():
                await again.wait()
                return await connect()

            server._keeper._open_any = later
            nodes[0].kill()
            await engines.awaited(lambda: not server.connected)
            go.set()
            for _ in range(20):
                # Turns in which it would be answered, if it did not wait.
                await asyncio.sleep(0)
            again.set()
            assert await call == b"answer to x"
            del server._keeper._open_any

    with nats_servers.nodes(tmp_path, 2) as nodes:
        run(program, nodes)


def test_more_answers_than_a_node_takes_at_a_time_all_come(node, caplog):
    """They wait until it has taken those before them: 60 MiB at once, where a connection may have 16 unsent."""

    async def give(_body):
        return bytes(LARGEST)

    async def program():
        address = node().address
        async with connected(address) as engine, connected(address) as caller:
            await engine.serve("cm.host.a", give)
            answers = await asyncio.gather(*(caller.call("cm.host.a", b"", within=PLENTY) for _ in range(60)))
            assert {len(answer) for answer in answers} == {LARGEST}

    run(program)
    assert not caplog.records


def test_what_begins_and_ends_while_a_connection_is_made_is_so_with_it(node, monkeypatch):
    """The new connection has all that was served when it began, and is asked whether it has; that takes a while."""
    one = node()

    async def program():
        async with connected(one.address) as engine, connected(one.address) as caller:
            stop = await engine.serve("cm.host.ends", echo)
            asked, go, alive, first = asyncio.Event(), asyncio.Event(), Connection.alive, engine._keeper.connection

            async def later(connection, within):
                if connection._at_denial.__self__ is engine and connection is not first:
                    asked.set()
                    await go.wait()
                return await alive(connection, within)

            monkeypatch.setattr(Connection, "alive", later)
            one.kill()
            one.start()
            await asked.wait()
            assert not engine.connected
            await engine.serve("cm.host.begins", echo)
            stopping = asyncio.create_task(stop())
            await asyncio.sleep(0)
            go.set()
            await stopping
            await engines.awaited(lambda: engine.connected and caller.connected)
            assert await caller.call("cm.host.begins", b"x", within=PLENTY) == b"x"
            with pytest.raises(NobodyThere):
                await caller.call("cm.host.ends", b"x", within=PLENTY)

    run(program)


def test_whatever_keeping_a_connection_raises_there_is_another_one(node, caplog, forgotten_log):
    """nats-py raises what it comes across: then there would be no connection any more, and calls would wait."""
    one = node()

    async def program():
        async with connected(one.address) as engine:
            await engine.serve("cm.host.a", echo)
            lost = engine._keeper.connection

            def fail():
                raise KeyError("spam")

            lost.progress = fail
            await engines.awaited(lambda: engine.connected and engine._keeper.connection is not lost)
            assert await engine.call("cm.host.a", b"x", within=PLENTY) == b"x"

    run(program)
    assert "connects again, since keeping its connection raised" in caplog.text


def test_a_question_that_is_given_up_does_not_end_the_connection(node):
    """nats-py's reader ends by the answer to such a one, and the connection seems to be there for ever."""
    one = node()

    async def program():
        connection = Connection()
        await connection.open(one.address, Login(), None)
        try:
            for _ in range(3):
                asking = asyncio.create_task(connection.flush())
                await asyncio.sleep(0)
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asking
            assert await connection.alive(PLENTY)
            assert await connection.alive(PLENTY)
            connection._reading_task.cancel()
            await asyncio.wait([connection._reading_task])
            assert not await connection.alive(1)
        finally:
            await connection.drop()

    run(program)


def test_a_node_is_asked_after_what_it_was_told(node):
    """That it answers means that it has the subscription: nats-py's question overtakes what waits to be sent."""
    one = node()

    async def program():
        connection, sent = Connection(), []
        await connection.open(one.address, Login(), None)
        write = connection._transport.write
        connection._transport.write = lambda data: (sent.append(data), write(data))
        writelines = connection._transport.writelines
        connection._transport.writelines = lambda lines: (sent.extend(lines), writelines(lines))
        try:
            await connection.subscribe("cm.host.a", cb=echo)
            assert await connection.alive(PLENTY)
            assert [line[:4] for line in sent] == [b"SUB ", b"PING"]
        finally:
            await connection.drop()

    run(program)


# Who this is --------------------------------------------------------------------------------------------------------


def test_user_and_password_are_told_to_nodes_that_are_found_later_too(tmp_path):
    """One node was named; it is killed, and the engine goes to another one, of which that had told it."""

    async def program(nodes):
        login = Login(user="bridge", password="secret")
        async with connected(nodes[0].address, login=login) as engine:
            await engine.serve("cm.host.a", echo)
            nodes[0].kill()
            # By nobody but another node.
            assert await engines.answered(engine, "cm.host.a", b"x") == b"x"

    with nats_servers.nodes(tmp_path, 3, USERS) as nodes:
        run(program, nodes)


@pytest.mark.parametrize("login", [None, Login(user="bridge", password="wrong-one")])
def test_a_node_that_lets_nobody_in_says_so(node, login):
    """Which node, and why; and nothing of the password."""
    one = node(USERS)

    async def program():
        words = f"no node of the engine can be used: {re.escape(one.address)}: {DENIED}"
        with pytest.raises(EngineError, match=words) as raised:
            await NatsEngine.connect([one.address], login)
        assert "wrong-one" not in str(raised.value)

    run(program)


def test_a_login_shows_nothing_of_itself():
    """Where it is printed."""
    login = Login(user="bridge", password="secret", credentials="/etc/bridge.creds")
    assert repr(login) == "Login(name='capmarshal')"


def test_a_file_of_credentials_is_enough(node, tmp_path):
    """That of a user of an account; it is read for each connection, as it is then."""
    configuration, text = nats_accounts.make_user()
    one = node(configuration)
    path = tmp_path / "bridge.creds"
    path.write_text(text)

    async def program():
        async with connected(one.address, login=Login(credentials=path)) as engine:
            await engine.serve("cm.host.a", echo)
            assert await engine.call("cm.host.a", b"x", within=PLENTY) == b"x"
        with pytest.raises(EngineError, match=DENIED):
            await NatsEngine.connect([one.address])
        _, other = nats_accounts.make_user()
        path.write_text(other)
        with pytest.raises(EngineError, match=DENIED):
            await NatsEngine.connect([one.address], Login(credentials=path))
        path.unlink()
        with pytest.raises(EngineError, match="No such file"):
            await NatsEngine.connect([one.address], Login(credentials=path))

    run(program)


@pytest.fixture
def certificate(tmp_path):
    """Paths of a certificate of "node.test" and of 127.0.0.1, which is its own authority, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node.test")])
    names = [x509.DNSName("node.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def test_a_connection_is_encrypted_where_that_is_asked_for(node, certificate):
    """With who is believed; another one is refused."""
    cert, key = certificate
    one = node(f'{USERS}\ntls {{ cert_file: "{cert}", key_file: "{key}" }}')
    login = Login(user="bridge", password="secret", tls=ssl.create_default_context(cafile=str(cert)))
    stranger = Login(user="bridge", password="secret", tls=ssl.create_default_context())

    async def program():
        async with connected(one.address, login=login) as engine:
            await engine.serve("cm.host.a", echo)
            body = bytes(1 << 20)
            assert await engine.call("cm.host.a", body, within=PLENTY) == body
        with pytest.raises(EngineError, match="certificate verify failed"):
            await NatsEngine.connect([one.address], stranger)

    run(program)


def test_what_does_not_encrypt_and_is_to_hears_no_password():
    """Who stands before a node can leave out that it encrypts: nats-py alone would then tell all in clear."""
    heard = []

    def impostor(listening):
        told = {"server_id": "x", "version": "2.10.0", "headers": True, "max_payload": 1 << 20, "auth_required": True}
        for _ in range(1):
            with listening.accept()[0] as client:
                client.sendall(b"INFO " + json.dumps(told).encode() + b"\r\n")
                while part := client.recv(4096):
                    heard.append(part)

    async def program():
        login = Login(user="bridge", password="secret", tls=ssl.create_default_context())
        with pytest.raises(EngineError, match="it does not encrypt, and is to"):
            await NatsEngine.connect([f"nats://127.0.0.1:{listening.getsockname()[1]}"], login)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=impostor, args=[listening])
        thread.start()
        run(program)
        thread.join(PATIENCE)
    assert heard == []


# What is refused ----------------------------------------------------------------------------------------------------


def test_a_node_that_takes_too_little_is_refused(node):
    """Every body that an engine takes goes through."""
    one = node("max_payload: 65536")

    async def program():
        words = "it takes bodies of 65,536 bytes: set its max_payload to 1,048,576 at least"
        with pytest.raises(EngineError, match=re.escape(words)):
            await NatsEngine.connect([one.address])

    run(program)


def test_where_no_node_is_there_each_is_named():
    """With what connecting to it gave, in the words of asyncio."""

    async def program():
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"nats://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EngineError, match=rf"no node of the engine can be used: {address}: .*Connect call failed"):
            await NatsEngine.connect([address])

    run(program)


@pytest.mark.parametrize("address", ["nats://user:secret@127.0.0.1:4222", "nats://secret@host"])
def test_credentials_in_an_address_are_refused(address):
    """They would be in lists of processes, and nodes that are found later would not be told them."""

    async def program():
        with pytest.raises(ValueError, match="a node's address has no credentials in it") as raised:
            await NatsEngine.connect([address])
        assert "secret" not in str(raised.value)

    run(program)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:4222", "ws://127.0.0.1", "nats://", "", "nats://h:99999", "nats://h:abc", "nats://h:0"]
)
def test_what_is_no_address_is_refused(address):
    """With how one looks."""

    async def program():
        with pytest.raises(ValueError, match="a node's address is nats://HOST:PORT"):
            await NatsEngine.connect([address])

    run(program)


def test_without_the_extra_it_says_what_to_install():
    """One line, that can be typed."""
    program = (
        "import sys; sys.modules['nats'] = None\n"
        "try: import capmarshal._bridge_engine.nats_engine\n"
        "except ImportError as error: print(error)"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert ended.stdout == "capmarshal.bridge needs nats-py: pip install 'nats-py>=2.9'\n"


FORKING = """
import asyncio, os, stat, sys
import capmarshal as cm
from capmarshal import bridge

async def main():
    engine = await bridge.NatsEngine.connect(sys.argv[1:])
    async with bridge.Bridge("forks", engine) as made:
        read, write = os.pipe()
        if child := os.fork():
            os.close(write)
            print(f"child {child}\\n", end="", flush=True)
            await asyncio.Event().wait()
        os.close(read)
        numbers = [int(number) for number in os.listdir("/proc/self/fd")]
        kept = [number for number in numbers if readable(number) and stat.S_ISSOCK(os.fstat(number).st_mode)]
        internet = [number for number in kept if domain(number) in (socket.AF_INET, socket.AF_INET6)]
        try:
            made.listen("never.sock", bridge.Token.new("other"))
        except cm.Closed as error:
            print(f"keeps {len(internet)}, {error}\\n", end="", flush=True)
        os.read(0, 1)
        os._exit(0)

import socket

def readable(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True

def domain(number):
    with socket.socket(fileno=os.dup(number)) as made:
        return made.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)

asyncio.run(main())
"""


def test_a_forked_child_has_no_connection_of_its_parents(node):
    """Else the node, and who is asked for by it, would take the parent for alive as long as the child is."""
    one = node()
    command = [sys.executable, "-P", "-W", "ignore::DeprecationWarning", "-c", FORKING, one.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        try:
            said = dict(parent.stdout.readline().split(" ", 1) for _ in range(2))
            assert said["keeps"].startswith("0, the bridge 'forks' is its parent's: this process is a fork of the one")
            until(lambda: one.asked("connz")["num_connections"] == 1)
            parent.kill()
            until(lambda: one.asked("connz")["num_connections"] == 0)
            os.kill(int(said["child"]), 0)
        finally:
            parent.kill()
            parent.stdin.close()


# Who listens --------------------------------------------------------------------------------------------------------


def test_a_spy_of_the_same_account_reads_no_method_and_forges_no_answer(node):
    """It sees every message, and sends what it likes, to whom it likes; the call has the right answer all the same."""
    one = node()
    token = Token.new("host")
    there, back = Seal(token, Direction.TO_EXPORTER), Seal(token, Direction.TO_IMPORTER)
    label = Label(kind=1, call=bytes(16), lease=bytes(16))

    async def serve(body):
        _, plain = there.open(body)
        # Only then, or the spy's answer could be the later one.
        await spied.wait()
        return back.seal(label, plain.upper())

    def genuine(body):
        with contextlib.suppress(NotGenuine):
            return back.open(body)[0].call == label.call
        return False

    async def program():
        spy, seen = Connection(), []
        await spy.open(one.address, Login(), None)

        async def listen(message):
            seen.append((message.subject, message.data))
            if message.reply:
                for forged in (b"", b"forged", message.data):
                    await spy.publish(message.reply, forged)
                await spy.flush()
                spied.set()

        await spy.subscribe(">", cb=listen)
        await spy.flush()
        async with connected(one.address) as server, connected(one.address) as caller:
            await server.serve(token.subject, serve)
            answer = await caller.call(
                token.subject, there.seal(label, b"transfer payload"), within=PLENTY, accept=genuine
            )
            assert back.open(answer)[1] == b"TRANSFER PAYLOAD"
        await spy.drop()
        everything = b"".join(subject.encode() + body for subject, body in seen)
        assert len(seen) >= 5
        for secret in (b"transfer", b"TRANSFER", b"payload", token.reveal().encode()[-64:]):
            assert secret not in everything

    spied = asyncio.Event()
    run(program)


def test_a_node_that_is_unusable_leaves_nothing_open(node):
    """Nor one that never answers: descriptors are counted around every test."""
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def program():
            connection = Connection()
            # How long, and what it may be: an error without words is what asyncio has for that.
            with pytest.raises(Unusable, match=r"it was silent for \d+ s: is that its port for clients"):
                await connection.open(f"nats://127.0.0.1:{silent.getsockname()[1]}", Login(), None)

        run(program)


def test_closing_ends_although_being_cancelled_was_taken_for_nothing(node):
    """As asyncio.wait_for() does before Python 3.12, if what is waited for comes at the same time: nats-py uses it."""
    one = node()

    async def program():
        engine = await NatsEngine.connect([one.address], liveness=0.01)
        asked, alive = asyncio.Event(), engine._keeper.connection.alive

        async def swallowing(within):
            asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return True

        engine._keeper.connection.alive = swallowing
        await asked.wait()
        # Of the one that closes.
        engine._keeper.connection.alive = alive
        await engine.close(within=0)
        assert not engine.connected

    run(program)
