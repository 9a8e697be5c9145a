"""A process that has been given something, and goes from one step to the next as it is told."""

from __future__ import annotations

import os
import select

from patience import PATIENCE


class Plugin:
    """A forked process that runs a function.

    Args:
        fork: the fixture.
        function: called with one to call between two steps, which waits until the process is told to go on.
    """

    def __init__(self, fork, function):
        self._ready, ready = os.pipe()
        going, self._go = os.pipe()

        def step():
            os.write(ready, b".")
            # Whoever tells it waits for no longer than that.
            select.select([going], [], [], 2 * PATIENCE)
            os.read(going, 1)

        self.child = fork(lambda: function(step))
        os.close(ready)
        os.close(going)
        self._await_step()

    def _await_step(self):
        came, _, _ = select.select([self._ready], [], [], PATIENCE)
        assert came, "the plugin hangs"
        assert os.read(self._ready, 1) == b".", self.child.result()

    def go_on(self):
        """Has it go on to the end of its next step."""
        os.write(self._go, b".")
        self._await_step()

    def result(self):
        """Has it go on to the end; what its function returned."""
        os.write(self._go, b".")
        self._close()
        return self.child.result()

    def kill(self):
        """SIGKILL, wherever it is."""
        self._close()
        self.child.kill()

    def _close(self):
        os.close(self._ready)
        os.close(self._go)
