"""A call's arguments by the words of a command line: JSON, text as it is, and @FILE for what is no data.

What is not sent as data is opened here, as the user whose command it is: a server only says that it wants a file, and
never which, nor whether that is emptied.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import stat
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._capabilities.capability import Capability
from capmarshal._capabilities.connecting import connect
from capmarshal._capabilities.signal_capability import Signal
from capmarshal._describe.schemas import KINDS, CannotBeCalled, Types, due, is_text, members_of, shown
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import Descriptor, number_of
from capmarshal._descriptors.moving import file_made
from capmarshal._descriptors.shared_buffer import SharedBuffer
from capmarshal._kernel.errors import Error, KernelError
from capmarshal._typed.description import KIND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from capmarshal._describe.schemas import Definitions, Schema
    from capmarshal._typed.description import MethodDescription, ParameterDescription

_NAMED = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)
_ALREADY = re.compile(r"/dev/fd/(\d{1,7})")


class BadArgument(Exception):  # never leaves the package
    """What is wrong with the words of a command line, in words."""


class Arguments:
    """Makes arguments of words; what it has opened is closed with it.

    Args:
        described: the method that is called.
        definitions: of the types that its own refer to.
        words: of the command line, each of which is an argument.

    Raises:
        BadArgument: the words are not those that the method takes.
        CannotBeCalled: the words say why.

    Attributes:
        given: the parameters that there are arguments for.
        wrong: why an item of a stream could not be made; None: all could.
    """

    def __init__(self, described: MethodDescription, definitions: Definitions, words: Sequence[str]) -> None:
        self._definitions = definitions
        self._words = _placed(described, words)
        self.given = frozenset(each.name for each, _, _ in self._words)
        types = Types(definitions)
        # Of these alone: a server may say that there are thousands, of a large type each.
        self._kinds = {each.name: types.make(each.schema)[0] for each, _, _ in self._words}
        self.wrong: Exception | None = None
        self._opened = contextlib.ExitStack()
        self._to_be_empty: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def make(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call, by position and by name.

        Raises:
            BadArgument, CannotBeCalled: the words say why.
        """
        by_position: list[Any] = []
        by_name: dict[str, Any] = {}
        for parameter, word, is_named in self._words:
            made = self._argument(parameter, word)
            if is_named:
                by_name[parameter.name] = made
            else:
                by_position.append(made)
        return by_position, by_name

    def empty(self) -> None:
        """Empties what is to be written to: once all has been made, for a word that is wrong refuses the call."""
        while self._to_be_empty:
            number = number_of(self._to_be_empty.pop())
            if stat.S_ISREG(os.fstat(number).st_mode):
                os.ftruncate(number, 0)

    def _argument(self, parameter: ParameterDescription, word: str) -> Any:
        if not parameter.stream:
            return self._value(parameter.name, parameter.schema, word)
        lines = self._opened.enter_context(_read(parameter.name, word, "r"))
        return self._items(parameter, word, lines)

    def _items(self, parameter: ParameterDescription, word: str, lines: Iterator[str]) -> Iterator[Any]:
        try:
            for line in lines:
                item = self._value(parameter.name, parameter.schema, line.removesuffix("\n"))
                self.empty()
                yield item
        except (BadArgument, CannotBeCalled, OSError) as error:
            self.wrong = error
            raise
        except UnicodeDecodeError:
            self.wrong = BadArgument(f"{parameter.name}: a line of {_shortened(word)} is not UTF-8")
            raise self.wrong from None

    def _value(self, name: str, schema: Schema, word: str) -> Any:
        """What a word is for a parameter, or for an item of it."""
        kind = self._kinds[name]
        members = members_of(schema, self._definitions)
        as_text = [member for member in members if is_text(member, self._definitions)]
        if kind is bytes and word.startswith("@"):
            with _read(name, word) as file:
                return file.read()
        no_data = next((KINDS.get(str(member[KIND])) for member in members if KIND in member), None)
        if no_data is not None and (len(members) == 1 or word.startswith("@")):
            # A path need not be text.
            return self._no_data(name, no_data, word)
        try:
            text = msgspec.json.encode(word)
        except UnicodeEncodeError:
            raise BadArgument(f"{name}: {_shortened(word)} is not UTF-8") from None
        if as_text and len(members) == 1:
            return self._decoded(name, schema, kind, text, as_text=True)
        if kind is bytes:
            return self._decoded(name, schema, kind, text)
        try:
            return self._decoded(name, schema, kind, word.encode())
        except BadArgument:
            if not as_text:
                raise
            return self._decoded(name, schema, kind, text)

    def _decoded(self, name: str, schema: Schema, kind: Any, text: bytes, *, as_text: bool = False) -> Any:
        def hook(cls: type, value: Any) -> Any:
            if not isinstance(value, str):
                raise BadArgument(f"{name}: @FILE is due within {shown(schema, self._definitions)}")
            return self._no_data(name, cls, value)

        try:
            return msgspec.json.decode(text, type=kind, dec_hook=hook)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            if isinstance(error.__cause__, (BadArgument, CannotBeCalled, Error, OSError)):
                raise error.__cause__ from None
            malformed = not isinstance(error, msgspec.ValidationError)
            how = "itself, without quotes" if as_text else "in JSON"
            typed = msgspec.json.decode(text, type=str) if as_text else text.decode()
            words = f"{name}: {due(schema, self._definitions)} is due, {how}, not {_shortened(typed)}"
            raise BadArgument(words if malformed else f"{words}: {error}") from None

    def _no_data(self, name: str, cls: type, word: str) -> Any:
        """What a word stands for that begins with @, and is to be of a class."""
        if cls is Capability:
            return connect(_path(name, word))
        if cls in (SharedBuffer, Signal):
            raise CannotBeCalled(f"{name} is a {cls.__name__}, and a shell has none")
        made = self._opened.enter_context(_made(name, cls, word))
        if word.startswith("@>"):
            self._to_be_empty.append(made)
        return made


