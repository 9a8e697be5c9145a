"""Arrays in dataspaces: format and shape, at both sides, and what a stranger may say of them."""

from __future__ import annotations

import array
import ctypes
import itertools
import math
import os
import re
import struct
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import by_hand
import capmarshal as cm
from capmarshal._descriptors.array_layout import DIMENSIONS_MAX, ArrayLayout
from capmarshal._protocol.faults import Code
from capmarshal._protocol.wire import NO_BADGE, Entry, pack_table
from documents import read
from patience import PATIENCE

LETTERS = "?bBhHiIlLefdFD"
NUMPYS = ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16", "longlong", "intp"]


class Store(cm.Interface):
    """Takes and gives arrays."""

    @cm.method
    def describe(self, data: cm.Dataspace) -> tuple[str, tuple[int, ...], list[float], bool]: ...

    @cm.method
    def transposed(self, data: cm.Dataspace) -> cm.Dataspace: ...

    @cm.method
    def all(self, data: list[cm.Dataspace]) -> dict[str, cm.Dataspace]: ...

    @cm.method
    def as_descriptor(self, data: cm.Descriptor, more: list[cm.Descriptor]) -> int: ...


class StoreServer(Store):
    """Its server, in a process of its own."""

    def describe(self, data):
        seen = np.asarray(data)
        return seen.dtype.str, seen.shape, seen.real.ravel().astype(float).tolist(), seen.flags.writeable

    def transposed(self, data):
        return cm.Dataspace.from_buffer(np.asarray(data).T)

    def all(self, data):
        return {str(place): each.dup() for place, each in enumerate(data)}

    def as_descriptor(self, data, more):
        return sum(os.fstat(each.fileno()).st_size for each in (data, *more))


@pytest.fixture
def store(fork):
    with by_hand.server_process(fork, StoreServer) as (_, capability):
        yield capability.cast(Store)
        # pytest holds the proxy, and so the door, until after the descriptors are counted.
        capability.close()


def near_arrays(data):
    """What numpy sees."""
    seen = np.asarray(data)
    return seen.dtype, seen.shape, seen.tobytes()


@pytest.mark.parametrize("dtype", NUMPYS)
def test_an_array_arrives_as_what_it_is(store, dtype):
    """In another process: the same dtype and shape, read-only; and as a result."""
    sent = np.arange(6).reshape(1, 2, 3).astype(dtype)
    with cm.Dataspace.from_buffer(sent) as data:
        assert near_arrays(data) == (sent.dtype, sent.shape, sent.tobytes())
        numbers = sent.real.ravel().astype(float).tolist()
        assert store.describe(data) == (sent.dtype.str, (1, 2, 3), numbers, False)
        with store.transposed(data) as came:
            assert near_arrays(came) == (sent.dtype, (3, 2, 1), sent.T.tobytes())
            assert (came.format, came.shape, came.size) == (data.format, (3, 2, 1), sent.nbytes)


@pytest.mark.parametrize(
    "sent",
    [
        np.array(2.5),
        np.zeros((0,)),
        np.zeros((3, 0, 2), "F"),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24, dtype="i2").reshape(4, 6)[::-2, ::3],
        np.arange(3) * 1j,
        np.zeros((1,) * 64, "?"),
    ],
    ids=["of no dimension", "empty", "empty in the middle", "Fortran", "with gaps", "complex", "64 dimensions"],
)
def test_arrays_of_every_shape(store, sent):
    """Whatever the order of their items was, they lie one after the other in the dataspace."""
    with cm.Dataspace.from_buffer(sent) as data:
        assert near_arrays(data) == (sent.dtype, sent.shape, sent.tobytes())
        assert store.describe(data)[:2] == (sent.dtype.str, sent.shape)


