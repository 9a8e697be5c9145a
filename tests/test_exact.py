"""Records arrive whole, or the call fails: nothing that the annotation has no place for is cut without a word."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Optional, TypedDict, TypeVar

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import by_hand
import capmarshal as cm
from capmarshal._typed.codec import data_decoder_for, encode_data
from capmarshal._typed.exact import check_for
from patience import PATIENCE


@dataclasses.dataclass
class Order:
    item: str
    count: int = 1


@dataclasses.dataclass
class Gift(Order):
    card: str = ""


@attrs.define
class Person:
    name: str


@attrs.define
class Employee(Person):
    salary: int = 0


class Place(TypedDict):
    street: str
    town: NotRequired[str]


class Point(msgspec.Struct):
    x: int


class Point3(Point):
    z: int = 0


class Row(msgspec.Struct, array_like=True):
    x: int


class Row2(Row, array_like=True):
    y: int = 0


class Cat(msgspec.Struct, tag="cat"):
    name: str


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Puppy(msgspec.Struct, tag="dog"):
    name: str
    weeks: int


class Pair(NamedTuple):
    left: Order
    right: Order | None = None


@dataclasses.dataclass
class Tree:
    value: int
    leaves: "list[Tree]" = dataclasses.field(default_factory=list)
    up: Optional["Tree"] = None


T = TypeVar("T")


@dataclasses.dataclass
class Box(Generic[T]):
    inside: T


@dataclasses.dataclass(frozen=True)
class Key:
    name: str


@dataclasses.dataclass(frozen=True)
class LongKey(Key):
    more: str = ""


@dataclasses.dataclass
class Handed:
    """With a descriptor in it."""

    file: cm.Descriptor


@dataclasses.dataclass
class HandedMore(Handed):
    other: cm.Descriptor | None = None


class Shop(cm.Interface):
    @cm.method
    def order(self, order: Order) -> Order: ...
    @cm.method
    def person(self, person: Person) -> Person: ...
    @cm.method
    def place(self, place: Place) -> Place: ...
    @cm.method
    def point(self, point: Point) -> Point: ...
    @cm.method
    def animals(self, animals: list[Cat | Dog], note: str = "") -> int: ...
    @cm.method
    def hand(self, handed: Handed) -> int: ...
    @cm.method
    def more(self, kind: str) -> Order: ...
    @cm.method
    def file(self) -> Handed: ...


class ShopServer(Shop):
    def order(self, order):
        return order

    person = place = point = order

    def animals(self, animals, note=""):
        return len(animals)

    def hand(self, handed):
        return os.fstat(handed.file.fileno()).st_ino

    def more(self, kind):
        return Gift("book", card="from me") if kind == "gift" else Order("book", 2)

    def file(self):
        read, write = os.pipe()
        return HandedMore(cm.Descriptor(read), cm.Descriptor(write))


@pytest.fixture
def shop(fork):
    """A proxy of a shop in another process."""
    with by_hand.server_process(fork, ShopServer) as (_, capability), cm.timeout(PATIENCE):
        yield capability.cast(Shop)
        capability.close()


def test_what_is_declared_arrives_whole_in_another_process(shop):
    """Every kind of record, there and back."""
    assert shop.order(Order("tea", 3)) == Order("tea", 3)
    assert shop.person(Person("Ada")) == Person("Ada")
    assert shop.place({"street": "Way", "town": "Ton"}) == {"street": "Way", "town": "Ton"}
    assert shop.place({"street": "Way"}) == {"street": "Way"}
    assert shop.point(Point(7)) == Point(7)
    assert shop.animals([Cat("Tom"), Dog("Rex")]) == 2
    assert shop.more("order") == Order("book", 2)


@pytest.mark.parametrize(
    ("method", "argument", "field", "at"),
    [
        ("order", Gift("tea", card="for you"), "card", "order"),
        ("person", Employee("Ada", 100), "salary", "person"),
        ("place", {"street": "Way", "country": "UK"}, "country", "place"),
        ("point", Point3(1, 2), "z", "point"),
        ("point", Cat("Tom"), "type", "point"),
        ("animals", [Cat("Tom"), Puppy("Rex", 3)], "weeks", "animals[1]"),
    ],
)
def test_a_record_with_more_than_is_declared_is_refused_by_name(shop, method, argument, field, at):
    """A derived class where its base is declared, a key that the TypedDict has not; the next call is as ever."""
    with pytest.raises(cm.ArgumentError) as caught:
        getattr(shop, method)(argument)
    assert str(caught.value).startswith(
        f"Shop.{method}, arguments: Object contains unknown field `{field}` - at `{at}`"
    )
    assert shop.order(Order("tea")) == Order("tea")


def test_a_result_with_more_than_is_declared_is_refused_by_name(shop):
    """By the caller, who is the one that would miss it."""
    with pytest.raises(cm.ArgumentError, match=r"^Shop\.more, result: Object contains unknown field `card`"):
        shop.more("gift")
    assert shop.more("order") == Order("book", 2)


def test_descriptors_in_what_is_refused_are_closed(shop, quiet_log):
    """Of the arguments in the server, of the result in the caller; the fixtures count those of this process."""
    with cm.Descriptor(os.memfd_create("test")) as file:
        assert shop.hand(Handed(file)) == os.fstat(file.fileno()).st_ino
        for _ in range(20):
            with pytest.raises(cm.ArgumentError, match="argument `handed`: Object contains unknown field `other`"):
                shop.hand(HandedMore(file, file))
            with pytest.raises(cm.RemoteError, match=r"Shop\.file, result: Object contains unknown field `other`"):
                shop.file()
        assert shop.hand(Handed(file)) == os.fstat(file.fileno()).st_ino


def test_a_newer_peer_that_speaks_by_hand_is_refused_as_well():
    """What holds is the check of who receives, whatever the sender thinks."""
    with by_hand.serving(ShopServer()) as capability, by_hand.knock(capability) as near:
        payload = msgspec.msgpack.encode([{"item": "tea", "count": 1, "since": "2.0"}])
        by_hand.send(near, by_hand.call(capability, b"order", payload))
        answer, _ = by_hand.answer(near)
        assert "unknown field `since` - at `order`" in str(answer)


# ------------------------------------------------------------------------------------------- annotations of every shape

MORE = Gift("tea", card="x")
SHAPES = [
    (Order | None, [None, Order("a")], MORE, ""),
    (list[Order], [[], [Order("a")]], [MORE], "[0]"),
    (set[Key], [set(), {Key("a")}], {LongKey("a")}, "[0]"),
    (frozenset[Key], [frozenset([Key("a")])], frozenset([LongKey("a")]), "[0]"),
    (Sequence[Order], [[Order("a")]], [MORE], "[0]"),
    (tuple[Order, ...], [(), (Order("a"),)], (MORE,), "[0]"),
    (tuple[int, Order], [(1, Order("a"))], (1, MORE), "[1]"),
    (dict[str, Order], [{}, {"a": Order("b")}], {"a": MORE}, "[...]"),
    (dict[Key, int], [{Key("a"): 1}], {LongKey("a"): 1}, "key"),
    (dict[tuple[Key, bytes], int], [{(Key("a"), b"b"): 1}], {(LongKey("a"), b""): 1}, "key"),
    (Pair, [Pair(Order("a")), Pair(Order("a"), Order("b"))], Pair(Order("a"), MORE), "[1]"),
    (Tree, [Tree(1, [Tree(2)], Tree(3))], {"value": 1, "leaves": [{"value": 2, "more": 1}]}, "leaves[0]"),
    (Box[Order], [Box(Order("a"))], Box(MORE), "inside"),
    (Box[int], [Box(1)], {"inside": 1, "outside": 2}, ""),
    (Annotated[Order, msgspec.Meta(title="an order")] | int, [1, Order("a")], MORE, ""),
    (list[Order] | str | int | None, ["a", 1, None, [Order("a")]], [MORE], "[0]"),
    (Order | list[int] | Literal["a", "b"] | float | bool, [[1], "a", 1.5, True, Order("a")], MORE, ""),
    (Order | Row, [Order("a"), Row(1)], MORE, ""),
    (Order | Pair, [Order("a"), Pair(Order("a"))], (MORE,), "[0]"),
    (Cat | Dog | None, [Cat("a"), Dog("b"), None], Puppy("c", 1), ""),
    (dict[str, Cat | list[Place]], [{"a": Cat("a"), "b": [{"street": "c"}]}], {"b": [{"street": "c", "d": 1}]}, "[0]"),
]


@pytest.mark.parametrize(("annotation", "fitting", "more", "at"), SHAPES, ids=[str(shape[0]) for shape in SHAPES])
def test_records_are_found_wherever_an_annotation_has_them(annotation, fitting, more, at):
    """In containers, unions, generics, keys and themselves; what fits arrives as it was."""
    decode = data_decoder_for(annotation)
    assert [decode(encode_data(value)) for value in fitting] == fitting
    with pytest.raises(msgspec.ValidationError, match="unknown field") as caught:
        decode(encode_data(more))
    assert at in str(caught.value)


def test_an_array_that_is_longer_than_its_struct_is_refused():
    """So are those that are no maps."""
    for annotation in (Row, list[Row], Row | None, Row | Order):
        value = Row2(1, 2)
        with pytest.raises(msgspec.ValidationError, match="Expected `array` of length"):
            data_decoder_for(annotation)(encode_data([value] if annotation == list[Row] else value))


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    x: int
    pair: tuple[int, str] = (0, "")


class Loose(msgspec.Struct, forbid_unknown_fields=True):
    inner: Point


class Colours(NamedTuple):
    red: int
    green: int = 0


@pytest.mark.parametrize(
    "annotation",
    [int, tuple[int, str], dict[str, list[float | None]], Any, Strict, list[Strict], Colours, cm.Descriptor],
)
def test_what_cannot_lose_a_field_is_decoded_once(annotation):
    """Data without records, and records that refuse by themselves, cost what they did."""
    assert check_for(annotation) is None


def test_a_struct_that_forbids_more_is_looked_into():
    """It speaks for itself, and not for what it holds."""
    with pytest.raises(msgspec.ValidationError, match=r"unknown field `z` - at `\$.inner`"):
        data_decoder_for(Loose)(encode_data(Loose(Point3(1, 2))))


def test_any_beside_a_record_takes_everything():
    """As it does alone."""
    assert data_decoder_for(Order | Any)(encode_data(MORE)) == {"item": "tea", "count": 1, "card": "x"}


@attrs.define(slots=False)
class Circle:
    radius: int

    @functools.cached_property
    def area(self):
        return 3 * self.radius**2


def test_a_cached_property_is_no_field_and_does_no_harm():
    """msgspec sends it once it has been asked for; who receives works it out for itself."""
    circle = Circle(2)
    assert circle.area == 12
    assert "area" in msgspec.msgpack.decode(encode_data(circle))
    came = data_decoder_for(Circle)(encode_data(circle))
    assert (came, came.area) == (circle, 12)
    circle.colour = "red"
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        data_decoder_for(Circle)(encode_data(circle))


# --------------------------------------------------------------------------------------------------- arbitrary records


def _record(members):
    """A dataclass of those members, and values of it."""
    fields = [(f"field{place}", kind) for place, (kind, _) in enumerate(members)]
    made = dataclasses.make_dataclass("Made", fields)
    return made, st.builds(made, *[values for _, values in members])


scalars = st.sampled_from(
    [(int, st.integers(-(2**63), 2**64 - 1)), (str, st.text()), (bytes, st.binary()), (bool, st.booleans())]
)
types_and_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        inner.map(lambda t: (list[t[0]], st.lists(t[1], max_size=3))),
        inner.map(lambda t: (t[0] | None, st.none() | t[1])),
        inner.map(lambda t: (dict[str, t[0]], st.dictionaries(st.text(max_size=3), t[1], max_size=3))),
        st.lists(inner, min_size=1, max_size=3).map(_record),
    ),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.lists(types_and_values, min_size=1, max_size=3).map(_record), st.data())
def test_any_record_arrives_as_it_was_and_one_with_more_does_not(record, data):
    """Dataclasses of all kinds of members, in each other."""
    kind, values = record
    value = data.draw(values)
    decode = data_decoder_for(kind)
    assert decode(encode_data(value)) == value
    more = dict(msgspec.msgpack.decode(encode_data(value)), more=None)
    with pytest.raises(msgspec.ValidationError, match="unknown field `more`"):
        decode(encode_data(more))
