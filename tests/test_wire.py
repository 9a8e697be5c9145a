"""The layout of records: what is packed is unpacked, and anything else is Malformed."""

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import by_hand
from capmarshal._descriptors.array_layout import DIMENSIONS_MAX, ArrayLayout
from capmarshal._kernel.native import lib
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.further_lines import Lent
from capmarshal._protocol.wire import (
    NO_BADGE,
    Begin,
    Call,
    Entry,
    Fail,
    Go,
    Gone,
    Knock,
    Malformed,
    Part,
    Reply,
    unpack,
)

ids = st.integers(0, 2**64 - 1)
badges = st.binary(min_size=16, max_size=16)
capability_badges = badges.filter(lambda badge: badge != NO_BADGE)
times = st.integers(0, _wire.NO_LIMIT)
# Whatever can be said; what it must be in truth is for whoever has the memory to check.
arrays = st.builds(
    ArrayLayout,
    st.characters(min_codepoint=1, max_codepoint=255),
    st.lists(st.integers(0, 2**64 - 1), max_size=DIMENSIONS_MAX).map(tuple),
)


@st.composite
def tables(draw):
    """A table that is allowed, and the number of descriptors that it refers to."""
    descriptors = draw(st.integers(0, 12))
    slots = draw(st.permutations(range(descriptors)))
    plain = slots[: draw(st.integers(0, descriptors))]
    doors = slots[len(plain) :]
    leases = slots[: draw(st.integers(0, len(plain)))]
    entries = [
        Entry(slot, NO_BADGE, draw(st.none() | arrays), Lent(leases.pop(), draw(times)) if leases else None)
        for slot in plain[len(leases) :]
    ]
    if doors:
        entries += draw(st.lists(st.builds(Entry, st.sampled_from(doors), capability_badges, st.none()), max_size=8))
    return draw(st.permutations(entries)), descriptors


@st.composite
def calls(draw):
    """A CALL, as it is before it is packed."""
    entries, descriptors = draw(tables())
    method = draw(st.one_of(st.binary(max_size=300), st.text(max_size=20).map(str.encode)))
    payload = draw(st.binary(max_size=64))
    return (draw(ids), draw(badges), draw(times), draw(times), method, list(entries), descriptors, payload)


@st.composite
def replies(draw):
    """A REPLY, as it is before it is packed."""
    entries, descriptors = draw(tables())
    return draw(ids), list(entries), descriptors, draw(st.binary(max_size=64))


records = st.one_of(
    calls().map(lambda call: _wire.pack_call(*call)),
    replies().map(lambda reply: _wire.pack_reply(*reply)),
    st.builds(_wire.pack_fail, ids, st.binary(max_size=64)),
    st.just(_wire.KNOCK_RECORD),
)


def _pack(record):
    """What the record was packed from."""
    match record:
        case Call():
            return _wire.pack_call(*record[:-1], bytes(record.payload))
        case Reply():
            return _wire.pack_reply(*record[:-1], bytes(record.payload))
        case Fail():
            return _wire.pack_fail(record.id, bytes(record.payload))
        case Begin():
            return _wire.pack_begin(*record)
        case Part():
            return _wire.pack_part_head(record.id, record.descriptors) + bytes(record.payload)
        case Go():
            return _wire.pack_go(record.id)
        case Gone():
            return _wire.GONE_RECORD
    return _wire.KNOCK_RECORD


def _record_or_malformed(data):
    """unpack() gives a record that packs to the same bytes, or Malformed; anything else fails the test."""
    record = malformed = None
    try:
        record = unpack(data)
    except Malformed as error:
        malformed = error
    if malformed is None:
        assert isinstance(record, _wire.Record)
        # The CPU is for the waiting in C.
        assert _pack(record) == data[:6] + bytes(2) + data[8:]
    else:
        assert malformed.id == (int.from_bytes(data[8:16], sys.byteorder) if len(data) >= 16 else None)
        assert str(malformed)


@given(calls())
def test_any_call_unpacks_to_itself(call):
    """Every field of a CALL comes back as it was packed."""
    assert tuple(unpack(_wire.pack_call(*call))) == call


@given(replies())
def test_any_reply_unpacks_to_itself(reply):
    """Every field of a REPLY comes back as it was packed."""
    record = unpack(_wire.pack_reply(*reply))
    assert isinstance(record, Reply)
    assert tuple(record) == reply


@given(ids, st.binary(max_size=200))
def test_any_fail_unpacks_to_itself(call_id, payload):
    """Every field of a FAIL comes back as it was packed."""
    assert unpack(_wire.pack_fail(call_id, payload)) == Fail(call_id, memoryview(payload))


