"""Records cut into parts and put together again: for any size, and from any liar."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import parts_by_hand as hand
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.inbox import Inbox
from capmarshal._kernel.native import DESCRIPTORS_MAX, FOREVER, lib
from capmarshal._protocol import parts as _parts
from capmarshal._protocol import wire as _wire

MANY = 3 * DESCRIPTORS_MAX

sizes = st.integers(0, 3000)
counts = st.one_of(st.integers(0, 5), st.integers(DESCRIPTORS_MAX - 2, MANY))
part_sizes = st.one_of(st.integers(1, 40), st.integers(41, 5000))
examples = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def numbers():
    """Descriptors that can be told apart."""
    made = [os.memfd_create("part", os.MFD_CLOEXEC) for _ in range(MANY)]
    yield made
    for number in made:
        os.close(number)


def as_records(data, numbers, size):
    """What is sent: each record's bytes, and its descriptors."""
    return [(record, some) for record, some, _ in hand.pieces(data, numbers, 9, size)]


def received(numbers):
    return DescriptorList.dup_of(numbers)


def inode(number):
    return os.fstat(number).st_ino


@examples
@given(data=st.binary(max_size=0) | st.builds(os.urandom, sizes), count=counts, size=part_sizes)
def test_what_was_cut_is_put_together_exactly(numbers, data, count, size):
    """Any number of bytes and descriptors, in parts of any size: the same bytes, the same descriptors in order."""
    (begin, none), *parts = as_records(data, numbers[:count], size)
    assembly = _parts.Assembly(_wire.unpack(begin))
    assert not none
    waits = []
    for record, some in parts:
        assert not assembly.complete
        assert len(some) <= DESCRIPTORS_MAX
        came = received(some)
        waits.append(assembly.add(_wire.unpack(record), came, ""))
        assert not came
    assert assembly.complete
    assert bytes(assembly.data) == data
    whole = assembly.steal()
    try:
        assert [inode(each) for each in whole.numbers()] == [inode(number) for number in numbers[:count]]
    finally:
        whole.close()
    # The receiver says GO exactly where the sender waits for one.
    assert waits == [waits for _, _, waits in hand.pieces(data, numbers[:count], 9, size)][1:]
    assert waits == [bool(some) and place < len(parts) for place, (_, some) in enumerate(parts, 1)]


mutations = st.lists(
    st.tuples(
        st.sampled_from(["drop", "twice", "swap", "shorten", "flip", "fewer", "more", "begin"]),
        st.integers(0, 1 << 30),
        st.integers(0, 1 << 30),
    ),
    min_size=1,
    max_size=4,
)


def mutated(records, changes, numbers):
    """What a liar makes of them."""
    records = [(bytearray(record), list(some)) for record, some in records]
    for what, where, how in changes:
        if not records:
            break
        place = where % len(records)
        record, some = records[place]
        if what == "drop":
            del records[place]
        elif what == "twice":
            records.insert(place, (bytearray(record), list(some)))
        elif what == "swap":
            other = how % len(records)
            records[place], records[other] = records[other], records[place]
        elif what == "shorten":
            del record[how % (len(record) + 1) :]
        elif what == "flip" and record:
            record[how % len(record)] ^= 1 << (how % 8)
        elif what == "fewer":
            del some[how % (len(some) + 1) :]
        elif what == "more":
            some += numbers[: how % 5]
        elif what == "begin":
            records.insert(place, (bytearray(records[0][0]), []))
    return records


@examples
@given(data=st.binary(max_size=500), count=counts, size=part_sizes, changes=mutations)
def test_whatever_is_sent_is_malformed_or_as_announced(numbers, data, count, size, changes):
    """A mutated sequence never makes a record of another size than its BEGIN says, and nothing of it leaks."""
    free = os.dup(0)
    os.close(free)
    assembly = None
    came = DescriptorList()
    try:
        for record, some in mutated(as_records(data, numbers[:count], size), changes, numbers):
            came = received(some)
            unpacked = _wire.unpack(bytes(record))
            if isinstance(unpacked, _wire.Begin):
                if assembly is not None:
                    assembly.steal().close()
                # What is more than either end takes has no room made for it.
                announced = unpacked._replace(size=min(unpacked.size, _parts.RESULT_BYTES_MAX))
                assembly = _parts.Assembly(announced)
            elif isinstance(unpacked, _wire.Part) and assembly is not None:
                assembly.add(unpacked, came, "")
                assert len(assembly.data) <= announced.size
                assert len(assembly.descriptors) <= announced.descriptors
                if assembly.complete:
                    assert len(assembly.data) == announced.size
                    assert len(assembly.descriptors) == announced.descriptors
            came.close()
    except _wire.Malformed:
        pass
    finally:
        came.close()
        if assembly is not None:
            assembly.steal().close()
            assert not len(assembly.steal())
    # The lowest free number is the same: all was closed.
    again = os.dup(0)
    os.close(again)
    assert again == free


