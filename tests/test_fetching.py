"""Fetching what another side of a bridge has lent: whatever becomes of the asks, it is there whole, or not at all."""

import asyncio
import contextlib
import functools
import gc
import itertools
import struct
import weakref

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import capmarshal as cm
import loops
from capmarshal._bridge import fetching
from capmarshal._bridge.fetching import Window, fetch
from capmarshal._bridge.lending import Lender
from capmarshal._bridge_engine.engine import EngineClosed, NoConnection, TooLong, Unanswered
from engine_in_process import Network
from engines import awaited

SUBJECT = "cm.host.a"


def run(program, *arguments):
    """In a loop of asyncio."""
    return loops.run("asyncio", program, *arguments)


def pattern(size):
    """Bytes whose period is no power of two: a chunk in another one's place is seen."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Asks are repeated at once."""
    monkeypatch.setattr(fetching, "_SOON", 0)


class Lent:
    """Is asked for its chunks, and answers when a test says so; what is asked for and not answered is in ``asked``."""

    def __init__(self, data, at_once=False):
        self.data, self.at_once = data, at_once
        self.asked, self.most, self.log = [], 0, []

    async def ask(self, offset, size):
        self.log.append((offset, size))
        if self.at_once:
            await asyncio.sleep(0)
            return self.data[offset : offset + size]
        answer = asyncio.get_running_loop().create_future()
        entry = (offset, size, answer)
        self.asked.append(entry)
        self.most = max(self.most, len(self.asked))
        try:
            return await answer
        finally:
            if entry in self.asked:
                self.asked.remove(entry)

    def answer(self, place=0, error=None):
        """The ask at that place, of those that wait."""
        offset, size, answer = self.asked.pop(place)
        if error is None:
            answer.set_result(self.data[offset : offset + size])
        else:
            answer.set_exception(error)


async def pause():
    """Until all that can happen now has happened."""
    for _ in range(10):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def started(ask, size, into, **options):
    """A fetch that has begun; cancelled with the block."""
    task = asyncio.create_task(fetch(ask, size, into, **options))
    await pause()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 100, 101])
def test_it_is_fetched_whole(size):
    """Into a buffer and into a dataspace, by as many asks as there are chunks, each once."""

    async def program():
        lent, into = Lent(pattern(size), at_once=True), bytearray(size)
        await fetch(lent.ask, size, into, chunk=10)
        assert into == lent.data
        assert [size for _, size in lent.log] == [10] * (size // 10) + [size % 10] * (size % 10 > 0)
        with cm.Dataspace.create(size) as dataspace:
            await fetch(lent.ask, size, dataspace, chunk=10, window=Window(3))
            dataspace.seal()
            assert dataspace.view() == lent.data

    run(program)


@given(
    size=st.integers(0, 300),
    chunk=st.integers(1, 320),
    window=st.integers(1, 12),
    places=st.lists(st.integers(0, 11), max_size=40),
)
def test_no_more_asks_are_in_flight_than_the_window_and_answers_come_in_any_order(size, chunk, window, places):
    """By that a receiver is not sent more than it has asked for."""

    async def program():
        lent, into = Lent(pattern(size)), bytearray(size)
        chunks = -(-size // chunk)
        async with started(lent.ask, size, into, window=Window(window), chunk=chunk) as task:
            for place in itertools.chain(places, itertools.repeat(0)):
                if not lent.asked:
                    break
                assert len(lent.asked) <= window
                lent.answer(place % len(lent.asked))
                await pause()
            await task
        assert into == lent.data
        assert len(lent.log) == len(set(lent.log)) == chunks
        assert lent.most == min(window, chunks)

    run(program)


@given(
    size=st.integers(1, 120),
    chunk=st.integers(1, 40),
    window=st.integers(1, 5),
    deeds=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["arrive", "again", "lose"])), max_size=15),
)
def test_whatever_the_engine_does_it_is_fetched_whole(size, chunk, window, deeds):
    """Asks and answers that are lost, kept back, repeated and overtaken; and no chunk stands in another one's place."""

    async def program():
        network = Network()
        exporter, importer = network.engine(), network.engine()
        lender = Lender()
        number = lender.lend(pattern(size))

        async def serve(body):
            return lender.chunk(*struct.unpack("<QQQ", body))

        async def ask(offset, size):
            # So short that what was lost is asked for again while the test goes on.
            return await importer.call(SUBJECT, struct.pack("<QQQ", number, offset, size), within=0.005)

        await exporter.serve(SUBJECT, serve)
        network.holding = True
        into = bytearray(size)
        async with started(ask, size, into, window=Window(window), chunk=chunk) as task:
            for place, deed in deeds:
                if network.held and deed == "lose":
                    network.lose(place % len(network.held))
                elif network.held:
                    network.arrive(place % len(network.held), again=deed == "again")
                await pause()
            network.release()
            await task
        assert into == pattern(size)
        for engine in (importer, exporter):
            await engine.close(within=0)

    run(program)


