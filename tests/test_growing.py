"""Interfaces that grow: an old one against a new one, both ways; and what travels of a call's arguments.

Whatever a type checker allows a derived class, it may do for a caller of its base.  Both sides have classes of their
own here, as two versions of a program have.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import capmarshal as cm
from patience import PATIENCE


@contextlib.contextmanager
def serving(target, interface):
    """A proxy of an interface, whatever the target's own is."""
    with cm.Entrypoint("growing") as entrypoint, cm.timeout(PATIENCE):
        yield entrypoint.manage(target).cast(interface)


class Missing(KeyError):
    """What the base declares."""


class Gone(Missing):
    """What only the derived interface declares."""


class Animal(cm.Interface):
    @cm.method
    def sound(self) -> str: ...


class Dog(Animal):
    @cm.method
    def fetch(self) -> int: ...


class DogServer(Dog):
    def sound(self) -> str:
        return "wow"

    def fetch(self) -> int:
        return 3


class Old(cm.Interface):
    @cm.method
    def added(self, a: int) -> list[int]: ...
    @cm.method
    def added_by_name(self, a: int) -> list[int]: ...
    @cm.method
    def optional(self, a: int, b: int) -> list[int]: ...
    @cm.method
    def wider(self, a: int) -> str: ...
    @cm.method
    def narrower(self) -> int | None: ...
    @cm.method
    def by_name(self, *, src: str, dst: str) -> str: ...
    @cm.method
    def also_by_position(self, *, src: str, dst: str) -> str: ...
    @cm.method
    def renamed(self, old: int, /) -> int: ...
    @cm.raises(Missing)
    @cm.method
    def raising(self) -> None: ...
    @cm.method
    def takes(self, dog: Dog, *, file: io.BufferedReader | None = None) -> str: ...
    @cm.method
    def gives(self, entrypoint: int = 0) -> Animal: ...


class New(cm.Interface):
    @cm.method
    def added(self, a: int, b: int = 2, c: int = 3) -> list[int]: ...
    @cm.method
    def added_by_name(self, a: int, *, b: int = 2) -> list[int]: ...
    @cm.method
    def optional(self, a: int = 10, b: int = 20) -> list[int]: ...
    @cm.method
    def wider(self, a: int | str) -> str: ...
    @cm.method
    def narrower(self) -> int: ...
    @cm.method
    def by_name(self, *, dst: str, src: str = "nothing") -> str: ...
    @cm.method
    def also_by_position(self, dst: str, src: str) -> str: ...
    @cm.method
    def renamed(self, new: int, /) -> int: ...
    @cm.raises(Missing, Gone)
    @cm.method
    def raising(self) -> None: ...
    @cm.method
    def takes(self, dog: Animal, *, file: io.BufferedReader | None = None, times: int = 1) -> str: ...
    @cm.method
    def gives(self, entrypoint: int = 0) -> Dog: ...
    @cm.method
    def more(self) -> str: ...


class _Server:
    """What servers of both have in common; the defaults are of no interface."""

    def __init__(self, entrypoint=None):
        self.dog = DogServer()
        self.entrypoint = entrypoint

    def added_by_name(self, a, *, b=-2):
        return [a, b]

    def wider(self, a):
        return f"{a}"

    def narrower(self):
        return 5

    def renamed(self, any_name, /):
        return any_name

    def raising(self):
        raise Gone("left")

    def takes(self, dog, *, file=None, times=1):
        return dog.sound() * times + (file.read().decode() if file else "")

    def gives(self, entrypoint=0):
        self.entrypoint.manage(self.dog)
        return self.dog

    def more(self):
        return "more"


class OldServer(_Server, Old):
    def added(self, a):
        return [a]

    def added_by_name(self, a):
        return [a]

    def optional(self, a, b):
        return [a, b]

    def by_name(self, *, src, dst):
        return f"{src} to {dst}"

    also_by_position = by_name


class NewServer(_Server, New):
    def added(self, a, b=-2, c=-3):
        return [a, b, c]

    def optional(self, a=-10, b=-20):
        return [a, b]

    def by_name(self, *, dst, src="-"):
        return f"{src} to {dst}"

    def also_by_position(self, dst, src):
        return f"{src} to {dst}"


