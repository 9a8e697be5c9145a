"""A farm: workers on many machines render one picture; they come and go, and no part of it is lost, or counts twice.

    python farm.py coordinator nats://HOST:4222 TOKEN picture.pgm
    python farm.py worker      nats://HOST:4222 TOKEN

The coordinator makes the file TOKEN, and each machine that has workers is given a copy: whoever has it may work.  The
rest are capabilities, as between two processes of one machine; a bridge in each program is how they get there::

    coordinator                                 worker: as many as are wanted, wherever
      Farm <---------------- join(me) --------    says what it may be asked
      strips that wait
        render(strip) ----------------------->  Worker: renders
      strips that are done <-- pixels --------
        go_home(why) ------------------------>    ends

No strip is lost, and none counts twice: each of them waits, is at one worker, is done, or was given up, and only the
coordinator moves it.  It leaves a worker when the call ends that was to render it: nothing can come of that later.
Where that has failed, the error's ``ran`` says what is known of it:

- ``"no"``: it has not begun, and never will.  Another worker is given the strip at once, whatever rendering does.
- ``"maybe"``: it may have begun, and may go on yet: the machine was lost, or is too slow.  Rendering changes nothing,
  and of a strip that is rendered twice one result comes here: so another worker is given it, too.  A job whose tasks
  do change something, as to send letters, must not repeat them in doubt.  ``--once`` is for those: such a strip is
  given up, and named in the end.

Workers that come later are given what is left.  Ctrl-C has a worker finish its strip, and leave; it has the coordinator
wait for the strips that are at workers, and send those home.  A worker whose coordinator is lost joins the next start
of it, which has the same token from the file.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import os
import secrets
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import capmarshal as cm
from capmarshal import aio
from capmarshal.bridge import Bridge, NatsEngine, Token

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, HEIGHT, ROWS = 1200, 900, 20  # of the picture, and the rows of a strip
SECONDS = 60.0  # that a worker has for a strip; that its machine is lost is noticed before
TRIES = 3  # of a strip that workers were lost with: perhaps it is what they die of
PAUSE = 1.0  # seconds before a worker looks for its coordinator again


@dataclass(frozen=True)
class Strip:
    """Some rows of a picture, and all that has to be known to render them."""

    width: int
    height: int
    top: int
    rows: int


class Worker(cm.Interface):
    """What a coordinator may ask of a worker."""

    @cm.method
    async def render(self, strip: Strip) -> bytes:
        """The pixels of a strip, a byte each."""

    @cm.method
    async def go_home(self, why: str) -> None:
        """It is asked nothing any more."""


class Farm(cm.Interface):
    """What whoever has the token may ask of the coordinator."""

    @cm.method
    async def join(self, worker: Worker, name: str) -> None:
        """Has a worker be asked from now on."""


def when_stopped(do: Callable[[], object]) -> None:
    """Has something done by Ctrl-C, and by what ends services."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, do)


# The worker ----------------------------------------------------------------------------------------------------------


def render_row(strip: Strip, y: int) -> bytes:
    """Stands for what takes time: how soon the points of a line leave the Mandelbrot set."""
    pixels = bytearray()
    for x in range(strip.width):
        point, value, steps = complex(3 * x / strip.width - 2.25, 2.25 * y / strip.height - 1.125), 0j, 0
        while steps < 255 and abs(value) < 2:
            value, steps = value * value + point, steps + 1
        pixels.append(steps)
    return bytes(pixels)


class WorkerServer(Worker):
    """Renders.

    Attributes:
        home: set when it has no more to do here.
    """

    def __init__(self) -> None:
        self.home = asyncio.Event()

    async def render(self, strip: Strip) -> bytes:
        """See :meth:`Worker.render`."""
        rows = []
        for y in range(strip.top, strip.top + strip.rows):
            rows.append(render_row(strip, y))
            # The bridge has its turn; and where the coordinator does not wait any more, this ends here.  What can't
            # be cut into milliseconds is for another process.
            await asyncio.sleep(0)
        return b"".join(rows)

    async def go_home(self, why: str) -> None:
        """See :meth:`Worker.go_home`."""
        print(why, flush=True)
        self.home.set()


async def keep_joined(bridge: Bridge, token: Token, worker: Worker) -> None:
    """Joins the farm, and again whenever its coordinator was lost."""
    name = f"{socket.gethostname()}/{os.getpid()}"
    while True:
        try:
            capability = await bridge.connect(token)
            await capability.cast(Farm).join(worker, name)
            print(f"{name} has joined", flush=True)
            await aio.wait_gone(capability)
            print("the coordinator is lost", flush=True)
        except cm.Error as error:
            print(f"no coordinator: {error}", flush=True)
        await asyncio.sleep(PAUSE)


async def work(address: str, token: Token) -> None:
    """Works until it is sent home, or told to stop."""
    worker = WorkerServer()
    when_stopped(worker.home.set)
    engine = await NatsEngine.connect([address])
    # The entrypoint is left first, and finishes what is being rendered; then the bridge, which sees that it arrives.
    async with (
        Bridge(f"worker-{secrets.token_hex(8)}", engine) as bridge,
        aio.Entrypoint("worker", close_timeout=SECONDS) as entrypoint,
        asyncio.TaskGroup() as tasks,
    ):
        entrypoint.manage(worker)
        joining = tasks.create_task(keep_joined(bridge, token, worker))
        await worker.home.wait()
        joining.cancel()


