"""docs/protocol.md says what the code does: its numbers are the code's, and its exchanges went over sockets."""

from __future__ import annotations

import dataclasses
import enum
import re
import struct
import sys
from datetime import datetime, timezone
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec
import pytest

import exchanges
from capmarshal._capabilities import identity
from capmarshal._child import inherited
from capmarshal._descriptors.array_layout import _FORMATS, DIMENSIONS_MAX
from capmarshal._kernel import waiting
from capmarshal._kernel.native import DESCRIPTORS_MAX, lib
from capmarshal._protocol import epitaph, faults, further_lines, handover_record, parts, plain, raised, wire
from capmarshal._protocol.faults import Code, Fault
from capmarshal._server import new_door, options
from capmarshal._typed import stream
from capmarshal._typed.codec import data_decoder_for, encode_data
from capmarshal._typed.method import methods_of

TEXT = exchanges.DOCUMENT.read_text(encoding="utf-8")
# What stands in its exchanges is looked at as a whole.
PROSE = re.sub(r"```text\n.*?```", "", TEXT, flags=re.DOTALL)

LAYOUT = ("at", "bytes", "field", "what it says")
PLACES = ("place", "field", "what it says")


def _cells(line):
    return tuple(cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split(" | "))


def _tables():
    """Each table of the document: what its head says, and its rows."""
    for block in re.findall(r"^\|.*(?:\n\|.*)*", PROSE, re.MULTILINE):
        head, _, *rows = block.splitlines()
        yield _cells(head), [_cells(row) for row in rows]


TABLES = list(_tables())
(HANDOVER, REFUSAL, HEAD, CALL, LINE, ARRAY, LEASE, BEGIN) = (rows for head, rows in TABLES if head == LAYOUT)


def _rows_under(*head):
    """The rows of the one table that has this head."""
    (rows,) = [rows for found, rows in TABLES if found[: len(head)] == head]
    return rows


def _number(cell):
    return int(cell.replace(",", ""))


def _layout_in(rows):
    """(offset, size) of each field of a table; of one that goes on to the end, None."""
    return [(int(at), int(size) if size.isdecimal() else None) for at, size, *_ in rows]


def _layout_of(packer, after=0):
    """The same of a struct, from where another one ends; bytes that are left out are one field."""
    at, found = 0, []
    for token in re.findall(r"\d*\w", packer.format.strip("=")):
        size = struct.calcsize("=" + token)
        found.append((at, size))
        at += size
    return [field for field in found if field[0] >= after]


def _read(rows, data):
    """What the fields of a record say, by their names."""
    found = {}
    for at, size, field, *_ in rows:
        piece = data[int(at) :][: int(size) if size.isdecimal() else None]
        found[field] = (
            int.from_bytes(piece, sys.byteorder) if size in ("1", "2", "4", "8") and field != "magic" else piece
        )
    return found


@pytest.mark.parametrize(
    ("rows", "packer", "after"),
    [
        (HANDOVER, handover_record._RECORD, 0),
        (REFUSAL[:1], handover_record._REFUSAL, handover_record._RECORD.size),
        (HEAD, wire._HEAD, 0),
        (CALL, wire._CALL, wire.HEAD_SIZE),
        (LINE, wire._ENTRY, 0),
        (ARRAY, further_lines._ARRAY, 0),
        (LEASE, further_lines._LEASE, 0),
        (BEGIN, wire._BEGIN, wire.HEAD_SIZE),
    ],
    ids=["handover", "refusal", "head", "call", "line", "array", "lease", "begin"],
)
def test_fields_are_where_the_tables_have_them(rows, packer, after):
    """Offset and size of each, as the code packs them."""
    assert _layout_in(rows) == _layout_of(packer, after)


def test_fields_mean_what_the_tables_call_them():
    """What was packed is read by the names in the tables."""
    badge = bytes(range(16))
    call = wire.pack_call(7, badge, 1_000, 2_000, b"name", [wire.Entry(3, badge)], 4, b"\x90")
    head = {"version": wire.VERSION, "kind": wire.CALL, "entries": 1, "descriptors": 4, "cpu": 0, "id": 7}
    assert _read(HEAD, call) == head
    assert _read(CALL, call) == {"time left": 1_000, "sent at": 2_000, "method": 4, "badge": badge}
    assert _read(LINE, call[50 + 4 :][:18]) == {"slot": 3, "badge": badge}
    assert _read(BEGIN, wire.pack_begin(7, 300_000, 5)) == {"size": 300_000, "descriptors": 5}
    assert _read(HEAD, wire.pack_data_reply(7, b"", 3))["cpu"] == 3
    record = handover_record.pack(badge)
    assert _read(HANDOVER, record)["badge"] == badge
    assert _read(HANDOVER, record)["size"] == len(record)
    refused = handover_record.pack_refusal("so, then", handover_record.Because.BUSY)
    assert _read(HANDOVER, refused)["badge"] == wire.NO_BADGE
    assert _read(REFUSAL, refused) == {"busy": 1, "why": b"so, then"}
    array = further_lines._read_array(memoryview(further_lines._ARRAY.pack(further_lines._MORE, b"d", 1, 9)))
    assert _read(ARRAY, further_lines.pack(array, None))["shape"] == 9
    lease = _read(LEASE, further_lines.pack(None, further_lines.Lent(4, 1 << 40)))
    assert (lease["lease"], lease["pool"], lease["slot"]) == (4, 1 << 40, further_lines._MORE)


