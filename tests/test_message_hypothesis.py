"""Message, for all bytes, all ways to split them, all numbers of descriptors and all sizes of room."""

import os
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capmarshal import Message
from capmarshal._descriptors import reaper
from capmarshal._kernel.errors import CallTimeout, MessageTruncated
from patience import PATIENCE

# Fixtures are made once for all examples: each example leaves its sockets empty, and closes what it received.
examples = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

buffers = st.lists(st.binary(max_size=4096), max_size=20)
# Small numbers and the largest, rather than anything in between.
counts = st.one_of(st.integers(0, 4), st.integers(0, 253), st.just(253))
kinds = st.sampled_from([socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])


@pytest.fixture
def sockets(make_pair):
    """A pair of each kind."""
    return {kind: make_pair(kind) for kind in (socket.SOCK_SEQPACKET, socket.SOCK_DGRAM)}


@pytest.fixture
def opened(files):
    """253 descriptors: files, and the ends of pipes."""
    numbers = files(127)
    pipes = [end for _ in range(63) for end in os.pipe()]
    yield numbers + pipes
    for end in pipes:
        os.close(end)


@examples
@given(parts=buffers, count=counts, kind=kinds, data=st.data())
def test_what_is_sent_is_what_arrives(sockets, opened, identity, open_descriptors, parts, count, kind, data):
    """Bytes in any split, any number of descriptors, in any order and with repetitions: the same on the other side."""
    near, far = sockets[kind]
    sent = data.draw(st.permutations(opened))[: count - count // 10] + opened[: count // 10]
    message = Message(parts, sent)
    if not sent and not any(parts):
        with pytest.raises(ValueError, match="empty"):
            message.send(near)
        return
    before = open_descriptors()
    message.send(near, timeout=0)
    with Message.receive(far, timeout=0) as received:
        assert received.data == b"".join(parts)
        assert [identity(d) for d in received.descriptors] == [identity(number) for number in sent]
        assert len(open_descriptors()) == len(before) + count
    assert open_descriptors() == before


@examples
@given(content=st.binary(min_size=1, max_size=4096), size=st.integers(0, 5000), count=counts, kind=kinds)
def test_any_room_takes_all_or_says_what_it_took(sockets, opened, open_descriptors, content, size, count, kind):
    """Enough room: the message.  Less: MessageTruncated with as much as fitted.  Either way nothing leaks or stays."""
    near, far = sockets[kind]
    before = open_descriptors()
    Message(content, opened[:count]).send(near, timeout=0)
    if size >= len(content):
        with Message.receive(far, timeout=0, size=size) as received:
            assert (received.data, len(received.descriptors)) == (content, count)
    else:
        with pytest.raises(MessageTruncated) as caught:
            Message.receive(far, timeout=0, size=size)
        assert caught.value.data == content[:size]
        # Which a receive that may not wait leaves to it.
        assert reaper.wait(PATIENCE)
    assert open_descriptors() == before
    with pytest.raises(CallTimeout):
        Message.receive(far, timeout=0)
