"""Shuts the sockets that it shares with the host, and changes them."""

import contextlib
import os
import socket
import stat

from host_api import Host

import capmarshal as cm

log = cm.parent().cast(Host).log()


def attack(door):
    for call in (
        lambda: door.shutdown(socket.SHUT_RDWR),
        lambda: door.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8)),
        lambda: door.listen(),
        lambda: door.connect(b"\0outside"),
    ):
        try:
            call()
            log.write("HARM: a door")
        except PermissionError:
            log.write("refused: door")


for number in range(3, 64):
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            with socket.socket(fileno=os.dup(number)) as door:
                attack(door)
log.write("goes on")
