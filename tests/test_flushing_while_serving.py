"""What a method leaves in a writer's buffer for a file that may block is not written in the serving thread."""

from __future__ import annotations

import io
import logging
import os
import pty
import threading
import tty

import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors import reaper
from fuse_file import FuseFile
from patience import PATIENCE


class Scribe(by_hand.Work):
    @cm.method
    def write(self, out: io.BufferedWriter, size: int) -> None: ...


class ScribeServer(by_hand.Worker, Scribe):
    def __init__(self):
        super().__init__()
        self.then = lambda: None

    def write(self, out, size):
        out.write(bytes(size))
        self.then()


@pytest.fixture
def scribe(caplog):
    # A log record that pytest keeps would keep what is in its traceback.
    caplog.set_level(logging.CRITICAL, "capmarshal")
    server = ScribeServer()
    with by_hand.serving(server) as capability:
        yield server, capability
        capability.close()


def test_a_file_of_fuse_whose_server_has_stopped(scribe, tmp_path):
    """Neither written to, nor asked whether it may be."""
    server, capability = scribe
    with FuseFile(tmp_path) as fuse:
        server.then = fuse.stop
        with open(os.open(fuse.path, os.O_WRONLY), "wb") as out:
            calling = by_hand.Concurrent(capability.cast(Scribe).write, out, 100)
            try:
                calling.outcome()
                with by_hand.knock(capability) as near:
                    assert by_hand.lives(near, capability)
            finally:
                fuse.go_on()
        assert reaper.wait(PATIENCE)


def test_a_terminal_with_less_room_than_it_takes(scribe):
    """It polls writable, and has no way to write without blocking: all of it arrives when it is read."""
    server, capability = scribe
    began = threading.Event()
    server.then = began.set
    master, slave = (cm.Descriptor(number) for number in pty.openpty())
    with master, slave:
        tty.setraw(slave.fileno())
        os.set_blocking(slave.fileno(), False)
        filled = 0
        try:
            while True:
                filled += os.write(slave.fileno(), bytes(4096))
        except BlockingIOError:
            pass
        read = len(os.read(master.fileno(), 1000))
        os.set_blocking(slave.fileno(), True)
        with open(os.dup(slave.fileno()), "wb") as out:
            calling = by_hand.Concurrent(capability.cast(Scribe).write, out, 8000)
            assert began.wait(PATIENCE)
            with by_hand.knock(capability) as near:
                assert by_hand.lives(near, capability)
            while read < filled + 8000:
                read += len(os.read(master.fileno(), 65536))
            calling.outcome()
        assert reaper.wait(PATIENCE)
