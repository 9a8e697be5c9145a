"""Connects, listens, and sends datagrams by name."""

import socket

from host_api import Host

import capmarshal as cm

log = cm.parent().cast(Host).log()
for family, kind in (
    (socket.AF_INET, socket.SOCK_STREAM),
    (socket.AF_UNIX, socket.SOCK_DGRAM),
    (socket.AF_NETLINK, socket.SOCK_RAW),
):
    try:
        socket.socket(family, kind)
        log.write("HARM: a socket")
    except PermissionError:
        log.write("refused: socket")
try:
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendmsg([b"out"], [], 0, b"\0outside")
    log.write("HARM: a datagram by name")
except PermissionError:
    log.write("refused: socketpair")
