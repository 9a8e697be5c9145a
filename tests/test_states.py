"""The table of what a server's channel may be in: walked, and drawn."""

import pytest

from capmarshal._protocol.states import (
    ANSWERING,
    CALLS,
    READS,
    SPARE,
    TRANSITIONS,
    UNBEGUN,
    UNREAD,
    WATCHES,
    WRITES,
    Event,
    State,
)
from diagrams import DOCS, GROUPS, PLACES, document, states_as_svg, steps_drawn


def _reachable(start):
    found, new = {start}, [start]
    while new:
        after = set(TRANSITIONS[new.pop()].values()) - found
        found |= after
        new += after
    return found


def test_every_state_has_a_line():
    """A state without one could be entered and never left."""
    assert set(TRANSITIONS) == set(State)


def test_every_state_can_be_reached():
    """From the first one."""
    assert _reachable(State.IDLE) == set(State)


def test_every_event_happens_somewhere():
    """An event that no state knows is dead."""
    assert {event for line in TRANSITIONS.values() for event in line} == set(Event)


@pytest.mark.parametrize("state", sorted(set(State) - {State.ENDED}, key=str))
def test_every_state_but_the_last_can_end_and_come_back(state):
    """A channel can always be dropped; and none hangs in a state from which no further call is taken."""
    assert TRANSITIONS[state][Event.END] is State.ENDED
    assert State.IDLE in _reachable(state)


def test_the_last_state_is_left_by_nothing():
    """A channel that has ended stays so."""
    assert TRANSITIONS[State.ENDED] == {}


def test_a_channel_is_not_read_while_it_is_answered_but_for_a_go():
    """So a client costs at most one answer."""
    assert {State.AWAITING_GO} == READS & ANSWERING
    assert CALLS < READS
    assert not CALLS & ANSWERING


def test_what_can_be_given_up_has_no_call_in_progress():
    """A call that has run is not lost for the sake of room."""
    assert not (SPARE | UNBEGUN) & ANSWERING
    assert SPARE <= CALLS


def test_the_kernel_is_asked_for_room_only_where_an_answer_waits():
    """EPOLLOUT is reported all the time elsewhere."""
    assert WRITES <= UNREAD <= ANSWERING


def test_what_is_watched_is_not_read():
    """A client that says something else while its method runs has given it up, and the channel."""
    assert WATCHES <= ANSWERING - READS - WRITES


def test_the_picture_in_the_documentation_is_drawn_from_the_table():
    """Each step that is possible, and no other, but the end; ``python tests/support/diagrams.py`` draws it anew."""
    steps = {(state, event, after) for state, line in TRANSITIONS.items() for event, after in line.items()}
    assert steps_drawn() == {step for step in steps if step[1] is not Event.END}
    assert {*PLACES} == {*State} - {State.ENDED}
    assert (DOCS / "states.svg").read_text(encoding="utf-8") == states_as_svg()
    assert (DOCS / "states.md").read_text(encoding="utf-8") == document()


@pytest.mark.parametrize("group", GROUPS, ids=[words for words, _ in GROUPS.values()])
def test_a_box_around_several_has_them_in_it(group):
    """And no others: an arrow from a box is an arrow from each of these."""
    _, (x, y, width, height) = GROUPS[group]
    inside = {state for state, (left, top) in PLACES.items() if x < left < x + width and y < top < y + height}
    assert inside == {*group}
