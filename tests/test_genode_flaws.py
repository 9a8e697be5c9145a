"""What capmarshal's predecessors got wrong, each in a test that bears the flaw's name.

Genode's base-linux of 2012 carried capabilities as descriptors in messages, as capmarshal does.  What its history
shows to have gone wrong must not go wrong here.
"""

import array
import fcntl
import os
import signal
import socket

import pytest

from capmarshal import Message
from capmarshal._kernel.errors import CallTimeout, DescriptorsLost, MessageTruncated
from full_table import fill

LONG = 60


def test_eight_capabilities_and_a_reply_socket_made_nine(pair, files, identity):
    """The ninth descriptor overwrote the count of them: here each number up to the kernel's limit arrives whole."""
    sent = files(253)
    for count in (8, 9, 10, 252, 253):
        Message(b"%d" % count, sent[:count]).send(pair[0])
        with Message.receive(pair[1], timeout=LONG) as message:
            assert message.data == b"%d" % count
            assert [identity(d) for d in message.descriptors] == [identity(number) for number in sent[:count]]
    with pytest.raises(ValueError, match="at most 253"):
        Message(b"one more", [*sent, sent[0]])


def test_the_failure_of_a_full_table_was_ignored(pair, files, fork):
    """Words and descriptors came apart: here a message that lacks one descriptor is an error, and none is used."""
    sent = files(4)
    Message(b"four", sent).send(pair[0])

    def child():
        filler = fill(3)
        with pytest.raises(DescriptorsLost) as caught:
            Message.receive(pair[1], timeout=LONG)
        # Room for three again: those that did come are closed.
        again = [os.dup(0) for _ in range(3)]
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        for number in (*filler, *again):
            os.close(number)
        return caught.value.data

    assert fork(child, table=64).result() == b"four"


def test_a_message_without_descriptors_left_stale_memory_as_reply_socket(pair, files):
    """The last message's descriptor was written to and closed: here nothing of a message is left for the next."""
    Message(b"with", files(3)).send(pair[0])
    Message(b"without").send(pair[0])
    with Message.receive(pair[1], timeout=LONG) as first, Message.receive(pair[1], timeout=LONG) as second:
        assert len(first.descriptors) == 3
        assert second.descriptors == ()
        with pytest.raises(IndexError):
            second.take(0)
        second.close()
        for descriptor in first.descriptors:
            os.fstat(descriptor.fileno())


def test_fewer_bytes_than_the_last_message_left_its_end_behind(pair):
    """The same for the bytes: a short message after a long one is short."""
    Message(b"x" * 1000).send(pair[0])
    Message(b"y").send(pair[0])
    assert [Message.receive(pair[1], timeout=LONG).data for _ in range(2)] == [b"x" * 1000, b"y"]


def test_truncation_was_ignored(pair, files, open_descriptors):
    """A message that did not fit was taken for whole: here it is an error, and its descriptors are closed."""
    sent = files(2)
    Message(b"too long", sent).send(pair[0])
    before = open_descriptors()
    with pytest.raises(MessageTruncated):
        Message.receive(pair[1], timeout=LONG, size=3)
    assert open_descriptors() == before


def test_eintr_was_an_error(pair):
    """A signal made a call fail: here handlers run, and the message is received all the same."""
    ran = []

    def handler(*_):
        ran.append(1)
        if len(ran) == 3:
            Message(b"at last").send(pair[0], timeout=0)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        assert Message.receive(pair[1], timeout=LONG).data == b"at last"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(ran) >= 3


def test_msg_cmsg_cloexec_was_given_in_msg_flags(pair, files):
    """There the kernel does not look at it, and every program executed got the lot: here each one is CLOEXEC."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files(9)))
    pair[0].sendmsg([b"x"], [rights])
    with Message.receive(pair[1], timeout=LONG) as message:
        assert [fcntl.fcntl(d.fileno(), fcntl.F_GETFD) for d in message.descriptors] == [fcntl.FD_CLOEXEC] * 9


def test_an_invalid_capability_consumed_the_next_ones_slot(pair, files):
    """One bad descriptor shifted the others: here the whole message is refused, and nothing of it arrives."""
    sent = files(2)
    closed = os.dup(sent[0])
    message = Message(b"x", [sent[0], closed, sent[1]])
    os.close(closed)
    with pytest.raises(OSError, match="Bad file descriptor"):
        message.send(pair[0])
    with pytest.raises(CallTimeout):
        Message.receive(pair[1], timeout=0)
