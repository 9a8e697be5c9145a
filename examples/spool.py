"""A service that processes started by anybody may use: it writes lines down, one after the other.

    python spool.py FILE        listens at spool.sock, in the current directory
    python supervise.py FILE    starts it, and again whenever it ends, as systemd does by systemd/spool.service
    python spool_client.py      writes a thousand lines, whatever becomes of the service meanwhile

Who may connect is for the file system to say: the socket's permissions are 0600, so those of the same user may.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

import capmarshal as cm

NAME = "spool.socket"
PATH = "spool.sock"


class Spool(cm.Interface):
    """What a client may ask for."""

    @cm.method
    @cm.raises(ValueError)
    def append(self, line: str) -> int:
        """Writes a line behind all others; how many there are then."""

    @cm.method
    def lines(self) -> int:
        """How many there are."""


class SpoolServer(Spool):
    """Keeps the lines in a file, which tells the next server how far this one has come."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lines = path.read_bytes().count(b"\n")

    def append(self, line: str) -> int:
        """See :meth:`Spool.append`."""
        if "\n" in line:
            raise ValueError("it is more than a line")
        self._file.write(f"{line}\n".encode())
        self._lines += 1
        return self._lines

    def lines(self) -> int:
        """See :meth:`Spool.lines`."""
        return self._lines


def main() -> None:
    """Serves until SIGTERM, and answers the call that this interrupts."""
    # Closed: before it is served.
    with contextlib.suppress(cm.Closed), contextlib.closing(cm.Entrypoint("spool")) as entrypoint:
        # Not sys.exit(): it would be raised in the method that runs, and be the answer of its call.
        signal.signal(signal.SIGTERM, lambda _number, _frame: entrypoint.close())
        where = cm.activated(NAME) if "LISTEN_FDS" in os.environ else PATH
        entrypoint.listen(where, SpoolServer(Path(sys.argv[1])))
        cm.notify_ready()
        entrypoint.serve_forever()


if __name__ == "__main__":
    main()
