"""Which Python this is, and how the package is installed in it."""

from __future__ import annotations

import platform
import re
import sys
import sysconfig
from importlib import metadata
from typing import Final

from capmarshal._doctor.finding import Level
from capmarshal._doctor.probe import Lacking, Probe

_GROUP: Final = "installation"
_PACKAGE: Final = "capmarshal"

# Extras for whoever works on the package: nobody misses them.
_OF_CHECKOUTS: Final = ("bench", "docs", "peers", "test")
# What event loops are there besides asyncio; none is required, and each is used where it is.
_LOOPS: Final = ("uvloop", "trio")

# As `anyio>=4.7; extra == "async"`.
_REQUIREMENT: Final = re.compile(r"([\w.-]+)\s*(?:>=\s*([\w.]+))?[^;]*(?:;.*extra\s*==\s*[\"']([\w-]+)[\"'])?")


def build() -> str:
    """Which it is, and how it was built."""
    what = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    if platform.python_implementation() != "CPython":
        raise Lacking(what, costs="it is made for CPython, and tested on no other", mend="CPython 3.11 or later")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise Lacking(
            f"{what}, free-threaded",
            level=Level.MISSING,
            costs="who owns a descriptor is decided by single steps that the GIL keeps whole: that build is refused",
            mend="an ordinary CPython of the same version",
        )
    if sysconfig.get_config_var("Py_DEBUG"):
        raise Lacking(f"{what}, a debug build")
    if "--enable-optimizations" not in (sysconfig.get_config_var("CONFIG_ARGS") or "--enable-optimizations"):
        raise Lacking(f"{what}, built without --enable-optimizations (PGO)", level=Level.NOTE)
    return what


def wheel() -> str:
    """What was installed, and from where."""
    distribution = _distribution()
    tags = re.findall(r"^Tag: (.+)$", distribution.read_text("WHEEL") or "", re.MULTILINE)
    told = f"{_PACKAGE} {distribution.version}, {', '.join(tags) or 'no wheel'}"
    if any("musllinux" in tag for tag in tags):
        return f"{told}: a wheel for musl"
    if any("manylinux" in tag for tag in tags):
        return f"{told}: a wheel for glibc"
    return f"{told}: built from source on this machine, or one like it"


def requirements() -> str:
    """What the package stands on."""
    return ", ".join(_versions(""))


def extra(name: str) -> str:
    """What of one is installed."""
    return ", ".join(_versions(name))


def loops() -> str:
    """Which event loops are there, beside asyncio."""
    found = [f"{name} {version}" for name in _LOOPS if (version := _version(name))]
    return ", ".join(["asyncio", *found])


def _distribution() -> metadata.Distribution:
    try:
        return metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError:
        raise Lacking(
            "nobody knows how it was installed: there is no dist-info beside it",
            level=Level.UNTRIED,
            costs="",
            mend="install its wheel by pip, instead of a copy of its folder",
        ) from None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _versions(name: str) -> list[str]:
    """Those of what an extra requires, or the package itself does; raises Lacking where that is not there, or old."""
    told, wrong, due = [], [], []
    for line in _distribution().requires or ():
        if (match := _REQUIREMENT.match(line)) is None or (match[3] or "") != name:
            continue
        what, least = match[1], match[2] or "0"
        version = _version(what)
        if version is not None and _numbers(version) >= _numbers(least):
            told.append(f"{what} {version}")
            continue
        due.append(f"'{what}>={least}'")
        wrong.append(f"{what} is not installed" if version is None else f"{what} {version} is older than {least}")
    if wrong:
        # Not the package with its extra: no index need have it, and whoever installed it knows from where.
        raise Lacking(", ".join([*wrong, *told]), mend=f"`pip install {' '.join(due)}`")
    return told


def extras() -> tuple[Probe, ...]:
    """One for each that the installed package has, but for those of its checkout."""
    try:
        names = metadata.metadata(_PACKAGE).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return ()
    return tuple(_extra(name) for name in names if name not in _OF_CHECKOUTS)


def _extra(name: str) -> Probe:
    return Probe(
        _GROUP,
        f"{_PACKAGE}[{name}]",
        lambda: extra(name),
        Level.NOTE,
        _EXTRAS.get(name, "what needs it says so"),
    )


_EXTRAS: Final = {
    "async": "no capmarshal.aio: methods that are async def are neither called nor served",
    "bridge": "no capmarshal.bridge: no capabilities of other machines",
    "inspect": "no tables on a terminal: `capmarshal inspect | cat` has lines, as the doctor has",
}

PROBES: Final = (
    Probe(
        _GROUP,
        "Python",
        build,
        Level.LESS,
        "Python is slower, and so is what a call does in it",
        "an optimised build: of your distribution's, or configured with --enable-optimizations",
    ),
    Probe(_GROUP, "wheel", wheel, Level.LESS, ""),
    Probe(
        _GROUP,
        "what it requires",
        requirements,
        Level.MISSING,
        "no call is made, or it fails in ways that nobody has tested",
    ),
    Probe(_GROUP, "event loops", loops, Level.NOTE, ""),
)
