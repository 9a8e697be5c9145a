"""Runs first in a process that spawn() has created, changes that, and becomes the program that was asked for.

By itself: ``python -I -S launcher.py REPORT PLAN EXECUTABLE ARGUMENT...``.  What is to be changed would have to be done
between fork and exec otherwise, by ``preexec_fn``, where another thread of the parent's may have left any lock taken.

It reports by the socket REPORT: one record when it has begun, another one if it fails; and that nothing more comes
says that the program runs.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final

BEGUN: Final = b"begun"
# What Python ignores when it starts, and hands down so; Popen's restore_signals has undone it before.
IGNORED_BY_PYTHON: Final = ("SIGPIPE", "SIGXFSZ")


def told_of(error: BaseException) -> bytes:
    """An error, for who has spawned this process."""
    if isinstance(error, OSError) and error.errno is not None:
        told = {"errno": error.errno, "strerror": error.strerror, "filename": error.filename}
    else:
        told = {"errno": None, "strerror": f"{type(error).__name__}: {error}", "filename": None}
    return json.dumps(told).encode()


def _restore(plan: dict[str, Any]) -> None:
    """Undoes what starting Python has done to what a program inherits."""
    # Imported when used: capmarshal imports this module to know where it is.
    import signal

    for name in IGNORED_BY_PYTHON:
        if name not in plan["ignored"]:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    # In a C locale Python sets it: PEP 538.
    os.environ.pop("LC_CTYPE", None)
    if plan["LC_CTYPE"] is not None:
        os.environ["LC_CTYPE"] = plan["LC_CTYPE"]


def _become(plan: dict[str, Any], executable: str, arguments: list[str]) -> None:
    """Limits this process, and runs a program in it.

    Raises:
        OSError: it cannot be run.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (plan["descriptors"],) * 2)
    _restore(plan)
    try:
        os.execvp(executable, arguments)  # noqa: S606 - what to run is the parent's to say
    except OSError as error:
        error.filename = executable
        raise


def main() -> None:
    """Does it."""
    report, plan, executable, *arguments = sys.argv[1:]
    number = int(report)
    os.set_inheritable(number, False)
    os.write(number, BEGUN)
    try:
        _become(json.loads(plan), executable, arguments)
    except BaseException as error:  # noqa: BLE001 - the parent raises it
        os.write(number, told_of(error))
        # Nothing is to be said by this process itself.
        os._exit(127)


if __name__ == "__main__":
    main()
