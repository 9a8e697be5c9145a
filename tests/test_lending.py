"""What one side of a bridge's link lends to the other: asked for by its number, until it is ended, and not changed."""

import array
import gc
import mmap
import os
import weakref
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import capmarshal as cm
from capmarshal._bridge.lending import LARGEST_CHUNK, ChunkRefused, Lender, NoSuchChunk, NotLent
from capmarshal._bridge_engine.engine import LARGEST
from capmarshal._bridge_link.sealing import Direction, Label, Seal
from capmarshal._bridge_link.tokens import Token


@pytest.fixture
def lender():
    """One, which has nothing lent afterwards."""
    made = Lender()
    yield made
    made.end_all()
    assert len(made) == 0


def dataspace_of(data):
    """A dataspace that is not sealed."""
    made = cm.Dataspace.create(len(data))
    made.write(data)
    return made


def descriptors():
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, cm.Dataspace.from_buffer, dataspace_of])
def test_each_chunk_of_what_is_lent_is_had(lender, kind):
    """Of bytes and of dataspaces, at any place; also when the dataspace that was lent is closed."""
    data = bytes(range(256)) * 16
    what = kind(data)
    number = lender.lend(what)
    if isinstance(what, cm.Dataspace):
        what.close()
    for offset, size in ((0, len(data)), (0, 1), (len(data) - 1, 1), (100, 1000)):
        chunk = lender.chunk(number, offset, size)
        assert type(chunk) is bytes
        assert chunk == data[offset : offset + size]


def test_an_array_is_lent_as_its_bytes(lender):
    """Whatever its items are; and one that does not lie in one piece is none that can be lent."""
    items = array.array("d", [1.5, -2.5, 3.0])
    assert lender.chunk(lender.lend(items), 0, 24) == items.tobytes()
    square = memoryview(bytes(16)).cast("B", (4, 4))
    assert lender.chunk(lender.lend(square), 0, 16) == bytes(16)
    with pytest.raises(TypeError):
        lender.lend(memoryview(bytes(16))[::2])
    with pytest.raises(TypeError):
        lender.lend("text")
    assert len(lender) == 2


@pytest.mark.parametrize("empty", [b"", bytearray(), array.array("d"), cm.Dataspace.from_buffer])
def test_what_is_empty_has_no_chunk(lender, empty):
    """It can be lent, and there is nothing to ask for."""
    what = empty(b"") if callable(empty) else empty
    number = lender.lend(what)
    with pytest.raises(NoSuchChunk, match="1 bytes were asked for at 0, of what has 0 bytes"):
        lender.chunk(number, 0, 1)
    if callable(empty):
        what.close()


@pytest.mark.parametrize(
    ("offset", "size"),
    [(-1, 1), (-10, 10), (0, 0), (0, -1), (10, 1), (0, 11), (9, 2), (1 << 64, 1), (0, LARGEST_CHUNK + 1)],
)
@pytest.mark.parametrize("kind", [bytes, cm.Dataspace.from_buffer])
def test_an_ask_for_what_is_not_there_is_refused(lender, kind, offset, size):
    """Before, behind and across the end, for nothing and for too much: that is an error, and no short answer."""
    what = kind(bytes(10))
    number = lender.lend(what)
    with pytest.raises(NoSuchChunk, match=r"asked for( at|$)"):
        lender.chunk(number, offset, size)
    if kind is not bytes:
        what.close()


@pytest.mark.parametrize("number", [0, 1, 2, -1, 1 << 64])
def test_an_ask_by_a_number_that_is_not_known_is_refused(lender, number):
    """One that never was, and one that has ended."""
    lender.end(lender.lend(b"gone"))
    with pytest.raises(NotLent, match=f"nothing is lent by the number {number}, or not any more"):
        lender.chunk(number, 0, 1)


def test_refusals_are_of_one_kind():
    """What whoever asked is told, and what is a fault of this side, are told apart by that."""
    assert issubclass(NotLent, (ChunkRefused, LookupError))
    assert issubclass(NoSuchChunk, (ChunkRefused, ValueError))


def test_the_largest_chunk_has_room_in_a_sealed_body():
    """With what is said besides of the call that it answers."""
    seal = Seal(Token.new("host"), Direction.TO_IMPORTER)
    assert len(seal.seal(Label(1, bytes(16), bytes(16)), bytes(64 + LARGEST_CHUNK))) == LARGEST


def test_a_number_is_used_once(lender):
    """A late ask gets nothing of what was lent since."""
    numbers = []
    for _ in range(100):
        numbers.append(lender.lend(b"x"))
        lender.end(numbers[-1])
    lender.end_all()
    numbers.append(lender.lend(b"x"))
    assert len(set(numbers)) == len(numbers)


