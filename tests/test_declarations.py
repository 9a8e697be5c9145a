"""Declarations: what is wrong with one is said when the interface is first used, by interface, method and parameter."""

import functools
import sys
import textwrap
import types
import typing
from typing import Annotated, Any, Literal, NewType, TypeAlias

import msgspec
import pytest

import capmarshal as cm
from declared import Echo, EchoServer, offline, serve
from patience import PATIENCE


def with_annotations(**annotations):
    """An interface with a method m(self, x) that has these annotations."""

    def m(self, x=None): ...

    m.__annotations__ = {"x": int, "return": None, **annotations}
    return type("Broken", (cm.Interface,), {"m": cm.method(m)})


def refused(interface, words):
    """The interface is refused, with these words, whether it is cast to or served, and each time."""
    server = type("Server", (interface,), dict.fromkeys(interface.__abstractmethods__, lambda self, *_: None))
    for _ in range(2):
        with pytest.raises(cm.InterfaceError, match=words):
            offline(interface)
        with cm.Entrypoint("test") as entrypoint, pytest.raises(cm.InterfaceError, match=words):
            entrypoint.manage(server())


def module_of(source, name="declared"):
    """A module made of source, which may be of a newer Python."""
    module = types.ModuleType(name)
    exec(compile(textwrap.dedent(source), name, "exec", dont_inherit=True), vars(module))
    return module


# ----------------------------------------------------------------------------------- annotations that cannot be read


UNREADABLE = [
    "",
    "a{sv}",
    "int |",
    "list[",
    " int",
    "\0",
    "(" * 300,
    "1/0",
    "yield",
    "Nowhere",
    "Echo.nowhere",
    "sys.exit",
    "lambda: 0",
    list["a{sv}"],  # noqa: F722
    list["Nowhere"],  # noqa: F821
    Literal[2**63],
    Literal[-(2**63) - 1],
    Literal[b"bytes"],
    functools.reduce(lambda inner, _: list[inner], range(2000), int),
    typing.Union[int, list["Json"]],  # noqa: F821, UP007 - an alias that names itself, as it was written before 3.12
    set[list[int]],
    set[dict[str, int]],
    dict[bytearray, int],
    frozenset[tuple[int, list[int]]],
    Any | Echo,
    Annotated[Echo, msgspec.Meta(gt=0)],
    object,
    5,
    (int,),
    ...,
]


@pytest.mark.parametrize("annotation", UNREADABLE)
def test_an_annotation_that_cannot_work_is_an_interface_error_that_names_its_place(annotation):
    """Whatever is raised where a string is evaluated, or a type is looked at: method and parameter, or result."""
    refused(with_annotations(x=annotation), r"Broken\.m, parameter x: \w")
    refused(with_annotations(**{"return": annotation}), r"Broken\.m, result: \w")


def test_nobody_is_sent_to_another_projects_authors():
    """What msgspec cannot do yet is said, and not to whom to write."""
    with pytest.raises(cm.InterfaceError) as caught:
        offline(with_annotations(x=Literal[2**63]))
    assert "2**63" in str(caught.value)
    assert "issue" not in str(caught.value)


def test_a_name_that_is_not_found_says_where_names_are_looked_up():
    """A class that is local to a function can't be named by a string."""
    local = module_of("""
        from __future__ import annotations
        import capmarshal as cm

        def make():
            class Local: ...
            class Store(cm.Interface):
                @cm.method
                def get(self, key: Local) -> None: ...
            return Store
    """)
    refused(local.make(), r"Store\.get, parameter key: .*'Local' is not defined.*its module or the interface itself")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is Python 3.12's")
@pytest.mark.parametrize("recursive", ["Json", "Itself", "Deep[int]", "list[Json]"])
def test_an_alias_that_contains_itself_is_refused(recursive):
    """msgspec would look into it for ever, or until it has no stack left."""
    module = module_of(f"""
        import capmarshal as cm
        type Json = int | list[Json]
        type Itself = Itself
        type Deep[T] = list[Deep[list[T]]]

        class Broken(cm.Interface):
            @cm.method
            def m(self, x: {recursive}) -> None: ...
    """)
    refused(module.Broken, r"Broken\.m, parameter x: the alias \w+ contains itself")


@pytest.mark.parametrize("name", ["two words", "class", "", "\ud800", "1st"])
def test_a_name_that_cannot_be_written_in_a_call_is_refused(name):
    """A class made by type() may have any."""
    refused(type("Broken", (cm.Interface,), {name: cm.method(Echo.echo)}), "Broken.*cannot be written in a call")


def test_a_function_that_hides_its_parameters_is_refused():
    """By a decorator's doing: it wraps itself, or its signature is none."""

    def circle(self) -> None: ...
    def lies(self) -> None: ...

    circle.__wrapped__ = circle
    lies.__signature__ = "lies"
    for function in (circle, lies):
        refused(type("Broken", (cm.Interface,), {"m": cm.method(function)}), r"Broken\.m: a decorator hides")


def test_a_generator_is_refused():
    """It says what is sent, and not how that is made."""

    class Broken(cm.Interface):
        @cm.method
        def m(self) -> list[int]:
            yield 1

    refused(Broken, r"Broken\.m: generators are what a server writes; .*: def m\(...\) -> Iterator\[...\]: ...")


