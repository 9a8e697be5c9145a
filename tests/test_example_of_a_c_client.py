"""The example of a client in C: under sanitizers where there are any, and what it says where something is wrong."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import capmarshal as cm
from capmarshal._protocol import wire
from page_records import NO_BADGE, pair, put
from page_server import DESK, PageServer, Raise
from patience import PATIENCE

EXAMPLES = Path(__file__).parent.parent / "examples"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]


def _compiled(flags, to):
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if not shutil.which(compiler[0]):
        pytest.skip(f"there is no compiler here: {compiler[0]}")
    if flags:
        tried = subprocess.run(
            [*compiler, *flags, "-x", "c", "-o", to, "-"], input=b"int main(void) { return 0; }", capture_output=True
        )
        if tried.returncode != 0 or subprocess.run([to], capture_output=True).returncode != 0:
            pytest.skip(f"{compiler[0]} makes no program with {' '.join(flags)} here")
    made = subprocess.run(
        [*compiler, "-std=c11", "-Wall", *flags, "-o", to, EXAMPLES / "c_client.c"], capture_output=True, text=True
    )
    assert (made.returncode, made.stderr) == (0, "")
    return to


@pytest.fixture(scope="module", params=[[], SANITIZERS], ids=["plain", "sanitized"])
def client(request, tmp_path_factory):
    """The program, compiled in both ways."""
    return _compiled(request.param, tmp_path_factory.mktemp("c_client") / "c_client")


@pytest.fixture
def letter(tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("Hello, world\n" * 1000)
    return path


def _run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **options)
    return done.returncode, done.stdout, done.stderr


def test_it_calls_and_is_answered_and_revoked(client, letter):
    """Data and a descriptor there and back, a declared error, and why its grant is over."""
    code, out, err = _run([sys.executable, "-P", EXAMPLES / "c_server.py", client, letter])
    assert (code, err) == (0, "")
    assert (
        out == f"13000 bytes: {letter.read_text().upper()}EmptyFile: nothing is empty\nrevoked: the client has left\n"
    )


def test_it_says_that_it_was_given_nothing(client, letter):
    """Started by hand."""
    code, out, err = _run([client, letter], stdin=subprocess.DEVNULL)
    assert (code, out) == (1, "")
    assert err.startswith("c_client: no capability waits in standard input")


def test_it_says_that_its_server_has_gone(client, letter):
    """Before it has called."""
    here, there = pair()
    with here, there:
        with cm.Entrypoint("letters") as entrypoint:
            cm.send_capability(here, entrypoint.manage(_Letters()))
        assert _run([client, letter], stdin=there) == (
            1,
            "",
            "c_client: the server has gone, and has not run the call\n",
        )


def test_it_takes_no_other_version(client, letter, monkeypatch):
    """And says so."""
    here, there = pair()
    with here, there, cm.Entrypoint("letters") as entrypoint:
        monkeypatch.setattr(wire, "VERSION", wire.VERSION + 1)
        cm.send_capability(here, entrypoint.manage(_Letters()))
        assert _run([client, letter], stdin=there) == (
            1,
            "",
            "c_client: the capability in standard input is of another version\n",
        )


@pytest.mark.usefixtures("quiet_log")
def test_it_says_what_it_was_answered(client, letter):
    """Errors that the interface does not declare, by class and text: one is that of a wrong result."""
    here, there = pair()
    with here, there, cm.Entrypoint("letters") as entrypoint:
        cm.send_capability(here, entrypoint.manage(_Letters()))
        code, out, err = _run([client, letter], stdin=there)
    first, second = out.splitlines()
    assert first == "RuntimeError: no letters today"
    assert second.startswith("ArgumentError: Letters.upper, result: ")
    assert (code, err) == (1, "c_client: the grant was revoked too early, or was not\n")


def test_it_says_why_it_was_not_run(client, letter):
    """By the number that docs/protocol.md has for it."""
    here, there = pair()
    with here, there, cm.Entrypoint("letters") as entrypoint:
        served = _Letters()
        cm.send_capability(here, entrypoint.manage(served))
        entrypoint.dissolve(served)
        code, out, _ = _run([client, letter], stdin=there)
    assert (code, out.splitlines()) == (
        1,
        ["error 3: the capability's object is not there: dissolved, or never was"] * 2,
    )


@pytest.fixture
def by_hand():
    """A server by hand, and a socket in which its capability waits."""

    def upper(arguments, came, _left):
        text = os.pread(came[0][0], 100, 0)
        if not text:
            raise Raise("NoText", "Exception", arguments[0])
        written = os.memfd_create("capitals")
        os.write(written, text[:5].upper())
        return [5, 0], [(written, NO_BADGE)]

    here, there = pair()
    with here, there, PageServer({DESK: {"upper": upper, "leave": lambda *_: (None, ())}}) as server:
        put(here, server.client, DESK)
        yield server, there


def test_it_calls_again_what_was_not_read(client, letter, by_hand):
    """On new channels, until one is served."""
    server, waiting = by_hand
    server.refuses = 3
    code, out, err = _run([client, letter], stdin=waiting)
    assert (code, out) == (1, "5 bytes: HELLONoText: nothing\n")
    assert err == "c_client: the grant was revoked too early, or was not\n"
    assert server.knocks == 4


def test_it_does_not_call_again_what_was_read(client, letter, by_hand):
    """It may have run."""
    server, waiting = by_hand
    server.leaves = 1
    code, _, err = _run([client, letter], stdin=waiting)
    assert (code, err) == (1, "c_client: the server has gone, and may have run the call\n")
    assert server.knocks == 1


class Letters(cm.Interface):
    @cm.method
    def upper(self, name: str, file: cm.Descriptor) -> tuple[int, cm.Descriptor]: ...

    @cm.method
    def leave(self) -> None: ...


class _Letters(Letters):
    """Answers, and does what its interface says nothing of."""

    def __init__(self):
        self.calls = 0

    def upper(self, name, file):
        self.calls += 1
        if self.calls == 1:
            raise RuntimeError("no letters today")
        return "what is no pair"

    def leave(self):
        pass