def test_an_end_may_be_said_twice(lender):
    """And of what never was."""
    number = lender.lend(b"x")
    for _ in range(2):
        lender.end(number)
    lender.end(77)
    assert len(lender) == 0


@pytest.mark.parametrize("ends", [lambda lender, number: lender.end(number), lambda lender, _: lender.end_all()])
def test_what_has_ended_is_let_go(lender, ends):
    """The descriptor of a dataspace, at once; a buffer, which can be resized again; and what has that."""

    class Data(bytearray):
        pass

    data = Data(b"12345")
    gone = weakref.ref(data)
    numbers = [lender.lend(data)]
    with pytest.raises(BufferError):
        data.append(6)
    # Also where an error is kept, whose frames refer to it.
    with pytest.raises(NoSuchChunk) as refused:
        lender.chunk(numbers[0], 5, 1)
    ends(lender, numbers.pop())
    data.append(6)
    del refused
    del data
    gc.collect()
    assert gone() is None

    with cm.Dataspace.from_buffer(b"12345") as dataspace:
        before = descriptors()
        number = lender.lend(dataspace)
        assert descriptors() == before + 1
        ends(lender, number)
        assert descriptors() == before


def test_lending_what_is_closed_lends_nothing(lender):
    """It says what it is."""
    dataspace = cm.Dataspace.from_buffer(b"x")
    dataspace.close()
    with pytest.raises(cm.Closed):
        lender.lend(dataspace)
    assert len(lender) == 0


def test_what_can_be_changed_is_read_when_it_is_asked_for(lender):
    """A chunk is of the moment in which it was made; and what is lent can still be sealed."""
    with dataspace_of(b"before") as dataspace:
        number, data = lender.lend(dataspace), bytearray(b"before")
        other = lender.lend(data)
        chunks = [lender.chunk(number, 0, 3), lender.chunk(other, 0, 3)]
        dataspace.write(b"after!")
        data[:] = b"after!"
        dataspace.seal()
        assert chunks == [b"bef", b"bef"]
        assert [lender.chunk(number, 3, 3), lender.chunk(other, 3, 3)] == [b"er!", b"er!"]


def test_what_another_process_makes_shorter_kills_nobody(lender, fork):
    """One that is not sealed: who asks is told, and what is still there is had."""
    with dataspace_of(bytes(3 * mmap.PAGESIZE)) as dataspace:
        number = lender.lend(dataspace)
        fork(lambda: os.ftruncate(dataspace.fileno(), mmap.PAGESIZE)).result()
        assert lender.chunk(number, 0, mmap.PAGESIZE) == bytes(mmap.PAGESIZE)
        for offset in (1, 2 * mmap.PAGESIZE):
            with pytest.raises(NoSuchChunk, match="has become shorter since"):
                lender.chunk(number, offset, mmap.PAGESIZE)


@given(st.binary(max_size=200), st.integers(-5, 210), st.integers(-5, 210))
def test_any_ask_gets_what_it_asks_for_or_is_refused(data, offset, size):
    """Never fewer bytes, nor others."""
    lender = Lender()
    number = lender.lend(data)
    there = offset >= 0 and size >= 1 and offset + size <= len(data)
    try:
        chunk = lender.chunk(number, offset, size)
    except NoSuchChunk:
        assert not there
    else:
        assert there
        assert chunk == data[offset : offset + size]


class LenderMachine(RuleBasedStateMachine):
    """A lender against a dictionary."""

    def __init__(self):
        super().__init__()
        self.lender, self.model, self.ended = Lender(), {}, set()

    @rule(data=st.binary(min_size=1, max_size=20), as_dataspace=st.booleans())
    def lend(self, data, as_dataspace):
        if as_dataspace:
            with cm.Dataspace.from_buffer(data) as dataspace:
                number = self.lender.lend(dataspace)
        else:
            number = self.lender.lend(data)
        assert number not in self.model
        assert number not in self.ended
        self.model[number] = data

    @rule(number=st.integers(0, 12))
    def ask(self, number):
        if number in self.model:
            data = self.model[number]
            assert self.lender.chunk(number, 0, len(data)) == data
        else:
            with pytest.raises(NotLent):
                self.lender.chunk(number, 0, 1)

    @rule(number=st.integers(0, 12))
    def end(self, number):
        self.lender.end(number)
        if self.model.pop(number, None) is not None:
            self.ended.add(number)

    @rule()
    def end_all(self):
        self.lender.end_all()
        self.ended.update(self.model)
        self.model.clear()

    @invariant()
    def as_many(self):
        assert len(self.lender) == len(self.model)

    def teardown(self):
        self.lender.end_all()


TestLenderMachine = LenderMachine.TestCase
