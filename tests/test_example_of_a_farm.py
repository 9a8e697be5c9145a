"""The example of a farm: workers that are killed, stand still, come late and leave, and each strip counts once."""

import asyncio
import contextlib
import importlib.util
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import nats_servers
from patience import PATIENCE

EXAMPLES = Path(__file__).parent.parent / "examples"
WIDTH, HEIGHT, ROWS = 30, 38, 4
TOPS = range(0, HEIGHT, ROWS)

# More than all waiting of a test together: where a deadline is no part of the test, none passes.
LONG = 10 * PATIENCE

# The example, with a small picture.  A worker says what it begins to render; one that is held waits in its first strip
# until it is told to go on, while its bridge is awake.
START = f"""
import asyncio, sys
sys.path.insert(0, {str(EXAMPLES)!r})
import farm
held, farm.SECONDS = sys.argv.pop(1) == "held", float(sys.argv.pop(1))
farm.WIDTH, farm.HEIGHT, farm.ROWS, farm.PAUSE = {WIDTH}, {HEIGHT}, {ROWS}, 0.05

class WorkerServer(farm.WorkerServer):
    async def render(self, strip):
        global held
        print("renders", strip.top, flush=True)
        if held:
            held = False
            await asyncio.to_thread(sys.stdin.readline)
        return await super().render(strip)

farm.WorkerServer = WorkerServer
sys.exit(farm.main())
"""


class Started:
    """A coordinator or a worker that runs.

    Attributes:
        process: its own.
        said: all lines that were looked at.
    """

    def __init__(self, *words, held=False, seconds=LONG):
        command = [sys.executable, "-P", "-W", "error", "-c", START, "held" if held else "", str(seconds), *words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said = []
        self._lines = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.rstrip())
        self._lines.put(None)

    def says(self, pattern):
        """Waits for a line, and gives what matches."""
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            self.said.append(line)
            if match := re.fullmatch(pattern, line):
                return match
        raise AssertionError(f"it has not said {pattern!r}: {self.said}")

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def send(self, number):
        self.process.send_signal(number)

    def ended(self):
        """Its status, when it has ended, and said all."""
        status = self.process.wait(PATIENCE)
        self.said += iter(lambda: self._lines.get(timeout=PATIENCE), None)
        self._lines.put(None)
        return status

    def rendered(self):
        """Which strips a worker has begun with."""
        return [int(line.split()[1]) for line in self.said if line.startswith("renders ")]

    def close(self):
        self.process.kill()
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self._reader.join()
        self.process.stdout.close()


class Farm:
    """A place for a coordinator and workers, with an engine."""

    def __init__(self, directory, address, stack):
        self.picture = directory / "picture.pgm"
        self._stack = stack
        self._where = address, str(directory / "token")

    def start(self, *words, **options):
        return self._stack.enter_context(contextlib.closing(Started(*words, **options)))

    def coordinator(self, *options, seconds=LONG):
        """One whose token is there, if not yet where it is served."""
        coordinator = self.start("coordinator", *options, *self._where, str(self.picture), seconds=seconds)
        coordinator.says("the farm is open")
        return coordinator

    def worker(self, **options):
        return self.start("worker", *self._where, **options)

    def check(self, coordinator, *, missing=()):
        """The picture is right, and each strip was counted once."""
        assert coordinator.ended() == (1 if missing else 0), coordinator.said
        counted = [line.split()[2] for line in coordinator.said if line.startswith("rows from ")]
        assert sorted(map(int, counted)) == [top for top in TOPS if top not in missing], coordinator.said
        module = example()
        rows = []
        for y in range(HEIGHT):
            top = y // ROWS * ROWS
            strip = module.Strip(WIDTH, HEIGHT, top, min(ROWS, HEIGHT - top))
            rows.append(bytes(WIDTH) if top in missing else module.render_row(strip, y))
        assert self.picture.read_bytes() == b"P5 %d %d 255\n" % (WIDTH, HEIGHT) + b"".join(rows)


