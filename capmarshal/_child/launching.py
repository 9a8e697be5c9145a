"""Starting a process by the launcher, and hearing from it whether the program runs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import signal
import sys
from typing import TYPE_CHECKING, Any

from capmarshal._child import inherited, launcher
from capmarshal._child.confinement import data_of
from capmarshal._child.own_folders import own_folders
from capmarshal._kernel.deadline import in_force, words_for
from capmarshal._kernel.errors import CallTimeout, KernelError, NotConfined
from capmarshal._kernel.waiting import Wait

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from capmarshal._child.confinement import Confinement
    from capmarshal._descriptors.private import Private
    from capmarshal._kernel.waiting import Steps

CONFINED = launcher.CONFINED

# Some Pythons do not start without the first; and the second they set themselves, in a C locale (PEP 538).
_LIBRARIES = "LD_LIBRARY_PATH"
_CHANGED = (_LIBRARIES, "LC_CTYPE")
# locale(7); what else is called LC_... is anything, as what ssh hands on.
_LOCALE = (
    *("LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION", "LC_MEASUREMENT", "LC_MESSAGES"),
    *("LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER", "LC_TELEPHONE", "LC_TIME"),
)
# What it reads when it starts, beside the locale's.
_OBEYED = ("LANG", "LANGUAGE", "CAPMARSHAL_LOG", "CAPMARSHAL_POLL")
# Of the environment, what a confined process inherits where none is said, beside the locale.
_INHERITED = ("LANG", "LANGUAGE", "TZ")
# What people begin a command with that runs Python; or with an option of its.
_AN_INTERPRETER = re.compile(r"python[\d.]*|-[cm]?")
# Of a report.
_SIZE_MAX = 65536


def interpreter() -> str:
    """The Python that runs the launcher.

    Raises:
        KernelError: there is none.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise KernelError(errno.ENOEXEC, "the launcher needs a Python interpreter, and sys.executable is none here")
    if not os.path.isabs(sys.executable):  # noqa: PTH117 - pathlib is much to import for that
        # It would be looked for where the child is started (cwd=).
        raise KernelError(errno.ENOEXEC, f"sys.executable is no absolute path, but {sys.executable!r}")
    return sys.executable


def _command_of(args: Any, options: dict[str, Any]) -> tuple[Any, list[Any]]:
    """(what to execute, its arguments, from the zeroth), as Popen makes them of what it is given.

    Raises:
        IndexError: there is nothing to execute.
    """
    shell, executable = options.pop("shell", False), options.pop("executable", None)
    arguments = [args] if isinstance(args, str | bytes | os.PathLike) else list(args)
    if shell:
        arguments = ["/bin/sh", "-c", *arguments]
        if executable is not None:
            arguments[0] = executable
    return (arguments[0] if executable is None else executable), arguments


def _absolute(libraries: str) -> str:
    """LD_LIBRARY_PATH without what is empty or relative: that would be where the launcher is started (ld.so(8))."""
    return ":".join(each for each in re.split("[:;]", libraries) if each.startswith("/"))


def _variables(given: Mapping[Any, Any]) -> dict[str, str]:
    """An environment as text, of each byte a character.

    Raises:
        ValueError: as Popen raises it, of one that can't be.
    """
    made = {os.fsencode(name): os.fsencode(value) for name, value in given.items()}
    for name, value in made.items():
        if not name or b"=" in name:
            raise ValueError(f"illegal environment variable name: {name!r}")
        if b"\0" in name + value:
            raise ValueError(f"embedded null byte in the environment: {name!r}")
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in made.items()}


def _for_python(given: Mapping[str, str]) -> dict[str, str]:
    """What the launcher is started with before it confines itself: what Python and this package need, and no more.

    Not what has code of others' loaded, as LD_PRELOAD and LD_AUDIT, or a file of theirs read.
    """
    made = {name: value for name, value in given.items() if name in _OBEYED or name in _LOCALE}
    if libraries := _absolute(os.environ.get(_LIBRARIES, "")):
        made[_LIBRARIES] = libraries
    return made


def default_environment() -> dict[str, str]:
    """What a confined process has where no environment is said: the locale, the time zone, and where libraries are."""
    given = {name: value for name, value in os.environ.items() if name in _INHERITED or name in _LOCALE}
    if libraries := _absolute(os.environ.get(_LIBRARIES, "")):
        given[_LIBRARIES] = libraries
    # No program is run: without a path none is found, as by ctypes, which looks for libraries by a compiler.
    given["PATH"] = ""
    return given