def test_an_old_client_against_a_new_server():
    """It gives what it knows, by name or by position, and the server's own defaults stand for the rest."""
    with cm.Entrypoint("others") as others, cm.Entrypoint("growing") as entrypoint, cm.timeout(PATIENCE):
        old = entrypoint.manage(NewServer(entrypoint)).cast(Old)
        assert old.added(1) == [1, -2, -3]
        assert old.added_by_name(1) == [1, -2]
        assert old.optional(1, b=2) == [1, 2]
        assert old.wider(7) == "7"
        assert old.narrower() == 5
        assert old.by_name(src="a", dst="b") == old.by_name(dst="b", src="a") == "a to b"
        assert old.also_by_position(src="a", dst="b") == "a to b"
        assert old.renamed(4) == 4
        with pytest.raises(Missing) as caught:
            old.raising()
        assert (type(caught.value), caught.value.args) == (Missing, ("left",))
        dog = DogServer()
        others.manage(dog)
        with open(os.devnull, "rb") as file:
            assert old.takes(dog, file=file) == old.takes(dog) == "wow"
        assert old.gives().sound() == "wow"
        assert not hasattr(old, "more")


def test_a_new_client_against_an_old_server():
    """It may leave out what the server does not know; what it gives all the same is refused by name."""
    with cm.Entrypoint("growing") as entrypoint, cm.Entrypoint("others") as others, cm.timeout(PATIENCE):
        new = entrypoint.manage(OldServer(entrypoint)).cast(New)
        assert new.added(1) == [1]
        assert new.added_by_name(1) == [1]
        assert new.optional(1, 2) == [1, 2]
        assert new.by_name(src="a", dst="b") == "a to b"
        assert new.wider(7) == "7"
        assert new.narrower() == 5
        assert new.renamed(4) == 4
        with pytest.raises(Gone):
            # The old server does not declare it by itself: but its base, and so it says both names.
            new.raising()
        dog = DogServer()
        others.manage(dog)
        assert new.takes(dog) == "wow"
        assert new.gives().fetch() == 3
        for call, words in (
            (lambda: new.added(1, 2), r"New\.added|Old\.added, arguments: 2 came by position, and the server knows 1"),
            (
                lambda: new.added(1, c=2),
                r"Old\.added, arguments: the server knows no parameter 'c' that is given by name",
            ),
            (lambda: new.added_by_name(1, b=2), r"Old\.added_by_name, arguments: the server knows no parameter 'b'"),
            (lambda: new.takes(dog, times=2), r"Old\.takes, arguments: the server knows no parameter 'times'"),
            (new.optional, r"Old\.optional, arguments: `a`, `b` missing, for which the server has no default"),
            (lambda: new.optional(b=2), r"Old\.optional, arguments: `a` missing"),
            (lambda: new.by_name(dst="b"), r"Old\.by_name, arguments: `src` missing"),
            (lambda: new.wider("x"), r"Old\.wider, arguments: Expected `int`, got `str` - at `a`"),
            (lambda: new.also_by_position("b", "a"), r"Old\.also_by_position, arguments: 2 came by position"),
        ):
            with pytest.raises(cm.ArgumentError, match=words):
                call()
        with pytest.raises(cm.UnknownMethod, match="more"):
            new.more()
        assert new.added(1) == [1]


class Many(cm.Interface):
    @cm.method
    def places(self, a: int = 1, b: int = 2, c: int = 3, *, d: int = 4) -> list[int]: ...
    @cm.method
    def only(self, a: int = 1, b: int = 2, /) -> list[int]: ...
    @cm.method
    def files(
        self,
        first: cm.Descriptor | None = None,
        some: list[cm.Descriptor] = [],  # noqa: B006 - it is never called: a server has its own
        *,
        last: cm.Descriptor | None = None,
    ) -> list[int]: ...


class ManyServer(Many):
    def places(self, a=-1, b=-2, c=-3, *, d=-4):
        return [a, b, c, d]

    def only(self, a=-1, b=-2, /):
        return [a, b]

    def files(self, first=None, some=(), *, last=None):
        return [os.fstat(file.fileno()).st_ino if file else 0 for file in (first, *some, last)]


def test_what_is_given_travels_also_if_it_equals_the_default():
    """Not given is not the same as given as the interface's default."""
    with serving(ManyServer(), Many) as many:
        assert many.places() == [-1, -2, -3, -4]
        assert many.places(1, 2, 3, d=4) == [1, 2, 3, 4]
        assert many.places(1) == [1, -2, -3, -4]
        assert many.places(c=3) == [-1, -2, 3, -4]
        assert many.places(1, c=3) == [1, -2, 3, -4]
        assert many.places(b=2, d=4) == [-1, 2, -3, 4]
        assert many.only() == [-1, -2]
        assert many.only(1) == [1, -2]
        assert many.only(1, 2) == [1, 2]