@pytest.mark.parametrize("error", [Unanswered("no answer"), NoConnection("no connection")])
def test_an_ask_that_was_not_answered_is_repeated(error):
    """The same one; and what was answered is not asked for again."""

    async def program():
        lent, into = Lent(pattern(30)), bytearray(30)
        async with started(lent.ask, 30, into, window=Window(3), chunk=10) as task:
            lent.answer(1, error)
            for _ in range(3):
                await awaited(lambda: lent.asked)
                lent.answer()
            await task
        assert into == lent.data
        assert lent.log == [(0, 10), (10, 10), (20, 10), (10, 10)]

    run(program)


def test_pauses_between_asks_grow(monkeypatch):
    """From the shortest to the longest; of each ask by itself."""
    pauses = []
    monkeypatch.setattr(fetching, "_SOON", 1)
    monkeypatch.setattr(fetching, "_LATER", 5)

    class Asyncio:
        def __getattr__(self, name):
            return getattr(asyncio, name)

        async def sleep(self, seconds):
            pauses.append(seconds)
            await asyncio.sleep(0)

    monkeypatch.setattr(fetching, "asyncio", Asyncio())

    async def program():
        failures = iter([NoConnection("no connection")] * 5)

        async def ask(_offset, size):
            for error in failures:
                raise error
            return bytes(size)

        await fetch(ask, 20, bytearray(20), window=Window(1), chunk=10)

    run(program)
    assert pauses == [1, 2, 4, 5, 5]


def test_where_asks_stay_unanswered_fewer_are_in_flight_and_later_more_again():
    """On a slow line as many at once would come late, each time anew."""

    async def program():
        size = 1000
        lent, into = Lent(pattern(size)), bytearray(size)
        async with started(lent.ask, size, into, window=Window(8), chunk=10) as task:
            assert len(lent.asked) == 8
            for _ in range(8):
                lent.answer(0, Unanswered("no answer"))
            await awaited(lambda: lent.asked)
            await pause()
            assert len(lent.asked) == 1
            most = []
            while lent.asked:
                lent.answer()
                await awaited(lambda: lent.asked or task.done())
                await pause()
                most.append(len(lent.asked))
            await task
        assert max(most) == 8
        # One more when as many were answered as are in flight: it takes 1 + 2 + ... + 7 answers.
        assert most.index(8) == 27
        assert into == lent.data

    run(program)


def test_one_lost_ask_of_many_does_not_stop_the_others():
    """It halves how many are in flight, and no more."""

    async def program():
        lent, into = Lent(pattern(1000)), bytearray(1000)
        async with started(lent.ask, 1000, into, window=Window(8), chunk=10) as task:
            lent.answer(0, Unanswered("no answer"))
            await pause()
            for _ in range(3):
                lent.answer()
                await pause()
            assert len(lent.asked) == 4
            while lent.asked:
                lent.answer()
                await pause()
            await task
        assert into == lent.data

    run(program)


@pytest.mark.parametrize("error", [Unanswered("no answer"), NoConnection("no connection")])
def test_asks_are_repeated_until_it_gives_up(error):
    """Whoever fetches says so, as of a link that has ended; then the ask's own error tells."""

    async def program():
        left = iter([False, False, True])
        asked = []

        async def ask(offset, _size):
            asked.append(offset)
            raise error

        with pytest.raises(type(error)) as raised:
            await fetch(ask, 10, bytearray(10), give_up=lambda: next(left))
        assert raised.value is error
        assert asked == [0, 0, 0]

    run(program)


