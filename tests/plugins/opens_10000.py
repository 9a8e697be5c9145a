"""Opens 10,000 descriptors, and has them in flight."""

import os
import socket

from host_api import Host

import capmarshal as cm

log = cm.parent().cast(Host).log()
held = []
try:
    while len(held) < 10_000:
        held.append(os.dup(0))
    log.write("HARM: 10,000 descriptors")
except OSError:
    while held:
        os.close(held.pop())
    log.write("refused: descriptors")
sent = 0
pairs = []
try:
    while True:
        pairs.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        for _ in range(40):
            socket.send_fds(pairs[-1][0], [b"x"], [0] * 253)
            sent += 253
except OSError:
    pass
for one, other in pairs:
    one.close()
    other.close()
# Of root's, there may be as many in flight as fit.
log.write(f"refused: in flight, {'few' if sent < 1000 or os.getuid() == 0 else 'HARM'}")
