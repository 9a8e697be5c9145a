"""The seam to what carries a bridge's bodies: each verb means the same, whichever engine is there."""

import asyncio
import logging

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import engines
from capmarshal._bridge_engine.engine import (
    LARGEST,
    EngineClosed,
    NobodyThere,
    NoConnection,
    NotSent,
    TooLong,
    Unanswered,
    check,
)
from engines import PLENTY, SHORT


@pytest.fixture(params=engines.KINDS)
def world(request, tmp_path):
    """Engines of each kind."""
    kind = engines.KINDS[request.param](tmp_path)
    try:
        yield engines.World(kind)
    finally:
        kind.close()


async def echo(body):
    """Serves what it is sent."""
    return body


class Held:
    """Serves when it is told to; what it was asked is in ``asked``."""

    def __init__(self):
        self.asked, self.go, self.cancelled = [], asyncio.Event(), 0

    async def __call__(self, body):
        self.asked.append(body)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b"answer to " + body

    async def until(self, count=1):
        """Returns when it was asked so often."""
        await engines.awaited(lambda: len(self.asked) >= count)


def test_a_call_is_answered_by_who_serves_its_subject(world):
    """From another engine, and from the same; each call gets its own answer."""

    async def program():
        one, other = await world.engine(), await world.engine()
        await one.serve("cm.host.a", echo)
        bodies = [b"", b"x", bytes(range(256)), b"\r\nPUB cm.host.a 0\r\n", *(b"%d" % number for number in range(50))]
        for engine in (one, other):
            calls = [engine.call("cm.host.a", body, within=PLENTY) for body in bodies]
            assert await asyncio.gather(*calls) == bodies

    world.run(program)


