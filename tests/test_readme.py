"""What the README shows works as it stands there."""

import builtins
import contextlib
import functools
import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import capmarshal as cm
from documents import fenced, read
from patience import PATIENCE, until
from services import failure

README = Path(__file__).parents[1] / "README.md"
BLOCKS = fenced(read("README.md"))


def _run(script, directory):
    return subprocess.run(
        [sys.executable, "-W", "error", script], cwd=directory, capture_output=True, text=True, timeout=30, check=False
    )


def test_the_example_of_the_first_screen_runs(tmp_path):
    """A server and the worker that it starts print the sum of a file that the server never sees the path of."""
    digest, worker, *_ = BLOCKS
    (tmp_path / "digest.py").write_text(digest, encoding="utf-8")
    (tmp_path / "worker.py").write_text(worker, encoding="utf-8")
    (tmp_path / "data.bin").write_bytes(b"any bytes" * 1000)
    done = _run("digest.py", tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == hashlib.sha256(b"any bytes" * 1000).hexdigest() + "\n"
    # And its status is the worker's.
    (tmp_path / "data.bin").unlink()
    done = _run("digest.py", tmp_path)
    assert done.returncode == 1
    assert "data.bin" in done.stderr


def test_the_service_and_its_client_run_as_by_hand(tmp_path):
    """Each is started by itself, in any order of terminals; Ctrl-C ends the service, and its socket's file goes."""
    digest, _, service, client, *_ = BLOCKS
    for name, block in (("digest", digest), ("service", service), ("client", client)):
        (tmp_path / f"{name}.py").write_text(block, encoding="utf-8")
    (tmp_path / "data.bin").write_bytes(b"any bytes" * 1000)
    command = [sys.executable, "-W", "error", "service.py"]
    # Ignored, where the tests run in a shell's background.
    as_by_hand = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, preexec_fn=as_by_hand) as running:
        try:
            until(lambda: failure(tmp_path / "digest.sock")[0] != "Disconnected")
            for _ in range(2):
                done = _run("client.py", tmp_path)
                assert (done.stderr, done.returncode) == ("", 0)
                assert done.stdout == hashlib.sha256(b"any bytes" * 1000).hexdigest() + "\n"
            (called,) = re.findall(r"`capmarshal (call [^`]*)`", README.read_text(encoding="utf-8"))
            by_shell = [sys.executable, "-P", "-m", "capmarshal", *called.split()]
            said = subprocess.check_output(by_shell, cwd=tmp_path, text=True, timeout=PATIENCE)
            assert said == f'"{hashlib.sha256(b"any bytes" * 1000).hexdigest()}"\n'
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=PATIENCE)
        finally:
            running.kill()
    assert (err, running.returncode) == (b"", 0)
    assert not (tmp_path / "digest.sock").exists()
    done = _run("client.py", tmp_path)
    assert done.stderr.splitlines()[-1].startswith("capmarshal.Disconnected: connecting to 'digest.sock': ")


def test_the_patient_server_is_not_kept_by_a_pipe_without_end(quiet_log):
    """One that nobody writes to, and one that always has more; and it digests what ends."""
    scope = {"__name__": "digest"}
    digest, *_ = BLOCKS
    (patient,) = (block for block in BLOCKS if "PatientDigestServer" in block)
    exec(digest, scope)
    exec(patient.replace("from digest import Digest\n", "").replace("timeout(10)", "timeout(0.1)"), scope)
    with cm.Entrypoint("digest") as entrypoint, contextlib.ExitStack() as stack, cm.timeout(30):
        proxy = entrypoint.manage(scope["PatientDigestServer"]()).cast(scope["Digest"])
        silent, kept = os.pipe()
        stack.callback(os.close, kept)
        for file in (stack.enter_context(open(silent, "rb")), stack.enter_context(open("/dev/zero", "rb"))):
            with pytest.raises(cm.RemoteError, match="did not come in time"):
                proxy.sha256(file)
        with open(README, "rb") as file:
            assert proxy.sha256(file) == hashlib.sha256(README.read_bytes()).hexdigest()
        cm.capability(proxy).close()


def test_the_example_of_errors_declares_them():
    """They arrive as themselves, with their notes; a path arrives if the call named it."""
    scope = {"__name__": "store"}
    (declares,) = (block for block in BLOCKS if "cm.raises" in block)
    exec(declares, scope)

    class Server(scope["Store"]):
        def get(self, key):
            error = KeyError(key) if key == "key" else FileNotFoundError(2, "No such file", "/there/file")
            error.add_note("noted")
            raise error

    with cm.Entrypoint("store") as entrypoint, cm.timeout(30):
        store = entrypoint.manage(Server()).cast(scope["Store"])
        with pytest.raises(KeyError, match="key") as caught:
            store.get("key")
        assert caught.value.__notes__[0] == "noted"
        for key, path in (("file", None), ("/there/file", "/there/file")):
            with pytest.raises(FileNotFoundError) as caught:
                store.get(key)
            assert caught.value.filename == path
        cm.capability(store).close()


def test_the_example_of_messages_runs(tmp_path):
    """Two buffers and a file arrive as one record."""
    *_, messages = BLOCKS
    (tmp_path / "messages.py").write_text(messages, encoding="utf-8")
    done = _run("messages.py", tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.startswith("b'two buffers'")


def test_every_error_is_in_the_table():
    """With the builtins that it is, in the order of the class."""
    errors = README.read_text(encoding="utf-8").partition("## Errors")[2]
    table = re.findall(r"^\| (`[^|]*)\|([^|]*)\|.*\|$", errors, re.MULTILINE)
    rows = {
        name: re.findall(r"`(\w+)`", builtins) for names, builtins in table for name in re.findall(r"`(\w+)`", names)
    }
    kinds = [kind for name in cm.__all__ if isinstance(kind := getattr(cm, name), type) and issubclass(kind, cm.Error)]
    for kind in kinds:
        if kind is not cm.Error:
            assert kind.__name__ in rows
            assert all(issubclass(kind, getattr(builtins, name)) for name in rows[kind.__name__]), kind


def test_no_link_leads_nowhere():
    """What the README points to in this repository is there."""
    targets = re.findall(r"\]\(([^):#]+)\)", README.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (README.parent / target).exists()] == []
