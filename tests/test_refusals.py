"""What a node refuses is said to who runs the bridge: why, and what to do (bridge/refusals)."""

import logging
import re
import time

import pytest

import engines
import loops
import nats_accounts
import nats_servers
from capmarshal._bridge_engine.engine import EngineError
from capmarshal._bridge_engine.login import Login
from capmarshal._bridge_engine.nats_engine import NatsEngine
from capmarshal._bridge_engine.refusals import general, missing
from capmarshal._bridge_engine.tls import Tls
from certificates import Authority

USERS = 'authorization { users: [{ user: "bridge", password: "secret" }] }'
# The second where the node closes with what was sent to it unread, and its words are lost by that.
LOST = "perhaps it does not let this user in"


class Files:
    """An authority and a stranger, and what they have issued."""

    def __init__(self, place):
        self.authority, self.stranger = Authority(place), Authority(place, "stranger")
        self.here = self.authority.issue("here", "127.0.0.1")
        self.elsewhere = self.authority.issue("elsewhere", "node.example")
        self.old = self.authority.issue("old", "127.0.0.1", days=-1)
        self.early = self.authority.issue("early", "127.0.0.1", days=100)
        self.client = self.authority.issue("client")
        self.old_client = self.authority.issue("old_client", days=-1)
        self.strange_client = self.stranger.issue("strange_client")

    def trusting(self, client=None):
        """A login that trusts the authority."""
        certificate, key = client or (None, None)
        return Login(tls=Tls(ca=self.authority.path, certificate=certificate, key=key))


@pytest.fixture
def files(tmp_path):
    """They, with what has expired, is of others, or begins later."""
    return Files(tmp_path)


@pytest.fixture
def node(tmp_path):
    """node(extra): one node, with that configuration."""
    made = []

    def start(extra):
        place = tmp_path / f"node{len(made)}"
        place.mkdir()
        made.append(nats_servers.Node(place, extra))
        return made[-1]

    try:
        yield start
    finally:
        for one in made:
            one.kill()


def refused(node, login):
    """What is said where that node can't be used."""

    async def program():
        with pytest.raises(EngineError) as raised:
            await NatsEngine.connect([node.address], login)
        address = node.address if login is None or login.tls is None else node.address.replace("nats://", "tls://")
        begin, _, words = str(raised.value).partition(f"{address}: ")
        assert begin == "no node of the engine can be used: "
        return words

    return loops.run("asyncio", program)


def tls(pair, more=""):
    """The configuration of a node that has this certificate."""
    return f'tls {{ cert_file: "{pair[0]}", key_file: "{pair[1]}" {more} }}'


def test_a_node_that_is_not_trusted(files, node):
    """By another authority than its own, or by those of the machine."""
    one = node(tls(files.here))
    for login, whom in (
        (Login(tls=Tls(ca=files.stranger.path)), f"in {files.stranger.path}"),
        (Login(tls=Tls()), "that is trusted here"),
        (Login(tls=files.stranger.context()), "that is trusted here"),
        # It encrypts although that was not asked for: then it must be trusted, too.
        (Login(), "that is trusted here"),
    ):
        assert refused(one, login) == (
            "certificate verify failed: unable to get local issuer certificate: "
            f"it is of no authority {whom}: Tls(ca=...) names the file of the one that has issued it"
        )


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("elsewhere", "connect to the node by a name that its certificate is for, or have this one in it"),
        ("old", "certificate verify failed: certificate has expired: the node needs a new one"),
        ("early", "is the clock of this machine, or that of who has issued it, wrong?"),
    ],
)
def test_a_node_whose_certificate_is_not_for_now_and_here(files, node, which, words):
    """Each is told from the others."""
    assert words in refused(node(tls(getattr(files, which))), files.trusting())


def test_a_node_that_asks_for_a_certificate(files, node):
    """And gets none, or one that it does not take."""
    one = node(tls(files.here, f', ca_file: "{files.authority.path}", verify: true'))
    for client, words in (
        (None, "it asks for a certificate: Tls(certificate=..., key=...) is that"),
        (files.strange_client, f"{files.strange_client[0]} is of no authority that is in the node's ca_file"),
        (files.old_client, f"{files.old_client[0]} has expired: have it issued anew; it is read for each connection"),
    ):
        said = refused(one, files.trusting(client))
        assert said.endswith((words, LOST))

    async def program():
        engine = await NatsEngine.connect([one.address], files.trusting(files.client))
        await engine.close(within=0)

    loops.run("asyncio", program)


