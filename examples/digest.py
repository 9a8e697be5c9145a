"""A server that computes checksums of what it is handed, and a child that holds nothing but the right to call it.

Run it in a directory that has a file data.bin: it prints the SHA-256 checksum of that.
"""

import hashlib
import io
import sys
from pathlib import Path

import capmarshal as cm

WORKER = Path(__file__).with_name("worker.py")


class Digest(cm.Interface):
    """What the worker may ask of its parent."""

    @cm.method
    def sha256(self, file: io.BufferedReader) -> str:
        """The checksum of the file's content, from where it stands to its end."""


class DigestServer(Digest):
    """The object behind the capability."""

    def sha256(self, file: io.BufferedReader) -> str:
        """See :meth:`Digest.sha256`."""
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    with cm.Entrypoint("digest") as ep:
        sys.exit(cm.spawn([sys.executable, WORKER], parent=ep.manage(DigestServer())).wait())
