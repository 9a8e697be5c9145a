"""Blocking code in event loops: what it awaits, it awaits by :func:`finish`, wherever it runs.

A loop is entered for each call that a thread makes, as by a program that is not async and calls what is.  Blocking code
that runs in a task of a loop already has a greenlet of its own there: it is suspended while its task awaits, and the
loop goes on meanwhile.
"""

from __future__ import annotations

import contextlib
import contextvars
import gc
import select
from typing import NamedTuple

import anyio
import greenlet

from capmarshal._descriptors import reaper
from patience import PATIENCE

# What anyio.run() is told of the loops of calls, and of entrypoints; None where these block.
clients_loop = servers_loop = None


class _Blocking(greenlet.greenlet):
    """Runs blocking code within a task."""


# Set where helpers of tests call, which is not what is tested: it blocks.
plainly = contextvars.ContextVar("plainly", default=False)


@contextlib.contextmanager
def call_plainly():
    """Has calls block that are made in this block."""
    token = plainly.set(True)
    try:
        yield
    finally:
        plainly.reset(token)


def collect():
    """Frees what loops leave that refers to itself, as frames and errors do; does nothing where there are none."""
    if clients_loop or servers_loop:
        gc.collect()
        reaper.wait(PATIENCE)


def in_task():
    """Whether this is blocking code that runs within a task."""
    return isinstance(greenlet.getcurrent(), _Blocking)


class _Kept(greenlet.greenlet):
    """A loop that is there from one call to the next; what calls in its thread is its parent."""

    def __init__(self, loop):
        super().__init__(self._run)
        self._loop = loop

    def _run(self):
        anyio.run(self._await_all, **self._loop)

    async def _await_all(self):
        async with anyio.create_task_group() as group:
            begin = self.parent.switch()
            while begin is not None:
                coroutine, context = begin
                ended, outcome = anyio.Event(), []
                context.run(group.start_soon, _await_one, coroutine, ended, outcome)
                await ended.wait()
                begin = self.parent.switch(outcome)

    def finish(self, coroutine):
        """As the function of that name."""
        (outcome,) = self.switch((coroutine, contextvars.copy_context()))
        if isinstance(outcome, _Raised):
            raise outcome.error
        return outcome


class _Raised(NamedTuple):
    error: BaseException


async def _await_one(coroutine, ended, outcome):
    try:
        outcome.append(await coroutine)
    except BaseException as error:  # noqa: BLE001 - raised where it was called
        outcome.append(_Raised(error))
    finally:
        ended.set()


# Of this thread, in a block of loop_kept().
_kept = contextvars.ContextVar("kept", default=None)


@contextlib.contextmanager
def loop_kept():
    """Has this thread await in one loop in this block, which has its descriptors beforehand."""
    loop = clients_loop or servers_loop
    if loop is None or in_task():
        yield
        return
    kept = _Kept(loop)
    kept.switch()
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)
        kept.switch(None)


def finish(coroutine, loop):
    """What a coroutine returns: awaited by the task that this code runs in, else in a loop that is made for it.

    Args:
        coroutine: to be awaited.
        loop: what anyio.run() is told of the loop.
    """
    if in_task():
        return greenlet.getcurrent().parent.switch(coroutine)
    if (kept := _kept.get()) is not None:
        return kept.finish(coroutine)

    async def main():
        return await coroutine

    return anyio.run(main, **loop)


def readable(number, seconds):
    """Whether a descriptor is readable within so long; awaited where this runs within a task."""
    if not in_task():
        return bool(select.select([number], [], [], seconds)[0])

    async def wait():
        with anyio.move_on_after(seconds) as scope:
            await anyio.wait_readable(number)
        return not scope.cancelled_caught

    return finish(wait(), {})


async def run_blocking(function, *arguments, **by_name):
    """What a blocking function returns that runs in this task, which awaits what that has awaited by :func:`finish`."""
    blocking = _Blocking(function)
    # It is this task's: what it sets, as a deadline, is set here.
    blocking.gr_context = greenlet.getcurrent().gr_context
    step = blocking.switch(*arguments, **by_name)
    while not blocking.dead:
        try:
            result = await step
        except BaseException as error:  # noqa: BLE001 - it is the blocking code's
            step = blocking.throw(error)
        else:
            step = blocking.switch(result)
    return step
