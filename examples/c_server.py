"""Serves a client that is written in C: it writes files in capitals, until the client says that it leaves.

    cc -Wall -o c_client c_client.c && python c_server.py ./c_client c_client.c

The client is started with the one capability, in its standard input; see docs/protocol.md for what is said there.
"""

import os
import sys

import capmarshal as cm

MOST = 1 << 20


class EmptyFile(Exception):
    """There is nothing in it to be written in capitals."""


class Letters(cm.Interface):
    """What the client may ask."""

    @cm.method
    @cm.raises(EmptyFile)
    def upper(self, name: str, file: cm.Descriptor) -> tuple[int, cm.Descriptor]:
        """How many bytes the file has, and another one with them in capitals."""

    @cm.method
    def leave(self) -> None:
        """The client needs nothing more."""


class LettersServer(Letters):
    """The object behind the capability."""

    def __init__(self, entrypoint: cm.Entrypoint) -> None:
        self._entrypoint = entrypoint

    def upper(self, name: str, file: cm.Descriptor) -> tuple[int, cm.Descriptor]:
        """See :meth:`Letters.upper`."""
        # By position: who sends a file shares its offset.
        text = os.pread(file.fileno(), MOST, 0)
        if not text:
            raise EmptyFile(f"{name} is empty")
        written = cm.Descriptor(os.memfd_create("capitals"))
        os.pwrite(written.fileno(), text.upper(), 0)
        return len(text), written

    def leave(self) -> None:
        """See :meth:`Letters.leave`."""
        self._entrypoint.revoke(self, "the client has left")


if __name__ == "__main__":
    with cm.Entrypoint("letters") as ep:
        granted = ep.grant(LettersServer(ep), label="client in C")
        sys.exit(cm.spawn(sys.argv[1:], parent=granted, parent_as_stdin=True).wait())