def test_lost_descriptors_leave_a_whole_record_that_says_so(numbers):
    """The assembly completes by what was announced, so that the call can be answered."""
    (begin, _), *parts = as_records(b"x" * 1000, numbers[:600], 100)
    assembly = _parts.Assembly(_wire.unpack(begin))
    for record, some in parts:
        assembly.add(_wire.unpack(record), received(some[:1]), "no room" if some else "")
    assert assembly.complete
    assert assembly.lost == "no room"
    assert len(assembly.descriptors) == 3
    assembly.steal().close()


@examples
@given(
    buffers=st.lists(st.binary(max_size=60), min_size=1, max_size=lib.CM_BUFFERS),
    stops=st.lists(st.integers(0, 240), max_size=5).map(sorted),
    part_bytes=st.integers(10, 300),
    head=st.binary(min_size=1, max_size=20),
    some=st.booleans(),
)
def test_what_lies_in_several_buffers_is_sent_piece_by_piece(
    seqpacket, numbers, buffers, stops, part_bytes, head, some
):
    """Across their borders, each part after its head, none longer than it may be, the descriptors with the first."""
    near, far = seqpacket
    record, at = _parts.Gathered(buffers, part_bytes), 0
    whole = b"".join(buffers)
    for stop in (*(stop for stop in stops if stop < len(whole)), len(whole)):
        piece = _parts.Piece(head, stop, numbers[: int(some)], waits=False)
        while (result := record.send(near.fileno(), piece)) != 0:
            assert result == -errno.EINTR
        expected = [whole[start : min(start + part_bytes, stop)] for start in range(at, stop, part_bytes)] or [b""]
        at = record.sent
        assert at == stop
        for number, data in enumerate(expected):
            came, descriptors, _, _ = socket.recv_fds(far, 4096, 2)
            assert came == head + data
            assert len(descriptors) == (some and number == 0)
            hand.close_all(descriptors)
    with pytest.raises(BlockingIOError):
        far.recv(1, socket.MSG_DONTWAIT)


def test_a_long_record_is_not_sent_in_one_go(seqpacket):
    """After some parts its sender comes back, and may have something else to do."""
    near, far = seqpacket
    record = _parts.Gathered([bytes(1000)], 10)
    piece = _parts.Piece(b"head", 1000, [], waits=False)
    assert record.send(near.fileno(), piece) == -errno.EINTR
    assert record.sent == 10 * lib.CM_PARTS
    for _ in range(lib.CM_PARTS):
        assert len(far.recv(100)) == 14
    assert record.send(near.fileno(), piece) == -errno.EINTR
    assert record.sent == 20 * lib.CM_PARTS


def test_a_sender_that_listens_hears_before_it_sends(seqpacket):
    """Nothing more is sent while something is to be received."""
    near, far = seqpacket
    piece = _parts.Piece(b"head", 100, [], waits=False)
    far.send(b"no")
    for listens in (True, False):
        record = _parts.Gathered([bytes(100)], 10, listens=listens)
        assert record.send(near.fileno(), piece) == (lib.CM_HEARD if listens else 0)
        assert record.sent == (0 if listens else 100)


any_part = st.builds(
    lambda call_id, descriptors, payload: _wire.pack_part_head(call_id, descriptors) + payload,
    st.sampled_from([9, 9, 9, 10]),
    st.sampled_from([0, 0, 0, 1]),
    st.binary(max_size=120),
)


@examples
@given(
    size=st.integers(0, 300),
    some=st.booleans(),
    record=any_part | st.binary(min_size=1, max_size=400) | st.just(_wire.GONE_RECORD),
)
@example(size=100, some=False, record=_wire.pack_part_head(10, 0) + b"of another call")
@example(size=100, some=False, record=_wire.pack_part_head(9, 0) + bytes(100))
@example(size=100, some=False, record=_wire.pack_part_head(9, 0) + bytes(101))
@example(size=100, some=True, record=_wire.pack_part_head(9, 1) + b"with a descriptor")
@example(size=100, some=True, record=_wire.pack_part_head(9, 0) + b"with one that it does not announce")
def test_c_puts_a_part_where_it_belongs_and_anything_else_in_the_inbox(seqpacket, numbers, size, some, record):
    """As it was sent, byte for byte, in the one place or in the other."""
    near, far = seqpacket
    assembly, inbox = _parts.Assembly(_wire.Begin(9, size, 0)), Inbox(1000)
    socket.send_fds(near, [record], numbers[:1] if some else [])
    result = lib.cm_receive_part(far.fileno(), assembly.struct, inbox.struct, FOREVER)
    came = inbox.steal()
    try:
        is_part = record[:16] == _wire.pack_part_head(9, 0) and 0 < len(record) - 16 <= size and not some
        assert result == (lib.CM_PART if is_part else 1)
        assert assembly.data == (record[16:] if is_part else b"")
        assert assembly.complete == ((is_part and len(record) - 16 == size) or size == 0)
        assert is_part or inbox.data() == record
        assert len(came) == some
    finally:
        came.close()


def test_a_part_fits_into_the_default_send_buffer():
    """With its head."""
    assert _wire.HEAD_SIZE + _parts.PART_BYTES <= 212_992 - 32
