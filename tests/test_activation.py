"""Sockets that a supervisor passes, and telling it that the service is ready: systemd's protocol, whoever speaks it."""

import contextlib
import gc
import os
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
from capmarshal._child import activation
from capmarshal._descriptors import reaper
from capmarshal._descriptors.private import Private
from interrupting import Interrupting
from patience import PATIENCE
from services import connected, double, failure

ACTIVATE = shutil.which("systemd-socket-activate")

# What a supervisor starts: the variables name the process that it is after the exec.
_BECOME = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])"

SERVICE = """
import os, sys
import capmarshal as cm

class Work(cm.Interface):
    @cm.method
    def double(self, value: int) -> int: ...

class Worker(Work):
    def double(self, value: int) -> int:
        return 2 * value

entrypoint = cm.Entrypoint("service")
entrypoint.listen(cm.activated(sys.argv[1]), Worker())
assert not [name for name in os.environ if name.startswith("LISTEN_")]
cm.notify_ready()
entrypoint.serve_forever()
"""


def listening(path, kind=socket.SOCK_SEQPACKET):
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(str(path))
    made.listen()
    return made


def activate(program, *arguments, passed, names=None, **variables):
    """Starts a program as systemd would, with the sockets from 3 up."""
    environment = {**os.environ, "LISTEN_FDS": str(len(passed)), **variables}
    if names is not None:
        environment["LISTEN_FDNAMES"] = names

    def place_them():
        copies = [os.dup2(one.fileno(), 100 + number) for number, one in enumerate(passed)]
        for number, copy in enumerate(copies, 3):
            os.dup2(copy, number)

    return subprocess.Popen(
        [sys.executable, "-c", _BECOME, sys.executable, "-P", "-W", "error", "-c", program, *arguments],
        env=environment,
        close_fds=False,
        preexec_fn=place_them,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process, code=0):
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    return out.splitlines(), err


def printing(*lines):
    return "import os, socket, subprocess, sys\nimport capmarshal as cm\n" + "\n".join(lines)


def test_a_service_takes_the_socket_that_it_was_passed(place):
    """Who connects before it is started waits; when it ends, the socket is as it was, and the next one takes it."""
    with listening(place) as made:
        for _ in range(2):
            waiting = by_hand.Concurrent(double, place)
            with activate(SERVICE, "work", passed=[made], names="work") as service:
                try:
                    assert waiting.outcome() == 8
                    assert double(place) == 8
                finally:
                    service.kill()
            assert place.is_socket()


@pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed (Debian: systemd)")
def test_systemd_passes_it(place):
    """As systemd-socket-activate does, which starts the service for the first that connects."""
    command = [
        ACTIVATE,
        "--seqpacket",
        f"--listen={place}",
        "--fdname=work",
        sys.executable,
        "-P",
        "-c",
        SERVICE,
        "work",
    ]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as started:
        try:
            while True:
                line = started.stderr.readline()
                assert line, "systemd-socket-activate has ended"
                if b"Listening on" in line:
                    break
            assert double(place) == 8
            assert double(place) == 8
        finally:
            started.kill()


def test_each_call_gives_the_next_of_a_name(tmp_path):
    """Those of others stay; and it is said which there are."""
    made = [listening(tmp_path / str(number)) for number in range(3)]
    program = printing(
        "print(cm.activated('b').getsockname())",
        "print(cm.activated('a').getsockname())",
        "try: cm.activated('c')",
        "except cm.NotActivated as error: print(error)",
        "print(cm.activated('a').getsockname())",
        "try: cm.activated('a')",
        "except LookupError as error: print(error)",
    )
    process = activate(program, passed=made, names="a:b:a")
    lines, _ = process.communicate(timeout=PATIENCE)
    b, first, wrong, second, none = lines.splitlines()
    assert [b, first, second] == [str(tmp_path / number) for number in "102"]
    assert "none called 'c', but 'a'" in wrong
    assert "none any more" in none
    for one in made:
        one.close()