def test_a_node_that_does_not_encrypt_or_begins_with_that(files, node):
    """Nothing is told to the former; the latter waits, and so would a bridge."""
    words = "it does not encrypt, and is to: it needs a tls block in its configuration"
    assert refused(node(""), files.trusting()) == words
    words = "One with handshake_first waits for TLS, and says nothing before that"
    assert words in refused(node(tls(files.here, ", handshake_first: true")), files.trusting())


@pytest.mark.parametrize(
    ("login", "words"),
    [
        (None, "it lets nobody in without a login"),
        (
            Login(user="bridge", password="wrong"),
            "it does not know the user 'bridge', or that has another password",
        ),
    ],
)
def test_a_user_who_is_not_let_in(node, login, words):
    """Of a password nothing is said."""
    said = refused(node(USERS), login)
    assert said.endswith((words, LOST))
    assert "wrong" not in said


def test_a_user_whose_key_is_not_known(node, tmp_path):
    """The public half is said, so that it can be looked for in the node's configuration."""
    keys = [nats_accounts.Key(nats_accounts.USER) for _ in range(2)]
    one = node(f'authorization {{ users: [{{ nkey: "{keys[0].public}" }}] }}')
    path = tmp_path / "user.nk"
    path.write_text(keys[1].seed())
    said = refused(one, Login(credentials=path))
    assert said.endswith((f"it does not know the user {keys[1].public} of {path}, or lets nobody in by a key", LOST))
    assert keys[1].seed() not in said


def test_credentials_that_have_expired(node, tmp_path):
    """With when that was."""
    configuration, text = nats_accounts.make_user(expires=time.time() - 3600)
    path = tmp_path / "user.creds"
    path.write_text(text)
    said = refused(node(configuration), Login(credentials=path))
    expected = rf"{re.escape(str(path))} has expired at 20\d\d-\d\d-\d\d \d\d:\d\d UTC: have it made anew"
    assert re.search(f"{expected}|{LOST}", said)


def test_credentials_that_expire_while_they_are_used(node, tmp_path, caplog, forgotten_log):
    """The engine is cut off, and the log says why, once; with new ones it goes on."""
    now = time.time()
    kinds = nats_accounts.OPERATOR, nats_accounts.ACCOUNT, nats_accounts.USER
    operator, account, user = map(nats_accounts.Key, kinds)
    one = node(nats_accounts.configuration(operator, account))
    path = tmp_path / "user.creds"
    path.write_text(nats_accounts.credentials(account, user, now + 2))

    async def program():
        engine = await NatsEngine.connect([one.address], Login(credentials=path), liveness=0.5)
        try:
            await engines.awaited(lambda: "has expired at" in caplog.text)
            assert not engine.connected
            path.write_text(nats_accounts.credentials(account, user))
            await engines.awaited(lambda: engine.connected)
        finally:
            await engine.close(within=0)

    with caplog.at_level(logging.WARNING, "capmarshal"):
        loops.run("asyncio", program)
    lines = [record.getMessage() for record in caplog.records if "has expired at" in record.getMessage()]
    assert len(lines) == len(set(lines))
    assert lines[0].startswith(f"a bridge's engine has no node: {one.address}: ")


@pytest.mark.parametrize(
    ("verb", "subject", "words"),
    [
        ("subscription", f"cm.render1.{'0' * 32}", 'may not subscribe to "cm.render1.*": give it the permission to'),
        ("subscription", f"_inbox.render1.{'a' * 32}.*", 'may not subscribe to "_INBOX.render1.*.*"'),
        ("publish", "cm.web1.open", 'may not publish to "cm.web1.open": give it the permission to'),
        (
            "publish",
            f"_inbox.web1.{'f' * 32}.{'1' * 32}",
            'to "_INBOX.web1.*.*": give it the permission to; allow_responses ends with its time, and with the',
        ),
    ],
)
def test_which_permission_is_missing(verb, subject, words):
    """With any word in the place of what is random."""
    assert words in missing(verb, subject)
    assert general(general(subject)) == general(subject)
