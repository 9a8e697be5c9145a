"""What a task goes on from at once: in which order things are done, and how it is cancelled."""

from __future__ import annotations

import asyncio
import contextvars

import anyio
import pytest
import uvloop

from capmarshal._kernel.prompt import Prompt

each_loop = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])

which = contextvars.ContextVar("which", default="nobody's")


async def begun(waiting):
    """A task that has come to where it waits."""
    task = asyncio.create_task(waiting)
    await asyncio.sleep(0)
    return task


def run(new_loop, program):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(program())


@each_loop
def test_a_task_goes_on_where_its_answer_is_given_in_its_own_context(new_loop):
    async def program():
        prompt, done = Prompt(asyncio.get_running_loop()), []

        async def waits():
            which.set("the task's")
            done.append(await prompt)
            done.append(which.get())
            done.append(asyncio.current_task())

        task = await begun(waits())

        def answer():
            prompt.answer("answered")
            done.append("the next step")

        asyncio.get_running_loop().call_soon(answer)
        await task
        assert done == ["answered", "the task's", task, "the next step"]
        assert which.get() == "nobody's"

    run(new_loop, program)


@each_loop
def test_where_another_task_runs_it_goes_on_after_that_waits(new_loop):
    async def program():
        prompt, done = Prompt(asyncio.get_running_loop()), []

        async def waits():
            done.append(await prompt)

        task = await begun(waits())
        prompt.answer("answered")
        done.append("the next step")
        await task
        assert done == ["the next step", "answered"]

    run(new_loop, program)


@each_loop
def test_what_was_answered_before_is_not_waited_for_and_the_first_answer_is_the_one(new_loop):
    async def program():
        prompt = Prompt(asyncio.get_running_loop())
        prompt.answer(1)
        prompt.answer(2)
        prompt.fail(ValueError("late"))
        assert await prompt == 1
        failed = Prompt(asyncio.get_running_loop())
        failed.fail(ValueError("first"))
        failed.answer(1)
        with pytest.raises(ValueError, match="first"):
            await failed

    run(new_loop, program)


@each_loop
def test_who_is_cancelled_is_so_once_and_hears_no_answer(new_loop):
    async def program():
        prompt, done = Prompt(asyncio.get_running_loop()), []

        async def waits():
            try:
                await prompt
            except asyncio.CancelledError as error:
                done.append(error.args)
            await asyncio.sleep(0)
            done.append("went on")

        task = await begun(waits())
        assert task.cancel("for this")
        prompt.answer("late")
        await task
        assert done == [("for this",), "went on"]
        # Between its answer and where it goes on.
        prompt = Prompt(asyncio.get_running_loop())
        task = await begun(waits())
        prompt.answer("just before")
        task.cancel("for that")
        await task
        assert done[2:] == [("for that",), "went on"]

    run(new_loop, program)


@each_loop
def test_who_looks_what_all_tasks_wait_for_finds_that_one_does(new_loop):
    """As anyio.wait_all_tasks_blocked(), by which programs test."""

    async def program():
        prompt = Prompt(asyncio.get_running_loop())

        async def waits():
            return await prompt

        task = asyncio.create_task(waits())
        await anyio.wait_all_tasks_blocked()
        assert not task.done()
        assert not prompt.done()
        prompt.answer("answered")
        assert prompt.done()
        assert await task == "answered"

    run(new_loop, program)
