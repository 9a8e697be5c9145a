"""What a client hears: each thing that a server can do on a channel, and what it means; and that a GO is not lost."""

import contextlib
import errno
import socket

import pytest

import by_hand
import capmarshal as cm
import parts_by_hand as hand
from capmarshal._client import conversation as _conversation
from capmarshal._client.conversation import Conversation, Event
from capmarshal._client.unanswered import NeverRan, ServerGone, TooLate
from capmarshal._descriptors.closing_jobs import Sender
from capmarshal._descriptors.inbox import Inbox
from capmarshal._descriptors.private import Private, lock
from capmarshal._kernel.native import NOW, lib
from capmarshal._kernel.waiting import drive
from capmarshal._protocol import wire as _wire
from patience import PATIENCE

# The call that is being made; those before it were abandoned.
CALL = 7


class Server:
    """The far end of a channel; each method is a thing that a server can do."""

    def __init__(self, far):
        self.far = far

    def read(self):
        assert self.far.recv(100) == b"the call"

    def answer(self, call_id=CALL):
        self.far.send(_wire.pack_reply(call_id, [], 0, b"answer"))

    def answer_late(self):
        self.answer(CALL - 1)

    def fail(self):
        self.far.send(_wire.pack_fail(CALL, b""))

    def go(self):
        self.far.send(_wire.pack_go(CALL))

    def go_late(self):
        self.far.send(_wire.pack_go(CALL - 1))

    def gone(self):
        self.far.send(_wire.GONE_RECORD)

    def begin(self):
        self.far.send(_wire.pack_begin(CALL, len(_wire.pack_reply(CALL, [], 0, b"answer")), 0))

    def first_part(self):
        self.far.send(_wire.pack_part_head(CALL, 0) + _wire.pack_reply(CALL, [], 0, b"answer")[:5])

    def last_part(self):
        self.far.send(_wire.pack_part_head(CALL, 0) + _wire.pack_reply(CALL, [], 0, b"answer")[5:])

    def close(self):
        self.far.close()


@pytest.fixture
def channel():
    """(conversation, server): the call is sent, and nobody has done anything yet."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.send(b"the call")
        with lock:
            private = Private(near.detach())
        yield Conversation(private, CALL, Inbox(), Sender()), Server(far)
        private.close()


@pytest.mark.parametrize(
    ("does", "heard", "over"),
    [
        ("", Event.NOTHING, False),
        ("read", Event.NOTHING, False),
        ("read answer", Event.ANSWERED, False),
        ("read fail", Event.ANSWERED, False),
        ("answer_late read answer", Event.ANSWERED, False),
        ("answer_late", Event.NOTHING, False),
        ("go", Event.GO, False),
        ("go_late", Event.NOTHING, False),
        ("read begin first_part", Event.NOTHING, False),
        ("read begin first_part last_part", Event.ANSWERED, False),
        ("gone", Event.UNREAD, True),
        ("gone close", Event.UNREAD, True),
        ("close", Event.UNREAD, True),
        ("answer_late close", Event.UNREAD, True),
        ("read close", Event.ENDED, True),
        ("read answer close", Event.ANSWERED, False),
        ("read answer_late close", Event.ENDED, True),
        ("read begin first_part close", Event.ENDED, True),
        # What a hostile server, or one that only peeked, can do: an answer is an answer.
        ("answer close", Event.ANSWERED, True),
        ("begin first_part close", Event.ENDED, True),
        ("begin first_part last_part close", Event.ANSWERED, True),
    ],
    ids=lambda value: value.replace(" ", ",") or "nothing" if isinstance(value, str) else "",
)
def test_what_a_server_does_means(channel, does, heard, over):
    """Each line of the table in the module's theory, and what lies between."""
    conversation, server = channel
    for deed in does.split():
        getattr(server, deed)()
    assert drive(conversation.receive(NOW)) is heard
    if heard is Event.ANSWERED:
        record, descriptors = conversation.whole
        assert (record.id, len(descriptors)) == (CALL, 0)
    assert conversation.over == over
    conversation.abandon()


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("close", NeverRan),
        ("gone", NeverRan),
        ("read begin first_part gone", ServerGone),
        ("read close", ServerGone),
        ("read", TooLate),
    ],
)
def test_who_waits_for_an_answer_is_told_whether_the_call_ran(channel, does, error):
    """Or that it may have."""
    conversation, server = channel
    for deed in does.split():
        getattr(server, deed)()
    with pytest.raises(error) as caught:
        drive(conversation.answer(NOW))
    assert getattr(caught.value, "ran", "maybe") == "maybe"


def test_a_go_that_nobody_waits_for_is_sent_later(channel):
    """Who only looks what has come has no deadline to miss: the queue may be full of the call that is being sent."""
    conversation, server = channel
    reply = by_hand.reply(CALL, b"answer", [(0, hand.NO_BADGE), (1, hand.NO_BADGE)], 2)
    server.read()
    server.far.send(_wire.pack_begin(CALL, len(reply), 2))
    by_hand.send(server.far, _wire.pack_part_head(CALL, 1) + reply[:5], [0])
    filler = bytes(1 << 12)
    while lib.cm_send_record(conversation._near.number, filler, len(filler), (), 0) == 0:
        pass
    assert drive(conversation.receive(NOW)) is Event.NOTHING
    server.far.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            server.far.recv(1 << 12)
    assert drive(conversation.receive(NOW)) is Event.NOTHING
    assert server.far.recv(1 << 12) == _wire.pack_go(CALL)
    conversation.abandon()


@pytest.mark.parametrize("does", ["begin begin", "first_part", "read begin last_part last_part"])
def test_parts_that_make_no_answer_end_the_conversation(channel, does):
    """One answer within another, a part of nothing, more than was announced."""
    conversation, server = channel
    for deed in does.split():
        getattr(server, deed)()
    with pytest.raises(cm.ProtocolError):
        drive(conversation.receive(NOW))
    assert conversation.over
    conversation.abandon()


# ------------------------------------------------------------------------------------------ a GO that is lost (4.6)


class Failing:
    """The extension, whose sending of single records fails so many times."""

    def __init__(self, number, times):
        self.number, self.times = number, times

    def cm_send_record(self, *arguments):
        self.times -= 1
        return -self.number if self.times >= 0 else lib.cm_send_record(*arguments)

    def __getattr__(self, name):
        return getattr(lib, name)


@pytest.fixture
def bulk():
    with cm.Entrypoint("bulk") as entrypoint:
        capability = entrypoint.manage(hand.BulkServer())
        yield capability.cast(hand.Bulk)
        capability.close()


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM, errno.EINTR, errno.EAGAIN])
def test_a_go_that_was_not_sent_is_sent_again(bulk, monkeypatch, number):
    """The server waits for it: the rest of the answer would never come, and the call would wait until its deadline."""
    monkeypatch.setattr(_conversation, "lib", Failing(number, 3))
    with cm.timeout(PATIENCE):
        _, files = bulk.make(1, 600)
    assert len(files) == 600
    for file in files:
        file.close()


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM, errno.EPERM])
def test_a_go_that_cannot_be_sent_ends_the_call(bulk, monkeypatch, number):
    """With what the kernel said; what has come of the answer is closed, and the next call works."""
    monkeypatch.setattr(_conversation, "lib", Failing(number, 10**9))
    with pytest.raises(cm.KernelError) as caught, cm.timeout(0.2):
        bulk.make(1, 600)
    assert caught.value.errno == number
    monkeypatch.undo()
    with cm.timeout(PATIENCE):
        assert bulk.size(b"123") == 3
