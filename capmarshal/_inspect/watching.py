"""Where a look goes: to a terminal, line by line, or into a file; once, or again and again."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from capmarshal._inspect.looking import look
from capmarshal._inspect.table import drawn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from capmarshal._inspect.view import View


def written(picture: Callable[[], str], file: Path | None, every: float | None) -> None:
    """Writes it, to standard output unless there is a file; again after so many seconds, for ever.

    Whoever reads the file finds a whole picture, the one before or the next.

    Raises:
        OSError: it cannot be written.
    """
    while True:
        text = picture()
        if file is None:
            _write(text)
        else:
            _replace(file, text)
        if every is None:
            return
        time.sleep(every)


def _write(text: str) -> None:
    # Not by its write(): what could not be written then would be tried again at exit.  A picture is UTF-8 anywhere.
    left = memoryview(text.encode("utf-8"))
    while left:
        left = left[os.write(sys.stdout.fileno(), left) :]


def _replace(file: Path, text: str) -> None:
    # A device, and a pipe, is written to.
    if file.exists() and not file.is_file():
        file.write_text(text, encoding="utf-8")
        return
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        # Of the name beside it nobody has heard.
        raise OSError(error.errno, error.strerror, str(file)) from None
    finally:
        beside.unlink(missing_ok=True)


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
