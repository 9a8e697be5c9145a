"""The entrypoints that threads of their own serve, while this process is confined: it has to have one thread then.

Those threads end between two calls, and others go on in their place, which are bound as the process is.  Clients wait
meanwhile, and notice nothing else.
"""

from __future__ import annotations

import errno
import threading
import time
from typing import TYPE_CHECKING

from capmarshal._descriptors.process import process
from capmarshal._kernel.deadline import ahead
from capmarshal._kernel.errors import KernelError, NotConfined

if TYPE_CHECKING:
    from capmarshal._descriptors.process import Served

# Seconds that a call has to end at first, where what it waits for may be one that is paused.  Then more each time: it
# may as well be one that takes long, as the next call of the one that is paused does when that goes on.
_SLICE = 0.1


def served_in_threads() -> list[Served]:
    """Those that there are."""
    with process.lock:
        services = tuple(process.entrypoints)
    return [each for each in services if each.thread is not None]


def others() -> list[threading.Thread]:
    """The threads of the program's own, as far as Python knows them, but for this one."""
    own = {each.thread for each in served_in_threads()}
    # Of a library, or of ours: which, Python can't tell, nor whether it is there still.
    unknown = threading._DummyThread  # noqa: SLF001 - no public name
    return [
        each
        for each in threading.enumerate()
        if each is not threading.current_thread() and each not in own and not isinstance(each, unknown)
    ]


def pause_all(paused: list[Served], deadline: int) -> None:
    """Has the threads end that serve entrypoints.

    One after the other: a call of one may wait for what another serves.  Where it waits for one that is paused, that
    goes on, and it is the first.

    Args:
        paused: those that are; whoever calls this has them go on, also if it fails.
        deadline: how long to wait for calls in progress.

    Raises:
        NotConfined: a call has not ended by then, or a signal handler has interrupted what would be waited for.
        KernelError: as :func:`resume_all`.
    """
    first: Served | None = None
    seconds, longest = _SLICE, 0.0
    while left := [each for each in served_in_threads() if each not in paused]:
        now = first if first in left and first is not None else left[0]
        until = min(deadline, ahead(seconds)) if paused else deadline
        now.check_may_pause()
        # Before that: Ctrl-C may interrupt it.
        paused.append(now)
        began = time.monotonic()
        if now.pause(until):
            longest = max(longest, time.monotonic() - began)
            continue
        if time.monotonic_ns() >= deadline:
            words = f"this process cannot be confined: {now.doing}, which has not ended in time"
            raise NotConfined(errno.EBUSY, words)
        resume_all(paused)
        first, seconds = now, max(seconds * 2, longest)


def resume_all(paused: list[Served]) -> None:
    """Has them go on, each in a new thread.

    Args:
        paused: which; it is empty then.  One that a signal handler has interrupted stays, to be tried again.

    Raises:
        KernelError: there was no thread for one of them, which is closed; the others go on.
        BaseException: of a signal handler; likewise.
    """
    failures: list[BaseException] = []
    for each in paused[::-1]:
        try:
            each.resume()
            paused.remove(each)
        except KernelError as error:
            failures.append(error)
            paused.remove(each)
        except BaseException as error:  # noqa: BLE001 - of a signal handler: raised when the others have been tried
            failures.append(error)
    if failures:
        # Ctrl-C, rather than what may be told later.
        raise next((each for each in failures if not isinstance(each, Exception)), failures[0])
