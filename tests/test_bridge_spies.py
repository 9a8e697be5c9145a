"""Who is in the same account of the engine, and has no token: reads nothing of a bridge's, and can't call, nor forge.

Nothing of what is secret is shown anywhere else, either.
"""

import contextlib
import logging
import os
import pickle
import re
import threading
from pathlib import Path

import pytest

import bridge_hosts
import capmarshal as cm
import nats_servers
from capmarshal._bridge_link.tokens import Token
from forwarding import Desk, DeskServer, Wrong
from patience import PATIENCE
from spy import Spy


class CountingServer(DeskServer):
    """Says how often it was called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def echo(self, value):
        self.calls.append(value)
        return value


@pytest.fixture
def overheard(tmp_path):
    """A desk beyond two bridges, what serves it, its token, the two, and a spy with all rights at their node."""
    with (
        nats_servers.nodes(tmp_path) as nodes,
        Spy(nodes[0].address) as spy,
        bridge_hosts.hosts(nodes, "near", "far") as both,
        cm.Entrypoint("desk") as entrypoint,
    ):
        near, far = both
        served = CountingServer()
        token = far.host.export(entrypoint.manage(served))
        yield near.host.connect(token).cast(Desk), served, token, both, spy


def test_a_spy_reads_nothing(overheard):
    desk, _, token, _, spy = overheard
    long = b"a payload that is long" + bytes(2 << 20)
    assert desk.echo(b"a payload that is short") == b"a payload that is short"
    assert desk.echo(long) == long
    with pytest.raises(Wrong):
        desk.fail("a word of an error", 3)
    assert desk.page("a title of a page").title() == "a title of a page"
    assert desk.total(iter([1234567890123])) == 1234567890123
    with cm.Dataspace.from_buffer(b"what a dataspace has") as data, desk.array(data) as came:
        assert bytes(came.view()) == b"what a dataspace has"
    spy.check_hidden(
        Token.parse(token),
        "a payload that is",
        "a word of an error",
        "a title of a page",
        "what a dataspace has",
        "DeskServer",
    )
    assert all(re.fullmatch(r"cm\.(near|far)\.([0-9a-f]{32}|alive)|_INBOX\..*", subject) for subject in spy.subjects())


def test_what_is_sent_again_runs_nothing_again(overheard):
    """All that was overheard, to where it was sent and to everybody else, while the link lasts and after it."""
    desk, served, _, (near, far), spy = overheard
    for number in range(20):
        desk.echo(b"%d" % number)
    spy.catch_up()
    before = list(spy.heard)
    places = {message.subject for message in before if message.subject.startswith("cm.")}
    for _ in range(3):
        for message in before:
            for place in {message.subject} if message.subject.startswith("_INBOX") else places:
                spy.publish(place, message.body, "_INBOX.spy")
    spy.catch_up()
    assert desk.echo(b"last") == b"last"
    assert served.calls == [b"%d" % number for number in range(20)] + [b"last"]
    counts = far.host.counts()
    assert [*counts] == ["near"]
    near.kill()
    for message in before:
        spy.publish(message.subject, message.body, "_INBOX.spy")
    spy.catch_up()
    far.idle()
    assert len(served.calls) == 21


def test_what_is_no_body_is_refused_without_a_word(overheard):
    """Neither is it answered by what anybody could learn from, nor does the log grow by it; and calls go on."""
    desk, served, _, _, spy = overheard
    desk.echo(b"once")
    spy.catch_up()
    before = list(spy.heard)
    for message in before:
        for body in (b"", b"junk", os.urandom(300), message.body[:-1], message.body[:-1] + b"\0", bytes(1 << 19)):
            spy.publish(message.subject, body, "_INBOX.answers")
    spy.catch_up()
    assert desk.echo(b"twice") == b"twice"
    spy.catch_up()
    assert all(message.body == b"" for message in spy.heard if message.subject == "_INBOX.answers")
    assert served.calls == [b"once", b"twice"]


def test_answers_of_a_spy_are_none(overheard):
    """It answers each call before who was asked can: with junk, and with what was an answer to another one."""
    desk, _, _, _, spy = overheard
    desk.echo(b"once")
    answers = [message.body for message in spy.heard if message.subject.startswith("_INBOX")]
    stop = threading.Event()

    def answer():
        seen = 0
        while not stop.wait(0.001):
            heard = spy.heard[seen:]
            seen += len(heard)
            for message in heard:
                if message.reply.startswith("_INBOX"):
                    for body in (b"", b"junk", *answers):
                        spy.publish(message.reply, body)

    answering = threading.Thread(target=answer)
    answering.start()
    try:
        for number in range(50):
            assert desk.echo(b"%d" % number) == b"%d" % number
    finally:
        stop.set()
        answering.join(PATIENCE)


def test_keys_are_shown_nowhere(overheard, caplog):
    desk, _, text, (near, far), _ = overheard
    desk.echo(b"")
    token = Token.parse(text)
    _, _, name, key = text.split(":")
    shown = [repr(token), str(token), f"{token}", "%s" % token]  # noqa: UP031 - one more way
    with contextlib.suppress(TypeError):
        shown.append(repr(pickle.dumps(token)))
    for host in (near, far):
        place = Path(f"/proc/{host.process.pid}")
        shown += [(place / what).read_bytes().decode(errors="replace") for what in ("cmdline", "environ")]
    with caplog.at_level(logging.DEBUG):
        far.host.revoke(text, "enough")
        with pytest.raises(cm.Disconnected) as caught:
            near.host.connect(text)
    shown += [repr(caught.value), *(record.getMessage() for record in caplog.records)]
    for each in shown:
        assert name not in each
        assert key not in each
    caplog.clear()


@pytest.mark.parametrize("part", ["exporter", "name", "key"])
def test_a_token_that_is_guessed(overheard, part):
    """Two of its three parts are right."""
    _, _, text, (near, _), _ = overheard
    head, exporter, name, key = text.split(":")
    parts = {"head": head, "exporter": exporter, "name": name, "key": key}
    parts[part] = {"exporter": "other", "name": "0" * 32, "key": "0" * 64}[part]
    with pytest.raises(cm.Disconnected, match=r"can't be reached|no such token"):
        near.host.connect(":".join(parts.values()))
