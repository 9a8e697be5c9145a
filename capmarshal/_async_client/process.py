"""A child process of an event loop's: its end and its standard streams are awaited.

anyio's own is not used: in uvloop, a child inherits every descriptor that is inheritable, those of libraries and some
of uvloop's, and one whose start is cancelled goes on.  What is started here is a :class:`subprocess.Popen`.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

import anyio
import anyio.abc
import anyio.lowlevel

from capmarshal._descriptors.private import make_pidfd
from capmarshal._kernel.errors import KernelError
from capmarshal._kernel.wrong_block import refused

if TYPE_CHECKING:
    import subprocess
    from signal import Signals
    from types import TracebackType

    from capmarshal._descriptors.private import Private

# Seconds between two looks at a process of which there is no descriptor to be awaited.
_PAUSE = 0.02


class _Pipe:
    """This process's end of a pipe, which is awaited.

    Args:
        file: it, taken.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        # Of this end alone: the child's is another open file.
        os.set_blocking(file.fileno(), False)

    def _number(self) -> int:
        if self._file.closed:
            raise anyio.ClosedResourceError
        return self._file.fileno()

    async def aclose(self) -> None:
        """Closes it; whoever waits is told, by anyio 4.10 and later."""
        if not self._file.closed:
            if hasattr(anyio, "notify_closing"):
                anyio.notify_closing(self._file.fileno())
            self._file.close()
        await anyio.lowlevel.checkpoint()


class _Output(_Pipe, anyio.abc.ByteReceiveStream):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        """What the child has written next."""
        await anyio.lowlevel.checkpoint()
        while True:
            number = self._number()
            try:
                received = os.read(number, max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(number)
            else:
                if received:
                    return received
                raise anyio.EndOfStream


class _Input(_Pipe, anyio.abc.ByteSendStream):
    async def send(self, item: bytes) -> None:
        """Has all of it written."""
        await anyio.lowlevel.checkpoint()
        left = memoryview(item)
        while left:
            number = self._number()
            try:
                left = left[os.write(number, left) :]
            except BlockingIOError:
                await anyio.wait_writable(number)
            except BrokenPipeError as error:
                raise anyio.BrokenResourceError from error


class Process(anyio.abc.Process):
    """A process that was started.

    Args:
        started: it, taken; its pipes have no buffers.
    """

    def __init__(self, started: subprocess.Popen[bytes]) -> None:
        self._started = started
        self._ended = _descriptor_of(started.pid)
        # One task at a time waits by it.
        self._waiting = anyio.Lock()
        self._input = _Input(started.stdin) if started.stdin is not None else None
        self._output = _Output(started.stdout) if started.stdout is not None else None
        self._errors = _Output(started.stderr) if started.stderr is not None else None

    if not TYPE_CHECKING:
        __enter__, __exit__ = refused(
            "the end of a process of aio.spawn() is awaited: enter it by `async with`, not by `with`; what is entered "
            "by `with` is one of capmarshal.spawn()"
        )

    def __repr__(self) -> str:
        return f"<Process {self.pid}>"

    async def wait(self) -> int:
        """Its status, when it has ended."""
        await anyio.lowlevel.checkpoint()
        while (status := self._started.poll()) is None:
            async with self._waiting:
                if self._ended is None:
                    await anyio.sleep(_PAUSE)
                elif self._ended.number >= 0:
                    await anyio.wait_readable(self._ended.number)
        self._has_ended()
        return status

    def _has_ended(self) -> None:
        """Closes what told of its end, unless a task still waits by it, which then does."""
        if self._ended is not None and not self._waiting.statistics().locked:
            self._ended.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Waits for its end, as :meth:`aclose`; kills it where the block is left by Ctrl-C, or because it is cancelled.

        Also by asyncio's own cancellation, as of a :class:`asyncio.TaskGroup`: that is heard but once, in the block.
        """
        if kind is not None and not issubclass(kind, Exception):
            self.kill()
        await self.aclose()

    async def aclose(self) -> None:
        """Closes its pipes and waits for its end; cancelled meanwhile, kills it."""
        with anyio.CancelScope(shield=True) as scope:
            for stream in (self._input, self._output, self._errors):
                if stream is not None:
                    await stream.aclose()
            scope.shield = False
            try:
                await self.wait()
            except BaseException:
                scope.shield = True
                self.kill()
                await self.wait()
                raise

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._started.terminate()

    def kill(self) -> None:
        """Sends SIGKILL."""
        self._started.kill()

    def send_signal(self, signal: Signals) -> None:
        """Sends a signal; does nothing once it has ended."""
        self._started.send_signal(signal)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._started.pid

    @property
    def returncode(self) -> int | None:
        """Its status, as far as it has been awaited or asked for."""
        status = self._started.poll()
        if status is not None:
            self._has_ended()
        return status

    @property
    def stdin(self) -> anyio.abc.ByteSendStream | None:
        """What it reads, if that is a pipe."""
        return self._input

    @property
    def stdout(self) -> anyio.abc.ByteReceiveStream | None:
        """What it writes, if that is a pipe."""
        return self._output

    @property
    def stderr(self) -> anyio.abc.ByteReceiveStream | None:
        """What it complains, if that is a pipe."""
        return self._errors


def _descriptor_of(pid: int) -> Private | None:
    """One that polls readable when a child has ended; None where there is no room for it, or a filter refuses it."""
    try:
        return make_pidfd(pid)
    except KernelError:
        return None
