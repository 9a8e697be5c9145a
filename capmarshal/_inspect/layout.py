"""Where each box of a picture stands: in layers from who serves to who holds, so that arrows go to the right.

What goes round in circles has arrows that go to the left.  An arrow that passes a layer has a place of its own there, a
bend, so that it runs between the boxes and not through them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Between layers, between boxes of one, and what a bend has for itself.
_ACROSS, _BELOW, _BEND = 110.0, 26.0, 10.0
# How often the layers are put in order by their neighbours, there and back.
_SWEEPS = 4


@dataclass(slots=True)
class Place:
    """Of a box, or of a bend, which is as wide as its layer.

    Attributes:
        width, height: of it.
        layer: from the left.
        x, y: its upper left corner.
    """

    width: float
    height: float
    layer: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def middle(self) -> float:
        """How far down its middle is."""
        return self.y + self.height / 2


@dataclass(slots=True)
class Layout:
    """All places.

    Attributes:
        boxes: by key.
        bends: of each arrow, from the box that it leaves to the one that it comes to.
        width, height: of all.
    """

    boxes: dict[str, Place] = field(default_factory=dict)
    bends: list[list[Place]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def laid_out(sizes: Mapping[str, tuple[float, float]], arrows: Sequence[tuple[str, str]]) -> Layout:
    """Places for boxes.

    Args:
        sizes: width and height of each.
        arrows: from which to which; to itself goes none.
    """
    layout = Layout({key: Place(*size) for key, size in sizes.items()})
    after: dict[str, list[str]] = {key: [] for key in sizes}
    for start, end in arrows:
        after[start].append(end)
    forward = _forward(after)
    for key, layer in _layers(after, forward).items():
        layout.boxes[key].layer = layer
    neighbours = _with_bends(layout, arrows)
    layers = _in_order(_grouped(layout), neighbours)
    _place(layout, layers, neighbours)
    return layout


def _forward(after: Mapping[str, list[str]]) -> set[tuple[str, str]]:
    """The arrows that are in no circle, and of each circle all but those that close it."""
    forward: set[tuple[str, str]] = set()
    done: set[str] = set()
    above: set[str] = set()
    # Who is held by nobody, first: a circle is then closed by the arrow that goes back to where it was entered.
    held = {end for ends in after.values() for end in ends}
    for root in sorted(after, key=lambda key: key in held):
        path = [(root, iter(after[root]))] if root not in done else []
        while path:
            key, rest = path[-1]
            above.add(key)
            for end in rest:
                if end not in above:
                    forward.add((key, end))
                    if end not in done:
                        path.append((end, iter(after[end])))
                        break
            else:
                path.pop()
                above.discard(key)
                done.add(key)
    return forward


def _layers(after: Mapping[str, list[str]], forward: set[tuple[str, str]]) -> dict[str, int]:
    """Each as far left as the arrows that lead to it allow."""
    into: dict[str, int] = dict.fromkeys(after, 0)
    for _, end in forward:
        into[end] += 1
    layers: dict[str, int] = dict.fromkeys(after, 0)
    ready = [key for key, count in into.items() if not count]
    while ready:
        key = ready.pop()
        for end in dict.fromkeys(after[key]):
            if (key, end) in forward:
                layers[end] = max(layers[end], layers[key] + 1)
                into[end] -= 1
                if not into[end]:
                    ready.append(end)
    return layers


# Of each place, by identity: those beside it, in the layers to its left and to its right.
_Neighbours = dict[int, list[Place]]


def _with_bends(layout: Layout, arrows: Sequence[tuple[str, str]]) -> _Neighbours:
    """Gives arrows a bend in each layer that they pass; who then is beside whom."""
    neighbours: _Neighbours = defaultdict(list)
    for start, end in arrows:
        first, last = layout.boxes[start], layout.boxes[end]
        step = 1 if first.layer < last.layer else -1
        bends = [Place(0.0, _BEND, layer) for layer in range(first.layer + step, last.layer, step)]
        layout.bends.append(bends)
        chain = [first, *bends, last]
        for one, other in pairwise(chain):
            neighbours[id(one)].append(other)
            neighbours[id(other)].append(one)
    return neighbours


def _grouped(layout: Layout) -> list[list[Place]]:
    places = [*layout.boxes.values(), *(bend for bends in layout.bends for bend in bends)]
    layers: list[list[Place]] = [[] for _ in range(max((place.layer for place in places), default=-1) + 1)]
    for place in places:
        layers[place.layer].append(place)
    return layers


def _in_order(layers: list[list[Place]], neighbours: _Neighbours) -> list[list[Place]]:
    """The layers, each in the order of where its neighbours stand on average: few arrows cross then."""
    for sweep in range(_SWEEPS):
        step = -1 if sweep % 2 else 1
        for layer in layers[::step]:
            ranks = {id(place): rank for other in layers for rank, place in enumerate(other)}
            beside = layer[0].layer - step if layer else 0
            layer.sort(
                key=lambda place, beside=beside, ranks=ranks: _average(  # type: ignore[misc]  # bound for this layer
                    [ranks[id(other)] for other in neighbours[id(place)] if other.layer == beside], ranks[id(place)]
                )
            )
    return layers


def _average(numbers: Iterable[float], otherwise: float) -> float:
    found = list(numbers)
    return sum(found) / len(found) if found else otherwise


def _place(layout: Layout, layers: list[list[Place]], neighbours: _Neighbours) -> None:
    x = 0.0
    for layer in layers:
        width = max(place.width for place in layer)
        y = 0.0
        for place in layer:
            place.x, place.y = x, y
            y += place.height + _BELOW
            # A bend leads by all boxes of its layer.
            place.width = place.width or width
        x += width + _ACROSS
    # Each beside its neighbours, as far as those above it in its layer leave room.
    for layer in [*layers[1:], *layers[-2::-1]]:
        floor = 0.0
        for place in layer:
            wanted = _average((other.middle for other in neighbours[id(place)]), place.middle) - place.height / 2
            place.y = max(wanted, floor)
            floor = place.y + place.height + _BELOW
    top = min((place.y for layer in layers for place in layer), default=0.0)
    for layer in layers:
        for place in layer:
            place.y -= top
    layout.width = max(0.0, x - _ACROSS)
    layout.height = max((place.y + place.height for layer in layers for place in layer), default=0.0)
