"""Sends nonsense, and its own standard error, through the doors that it has, and makes channels that it never uses."""

import contextlib
import os
import socket
import stat

from host_api import Host

import capmarshal as cm
from capmarshal._protocol import wire

log = cm.parent().cast(Host).log()
doors, ends = [], []
for number in range(3, 64):
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            doors.append(socket.socket(fileno=os.dup(number)))
for door in doors:
    for record in (b"", b"\0" * 16, b"\xff" * 4096):
        for _ in range(100):
            with contextlib.suppress(OSError):
                socket.send_fds(door, [record], [2] * 200, socket.MSG_DONTWAIT)
    # Until its own table is full.
    with contextlib.suppress(OSError):
        while True:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ends.append(near)
            with far:
                socket.send_fds(door, [wire.KNOCK_RECORD], [far.fileno()], socket.MSG_DONTWAIT)
for end in ends:
    end.close()
# Whether it is served any more is its own affair.
with contextlib.suppress(cm.Error):
    log.write("goes on")
