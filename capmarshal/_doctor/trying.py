"""Tries one thing, in a process of its own: what that does to it, or a filter does, ends there.

So does what Ctrl-C finds open and in nobody's hands: it ends that process.

What was found comes back through memory that both share: that needs no descriptor, of which there may be none left.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
from typing import Final

from capmarshal._doctor import reasons
from capmarshal._doctor.finding import Finding, Level
from capmarshal._doctor.probe import Lacking, Probe

_ROOM: Final = 1 << 16
# After so many seconds, what is tried does not come back.
PATIENCE: Final = 10
_NO_PROCESS: Final = "it takes a process of its own, which can't be made: limits, or a filter"
_MORE_PROCESSES: Final = "`ulimit -u 4096`, or a cgroup with more of pids.max"

_ENDED: Final = {
    signal.SIGSYS: "whoever asks is killed: a filter does that",
    signal.SIGALRM: "it does not come back in time",
}


def look(probe: Probe) -> Finding:
    """What is found by that, here and now: in this process."""
    try:
        return Finding(probe.group, probe.name, Level.OK, probe.look())
    except Lacking as lacking:
        level = probe.lacking if lacking.level is None else lacking.level
        costs = probe.costs if lacking.costs is None else lacking.costs
        mend = probe.mend if lacking.mend is None else lacking.mend
        return Finding(probe.group, probe.name, level, lacking.found, costs, mend)
    except OSError as error:
        if error.errno in reasons.FULL and probe.lacking is not Level.MISSING:
            # That says nothing of what was to be tried.
            why = f"the descriptor table is full: {reasons.words(error)}"
            return Finding(probe.group, probe.name, Level.UNTRIED, why, "", reasons.MORE_DESCRIPTORS)
        return _lacking(probe, reasons.words(error), reasons.mend(error, probe))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is found
        return _lacking(probe, f"{type(error).__name__}: {error}", probe.mend)


def _lacking(probe: Probe, found: str, mend: str) -> Finding:
    return Finding(probe.group, probe.name, probe.lacking, found, probe.costs, mend)


def attempt(probe: Probe) -> Finding:
    """What is found by that, in a process of its own; in this one where none can be made, if that leaves no trace."""
    with mmap.mmap(-1, _ROOM) as shared:
        try:
            child = os.fork()
        except OSError:
            # Before CPython 3.12, the number of the error is not kept.
            if not probe.for_good:
                return look(probe)
            return Finding(probe.group, probe.name, Level.UNTRIED, _NO_PROCESS, "", _MORE_PROCESSES)
        if not child:
            _in_child(probe, shared)
        return _outcome(probe, _waited(child), shared)


def _in_child(probe: Probe, shared: mmap.mmap) -> None:
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        made = json.dumps(look(probe)).encode()
        shared[: len(made)] = made
        status = 0
    finally:
        os._exit(status)


def _waited(child: int) -> int:
    """How it ended; it does not outlive this, whatever interrupts."""
    try:
        return os.waitpid(child, 0)[1]
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def _outcome(probe: Probe, status: int, shared: mmap.mmap) -> Finding:
    if status == 0:
        group, name, level, found, costs, mend = json.loads(shared[:].rstrip(b"\0"))
        return Finding(group, name, Level(level), found, costs, mend)
    if not os.WIFSIGNALED(status):
        return _lacking(probe, "the process that tried it failed", probe.mend)
    number = os.WTERMSIG(status)
    found = _ENDED.get(signal.Signals(number), f"the process that tried it was ended by {signal.Signals(number).name}")
    mend = reasons.allow(probe.call) if number == signal.SIGSYS and probe.call else probe.mend
    return _lacking(probe, found, mend)
