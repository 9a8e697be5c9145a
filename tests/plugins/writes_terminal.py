"""Writes to the terminal, and types into it."""

import fcntl
import os

from host_api import Host

import capmarshal as cm

log = cm.parent().cast(Host).log()
for number in (0, 1, 2):
    try:
        fcntl.ioctl(number, 0x5412, b"x")
        log.write("HARM: typed")
    except PermissionError:
        log.write("refused: TIOCSTI")
try:
    os.open("/dev/tty", os.O_WRONLY)
    log.write("HARM: the terminal")
except PermissionError:
    log.write("refused: the terminal")