def test_without_names_they_are_unknown(place):
    """As sd_listen_fds_with_names(3) has it."""
    with listening(place) as made:
        program = printing("with cm.activated('unknown') as made: print(made.getsockname())")
        assert said(activate(program, passed=[made]))[0] == [str(place)]


def test_nothing_goes_on_to_children(place):
    """Neither the variables nor the descriptors, of any of them; a forked child has none either."""
    with listening(place) as made:
        program = printing(
            "with cm.activated('a') as taken:",
            "    shown = [name for name in os.environ if name.startswith('LISTEN_')]",
            "    print(shown, os.get_inheritable(taken.fileno()), os.get_inheritable(4))",
            "    if (pid := os.fork()) == 0:",
            "        try: cm.activated('b')",
            "        except cm.NotActivated as error: os._exit(5 if \"but 'b'\" not in str(error) else 6)",
            "        os._exit(0)",
            "    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
            "    cm.activated('b').close()",
        )
        assert said(activate(program, passed=[made, made], names="a:b"))[0] == ["[] False False", "5"]


def test_ctrl_c_between_two_steps_of_taking_one_leaves_no_number_behind(fork, place):
    """It is to be had still, or closed: what was closed is never taken for a socket again."""
    files = [activation.__file__, socket.__file__, Path(cm.__file__).parent / "_descriptors/descriptor.py"]

    def taken(at, made):
        owner = Private(os.dup(made.fileno()))
        number = owner.number
        activation._passed[:] = [("a", owner)]
        interrupting = Interrupting(at, KeyboardInterrupt, files)
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            cm.activated("a").close()
        with contextlib.suppress(cm.NotActivated):
            cm.activated("a").close()
        gc.collect()
        assert reaper.wait(PATIENCE)
        assert not Path(f"/proc/self/fd/{number}").exists(), interrupting.where
        return interrupting.where

    def sweep():
        # What Ctrl-C keeps from being returned is found unclosed.
        warnings.simplefilter("ignore", ResourceWarning)
        at = 0
        with listening(place) as made:
            while taken(at, made):
                at += 1
        return at

    assert fork(sweep).result() > 5


def test_ctrl_c_between_two_steps_of_taking_over_loses_none(fork, place, monkeypatch):
    """Each is to be had after that, once, and the variables are gone."""
    files = [activation.__file__, "<frozen os>", "<frozen _collections_abc>"]
    # Above what is open here.
    first = 300
    monkeypatch.setattr(activation, "_FIRST", first)

    def taken(at, made):
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="3", LISTEN_FDNAMES="a:b:closed")
        numbers = [os.dup2(made.fileno(), first), os.dup2(made.fileno(), first + 1)]
        activation._passed.clear()
        activation._taken.clear()
        interrupting = Interrupting(at, KeyboardInterrupt, files)
        with contextlib.suppress(KeyboardInterrupt, cm.NotActivated), interrupting:
            cm.activated("nobody's")
        for number, name in zip(numbers, "ab", strict=True):
            with cm.activated(name) as had:
                assert had.fileno() == number, interrupting.where
            with pytest.raises(cm.NotActivated):
                cm.activated(name)
        assert not [name for name in os.environ if name.startswith("LISTEN_")], interrupting.where
        gc.collect()
        assert reaper.wait(PATIENCE)
        assert not any(Path(f"/proc/self/fd/{number}").exists() for number in numbers), interrupting.where
        return interrupting.where

    def sweep():
        at = 0
        with listening(place) as made:
            while taken(at, made):
                at += 1
        return at

    assert fork(sweep).result() > 20


def test_what_is_no_socket_is_said_and_closed(fork):
    """And is there no more the next time."""

    def take():
        activation._passed[:] = [("a", Private(os.dup(0)))]
        with pytest.raises(cm.KernelError, match="making a socket"):
            cm.activated("a")
        with pytest.raises(cm.NotActivated):
            cm.activated("a")

    fork(take).result()


