"""Where boxes and arrows of the drawn graph are (`_inspect/layout`, `_inspect/graph`, `_inspect/svg`)."""

import itertools
import re
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from capmarshal._inspect.graph import graph_of
from capmarshal._inspect.layout import laid_out
from capmarshal._inspect.processes import Process
from capmarshal._inspect.svg import as_svg
from capmarshal._inspect.view import Door, Entrypoint, Holder, View

BOXES = st.lists(st.tuples(st.integers(20, 300), st.integers(20, 200)), min_size=1, max_size=12)


@st.composite
def graphs(draw):
    """Sizes, and arrows between any two of them, several times too."""
    sizes = {str(number): tuple(map(float, size)) for number, size in enumerate(draw(BOXES))}
    pairs = list(itertools.permutations(sizes, 2))
    return sizes, draw(st.lists(st.sampled_from(pairs), max_size=30)) if pairs else []


@given(graphs())
def test_nothing_lies_on_anything_else(graph):
    """Boxes and bends, whatever arrows there are; and all of it is within the picture."""
    layout = laid_out(*graph)
    places = [*layout.boxes.values(), *itertools.chain(*layout.bends)]
    for one, other in itertools.combinations(places, 2):
        if one.layer == other.layer:
            assert one.y + one.height <= other.y or other.y + other.height <= one.y
        else:
            left, right = sorted((one, other), key=lambda place: place.layer)
            assert left.x + left.width < right.x
    for place in places:
        assert 0 <= place.x <= place.x + place.width <= layout.width
        assert 0 <= place.y <= place.y + place.height <= layout.height + 1e-6


@given(graphs())
def test_arrows_go_from_layer_to_layer(graph):
    """To the right, but for one at least of each circle; none stays in its layer."""
    sizes, arrows = graph
    layout = laid_out(sizes, arrows)
    for (start, end), bends in zip(arrows, layout.bends, strict=True):
        layers = [layout.boxes[start].layer, *(bend.layer for bend in bends), layout.boxes[end].layer]
        steps = {after - before for before, after in itertools.pairwise(layers)}
        assert steps in ({1}, {-1})
    if all(int(start) < int(end) for start, end in arrows):
        assert all(layout.boxes[start].layer < layout.boxes[end].layer for start, end in arrows)


def _view(arrows):
    """A view in which each number serves one entrypoint, which those that it has an arrow to hold."""
    pids = sorted({pid for arrow in arrows for pid in arrow})
    processes = {pid: Process(pid, f"process {pid}", 1, 0, "S", 1) for pid in pids}
    entrypoints = []
    for pid in pids:
        holders = tuple(Holder(end, 1) for start, end in arrows if start == pid)
        door = Door(f"served by {pid}", f"name {pid}", False, 0, (Holder(pid, 1),), bool(holders), holders, None, False)
        entrypoints.append(Entrypoint(door, (), (), 0, ()))
    return View(processes, tuple(entrypoints))


def test_a_picture_has_a_box_for_each_process_and_an_arrow_for_each_holder():
    arrows = [(1, 2), (1, 3), (2, 3), (3, 1)]
    graph = graph_of(_view(arrows))
    assert [box.title for box in graph.boxes.values()] == [f"process {pid} [{pid}]" for pid in (1, 2, 3)]
    assert [(arrow.row.box, arrow.to) for arrow in graph.arrows] == [(str(start), str(end)) for start, end in arrows]
    picture = as_svg(_view(arrows))
    assert picture.count("marker-end") == len(arrows)
    texts = {text.text for text in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")}
    assert {f"served by {pid}" for pid in (1, 2, 3)} <= texts


def test_an_arrow_begins_at_its_row_and_ends_at_its_holder():
    """At the border of both boxes."""
    picture = as_svg(_view([(1, 2)]))
    boxes = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', picture)
    (x, width), (other_x, _) = (tuple(map(float, found)) for found in boxes)
    (curve,) = re.findall(r'<path d="M([\d.]+) [\d.]+ C.* ([\d.]+) [\d.]+" marker-end', picture)
    assert tuple(map(float, curve)) == (x + width, other_x)


def test_a_thousand_processes_in_a_row_are_laid_out():
    """However deep, and in a circle: nothing here calls itself."""
    pids = [str(number) for number in range(1000)]
    arrows = list(itertools.pairwise(pids))
    layout = laid_out(dict.fromkeys(pids, (10.0, 10.0)), [*arrows, (pids[-1], pids[0])])
    assert [layout.boxes[pid].layer for pid in pids] == list(range(1000))
