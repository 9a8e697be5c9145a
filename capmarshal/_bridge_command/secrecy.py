"""Where tokens may be printed, and secrets kept: not where all users of a machine, or of its logs, would read them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class NotSecret(Exception):
    """A file may be read by those who are not to have what is in it; the message says what to do."""


def check(mode: int, what: str, path: Path) -> None:
    """Refuses a secret that all users of this machine may read.

    Also where its folders keep them from it today: those may be opened tomorrow.  Of what is no regular file nothing is
    said.

    Args:
        mode: of the file, as stat(2) has it.
        what: it has, for people.
        path: of the file.

    Raises:
        NotSecret: so it is.
    """
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        raise NotSecret(f"{path} has {what}, and may be read by all users of this machine: chmod o-r {path}")


def objection(number: int) -> str:
    """Why a descriptor is not to have tokens; empty if it may.

    Args:
        number: of the descriptor.

    Raises:
        OSError: there is none.
    """
    status = os.fstat(number)
    # systemd.exec(5): the device and the inode of what leads to the journal.
    if os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
        return "the journal would have the tokens: keep them in files, capmarshal bridge run --help"
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH:
        return "all users of this machine may read the file that is to have the tokens: umask 077 before it is made"
    return ""