def test_the_knock_unpacks_to_itself():
    """There is one KNOCK, it is all head, and it announces one descriptor."""
    assert unpack(_wire.KNOCK_RECORD) == Knock()
    assert len(_wire.KNOCK_RECORD) == 16
    assert int.from_bytes(_wire.KNOCK_RECORD[4:6], sys.byteorder) == 1


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_malformed(data):
    """No other exception leaves unpack(), whatever the bytes are."""
    _record_or_malformed(data)


@given(
    st.sampled_from([_wire.KNOCK, _wire.CALL, _wire.REPLY, _wire.FAIL, 0, 5, 255]),
    st.integers(0, 40) | st.integers(0, 65535),
    st.integers(0, 4) | st.integers(0, 65535),
    st.binary(max_size=300),
)
def test_any_bytes_behind_a_good_head_are_a_record_or_malformed(kind, count, descriptors, rest):
    """A head that passes lets nothing but Malformed out either, however wrong what follows is."""
    _record_or_malformed(struct.pack("=BBHHHQ", _wire.VERSION, kind, count, descriptors, 0, 7) + rest)


@given(records, st.data())
def test_one_changed_byte_makes_a_record_or_malformed(data, draw):
    """A valid record with any one byte changed is another record, which packs to those bytes, or Malformed."""
    place = draw.draw(st.integers(0, len(data) - 1))
    value = draw.draw(st.integers(0, 255))
    _record_or_malformed(data[:place] + bytes([value]) + data[place + 1 :])


@given(records)
def test_every_truncation_makes_a_record_or_malformed(data):
    """A valid record that ends early, at any byte, is a record with a shorter payload, or Malformed."""
    for end in range(len(data)):
        _record_or_malformed(data[:end])


def test_the_layout_of_a_call_is_as_documented():
    """Head, call and table stand at the offsets that the module's documentation draws."""
    badge, other = bytes(range(16)), bytes(range(100, 116))
    entries = [Entry(1, NO_BADGE), Entry(0, other)]
    data = _wire.pack_call(0x1122334455667788, badge, 99, 12345, b"name", entries, 2, b"payload")
    assert data[0] == 3
    assert data[1] == _wire.CALL == 2
    assert struct.unpack_from("=HHH", data, 2) == (2, 2, 0)
    assert struct.unpack_from("=Q", data, 8) == (0x1122334455667788,)
    assert struct.unpack_from("=QQH", data, 16) == (99, 12345, 4)
    assert data[34:50] == badge
    assert data[50:54] == b"name"
    assert data[54:90] == struct.pack("=H", 1) + bytes(16) + struct.pack("=H", 0) + other
    assert data[90:] == b"payload"


def test_c_reads_and_makes_heads_of_this_layout():
    """The extension has its own structs: their sizes and places are asserted where they are compiled, against these."""
    assert lib.CM_HEAD == _wire.HEAD_SIZE
    assert lib.CM_CALL_HEAD == _wire.CALL_SIZE
    assert lib.CM_CALL_HEAD - lib.CM_CALL_TIMES == _wire.KEY_SIZE
    assert lib.CM_CALL_HEAD - lib.CM_CALL_KEY == _wire.BADGE_SIZE


def test_a_key_is_what_a_call_has_of_it():
    """The length of the method's name, the badge and the name, as they stand in the record."""
    badge, method = bytes(range(16)), b"name\0"
    key = by_hand.key(badge, method)
    assert _wire.pack_call(1, badge, 2, 3, method, [], 0, b"payload")[lib.CM_CALL_TIMES :] == key + b"payload"
    assert _wire.unpack_key(key) == (badge, method)


def test_the_layout_of_a_reply_is_as_documented():
    """The table stands behind the head, the payload behind the table."""
    data = _wire.pack_reply(5, [Entry(0, b"b" * 16)], 1, b"payload")
    assert data[:16] == struct.pack("=BBHHHQ", 3, 3, 1, 1, 0, 5)
    assert data[16:34] == struct.pack("=H", 0) + b"b" * 16
    assert data[34:] == b"payload"


def test_the_layout_of_an_array_is_as_documented():
    """Behind the line of its memory: the format and the first dimension, and then two dimensions a line."""
    entries = [Entry(1, NO_BADGE, ArrayLayout("d", (2, 3, 4, 5))), Entry(0, NO_BADGE)]
    data = _wire.pack_reply(5, entries, 2, b"payload")
    assert struct.unpack_from("=HH", data, 2) == (5, 2)
    assert data[16:34] == struct.pack("=H", 1) + bytes(16)
    assert data[34:52] == b"\xff\xff" + b"d\4" + bytes(6) + struct.pack("=Q", 2)
    assert data[52:88] == b"\xff\xff" + struct.pack("=QQ", 3, 4) + b"\xff\xff" + struct.pack("=QQ", 5, 0)
    assert data[88:] == struct.pack("=H", 0) + bytes(16) + b"payload"


