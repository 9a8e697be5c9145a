"""Interfaces with type variables, and with protocols beside them."""

import threading
import typing
from typing import Generic, TypeVar

import pytest

import by_hand
import capmarshal as cm
from capmarshal._typed.method import methods_of
from declared import Echo, EchoServer, offline, serve
from patience import PATIENCE

T = TypeVar("T")


class Box(cm.Interface, Generic[T]):
    @cm.method
    def get(self) -> T: ...
    @cm.method
    def swap(self, value: T) -> T: ...


class Shelf(cm.Interface):
    @cm.method
    def box(self, box: Box[int]) -> Box[int]: ...
    @cm.method
    def capabilities(self, boxes: list[Box[Echo]]) -> Echo | None: ...


class BoxServer(Box[T]):
    def __init__(self, value):
        self.value = value

    def get(self) -> T:
        return self.value

    def swap(self, value: T) -> T:
        before, self.value = self.value, value
        return before


class IntBoxServer(BoxServer[int]): ...


class EchoBoxServer(BoxServer[Echo]): ...


class ShelfServer(Shelf):
    def box(self, box):
        assert box.get() == 1
        return box

    def capabilities(self, boxes):
        return boxes[0].get()


def test_a_generic_interface_with_arguments_is_cast_to_as_such():
    """What a type variable stands for is the check, on both sides; without arguments it is any data."""
    with serve(IntBoxServer(1), Box[int]) as proxy:
        assert type(proxy).__qualname__ == "Box[int]"
        assert isinstance(proxy, Box)
        assert proxy.swap(2) == 1
        assert type(cm.capability(proxy).cast(Box[int])) is type(proxy)
        with pytest.raises(cm.ArgumentError, match=r"Box\.swap, arguments: .*`int`.*`value`"):
            cm.capability(proxy).cast(Box).swap("text")
        wrong = cm.capability(proxy).cast(Box[str])
        with pytest.raises(cm.ArgumentError, match=r"Box\.get, result: .*`str`"):
            wrong.get()


@pytest.mark.parametrize("home", ["the same entrypoint", "another entrypoint"])
def test_a_generic_interface_with_arguments_is_an_annotation(home):
    """Proxies and managed objects may stand there, and a type variable may stand for an interface."""
    with cm.Entrypoint("shelf") as shelves, cm.Entrypoint("boxes") as boxes, cm.timeout(PATIENCE):
        entrypoint = shelves if home == "the same entrypoint" else boxes
        shelf, target = shelves.manage(ShelfServer()).cast(Shelf), IntBoxServer(1)
        proxy = entrypoint.manage(target).cast(Box[int])
        echo = entrypoint.manage(EchoServer()).cast(Echo)
        assert shelf.box(target) == shelf.box(proxy) == proxy
        assert shelf.box(proxy).get() == 1
        echoes = entrypoint.manage(EchoBoxServer(echo)).cast(Box[Echo])
        assert shelf.capabilities([echoes]) == echoes.get() == echo


def test_what_a_type_variable_stands_for_is_checked_as_if_it_stood_there():
    """Nobody knows how to send it: said by the name of the method."""
    with pytest.raises(cm.InterfaceError, match=r"Box\.get, result: complex is neither"):
        offline(Box[complex])

    class Broken(BoxServer[complex]): ...

    with (
        cm.Entrypoint("test") as entrypoint,
        pytest.raises(cm.InterfaceError, match=r"Box\.\w+, .*: complex is neither"),
    ):
        entrypoint.manage(Broken(1j))


def test_threads_that_make_a_class_at_the_same_time_get_the_same_class():
    """The one that stands for the interface with arguments, and the class of its proxies."""
    meeting = threading.Barrier(2)

    class Met(cm.Interface, Generic[T]):
        def __init_subclass__(cls, **arguments):
            # Whoever makes a class is in the middle of it when the other is.
            meeting.wait(PATIENCE)
            super().__init_subclass__(**arguments)

        @cm.method
        def get(self) -> T: ...

    with cm.Entrypoint("met") as entrypoint:
        capability = entrypoint.manage(EchoServer())
        casting = [by_hand.Concurrent(capability.cast, Met[int]) for _ in range(2)]
        one, other = (thread.outcome() for thread in casting)
        assert type(one) is type(other)
        assert type(one).__mro__ == type(other).__mro__


# ---------------------------------------------------------------------------------------------- protocols beside them


class Readable(typing.Protocol):
    def read(self) -> bytes: ...


class Keeps(typing.Protocol[T]):
    """A protocol with a variable, that the interface beside it may use."""


class Number(Echo, typing.SupportsInt, Readable, Keeps[int]):
    """All that the protocols have is declared."""

    @cm.method
    def __int__(self) -> int: ...
    @cm.method
    def read(self) -> bytes: ...


class NumberServer(EchoServer, Number):
    def __int__(self):
        return 7

    def read(self):
        return b"seven"


def test_an_interface_may_have_protocols_beside_it():
    """Its proxies are what the protocols say, and no metaclasses are in each other's way."""
    with serve(NumberServer(), Number) as proxy:
        assert int(proxy) == 7
        assert proxy.read() == b"seven"
        assert isinstance(proxy, typing.SupportsInt)
        assert isinstance(proxy, Number)
        assert not isinstance(proxy, Box)
        assert not isinstance(object(), Number)


def test_what_a_protocol_says_and_the_interface_does_not_declare_is_refused():
    """An abstract method, and a stub."""

    class Abstract(Echo, typing.SupportsInt): ...

    class Stub(Echo, Readable): ...

    with pytest.raises(cm.InterfaceError, match="Abstract: __int__ abstract, but not declared with @method"):
        offline(Abstract)
    with pytest.raises(cm.InterfaceError, match=r"Readable\.read does nothing, and is not declared"):
        offline(Stub)


class Titled(typing.Protocol):
    @cm.method
    def title(self) -> str: ...


class Bare:
    @cm.method
    def size(self) -> int: ...


class Book(cm.Interface, Titled, Bare): ...


class BookServer(Book):
    def title(self):
        return "spam"

    def size(self):
        return 4


def test_a_protocol_or_another_class_may_declare_what_interfaces_have_in_common():
    """As an interface that derives from them has it; also in the other colour."""
    with serve(BookServer(), Book) as proxy:
        assert (proxy.title(), proxy.size()) == ("spam", 4)

    class AsyncBook(cm.Interface):
        title = cm.awaitable(Titled.title)
        size = cm.awaitable(Bare.size)

    assert {name: method.awaitable for name, method in methods_of(AsyncBook).items()} == {b"title": True, b"size": True}
