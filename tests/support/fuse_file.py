"""A file whose server can be stopped: of a FUSE file system of its own, whose every close asks the server."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct

import pytest

HEADER, REPLY = struct.Struct("=IIQQIIII"), struct.Struct("=IiQ")
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, ACCESS, INTERRUPT = 1, 2, 3, 14, 15, 18, 25, 26, 34, 36
ROOT, FILE = 1, 2
# Whoever reads waits for the server, and not for a page of memory.
FOPEN_DIRECT_IO = 1
MS_NOSUID, MS_NODEV, MNT_DETACH = 2, 4, 2
_ROOM = 1 << 20

CONTENT = b"abc"


def _attributes(node):
    mode, size = (0o40755, 0) if node == ROOT else (0o100644, len(CONTENT))
    return struct.pack("=6Q10I", node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(operation, node, body):
    """What include/uapi/linux/fuse.h wants; nothing is kept by the kernel for longer than the call."""
    if operation == INIT:
        return struct.pack("=4I2H2I2HI7I", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0, *[0] * 7)
    if operation == LOOKUP:
        return struct.pack("=4Q2I", FILE, 0, 0, 0, 0, 0) + _attributes(FILE)
    if operation == GETATTR:
        return struct.pack("=Q2I", 0, 0, 0) + _attributes(node)
    if operation == OPEN:
        return struct.pack("=Q2I", 1, FOPEN_DIRECT_IO, 0)
    if operation == READ:
        offset, size = struct.unpack_from("=QI", body, 8)
        return CONTENT[offset : offset + size]
    return b"" if operation in (RELEASE, FLUSH, ACCESS) else None


def _serve(device):
    while True:
        request = os.read(device, _ROOM)
        _, operation, unique, node, *_ = HEADER.unpack_from(request)
        if operation in (FORGET, INTERRUPT):
            continue
        answer = _answer(operation, node, request[HEADER.size :])
        error = -38 if answer is None else 0
        answer = answer or b""
        os.write(device, REPLY.pack(REPLY.size + len(answer), error, unique) + answer)


class FuseFile:
    """The path of a file, and its server.  A context manager.

    Attributes:
        path: of the file, which can be opened for reading.
    """

    def __init__(self, directory):
        self._where = os.fsencode(directory)
        self.path = directory / "file"
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            pytest.skip(f"no FUSE here: {error}")
        options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}".encode()
        try:
            if self._libc.mount(b"capmarshal-test", self._where, b"fuse", MS_NOSUID | MS_NODEV, options) != 0:
                pytest.skip(f"no FUSE can be mounted here: {os.strerror(ctypes.get_errno())}")
            self._server = os.fork()
            if self._server == 0:
                with contextlib.suppress(OSError):
                    _serve(device)
                os._exit(0)
        finally:
            os.close(device)

    def stop(self):
        """The server answers nothing from here on."""
        os.kill(self._server, signal.SIGSTOP)
        os.waitid(os.P_PID, self._server, os.WSTOPPED)

    def go_on(self):
        """It answers again."""
        os.kill(self._server, signal.SIGCONT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # The last copy of the device goes with it: whoever waits for an answer gets an error.
        os.kill(self._server, signal.SIGKILL)
        os.waitpid(self._server, 0)
        self._libc.umount2(self._where, MNT_DETACH)