MEMORY = bytes(18)


@pytest.mark.parametrize(
    "lines",
    [
        MEMORY + b"\xff\xffd\2" + bytes(14),
        MEMORY + b"\xff\xffd\3" + bytes(14) + bytes(18),
        MEMORY + b"\xff\xffd\1" + b"\0\0\0\0\0\1" + bytes(8),
        MEMORY + b"\xff\xffd\0" + bytes(6) + struct.pack("=Q", 1),
        MEMORY + b"\xff\xffd\2" + bytes(14) + b"\xff\xff" + struct.pack("=QQ", 1, 1),
        MEMORY + b"\xff\xffd\x41" + bytes(14) + (b"\xff\xff" + bytes(16)) * 32,
    ],
    ids=["no second line", "no line of an array", "not zero", "a dimension too many", "another", "65 dimensions"],
)
def test_an_array_that_is_not_said_as_documented_is_refused(lines):
    """What nobody would send is Malformed, and not guessed at."""
    data = struct.pack("=BBHHHQ", 3, _wire.REPLY, len(lines) // 18, 1, 0, 7) + lines
    with pytest.raises(Malformed, match="says of an array") as caught:
        unpack(data)
    assert caught.value.id == 7


@pytest.mark.parametrize("badge", [NO_BADGE, b"c" * 16])
def test_an_array_is_said_of_memory_that_came(badge):
    """Not before any, not of a capability, and not twice."""
    line, array = struct.pack("=H", 0) + badge, b"\xff\xffd\0" + bytes(14)
    for lines in (array, array + line, *([line + array] if badge != NO_BADGE else [line + array + array])):
        data = struct.pack("=BBHHHQ", 3, _wire.REPLY, len(lines) // 18, 1, 0, 7) + lines
        with pytest.raises(Malformed, match="not among"):
            unpack(data)


def test_the_layout_of_a_lease_is_as_documented():
    """Behind the line of the memory, and behind what array that is; the lease's descriptor has no line of its own."""
    entries = [Entry(1, NO_BADGE, ArrayLayout("d", ()), Lent(2, 7)), Entry(0, NO_BADGE, None, Lent(3, 8))]
    data = _wire.pack_reply(5, entries, 4, b"payload")
    assert struct.unpack_from("=HH", data, 2) == (5, 4)
    assert data[16:52] == struct.pack("=H", 1) + bytes(16) + b"\xff\xffd" + bytes(15)
    assert data[52:70] == b"\xff\xff\0\0" + struct.pack("=H", 2) + bytes(4) + struct.pack("=Q", 7)
    assert data[70:106] == bytes(18) + b"\xff\xff\0\0" + struct.pack("=H", 3) + bytes(4) + struct.pack("=Q", 8)
    assert unpack(data).entries == entries


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (b"\xff\xff\0\1" + bytes(14), "says of a lease"),
        (b"\xff\xff\0\0\0\0\1" + bytes(11), "says of a lease"),
        (b"\xff\xff" + bytes(16), "two owners"),
        (b"\xff\xff\0\0" + struct.pack("=H", 2) + bytes(12), "not among"),
        ((b"\xff\xff\0\0" + struct.pack("=H", 1) + bytes(12)) * 2, "not among"),
        (b"\xff\xff\0\0" + struct.pack("=H", 1) + bytes(12) + b"\xff\xffd\0" + bytes(14), "not among"),
        (b"\xff\xff\0\0" + struct.pack("=H", 1) + bytes(12) + struct.pack("=H", 1) + bytes(16), "two owners"),
    ],
    ids=[
        "not zero",
        "not zero either",
        "the memory itself",
        "none that came",
        "two",
        "before the array",
        "an entry, too",
    ],
)
def test_a_lease_that_is_not_said_as_documented_is_refused(lines, why):
    """It is a descriptor that came, of which nothing else is made."""
    lines = bytes(18) + lines
    data = struct.pack("=BBHHHQ", 3, _wire.REPLY, len(lines) // 18, 2, 0, 7) + lines
    with pytest.raises(Malformed, match=why) as caught:
        unpack(data)
    assert caught.value.id == 7


def test_the_layout_of_a_fail_and_a_knock_is_as_documented():
    """A FAIL is head and payload; a KNOCK is a head with ID 0 and one descriptor."""
    assert _wire.pack_fail(5, b"payload") == struct.pack("=BBHHHQ", 3, 4, 0, 0, 0, 5) + b"payload"
    assert struct.pack("=BBHHHQ", 3, 1, 0, 1, 0, 0) == _wire.KNOCK_RECORD


CAPABILITY = b"c" * 16


@pytest.mark.parametrize(
    ("entries", "descriptors", "why"),
    [
        ([Entry(0, NO_BADGE), Entry(0, NO_BADGE)], 1, "two owners"),
        ([Entry(0, NO_BADGE), Entry(0, CAPABILITY)], 1, "two owners"),
        ([Entry(0, CAPABILITY), Entry(1, NO_BADGE), Entry(0, NO_BADGE)], 2, "two owners"),
        ([Entry(1, NO_BADGE)], 1, "not among"),
        ([Entry(0, NO_BADGE)], 0, "not among"),
        ([Entry(0, CAPABILITY), Entry(65535, CAPABILITY)], 253, "not among"),
    ],
    ids=["plain twice", "plain and door", "door and plain", "outside", "none came", "far outside"],
)
@pytest.mark.parametrize("kind", ["call", "reply"])
def test_a_table_with_two_owners_or_slots_outside_is_refused(kind, entries, descriptors, why):
    """One descriptor has one owner, and is one that the record announces; else the record is Malformed."""
    if kind == "call":
        data = _wire.pack_call(7, bytes(16), 0, 0, b"m", entries, descriptors, b"")
    else:
        data = _wire.pack_reply(7, entries, descriptors, b"")
    with pytest.raises(Malformed, match=why) as caught:
        unpack(data)
    assert caught.value.id == 7


def test_capabilities_of_one_door_share_its_slot():
    """Two entries with a badge may have the same slot, and even the same badge."""
    entries = [Entry(0, CAPABILITY), Entry(0, b"d" * 16), Entry(0, CAPABILITY)]
    assert unpack(_wire.pack_reply(7, entries, 1, b"")).entries == entries


@pytest.mark.parametrize("kind", [_wire.CALL, _wire.REPLY])
def test_a_table_longer_than_the_record_is_refused(kind):
    """A count of entries that the bytes do not hold is Malformed, with the ID of the call to answer."""
    data = struct.pack("=BBHHHQ", 3, kind, 65535, 1, 0, 7) + bytes(34) + bytes(17)
    with pytest.raises(Malformed, match="table of 65535") as caught:
        unpack(data)
    assert caught.value.id == 7


def test_a_method_name_longer_than_the_record_is_refused():
    """A length that leads outside the record is Malformed."""
    data = _wire.pack_call(7, bytes(16), 0, 0, b"name", [], 0, b"")
    with pytest.raises(Malformed, match="4 bytes"):
        unpack(data[:-1])


@pytest.mark.parametrize("version", [0, 1, 2, 255])
def test_another_version_is_refused_and_can_be_answered(version):
    """The head is the same in every version, so the error carries the call's ID."""
    data = bytes([version]) + _wire.pack_fail(7, b"")[1:]
    with pytest.raises(Malformed, match=f"version {version} ") as caught:
        unpack(data)
    assert caught.value.id == 7


@pytest.mark.parametrize(
    "head",
    [
        (2, _wire.FAIL, 1, 0, 0, 7),
        (2, _wire.FAIL, 0, 1, 0, 7),
        (2, _wire.KNOCK, 0, 0, 0, 0),
        (2, _wire.KNOCK, 0, 2, 0, 0),
        (2, _wire.KNOCK, 1, 1, 0, 0),
        (2, _wire.KNOCK, 0, 1, 0, 7),
        (2, _wire.FAIL, 0, 0, 1, 7),
        (1, 0, 0, 0, 0, 7),
    ],
)
def test_a_head_that_no_record_has_is_refused(head):
    """A FAIL with a table or descriptors, another KNOCK than the one, a FAIL that says its CPU, an unknown kind."""
    with pytest.raises(Malformed):
        unpack(struct.pack("=BBHHHQ", *head))


def test_the_payload_is_a_view_of_the_record():
    """unpack() copies no payload: it is the layer above that must not keep it."""
    data = _wire.pack_reply(7, [], 0, b"payload")
    assert unpack(data).payload.obj is data


def test_this_door_is_of_a_reply_alone():
    """Alone, beside others and behind a plain descriptor that has further lines; it has no descriptor and no badge."""
    this = Entry(_wire.THIS_DOOR, CAPABILITY)
    array = Entry(0, _wire.NO_BADGE, ArrayLayout("d", (2, 3)))
    for entries, descriptors in (([this], 0), ([this] * 3, 0), ([array, this, Entry(1, CAPABILITY), this], 2)):
        assert unpack(_wire.pack_reply(7, entries, descriptors, b"")).entries == entries
        with pytest.raises(Malformed, match="not among"):
            unpack(_wire.pack_call(7, CAPABILITY, _wire.NO_LIMIT, 0, b"m", entries, descriptors, b""))
    nobody = [Entry(_wire.THIS_DOOR, _wire.NO_BADGE)]
    for entries in (nobody, [this, *nobody]):
        with pytest.raises(Malformed, match="not among"):
            unpack(_wire.pack_reply(7, entries, 0, b""))