@pytest.mark.parametrize("error", [EngineClosed("the engine was closed"), TooLong("too long"), RuntimeError("refused")])
def test_what_would_fail_each_time_is_not_repeated(error):
    """It is raised as it is, and ends what is in flight."""

    async def program():
        lent, into = Lent(pattern(100)), bytearray(100)
        async with started(lent.ask, 100, into, window=Window(4), chunk=10) as task:
            lent.answer(2, error)
            with pytest.raises(type(error)) as raised:
                await task
            assert raised.value is error
            assert not lent.asked
            assert len(lent.log) == 4
        assert into == bytes(100)

    run(program)


@pytest.mark.parametrize("came", [b"", b"short", b"eleven bytes"])
def test_an_answer_of_another_length_is_an_error(came):
    """It is written nowhere."""

    async def program():
        async def ask(_offset, _size):
            return came

        into = bytearray(30)
        with pytest.raises(cm.ProtocolError, match=f"10 bytes were asked for, of what is lent, and {len(came)} came"):
            await fetch(ask, 30, into, chunk=10)
        assert into == bytes(30)

    run(program)


def test_an_ask_that_is_cancelled_by_somebody_else_is_no_answer():
    """Asyncio says nothing of such a task: what is missing is not taken for there."""

    async def program():
        async def ask(offset, size):
            if offset == 10:
                raise asyncio.CancelledError
            return bytes(size)

        with pytest.raises(Unanswered, match="an ask for a chunk was cancelled, and not by whoever fetches"):
            await fetch(ask, 30, bytearray(30), chunk=10, window=Window(1))

    run(program)


@pytest.mark.parametrize("how", ["task", "anyio", "timeout", "error"])
def test_nothing_is_written_and_no_ask_waits_when_it_has_ended(how):
    """However it ends: cancelled, by a deadline of either kind, or by another ask's error."""

    async def program():
        lent, into = Lent(pattern(100)), bytearray(100)
        futures = []
        if how == "task":
            async with started(lent.ask, 100, into, chunk=10, window=Window(4)) as task:
                lent.answer()
                await pause()
                futures = [answer for _, _, answer in lent.asked]
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        elif how == "anyio":
            with anyio.move_on_after(0.01) as scope:
                await fetch(lent.ask, 100, into, chunk=10, window=Window(4))
            assert scope.cancelled_caught
        elif how == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await fetch(lent.ask, 100, into, chunk=10, window=Window(4))
        else:
            async with started(lent.ask, 100, into, chunk=10, window=Window(4)) as task:
                futures = [answer for _, _, answer in lent.asked[1:]]
                lent.answer(0, RuntimeError("refused"))
                with pytest.raises(RuntimeError):
                    await task
        assert not lent.asked
        assert all(future.cancelled() for future in futures)
        before = bytes(into)
        # It is let go of, too.
        into.append(0)
        await pause()
        assert into == before + b"\0"
        assert len(asyncio.all_tasks()) == 1

    run(program)


def test_an_ask_that_does_not_heed_being_cancelled_asks_for_nothing_more():
    """What ends the fetch waits for it, and for that one only."""

    async def program():
        asked, go = [], asyncio.Event()

        async def ask(offset, size):
            asked.append(offset)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await go.wait()
                return bytes(size)

        task = asyncio.create_task(fetch(ask, 1000, bytearray(1000), chunk=10, window=Window(2)))
        await pause()
        task.cancel()
        await pause()
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asked == [0, 10]

    run(program)


class _Mine:
    """What whoever fetches has."""


@pytest.mark.parametrize("how", ["cancelled", "cancelled twice", "by an error"])
def test_who_fetches_is_not_in_a_circle_with_how_it_ends(how):
    """An error has the frames that it went through, with all that they have; where no collector comes, too."""

    async def program():
        async def ask(_offset, _size):
            if how == "by an error":
                raise TooLong
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await pause()

        async def fetches(mine):
            await fetch(ask, 10, bytearray(10))
            return mine

        mine = _Mine()
        kept, task = weakref.ref(mine), asyncio.create_task(fetches(mine))
        del mine
        await pause()
        assert kept() is not None
        for _ in range(2 if how == "cancelled twice" else 1):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
        assert task.cancelled() is (how != "by an error")
        if how == "by an error":
            assert isinstance(task.exception(), TooLong)
        del task
        assert kept() is None

    gc.disable()
    try:
        run(program)
    finally:
        gc.enable()


