"""Tasks that do one thing after the other: when each begins, and what becomes of one that is cancelled."""

from __future__ import annotations

import asyncio

import loops
from capmarshal._kernel.hands import Hands


class Job:
    """Waits until it is told to go on."""

    def __init__(self, done):
        self.done = done
        self.go = asyncio.Event()

    async def do(self):
        self.done.append("begun")
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.done.append("cancelled")
            raise
        self.done.append("done")

    def over(self):
        self.done.append("over")


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def in_loop(function, *arguments):
    """Calls a function where no task runs."""
    asyncio.get_running_loop().call_soon(function, *arguments)


def test_one_that_waits_for_work_begins_at_once_in_the_same_task():
    async def program():
        tasks, done = [], []
        hands = Hands(tasks.append, lambda: True)
        one, other = Job(done), Job(done)
        hands.begin(one)
        await settle()
        one.go.set()
        await settle()
        assert done == ["begun", "done", "over"]

        def begin():
            hands.begin(other)
            done.append("the next step")

        in_loop(begin)
        await asyncio.sleep(0)
        assert done[3:] == ["begun", "the next step"]
        other.go.set()
        await settle()
        assert len(tasks) == 1
        for task in hands.end_idle():
            await asyncio.wait([task])
        assert tasks[0].cancelled()

    loops.run("asyncio", program)


def test_one_that_was_cancelled_does_nothing_else():
    """Also where its job has not heeded that, or had not begun; each is over once."""

    async def program():
        tasks, done = [], []
        hands = Hands(tasks.append, lambda: True)

        class Heedless(Job):
            async def do(self):
                self.done.append("begun")
                try:
                    await self.go.wait()
                except asyncio.CancelledError:
                    self.done.append("goes on")

        for job, said in ((Job(done), "cancelled"), (Heedless(done), "goes on")):
            hand = hands.begin(job)
            await settle()
            hand.cancel(job)
            hand.cancel(object())
            await settle()
            assert done == ["begun", said, "over"]
            done.clear()
            assert hands.end_idle() == []
        job = Job(done)
        hands.begin(job).cancel(job)
        await settle()
        assert done == ["over"]
        assert all(task.done() for task in tasks)

    loops.run("asyncio", program)


def test_nobody_waits_for_work_where_none_is_wanted():
    async def program():
        tasks, done = [], []
        hands = Hands(tasks.append, lambda: False)
        job = Job(done)
        hands.begin(job)
        job.go.set()
        await settle()
        assert done == ["begun", "done", "over"]
        assert tasks[0].done()

    loops.run("asyncio", program)
