"""A client of a soak: ``soak_client.py DRIVER DIRECTORY SLOT SEED``.

For each number on standard input it makes so many calls, and lets go of all servers; for ``hold`` it says what it
holds.  In ``DIRECTORY/counts`` is how many it has made, also where it is killed.
"""

from __future__ import annotations

import contextlib
import mmap
import random
import signal
import struct
import sys

import anyio
import anyio.to_thread

import capmarshal as cm
import soak_calls
import soak_process
from capmarshal import aio
from soak_work import AwaitedChild, AwaitedChildServer, AwaitedWork, Child, ChildServer, Work

IN_FLIGHT = 20
COUNT = struct.Struct("=Q")


class Client:
    """What clients of either colour have: chance, a count, and which calls are under way."""

    def __init__(self, driver, directory, slot, seed):
        self.driver, self.directory, self._slot = driver, directory, slot
        self.randomly = random.Random(seed)  # chance of a test, no secret
        self.under_way = soak_process.UnderWay(f"client {slot} ({driver}, seed {seed})")
        with open(f"{directory}/counts", "r+b") as file:
            self._counts = mmap.mmap(file.fileno(), 0)

    def path(self, server):
        return f"{self.directory}/{server}"

    def draw(self, cuts):
        return soak_calls.draw(self.randomly, soak_process.DRIVERS, cuts)

    def count(self):
        (count,) = COUNT.unpack_from(self._counts, COUNT.size * self._slot)
        COUNT.pack_into(self._counts, COUNT.size * self._slot, count + 1)

    @contextlib.contextmanager
    def making(self, call):
        """Around a call: it is under way, and then counted."""
        self.under_way.begins(call)
        try:
            yield
        except BaseException as error:
            error.add_note(f"in {call}")
            raise
        finally:
            self.under_way.ends(call)
        self.count()


# Blocking ------------------------------------------------------------------------------------------------------------


def finish_now(coroutine):
    """What a coroutine returns that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it has awaited something")


def make_call(calls, call, proxy):
    """One call, perhaps cut off by its deadline or by Ctrl-C."""
    if call.cut == "deadline":
        with cm.timeout(call.after):
            finish_now(calls.make(call, proxy))
    elif call.cut == "interrupt":
        # Closed: it may not even have begun.
        with contextlib.closing(calls.make(call, proxy)) as making, contextlib.suppress(KeyboardInterrupt):
            try:
                signal.setitimer(signal.ITIMER_REAL, call.after + 1e-6)
                finish_now(making)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    else:
        finish_now(calls.make(call, proxy))


def run(client):
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    with cm.Entrypoint("client") as entrypoint:
        calls = soak_calls.Calls(Child, entrypoint.manage(ChildServer(7)), 7, client.directory)
        while line := sys.stdin.readline():
            if line == soak_process.HOLD:
                soak_process.tell(**soak_process.holdings())
            else:
                make_all(client, calls, int(line))
                soak_process.tell(done=True)


def make_all(client, calls, count):
    """So many calls, one after the other; then no server is held any more."""
    held = {server: cm.connect(client.path(server), soak_process.CALL_MAX) for server in soak_process.DRIVERS}
    proxies = {server: capability.cast(Work) for server, capability in held.items()}
    for _ in range(count):
        call = client.draw(("deadline", "interrupt"))
        with client.making(call):
            make_call(calls, call, proxies[call.server])
    for capability in held.values():
        capability.close()


# Awaited -------------------------------------------------------------------------------------------------------------


async def make_awaited(calls, call, proxy):
    """One call, perhaps cut off by a deadline of either kind, or cancelled."""
    if call.cut == "deadline":
        with cm.timeout(call.after):
            await calls.make(call, proxy)
    elif call.cut == "scope":
        with anyio.move_on_after(call.after):
            await calls.make(call, proxy)
    elif call.cut == "cancel":
        async with anyio.create_task_group() as group:

            async def cancel():
                await anyio.sleep(call.after)
                group.cancel_scope.cancel()

            group.start_soon(cancel)
            await calls.make(call, proxy)
            group.cancel_scope.cancel()
    else:
        await calls.make(call, proxy)


async def run_awaited(client):
    async with aio.Entrypoint("client") as entrypoint:
        calls = soak_calls.Calls(AwaitedChild, entrypoint.manage(AwaitedChildServer(7)), 7, client.directory)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            if line == soak_process.HOLD:
                soak_process.tell(**soak_process.holdings())
            else:
                await make_all_awaited(client, calls, iter(range(int(line))))
                soak_process.tell(done=True)


async def make_all_awaited(client, calls, left):
    """So many calls, some of them at a time; then no server is held any more."""
    held = {server: await aio.connect(client.path(server), soak_process.CALL_MAX) for server in soak_process.DRIVERS}
    proxies = {server: capability.cast(AwaitedWork) for server, capability in held.items()}

    async def make_some():
        for _ in left:
            call = client.draw(("deadline", "scope", "cancel"))
            with client.making(call):
                await make_awaited(calls, call, proxies[call.server])

    async with anyio.create_task_group() as group:
        for _ in range(IN_FLIGHT):
            group.start_soon(make_some)
    for capability in held.values():
        capability.close()


if __name__ == "__main__":
    soak_process.begin()
    driver, directory, slot, seed = sys.argv[1:]
    if driver == "blocking":
        run(Client(driver, directory, int(slot), seed))
    else:
        anyio.run(run_awaited, Client(driver, directory, int(slot), seed), **soak_process.LOOPS[driver])
