"""How what was received is closed, and what ``/proc`` is asked for."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import Final

from capmarshal._doctor import reasons, system
from capmarshal._doctor.finding import Level
from capmarshal._doctor.probe import Lacking, Probe
from capmarshal._kernel.native import ffi, lib

_GROUP: Final = "files"

# include/uapi/linux/stat.h, fcntl.h.
_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = 0x1000, 0x4000
_STATX_MNT_ID, _STATX_SIZE, _MOUNT_AT = 0x1000, 256, 0x90

_MOUNTS: Final = "/proc/self/mountinfo"
_MOUNT: Final = "mount /proc: `--proc /proc` of bwrap, `mount -t proc proc /proc`"


def in_one_step() -> str:
    """Many descriptors in one system call."""
    reader, writer = os.pipe()
    try:
        # In the order of their numbers: nothing else lies between them if they follow each other.
        low, high = sorted((reader, writer))
        if high != low + 1:
            high = low
        reasons.checked(lib.lx_close_range(low, high, 0))
    finally:
        for number in (reader, writer):
            _close_again(number)
    return "close_range"


def _close_again(number: int) -> None:
    try:
        os.close(number)
    except OSError:
        # As it should be: it was closed.
        return


def mount_of_file() -> str:
    """On which mount a file is, without asking the server of its file system."""
    answer = ffi.new("char[]", _STATX_SIZE)
    with Path(sys.executable).open("rb") as file:
        how = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
        reasons.checked(lib.lx_statx(file.fileno(), b"", how, _STATX_MNT_ID, answer))
    told = ffi.buffer(answer)
    if not int.from_bytes(told[:4], sys.byteorder) & _STATX_MNT_ID:
        raise Lacking("statx(2) does not tell it", mend="Linux 5.8 or later")
    return f"statx, mount {int.from_bytes(told[_MOUNT_AT : _MOUNT_AT + 8], sys.byteorder)}"


def mounts() -> str:
    """What is mounted, and that a change would be told."""
    with open(_MOUNTS, "rb", buffering=0) as file:  # noqa: PTH123 - as the package reads it
        lines = file.readall().splitlines()
        changes = select.poll()
        changes.register(file, select.POLLPRI)
        changes.poll(0)
    if not lines:
        raise Lacking(f"{_MOUNTS} is empty")
    return f"{len(lines)} of them"


def own_descriptors() -> str:
    """What this process has open."""
    with Path(os.devnull).open("rb") as file:
        told = os.readlink(f"/proc/self/fd/{file.fileno()}")  # noqa: PTH115 - as the package reads it
    if told != os.devnull:
        raise Lacking(f"it says {told!r} of {os.devnull}")
    return "named"


def others() -> str:
    """What is to be seen of other users' processes: hidepid, a mount's option."""
    # The last is the one that covers the others.
    line = next((each for each in reversed((system.text(_MOUNTS) or "").splitlines()) if " /proc " in each), "")
    options = [each for each in line.replace(" ", ",").split(",") if each.startswith("hidepid=")]
    told = f" ({options[0]})" if options else ""
    if not os.path.exists("/proc/self"):  # noqa: PTH110 - as above
        raise Lacking("nothing: it is not mounted", mend=_MOUNT)
    try:
        os.stat("/proc/1")  # noqa: PTH116 - whether it is there, or hidden
    except FileNotFoundError:
        raise Lacking(f"hidden{told}") from None
    if system.text("/proc/1/status") is None:
        raise Lacking(f"numbers alone{told}")
    return f"shown{told}"


PROBES: Final = (
    Probe(
        _GROUP,
        "closing in one step",
        in_one_step,
        Level.LESS,
        "descriptors are closed one by one: some 0.2 us more for each",
        call="close_range",
        since="5.9",
    ),
    Probe(
        _GROUP,
        "mount of a file",
        mount_of_file,
        Level.LESS,
        "files that were received are closed by another thread, which the answer waits for",
        call="statx",
        since="5.8",
    ),
    Probe(
        _GROUP,
        "list of mounts",
        mounts,
        Level.LESS,
        "files of disks that were received are closed by another thread, which the answer waits for",
        _MOUNT,
    ),
    Probe(
        _GROUP,
        "own descriptors in /proc",
        own_descriptors,
        Level.LESS,
        "paths of sockets have 107 bytes at most, errors name fewer files, and confine() does not see an io_uring",
        _MOUNT,
    ),
    Probe(
        _GROUP,
        "others' processes in /proc",
        others,
        Level.NOTE,
        "calls need none of that; tools that show who holds what, as `ss -xap`, show your own processes only",
        "`mount -o remount,hidepid=0 /proc`, or be in the group that its gid= names",
    ),
)
