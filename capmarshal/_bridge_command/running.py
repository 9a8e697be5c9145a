"""A bridge that runs, from what it is told to its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import capmarshal as cm
from capmarshal._bridge.alive import NameTaken
from capmarshal._bridge.bridge import Bridge
from capmarshal._bridge_command import secrecy
from capmarshal._bridge_command.duties import Duties, NotDone
from capmarshal._bridge_command.settings import Export, Import, Settings, of_file, of_words
from capmarshal._bridge_command.speaking import speak
from capmarshal._bridge_command.token_files import NoToken, named_by
from capmarshal._bridge_command.told import BadSettings
from capmarshal._bridge_engine.engine import EngineError
from capmarshal._bridge_engine.login import Login
from capmarshal._bridge_engine.nats_engine import NatsEngine
from capmarshal._kernel.errors import printable
from capmarshal.demo.complaints import complain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    Print: TypeAlias = Callable[[bytes], bool]

_logger = logging.getLogger("capmarshal")

_FAILED, _NOT_MEANT, _NOT_REACHED = 1, 2, 3
_INTERRUPTED = 128 + signal.SIGINT

# What is served at a time of each subject: a link has one, and so has each token.
_CONCURRENCY = 1_000


class _Failed(Exception):
    """It can't begin, or go on; the message says why, and the status is its."""

    def __init__(self, message: str, status: int = _FAILED) -> None:
        super().__init__(message)
        self.status = status


def run(parsed: argparse.Namespace, print_: Print) -> int:
    """Runs what a command line says.

    Args:
        parsed: it.
        print_: writes to standard output, and says whether it could.

    Returns:
        The exit status.
    """
    try:
        settings = _settings(parsed)
        _check_secrets(settings)
        if _prints(settings) and (why := secrecy.objection(sys.stdout.fileno())):
            raise _Failed(why)
        _have_a_large_table()
        speak()
        return asyncio.run(_Running(parsed, settings, print_).run())
    except (BadSettings, NoToken, secrecy.NotSecret) as error:
        complain(printable(str(error)))
        return _NOT_MEANT
    except _Failed as error:
        complain(printable(str(error)))
        return error.status


def _settings(parsed: argparse.Namespace) -> Settings:
    """What is to be done, as it is said now.

    Raises:
        BadSettings, NoToken: it can't be meant.
    """
    if parsed.deed == "run":
        return of_file(Path(parsed.file), parsed)
    if parsed.deed == "export":
        return of_words(parsed, exports=tuple(Export(Path(path)) for path in parsed.path))
    return of_words(parsed, imports=(Import(Path(parsed.at), named_by(parsed.token), parsed.mode),))


def _check_secrets(settings: Settings) -> None:
    """Raises NotSecret; what is not there is missed where it is read, and that is said then."""
    key = settings.tls.key or settings.tls.certificate if settings.tls is not None else None
    for file in (settings.credentials, key):
        if file is not None:
            with contextlib.suppress(OSError):
                secrecy.check(Path(file).stat().st_mode, "a key", Path(file))


def _prints(settings: Settings) -> bool:
    return any(export.token_file is None for export in settings.exports)


def _have_a_large_table() -> None:
    """Each object of another machine, and each call, is some descriptors, and the soft limit is for who selects."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A filter may refuse that: then it has what it has.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Running:
    """One, in its event loop."""

    def __init__(self, parsed: argparse.Namespace, settings: Settings, print_: Print) -> None:
        self._parsed = parsed
        self._settings = settings
        self._print = print_
        self._serves = False
        self._ended_by = 0
        self._asked_to_end = asyncio.Event()
        self._taking = asyncio.Lock()
        self._reading: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Until a signal says so; the exit status.

        Raises:
            _Failed: it can't begin.
        """
        self._hear_signals(asyncio.current_task())
        try:
            await self._serve()
        except (asyncio.CancelledError, _Failed):
            if not self._ended_by:
                raise
        return _INTERRUPTED if self._ended_by == signal.SIGINT else 0

    def _hear_signals(self, running: asyncio.Task[object] | None) -> None:
        loop = asyncio.get_running_loop()
        ending = [signal.SIGTERM, signal.SIGINT, *([] if self._parsed.deed == "run" else [signal.SIGHUP])]

        def end(number: int) -> None:
            self._ended_by = number
            # The second time it ends at once.
            for each in ending:
                loop.remove_signal_handler(each)
            # In any case: before Python 3.12, nats-py may take being cancelled for a time that is up, and go on.
            self._asked_to_end.set()
            if not self._serves and running is not None:
                running.cancel()

        for number in ending:
            loop.add_signal_handler(number, end, number)

    async def _serve(self) -> None:
        settings = self._settings
        engine = await self._connected(settings)
        try:
            async with Bridge(settings.name, engine) as bridge:
                duties = Duties(bridge)
                await self._begin(duties)
                self._serves = True
                try:
                    await self._asked_to_end.wait()
                finally:
                    self._serves = False
                    duties.stop_trying()
                    for task in self._reading:
                        task.cancel()
                _logger.info("bridge %s ends: calls that run have some seconds", settings.name)
        except NameTaken as error:
            raise _Failed(f"{error}; say --name, or have one do all, by capmarshal bridge run") from None
        except EngineError as error:
            raise _Failed(str(error), _NOT_REACHED) from None
        except NotDone as error:
            raise _Failed(str(error)) from None

    async def _connected(self, settings: Settings) -> NatsEngine:
        login = Login(credentials=settings.credentials, tls=settings.tls, name=f"capmarshal bridge {settings.name}")
        try:
            return await NatsEngine.connect(
                settings.engine, login, inbox=f"_INBOX.{settings.name}", concurrency=_CONCURRENCY
            )
        except EngineError as error:
            raise _Failed(str(error), _NOT_REACHED) from None

    async def _begin(self, duties: Duties) -> None:
        settings = self._settings
        printed = [export for export in settings.exports if export.token_file is None]
        lines = []
        for export in printed:
            token = await duties.export_anew(export)
            lines.append(f"{token.reveal()} {printable(str(export.path.absolute()))}\n")
        await duties.take(settings.exports, settings.imports)
        if lines and not self._print("".join(lines).encode("utf-8", "backslashreplace")):
            raise _Failed("the tokens could not be printed")
        if self._parsed.deed == "run":
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._read_again, duties)
        _logger.info("bridge %s is ready", settings.name)
        try:
            cm.notify_ready()
        except cm.Error as error:
            _logger.warning("%s", error)

    def _read_again(self, duties: Duties) -> None:
        task = asyncio.create_task(self._take_again(duties))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _take_again(self, duties: Duties) -> None:
        async with self._taking:
            try:
                settings = _settings(self._parsed)
                await duties.take(settings.exports, settings.imports)
            except (BadSettings, NotDone, EngineError) as error:
                _logger.error("what was read again is not done, or not all of it: %s", error)
                return
            except Exception:
                # It serves on, and is told anew when the file is mended.
                _logger.exception("what was read again is not done, or not all of it")
                return
            if replace(settings, exports=(), imports=()) != replace(self._settings, exports=(), imports=()):
                _logger.warning("name, engine and credentials stay as they were until this bridge ends")
            _logger.info("bridge %s has read its file again", settings.name)
