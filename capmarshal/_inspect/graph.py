"""What is in a picture: processes as boxes, the doors that each serves as rows, and arrows to those who hold one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from capmarshal._inspect import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._inspect.view import Channel, Door, Entrypoint, View

_ELSEWHERE = "elsewhere"


@dataclass(slots=True)
class Row:
    """A door, in the box of who serves it.

    Attributes:
        box: the key of that.
        door: the door.
        notes: what else is said of it.
        stuck: whether something waits there, or in a channel, that nobody takes.
    """

    box: str
    door: Door
    notes: list[str]
    stuck: bool


@dataclass(slots=True)
class Box:
    """A process, or all that was not seen.

    Attributes:
        key: no other has it.
        title: for people.
        stuck: it is to be shown so.
        rows: what it serves.
    """

    key: str
    title: str
    stuck: bool
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Arrow:
    """From a door to one who holds it.

    Attributes:
        row: of the door.
        to: the key of the box.
        stuck: whether something waits on the way that nobody takes.
    """

    row: Row
    to: str
    stuck: bool


@dataclass(slots=True)
class Graph:
    """All of it.

    Attributes:
        boxes: by key.
        arrows: in the order of the rows.
    """

    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[Arrow] = field(default_factory=list)


def graph_of(view: View) -> Graph:
    """Of one look."""
    graph = Graph()
    stuck = view.stuck_processes()
    for pid in view.processes:
        title = words.process(view, pid) + words.stopped(view, pid) + words.expecting(view, pid)
        graph.boxes[str(pid)] = Box(str(pid), title, pid in stuck)
    for each in view.entrypoints:
        for door, made in zip(each.doors, each.channels_by_door(), strict=True):
            _add(graph, view, each, door, made)
    return graph


def _add(graph: Graph, view: View, each: Entrypoint, door: Door, made: Sequence[Channel]) -> None:
    server = graph.boxes[str(door.servers[0].pid)] if door.servers else _elsewhere(graph, words.servers(view, door))
    found = list(words.waiting(each, door, made))
    notes = [*words.paths(each)] if door is each.doors[0] else []
    notes += [words.count(len(made), "channel")] if made else []
    notes += [f"waiting: {', '.join(text for text, _ in found)}"] if found else []
    row = Row(server.key, door, notes, any(stuck for _, stuck in found))
    server.rows.append(row)
    waits = {holder.pid for channel in made if channel.stuck for holder in channel.clients}
    for pid, _ in words.held_by(view, door):
        if pid:
            graph.arrows.append(Arrow(row, str(pid), pid in waits or door.stuck))
    if door.out_of_sight:
        graph.arrows.append(Arrow(row, _elsewhere(graph, words.IN_FLIGHT).key, door.stuck))


def _elsewhere(graph: Graph, title: str) -> Box:
    key = f"{_ELSEWHERE}: {title}"
    return graph.boxes.setdefault(key, Box(key, title, stuck=False))
