"""Entrypoint as an object: made, refused, forgotten, described."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest

import by_hand
import capmarshal as cm

PATIENCE = by_hand.PATIENCE


@pytest.mark.parametrize("arguments", [(), ("",), ("a/b",), ("x" * 65,), (7,)])
def test_one_that_cannot_be_made_says_why_and_no_more(arguments, monkeypatch):
    """What is left of it is deleted without a word."""
    unraisable = []
    monkeypatch.setattr("sys.unraisablehook", lambda error: unraisable.append(error.exc_value))
    with pytest.raises((TypeError, ValueError)):
        cm.Entrypoint(*arguments)
    gc.collect()
    assert unraisable == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"label": 3}, "a label is text, not 3"),
        ({"limits": {"channels": 3}}, r"limits are a cm\.Limits, as .*, not {'channels': 3}"),
        ({"limits": None}, r"limits are a cm\.Limits"),
        ({"close_timeout": "5"}, "close_timeout is a number of seconds, 0 or more, not '5'"),
        ({"close_timeout": True}, "close_timeout is a number of seconds, 0 or more, not True"),
        ({"close_timeout": None}, "close_timeout is a number of seconds"),
        ({"max_bytes": "5000"}, "max_bytes is a whole number, 1000 or more, not '5000'"),
        ({"max_descriptors": True}, "max_descriptors is a whole number"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_arguments_of_another_kind_are_refused_in_words(arguments, words):
    """Each by its name, and not in the words of whatever uses it first."""
    with pytest.raises(TypeError, match=words):
        cm.Entrypoint(**({"label": "x"} | arguments))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("", "not ''"),
        ("a/b", "not 'a/b'"),
        ("a\nb", r"not 'a\\nb'"),
        ("\u00e9" * 33, "'\u00e9{33}' has 66"),
        ("x" * 10**6, r"'x+\.\.\. \(\d+ characters left out\) \.\.\.x+' has 1000000"),
    ],
    ids=("empty", "slash", "line", "bytes", "long"),
)
def test_what_is_no_label_is_told_what_one_is(label, words):
    """In bytes, as of which a letter may have several; and of a long one the beginning and the end are enough."""
    with pytest.raises(ValueError, match=f"^a label is 1 to 64 bytes of printable text without a slash[,;] {words}$"):
        cm.Entrypoint(label)
    with cm.Entrypoint("x") as entrypoint, pytest.raises(ValueError, match=f"a label is 1 to 64 bytes .*{words}$"):
        entrypoint.grant(by_hand.Worker(), label=label)


@pytest.mark.parametrize("again", [copy.copy, pickle.dumps])
def test_it_is_neither_copied_nor_pickled(again):
    """A copy that goes would end the service of the other."""
    with cm.Entrypoint("one") as entrypoint, cm.timeout(PATIENCE):
        with pytest.raises(TypeError, match="an Entrypoint is neither copied nor pickled"):
            again(entrypoint)
        gc.collect()
        assert entrypoint.manage(by_hand.Worker()).cast(by_hand.Work).double(1) == 2


def test_one_that_was_never_made_is_closed():
    """As of a subclass whose __init__ forgot to make it."""

    class Forgetful(cm.Entrypoint):
        def __init__(self):
            pass

    entrypoint = Forgetful()
    assert entrypoint.closed
    entrypoint.close()
    with pytest.raises(cm.Closed), entrypoint:
        pass


class Knowing(by_hand.Worker):
    """Refers to the entrypoint that manages it."""

    def __init__(self, entrypoint):
        super().__init__()
        self.entrypoint = entrypoint


@pytest.mark.parametrize("held", ["nothing", "capability", "proxy"])
def test_a_forgotten_entrypoint_whose_object_refers_to_it_is_let_go(held):
    """Nothing global keeps the two alive, nor does a capability: clients find it gone."""

    def forget():
        entrypoint = cm.Entrypoint("forgotten")
        capability = entrypoint.manage(Knowing(entrypoint))
        kept = {"capability": capability, "proxy": capability.cast(by_hand.Work)}.get(held)
        return weakref.ref(entrypoint), kept

    with pytest.warns(ResourceWarning, match="unclosed <Entrypoint 'forgotten'>"):
        reference, kept = forget()
        gc.collect()
    assert reference() is None
    if kept is not None:
        proxy = kept if held == "proxy" else kept.cast(by_hand.Work)
        with pytest.raises(cm.Disconnected), cm.timeout(PATIENCE):
            proxy.double(1)


def test_a_used_one_is_let_go_as_well():
    """Served, and called, and closed: the collector is not needed for the entrypoint itself."""
    entrypoint = cm.Entrypoint("used")
    with entrypoint, cm.timeout(PATIENCE):
        assert entrypoint.manage(by_hand.Worker()).cast(by_hand.Work).double(1) == 2
    reference = weakref.ref(entrypoint)
    del entrypoint
    assert reference() is None