def test_descriptors_travel_by_name_and_by_position():
    """Alone and in lists, with others before them that are not given."""
    with serving(ManyServer(), Many) as many, contextlib.ExitStack() as stack:
        files = [stack.enter_context(cm.Descriptor(os.memfd_create("test"))) for _ in range(4)]
        inodes = [os.fstat(file.fileno()).st_ino for file in files]
        assert many.files() == [0, 0]
        assert many.files(files[0], files[1:3], last=files[3]) == inodes
        assert many.files(last=files[0]) == [0, inodes[0]]
        assert many.files(some=files[:2]) == [0, *inodes[:2], 0]
        assert many.files(None, files[:2], last=None) == [0, *inodes[:2], 0]
        # One that is given twice is two descriptors at the server.
        assert many.files(files[0], [files[0]], last=files[0]) == inodes[:1] * 3


def test_a_default_that_only_the_server_has_is_the_servers():
    """The interface wants an argument that its server could do without: a client of a later interface gives none."""

    class Later(cm.Interface):
        @cm.method
        def optional(self, a: int, b: int = 0) -> list[int]: ...

    class Early(cm.Interface):
        @cm.method
        def optional(self, a: int, b: int) -> list[int]: ...

    class EarlyServer(Early):
        def optional(self, a: int, b: int = 7, more: int = 8) -> list[int]:
            return [a, b, more]

    with serving(EarlyServer(), Later) as later:
        assert later.optional(1) == [1, 7, 8]


def test_a_server_of_its_own_without_the_default_says_so():
    """What the interface makes optional, this server does not: an ArgumentError, not a TypeError of the server's."""

    class Strict(Many):
        def places(self, a, b, c, *, d):  # type: ignore[override]  # what the test is about
            return [a, b, c, d]

        def only(self, a=-1, b=-2, /):
            return [a, b]

        def files(self, first=None, some=(), *, last=None):
            return []

    with serving(Strict(), Many) as many:
        with pytest.raises(cm.ArgumentError, match=r"`c`, `d` missing"):
            many.places(1, 2)
        assert many.places(1, 2, 3, d=4) == [1, 2, 3, 4]


def test_results_that_say_more_than_the_base_promises():
    """A result of the derived interface's narrower type is one of the base's."""

    class Base(cm.Interface):
        @cm.method
        def give(self) -> float | str | None: ...
        @cm.method
        def some(self) -> list[float]: ...

    class Derived(Base):
        @cm.method
        def give(self) -> int: ...
        @cm.method
        def some(self) -> list[int]: ...

    class DerivedServer(Derived):
        def give(self) -> int:
            return 3

        def some(self) -> list[int]:
            return [1, 2]

    with serving(DerivedServer(), Base) as base:
        assert base.give() == 3
        assert base.some() == [1, 2]


SERVER = """
    import sys
    import capmarshal as cm

    class Gone(KeyError):
        def __init__(self, key, when):
            super().__init__(key)
            self.when = when

    class Store(cm.Interface):
        @cm.raises(Gone)
        @cm.method
        def get(self, key: str, default: str | None = None, *, version: int = 1) -> str: ...

    class StoreServer(Store):
        def get(self, key, default=None, *, version=7):
            if key == "gone":
                raise Gone(key, when=12)
            return f"{key} {default} {version}"

    with cm.Entrypoint("store") as entrypoint:
        sys.exit(cm.spawn([sys.executable, sys.argv[1]], parent=entrypoint.manage(StoreServer())).wait())
"""
CLIENT = """
    import capmarshal as cm

    class Store(cm.Interface):
        @cm.raises(KeyError)
        @cm.method
        def get(self, key: str) -> str: ...

    store = cm.parent().cast(Store)
    print(store.get("a"))
    try:
        store.get("gone")
    except KeyError as error:
        print(type(error).__name__, error, error.when)
"""


def test_two_programs_of_two_versions(tmp_path):
    """Each has the interface in its __main__, the client an old one."""
    server, client = tmp_path / "server.py", tmp_path / "client.py"
    server.write_text(textwrap.dedent(SERVER))
    client.write_text(textwrap.dedent(CLIENT))
    command = [sys.executable, server, client]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["a None 7", "KeyError 'gone' 12"]


def test_a_proxy_says_what_the_interface_says():
    """The place of an argument that is not given shows nowhere."""
    import inspect

    def signature(of: Any) -> str:
        return str(inspect.signature(of))

    with serving(ManyServer(), Many) as many:
        assert signature(many.places) == "(a: 'int' = 1, b: 'int' = 2, c: 'int' = 3, *, d: 'int' = 4) -> 'list[int]'"
