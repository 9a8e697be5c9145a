"""Each annotation that is accepted works, there and back; the others are in test_annotations_refused.py."""

import collections
import collections.abc as abc
import datetime as dt
import decimal
import functools
import io
import os
import socket
import types
import typing
import uuid
from typing import Annotated, Any, Literal, Optional, Union

import msgspec
import pytest

import capmarshal as cm
from annotated import (
    Bits,
    Bound,
    Colour,
    Echoes,
    Fast,
    Frozen,
    Get,
    Item,
    Movie,
    Of,
    Pair,
    Point,
    Put,
    Rights,
    Size,
    T,
    Tree,
    UserId,
    Word,
    interface_of,
    title,
)
from declared import Echo, EchoServer
from patience import PATIENCE

NAMES = collections.namedtuple("NAMES", "a b")  # noqa: PYI024 - as older code has it
UTC = dt.UTC
NOW = dt.datetime(2026, 11, 26, 12, 30, tzinfo=UTC)

DATA = [
    (bool, True),
    (int, -(2**63)),
    (int, 2**64 - 1),
    (float, 1.5),
    (str, "grüße"),
    (bytes, b"\0x"),
    (bytearray, bytearray(b"x")),
    (memoryview, memoryview(b"x")),
    (None, None),
    (types.NoneType, None),
    (Any, {"x": [1, None, "y"]}),
    (list, [1, "x"]),
    (list[int], [1, 2]),
    (typing.List[int], [1]),  # noqa: UP006 - as older code has it
    (list[list[list[list[int]]]], [[[[1]]]]),
    (list["int"], [1]),
    ("list[int]", [1]),
    (tuple, (1, "x")),
    (tuple[()], ()),
    (tuple[int], (1,)),
    (tuple[int, str], (1, "x")),
    (tuple[int, ...], (1, 2, 3)),
    (set, {1, 2}),
    (set[tuple[int, str]], {(1, "x")}),
    (set[Frozen], {Frozen(1)}),
    (set[Fast], {Fast(1)}),
    (frozenset[str], frozenset("ab")),
    (dict, {"x": 1}),
    (dict[str, int], {"x": 1}),
    (dict[int, str], {1: "x"}),
    (dict[float, int], {1.5: 1}),
    (dict[bool, int], {True: 1}),
    (dict[bytes, int], {b"x": 1}),
    (dict[None, int], {None: 1}),
    (dict[tuple[int, int], str], {(1, 2): "x"}),
    (dict[Frozen, int], {Frozen(1): 1}),
    (dict[Fast, int], {Fast(1): 1}),
    (dict[frozenset[int], int], {frozenset({1}): 1}),
    (dict[dt.date, int], {dt.date(2026, 1, 2): 1}),
    (dict[uuid.UUID, int], {uuid.UUID(int=5): 1}),
    (dict[Colour, Size], {Colour.RED: Size.SMALL}),
    (dict[Any, Any], {1: "x"}),
    (abc.Sequence[int], [1]),
    (abc.MutableSequence[int], [1]),
    (abc.Collection[int], [1]),
    (abc.Mapping[str, int], {"x": 1}),
    (abc.MutableMapping[str, int], {"x": 1}),
    (abc.Set[int], {1}),
    (abc.MutableSet[int], {1}),
    (Literal["a", 1, None], "a"),  # noqa: PYI061 - as some write it
    (Literal[True], True),
    (Literal[-(2**63)], -(2**63)),
    (Literal[1] | str, 1),
    (Colour, Colour.RED),
    (Size, Size.LARGE),
    (Word, Word.YES),
    (Rights, Rights.READ),
    (Rights, Rights.READ | Rights.WRITE),
    (Bits, Bits.READ | Bits.WRITE),
    (Colour | None, Colour.BLUE),
    (Colour | int, 5),
    (Point, Point(1)),
    (Frozen, Frozen(1)),
    (Tree, Tree([Tree([]), Tree([Tree([])])])),
    (Of, Of("anything")),
    (Of[int], Of(1)),
    (Movie, {"title": "x"}),
    (Movie, {"title": "x", "year": 5}),
    (Pair, Pair(1)),
    (NAMES, NAMES(1, 2)),
    (Item, Item(1)),
    (Fast, Fast(1)),
    (Get | Put, Put("x", 1)),
    (Get | Put | None, None),
    (Item | int, Item(1)),
    (Point | list[int] | None, Point(3)),
    (int | str | None, "x"),
    (int | float, 1.5),
    (Union[int, str], "x"),  # noqa: UP007 - as older code has it
    (Optional[int], None),  # noqa: UP045
    (list[int] | dict[str, int], {"x": 1}),
    (Any | int, "x"),
    (dt.datetime, NOW),
    (dt.datetime, NOW.replace(tzinfo=None)),
    (int | dt.datetime, NOW),
    (dt.date, NOW.date()),
    (dt.time, dt.time(12, 30, 1, 5)),
    (dt.timedelta, dt.timedelta(days=-1, microseconds=5)),
    (decimal.Decimal, decimal.Decimal("1.50")),
    (uuid.UUID, uuid.UUID(int=5)),
    (msgspec.Raw, msgspec.Raw(b"\x01")),
    (msgspec.msgpack.Ext, msgspec.msgpack.Ext(5, b"x")),
    (UserId, UserId(5)),
    (T, {"any": ["data"]}),
    (Bound, 5),
    (typing.Final[int], 5),
    (Annotated[int, "a note"], 5),
    (Annotated[int, msgspec.Meta(gt=0)], 5),
    (list[Annotated[str, msgspec.Meta(max_length=3)]], ["abc"]),
    (Annotated[dt.datetime, msgspec.Meta(tz=True)], NOW),
    (typing.ForwardRef("int"), 5),
    (functools.reduce(lambda inner, _: list[inner], range(50), int), functools.reduce(lambda x, _: [x], range(50), 1)),
]