def test_the_magic_is_so():
    """In hex, as the table has it."""
    assert bytes.fromhex(HANDOVER[0][3].strip("`")) == handover_record._MAGIC


def test_the_kinds_have_these_numbers():
    """All of them."""
    rows = _rows_under("kind", "number")
    assert {name: int(number) for name, number, *_ in rows} == {
        name: number for number, name in exchanges.KINDS.items()
    }


def test_the_errors_are_these():
    """Number, what Python makes of it, and whether it says that the method may have run."""
    rows = _rows_under("code", "number")
    assert [(name, int(number)) for name, number, *_ in rows] == [(code.name, code.value) for code in Code]
    for name, _, _, error, has_run in rows:
        if name in ("RAISED", "DECLARED"):
            continue
        raised_here = faults.to_exception(memoryview(faults.encode(Fault(Code[name], "words"))), (), "Desk.add")
        assert f"`{type(raised_here).__name__}`" == error
        if hasattr(raised_here, "ran"):
            assert raised_here.ran == {"no": "no", "yes": "maybe"}[has_run]


@pytest.mark.parametrize(("place", "kind"), [(0, Fault), (1, raised.Raised)])
def test_what_a_fail_says_stands_in_these_places(place, kind):
    """The fields, in order; and those of an error that may be left out."""
    (fault, error) = (rows for head, rows in TABLES if head[:2] == PLACES[:2] and len(rows) > 2)
    rows = (fault, error)[place]
    assert [(int(at), field) for at, field, *_ in rows] == list(enumerate(kind.__struct_fields__))
    if kind is Fault:
        return
    least = msgspec.msgpack.encode([["KeyError"], "text"])
    made = msgspec.msgpack.decode(least, type=kind)
    words = {"`[]`": [], "`{}`": {}, "nil": None}
    assert [getattr(made, field) for _, field, _, otherwise in rows if otherwise in words] == [
        words[otherwise] for *_, otherwise in rows if otherwise in words
    ]
    assert sum(otherwise == "must be there" for *_, otherwise in rows) == 2


# What the table of values is about; as in docs/types.md.
@dataclasses.dataclass
class Order:
    item: str
    count: int = 1


class Pair(NamedTuple):
    left: int
    right: int = 0


class Colour(enum.Enum):
    RED = "red"


NAMES = {
    "Order": Order,
    "Pair": Pair,
    "Colour": Colour,
    "datetime": datetime,
    "timezone": timezone,
    "UUID": UUID,
    "Decimal": Decimal,
}


@pytest.mark.parametrize(("declared", "value", "there"), _rows_under("declared", "value", "bytes"))
def test_values_are_these_bytes(declared, value, there):
    """And are decoded as declared."""
    value = eval(value.strip("`"), NAMES)
    data = bytes.fromhex(there.strip("`"))
    assert encode_data(value) == data
    assert data_decoder_for(eval(declared.strip("`"), NAMES))(data) == value


def test_any_width_of_a_number_is_taken():
    """As of encoders that do not look for the shortest; and a whole number where a float is due."""
    assert data_decoder_for(int)(b"\xd3" + (5).to_bytes(8, "big")) == 5
    assert data_decoder_for(list[int])(b"\xdd\0\0\0\1\5") == [5]
    assert data_decoder_for(float)(b"\xca" + struct.pack(">f", 0.5)) == 0.5
    assert data_decoder_for(float)(b"\5") == 5.0
    with pytest.raises(msgspec.ValidationError):
        data_decoder_for(int)(encode_data(5.0))


