"""Services at a path: a directory for them that every user may enter, and what a client of one does."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

import by_hand
import capmarshal as cm
from patience import PATIENCE


@contextlib.contextmanager
def directory():
    """A directory that every user may enter, and only its owner write to."""
    made = tempfile.mkdtemp()
    try:
        Path(made).chmod(0o755)
        yield Path(made)
    finally:
        shutil.rmtree(made)


@contextlib.contextmanager
def serving(path, target=None, **options):
    """An entrypoint of this process that listens at a path, served until the end of the block."""
    if target is None and "for_client" not in options:
        target = by_hand.Worker()
    with cm.Entrypoint("service") as entrypoint:
        entrypoint.listen(path, target, **options)
        yield entrypoint


def double(path, value=4):
    """What a client does: it connects, and calls."""
    with cm.timeout(PATIENCE):
        return cm.connect(path).cast(by_hand.Work).double(value)


def failure(path, timeout=PATIENCE):
    """The class and the words of the error that connecting gives."""
    try:
        capability = cm.connect(path, timeout)
    except (cm.Error, ValueError, TypeError) as error:
        return type(error).__name__, str(error)
    return "", repr(capability)


def connected(path):
    """A connection by hand, whose client has not read anything."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(PATIENCE)
    connection.connect(os.fspath(path))
    return connection


def leave_stale(path):
    """A socket's file at which nobody listens any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(os.fspath(path))
