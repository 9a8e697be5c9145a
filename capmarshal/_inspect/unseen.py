"""What a look could not see, in words: nobody is to take silence for absence."""

from __future__ import annotations

import os
import pwd
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from capmarshal._kernel.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from capmarshal._inspect.processes import Closed, Process
    from capmarshal._inspect.view import Door

# linux/proc_ns.h: PROC_PID_INIT_INO, the namespace that has every process in it.
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
_NAMED = 3


def unseen(processes: Mapping[int, Process], closed: list[Closed], unclaimed: list[Door]) -> tuple[str, ...]:
    """A line for each kind.

    Args:
        processes: those that were looked into.
        closed: those that could not be.
        unclaimed: doors of which no end is held by a process that was seen.
    """
    return tuple(_lines(processes, closed, unclaimed))


def _lines(processes: Mapping[int, Process], closed: list[Closed], unclaimed: list[Door]) -> Iterator[str]:
    others = [each.user for each in closed if each.user != os.geteuid()]
    if others:
        yield f"{_several(len(others), 'process')} that this user may not look into: of {_users(others)}"
    refusing = [each.pid for each in closed if each.user == os.geteuid()]
    if refusing:
        yield f"{_several(len(refusing), 'process')} of this user that no other may look into: {_named(refusing)}"
    if unclaimed:
        whose = _users(door.user for door in unclaimed)
        yield f"{_several(len(unclaimed), 'door')} of which no process that was seen has an end: of {whose}"
    own = Path("/proc/self/ns/net").stat().st_ino
    elsewhere = [process.pid for process in processes.values() if process.network != own and process.sockets]
    if elsewhere:
        yield (
            f"entrypoints and clients of channels that were made in other network namespaces, where "
            f"{_several(len(elsewhere), 'process')} {'is' if len(elsewhere) == 1 else 'are'}: {_named(elsewhere)}"
        )
    if Path("/proc/self/ns/pid").stat().st_ino != _FIRST_PID_NAMESPACE:
        yield "processes outside of this PID namespace, which may hold capabilities too"
    if _hides():
        yield "processes of other users at all, since /proc is mounted with hidepid"


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 'es' if what.endswith('s') else 's'}"


def _named(pids: list[int]) -> str:
    left_out = f" and {len(pids) - _NAMED:,} more" if len(pids) > _NAMED else ""
    return ", ".join(map(str, pids[:_NAMED])) + left_out


def _users(users: Iterable[int]) -> str:
    counted = Counter(users).most_common()
    left_out = f" and {len(counted) - _NAMED:,} other users" if len(counted) > _NAMED else ""
    return ", ".join(user_name(user) for user, _ in counted[:_NAMED]) + left_out


def user_name(user: int) -> str:
    """As the system calls it, or else its number."""
    try:
        return printable(pwd.getpwuid(user).pw_name)
    except KeyError:
        return f"user {user}"


def _hides() -> bool:
    if os.geteuid() == 0:
        return False
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="backslashreplace").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[4] == "/proc" and "hidepid=" in rest:
            return not any(f"hidepid={shown}" in rest for shown in ("0", "off"))
    return False
