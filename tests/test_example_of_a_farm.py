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
# Rows enough for a worker to hear of Ctrl-C when it is in the first of them.
WIDTH, HEIGHT, ROWS = 6, 190, 20
TOPS = range(0, HEIGHT, ROWS)

# The example, with a small picture.  A worker says what it begins to render; one that is held stands still in its first
# strip until it is told to go on: so nothing else of it runs either, for some moments.
START = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import farm
held, farm.SECONDS = sys.argv.pop(1) == "held", float(sys.argv.pop(1))
farm.WIDTH, farm.HEIGHT, farm.ROWS, farm.PAUSE = {WIDTH}, {HEIGHT}, {ROWS}, 0.05
render_row = farm.render_row

def saying(strip, y):
    global held
    if y == strip.top:
        print("renders", strip.top, flush=True)
        if held:
            sys.stdin.readline()
            held = False
    return render_row(strip, y)

farm.render_row = saying
sys.exit(farm.main())
"""


class Started:
    """A coordinator or a worker that runs.

    Attributes:
        process: its own.
        said: all lines that were looked at.
    """

    def __init__(self, *words, held=False, seconds=PATIENCE):
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

    def coordinator(self, *options, seconds=PATIENCE):
        """One whose token is there, if not yet where it is served."""
        coordinator = self.start("coordinator", *options, *self._where, str(self.picture), seconds=seconds)
        coordinator.says("the farm is open")
        return coordinator

    def worker(self, coordinator, **options):
        """One that has joined."""
        worker = self.start("worker", *self._where, **options)
        coordinator.says(".* has come")
        return worker

    def check(self, coordinator, *, missing=()):
        """The picture is right, and each strip was counted once."""
        assert coordinator.ended() == (1 if missing else 0), coordinator.said
        counted = [line.split()[2] for line in coordinator.said if line.startswith("rows from ")]
        assert sorted(map(int, counted)) == [top for top in TOPS if top not in missing]
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
    workers = [farm.worker(coordinator, held=True) for _ in range(3)]
    assert [worker.says(r"renders (\d+)")[1] for worker in workers] == ["0", "20", "40"]
    for worker in workers:
        worker.go_on()
    farm.check(coordinator)
    for worker in workers:
        assert worker.ended() == 0
        assert worker.said[-1] == "there is nothing left to do"
    assert sorted(top for worker in workers for top in worker.rendered()) == list(TOPS)


def test_a_worker_that_is_killed_in_a_strip_and_one_that_comes_late(farm):
    coordinator = farm.coordinator()
    killed = farm.worker(coordinator, held=True)
    killed.says("renders 0")
    killed.send(signal.SIGKILL)
    late = farm.worker(coordinator)
    farm.check(coordinator)
    assert late.ended() == 0
    assert sorted(late.rendered()) == list(TOPS)


def test_a_worker_that_stands_still_is_given_up_and_told_so_when_it_goes_on(farm):
    coordinator = farm.coordinator(seconds=5)
    still = farm.worker(coordinator, held=True)
    still.says("renders 0")
    still.send(signal.SIGSTOP)
    other = farm.worker(coordinator)
    late = coordinator.says(r".* goes: (.* deadline passed .*)")[1]
    still.send(signal.SIGCONT)
    still.go_on()
    assert (still.ended(), still.said[-1]) == (0, late)
    farm.check(coordinator)
    assert other.ended() == 0
    assert (still.rendered(), sorted(other.rendered())) == ([0], list(TOPS))


def test_ctrl_c_has_a_worker_finish_its_strip(farm):
    coordinator = farm.coordinator()
    leaving = farm.worker(coordinator, held=True)
    leaving.says("renders 0")
    leaving.send(signal.SIGINT)
    leaving.go_on()
    assert leaving.ended() == 0
    assert leaving.rendered() == [0]
    coordinator.says("rows from 0 on: .*")
    other = farm.worker(coordinator)
    farm.check(coordinator)
    assert other.ended() == 0
    assert sorted(other.rendered()) == list(TOPS)[1:]


def test_what_must_not_be_done_twice_is_given_up_in_doubt(farm):
    """And goes to another worker where it is certain that it has not begun."""
    coordinator = farm.coordinator("--once")
    killed, leaving = (farm.worker(coordinator, held=True) for _ in range(2))
    killed.says("renders 0")
    leaving.says("renders 20")
    killed.send(signal.SIGKILL)
    leaving.send(signal.SIGINT)
    leaving.go_on()
    other = farm.worker(coordinator)
    farm.check(coordinator, missing=[0])
    assert (leaving.ended(), other.ended()) == (0, 0)
    assert "given up: rows from 0 on" in coordinator.said
    assert sorted(killed.rendered() + leaving.rendered() + other.rendered()) == list(TOPS)


def test_ctrl_c_has_the_coordinator_wait_for_strips_and_send_workers_home(farm):
    coordinator = farm.coordinator()
    worker = farm.worker(coordinator, held=True)
    worker.says("renders 0")
    coordinator.send(signal.SIGINT)
    worker.go_on()
    farm.check(coordinator, missing=list(TOPS)[1:])
    assert worker.ended() == 0
    assert worker.rendered() == [0]


def test_workers_come_again_to_the_next_start_of_their_coordinator(farm):
    coordinator = farm.coordinator()
    worker = farm.worker(coordinator, held=True)
    worker.says("renders 0")
    coordinator.send(signal.SIGKILL)
    worker.go_on()
    worker.says("the coordinator is lost")
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