@pytest.mark.parametrize(
    ("said_of_whom", "words"),
    [("os.environ['LISTEN_PID'] = '1'", "says '1': "), ("del os.environ['LISTEN_PID']", "is not set: ")],
)
def test_what_was_passed_to_another_process_is_not_taken(place, said_of_whom, words):
    """LISTEN_PID names it, or nobody does: a parent did not clean up, or whoever started this does not say it."""
    with listening(place) as made:
        program = printing(
            said_of_whom,
            "try: cm.activated('unknown')",
            "except cm.NotActivated as error: print(error)",
            "print(os.environ['LISTEN_FDS'], os.fstat(3).st_mode != 0)",
        )
        lines, _ = said(activate(program, passed=[made]))
        assert f" LISTEN_PID, which is to say that there is, {words}" in lines[0]
        assert lines[1] == "1 True"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"LISTEN_FDS": "many"}, "LISTEN_FDS is a number"),
        ({"LISTEN_FDS": "-1"}, "LISTEN_FDS is a number"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, "LISTEN_FDNAMES has 1"),
        ({"LISTEN_FDS": "0"}, "there is none"),
        ({"LISTEN_FDS": "2000000000"}, "LISTEN_FDS says more"),
        ({"LISTEN_FDS": "9" * 30}, "LISTEN_FDS says more"),
        ({"LISTEN_FDS": "9" * 5000}, "LISTEN_FDS says more"),
    ],
)
def test_variables_that_make_no_sense_are_said(monkeypatch, variables, words):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(cm.NotActivated, match=words):
        cm.activated("a")


def test_a_process_that_was_passed_nothing_is_told():
    with pytest.raises(cm.NotActivated, match="systemd-socket-activate"):
        cm.activated("a")


def test_a_socket_of_another_kind_is_refused_when_it_is_listened_to(place):
    """In the words of the unit."""
    with listening(place, socket.SOCK_STREAM) as made:
        program = printing(
            "with cm.Entrypoint('service') as entrypoint:",
            "    try: entrypoint.listen(cm.activated('unknown'), for_client=print)",
            "    except TypeError as error: print(error)",
        )
        lines, _ = said(activate(program, passed=[made]))
        assert "ListenSequentialPacket=" in lines[0]


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_is_told(monkeypatch, place, abstract):
    """By a path or an abstract name; it may be told again."""
    address = f"@capmarshal-test-{os.urandom(8).hex()}" if abstract else str(place)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waits:
        waits.bind(address.replace("@", "\0", 1) if abstract else address)
        waits.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        for _ in range(2):
            cm.notify_ready()
            assert waits.recv(100) == b"READY=1"


@pytest.mark.parametrize("value", [None, ""])
def test_nothing_is_told_where_nobody_wants_to_know(monkeypatch, value):
    if value is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", value)
    cm.notify_ready()


@pytest.mark.parametrize("where", ["vsock:2:1234", "relative", "/nowhere/at/all"])
def test_what_cannot_be_told_is_said(monkeypatch, where):
    monkeypatch.setenv("NOTIFY_SOCKET", where)
    with pytest.raises(cm.Error, match="NOTIFY_SOCKET"):
        cm.notify_ready()


def test_a_supervisor_that_does_not_listen_keeps_nobody(monkeypatch, place):
    """Its queue is full: it is waited for until the deadline."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waits:
        waits.bind(str(place))
        monkeypatch.setenv("NOTIFY_SOCKET", str(place))
        with contextlib.ExitStack() as fillers, contextlib.suppress(BlockingIOError):
            filler = fillers.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            filler.setblocking(False)
            while True:
                filler.sendto(b"x", str(place))
        for timeout in (0, 0.05):
            with pytest.raises(cm.CallTimeout, match="stayed full"):
                cm.notify_ready(timeout)
        with cm.timeout(0.05), pytest.raises(cm.CallTimeout):
            cm.notify_ready()


def test_who_connected_before_the_service_ended_is_served_by_the_next(place):
    """Nobody sees a restart that has not been answered yet."""
    with listening(place) as made, connected(place) as waiting:
        with activate(SERVICE, "work", passed=[made], names="work") as service:
            assert waiting.recv(100)
            service.kill()
        assert failure(place, 0.05)[0] == "CallTimeout"
