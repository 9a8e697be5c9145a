"""What each process of a soak does beside its work: it answers its parent, and says what it holds."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import faulthandler
import gc
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

from capmarshal import testing
from capmarshal._descriptors import reaper

DRIVERS = ("blocking", "asyncio", "uvloop", "trio")
LOOPS = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}
# What a process is told that is to say what it holds.
HOLD = "hold\n"
# Seconds that one call may take on a machine that is busy, and the status of a process of which one has taken longer.
CALL_MAX, STUCK = 60.0, 3


def begin():
    """SIGUSR1 has it say where it is; what it is sent to raise is no news, nor that clients are killed."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.getLogger("capmarshal").setLevel(logging.CRITICAL)
    reaper.prepare()


def holdings():
    """Which descriptors it has open, how many of each kind, and its resident memory in kB."""
    # Twice: what the first finds may let go of what only the second can find.
    gc.collect()
    gc.collect()
    reaper.wait(CALL_MAX)
    # What the C library keeps in order to use it again is what was there once at a time: chance, and no leak.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    kinds = collections.Counter(re.sub(r"\d+", "", target) for target in testing.open_descriptors().values())
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {"descriptors": dict(kinds), "resident": int(re.search(r"VmRSS:\s+(\d+)", status)[1])}


def tell(**what):
    """Tells its parent, in a line of its own."""
    os.write(1, json.dumps(what).encode() + b"\n")


class UnderWay:
    """The calls that a client makes; where one of them hangs, the client ends and says which."""

    def __init__(self, whose):
        self._whose, self._calls = whose, {}
        threading.Thread(target=self._watch, daemon=True).start()

    def begins(self, call):
        self._calls[id(call)] = call, time.monotonic()

    def ends(self, call):
        del self._calls[id(call)]

    def _watch(self):
        while True:
            time.sleep(1)  # a poll, which ends a process that hangs
            for call, since in list(self._calls.values()):
                if time.monotonic() > since + CALL_MAX:
                    print(f"stuck for {CALL_MAX} s: {call}, of {self._whose}", file=sys.stderr, flush=True)
                    faulthandler.dump_traceback(all_threads=True)
                    os._exit(STUCK)
