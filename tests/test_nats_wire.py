"""What a node sends is taken apart wherever it was cut: bodies are taken, and nats-py is given the rest, whole."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from capmarshal._bridge_engine.nats_wire import Incoming

MOST = 1000


class Beneath(asyncio.Protocol):
    """What stands for nats-py: all that it is given."""

    def __init__(self):
        self.given = b""

    def data_received(self, data):
        self.given += data


def made(unread=b""):
    """One that takes subscription 7, what stands beneath it, and what it took."""
    beneath, taken = Beneath(), []
    incoming = Incoming(beneath, unread, MOST)
    incoming.take(7, lambda *message: taken.append(message))
    return incoming, beneath, taken


def message(number, body, reply=b""):
    """As the protocol has it."""
    words = [b"MSG", b"cm.a.b", b"%d" % number, *([reply] if reply else []), b"%d" % len(body)]
    return b" ".join(words) + b"\r\n" + body + b"\r\n"


# Bodies that look like what stands around them.
BODIES = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"\r\n", b"MSG a 7 3\r\nabc\r\n", b"PING\r\n", bytes(MOST)])
)
TAKEN = st.builds(
    lambda body, reply: ("taken", message(7, body, reply), (b"cm.a.b", reply, body)),
    BODIES,
    st.sampled_from([b"", b"r.1"]),
)
OTHERS = st.builds(lambda body: ("passed", message(8, body), None), BODIES)
WITH_HEADERS = b"HMSG cm.a.b 7 26 33\r\nNATS/1.0\r\nMSG a 7 3: 2\r\n\r\n\r\nabc\r\n\r\n"
REST = [("passed", text, None) for text in (b"PING\r\n", b"+OK\r\n", b'INFO {"a": 1}\r\n', WITH_HEADERS)]
LINES = st.one_of(TAKEN, OTHERS, st.sampled_from(REST))
# Of a line: what nats-py has begun to read, and the rest.
BEGUN = st.sampled_from([(b"", b""), (b"+O", b"K\r\n"), (b"PIN", b"G\r\n"), (b"x\r", b"\n")])


@given(st.lists(LINES, max_size=8), st.data(), BEGUN)
def test_wherever_it_is_cut_bodies_are_taken_and_the_rest_is_passed_on_in_order(lines, data, begun):
    """Also from within a line that nats-py has begun to read."""
    unread, rest = begun
    incoming, beneath, taken = made(unread)
    sent = rest + b"".join(text for _, text, _ in lines)
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=6).map(sorted))

    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        if start < end:
            incoming.data_received(sent[start:end])

    assert taken == [what for kind, _, what in lines if kind == "taken"]
    assert beneath.given == rest + b"".join(text for kind, text, _ in lines if kind == "passed")
    assert incoming.count == len(taken)


@given(
    st.sampled_from(
        [
            b"MSG cm.a.b 7 %d\r\n" % (MOST + 1),
            b"MSG cm.a.b 7 -1\r\n",
            b"MSG cm.a.b 7\r\n",
            b"MSG cm.a.b 7 \xc2\xb2\r\n",
            b"MSG cm.a.b 7 " + b"9" * 5000 + b"\r\n",
            b"HMSG 1\r\n",
            b"A" * (2 << 20),
        ]
    )
)
def test_of_what_no_node_says_nothing_is_kept_and_nothing_is_taken_any_more(said):
    """It would be kept for ever, or for gigabytes: nats-py is given all of it, and ends the connection."""
    incoming, beneath, taken = made()

    incoming.data_received(message(7, b"before") + said)
    incoming.data_received(message(7, b"after"))

    assert taken == [(b"cm.a.b", b"", b"before")]
    assert beneath.given == said + message(7, b"after")


def test_what_a_taker_raises_is_logged_and_the_next_is_taken(caplog, forgotten_log):
    """Else asyncio would end the connection."""
    incoming, _, taken = made()

    def fail(*_message):
        raise KeyError("spam")

    incoming.take(9, fail)
    incoming.data_received(message(9, b"x") + message(7, b"y"))

    assert [body for _, _, body in taken] == [b"y"]
    assert "what takes a body from a bridge's engine raised" in caplog.text


def test_of_a_subscription_that_has_ended_nothing_is_taken():
    """Its number is not used again; what is on its way still is nats-py's to drop."""
    incoming, beneath, taken = made()
    incoming.leave(7)
    incoming.data_received(message(7, b"x"))

    assert taken == []
    assert beneath.given == message(7, b"x")
