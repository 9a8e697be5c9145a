"""What all pictures say in the same words, and nothing in them that a terminal obeys."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from capmarshal._inspect.unseen import user_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from capmarshal._inspect.view import Channel, Door, Entrypoint, Holder, Queue, View

NOT_SEEN = "not seen"
IN_FLIGHT = "in flight, or not seen"
NOBODY = "nobody"
# What is said in a row.
BETWEEN = "  "


def process(view: View, pid: int) -> str:
    """A process, by its name and number."""
    seen = view.processes.get(pid)
    return f"{seen.name} [{pid}]" if seen is not None else f"[{pid}]"


def door(each: Door) -> str:
    """What kind of door it is, and its label; a label that is empty is shown to be."""
    label = each.label or "''"
    return f"{'grant ' * each.is_grant}{label}{' (shut by a holder)' * each.shut}"


def row(each: Door, notes: Iterable[str]) -> str:
    """A door, with what else is said of it."""
    return BETWEEN.join([door(each), *notes])


def servers(view: View, each: Door) -> str:
    """Who serves it."""
    if each.servers:
        return ", ".join(process(view, holder.pid) for holder in each.servers)
    return f"{NOT_SEEN}: of {user_name(each.user)}"


def held_by(view: View, each: Door) -> Iterator[tuple[int, str]]:
    """Who holds it, each by number, 0 where it is no other process, and in words; its server if no other was seen."""
    serving = {holder.pid for holder in each.servers}
    others = [holder for holder in each.holders if holder.pid not in serving]
    for holder in others:
        yield holder.pid, process(view, holder.pid) + _under(holder)
    if others:
        return
    if each.out_of_sight:
        yield 0, IN_FLIGHT
    elif each.holders:
        yield 0, "its server"
    else:
        yield 0, NOBODY


def _under(holder: Holder) -> str:
    return f" x{holder.descriptors}" if holder.descriptors > 1 else ""


def channels(view: View, made: Iterable[Channel]) -> Iterator[str]:
    """How many each client has."""
    clients = Counter(channel.clients[0].pid if channel.clients else 0 for channel in made)
    for pid, many in clients.most_common():
        yield f"{many:,}: {process(view, pid) if pid else NOT_SEEN}"


def waiting(each: Entrypoint, at: Door, made: Sequence[Channel]) -> Iterator[tuple[str, bool]]:
    """What waits at one of its doors and in the channels of that, or at its paths, and whether it is stuck."""
    if at.knocks is not None:
        # A knock brings one.
        many = at.knocks.descriptors
        yield count(many, "knock") if many else "knocks", at.knocks.stuck
    yield from _several([channel.calls for channel in made], "call")
    yield from _several([channel.answers for channel in made], "answer")
    for listener in each.listeners if at is each.doors[0] else ():
        if listener.waiting:
            yield f"{count(listener.waiting, 'client')} at {listener.path}", False


def _several(queues: Iterable[Queue | None], what: str) -> Iterator[tuple[str, bool]]:
    there = [queue for queue in queues if queue is not None]
    stuck = sum(queue.stuck for queue in there)
    if len(there) > stuck:
        yield count(len(there) - stuck, what), False
    if stuck:
        yield count(stuck, what), True


def count(many: int, what: str) -> str:
    """So many of something, of which there may be one."""
    return f"{many:,} {what}{'' if many == 1 else 's'}"


def in_flight(view: View) -> Iterator[str]:
    """What travels, to whom."""
    for queue in view.in_flight:
        to = ", ".join(process(view, reader.pid) for reader in queue.readers) or f"a process that was {NOT_SEEN}"
        yield f"{count(queue.descriptors or 0, 'descriptor')} on the way to {to}"


def paths(each: Entrypoint) -> Iterator[str]:
    """Where it listens."""
    return (f"at {listener.path}" for listener in each.listeners)


def stopped(view: View, pid: int) -> str:
    """What is the matter with a process, if anything is; as what follows its name."""
    seen = view.processes.get(pid)
    return " (stopped)" if seen is not None and seen.stopped else ""


def expecting(view: View, pid: int) -> str:
    """What is on the way to a process, likewise."""
    many = sum(queue.descriptors or 0 for queue in view.in_flight for reader in queue.readers if reader.pid == pid)
    return f" ({count(many, 'descriptor')} on the way)" if many else ""
