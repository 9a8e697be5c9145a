"""Starts spool.py, and starts it again whenever it ends: what systemd does by systemd/spool.socket and spool.service.

The socket is the supervisor's.  So it is always there, and who connects while no service runs waits for the next one.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

from spool import NAME, PATH

SERVICE = Path(__file__).with_name("spool.py")

# The first of the sockets that are passed has this number, sd_listen_fds(3).
FIRST = 3
# The variable that says whose they are has the service's own process ID, which only that knows.
START = 'LISTEN_PID=$$ exec "$@"'


def main() -> int:
    """Ends when the service does so by itself: with status 0."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # What bind() gives the file.
    os.fchmod(listening.fileno(), 0o600)
    Path(PATH).unlink(missing_ok=True)
    listening.bind(PATH)
    listening.listen()
    if listening.fileno() != FIRST:
        os.dup2(listening.fileno(), FIRST)
    environment = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": NAME}
    command = ["/bin/sh", "-c", START, "sh", sys.executable, str(SERVICE), *sys.argv[1:]]
    while True:
        with subprocess.Popen(command, env=environment, pass_fds=[FIRST]) as service:  # noqa: S603 - it is ours
            print(f"started {service.pid}", flush=True)
        if service.returncode == 0:
            return 0


if __name__ == "__main__":
    sys.exit(main())
