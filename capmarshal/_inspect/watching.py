"""Where a look goes: to a terminal, line by line, or into a file; once, or again and again."""

from __future__ import annotations

import os
import secrets
import stat
import sys
import time
from typing import TYPE_CHECKING

from capmarshal._descriptors.moving import opened
from capmarshal._inspect.looking import look
from capmarshal._inspect.table import drawn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from capmarshal._inspect.view import View

# Where links are nobody's but root's: /dev/stdout leads to what is open already.
_DEVICES = frozenset({"/dev", "/dev/fd", "/proc/self/fd"})
_WRITE = os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY


def written(picture: Callable[[], str], file: Path | None, every: float | None) -> None:
    """Writes it, to standard output unless there is a file; again after so many seconds, for ever.

    Whoever reads the file finds a whole picture, the one before or the next.

    Raises:
        OSError: it cannot be written.
    """
    while True:
        text = picture()
        if file is None:
            # Not by its write(): what could not be written then would be tried again at exit.
            _write(sys.stdout.fileno(), text)
        else:
            _replace(file, text)
        if every is None:
            return
        time.sleep(every)


def _write(number: int, text: str) -> None:
    # A picture is UTF-8 anywhere.
    left = memoryview(text.encode("utf-8"))
    while left:
        left = left[os.write(number, left) :]


def _replace(file: Path, text: str) -> None:
    """Puts it in the place of a file; a device, and a pipe, is written to.

    Others may write to that folder, and put links there: none of them is followed.
    """
    if str(file.absolute().parent) in _DEVICES:
        with opened(file, _WRITE | os.O_TRUNC) as number:
            _write(number, text)
    elif not _written_to(file, text):
        # A name that nobody guesses, as long whatever the file's is.
        beside = file.with_name(f".capmarshal-{secrets.token_hex(8)}")
        try:
            try:
                with opened(beside, _WRITE | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666) as number:
                    _write(number, text)
                beside.replace(file)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            # Of the name beside it nobody has heard.
            raise OSError(error.errno, error.strerror, str(file)) from None


def _written_to(file: Path, text: str) -> bool:
    """Writes it to a pipe, a device, or another thing that is written to where it is; False of a file, or a link."""
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        return False
    with opened(file, _WRITE | os.O_NOFOLLOW) as number:
        # It may be another's since.
        if stat.S_ISREG(os.fstat(number).st_mode):
            return False
        _write(number, text)
    return True


def shown(view: Callable[[], View], every: float | None) -> None:
    """Draws it on the terminal; again after so many seconds, for ever.

    Raises:
        ModuleNotFoundError: rich is not installed.
    """
    from rich.console import Console

    console = Console()
    if every is None:
        console.print(drawn(view()))
        return
    from rich.live import Live

    with Live(drawn(view()), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            live.update(drawn(view()), refresh=True)


def looked_at(pids: frozenset[int]) -> View:
    """What has to do with these processes, or all there is."""
    view = look()
    return view.only(pids) if pids else view
