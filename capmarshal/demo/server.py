"""The digest server: reads what it is handed, and knows of no path."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import capmarshal as cm
from capmarshal.demo import lifeline
from capmarshal.demo.interfaces import Digest, Registry

if TYPE_CHECKING:
    import io

_CHUNK = 1 << 18  # bytes


class DigestServer(Digest):
    """The one object of this process."""

    def sha256(self, file: io.BufferedReader) -> str:
        """See :meth:`Digest.sha256`."""
        checksum = hashlib.sha256()
        # Not file.read(): where the client has made the file non-blocking, that returns None, as if at the end.
        while chunk := os.read(file.fileno(), _CHUNK):
            checksum.update(chunk)
        return checksum.hexdigest()


def main() -> None:
    """Announces the service and serves until the broker is gone."""
    parent = cm.parent()
    lifeline.end_with(parent)
    entrypoint = cm.Entrypoint("digest")
    digest = DigestServer()
    entrypoint.manage(digest)
    parent.cast(Registry).announce(digest)
    entrypoint.serve_forever()


if __name__ == "__main__":
    main()
