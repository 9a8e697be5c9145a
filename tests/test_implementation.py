"""What a server has in the place of a declared method: bound by what it says, or refused when it is managed."""

from __future__ import annotations

import functools

import pytest

import by_hand
import capmarshal as cm
from patience import PATIENCE


class Declared(cm.Interface):
    @cm.method
    def some(self, a: int = 1, b: int = 2, c: int = 3) -> list[int]: ...
    @cm.method
    def named(self, *, key: int, more: int = 0) -> list[int]: ...


class Renaming(Declared):
    """Calls its parameters otherwise, which positional ones may be."""

    def some(self, x=-1, y=-2, z=-3):
        return [x, y, z]

    def named(self, more=-4, *, key):
        return [key, more]


class Loose(Declared):
    def some(self, *numbers, **named):
        return [*numbers, *named.values()]

    def named(self, **named):
        return [*named.values()]


class Static(Declared):
    @staticmethod
    def some(a=-1, b=-2, c=-3):
        return [a, b, c]

    @classmethod
    def named(cls, *, key, more=-4):
        return [key, more]


def _passed_on(function):
    @functools.wraps(function)
    def wrapped(*arguments, **named):
        return function(*arguments, **named)

    return wrapped


class Wrapped(Declared):
    @_passed_on
    def some(self, a=-1, b=-2, c=-3):
        return [a, b, c]

    @_passed_on
    def named(self, *, key, more=-4):
        return [key, more]


@pytest.mark.parametrize("server", [Renaming, Static, Wrapped])
def test_names_are_those_of_the_declaration_and_defaults_those_of_the_server(server):
    """Given by place or by name, whatever the server calls them."""
    with cm.Entrypoint("named") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(server()).cast(Declared)
        assert proxy.some() == [-1, -2, -3]
        assert proxy.some(1, c=5) == [1, -2, 5]
        assert proxy.some(b=4) == [-1, 4, -3]
        assert proxy.named(key=7) == [7, -4]
        assert proxy.named(more=8, key=7) == [7, 8]


def test_a_server_that_takes_anything_is_given_what_came():
    """By its declared name, if by one."""
    with cm.Entrypoint("loose") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(Loose()).cast(Declared)
        assert proxy.some(1, 2) == [1, 2]
        assert proxy.some(1, c=3) == [1, 3]
        assert proxy.named(key=7) == [7]


def _server(**methods):
    return type("Misfit", (Declared,), {"named": Renaming.named, "some": Renaming.some, **methods})


MISFITS = {
    "fewer": (_server(some=lambda self, a=1, b=2: []), r"Misfit\.some cannot take `c`, as Declared\.some is declared"),
    "none": (_server(some=lambda self: []), r"Misfit\.some cannot take `a`"),
    "more": (_server(some=lambda self, a, b, c, d: []), r"Misfit\.some wants `d`, which nobody can give"),
    "more by name": (_server(some=lambda self, a, b, c, *, d: []), r"Misfit\.some wants `d`"),
    "by name only": (_server(some=lambda self, *, a=1, b=2, c=3: []), r"Misfit\.some cannot take `a`"),
    "another name": (_server(named=lambda self, *, other=1, more=1: []), r"Misfit\.named cannot take `key`"),
    "by position only": (_server(named=lambda self, key, more, /: []), r"Misfit\.named cannot take `key`"),
}


@pytest.mark.parametrize("how", MISFITS)
def test_a_server_that_cannot_be_called_as_declared_is_refused(how):
    """When it is managed, not at the first call; and the next one is managed."""
    server, words = MISFITS[how]
    with cm.Entrypoint("misfit") as entrypoint, cm.timeout(PATIENCE):
        with pytest.raises(cm.InterfaceError, match=words):
            entrypoint.manage(server())
        assert entrypoint.manage(Renaming()).cast(Declared).some() == [-1, -2, -3]


def test_a_decorator_that_hides_what_a_server_takes_is_refused():
    """By a loop of wrappers: an InterfaceError, as for the declaration itself."""

    def loop(self, a=1, b=2, c=3):
        return []

    loop.__wrapped__ = loop
    with cm.Entrypoint("hidden") as entrypoint, pytest.raises(cm.InterfaceError, match=r"some: .*wrapper loop"):
        entrypoint.manage(_server(some=loop)())


@pytest.mark.parametrize(
    "payload", [b"\x82\xa0\x91\x01\xa1a\x02", b"\x82\xa1a\x02\xa0\x92\x01\x02"], ids=["after", "before"]
)
def test_what_came_by_position_and_by_name_is_refused(payload, caplog):
    """It is the caller's mistake, not the server's, whose method is not run."""
    with cm.Entrypoint("twice") as entrypoint, cm.timeout(PATIENCE):
        capability = entrypoint.manage(Renaming())
        with by_hand.knock(capability) as near:
            near.send(by_hand.call(capability, b"some", payload))
            answer, _ = by_hand.answer(near)
        capability.close()
    assert "Declared.some, arguments: `a` came by position and by name" in str(answer)
    assert caplog.messages == []


def test_a_capability_is_cast_to_an_interface_and_to_no_server():
    """Its methods would run here, on an object that is none of the server's."""
    with cm.Entrypoint("cast") as entrypoint:
        capability = entrypoint.manage(Renaming())
        with pytest.raises(cm.InterfaceError, match=r"Renaming defines named, some.*cast to the interface: Declared"):
            capability.cast(Renaming)
