"""How a test run by root has something done by an ordinary user, whom the kernel's limits bind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import _cffi_backend
import msgspec
import pytest

import capmarshal

_NOBODY = 65534


def become_ordinary(of=0):
    """Drops root, in a child; nothing to do for who has none.

    A number of our own rather than "nobody": descriptors in flight are counted per user over the whole machine, and
    another test run's must not count here.

    Args:
        of: a process: those that pass the same one become one user.
    """
    if os.getuid() != 0:
        return
    os.setgroups([])
    for user in (20_000 + (of or os.getpid()) % 30_000, 65_534):
        try:
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        except OSError:  # not mapped in this user namespace
            continue
        return
    raise AssertionError("cannot become an ordinary user")


def find_ordinary_python():
    """(interpreter, options): how subprocess runs Python with capmarshal as an ordinary user.

    Where this interpreter is in a directory that only root may enter, another one of the same version does, with this
    one's packages.  Skips the test where there is neither.
    """
    if os.getuid() != 0:
        return sys.executable, {"env": dict(os.environ)}
    packages = {str(Path(capmarshal.__file__).parents[1]), str(Path(msgspec.__file__).parents[1])}
    packages.add(str(Path(_cffi_backend.__file__).parent))
    others = shutil.which(f"python3.{sys.version_info.minor}", path=os.defpath)
    tries = [(sys.executable, dict(os.environ))]
    tries += [(others, {**os.environ, "PYTHONPATH": os.pathsep.join(sorted(packages))})] if others else []
    reason = ""
    for interpreter, environment in tries:
        options = {"env": environment, "user": _NOBODY, "group": _NOBODY, "extra_groups": []}
        try:
            subprocess.run(
                [interpreter, "-P", "-c", "import capmarshal"], check=True, capture_output=True, cwd="/", **options
            )
        except (OSError, subprocess.CalledProcessError) as error:
            reason = f"user {_NOBODY} cannot run {interpreter}: {error}"
        else:
            return interpreter, options
    pytest.skip(reason)
