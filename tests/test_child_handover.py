"""Children: what only looks like a handover makes nobody their parent, and loses no descriptor."""

import contextlib
import fcntl
import os
import re
import socket
import subprocess

import pytest

import capmarshal as cm
import child_program
from capmarshal._child import spawn as _child
from capmarshal._protocol import wire as _wire
from patience import PATIENCE


def _with_inherited(program, *inherited):
    """What a child of an ordinary Popen prints that inherits these."""
    done = subprocess.run(
        child_program.python(program),
        pass_fds=[one.fileno() for one in inherited],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


TELL_PARENT = """
try:
    print("has", cm.parent())
except cm.NoParent:
    print("none")
print(sorted(n for n in descriptors() if n > 2 and os.path.exists(f"/proc/self/fd/{n}")))
"""


def _memfd(content, *, sealed=True):
    """A memfd that has the handover's name."""
    made = cm.Descriptor(os.memfd_create(_child._MEMFD_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    os.pwrite(made.fileno(), content, 0)
    if sealed:
        fcntl.fcntl(made.fileno(), fcntl.F_ADD_SEALS, _child._SEALS)
    return made


def _record(number, magic=_child._MAGIC, version=_wire.VERSION):
    return _child._HANDOVER.pack(magic, version, number, b"b" * 16)


@pytest.mark.parametrize(
    ("make", "sealed"),
    [
        (lambda door: b"", True),
        (lambda door: _record(door)[:-1], True),
        (lambda door: _record(door) + b"x", True),
        (lambda door: _record(door, magic=b"x" * 16), True),
        (lambda door: _record(door, version=99), True),
        (_record, False),
        (lambda door: _record(250), True),
        (lambda door: _record(-1), True),
    ],
    ids=["empty", "short", "long", "magic", "version", "unsealed", "closed door", "negative"],
)
def test_a_memfd_that_is_no_handover_is_ignored(make, sealed):
    """Wrong content, not sealed, or nothing at that number: no parent and no noise; the door that it names stays."""
    server, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with server, client, _memfd(make(client.fileno()), sealed=sealed) as memfd:
        told = _with_inherited(TELL_PARENT, memfd, client)
        assert told.split("\n")[:2] == ["none", f"[{client.fileno()}]"]


def test_a_file_that_a_handover_names_stays_open():
    """What is no door is not the handover's to close."""
    with cm.Descriptor(os.memfd_create("other")) as file, _memfd(_record(file.fileno())) as memfd:
        told = _with_inherited(TELL_PARENT, memfd, file)
        assert told.split("\n")[:2] == ["none", f"[{file.fileno()}]"]


def test_a_handover_among_wrong_ones_is_taken():
    """Whatever the order in which they are found; of the wrong ones nothing stays."""
    server, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with server, client, contextlib.ExitStack() as stack:
        contents = [b"", _record(client.fileno()), b""]
        memfds = [stack.enter_context(_memfd(content)) for content in contents]
        told = _with_inherited(TELL_PARENT, *memfds, client)
        assert told.startswith("has <Capability nameless ")
        assert told.split("\n")[1] == f"[{client.fileno()}]"


def test_another_processes_memfd_of_that_name_does_no_harm():
    """One that is not inheritable was made here, for a child that is about to be spawned: it is left alone."""
    with _child._handover(7, b"b" * 16) as memfd:
        _child._inherit()
        assert re.search("capmarshal-parent", os.readlink(f"/proc/self/fd/{memfd.fileno()}"))  # noqa: PTH115
