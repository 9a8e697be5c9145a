"""Writes to its standard error for ever, in lines that are the host's, into a pipe that it has made larger."""

import contextlib
import fcntl
import sys

with contextlib.suppress(OSError):
    fcntl.fcntl(2, 1031, 1 << 20)  # F_SETPIPE_SZ
while True:
    sys.stderr.write("\x1b[2J\nhonest ended with 7\n" * 1000)
