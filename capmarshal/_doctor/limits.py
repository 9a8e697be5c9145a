"""How much this process may have."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from pathlib import Path
from typing import Final

from capmarshal._doctor import system
from capmarshal._doctor.finding import Level
from capmarshal._doctor.probe import Lacking, Probe

_GROUP: Final = "limits"

# A service of some clients: below, it is told what that means.
_DESCRIPTORS: Final = 1024
# A call makes two, and carries some.
_FREE: Final = 8
_PROCESSES: Final = 64
# cm.Limits of an entrypoint: channels are three quarters of the table.
_CHANNELS: Final = 3, 4
# Bytes that a default call may have: max_bytes.
_BYTES: Final = 64 << 20


def _told(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit:,}"


def descriptors() -> str:
    """How many descriptors may be open, and are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = _free(soft)
    told = f"{_told(soft)}, of which {free if free < _FREE else 'enough'} are free; hard limit {_told(hard)}"
    raise_it = f"`ulimit -n {min(hard, 4 * _DESCRIPTORS)}`" if hard > soft else "`docker run --ulimit nofile=4096`"
    mend = f"{raise_it}; in a unit `LimitNOFILE=4096`"
    if free < 2:
        why = "a call takes two, so none is made: TableFull"
        raise Lacking(told, level=Level.MISSING, costs=why, mend=f"close what is open, or {mend}")
    if free < _FREE or soft < _DESCRIPTORS:
        channels = soft * _CHANNELS[0] // _CHANNELS[1]
        raise Lacking(
            told,
            mend=mend,
            costs=f"an entrypoint has {channels} channels at most, one for each call in progress; and an ordinary user "
            f"has {_told(soft)} descriptors in flight, over all processes (TooManyInFlight)",
        )
    return told


def _free(soft: int) -> int:
    """How many more can be open, up to _FREE."""
    made: list[int] = []
    try:
        while len(made) < min(soft, _FREE):
            made += os.pipe()
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        # One is left where two are too many.
        with contextlib.suppress(OSError):
            made.append(os.open(".", os.O_PATH | os.O_CLOEXEC))
    finally:
        for number in made:
            os.close(number)
    return len(made)


def processes() -> str:
    """How many processes and threads this user may have, and this cgroup."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    told = [f"{_told(soft)} of this user" + (", which does not bind root" if system.is_root() else "")]
    most = [] if soft == resource.RLIM_INFINITY or system.is_root() else [soft]
    if (cgroup := _of_cgroup("pids.max")) is not None and cgroup.isdecimal():
        told.append(f"{int(cgroup):,} of this cgroup, which has {_of_cgroup('pids.current')}")
        most.append(int(cgroup))
    if min(most, default=_PROCESSES) < _PROCESSES:
        raise Lacking(", ".join(told))
    return ", ".join(told)


def memory() -> str:
    """How much memory this process may map, and have in one file."""
    names = {"RLIMIT_AS": resource.RLIMIT_AS, "RLIMIT_FSIZE": resource.RLIMIT_FSIZE}
    limits = {name: resource.getrlimit(number)[0] for name, number in names.items()}
    told = [f"{name} {_told(limit)}" for name, limit in limits.items()]
    if (cgroup := _of_cgroup("memory.max")) is not None:
        told.append(f"memory.max of this cgroup {cgroup}")
    bounded = [limit for limit in limits.values() if limit != resource.RLIM_INFINITY]
    if min(bounded, default=_BYTES) < _BYTES:
        raise Lacking("; ".join(told))
    return "; ".join(told)


def cgroup() -> str:
    """Whether this process may bound its children by cgroups of their own."""
    folder = _cgroup()
    if folder is None:
        raise Lacking("not to be seen", mend="mount /proc, and the second version of cgroups at /sys/fs/cgroup")
    if not os.access(folder, os.W_OK):
        raise Lacking(f"{folder}, not delegated")
    return f"{folder}, delegated"


def _cgroup() -> Path | None:
    """The folder of this process's; None where there is none to be seen (cgroups(7))."""
    for line in (system.text("/proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            folder = Path("/sys/fs/cgroup") / line.removeprefix("0::").lstrip("/")
            return folder if (folder / "cgroup.procs").exists() else None
    return None


def _of_cgroup(file: str) -> str | None:
    folder = _cgroup()
    return None if folder is None else system.text(f"{folder}/{file}")


PROBES: Final = (
    Probe(_GROUP, "descriptors", descriptors, Level.LESS, ""),
    Probe(
        _GROUP,
        "processes",
        processes,
        Level.LESS,
        "a thread or child that is one too many does not begin: an entrypoint needs one thread, closing a few more",
        "`ulimit -u 4096`; in a unit `TasksMax=`, `docker run --pids-limit=-1`",
    ),
    Probe(
        _GROUP,
        "memory",
        memory,
        Level.LESS,
        f"a call may bring {_BYTES >> 20} MiB unless its entrypoint says otherwise (max_bytes=), and each Dataspace "
        "has its size in one file: more than is there is a MemoryError, or SIGXFSZ",
        "`ulimit -v unlimited`, `ulimit -f unlimited`",
    ),
    Probe(
        _GROUP,
        "cgroup",
        cgroup,
        Level.NOTE,
        "nothing of the package's: but only a cgroup bounds the memory of a confined process exactly",
        "`systemd-run --user --scope -p Delegate=yes -p MemoryMax=1G ...`",
    ),
)
