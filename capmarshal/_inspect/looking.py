"""One look at the machine, and some more where something waits: for what waits long is stuck, and not on its way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from capmarshal._inspect.processes import never_blocks, processes, processor_time, travelling_to
from capmarshal._inspect.seeing import Seeing, waiting_at
from capmarshal._inspect.sockets import inodes, sockets
from capmarshal._inspect.unseen import unseen
from capmarshal._inspect.view import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capmarshal._inspect.sockets import Socket

# Seconds between the looks at what waits.
_PAUSES = (0.05, 0.08, 0.12)
# Ticks of the processor's time that a process which does its work has had by then, and one that is stuck has not.
_AT_WORK = 2


def look() -> View:
    """Looks, for a quarter of a second longer where something waits.

    Raises:
        OSError: the kernel does not tell.
    """
    before = inodes()
    seen, closed = processes()
    held = {inode for process in seen.values() for inode in process.sockets}
    # What was closed meanwhile is left out; and what was made since, unless somebody was seen to have it.
    listed = {inode: end for inode, end in sockets().items() if inode in held or inode in before}
    stuck = _stuck(Seeing(listed, seen), listed)
    seeing = Seeing(listed, seen, travelling_to, stuck, never_blocks)
    entrypoints = sorted(seeing.entrypoints(), key=lambda each: (each.doors[0].label, each.doors[0].name))
    in_flight = tuple(seeing.in_flight())
    concerned = {holder.pid for queue in in_flight for holder in queue.readers}.union(
        *(each.processes() for each in entrypoints)
    )
    return View(
        {pid: seen[pid] for pid in sorted(concerned)},
        tuple(entrypoints),
        in_flight,
        unseen(seen, closed, seeing.unclaimed()),
    )


def _stuck(seeing: Seeing, listed: Mapping[int, Socket]) -> frozenset[int]:
    """The ends at which the same waits at every look, while none of their readers is at work."""
    waiting = _waiting(seeing.ends(), listed)
    readers = {holder.pid for inode in waiting for holder in seeing.holders(inode)}
    before = {pid: processor_time(pid) for pid in readers}
    for pause in _PAUSES:
        if not waiting:
            return frozenset()
        time.sleep(pause)
        now = _waiting(frozenset(waiting), sockets())
        waiting = {inode: much for inode, much in waiting.items() if now.get(inode) == much}
    at_work = {pid for pid in readers if processor_time(pid) - before[pid] >= _AT_WORK}
    return frozenset(inode for inode in waiting if not any(holder.pid in at_work for holder in seeing.holders(inode)))


def _waiting(ends: frozenset[int], listed: Mapping[int, Socket]) -> dict[int, tuple[int, int]]:
    """How much waits at those of the ends where something does."""
    there = (listed[inode] for inode in ends if inode in listed)
    return {end.inode: (end.unread, memory) for end in there if (memory := waiting_at(end, listed))}
