"""An exception where a signal handler may raise one: at one place after the other where Python looks for signals."""

from __future__ import annotations

import contextlib
import signal
import sys

import capmarshal as cm


def _in_finalizer(frame):
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


class Interrupting:
    """In this thread, an exception at the n-th place of some source files where CPython runs signal handlers.

    That is where a function begins, and where a call of a C function has ended: what that returned is lost then.  Not
    in finalizers, where Python prints what is raised and goes on, nor where the signal is blocked.  A context manager.

    Args:
        at: which of these places, counted from 0.
        error: makes what is raised.
        files: paths.

    Attributes:
        where: file and line where it was raised; empty if it was not.
    """

    def __init__(self, at, error, files):
        self._left, self._error, self._files = at, error, frozenset(map(str, files))
        self.where = ""

    def _note(self, frame, event, _argument):
        if event not in ("call", "c_return") or frame.f_code.co_filename not in self._files:
            return
        if _in_finalizer(frame) or signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            return
        self._left -= 1
        if self._left < 0:
            # Before it is raised: Python does so itself, but 3.12 not always.
            sys.setprofile(None)
            self.where = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {event}"
            raise self._error()

    def __enter__(self):
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)


def serve_interrupted(entrypoint, at, files):
    """Serves until the entrypoint is closed, with Ctrl-C at the n-th of these places; where that was.

    Args:
        entrypoint: closed by somebody else, and then once more.
        at: as :class:`Interrupting` has it.
        files: likewise.
    """
    interrupting = Interrupting(at, KeyboardInterrupt, files)
    with contextlib.suppress(KeyboardInterrupt, cm.Closed), interrupting:
        entrypoint.serve_forever()
    with contextlib.suppress(cm.Closed):
        entrypoint.serve_forever()
    entrypoint.close()
    return interrupting.where


class InterruptingTwice(Interrupting):
    """And once more, at the n-th of these places after that: while what the first has left is being dealt with.

    Args:
        at: as there.
        again: which of the places that come after it, counted from 0.
        error: as there.
        files: as there.

    Attributes:
        where: where the last of the two was raised.
        times: how many were.
    """

    def __init__(self, at, again, error, files):
        super().__init__(at, error, files)
        self._again = again
        self.times = 0

    def _note(self, frame, event, argument):
        try:
            super()._note(frame, event, argument)
        except BaseException:
            self.times += 1
            raise

    def _trace(self, _frame, event, _argument):
        # Python has ended the profile by raising what that raised.
        if event == "exception" and self.times == 1:
            sys.settrace(None)
            self._left = self._again
            sys.setprofile(self._note)
        return self._trace

    def __enter__(self):
        sys.settrace(self._trace)
        return super().__enter__()

    def __exit__(self, *_):
        sys.settrace(None)
        super().__exit__()