def _placed(described: MethodDescription, words: Sequence[str]) -> list[tuple[ParameterDescription, str, bool]]:
    """Whose argument each word is, in the order in which they are given, and whether it is given by name.

    Raises:
        BadArgument: the words are not those that the method takes.
    """
    by_position: list[tuple[ParameterDescription, str]] = []
    by_name: dict[str, str] = {}
    parameters = {each.name: each for each in described.parameters}
    places = [each for each in described.parameters if each.how != "name"]
    place_of = {each.name: place for place, each in enumerate(places)}
    for word in words:
        named = _NAMED.fullmatch(word)
        if named is not None and named[1] in parameters:
            name = named[1]
            if name in by_name or place_of.get(name, len(places)) < len(by_position):
                raise BadArgument(f"{name} is given twice")
            by_name[name] = named[2]
        elif len(by_position) == len(places):
            raise BadArgument(f"{_shortened(word)} is one argument too many")
        else:
            by_position.append((places[len(by_position)], word))
    given = {*by_name, *(each.name for each, _ in by_position)}
    if missing := [name for name, each in parameters.items() if name not in given and not each.optional]:
        raise BadArgument(f"{', '.join(missing)} missing")
    for place in places[len(by_position) :]:
        # What can be given by position alone was named here.
        if place.how != "position" or place.name not in by_name:
            break
        by_position.append((place, by_name.pop(place.name)))
    if wrong := [name for name in by_name if parameters[name].how == "position"]:
        raise BadArgument(f"{', '.join(wrong)} cannot be given without those before it")
    return [
        *((each, word, False) for each, word in by_position),
        *((parameters[name], word, True) for name, word in by_name.items()),
    ]


def _made(name: str, cls: type, word: str) -> Any:
    """An open file, socket or dataspace, of what a word names."""
    if cls is io.BufferedWriter:
        return _open(name, word, os.O_WRONLY).open("wb")
    if cls is io.BufferedReader:
        return _read(name, word)
    if cls is Dataspace:
        with _read(name, word) as file:
            return Dataspace.from_buffer(file.read())
    descriptor = _open(name, word, os.O_WRONLY if cls is Descriptor and word.startswith("@>") else os.O_RDONLY)
    if cls is socket.socket:
        try:
            return descriptor.socket()
        except OSError:
            descriptor.close()
            raise BadArgument(f"{name}: {word} is no socket; an open one is @/dev/fd/N, or @-") from None
    return descriptor


def _read(name: str, word: str, mode: str = "rb") -> Any:
    """A file to read from, of what a word names."""
    with _open(name, word, os.O_RDONLY) as descriptor:
        try:
            return descriptor.open(mode)
        except IsADirectoryError:
            raise BadArgument(f"{name}: {_shortened(word)} is a directory, and a file is due") from None


def _open(name: str, word: str, flags: int) -> Descriptor:
    """What a word names: a file that is opened, or something that is open already."""
    path = _path(name, word)
    if path == "-":
        return _copy_of(1 if flags & os.O_WRONLY else 0)
    if (already := _ALREADY.fullmatch(path)) is not None:
        # Of a socket, that file could not be opened.
        return _copy_of(int(already[1]))
    emptied = path.startswith(">")
    if emptied is not bool(flags & os.O_WRONLY):
        # Whoever typed it says so, and no server.
        due = "nothing is written to: @FILE is due" if emptied else "@>FILE is due, which is made, or emptied"
        raise BadArgument(f"{name}: {due}, not {_shortened(word)}")
    if emptied:
        path, flags = path[1:], flags | os.O_CREAT
    return file_made(path, flags, 0o666, Descriptor)


def _copy_of(number: int) -> Descriptor:
    try:
        return Descriptor.dup_of(number)
    except KernelError as error:
        # As of a file that can't be opened.
        raise OSError(error.errno, os.strerror(error.errno or 0)) from None


def _path(name: str, word: str) -> str:
    if not word.startswith("@") or len(word) == 1:
        raise BadArgument(f"{name}: @FILE is due, not {_shortened(word)}")
    return word[1:]


def _shortened(word: str) -> str:
    return word if len(word) <= 80 else f"{word[:80]}..."