def test_cancelled_between_two_asks_it_ends_at_once():
    """While it pauses, an hour say."""

    async def program():
        failed = asyncio.Event()

        async def ask(_offset, _size):
            failed.set()
            raise NoConnection("no connection")

        fetching._SOON = 3600
        task = asyncio.create_task(fetch(ask, 10, bytearray(10)))
        await failed.wait()
        await pause()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(program)


def test_a_dataspace_that_takes_nothing_any_more_is_an_error():
    """A sealed one, and a closed one; what is in flight ends."""

    async def program():
        lent = Lent(pattern(100), at_once=True)
        with cm.Dataspace.from_buffer(bytes(100)) as sealed:
            with pytest.raises(cm.KernelError, match="it is sealed, for ever"):
                await fetch(lent.ask, 100, sealed, chunk=10)
        with pytest.raises(cm.Closed):
            await fetch(lent.ask, 100, sealed, chunk=10)

    run(program)


@pytest.mark.parametrize(
    ("size", "into", "options", "error"),
    [
        (11, bytearray(10), {}, ValueError),
        (-1, bytearray(10), {}, ValueError),
        (10, bytearray(10), {"chunk": 0}, ValueError),
        (10, bytes(10), {}, TypeError),
        (10, "a text", {}, TypeError),
        (10, memoryview(bytearray(20))[::2], {}, TypeError),
    ],
)
def test_what_can_t_be_fetched_is_not_begun(size, into, options, error):
    """Too little room, a buffer that can't be written, and windows of nothing."""

    async def program():
        lent = Lent(pattern(20), at_once=True)
        with pytest.raises(error):
            await fetch(lent.ask, size, into, **options)
        assert not lent.log

    run(program)


def test_a_dataspace_that_is_too_small_is_not_begun_either():
    """It says both numbers."""

    async def program():
        with cm.Dataspace.create(10) as small:
            with pytest.raises(ValueError, match="11 bytes can't be fetched into 10"):
                await fetch(Lent(b"").ask, 11, small)

    run(program)


def test_any_buffer_is_written_as_its_bytes():
    """Of any shape; one that is larger keeps its end."""

    async def program():
        lent = Lent(pattern(16), at_once=True)
        data = bytearray(b"x" * 24)
        with memoryview(data) as view, view.cast("d") as items:
            await fetch(lent.ask, 16, items, chunk=5)
        assert data == lent.data + b"x" * 8

    run(program)


def test_what_is_fetched_at_a_time_shares_a_window():
    """In turns: what is small is not kept waiting by what is large."""

    async def program():
        large, small = Lent(pattern(1000)), Lent(pattern(20))
        window, asked = Window(2), []

        async def ask(lent, offset, size):
            asked.append(lent)
            assert len(large.asked) + len(small.asked) < 2
            return await lent.ask(offset, size)

        into, other = bytearray(1000), bytearray(20)
        async with (
            started(functools.partial(ask, large), 1000, into, window=window, chunk=10) as one,
            started(functools.partial(ask, small), 20, other, window=window, chunk=10) as two,
        ):
            while not one.done():
                (small if small.asked else large).answer()
                await pause()
            await two
        assert (into, other) == (large.data, small.data)
        # Behind those that were in flight, and before most that are not.
        assert small not in asked[:2]
        assert asked[2:7].count(small) == 2

    run(program)


def test_a_window_of_nothing_is_none():
    """It would let nobody ask."""
    with pytest.raises(ValueError, match="a window is of one ask at least, not of 0"):
        Window(0)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 9))
def test_places_are_never_more_than_the_most_nor_less_than_one(answered, most):
    """As many can be had at a time as are open, whatever happened; and in the end, all of them."""

    async def program():
        places = Window(most)

        async def use(narrow):
            async with places:
                if narrow:
                    places.narrow()
                else:
                    places.widen()

        for well in answered:
            await use(narrow=not well)
            assert 1 <= places._open <= most
        for _ in range(most * most):
            await use(narrow=False)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(most):
                await stack.enter_async_context(places)
            assert places._free.locked()

    run(program)