# The coordinator -----------------------------------------------------------------------------------------------------


class Job:
    """The strips of a picture, each of which is in one place.

    Args:
        strips: all of them.
        once: whether none must be rendered twice, not even in doubt.

    Attributes:
        done: the pixels of those that are.
        given_up: those that nobody is given any more.
        ended: set when nobody is given any.
    """

    def __init__(self, strips: list[Strip], *, once: bool) -> None:
        self.done: dict[Strip, bytes] = {}
        self.given_up: list[Strip] = []
        self.ended = asyncio.Event()
        self._all, self._tries = len(strips), 1 if once else TRIES
        self._lost: collections.Counter[Strip] = collections.Counter()
        # A None is for all who wait, one after the other.
        self._waiting: asyncio.Queue[Strip | None] = asyncio.Queue()
        for strip in strips:
            self._waiting.put_nowait(strip)

    async def take(self) -> Strip | None:
        """One that waits, as soon as there is one; None: there will be none."""
        strip = await self._waiting.get()
        if strip is None or self.ended.is_set():
            self.end()
            return None
        return strip

    def finish(self, strip: Strip, pixels: bytes) -> None:
        """It has been rendered."""
        self.done[strip] = pixels
        self._count()

    def put_back(self, strip: Strip, ran: str) -> None:
        """It has not; ran: whether it may have been, as errors say it."""
        self._lost[strip] += ran == "maybe"
        if self._lost[strip] < self._tries:
            self._waiting.put_nowait(strip)
        else:
            self.given_up.append(strip)
            self._count()

    def end(self) -> None:
        """Nobody is given any more."""
        self.ended.set()
        self._waiting.put_nowait(None)

    def _count(self) -> None:
        if len(self.done) + len(self.given_up) == self._all:
            self.end()


class FarmServer(Farm):
    """Has a job done by whoever joins.

    Args:
        job: which.
        attending: for a task for each worker.
    """

    def __init__(self, job: Job, attending: asyncio.TaskGroup) -> None:
        self._job, self._attending = job, attending

    async def join(self, worker: Worker, name: str) -> None:
        """See :meth:`Farm.join`."""
        # Not in the context of this call, whose deadline it would have.
        self._attending.create_task(self._attend(worker, name), context=contextvars.Context())

    async def _attend(self, worker: Worker, name: str) -> None:
        """Has a worker render one strip after the other, as long as there are any, and all goes well."""
        print(f"{name} has come", flush=True)
        why = "there is nothing left to do"
        # One that goes while it has no strip is noticed by the next one, which has not begun there.
        while (strip := await self._job.take()) is not None:
            try:
                with cm.timeout(SECONDS):
                    pixels = await worker.render(strip)
                if len(pixels) != strip.width * strip.rows:
                    raise ValueError(f"{len(pixels)} pixels have come for {strip}")
            except (cm.Error, ValueError) as error:
                why = str(error)
                self._job.put_back(strip, error.ran if isinstance(error, cm.Disconnected | cm.CallTimeout) else "maybe")
                break
            self._job.finish(strip, pixels)
            print(f"rows from {strip.top} on: {name}; {len(self._job.done)} strips are done", flush=True)
        print(f"{name} goes: {why}", flush=True)
        with contextlib.suppress(cm.Error), cm.timeout(SECONDS):
            await worker.go_home(why)


def token_in(path: Path) -> Token:
    """The token in a file; where there is none it is made, and nobody else may read it."""
    if not path.exists():
        path.touch(0o600)
        path.write_text(Token.new(f"farm-{secrets.token_hex(8)}").reveal())
    return Token.parse(path.read_text())


async def coordinate(address: str, token: Token, picture: Path, *, once: bool) -> bool:
    """Has a picture rendered, and writes it; whether all of it is there."""
    strips = [Strip(WIDTH, HEIGHT, top, min(ROWS, HEIGHT - top)) for top in range(0, HEIGHT, ROWS)]
    job = Job(strips, once=once)
    when_stopped(job.end)
    engine = await NatsEngine.connect([address])
    # All workers are sent home before the bridge is left.
    async with (
        Bridge(token.exporter, engine) as bridge,
        aio.Entrypoint("farm") as entrypoint,
        asyncio.TaskGroup() as attending,
    ):
        await bridge.export(entrypoint.manage(FarmServer(job, attending)), token=token)
        print("the farm is open", flush=True)
        await job.ended.wait()
    with open(picture, "wb") as file:
        file.write(f"P5 {WIDTH} {HEIGHT} 255\n".encode())
        file.writelines(job.done.get(strip, bytes(strip.width * strip.rows)) for strip in strips)
    for strip in job.given_up:
        print(f"given up: rows from {strip.top} on", flush=True)
    print(f"{len(job.done)} of {len(strips)} strips are done", flush=True)
    return len(job.done) == len(strips)


def main() -> int:
    """Does what the command line says; the status to exit with."""
    match sys.argv[1:]:
        case ["worker", address, path]:
            asyncio.run(work(address, Token.parse(Path(path).read_text())))
            return 0
        case ["coordinator", *options, address, path, picture] if options in ([], ["--once"]):
            return not asyncio.run(coordinate(address, token_in(Path(path)), Path(picture), once=bool(options)))
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
