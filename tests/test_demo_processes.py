"""``capmarshal demo``: which process holds what, and how they end."""

import contextlib
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

import capmarshal as cm
from capmarshal.demo import broker, holders
from demo_process import DEMO, SOON, Running, command_of, find_child, gone, holds, run
from patience import until


@pytest.fixture
def start():
    """Starts a demo in the background."""
    started = []

    def start_one(*arguments, command=DEMO):
        started.append(Running([*command, *arguments]))
        return started[-1]

    yield start_one
    for running in started:
        running.clear_up()


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def blocked_server(start, fifo):
    """A demo whose server waits in read(2) for what nobody writes."""
    with cm.Descriptor(os.open(fifo, os.O_RDWR | os.O_CLOEXEC)):
        running = start(fifo)
        until(lambda: holds(running.server, fifo))
        yield running


def test_verbose_shows_one_descriptor_of_each_entrypoint_in_each_process(tmp_path):
    (tmp_path / "data").touch()
    head, *rows = run("--verbose", *["data"] * 20, cwd=tmp_path).stderr.decode().splitlines()
    assert head.split("  ")[-2:] == ["broker entrypoint", "digest entrypoint"]
    assert [row.rsplit(maxsplit=3)[0] for row in rows] == ["broker", "digest server", "client"]
    assert [row.split()[-2:] for row in rows] == [["1", "1"]] * 3
    assert len({row.split()[-3] for row in rows}) == 3


def test_without_verbose_nothing_is_shown(tmp_path):
    (tmp_path / "data").touch()
    assert run("data", cwd=tmp_path).stderr == b""


def test_the_table_counts_what_the_kernel_shows():
    with contextlib.ExitStack() as stack:
        null = stack.enter_context(Path(os.devnull).open("rb"))
        pair = [stack.enter_context(end) for end in socket.socketpair()]
        stack.enter_context(pair[0].dup())
        assert holders.count(os.getpid(), os.fstat(pair[0].fileno()).st_ino) == 2
        assert holders.count(os.getpid(), os.fstat(pair[1].fileno()).st_ino) == 1
        assert holders.count(os.getpid(), os.fstat(null.fileno()).st_ino) == 0


def test_arguments_and_environment_of_the_children_tell_nothing(blocked_server, fifo):
    """No badge: they are what anybody could have written down beforehand, and in which socket the capability waits."""
    environment = Path(f"/proc/{blocked_server.pid}/environ").read_bytes().split(b"\0")
    expected = {
        blocked_server.server: [*map(os.fsencode, broker.SERVER)],
        blocked_server.client: [*map(os.fsencode, broker.CLIENT), os.fsencode(fifo)],
    }
    assert len(expected) == 2
    for pid, command in expected.items():
        assert command_of(pid) == command
        own = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        (told,) = [line for line in own if line not in environment]
        assert re.fullmatch(rb"CAPMARSHAL_PARENT=\d+:\d+", told)
        own.remove(told)
        assert sorted(own) == sorted(environment)


def test_the_server_is_given_nothing_but_its_parent_capability(blocked_server, fifo):
    """Its standard streams are null, but for complaints; it has what it made itself, and the file that was passed."""
    descriptors = Path(f"/proc/{blocked_server.server}/fd")
    assert [str((descriptors / number).readlink()) for number in "01"] == ["/dev/null"] * 2
    kinds = [str(entry.readlink()).partition(":")[0] for entry in descriptors.iterdir() if int(entry.name) > 2]
    # Of its entrypoint: two ends, an epoll set, an eventfd, and the pair by which signals wake it; a channel each way,
    # and the parent's door.  And what tells which mounts there are, and, where the kernel tells who knocks, the pidfd
    # of the one client.
    kinds = sorted(kinds)
    if kinds.count("anon_inode") == 3:
        kinds.remove("anon_inode")
    mounts = f"/proc/{blocked_server.server}/mountinfo"
    assert kinds == sorted([*["socket"] * 7, *["anon_inode"] * 2, mounts, str(fifo)])


@pytest.mark.parametrize("whom", ["the group", "the broker"])
def test_ctrl_c_while_the_server_waits_for_a_fifo(blocked_server, whom):
    pids = [blocked_server.server, blocked_server.client]
    began = time.monotonic()
    (os.killpg if whom == "the group" else os.kill)(blocked_server.pid, signal.SIGINT)
    assert blocked_server.ends() == (130, b"", b"")
    assert time.monotonic() - began < SOON / 2
    assert all(map(gone, pids))


def test_ctrl_c_while_the_client_waits_to_open_a_fifo(start, fifo):
    running = start(fifo)
    pids = [running.server, running.client]
    os.killpg(running.pid, signal.SIGINT)
    assert running.ends() == (130, b"", b"")
    assert all(map(gone, pids))


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.15])
def test_ctrl_c_while_the_children_start(start, fifo, delay):
    """Python answers Ctrl-C with a traceback while it starts: the children do not see it."""
    running = start(fifo)
    first = running.server
    time.sleep(delay)  # waits for nothing: the moment is what is tried
    os.killpg(running.pid, signal.SIGINT)
    assert running.ends() == (130, b"", b"")
    assert gone(first)


def test_a_server_that_ends_before_it_is_ready(capfd):
    assert broker.run(["x"], server=[sys.executable, "-P", "-c", "raise SystemExit(3)"]) == 1
    assert capfd.readouterr() == ("", "capmarshal: the digest server ended before it was ready: exit status 3\n")


def test_a_server_that_is_killed_before_it_is_ready(start):
    """Here it would never be."""
    script = "import sys; from capmarshal.demo import broker; sys.exit(broker.run(['x'], server=['sleep', '1000']))"
    running = start(command=[sys.executable, "-P", "-c", script])
    os.kill(until(lambda: find_child(running.pid, b"sleep")), signal.SIGKILL)
    assert running.ends() == (1, b"", b"capmarshal: the digest server ended before it was ready: signal 9\n")


def test_a_server_that_is_killed_while_it_reads(blocked_server):
    os.kill(blocked_server.server, signal.SIGKILL)
    assert blocked_server.ends() == (1, b"", b"capmarshal: the digest server is gone\n")


def test_a_client_that_is_killed(blocked_server):
    server = blocked_server.server
    os.kill(blocked_server.client, signal.SIGKILL)
    assert blocked_server.ends() == (1, b"", b"capmarshal: the client was ended: signal 9\n")
    assert gone(server)


def test_a_broker_that_is_killed_takes_both_along(blocked_server):
    """Whatever they wait for: nobody tells them but the kernel."""
    pids = [blocked_server.server, blocked_server.client]
    os.kill(blocked_server.pid, signal.SIGKILL)
    until(lambda: all(map(gone, pids)))
