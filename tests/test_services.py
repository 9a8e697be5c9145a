"""What docs/services.md shows works as it stands there."""

import inspect
import os
import re
import signal
import subprocess
import sys

import pytest

import capmarshal as cm
from documents import fenced, read
from patience import PATIENCE, until
from services import directory, failure

PAGE = read("docs/services.md")
BLOCKS = fenced(PAGE)
SERVICE, CLIENT, ENDING, SESSIONS, SESSION_CLIENT, CHILD, ACTIVATED = BLOCKS


class Notes(cm.Interface):
    """As on the page."""

    @cm.method
    def add(self, line: str) -> int: ...


@pytest.mark.skipif(os.getuid() != 0, reason="needs two users")
def test_the_service_tells_its_clients_apart(fork):
    """Root is refused; each other user has notes of its own, and has them again."""
    with directory() as place:
        path = place / "notes.sock"
        assert SERVICE.count("/tmp/notes.sock") == CLIENT.count("/tmp/notes.sock") == 1
        client = CLIENT.replace("/tmp/notes.sock", str(path))

        def add_two():
            scope = {"cm": cm, "Notes": Notes}
            added = []
            for _ in range(2):
                exec(client, scope)
                added.append(scope["notes"].add("a line"))
            return added

        program = SERVICE.replace("/tmp/notes.sock", str(path))
        with subprocess.Popen([sys.executable, "-P", "-W", "error", "-c", program]) as service:
            try:
                until(lambda: failure(path)[0] == "Refused")
                # Each is another user.
                assert [fork(add_two, ordinary=True).result() for _ in range(2)] == [[1, 2], [1, 2]]
            finally:
                service.kill()


def test_the_service_ends_by_sigterm():
    """By itself, with what it has made."""
    with directory() as place:
        path = place / "notes.sock"
        before, serving, rest = SERVICE.replace("/tmp/notes.sock", str(path)).partition("with contextlib.closing(ep):")
        program = before + ENDING + serving + rest
        with subprocess.Popen([sys.executable, "-P", "-W", "error", "-c", program]) as service:
            until(lambda: failure(path)[0] != "Disconnected")
            service.terminate()
        assert service.returncode == 0
        assert not path.exists()


def _python(program, place, **options):
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, text=True, **options)


def test_sessions_end_with_their_clients_and_the_service_with_them():
    """Told to end, it lets nobody in, serves who is in, and ends when he is killed."""
    asks = 'input(); print(session.add("another"), flush=True); input()'
    assert SESSION_CLIENT.count("del session ") == SESSION_CLIENT.count("print(") == 1
    client = SESSION_CLIENT.replace('add("a line"))', 'add("a line"), flush=True)').replace("del session ", asks)
    with directory() as place:
        (place / "sessions.py").write_text(SESSIONS, encoding="utf-8")
        path = place / "sessions.sock"
        with subprocess.Popen([sys.executable, "-W", "error", "sessions.py"], cwd=place) as service:
            try:
                until(lambda: failure(path)[0] != "Disconnected")
                # As it stands: it ends by itself, and its session with it.
                with _python(SESSION_CLIENT, place) as passing:
                    assert passing.communicate(timeout=PATIENCE) == ("1\n", None)
                with _python(client, place, stdin=subprocess.PIPE) as staying:
                    try:
                        assert staying.stdout.readline() == "1\n"
                        service.terminate()
                        until(lambda: not path.exists())
                        staying.stdin.write("\n")
                        staying.stdin.flush()
                        assert staying.stdout.readline() == "2\n"
                        assert service.poll() is None
                    finally:
                        staying.kill()
                assert service.wait(PATIENCE) == 0
            finally:
                service.kill()


PARENT = """
import os, signal, sys
import capmarshal as cm

class Here(cm.Interface): ...

ep = cm.Entrypoint("parent")
child = cm.spawn([sys.executable, "-P", "-W", "error", "-c", sys.argv[1]], parent=ep.manage(Here()))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_ends_with_its_parent():
    """Which is killed."""
    command = [sys.executable, "-P", "-W", "error", "-c", PARENT, CHILD + '\nprint("ended")']
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", -signal.SIGKILL)


def test_the_activated_service_compiles():
    """That it serves is tested in test_activation.py."""
    compile(ACTIVATED, "services.md", "exec")


def test_every_error_of_connect_is_told():
    """Those that its docstring names, but for what no caller expects."""
    told = set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE))
    said = set(re.findall(r"^ {4}(\w+): ", inspect.getdoc(cm.connect).partition("Raises:")[2], re.MULTILINE))
    assert said - told == {"RuntimeError", "TableFull", "TypeError", "ValueError"}
