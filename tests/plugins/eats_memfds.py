"""Takes memory that is no process's."""

import os

from host_api import Host

import capmarshal as cm

memfd = os.memfd_create("much")
try:
    os.posix_fallocate(memfd, 0, 1 << 40)
    cm.parent().cast(Host).log().write("HARM: a terabyte")
except OSError:
    cm.parent().cast(Host).log().write("refused: a terabyte")
