"""Ctrl-C between any two steps of what opens something in passing: it is somebody's at each moment, and is closed."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from pathlib import Path

import pytest

import capmarshal as cm
from capmarshal._child import landlock, own_count, seccomp, spawn
from capmarshal._describe import arguments, running
from capmarshal._descriptors import inbox, mountinfo
from capmarshal._descriptors.foreign import ForeignFile
from capmarshal._inspect import processes, watching
from capmarshal._server import listener
from capmarshal._testing import leaks, peer
from interrupting import Interrupting, InterruptingTwice

PACKAGE = Path(cm.__file__).parent
# What the others stand on.
OWNERS = [
    contextlib.__file__,
    socket.__file__,
    *(PACKAGE / f"_descriptors/{name}.py" for name in ("descriptor", "moving", "private")),
]


def _null_device(_):
    with spawn._null_device({"stdin": -3}):
        pass


def _ruleset(_):
    with landlock.ruleset(1, (), (), (), ()):
        pass


def _rule(_):
    with landlock.ruleset(1, (), (), (), ()) as made:
        made.allow("/usr", landlock.READ)


def _filter(_):
    with seccomp.Filter(seccomp.library()) as made:
        made.program()


def _foreign_file(place):
    with (
        Path(place).open("rb") as file,
        cm.Descriptor.dup_of(file) as descriptor,
        ForeignFile(descriptor, "rb") as raw,
    ):
        assert raw.tell() == 0


def _mount(_):
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    mountinfo._unique_id(next(filter(mountinfo.is_local, lines)))


def _listening(_):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind("")
        made.listen()
        with contextlib.closing(listener._taken(made)) as taken:
            assert made.fileno() < 0 <= taken.number


def _lifeline(_):
    made = peer._Lifeline()
    with made.ours, made.theirs:
        pass


def _output(place):
    with running._output(place):
        pass


OPENING = {
    "the null device": (_null_device, "_child/spawn"),
    "Landlock's ruleset": (_ruleset, "_child/landlock"),
    "Landlock's rule": (_rule, "_child/landlock"),
    "a filter": (_filter, "_child/seccomp"),
    "the try of a user namespace": (lambda _: own_count._tried(), "_child/own_count"),
    "a file's position": (_foreign_file, "_descriptors/foreign"),
    "a mount": (_mount, "_descriptors/mountinfo"),
    "why descriptors are lost": (lambda _: inbox.why_lost(), "_descriptors/inbox"),
    "a socket to listen at": (_listening, "_server/listener"),
    "a peer's lifeline": (_lifeline, "_testing/peer"),
    "a file that is passed": (
        lambda place: arguments._open("file", f"@{place}", os.O_RDONLY).close(),
        "_describe/arguments",
    ),
    "standard input that is passed": (
        lambda _: arguments._open("file", "@-", os.O_RDONLY).close(),
        "_describe/arguments",
    ),
    "a result's file": (_output, "_describe/running"),
    "a process that is looked into": (lambda _: processes.travelling_to(os.getpid(), 0), "_inspect/processes"),
    "its sockets": (lambda _: processes.sockets_of(os.getpid()), "_inspect/processes"),
    "a picture's file": (lambda place: watching._replace(Path(place), "picture"), "_inspect/watching"),
    "a picture's device": (lambda _: watching._replace(Path(os.devnull), "picture"), "_inspect/watching"),
}


@pytest.mark.parametrize(("opening", "module"), OPENING.values(), ids=list(OPENING))
def test_ctrl_c_leaves_nothing_open(fork, tmp_path, monkeypatch, opening, module):
    """Wherever it comes: not between the system call and who closes what that has made, either."""
    if module == "_child/landlock" and not landlock.version():
        pytest.skip("no Landlock here")
    # A thousand steps of what opens nothing.
    monkeypatch.setattr(seccomp, "_NUMBERS_MAX", 2)
    place = tmp_path / "file"
    place.write_bytes(b"content")

    def sweep():
        # What Ctrl-C keeps from being returned is found unclosed.
        warnings.simplefilter("ignore", ResourceWarning)
        opening(str(place))
        before, at = leaks.settled(), 0
        while True:
            interrupting = Interrupting(at, KeyboardInterrupt, [*OWNERS, PACKAGE / f"{module}.py"])
            with contextlib.suppress(KeyboardInterrupt), interrupting:
                opening(str(place))
            wrong = leaks.left(before)
            assert wrong == [], interrupting.where
            if not interrupting.where:
                return at
            at += 1

    assert fork(sweep).result() > 3
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_ctrl_c_while_an_error_is_dealt_with_leaves_no_socket_open(fork):
    """As while a socket is given back that a Descriptor was to be turned into."""

    def sweep():
        warnings.simplefilter("ignore", ResourceWarning)
        near, far = socket.socketpair()
        at = again = 0
        before = leaks.settled()
        while True:
            interrupting = InterruptingTwice(at, again, KeyboardInterrupt, OWNERS)
            with contextlib.suppress(KeyboardInterrupt), interrupting:
                cm.Descriptor.dup_of(near).socket().close()
            wrong = leaks.left(before)
            assert wrong == [], interrupting.where
            if interrupting.times == 2:
                again += 1
            elif interrupting.times:
                at, again = at + 1, 0
            else:
                far.close()
                near.close()
                return at

    assert fork(sweep).result() > 5