def test_the_largest_body_goes_both_ways_and_a_longer_one_is_not_sent(world):
    """1 MiB as it is said, and a byte more is refused before anything is done."""

    async def program():
        one, other = await world.engine(), await world.engine()
        held = Held()
        held.go.set()
        await one.serve("cm.host.a", echo)
        await one.serve("cm.host.held", held)
        body = bytes(range(256)) * (LARGEST // 256)
        assert await other.call("cm.host.a", body, within=PLENTY) == body
        for send in (other.call("cm.host.held", body + b"x", within=PLENTY), other.send("cm.host.held", body + b"x")):
            with pytest.raises(TooLong, match="a body has 1,048,577 bytes, and may have 1,048,576"):
                await send
        await other.call("cm.host.held", b"last", within=PLENTY)
        assert held.asked == [b"last"]

    world.run(program)


def test_that_nobody_is_there_is_said_at_once(world):
    """Where nobody has served, and where nobody does any more."""

    async def program():
        one, other = await world.engine(), await world.engine()
        with pytest.raises(NobodyThere):
            await one.call("cm.host.a", b"x", within=PLENTY)
        stop = await other.serve("cm.host.a", echo)
        assert await one.call("cm.host.a", b"x", within=PLENTY) == b"x"
        await stop()
        await stop()
        with pytest.raises(NobodyThere):
            await one.call("cm.host.a", b"x", within=PLENTY)

    world.run(program)


def test_a_call_waits_no_longer_than_it_may(world):
    """Then it is said that it may have been served, as it was; and the late answer is nobody's."""

    async def program():
        one, other = await world.engine(), await world.engine()
        held = Held()
        await one.serve("cm.host.a", held)
        with pytest.raises(Unanswered, match=r"no answer within 0\.1 s") as raised:
            await other.call("cm.host.a", b"first", within=SHORT)
        assert isinstance(raised.value, TimeoutError)
        await held.until(1)
        call = asyncio.create_task(other.call("cm.host.a", b"second", within=PLENTY))
        await held.until(2)
        held.go.set()
        assert await call == b"answer to second"

    world.run(program)


@pytest.mark.parametrize("within", [0, -1])
def test_a_call_without_time_is_not_sent(world, within):
    """And says that."""

    async def program():
        one = await world.engine()
        held = Held()
        await one.serve("cm.host.a", held)
        held.go.set()
        with pytest.raises(NotSent, match="no time is left to send it in"):
            await one.call("cm.host.a", b"never", within=within)
        await one.call("cm.host.a", b"last", within=PLENTY)
        assert held.asked == [b"last"]

    world.run(program)


@pytest.mark.parametrize("how", ["asyncio", "anyio"])
def test_a_call_that_is_cancelled_goes_on_at_the_server(world, how):
    """Who serves is told nothing; the answer is dropped, and the next call gets its own."""

    async def program():
        one, other = await world.engine(), await world.engine()
        held = Held()
        await one.serve("cm.host.a", held)
        if how == "asyncio":
            call = asyncio.create_task(other.call("cm.host.a", b"first", within=PLENTY))
            await held.until()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(lambda: other.call("cm.host.a", b"first", within=PLENTY))
                    await held.until()
                    scope.cancel()
        assert held.cancelled == 0
        held.go.set()
        assert await other.call("cm.host.a", b"second", within=PLENTY) == b"answer to second"

    world.run(program)


def test_calls_run_beside_each_other_and_only_so_many_at_a_time(world):
    """What is one too many waits until another one has ended."""

    async def program():
        one, other = await world.engine(concurrency=3), await world.engine()
        held = Held()
        await one.serve("cm.host.a", held)
        calls = [asyncio.create_task(other.call("cm.host.a", b"%d" % number, within=PLENTY)) for number in range(5)]
        await held.until(3)
        with pytest.raises(Unanswered):
            await other.call("cm.host.a", b"late", within=SHORT)
        assert len(held.asked) == 3
        # Those of another subject do not wait for them.
        await one.serve("cm.host.b", bytes)
        assert await other.call("cm.host.b", b"beside", within=PLENTY) == b"beside"
        held.go.set()
        assert sorted(await asyncio.gather(*calls)) == [b"answer to %d" % number for number in range(5)]

    world.run(program)


def test_a_handler_that_raises_is_logged_and_answers_nobody(world, caplog, forgotten_log):
    """And serves the next call."""

    async def fussy(body):
        if body == b"wrong":
            raise KeyError("spam")
        return body

    async def program():
        one = await world.engine()
        await one.serve("cm.host.a", fussy)
        with pytest.raises(Unanswered):
            await one.call("cm.host.a", b"wrong", within=SHORT)
        assert await one.call("cm.host.a", b"right", within=PLENTY) == b"right"

    with caplog.at_level(logging.ERROR, "capmarshal"):
        world.run(program)
    assert "is not answered, since its handler raised" in caplog.text


def test_an_answer_that_is_not_accepted_is_dropped_and_the_next_one_waited_for(world):
    """Of several who answer, one is whom the caller means."""

    async def program():
        one, other = await world.engine(), await world.engine()
        later = Held()

        async def forge(body):
            return b"forged"

        await one.serve("cm.host.a", forge)
        await one.serve("cm.host.a", later)
        refused = []

        def accept(body):
            if body == b"forged":
                refused.append(body)
                later.go.set()
                return False
            return True

        assert await other.call("cm.host.a", b"x", within=PLENTY, accept=accept) == b"answer to x"
        assert refused == [b"forged"]

    world.run(program)


def test_what_raises_instead_of_accepting_has_accepted_nothing(world, caplog, forgotten_log):
    """It is logged, and the call ends as without an answer."""

    async def program():
        one = await world.engine()
        await one.serve("cm.host.a", echo)
        with pytest.raises(Unanswered):
            await one.call("cm.host.a", b"x", within=SHORT, accept=lambda body: 1 // 0)

    with caplog.at_level(logging.ERROR, "capmarshal"):
        world.run(program)
    assert "an answer is dropped, since what was to accept it raised" in caplog.text


def test_what_is_sent_comes_to_all_who_watch(world):
    """In order, where nothing is lost; to nobody once that is stopped; and where nobody watches, nothing is said."""

    async def program():
        one, other = await world.engine(), await world.engine()
        heard = [], []

        def watcher(number):
            async def watch(body):
                heard[number].append(body)
                if body == b"0":
                    raise KeyError("is logged, and the next one comes")

            return watch

        await other.send("cm.host.nobody", b"x")
        stops = [await engine.watch("cm.host.a", watcher(number)) for number, engine in enumerate((one, other))]
        bodies = [b"%d" % number for number in range(20)]
        for body in bodies:
            await other.send("cm.host.a", body)
        await engines.awaited(lambda: heard == (bodies, bodies))
        await stops[0]()
        await other.send("cm.host.a", b"last")
        await engines.awaited(lambda: len(heard[1]) == 21)
        assert heard[0] == bodies

    logging.getLogger("capmarshal").setLevel(logging.CRITICAL)
    try:
        world.run(program)
    finally:
        logging.getLogger("capmarshal").setLevel(logging.NOTSET)


def test_what_is_asked_for_without_a_connection_is_never_sent(world):
    """It is refused at once, and when the node is there again, nothing of it comes; but what is served is so again."""

    async def program():
        one, other = await world.engine(), await world.engine()
        held = Held()
        held.go.set()
        await one.serve("cm.host.a", held)
        await other.call("cm.host.a", b"before", within=PLENTY)
        world.cut()
        await world.gone(one, other)
        for number in range(20):
            with pytest.raises(NoConnection):
                await other.call("cm.host.a", b"lost %d" % number, within=PLENTY)
            with pytest.raises(NoConnection):
                await other.send("cm.host.a", b"lost, too")
        # What begins now is so with the next connection.
        await one.serve("cm.host.b", echo)
        world.mend()
        await world.back(one, other)
        assert await engines.answered(other, "cm.host.a", b"after") == b"answer to after"
        assert await engines.answered(other, "cm.host.b", b"after") == b"after"
        assert set(held.asked) == {b"before", b"after"}

    world.run(program)


def test_a_call_in_progress_is_answered_by_the_next_connection(world):
    """The node goes while it is served, and comes back: the answer waits for that."""

    async def program():
        one, other = await world.engine(), await world.engine()
        held = Held()
        await one.serve("cm.host.a", held)
        call = asyncio.create_task(other.call("cm.host.a", b"x", within=PLENTY))
        await held.until()
        world.cut()
        await world.gone(one, other)
        world.mend()
        await world.back(one, other)
        held.go.set()
        assert await call == b"answer to x"
        assert held.asked == [b"x"]

    world.run(program)


def test_closing_answers_what_runs_and_takes_no_more(world):
    """Within the time that it has."""

    async def program():
        one, other = await world.engine(), await world.engine()
        held = Held()
        await one.serve("cm.host.a", held)
        call = asyncio.create_task(other.call("cm.host.a", b"x", within=PLENTY))
        await held.until()
        closing = asyncio.create_task(one.close(within=PLENTY))

        async def refused():
            try:
                await other.call("cm.host.a", b"y", within=SHORT)
            except NobodyThere:
                return True
            except Unanswered:
                return False

        while not await refused():
            pass
        held.go.set()
        assert await call == b"answer to x"
        await closing
        assert b"y" not in held.asked[1:] or held.cancelled == 0

    world.run(program)


def test_closing_cancels_what_takes_longer(world):
    """And returns."""

    async def program():
        one, other = await world.engine(), await world.engine()
        held = Held()
        await one.serve("cm.host.a", held)
        call = asyncio.create_task(other.call("cm.host.a", b"x", within=PLENTY))
        await held.until()
        await one.close(within=SHORT)
        assert held.cancelled == 1
        call.cancel()

    world.run(program)


def test_who_closes_it_a_second_time_waits_until_it_is_closed(world):
    """A handler that runs has its time from the first."""

    async def program():
        one, other = await world.engine(), await world.engine()
        held = Held()
        await one.serve("cm.host.a", held)
        call = asyncio.create_task(other.call("cm.host.a", b"x", within=PLENTY))
        await held.until()
        closing = [asyncio.create_task(one.close(within=PLENTY)) for _ in range(2)]
        await asyncio.wait(closing, timeout=SHORT)
        assert [each.done() for each in closing] == [False, False]
        held.go.set()
        await asyncio.gather(*closing)
        assert await call == b"answer to x"

    world.run(program)


def test_after_closing_nothing_is_sent_and_who_waits_is_told(world):
    """That the call may have been served; closing twice is closing once."""

    async def program():
        one, other = await world.engine(), await world.engine()
        held = Held()
        await one.serve("cm.host.a", held)
        call = asyncio.create_task(other.call("cm.host.a", b"x", within=PLENTY))
        await held.until()
        await other.close()
        await other.close()
        with pytest.raises(Unanswered, match="the engine was closed before an answer had come"):
            await call
        for verb in (
            other.call("cm.host.a", b"y", within=PLENTY),
            other.send("cm.host.a", b"y"),
            other.serve("cm.host.a", echo),
            other.watch("cm.host.a", echo),
        ):
            with pytest.raises(EngineClosed, match="the engine was closed"):
                await verb
        assert held.asked == [b"x"]

    world.run(program)


@pytest.mark.parametrize(
    "subject", ["", ".", "a.", ".a", "a..b", "a b", "a\r\nb", "*", "cm.>", "a.*", "\u00e9", "x" * 201]
)
def test_what_is_no_subject_is_refused(subject):
    """Wildcards above all: who serves one place hears of no other."""
    with pytest.raises(ValueError, match="a subject is of letters, digits, - and _"):
        check(subject)


@pytest.mark.parametrize("verb", ["serve", "call", "watch", "send"])
def test_each_verb_looks_at_its_subject(world, verb):
    """Before anything is sent."""

    async def program():
        engine = await world.engine()
        arguments = {"serve": (echo,), "watch": (echo,), "send": (b"",), "call": (b"",)}[verb]
        options = {"within": PLENTY} if verb == "call" else {}
        with pytest.raises(ValueError, match="a subject is of letters"):
            await getattr(engine, verb)("cm.>", *arguments, **options)

    world.run(program)


@given(st.text())
def test_any_text_is_a_subject_or_refused(text):
    """What is one has nothing in it that ends a line, or means several."""
    try:
        check(text)
    except ValueError:
        return
    assert not set(text) & set(" \t\r\n*>")