LIMITS = {
    "descriptors of one record": DESCRIPTORS_MAX,
    "bytes of one record": lib.CM_RECORD_MAX,
    "bytes of a method's name": wire.METHOD_MAX,
    "lines of a table": wire.ENTRIES_MAX,
    "descriptors of one call or answer": parts.RESULT_DESCRIPTORS_MAX,
    "dimensions of an array": DIMENSIONS_MAX,
    "bytes of a handover": handover_record.SIZE_MAX,
    "bytes of the reason in an epitaph": epitaph.REASON_MAX,
    "bytes of a result": parts.RESULT_BYTES_MAX,
    "bytes of a FAIL": faults._MOST,
    "bytes of what was raised": raised.MOST,
    "bytes of one value among `args` and `attributes`": plain._MOST,
    "classes, args, attributes, notes, members": raised._MANY,
    "characters of an error's text or message": raised._WORDS_MAX,
    "bytes of a call": options.MAX_BYTES,
    "descriptors of a call": options.MAX_DESCRIPTORS,
    "items of one `next`": stream.MOST,
}


def test_the_limits_are_these():
    """All that the document has."""
    assert {what: _number(number) for what, number, _ in _rows_under("limit", "number")} == LIMITS
    assert faults._MESSAGE_MAX == raised._WORDS_MAX


@pytest.mark.parametrize(
    "words",
    [
        f"This is version {wire.VERSION}.",
        f"| 0 | 1 | version | {wire.VERSION} |",
        f"begins with a head of {wire.HEAD_SIZE} bytes",
        f"more than {DESCRIPTORS_MAX} descriptors",
        f"No record is longer than {lib.CM_RECORD_MAX:,} bytes",
        f"the slot of a capability may be {wire.THIS_DOOR:,}, *this door*",
        f"No table has more than {wire.ENTRIES_MAX:,} lines",
        f"{parts.PART_BYTES:,} bytes in a part",
        f"the number of its descriptors, {parts.RESULT_DESCRIPTORS_MAX:,} at most",
        f"no version's record is longer than {handover_record.SIZE_MAX:,} bytes",
        f"`{inherited.VARIABLE}` is `number:inode`",
        f"whose badge is `{wire.SIGNAL_BADGE.decode()}`",
        f"`\\0{identity.NAME_PREFIX}<label>/<16 hex digits>`",
        f"`\\0{identity.NAME_PREFIX}<label>/{identity.GRANTS}<16 hex digits>`",
        f"a label is 1 to {new_door.LABEL_MAX} bytes",
        f"capmarshal wants {stream.FIRST} items first, and twice as many each time that all of these came, "
        f"up to {stream.MOST:,}",
        f"with less than {stream._TOGETHER:,} bytes (`max_bytes`) it wants one item at a time",
        f"Of the reason, {epitaph.REASON_MAX:,} bytes are kept",
        f"waits {waiting._FIRST // 1_000_000} ms and then twice as long each time, "
        f"up to {waiting._LAST // 1_000_000} ms",
        f"{DIMENSIONS_MAX} at most",
    ],
)
def test_the_prose_has_these_numbers(words):
    """Line breaks apart."""
    assert words in " ".join(PROSE.split())


def test_the_letters_of_arrays_are_these():
    """As C's types, and what else there is."""
    (format_row,) = [row for row in ARRAY if row[2] == "format"]
    letters = {letter for word in re.findall(r"`(.+?)`", format_row[3]) for letter in word}
    assert letters == set(_FORMATS)
    assert 2 * new_door._RANDOM_SIZE == 16


def test_a_stream_is_pulled_by_this():
    """One method, its argument, and its result."""
    pulled = methods_of(methods_of(exchanges.Desk)[b"letters"].result)
    assert list(pulled) == [b"next"]
    assert [parameter.name for parameter in pulled[b"next"].parameters] == ["at_most"]
    assert pulled[b"next"].result == tuple[list[str], bool]
    (rows,) = [rows for head, rows in TABLES if head == PLACES and len(rows) == 2]
    assert [(place, field) for place, field, _ in rows] == [("0", "items"), ("1", "ended")]


@pytest.mark.skipif(sys.byteorder != "little", reason="the document shows little-endian machines")
@pytest.mark.parametrize("name", exchanges.names())
def test_exchanges_are_what_goes_over_the_sockets(name):
    """``python tests/support/exchanges.py`` writes them anew."""
    # A stream's items go together only where they come one after the other, and no machine stands still in between.
    for _ in range(5):
        made = f"<!-- exchange: {name} -->\n{exchanges.exchange(name)}"
        if made in TEXT:
            break
    assert made in TEXT


def test_each_exchange_of_the_document_is_one():
    """None is left there that nobody compares."""
    assert [place[2] for place in exchanges.PLACE.finditer(TEXT)] == re.findall(r"<!-- exchange: (.+?) -->", TEXT)
    assert sorted(exchanges.names()) == sorted(re.findall(r"<!-- exchange: (.+?) -->", TEXT))
    assert TEXT.count("```text\n") == len(exchanges.names())


def test_its_links_lead_somewhere():
    """Files of this checkout, and headings."""
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", TEXT):
        assert not target or (exchanges.DOCUMENT.parent / target).exists(), target
