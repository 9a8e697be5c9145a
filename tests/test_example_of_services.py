"""The example of a service that its supervisor starts again, with a client that survives it, does what it says."""

import configparser
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import capmarshal as cm
import patience
import services

EXAMPLES = Path(__file__).parent.parent / "examples"
SPOOL, SUPERVISE = EXAMPLES / "spool.py", EXAMPLES / "supervise.py"


@contextlib.contextmanager
def started(*command, **options):
    """An example that goes on until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        # With what it has started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def few_lines():
    """A client that writes fewer: which line it is at is told by the file."""
    return f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import spool_client as c; c.LINES = 400; c.main()"


def killed_in_between(kill, lines, client):
    """Kills the service again and again while a client writes lines; how often it was."""

    def count():
        return lines.read_bytes().count(b"\n")

    killed = 0
    while client.poll() is None and killed < 5:
        # In the middle of it.
        enough = count() + 20
        patience.until(lambda enough=enough: client.poll() is not None or count() > enough)
        if client.poll() is None:
            kill()
            killed += 1
    return killed


def assert_each_line_is_there_once(lines, client):
    out, _ = client.communicate(timeout=60)
    assert client.returncode == 0
    assert out.startswith("400 lines; the service was started again ")
    assert lines.read_text().splitlines() == [f"line {number}" for number in range(400)]


def test_a_client_survives_the_restarts_of_a_supervised_service(tmp_path, few_lines):
    """Killed in the middle of it: each line is written once, in order, and no call hangs."""
    lines = tmp_path / "lines"
    lines.touch()
    with started(SUPERVISE, "lines", cwd=tmp_path) as supervisor:
        patience.until((tmp_path / "spool.sock").exists)

        def kill():
            # The supervisor says which it has started last.
            os.kill(int(supervisor.stdout.readline().split()[1]), signal.SIGKILL)

        with started("-c", few_lines, cwd=tmp_path) as client:
            assert killed_in_between(kill, lines, client) > 0
            assert_each_line_is_there_once(lines, client)
        # The last one ends by itself, and so does its supervisor.
        patience.until(lambda: services.failure(tmp_path / "spool.sock")[0] != "Disconnected")
        service = int(supervisor.stdout.readline().split()[1])
        os.kill(service, signal.SIGTERM)
        assert supervisor.wait(patience.PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_client_survives_the_restarts_of_a_service_started_by_hand(tmp_path, few_lines, number):
    """Where nobody listens in between: it connects again until somebody does."""
    lines = tmp_path / "lines"
    lines.touch()
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(started(SPOOL, "lines", cwd=tmp_path))]

        def kill():
            running[-1].send_signal(number)
            running[-1].wait()
            running.append(stack.enter_context(started(SPOOL, "lines", cwd=tmp_path)))

        with started("-c", few_lines, cwd=tmp_path) as client:
            assert killed_in_between(kill, lines, client) > 0
            assert_each_line_is_there_once(lines, client)
        # It serves by now.
        patience.until(lambda: services.failure(tmp_path / "spool.sock")[0] != "Disconnected")
        running[-1].terminate()
        assert running[-1].wait(patience.PATIENCE) == 0
    assert not (tmp_path / "spool.sock").exists()


STOPPED_IN_A_CALL = f"""
import os, signal, sys
sys.path.insert(0, {str(EXAMPLES)!r})
import spool

class Stopped(spool.SpoolServer):
    def append(self, line):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().append(line)

spool.SpoolServer = Stopped
spool.main()
"""


class Spool(cm.Interface):
    """What the test asks the service for."""

    @cm.method
    def append(self, line: str) -> int: ...


def test_the_call_that_sigterm_interrupts_is_answered(tmp_path):
    """And not with what the handler raises, which no client takes for the end of the service; that ends then."""
    path = tmp_path / "spool.sock"
    with started("-c", STOPPED_IN_A_CALL, "lines", cwd=tmp_path) as service:
        patience.until(lambda: services.failure(path)[0] != "Disconnected")
        spool = cm.connect(path, patience.PATIENCE).cast(Spool, timeout=patience.PATIENCE)
        assert spool.append("the last") == 1
        with pytest.raises(cm.Disconnected):
            spool.append("too late")
        assert service.wait(patience.PATIENCE) == 0
    assert (tmp_path / "lines").read_text() == "the last\n"
    assert not path.exists()


def test_the_units_name_what_the_service_asks_for():
    """The socket's name, its kind, and that it is told when the service is ready."""
    units = {}
    for kind in ("socket", "service"):
        units[kind] = configparser.ConfigParser(interpolation=None)
        units[kind].optionxform = str
        assert units[kind].read(EXAMPLES / "systemd" / f"spool.{kind}")
    assert 'NAME = "spool.socket"' in SPOOL.read_text()
    assert units["socket"]["Socket"]["ListenSequentialPacket"].endswith("/spool.sock")
    assert units["service"]["Service"]["Type"] == "notify"
    assert units["service"]["Service"]["Restart"] == "always"


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian: systemd)"
)
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    """It looks whether programs are there: one that is installed elsewhere here stands in for the command."""
    command = Path(sys.executable).with_name("capmarshal")
    paths = [tmp_path / unit.name for unit in sorted((EXAMPLES / "systemd").iterdir())]
    for path in paths:
        unit = (EXAMPLES / "systemd" / path.name).read_text()
        path.write_text(unit.replace("/usr/local/bin/capmarshal", str(command)))
    ended = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