def _for_the_launcher(given: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[str, str | None]]:
    """(the environment that the launcher is started with, what it has to change in it for the program)."""
    made, variables = dict(given), dict[str, str | None]()
    for name in _CHANGED:
        asked = [made.pop(key) for key in (name, os.fsencode(name)) if key in made]
        variables[name] = os.fsdecode(asked[0]) if asked else None
    if libraries := _absolute(os.environ.get(_LIBRARIES, "")):
        made[_LIBRARIES] = libraries
    return made, variables


def limiting(args: Any, descriptors: int | None, report: int, options: dict[str, Any]) -> list[Any]:
    """The command that limits the descriptors of a program, and runs it.

    Args:
        args: what Popen would be given.
        descriptors: the limit.
        report: where the launcher reports to.
        options: Popen's; what the launcher does in its place is taken out of them.
    """
    executable, arguments = _command_of(args, options)
    restored = options.get("restore_signals", True)
    environment, variables = _for_the_launcher(options["env"])
    options["env"] = environment
    plan = {
        "descriptors": descriptors,
        "ignored": [
            name
            for name in launcher.IGNORED_BY_PYTHON
            if not restored and signal.getsignal(getattr(signal, name)) == signal.SIG_IGN
        ],
        "variables": variables,
    }
    # -S: no package is needed, and to look for them takes longer than all the rest.
    return [interpreter(), "-I", "-S", launcher.__file__, str(report), json.dumps(plan), executable, *arguments]


def plan_for(confinement: Confinement, options: dict[str, Any], temporary: Sequence[str]) -> bytes:
    """What the launcher of a process that confines itself is to do: more than may stand in an argument.

    Args:
        confinement: what it may have.
        options: Popen's; their environment becomes what the launcher may be started with.
        temporary: paths, of which the first directory that it may write in is where temporary files are to be.

    Raises:
        TypeError, ValueError: it is no environment.
    """
    variables = _variables(options["env"])
    options["env"] = _for_python(variables)
    folders, packages = own_folders()
    plan = {
        "confinement": data_of(confinement),
        "environment": variables,
        "folders": folders,
        "packages": packages,
        "temporary": [*temporary],
    }
    return json.dumps(plan).encode()


def confining(args: Any, plan: int, report: int) -> list[Any]:
    """The command that runs a Python file in a process that has confined itself.

    Args:
        args: the file, and its arguments.
        plan: a descriptor of a file in which there is :func:`plan_for` it.
        report: where the launcher reports to.

    Raises:
        ValueError: an interpreter is named, not a file.
    """
    arguments = [args] if isinstance(args, str | bytes | os.PathLike) else [*args]
    first = os.fsdecode(arguments[0])
    if first == sys.executable or _AN_INTERPRETER.fullmatch(first):
        raise ValueError(f"{first!r} is no Python file: {launcher.LEAVE_AWAY}")
    isolated = ["-I", "-X", inherited.NOT_YET]
    return [interpreter(), *isolated, launcher.__file__, str(report), str(plan), *arguments]


def _raised(told: bytes) -> OSError:
    """The error that a launcher has reported."""
    error = json.loads(told)
    if error["missing"] is not None:
        return NotConfined(error["errno"], error["strerror"], tuple(error["missing"]))
    if error["errno"] is None:
        return KernelError(errno.ENOEXEC, f"the launcher failed: {error['strerror']}")
    if error["filename"] is None:
        return OSError(error["errno"], error["strerror"])
    return OSError(error["errno"], error["strerror"], error["filename"])


def abandon(started: subprocess.Popen[Any]) -> None:
    """Ends a process that nobody will have."""
    started.kill()
    started.wait()
    for stream in (started.stdin, started.stdout, started.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def heard(report: Private, ended: bytes = b"") -> Steps[None]:
    """Waits until the program runs.

    Args:
        report: this process's end of where the launcher reports to.
        ended: the last that it says where all went well; none, where its end is closed by the program's start.

    Raises:
        OSError: what the launcher has reported, or that it has ended without.
        CallTimeout: it has not begun before the deadline that is in force.
    """
    last, deadline = b"", in_force()
    while True:
        if not (yield Wait(report.number, select.POLLIN, deadline)):
            raise CallTimeout(f"no program was running {words_for(None, deadline)}", ran="maybe")
        record = os.read(report.number, _SIZE_MAX)
        if not record or record == ended:
            break
        last = record
    if last not in (b"", launcher.BEGUN):
        raise _raised(last)
    if last != launcher.BEGUN or record != ended:
        raise KernelError(
            errno.ENOEXEC, f"the launcher ended before the program began: {interpreter()} {launcher.__file__}"
        )
