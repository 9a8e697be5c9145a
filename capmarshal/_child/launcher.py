"""Runs first in a process that spawn() has created, changes that, and becomes the program that was asked for.

By itself: ``python -I launcher.py REPORT PLAN PROGRAM ARGUMENT...``.  What is to be changed would have to be done
between fork and exec otherwise, by ``preexec_fn``, where another thread of the parent's may have left any lock taken.

The program is executed; or it is a Python file, which this interpreter runs when it has confined itself: no program is
executed after that.

It reports by the socket REPORT: one record when it has begun, another one if it fails; and one when it is confined, or
that nothing more comes when the program is executed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

_T = TypeVar("_T")

if TYPE_CHECKING:
    from collections.abc import Callable

BEGUN: Final = b"begun"
CONFINED: Final = b"confined"
# Characters; as JSON each may be six.
_WORDS_MAX = 5000
# Said where somebody names something else than a Python file.
LEAVE_AWAY: Final = "with confine=, args is a Python file and its arguments; leave the interpreter away"
# Bytes of a file's beginning, in which what is no text has a zero: a program, or an archive.
_HEAD = 4096
# What Python ignores when it starts, and hands down so; Popen's restore_signals has undone it before.
IGNORED_BY_PYTHON: Final = ("SIGPIPE", "SIGXFSZ")


def told_of(error: BaseException) -> bytes:
    """An error, for who has spawned this process."""
    if isinstance(error, OSError) and error.errno is not None:
        told = {"errno": error.errno, "strerror": error.strerror, "filename": error.filename}
    else:
        told = {"errno": None, "strerror": f"{type(error).__name__}: {error}", "filename": None}
    for name, words in told.items():
        # One record has to have all of it: of a name that is too long, as of anything, the beginning tells which it is.
        if isinstance(words, str) and len(words) > _WORDS_MAX:
            told[name] = f"{words[:_WORDS_MAX]}..."
    # Of NotConfined alone.
    return json.dumps({**told, "missing": getattr(error, "missing", None)}).encode()


def _restore(plan: dict[str, Any]) -> None:
    """Undoes what starting Python has done to what a program inherits."""
    # Imported when used: capmarshal imports this module to know where it is.
    import signal

    for name in IGNORED_BY_PYTHON:
        if name not in plan["ignored"]:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    for name, value in plan["variables"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


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


def _check_regular(file: str) -> None:
    """Refuses what is no file of Python's before it is opened by ways that may wait, as for who writes to a FIFO.

    Raises:
        OSError: it is none, or it can't be read.
    """
    import errno
    import stat

    # What Ctrl-C loses here goes with this process, which it ends: nothing of the file's has run.
    number = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", file)
        if b"\0" in os.read(number, _HEAD):
            raise OSError(errno.ENOEXEC, f"no Python file ({LEAVE_AWAY})", file)
    finally:
        os.close(number)


def _read(plan: str) -> Any:
    """What is to be done: as it stands in the argument, or, where that is a number, in the file that it is of."""
    asked = json.loads(plan)
    if not isinstance(asked, int):
        return asked
    with open(asked, "rb") as file:  # noqa: PTH123 - it is a number
        return json.load(file)


def _set_environment(variables: dict[str, str]) -> None:
    """Has the environment be what was asked for; not before this process is confined: libraries obey it."""
    os.environ.clear()
    for name, value in variables.items():
        # Bytes, of which JSON has none.
        os.environb[name.encode("latin-1")] = value.encode("latin-1")
    if "TZ" in os.environ:
        import time

        time.tzset()


def _confine(plan: dict[str, Any], file: str) -> bytes:
    """Confines this process, and then takes what it was given.

    Returns:
        What is in the file.

    Raises:
        OSError: it cannot be confined, or there is no such file that is a regular one, and that it then may read.
    """
    import io

    _check_regular(file)
    # Behind what is installed: nothing of the interpreter's own is to be found there instead.
    sys.path += [folder for folder in plan["folders"] if folder not in sys.path]
    from capmarshal._child import inherited
    from capmarshal._child.confining import confine_by

    confine_by(plan["confinement"], [*plan["packages"], file], plan["folders"])
    # Root may have read it before, and may no more.
    with io.open_code(os.path.abspath(file)) as opened:  # noqa: PTH100 - pathlib is much to import for that
        source = opened.read()
    _set_environment(plan["environment"])
    # For tempfile; asked now: by whom it runs, and without root's privileges.
    writable = (path for path in plan["temporary"] if os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK))  # noqa: PTH112 - as above
    if (temporary := next(writable, None)) is not None:
        os.environ["TMPDIR"] = temporary
    # After that: what lies there is the file's own.
    sys.path.append(_folder_of(file))
    sys.path += [path for path in plan["confinement"]["read"] if os.path.isdir(path)]  # noqa: PTH112 - pathlib is much to import for that
    inherited.inherit()
    return source


def _folder_of(file: str) -> str:
    return os.path.dirname(os.path.abspath(file))  # noqa: PTH100, PTH120 - as above


def _explain(error: BaseException, file: str) -> None:
    """Has an error say why a module that lies beside a file was not found: the directory is seen, and not read."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        folder = _folder_of(file)
        beside = os.path.join(folder, error.name.partition(".")[0])  # noqa: PTH118 - as above
        if os.path.exists(f"{beside}.py") or os.path.exists(beside):  # noqa: PTH110 - as above
            error.add_note(f"it lies beside the file, in a directory that Confinement(read=[{folder!r}]) would name")


def _run(file: str, source: bytes, arguments: list[str]) -> None:
    """Runs a Python file as Python does: it is the module __main__, also of threads that outlive it."""
    import types

    main = types.ModuleType("__main__")
    vars(main).update(__file__=file, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    sys.argv = [file, *arguments]
    try:
        # What this file imports from __future__ is not for that one.
        exec(compile(source, file, "exec", dont_inherit=True), vars(main))  # noqa: S102 - what this is for
    except BaseException as error:
        _explain(error, file)
        # From where the file's own lines begin, and by its own hook, if it has set one.
        traceback, show = error.__traceback__ and error.__traceback__.tb_next, sys.excepthook
        sys.excepthook = lambda kind, error, _: show(kind, error.with_traceback(traceback), traceback)
        raise


def _reported(number: int, action: Callable[[], _T]) -> _T:
    """What it gives; where it fails, says so and ends this process."""
    try:
        return action()
    except BaseException as error:  # noqa: BLE001 - the parent raises it
        os.write(number, told_of(error))
        # Nothing is to be said by this process itself.
        os._exit(127)


def main() -> None:
    """Does it."""
    report, plan, program, *arguments = sys.argv[1:]
    number = int(report)
    os.set_inheritable(number, False)
    os.write(number, BEGUN)
    asked = _read(plan)
    if "confinement" not in asked:
        _reported(number, lambda: _become(asked, program, arguments))
    source = _reported(number, lambda: _confine(asked, program))
    os.write(number, CONFINED)
    os.close(number)
    _run(os.path.abspath(program), source, arguments)  # noqa: PTH100 - as above


if __name__ == "__main__":
    main()
