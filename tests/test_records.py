"""Fields of every kind: sent and received, or refused when the interface is first used."""

import dataclasses
import functools
import sys
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import pytest

import capmarshal as cm
from capmarshal._typed.codec import data_decoder_for, encode_data
from capmarshal._typed.method import Method
from capmarshal._typed.records import refuse_lossy, walk

T = TypeVar("T")


# ------------------------------------------------------------------------------------------------ what arrives as it is


@dataclasses.dataclass
class Private:
    _first: int
    __second: int = 2
    third_: int = 3


@dataclasses.dataclass(slots=True)
class PrivateSlots:
    _first: int
    __second: int = 2


@dataclasses.dataclass
class LateFields:
    first: int
    late: int = dataclasses.field(init=False)
    fixed: int = dataclasses.field(init=False, default=5)


@dataclasses.dataclass(kw_only=True)
class ByName:
    first: int = 1
    second: int


@dataclasses.dataclass
class WithClassVariable:
    first: int
    of_class: ClassVar[int] = 3


@dataclasses.dataclass
class PostInit:
    first: int

    def __post_init__(self):
        self.twice = 2 * self.first


@dataclasses.dataclass(init=False)
class OwnInit:
    first: int

    def __init__(self, text):
        self.first = len(text)


class PrivateStruct(msgspec.Struct):
    _first: int


class Renamed(msgspec.Struct, rename="camel", tag="it", kw_only=True, omit_defaults=True):
    first_one: int = 1
    second_one: Final[str]


class Array(msgspec.Struct, array_like=True, kw_only=True):
    first: int = 1
    second: int


class MaybeUnset(msgspec.Struct):
    first: int | msgspec.UnsetType = msgspec.UNSET


@attrs.define
class Aliased:
    first: int = attrs.field(alias="other")
    second: int = attrs.field(init=False, default=2)


@attrs.define
class Converted:
    first: int = attrs.field(converter=lambda value: value * 2)


@attrs.frozen(slots=False)
class Frozen:
    first: int
    of_class: ClassVar[int] = 3


def _late():
    late = LateFields(1)
    late.late, late.fixed = 2, 6
    return late


@pytest.mark.parametrize(
    "value",
    [
        Private(1, 7, 8),
        PrivateSlots(1, 7),
        _late(),
        ByName(second=2),
        WithClassVariable(1),
        PostInit(2),
        OwnInit("abc"),
        PrivateStruct(4),
        Renamed(second_one="a"),
        Renamed(first_one=5, second_one="a"),
        Array(second=2),
        MaybeUnset(),
        MaybeUnset(1),
        Aliased(other=4),
        Converted(3),
        Frozen(1),
    ],
    ids=repr,
)
def test_fields_of_every_kind_arrive_as_they_were(value):
    """Private ones, such as __init__ does not take, renamed, converted: with the value that the object had."""
    for node in walk(msgspec.inspect.type_info(type(value))):
        refuse_lossy(node)
    came = data_decoder_for(type(value))(encode_data(value))
    assert came == value
    assert getattr(came, "__dict__", None) == getattr(value, "__dict__", None)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a syntax that this Python does not have")
def test_a_generic_class_with_annotations_that_are_strings_is_understood():
    """What msgspec can read is not refused because typing cannot."""
    source = "from __future__ import annotations\nclass Holding[Held](msgspec.Struct):\n    held: Held\n"
    exec(compile(source, "holding", "exec", dont_inherit=True), globals())
    made = globals()["Holding"](3)
    for node in walk(msgspec.inspect.type_info(type(made)[int])):
        refuse_lossy(node)
    assert data_decoder_for(type(made)[int])(encode_data(made)) == made


def test_a_field_that_is_not_there_is_missed_by_name():
    """An object that was never finished does not arrive as another one."""
    with pytest.raises(msgspec.ValidationError, match="missing required field `late`"):
        data_decoder_for(LateFields)(encode_data(LateFields(1)))


# ------------------------------------------------------------------------------------------- what is refused beforehand


@attrs.define
class AttrsPrivate:
    name: str
    _secret: cm.Descriptor | None = None


@attrs.define(slots=False)
class AttrsAliased:
    _name: str = attrs.field(alias="name", default="")


@attrs.define
class AttrsGeneric(Generic[T]):
    _inside: T


class StraySlots:
    __slots__ = ("stray",)


@attrs.define
class Straying(StraySlots):
    name: str = ""


class StraySlot:
    __slots__ = "stray"


@attrs.define(slots=False)
class StrayingInOne(StraySlot):
    name: str = ""


@attrs.define
class Cached:
    size: int

    @functools.cached_property
    def area(self) -> int:
        return self.size**2


@dataclasses.dataclass
class Initialised:
    first: int
    second: dataclasses.InitVar[int] = 3


class UnsetToFive(msgspec.Struct):
    first: int | msgspec.UnsetType = 5


@dataclasses.dataclass
class UnsetRequired:
    first: int | msgspec.UnsetType


class Holder(NamedTuple):
    held: list[AttrsPrivate]


class Wanting(TypedDict):
    wanted: dict[str, "Holder | None"]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (
            AttrsPrivate,
            r"the field _secret of the attrs class AttrsPrivate would not be sent.*another name, or a dataclass",
        ),
        (AttrsAliased, "the field _name of the attrs class AttrsAliased"),
        (AttrsGeneric[int], "the field _inside of the attrs class AttrsGeneric"),
        (Straying, "stray of the attrs class Straying is no field, but would be sent"),
        (StrayingInOne, "stray of the attrs class StrayingInOne is no field, but would be sent"),
        (
            Cached,
            "area of the attrs class Cached is no field.*if it is a cached property, say slots=False",
        ),
        (Initialised, "InitVar"),
        (UnsetToFive, "the field first of UnsetToFive may be UNSET, which is not sent; let UNSET be its default"),
        (UnsetRequired, "the field first of UnsetRequired may be UNSET"),
        (list[Holder], "_secret"),
        (Wanting, "_secret"),
    ],
)
def test_a_class_that_would_not_arrive_whole_is_refused_when_the_interface_is_first_used(annotation, words):
    """Wherever it stands, as parameter and as result; the error names method, place, class and field."""

    def take(self: Any, what: annotation) -> None: ...
    def give(self: Any) -> annotation: ...

    with pytest.raises(cm.InterfaceError, match=rf"Keeper\.take, parameter what: .*{words}"):
        Method(Keeper, "take", take)
    with pytest.raises(cm.InterfaceError, match=rf"Keeper\.give, result: .*{words}"):
        Method(Keeper, "give", give)


class Keeper(cm.Interface):
    @cm.method
    def keep(self, what: AttrsPrivate) -> None: ...


class KeeperServer(Keeper):
    def keep(self, what):
        raise AssertionError("a field would be missing")


def test_neither_server_nor_client_can_use_such_an_interface():
    """So what would be lost never is."""
    with cm.Entrypoint("keeper") as entrypoint, pytest.raises(cm.InterfaceError, match="_secret"):
        entrypoint.manage(KeeperServer())
    with cm.Entrypoint("other") as entrypoint:

        class Other(cm.Interface):
            @cm.method
            def other(self) -> None: ...

        class OtherServer(Other):
            def other(self): ...

        capability = entrypoint.manage(OtherServer())
        with pytest.raises(cm.InterfaceError, match="_secret"):
            capability.cast(Keeper)
