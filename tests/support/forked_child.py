"""A forked child that runs one function of a test, and returns what that returned; the fixture fork makes them."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
import warnings

import pytest

from ordinary_user import become_ordinary
from patience import PATIENCE

# Longer than each wait of a child's own, which then says what hangs; and it may do a lot, on a machine that is busy.
_IN_ALL = 3 * PATIENCE


class ForkedChild:
    """A forked child that runs one function."""

    def __init__(self, function, *, ordinary=False, table=None):
        self._result, write_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # CPython 3.12 warns of fork with threads about: of pytest-timeout, and of the reaper.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            os.close(self._result)
            code = 1
            try:
                if ordinary:
                    become_ordinary()
                if table is not None:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (table, table))
                answer = (True, function())
                code = 0
            except BaseException:  # noqa: BLE001 - all of it is the parent's to report
                answer = (False, traceback.format_exc())
            finally:
                with contextlib.suppress(BaseException), os.fdopen(write_end, "wb") as out:
                    pickle.dump(answer, out)
                os._exit(code)
        os.close(write_end)

    def result(self):
        """What the function returned; fails with the child's traceback where it raised."""
        pidfd = os.pidfd_open(self.pid)
        try:
            # Read while it runs: its answer may be larger than a pipe.
            received, deadline = bytearray(), time.monotonic() + _IN_ALL
            while True:
                ready, _, _ = select.select([self._result], [], [], max(deadline - time.monotonic(), 0))
                piece = os.read(self._result, 65536) if ready else b""
                if not piece:
                    break
                received += piece
            ended, _, _ = select.select([pidfd], [], [], max(deadline - time.monotonic(), 0))
        finally:
            os.close(pidfd)
            self.kill()
        if not ended:
            pytest.fail("the forked child did not end", pytrace=False)
        if not received:
            pytest.fail(f"the forked child said nothing; wait status {self.status:#x}", pytrace=False)
        good, answer = pickle.loads(received)
        if not good:
            pytest.fail(f"in the forked child:\n{answer}", pytrace=False)
        return answer

    def kill(self):
        """SIGKILL, if it still runs, and collects it."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            _, self.status = os.waitpid(self.pid, 0)
            self.pid = None
            os.close(self._result)
