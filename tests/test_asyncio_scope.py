"""Methods that are cancelled clean up by awaiting, and may go on: how often each is told (`asyncio_scope`)."""

from __future__ import annotations

import asyncio
import os
import signal

import anyio
import pytest

import by_hand
import capmarshal as cm
from capmarshal import aio
from loops import Work, Worker, each_loop, in_thread, run
from patience import PATIENCE
from telling import rounds


class Tidy(Worker):
    """Cleans up when it is cancelled, by awaiting; or goes on all the same, as often as it is."""

    async def wait(self, how):
        try:
            await super().wait(how)
        finally:
            with anyio.CancelScope(shield=not asyncios()):
                for _ in range(3):
                    # Longer than a checkpoint: asyncio's scopes cancel what waits for something.
                    await anyio.sleep(0.001)
                self.saw(("tidied", how))

    async def blob(self, data):
        self.running += 1
        while not self.go:
            try:
                await self.until(lambda: self.go)
            except anyio.get_cancelled_exc_class():
                self.saw("again")
                if not asyncios():
                    raise
        return data


def asyncios():
    """Whether this event loop is one of asyncio's, whose cancellation comes once."""
    return anyio.get_cancelled_exc_class() is asyncio.CancelledError


@each_loop
@pytest.mark.parametrize("end", ["client", "deadline", "leaving"])
def test_a_method_that_is_cancelled_may_await_what_it_cleans_up_by(loop, end, fork):
    """In asyncio it is cancelled once, as any task there; trio's are shielded for that, as everywhere."""
    entrypoint, worker = aio.Entrypoint("tidy", close_timeout=0.01), Tidy()
    capability = entrypoint.manage(worker)

    def calls():
        with cm.timeout(0.5 if end == "deadline" else PATIENCE), pytest.raises((cm.CallTimeout, cm.Disconnected)):
            capability.cast(Work).wait("x")

    child = fork(calls)

    async def main():
        async with entrypoint:
            await worker.began()
            if end == "client":
                os.kill(child.pid, signal.SIGKILL)
            if end != "leaving":
                await worker.until(lambda: ("tidied", "x") in worker.seen)
        assert worker.seen == [("began", "x"), ("cancelled", "x"), ("tidied", "x")]
        if end != "client":
            await in_thread(child.result)

    run(loop, main)


@each_loop
def test_a_method_that_goes_on_is_cancelled_once_for_its_client_and_once_where_the_entrypoint_is_left(loop):
    """And not wherever it awaits."""
    entrypoint, worker = aio.Entrypoint("tidy", close_timeout=0.01), Tidy()

    async def then():
        if asyncios():
            await worker.until(lambda: worker.seen == ["again"] * 2)
            await rounds()
        worker.go = True

    async def main():
        async with anyio.create_task_group() as group:
            async with entrypoint:
                capability = entrypoint.manage(worker)
                with by_hand.knock(capability) as near:
                    near.send(by_hand.call(capability, b"blob", b"\x91\xc4\x00"))
                    await worker.began()
                await worker.until(lambda: worker.seen)
                await rounds()
                assert worker.seen == ["again"]
                group.start_soon(then)
        assert worker.seen == ["again"] * (2 if asyncios() else 1)

    run(loop, main)