def test_two_errors_of_one_name_are_refused():
    """They travel by their names."""

    def error():
        class NotFound(Exception): ...

        return NotFound

    one, other = error(), error()

    class Broken(cm.Interface):
        @cm.raises(one, other)
        @cm.method
        def m(self) -> None: ...

    class Twice(cm.Interface):
        @cm.method
        @cm.raises(one, one, KeyError)
        def m(self) -> None: ...

    refused(Broken, r"Broken\.m: @raises declares two errors.*NotFound")
    assert offline(Twice)


# ------------------------------------------------------------------------------------------ what annotations may name


class Nested(cm.Interface):
    """Names of its own, and a method that is called as a builtin is."""

    class Item(msgspec.Struct):
        number: int

    Number: TypeAlias = int
    UserId = NewType("UserId", int)

    @cm.method
    def get(self, item: "Item", user: "UserId", more: "list[Number]") -> "Item": ...
    @cm.method
    def list(self) -> None: ...


class NestedServer(Nested):
    def get(self, item, user, more):
        return Nested.Item(item.number + user + sum(more))

    def list(self): ...


def test_an_annotation_may_name_what_the_interface_has():
    """A class or an alias in its body, by a string; its methods do not stand in the way of builtins."""
    with serve(NestedServer(), Nested) as proxy:
        assert proxy.get(Nested.Item(1), 2, [3, 4]) == Nested.Item(10)


def test_an_interface_may_name_itself_wherever_it_is_defined():
    """Also one that is local to a function."""

    class Chain(cm.Interface):
        @cm.method
        def next(self) -> "Chain | None": ...

    class ChainServer(Chain):
        def next(self):
            return self

    with serve(ChainServer(), Chain) as proxy:
        assert proxy.next() == proxy


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is Python 3.12's")
def test_an_alias_stands_for_what_it_names():
    """With and without parameters, of data and of interfaces, and in the brackets of a class or function."""
    module = module_of("""
        from __future__ import annotations
        import capmarshal as cm

        type Pair[T] = tuple[T, T]
        type Numbers = list[int]
        type Stores = dict[str, Store[int]]

        class Store[T](cm.Interface):
            type Items = list[T]
            @cm.method
            def put(self, pair: Pair[Pair[T]], numbers: Numbers) -> Pair[int]: ...
            @cm.method
            def stores(self) -> Stores: ...

        class Server(Store[int]):
            def put(self, pair, numbers):
                return pair[0]
            def stores(self):
                return {"me": self}
    """)
    with serve(module.Server(), module.Store[int]) as proxy:
        assert proxy.put(((1, 2), (3, 4)), [5]) == (1, 2)
        assert proxy.stores() == {"me": proxy}
        with pytest.raises(cm.ArgumentError, match="pair"):
            proxy.put((("1", "2"), ("3", "4")), [5])


class Node(cm.Interface):
    @cm.method
    def parent(self) -> typing.Self | None: ...
    @cm.method
    def adopt(self, children: list[typing.Self]) -> int: ...


class Leaf(Node):
    @cm.method
    def colour(self) -> str: ...


class LeafServer(Leaf):
    def parent(self):
        return self

    def adopt(self, children):
        assert all(isinstance(child, Leaf) for child in children)
        return len(children)

    def colour(self):
        return "green"


def test_self_is_the_interface_that_is_used():
    """Asked of a derived interface, it is the derived one; the server takes whatever serves its interface."""
    with serve(LeafServer(), Leaf) as leaf, serve(LeafServer(), Leaf) as other:
        assert leaf.parent().colour() == "green"
        assert leaf.adopt([other, other, leaf]) == 3
        node = cm.capability(leaf).cast(Node)
        assert type(node.parent()).__name__ == "Node"


# ------------------------------------------------------------------------------- interfaces that first arrive in a call


class Broken(cm.Interface):
    @cm.method
    def m(self, x: complex) -> None: ...


class Giver(cm.Interface):
    @cm.method
    def give(self, one: cm.Capability) -> "list[Broken]": ...
    @cm.method
    def take(self, one: Broken) -> None: ...


class Sender(cm.Interface):
    """As a server and a caller have it who know of no Broken."""

    @cm.method
    def give(self, one: cm.Capability) -> list[cm.Capability]: ...
    @cm.method
    def take(self, one: cm.Capability) -> None: ...


class SenderServer(Sender):
    def give(self, one):
        return [one]

    def take(self, one): ...


class GiverServer(Giver):
    def give(self, one): ...
    def take(self, one): ...


def test_an_interface_that_is_first_used_by_an_annotation_is_refused_there():
    """Its own declaration is what is wrong: an InterfaceError at the caller's, and words from a server."""
    words = r"Broken\.m, parameter x: complex is neither"
    with cm.Entrypoint("test") as entrypoint, cm.Entrypoint("other") as other, cm.timeout(PATIENCE):
        one = other.manage(EchoServer())
        with pytest.raises(cm.InterfaceError, match=rf"^{words}"):
            entrypoint.manage(SenderServer()).cast(Giver).give(one)
        with pytest.raises(cm.ArgumentError, match=rf"^Giver\.take, arguments: {words}.*`one`"):
            entrypoint.manage(GiverServer()).cast(Sender).take(one)
