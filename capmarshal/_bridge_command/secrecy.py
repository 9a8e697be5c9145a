"""Where tokens may be printed: not where all users of a machine, or who looks at its logs, would read them."""

from __future__ import annotations

import os
import stat


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