PAGE = read("docs/types.md").partition("\n## Arrays\n")[2]
ROWS = re.findall(r"^\| `(.+?)` \| (?:shape `(.+?)`, format `\"(.)\"` )?\| (.+?) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("made_of", "shape", "letter", "arrives"), ROWS, ids=[row[0] for row in ROWS])
def test_each_row_of_the_page_is_true(store, made_of, shape, letter, arrives):
    """What is made of arrays arrives as the page says, or is refused in the page's words."""
    if arrives.startswith("refused: "):
        with pytest.raises((TypeError, ValueError), match=re.escape(arrives.removeprefix("refused: "))):
            cm.Dataspace.from_buffer(eval(made_of))
        return
    expected = eval(arrives.strip("`"))
    with cm.Dataspace.from_buffer(eval(made_of)) as data, store.all([data])["0"] as came:
        assert near_arrays(came) == near_arrays(expected)
        assert (came.format, came.shape) == (letter, eval(shape))


def test_the_page_has_its_table():
    """None of its rows was passed over."""
    assert len(ROWS) == len(re.findall(r"^\| `", PAGE, re.MULTILINE)) > 10


@pytest.mark.parametrize(
    ("sent", "layout"),
    [
        (b"abc", ("B", (3,))),
        (bytearray(b"abc"), ("B", (3,))),
        (memoryview(bytes(8)).cast("I", (1, 2)), ("I", (1, 2))),
        (array.array("q", [1, 2]), ("l", (2,))),
        (array.array("d", [1, 2]), ("d", (2,))),
        ((ctypes.c_int * 3)(1, 2, 3), ("i", (3,))),
        ((ctypes.c_double * 2 * 3)(), ("d", (3, 2))),
        ((ctypes.c_bool * 2)(), ("?", (2,))),
        (ctypes.create_string_buffer(b"ab"), ("B", (3,))),
        (ctypes.c_long(5), ("l", ())),
    ],
    ids=str,
)
def test_arrays_that_are_no_numpys(store, sent, layout):
    """Bytes stay bytes, and what is in an array of another make has its format and shape."""
    with cm.Dataspace.from_buffer(sent) as data:
        assert (data.format, data.shape) == layout
        assert bytes(data.view()) == bytes(memoryview(sent).cast("B") if type(sent) is memoryview else sent)
        assert store.describe(data)[1] == layout[1]


@pytest.mark.parametrize(
    "dtype",
    ["O", "S3", "U2", "V4", "longdouble", "clongdouble", ">i4", ">f8", [("a", "i4"), ("b", "f4")], "m8[s]", "M8[s]"],
)
def test_what_are_no_numbers_is_refused_in_words(dtype):
    """Objects are addresses; and each of the others means something that the other side would have to be told."""
    with pytest.raises((TypeError, ValueError), match=r"not of the format|cannot include dtype '[mM]'"):
        cm.Dataspace.from_buffer(np.zeros(2, dtype))


def test_several_arrays_travel_together(store):
    """Each has its own format and shape, wherever it stands, with bytes in between."""
    sent = [np.zeros((2, 2, 2, 2)), np.frombuffer(b"bytes", "B"), np.ones(3, "F"), np.array(7, "h")]
    data = [cm.Dataspace.from_buffer(each) for each in sent]
    came = store.all(data)
    assert [near_arrays(came[str(place)]) for place in range(4)] == [near_arrays(each) for each in sent]
    for each in (*data, *came.values()):
        each.close()


def test_an_array_where_a_descriptor_is_due_is_one(store):
    """As any dataspace is."""
    with cm.Dataspace.from_buffer(np.zeros(3)) as data:
        assert store.as_descriptor(data, [data, data]) == 72


def test_an_array_is_no_copy(store):
    """It is the memory itself, and keeps that when the dataspace is closed."""
    with cm.Dataspace.from_buffer(np.arange(1000)) as data, store.all([data])["0"] as came:
        seen = np.asarray(came)
    assert (seen.sum(), seen.flags.owndata, seen.flags.writeable) == (499500, False, False)
    with pytest.raises(cm.Closed):
        np.asarray(came)


def test_an_array_is_written_in_place(store):
    """create() with a shape gives one that can be written until it is sealed."""
    with cm.Dataspace.create((2, 3), "f") as data:
        writable = np.asarray(data)
        assert (writable.dtype, writable.shape, writable.any()) == (np.dtype("f4"), (2, 3), False)
        writable[:] = 7
        with pytest.raises(cm.KernelError, match=r"busy.*del array"):
            data.seal()
        del writable
        data.seal()
        assert store.describe(data) == ("<f4", (2, 3), [7.0] * 6, False)


@pytest.mark.parametrize("letter", LETTERS)
def test_every_letter_that_is_said_is_numpys(letter):
    """create() takes dtype.char."""
    with cm.Dataspace.create(3, letter) as data:
        assert (np.asarray(data).dtype, data.format) == (np.dtype(letter), letter)
        assert data.size == 3 * np.dtype(letter).itemsize


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((3, "O"), ValueError, "bool, integers, floats or complex numbers"),
        ((3, "<i4"), ValueError, "by one of the letters"),
        ((3, "float32"), ValueError, r"as dtype\.char of numpy's"),
        (((1, -1), "d"), ValueError, "each number of a shape"),
        (((1,) * 65, "d"), ValueError, "64 dimensions at most"),
        (((1.5,), "d"), TypeError, "a shape is a tuple of numbers"),
        (({1, 2}, "d"), TypeError, "a shape is a tuple of numbers"),
    ],
)
def test_an_array_that_cannot_be_is_refused_in_words(arguments, error, words):
    """Nothing is made."""
    with pytest.raises(error, match=words):
        cm.Dataspace.create(*arguments)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a class of Python's has no buffer before 3.12")
def test_a_dataspace_is_a_buffer():
    """Of its format and shape, where a memoryview has such."""
    with cm.Dataspace.from_buffer(np.arange(6.0).reshape(2, 3)) as data, memoryview(data) as view:
        assert (view.format, view.shape, view.readonly, view.tolist()[1]) == ("d", (2, 3), True, [3.0, 4.0, 5.0])
    with cm.Dataspace.from_buffer(np.zeros(2, "D")) as data, pytest.raises(BufferError, match=r"numpy\.asarray"):
        memoryview(data)


