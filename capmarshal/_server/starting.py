"""Starting the thread of an entrypoint, and joining it, whatever signal handlers raise meanwhile."""

from __future__ import annotations

import _thread
import errno
import threading

from capmarshal._kernel.deadline import seconds_until
from capmarshal._kernel.errors import KernelError

# Looks, of so many seconds each, until a thread that the kernel gave should have begun: without memory it dies before.
# More than one: a process that is stopped for long loses but one of them.
_LOOKS, _LOOK = 100, 0.1
# What CPython says where the system has no thread, and of nothing else.
_NO_THREAD = "can't start new thread"
# And of joining a thread that has not begun.
_NOT_BEGUN = "cannot join thread before it is started"


def start(thread: threading.Thread, label: str) -> None:
    """Starts the thread of an entrypoint.

    ``Thread.start()`` waits until the thread has begun, by an Event: what a signal handler raises there can leave the
    lock of that taken, and the thread waits for it for ever.  Handlers run in the main thread only, so that wait is
    another thread's, and here is waited for a lock that has no inside.

    Args:
        thread: to be started.  If something is raised, it may still begin.
        label: of the entrypoint.

    Raises:
        KernelError: no thread can be had, or it does not begin.
    """
    started = _thread.allocate_lock()
    started.acquire()
    errors: list[BaseException] = []

    def start_it() -> None:
        try:
            thread.start()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
            errors.append(error)
        finally:
            started.release()

    try:
        _thread.start_new_thread(start_it, ())
        # Not any(), of a generator: what a signal handler raises where that is closed, Python prints and forgets.
        for _ in range(_LOOKS):
            if started.acquire(timeout=_LOOK):
                break
        else:
            raise MemoryError("it has not begun")
        if errors:
            raise errors.pop()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and str(error) != _NO_THREAD:
            raise
        raise KernelError(
            errno.EAGAIN,
            f"starting the thread of the entrypoint {label!r}: {error}: the user has as many as "
            "RLIMIT_NPROC allows, the control group as many as its pids.max, or memory is out",
        ) from error


def join(thread: threading.Thread | None, deadline: int) -> None:
    """Waits for the serving thread's own end, with nothing left to do: no interpreter is to end before it."""
    if thread is not None and thread is not threading.current_thread():
        try:
            thread.join(min(seconds_until(deadline), threading.TIMEOUT_MAX))
        except RuntimeError as error:
            # It has not begun where Ctrl-C came into start().  Anything else is of Ctrl-C here.
            if str(error) != _NOT_BEGUN:
                raise
