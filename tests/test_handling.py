"""What an engine runs for those who serve: how calls wait for each other, and what closing waits for."""

from __future__ import annotations

import asyncio

import loops
from capmarshal._bridge_engine import handling
from capmarshal._bridge_engine.engine import Later
from capmarshal._bridge_engine.handling import Handling
from engines import PLENTY, awaited


def run(program):
    """In a loop of asyncio."""
    return loops.run("asyncio", program)


def test_who_waits_is_served_in_turn_and_what_is_too_much_is_lost(monkeypatch, caplog, forgotten_log):
    """One at a time: the second waits, for the third there is no room, and the first to end makes some."""
    monkeypatch.setattr(handling, "WAITING", 10)

    async def program():
        runs, answers, serving = Handling(1), [], []
        room = runs.room()

        def serve(body):
            serving.append((body, Later()))
            return serving[-1][1]

        for body in (b"first", b"second", b"third"):
            runs.start(room, serve, body, answers.append)
        assert [body for body, _ in serving] == [b"first"]
        serving[0][1].answer(b"1")
        assert [body for body, _ in serving] == [b"first", b"second"]
        runs.start(room, serve, b"fourth", answers.append)
        serving[1][1].answer(b"2")
        serving[2][1].answer(b"4")
        assert answers == [b"1", b"2", b"4"]
        await runs.finish(PLENTY)

    run(program)
    assert "are lost: too many wait" in caplog.text


def test_each_subject_has_places_and_room_of_its_own(monkeypatch, caplog, forgotten_log):
    """Whoever asks at one so much that most of it is lost, which is said once, takes nothing from the next one."""
    monkeypatch.setattr(handling, "WAITING", 1000)

    async def program():
        runs, serving, answers = Handling(2), [], []
        one, other = runs.room(), runs.room()

        def serve(_body):
            serving.append(Later())
            return serving[-1]

        for _ in range(2000):
            runs.start(one, serve, b"x", answers.append)
        runs.start(other, bytes, b"at once", answers.append)
        for _ in range(202):
            runs.start(other, serve, b"y", answers.append)
        assert (len(one.waiting), len(other.waiting), answers) == (500, 200, [b"at once"])
        # More are served with each that is answered.
        for later in serving:
            later.answer(b"")
        await runs.finish(PLENTY)
        assert len(answers) == 1 + 502 + 202

    run(program)
    assert caplog.text.count("are lost: too many wait") == 1


def test_answers_that_wait_to_be_sent_are_bounded(monkeypatch, caplog):
    """As many bytes of one subject as the others leave free: then no more calls begin there, and all are answered."""
    monkeypatch.setattr(handling, "UNSENT", 100)

    async def program():
        runs, begun, sent, go = Handling(100), [], [], asyncio.Event()
        one, other, third = runs.room(), runs.room(), runs.room()

        def serve(body):
            begun.append(body)
            return body

        async def answer(body):
            await go.wait()
            sent.append(body)

        for number in range(20):
            runs.start(one, serve, b"one %06d" % number, answer)
        for _ in range(5):
            runs.start(other, serve, b"an other..", answer)
        await asyncio.sleep(0)
        assert begun == [b"one %06d" % number for number in range(5)] + [b"an other.."] * 3
        # What ran before is answered, however much that is; and who has nothing to be sent is held up by no other.
        runs.start(third, bytes, bytes(1000), answer)
        runs.start(runs.room(), serve, b"a fourth", answer)
        assert begun[-1] == b"a fourth"
        go.set()
        await runs.finish(PLENTY)
        assert [body for body in sent if body.startswith(b"one")] == [b"one %06d" % number for number in range(20)]
        assert sent.count(b"an other..") == 5
        assert one.unsent_bytes == other.unsent_bytes == third.unsent_bytes == 0

    run(program)
    assert not caplog.records


def test_very_many_that_wait_and_are_answered_as_they_begin(caplog):
    """One after the other, and not each within the one before."""

    async def program():
        runs, answers, first = Handling(1), [], Later()
        room = runs.room()

        def serve(body):
            made = Later()
            made.answer(body)
            return made

        runs.start(room, lambda _body: first, b"", answers.append)
        bodies = [b"%d" % number for number in range(2000)]
        for body in bodies:
            runs.start(room, serve, body, answers.append)
        assert answers == []
        first.answer(b"first")
        assert answers == [b"first", *bodies]
        await runs.finish(PLENTY)

    run(program)
    assert not caplog.records


def test_what_is_answered_at_once_needs_no_place():
    """Nor a turn of the event loop."""

    async def program():
        runs, answers, later = Handling(1), [], Later()
        room = runs.room()
        for body in (b"a", b"b"):
            runs.start(room, bytes, body, answers.append)
        assert answers == [b"a", b"b"]
        later.answer(b"c")
        later.answer(b"not this")
        runs.start(room, lambda _body: later, b"", answers.append)
        runs.start(room, bytes, b"d", answers.append)
        assert answers == [b"a", b"b", b"c", b"d"]
        await runs.finish(PLENTY)

    run(program)


def test_finishing_waits_for_all_kinds_and_for_those_that_wait():
    """A coroutine, a Later, one that waits for a place, and an answer that waits to be sent."""

    async def program():
        runs, answers, go, later = Handling(3), [], asyncio.Event(), Later()
        room = runs.room()

        async def serve(body):
            await go.wait()
            return body

        async def answer(body):
            await go.wait()
            answers.append(body)

        runs.start(room, serve, b"coroutine", answers.append)
        runs.start(room, lambda _body: later, b"", answers.append)
        runs.start(room, bytes, b"sent later", answer)
        runs.start(room, bytes, b"waits", answers.append)
        finishing = asyncio.create_task(runs.finish(PLENTY))
        await asyncio.sleep(0)
        go.set()
        await awaited(lambda: len(answers) == 3)
        assert not finishing.done()
        later.answer(b"later")
        await finishing
        assert sorted(answers) == [b"coroutine", b"later", b"sent later", b"waits"]

    run(program)


def test_what_is_late_is_dropped():
    """It has no engine any more."""

    async def program():
        runs, answers, later, ended = Handling(2), [], Later(), []
        room = runs.room()

        async def serve(_body):
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        runs.start(room, serve, b"", answers.append)
        runs.start(room, lambda _body: later, b"", answers.append)
        runs.start(room, bytes, b"waits", answers.append)
        await asyncio.sleep(0)
        await runs.finish(0)
        later.answer(b"late")
        assert (answers, ended) == ([], ["cancelled"])

    run(program)
