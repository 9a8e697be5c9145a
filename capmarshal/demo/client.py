"""The client: opens files, and has them read by a server that it knows only by capability."""

from __future__ import annotations

import errno
import os
import sys

import capmarshal as cm
from capmarshal.demo import lifeline, names
from capmarshal.demo.complaints import complain
from capmarshal.demo.interfaces import Digest, Services


def _checksum(digest: Digest, name: str) -> str:
    """Has a file read.

    Raises:
        OSError: by the client when it opens the file, or by the server when it reads it.
    """
    if name == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return digest.sha256(sys.stdin.buffer)  # type: ignore[arg-type]  # typeshed: any BinaryIO; it is a BufferedReader
    with open(name, "rb") as file:  # noqa: PTH123 - Path("") is a directory, and Path("x/") is no longer one
        return digest.sha256(file)


def _print(line: bytes) -> bool:
    """Writes a line at once; False if nobody takes it any more."""
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        os.write(sys.stdout.fileno(), line)
    except BrokenPipeError:
        return False
    except OSError as error:
        complain(f"write error: {error.strerror}")
        return False
    return True


def run(files: list[str]) -> int:
    """Prints the checksums of the files, as ``sha256sum`` does.

    Returns:
        0, or 1 if one could not be read.
    """
    services = cm.parent().cast(Services)
    digest = services.digest()
    status = 0
    for name in files:
        try:
            checksum = _checksum(digest, name)
        except cm.Disconnected:
            complain("the digest server is gone")
            return 1
        except OSError as error:
            complain(f"{names.quoted(name)}: {error.strerror}")
            status = 1
            continue
        if not _print(names.line(checksum, name)):
            return 1
    services.done()
    return status


if __name__ == "__main__":
    lifeline.end_with(cm.parent())
    sys.exit(run(sys.argv[1:]))
