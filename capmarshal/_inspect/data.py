"""A look as JSON, for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capmarshal._inspect.view import Channel, Door, Entrypoint, Holder, Queue, View


def as_json(view: View) -> str:
    """One object, in one line; what is not ASCII is escaped, and so is whatever labels bring."""
    return json.dumps(as_data(view), separators=(",", ":")) + "\n"


def as_data(view: View) -> dict[str, Any]:
    """The same, as Python has it.  Whoever reads it is to expect more keys in times to come."""
    stuck = view.stuck_processes()
    return {
        "processes": [
            {
                "pid": each.pid,
                "name": each.name,
                "parent": each.parent,
                "user": each.user,
                "state": each.state,
                "stuck": each.pid in stuck,
            }
            for each in view.processes.values()
        ],
        "entrypoints": [_entrypoint(each) for each in view.entrypoints],
        "in_flight": [_queue(queue) for queue in view.in_flight],
        "not_seen": list(view.unseen),
    }


def _entrypoint(each: Entrypoint) -> dict[str, Any]:
    return {
        "servers": _pids(each.servers),
        "door": None if each.door is None else _door(each.door),
        "grants": [_door(door) for door in each.grants],
        "channels": [_channel(channel) for channel in each.channels],
        "signals": each.signals,
        "listens": [{"path": listener.path, "waiting": listener.waiting} for listener in each.listeners],
    }


def _door(door: Door) -> dict[str, Any]:
    return {
        "label": door.label,
        "name": door.name,
        "grant": door.is_grant,
        "user": door.user,
        "holders": [{"pid": holder.pid, "descriptors": holder.descriptors} for holder in door.holders],
        "out_of_sight": door.out_of_sight,
        "shut": door.shut,
        "knocks": _queue(door.knocks),
    }


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "clients": _pids(channel.clients),
        "calls": _queue(channel.calls),
        "answers": _queue(channel.answers),
    }


def _queue(queue: Queue | None) -> dict[str, Any] | None:
    if queue is None:
        return None
    return {
        "readers": _pids(queue.readers),
        "memory": queue.memory,
        "descriptors": queue.descriptors,
        "stuck": queue.stuck,
    }


def _pids(holders: Iterable[Holder]) -> list[int]:
    return [holder.pid for holder in holders]
