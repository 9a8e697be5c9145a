"""What the figures depend on."""

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path

from bench.places import places

# What is measured, and what it stands on.
_PACKAGES = ("capmarshal", "cffi", "msgspec")


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            # Not on every architecture: proc_cpuinfo(5).
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def conditions() -> dict[str, str | int]:
    """The machine and the versions, by pyperf's names where it has one."""
    packages: dict[str, str | int] = {f"{package}_version": metadata.version(package) for package in _PACKAGES}
    return packages | {
        "python_implementation": platform.python_implementation().lower(),
        "python_version": platform.python_version(),
        "platform": f"{platform.system()}-{platform.release()}-{platform.machine()}",
        "cpu_model_name": _cpu_model(),
        "cpu_count": os.cpu_count() or 1,
        "cpu_affinity": ",".join(str(cores.server) for cores in places()),
    }


def briefly() -> str:
    """The least to be said: on what."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{platform.system()} {platform.release()}, {python}, {_cpu_model()}"


def in_words() -> str:
    """All of it, in one line."""
    packages = ", ".join(f"{package} {metadata.version(package)}" for package in _PACKAGES)
    return f"{packages}, {briefly()}, {os.cpu_count()} cores"
