"""Writes lines that are long, many, and not what they seem."""

from host_api import Host

import capmarshal as cm

log = cm.parent().cast(Host).log()
log.write("\x1b[2J\x1b]0;all is well\x07")
log.write("one\nhonest ended with 7")
while True:
    log.write("x" * 1_000_000)
