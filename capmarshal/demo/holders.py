"""Who holds an entrypoint's client end under how many descriptors: told by the kernel, not by the library."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from capmarshal._capabilities.capability import open_door_of
from capmarshal._inspect.processes import sockets_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import capmarshal as cm


def count(pid: int, inode: int) -> int:
    """How many descriptors of a process refer to the socket.

    Raises:
        OSError: there is no such process, it has ended, or it is another user's.
    """
    return len(sockets_of(pid).get(inode, ()))


def _shown(pid: int, inode: int) -> str:
    try:
        return str(count(pid, inode))
    except OSError:
        return "gone"


def table(processes: Mapping[str, int], held: Mapping[str, cm.Capability]) -> str:
    """For people: a line for each process, a column for each entrypoint.

    Args:
        processes: name -> process ID.
        held: label of an entrypoint -> a capability of it that this process holds.
    """
    inodes = [os.fstat(open_door_of(capability).number).st_ino for capability in held.values()]
    lines = [["descriptors of", "PID", *(f"{label} entrypoint" for label in held)]]
    lines += [[name, str(pid), *(_shown(pid, inode) for inode in inodes)] for name, pid in processes.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(f"{line[0]:<{widths[0]}}{_right(line[1:], widths[1:])}\n" for line in lines)


def _right(cells: list[str], widths: list[int]) -> str:
    return "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
