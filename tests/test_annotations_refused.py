"""Each annotation that cannot work is refused when the interface is first used; test_annotations.py has the others."""

import array
import collections
import collections.abc as abc
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import ipaddress
import os
import pathlib
import queue
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import types
import typing
from typing import Annotated, Any, Literal, NewType, Optional

import msgspec
import numpy as np
import pytest

import capmarshal as cm
from annotated import (
    Colour,
    Constrained,
    Fast,
    Foreign,
    Get,
    Initial,
    Item,
    Mixed,
    Number,
    Of,
    Parameters,
    Point,
    Proto,
    Reader,
    Real,
    Several,
    Socket,
    interface_of,
    title,
)
from declared import Echo, EchoServer, offline

REFUSED = [
    complex,
    object,
    list[object],
    EchoServer,
    list[EchoServer],
    range,
    slice,
    type,
    type[int],
    ...,
    NotImplemented,
    typing.NoReturn,
    typing.Never,
    typing.LiteralString,
    typing.AnyStr,
    Constrained,
    Parameters,
    Several,
    typing.Hashable,
    abc.Iterable[int],
    list[abc.Iterator[int]],
    abc.Generator[int, str, None],
    list[abc.AsyncIterator[int]],
    abc.Awaitable[int],
    abc.Container[int],
    abc.KeysView[int],
    abc.Callable,
    abc.Callable[[int], str],
    tuple[int, *tuple[str, ...]],
    collections.deque[int],
    collections.OrderedDict[str, int],
    collections.defaultdict[str, int],
    collections.Counter[str],
    collections.ChainMap,
    set[list[int]],
    set[Point],
    set[Item],
    set[bytearray],
    set[int | list[int]],
    dict[Point, int],
    dict[dict[str, int], int],
    dict[tuple[int, list[int]], int],
    Literal[b"x"],
    Literal[2**63],
    Literal[Colour.RED],
    Mixed,
    Real,
    enum.Enum,
    Initial,
    Of[Foreign],
    Item | Get,
    Item | Point,
    Item | dict[str, int],
    Fast | list[int],
    list[int] | tuple[int],
    list[int] | list[str],
    str | bytes,
    str | dt.date,
    str | decimal.Decimal,
    Echo | int,
    Echo | cm.Capability,
    Echo | Any,
    cm.Descriptor | Any,
    io.BufferedReader | socket.socket,
    dt.tzinfo,
    fractions.Fraction,
    pathlib.Path,
    os.PathLike,
    os.PathLike[str],
    re.Pattern[str],
    ipaddress.IPv4Address,
    types.SimpleNamespace,
    types.ModuleType,
    types.FunctionType,
    types.MappingProxyType,
    array.array,
    Exception,
    KeyError,
    BaseExceptionGroup,
    io.BufferedRandom,
    io.BufferedRWPair,
    io.FileIO,
    io.TextIOWrapper,
    io.TextIOBase,
    io.IOBase,
    io.BytesIO,
    io.StringIO,
    typing.IO,
    typing.IO[bytes],
    typing.BinaryIO,
    typing.TextIO,
    tempfile.SpooledTemporaryFile,
    ssl.SSLSocket,
    subprocess.Popen,
    threading.Lock,
    threading.Thread,
    queue.Queue,
    cm.Message,
    cm.Entrypoint,
    Reader,
    Socket,
    Number,
    Foreign,
    NewType("Strange", Foreign),
    Proto,
    typing.SupportsInt,
    typing.ClassVar[int],
    typing.Final,
    typing.Required[int],
    typing.NotRequired[int],
    typing.Concatenate[int, Parameters],
    typing.TypeGuard[int],
    typing.Generic,
    typing.Protocol,
    typing.Union,
    Optional,
    Literal,
    Annotated,
    Annotated[str, msgspec.Meta(gt=3)],
    Annotated[Echo, msgspec.Meta(gt=0)],
    Annotated[int, msgspec.Meta(gt=2**70)],
    dataclasses.InitVar[int],
    functools.partial,
    property,
    msgspec.UnsetType,
    msgspec.Meta,
    5,
    "5",
    (),
    (int,),
    [int],
    {},
    len,
    os,
    Echo.echo,
]


@pytest.mark.parametrize("at", range(len(REFUSED)), ids=[f"{title(of)}-{at}" for at, of in enumerate(REFUSED)])
def test_what_cannot_be_sent_is_refused_when_the_interface_is_first_used(at):
    """By the name of the parameter, and of the result; and no other error escapes."""
    interface = interface_of(REFUSED[at])
    with pytest.raises(cm.InterfaceError, match=r"^Swept\.m, parameter value: \w"):
        offline(interface)
    interface.m.__annotations__["value"] = int
    with pytest.raises(cm.InterfaceError, match=r"^Swept\.m, result: \w"):
        offline(interface)


@dataclasses.dataclass
class Rows:
    name: str
    rows: abc.Iterator[int]


@dataclasses.dataclass
class Tables:
    tables: list[Rows]


NEITHER = "is neither data, .*;"
ALONE = ": what is no data is alone, or beside None; take a parameter for each"


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (io.BufferedRandom, rf"io\.BufferedRandom {NEITHER} a file is an io\.BufferedReader or an .*, by what is done"),
        (typing.BinaryIO, rf"typing\.BinaryIO {NEITHER} a file is an io\.BufferedReader or"),
        (typing.IO[str], rf"typing\.IO {NEITHER} .*text is made of that: io\.TextIOWrapper\(file\)$"),
        (list[io.TextIOWrapper], rf"io\.TextIOWrapper {NEITHER} .*text is made of that: io\.TextIOWrapper\(file\)$"),
        (pathlib.Path, rf"pathlib\.Path {NEITHER} send the open file, as io\.BufferedReader, or a name, as str$"),
        (abc.Coroutine[typing.Any, typing.Any, int], rf"[.\w]+\.Coroutine {NEITHER} .* with async def$"),
        (np.ndarray, rf"numpy\.ndarray {NEITHER} send an array as Dataspace or SharedBuffer$"),
        (
            abc.Iterable[int],
            rf"collections\.abc\.Iterable {NEITHER} a stream is an argument or a result by itself, and",
        ),
        (abc.AsyncIterable[int], rf"collections\.abc\.AsyncIterable {NEITHER} a stream is an argument"),
        (list[abc.Iterator[int]], rf"collections\.abc\.Iterator {NEITHER} a stream is an argument .* not within"),
        (Rows, rf"Rows\.rows: collections\.abc\.Iterator {NEITHER} a stream is an argument .* not within"),
        (list[Tables], rf"Rows\.rows: collections\.abc\.Iterator {NEITHER} a stream is an argument .* not within"),
        (io.BufferedReader | io.BufferedWriter, rf"the union io\.BufferedReader \| io\.BufferedWriter{ALONE}"),
        (int | io.BufferedReader, rf"the union int \| io\.BufferedReader{ALONE}"),
        (cm.Dataspace | bytes, rf"the union capmarshal\.Dataspace \| bytes{ALONE}"),
    ],
    ids=title,
)
def test_what_is_refused_is_told_what_to_write_instead(annotation, words):
    """For what people are likeliest to write."""
    with pytest.raises(cm.InterfaceError, match=rf"^Swept\.m, parameter value: {words}"):
        offline(interface_of(annotation))