@pytest.mark.parametrize(
    "at", range(len(DATA)), ids=[f"{title(annotation)}-{at}" for at, (annotation, _) in enumerate(DATA)]
)
def test_data_of_each_annotation_arrive_there_and_back(at):
    """As they were, of the type that they were; as an argument by position and by name, and as a result."""
    annotation, value = DATA[at]
    interface = interface_of(annotation)
    saw = []
    server = type("Server", (interface,), {"m": lambda self, value: (saw.append(value), value)[1]})
    with cm.Entrypoint("test") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(server()).cast(interface)
        for came in (proxy.m(value), proxy.m(value=value), *saw):
            assert came == value
            assert type(came) is type(value)


CAPABILITIES = [
    (Echo, "echo"),
    (Echo | None, "echo"),
    (Echo | None, None),
    (Echoes, "echo"),
    (cm.Capability, "capability"),
    (Optional[cm.Capability], "capability"),  # noqa: UP045
    (Annotated[Echo, "a note"], "echo"),
    (list[Echo | None], ["echo", None]),
    (tuple[Echo, int], ("echo", 1)),
    (tuple[Echo, ...], ("echo", "echo")),
    (dict[str, cm.Capability], {"x": "capability"}),
    (set[Echo], {"echo"}),
    (frozenset[cm.Capability], frozenset({"capability"})),
    (dict[Echo, int], {"echo": 1}),
    (dict[cm.Capability, Echo], {"capability": "echo"}),
    (Of[Echo], Of("echo")),
    (list[Of[Echo]], [Of("echo")]),
    (cm.Interface, "echo"),
]


def _filled(value, things):
    """The value with things in the place of their names."""
    if isinstance(value, Of):
        return Of(_filled(value.x, things))
    if isinstance(value, dict):
        return {_filled(key, things): _filled(inner, things) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(_filled(inner, things) for inner in value)
    return things.get(value, value)


@pytest.mark.parametrize(
    "at", range(len(CAPABILITIES)), ids=[f"{title(of)}-{at}" for at, (of, _) in enumerate(CAPABILITIES)]
)
def test_capabilities_in_each_place_arrive_there_and_back(at):
    """In whatever they stand; the entrypoint that they belong to is another."""
    annotation, value = CAPABILITIES[at]
    interface = interface_of(annotation)
    server = type("Server", (interface,), {"m": lambda self, value: value})
    with cm.Entrypoint("test") as entrypoint, cm.Entrypoint("other") as other, cm.timeout(PATIENCE):
        echo = other.manage(EchoServer()).cast(Echo)
        value = _filled(value, {"echo": echo, "capability": cm.capability(echo)})
        assert entrypoint.manage(server()).cast(interface).m(value) == value


FILES = [
    (cm.Descriptor, lambda file: file, lambda came: came),
    (cm.Descriptor | None, lambda file: file, lambda came: came),
    (io.BufferedReader, lambda file: file, lambda came: came),
    (io.BufferedWriter, lambda file: file, lambda came: came),
    (list[cm.Descriptor], lambda file: [file], lambda came: came[0]),
    (list[cm.Descriptor] | None, lambda file: [file], lambda came: came[0]),
    (list[list[cm.Descriptor]], lambda file: [[file]], lambda came: came[0][0]),
    (tuple[cm.Descriptor, ...], lambda file: (file,), lambda came: came[0]),
    (dict[str, io.BufferedReader], lambda file: {"x": file}, lambda came: came["x"]),
    (dict[cm.Descriptor, int], lambda file: {file: 1}, lambda came: next(iter(came))),
    (set[cm.Descriptor], lambda file: {file}, lambda came: next(iter(came))),
    (Of[io.BufferedReader], lambda file: Of(file), lambda came: came.x),
    (cm.Dataspace, lambda file: cm.Dataspace.from_buffer(b"data"), lambda came: None),
    (socket.socket, lambda file: socket.socket(), lambda came: None),
]


@pytest.mark.parametrize("at", range(len(FILES)), ids=[f"{title(of)}-{at}" for at, (of, _, _) in enumerate(FILES)])
def test_descriptors_in_each_place_arrive_there_and_back(at, tmp_path):
    """In whatever they stand."""
    annotation, wrapped, unwrapped = FILES[at]
    interface = interface_of(annotation)
    server = type("Server", (interface,), {"m": lambda self, value: value})
    (tmp_path / "file").write_bytes(b"data")
    with (
        cm.Entrypoint("test") as entrypoint,
        cm.timeout(PATIENCE),
        (tmp_path / "file").open("r+b", buffering=0) as file,
    ):
        value = wrapped(file)
        came = entrypoint.manage(server()).cast(interface).m(value)
        found = unwrapped(came)
        if found is None:
            assert type(came) is type(value)
            value.close()
            found = came
        else:
            assert os.path.sameopenfile(found.fileno(), file.fileno())
        found.close()
