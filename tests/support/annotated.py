"""Classes of every kind to annotate with, and an interface of one method that is annotated so."""

import dataclasses
import enum
import io
import socket
import typing
from typing import Generic, NamedTuple, NewType, TypedDict, TypeVar

import msgspec

import capmarshal as cm
from declared import Echo

T = TypeVar("T")
Bound = TypeVar("Bound", bound=int)
Constrained = TypeVar("Constrained", int, str)
Parameters = typing.ParamSpec("Parameters")
Several = typing.TypeVarTuple("Several")
UserId = NewType("UserId", int)
Echoes = NewType("Echoes", Echo)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Word(enum.StrEnum):
    YES = "yes"


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Real(enum.Enum):
    HALF = 0.5


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Bits(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int


@dataclasses.dataclass
class Tree:
    children: "list[Tree]"


@dataclasses.dataclass
class Of(Generic[T]):
    x: T


@dataclasses.dataclass
class Initial:
    x: dataclasses.InitVar[int]


class Movie(TypedDict):
    title: str
    year: typing.NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: str = "right"


class Item(msgspec.Struct):
    x: int


class Fast(msgspec.Struct, array_like=True, frozen=True):
    x: int


class Get(msgspec.Struct, tag=True):
    key: str


class Put(msgspec.Struct, tag=True):
    key: str
    value: int


class Foreign: ...


class Number(int): ...


class Reader(io.BufferedReader): ...


class Socket(socket.socket): ...


class Proto(typing.Protocol):
    def m(self) -> None: ...


def interface_of(annotation):
    """An interface whose method m takes and returns what the annotation says."""

    def m(self, value): ...

    m.__annotations__ = {"value": annotation, "return": annotation}
    return type("Swept", (cm.Interface,), {"m": cm.method(m)})


def title(value):
    """What a parametrized test may be called."""
    return (getattr(value, "__name__", None) or str(value))[:40] if not isinstance(value, str) else None
