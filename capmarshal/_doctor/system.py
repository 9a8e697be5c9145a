"""What the kernel says of itself, in files."""

from __future__ import annotations

import os
from pathlib import Path


def sysctl(name: str) -> str | None:
    """The value of one, as of ``kernel.pid_max``; None where there is none, or it is not to be seen."""
    return text(f"/proc/sys/{name.replace('.', '/')}")


def text(path: str) -> str | None:
    """What a file says, without what stands around it; None where it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="backslashreplace").strip()
    except OSError:
        return None


def status(field: str) -> str | None:
    """A line of ``/proc/self/status``; None where that is not to be seen."""
    for line in (text("/proc/self/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return None


def kernel() -> tuple[int, int]:
    """Its version; (0, 0) where it has none that says anything."""
    first, second, *_ = (*os.uname().release.split("."), "0")
    digits = "".join(each for each in second if each.isdecimal())
    return (int(first), int(digits or 0)) if first.isdecimal() else (0, 0)


def is_root() -> bool:
    """Whether no limit of a user's binds this process: it is root, and not only in a user namespace."""
    return os.geteuid() == 0 and (text("/proc/self/uid_map") or "").split()[:2] in ([], ["0", "0"])