def example():
    spec = importlib.util.spec_from_file_location("example_farm", EXAMPLES / "farm.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where annotations are looked up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def farm(tmp_path):
    with contextlib.ExitStack() as stack:
        (node,) = stack.enter_context(nats_servers.nodes(tmp_path))
        yield Farm(tmp_path, node.address, stack)


def test_three_workers_render_one_picture(farm):
    """Each of them is in a strip at the same time, and all are sent home."""
    coordinator = farm.coordinator()
    workers = [farm.worker(held=True) for _ in range(3)]
    assert {worker.says(r"renders (\d+)")[1] for worker in workers} == {"0", "4", "8"}
    for worker in workers:
        worker.go_on()
    farm.check(coordinator)
    for worker in workers:
        assert worker.ended() == 0
        assert worker.said[-1] == "there is nothing left to do"
    assert sorted(top for worker in workers for top in worker.rendered()) == list(TOPS)


def test_a_worker_that_is_killed_in_a_strip_and_one_that_comes_late(farm):
    coordinator = farm.coordinator()
    killed = farm.worker(held=True)
    killed.says("renders 0")
    killed.send(signal.SIGKILL)
    late = farm.worker()
    farm.check(coordinator)
    assert late.ended() == 0
    assert sorted(late.rendered()) == list(TOPS)


def test_a_worker_that_stands_still_is_given_up_and_told_so_when_it_goes_on(farm):
    coordinator = farm.coordinator(seconds=5)
    still = farm.worker(held=True)
    still.says("renders 0")
    still.send(signal.SIGSTOP)
    other = farm.worker()
    late = coordinator.says(r".* goes: (.* deadline passed .*)")[1]
    still.send(signal.SIGCONT)
    still.go_on()
    assert (still.ended(), still.said[-1]) == (0, late)
    farm.check(coordinator)
    assert other.ended() == 0
    assert (still.rendered(), sorted(other.rendered())) == ([0], list(TOPS))


def test_ctrl_c_has_a_worker_finish_its_strip(farm):
    coordinator = farm.coordinator()
    leaving = farm.worker(held=True)
    leaving.says("renders 0")
    leaving.send(signal.SIGINT)
    leaving.go_on()
    assert leaving.ended() == 0
    assert leaving.rendered() == [0]
    coordinator.says("rows from 0 on: .*")
    other = farm.worker()
    farm.check(coordinator)
    assert other.ended() == 0
    assert sorted(other.rendered()) == list(TOPS)[1:]


def test_what_must_not_be_done_twice_is_given_up_in_doubt(farm):
    """And nothing is done twice."""
    coordinator = farm.coordinator("--once")
    killed = farm.worker(held=True)
    killed.says("renders 0")
    leaving = farm.worker(held=True)
    leaving.says("renders 4")
    killed.send(signal.SIGKILL)
    leaving.send(signal.SIGINT)
    leaving.go_on()
    other = farm.worker()
    coordinator.ended()
    given_up = [int(line.split()[4]) for line in coordinator.said if line.startswith("given up: ")]
    # Of what was on its way to the one that leaves, it may not be known.
    assert 0 in given_up
    assert len(given_up) <= 2
    farm.check(coordinator, missing=given_up)
    assert (leaving.ended(), other.ended()) == (0, 0)
    rendered = killed.rendered() + leaving.rendered() + other.rendered()
    assert sorted({*rendered, *given_up}) == list(TOPS)
    assert len(rendered) == len(set(rendered))


def test_ctrl_c_has_the_coordinator_wait_for_strips_and_send_workers_home(farm):
    coordinator = farm.coordinator()
    worker = farm.worker(held=True)
    worker.says("renders 0")
    coordinator.send(signal.SIGINT)
    worker.go_on()
    farm.check(coordinator, missing=list(TOPS)[1:])
    assert worker.ended() == 0
    assert worker.rendered() == [0]


def test_workers_come_again_to_the_next_start_of_their_coordinator(farm):
    coordinator = farm.coordinator()
    worker = farm.worker(held=True)
    worker.says("renders 0")
    coordinator.send(signal.SIGKILL)
    worker.says("the coordinator is lost")
    worker.go_on()
    another = farm.coordinator()
    farm.check(another)
    assert worker.ended() == 0


def test_a_strip_that_workers_are_lost_with_is_given_up_at_last():
    module = example()

    async def tried():
        job = module.Job([module.Strip(1, 1, 0, 1)], once=False)
        for _ in range(module.TRIES):
            job.put_back(await job.take(), "no")
            assert not job.ended.is_set()
            job.put_back(await job.take(), "maybe")
        assert await job.take() is None
        return job.given_up

    assert asyncio.run(tried()) == [module.Strip(1, 1, 0, 1)]