DATA = bytes(48)


@pytest.fixture
def capability(store):
    """Of the server."""
    return cm.capability(store)


@pytest.fixture
def near(capability):
    """A channel to it, made by hand."""
    with by_hand.knock(capability) as channel:
        yield channel


@pytest.mark.parametrize(
    "layout",
    [
        ArrayLayout("O", (6,)),
        ArrayLayout("\1", (6,)),
        ArrayLayout(">", (6,)),
        ArrayLayout("g", (3,)),
        ArrayLayout("d", ()),
        ArrayLayout("d", (7,)),
        ArrayLayout("d", (5,)),
        ArrayLayout("d", (0,)),
        ArrayLayout("d", (2**62, 4, 6)),
        ArrayLayout("B", (2**64 - 1, 2**64 - 1)),
        ArrayLayout("d", (3, 2**63, 2)),
    ],
    ids=str,
)
def test_an_array_that_is_not_in_the_memory_that_came_is_refused(near, capability, layout):
    """By hand: a format of objects, and shapes of more or less than there is, whatever is computed of them."""
    with cm.Dataspace.from_buffer(DATA) as data:
        assert said_to_be(near, capability, layout, data) is Code.ARGUMENT


@pytest.mark.parametrize(
    "layout", [ArrayLayout("O", (6,)), ArrayLayout("d", (7,)), ArrayLayout("d", (2**63, 2, 3))], ids=str
)
def test_a_server_that_says_so_of_its_result_is_refused(impostor, layout):
    """The caller is told whose result it is, and has nothing of it."""
    table, _ = pack_table([Entry(0, NO_BADGE, layout)])
    record = by_hand.reply(1, b"\x00", list(struct.iter_unpack("=H16s", table)), 1)

    def ask():
        with cm.timeout(PATIENCE), cm.Dataspace.from_buffer(DATA) as data:
            return impostor.capability.cast(Store).transposed(data)

    asking = by_hand.Concurrent(ask)
    with impostor.accept() as channel, cm.Dataspace.from_buffer(DATA) as data:
        call, descriptors = by_hand.answer(channel)
        by_hand.send(channel, record, [data.fileno()])
        with pytest.raises(cm.ArgumentError, match=r"Store\.transposed, result: an array came of the"):
            asking.outcome()
        assert call.entries == [Entry(0, NO_BADGE)]
        for number in descriptors:
            os.close(number)


def test_arrays_travel_in_parts_as_well(store):
    """As many as a record does not carry."""
    data = [cm.Dataspace.from_buffer(np.full((place % 3, 2), place, "i2")) for place in range(300)]
    came = store.all(data)
    for place, each in enumerate(data):
        assert near_arrays(came[str(place)]) == near_arrays(each)
    for each in (*data, *came.values()):
        each.close()


def test_an_empty_array_is_of_dimensions_that_can_be(near, capability):
    """Beside a 0 every other number would do, and numpy computes with them all the same."""
    with cm.Dataspace.from_buffer(b"") as data:
        assert said_to_be(near, capability, ArrayLayout("B", (0, 2**62, 2**62)), data) is Code.ARGUMENT


def said_to_be(near, capability, layout, data):
    """What a client gets that says so of a dataspace."""
    table, _ = pack_table([Entry(0, NO_BADGE, layout)])
    record = by_hand.call(
        capability,
        method=b"describe",
        payload=b"\x91\x00",
        entries=list(struct.iter_unpack("=H16s", table)),
        descriptors=1,
    )
    by_hand.send(near, record, [data.fileno()])
    return by_hand.failure(near)


shapes = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 8), max_size=DIMENSIONS_MAX).map(tuple)


@given(st.characters(max_codepoint=255) | st.sampled_from(LETTERS), shapes, st.integers(0, 5000))
@example("L", (0, 4, 1 << 58), 0)
def test_what_passes_is_never_more_than_there_is(letter, shape, size):
    """For any format and shape: numpy would read just what is there, and computes nothing that overflows."""
    layout = ArrayLayout(letter, shape)
    try:
        layout.check(size)
    except cm.ArgumentError:
        return
    assert letter in LETTERS
    assert math.prod(shape) * np.dtype(letter).itemsize == size
    np.empty(shape, letter)


@pytest.mark.parametrize(("letter", "dimensions"), list(itertools.product(LETTERS, range(4))))
def test_what_is_there_passes(letter, dimensions):
    """Of every format, with any number of dimensions."""
    shape = tuple(range(2, 2 + dimensions))
    ArrayLayout(letter, shape).check(math.prod(shape) * np.dtype(letter).itemsize)


def test_an_array_without_items_that_is_too_large_all_the_same():
    """numpy has none of that shape; whoever asks for one is told, and not who receives it."""
    with pytest.raises(ValueError, match="has no items, and yet too many"):
        cm.Dataspace.create((0, 4, 1 << 58), "L")
