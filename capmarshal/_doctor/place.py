"""Where this process runs."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

import capmarshal as cm
from capmarshal._doctor import reasons, system
from capmarshal._doctor.finding import Level
from capmarshal._doctor.probe import Lacking, Probe

_GROUP: Final = "machine"

# What the package is made for, and tested on.
_OLDEST: Final = (5, 15)
_MACHINES: Final = ("x86_64", "aarch64")

# What containers leave where everybody sees it.
_MARKS: Final = {"/.dockerenv": "Docker's", "/run/.containerenv": "Podman's"}


def kernel() -> str:
    """Its version, and the machine's."""
    told = f"Linux {os.uname().release}, {platform.machine()}"
    if system.kernel() < _OLDEST:
        raise Lacking(told)
    if platform.machine() not in _MACHINES:
        raise Lacking(told, costs="it is made for x86-64 and aarch64, and tested on no other", mend="")
    return told


def user() -> str:
    """Who this process is."""
    what = f"user {os.geteuid()}, group {os.getegid()}"
    if system.is_root():
        raise Lacking(
            f"{what}: root",
            costs="limits of descriptors in flight and of threads do not bind it, and what it leaves open, an ordinary "
            "user may not have: ask again as who will run the program",
            mend="`setpriv --reuid 65534 --regid 65534 --clear-groups capmarshal doctor`",
        )
    return what


def surroundings() -> str:
    """What stands around this process: a container, a filter, a promise to gain no privileges."""
    found = [f"a container of {whose}" for mark, whose in _MARKS.items() if Path(mark).exists()]
    if not found and (name := os.environ.get("container")):  # noqa: SIM112 - systemd-nspawn(1) and others
        found.append(f"a container of {name}'s")
    if reasons.filtered():
        found.append("a filter of system calls (seccomp)")
    if system.status("NoNewPrivs") == "1":
        found.append("no new privileges")
    return ", ".join(found) or "nothing that is to be seen"


def parent() -> str:
    """The capability that this process was given when it was created."""
    try:
        given = cm.parent()
    except cm.NoParent as none:
        raise Lacking(str(none)) from None
    return f"of the entrypoint {given.label!r}" if given.label else "of an entrypoint without a label"


PROBES: Final = (
    Probe(
        _GROUP,
        "kernel",
        kernel,
        Level.LESS,
        "it is older than what the tests run on",
        "Linux 5.15 or later",
    ),
    Probe(_GROUP, "user", user, Level.NOTE, ""),
    Probe(_GROUP, "around it", surroundings, Level.NOTE, ""),
    Probe(
        _GROUP,
        "parent capability",
        parent,
        Level.NOTE,
        "nothing, unless this is to be a child of cm.spawn()'s",
    ),
)
