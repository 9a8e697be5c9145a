"""The arguments of a call: those that are given travel, and the server's own defaults stand for the others.

A payload says by itself what it is: an array of the arguments that were given by position, or a map of those that were
given by name, whose key "" holds the array of the others.  The server binds names by its own declaration.  So a
parameter with a default may be added on either side, keyword-only ones may stand in any order, and what a derived
interface may do for a type checker, it may do for a caller of its base.
"""

from __future__ import annotations

import contextlib
import re
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from capmarshal._descriptors.refused import refused_of
from capmarshal._kernel.errors import ArgumentError, Error, StaleCapability
from capmarshal._typed.codec import data_decoder_for, decoder_for, encode, encode_data
from capmarshal._typed.fitting import check_at_first_sight, check_data, due_for
from capmarshal._typed.lists import is_list
from capmarshal._typed.parameters import Parameter, parameters_of
from capmarshal._typed.table import Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._typed.declaration import Declaration
    from capmarshal._typed.table import Incoming


class _NotGiven:
    """Stands for an argument that was not given: a value that equals the default is one that was."""

    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN: Final = _NotGiven()

# What is encoded: the arguments by position; or those by name, and under this name the others.
Given: TypeAlias = "tuple[Any, ...] | dict[str, Any]"
_BY_POSITION = ""

# What a payload that is no good makes msgspec raise: RecursionError for 100,000 nested arrays, BufferError for a
# memoryview with gaps, and so on.
BAD_PAYLOAD = (ValueError, TypeError, OverflowError, RecursionError, BufferError)

# Heads of MessagePack's arrays and maps: short ones with their length in the head, and those with 2 or 4 bytes of it.
_ARRAY, _ARRAYS = 0x90, {0xDC: 2, 0xDD: 4}
_MAP, _MAPS = 0x80, (0xDE, 0xDF)
_SHORT, _LENGTH = 0xF0, 0x0F

# How msgspec ends an error in the n-th argument.  What stands before that may be the peer's own words.
_PLACE = re.compile(r"( - at (?:`key` in )?`)\$\[(\d+)\]([^`]*`)\Z")
# And how one within a value by itself.
_WITHIN = re.compile(r"( - at (?:`key` in )?`)\$([^`]*`)\Z")


def words_of_failure(error: Exception) -> str:
    """What is wrong with a payload, as msgspec says it."""
    return str(error) if isinstance(error, (ValueError, TypeError, Error)) else type(error).__name__


def _is_map(payload: bytes | memoryview) -> bool:
    head = payload[0] if payload else 0
    return head & _SHORT == _MAP or head in _MAPS


def _count(payload: bytes | memoryview) -> int:
    """How many arguments an array has; 0 for what is none, which its decoder says then."""
    head = payload[0] if payload else 0
    if head & _SHORT == _ARRAY:
        return head & _LENGTH
    return int.from_bytes(payload[1 : 1 + _ARRAYS[head]], "big") if head in _ARRAYS else 0


_decode_map: Callable[[Buffer], dict[str, msgspec.Raw]] = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode


class Arguments:
    """What a method is called with: to payload, and back.

    Args:
        declared: the method, as its interface declares it.
        implementation: what the class that is called has under its name.

    Attributes:
        decode_data: payload to arguments, if they were given by position, and are data; raises anything that msgspec
            raises, and KeyError where too many or too few were given.
    """

    def __init__(self, declared: Declaration, implementation: object) -> None:
        self._where = declared.where
        self._parameters = declared.parameters
        self._annotations = declared.annotations
        self._data = declared.data
        self._are_data = all(declared.data)
        self._places = {parameter.name: place for place, parameter in enumerate(self._parameters)}
        self._positional = sum(p.kind is not p.KEYWORD_ONLY for p in self._parameters)
        custom = [place for place, is_data in enumerate(declared.data) if not is_data]
        dues = [(place, due_for(self._annotations[place])) for place in custom]
        self._dues = [(place, due) for place, due in dues if due is not None]
        # Some may be within containers, where only the receiver finds out how many there are.
        self._all_due = len(self._dues) == len(custom)
        self._lists = [place for place, annotation in enumerate(self._annotations) if is_list(annotation)]
        self._required = _required(implementation, self._parameters)
        # By how many are given by position, and by name.
        self._decoders: dict[int, Callable[[Buffer, Incoming], Any]] = {}
        self._named: dict[str, Callable[[Buffer, Incoming], Any]] = {}
        fewest = sum(place is not None and place < self._positional for place, _ in self._required)
        self.decode_data = self._data_decoder(fewest)

    def _tuple_of(self, count: int) -> Any:
        return tuple[tuple(self._annotations[:count])]  # type: ignore[misc]  # made at run time

    def _data_decoder(self, fewest: int) -> Callable[[bytes | memoryview], Any]:
        if fewest == self._positional or not self._are_data:
            return data_decoder_for(self._tuple_of(self._positional))
        counts = range(fewest, self._positional + 1)
        decoders = {count: data_decoder_for(self._tuple_of(count)) for count in counts}
        return lambda payload: decoders[_count(payload)](payload)

    def given(self, *values: Any) -> Given:
        """What is to be encoded of the arguments, which come in the order of the parameters; some may not be given."""
        positional = values[: self._positional]
        count = next((place for place, value in enumerate(positional) if value is NOT_GIVEN), len(positional))
        rest = zip(self._parameters[count:], values[count:], strict=True)
        by_name = {parameter.name: value for parameter, value in rest if value is not NOT_GIVEN}
        return {_BY_POSITION: positional[:count], **by_name} if by_name else positional[:count]

    def _by_place(self, given: Given) -> Iterator[tuple[int, Any]]:
        """The arguments that are given, each with the place of its parameter."""
        yield from enumerate(given if isinstance(given, tuple) else given[_BY_POSITION])
        if isinstance(given, dict):
            yield from ((self._places[name], value) for name, value in given.items() if name != _BY_POSITION)

    def encode(self, given: Given, outgoing: Outgoing) -> bytes:
        """The payload of a CALL.

        Raises:
            ArgumentError: something in it cannot be sent, or is not what is due.
            Closed, CallTimeout, KernelError: as a descriptor or capability in it raises them.
        """
        try:
            return encode_data(given) if self._are_data else self._encode(given, outgoing)
        except (*BAD_PAYLOAD, Error) as error:
            culprit, words = self._culprit(given, error)
            if isinstance(error, Error) and not isinstance(error, ArgumentError):
                error.add_note(f"{self._where}, {culprit}")
                raise
            raise ArgumentError(f"{self._where}, {culprit}: {words}") from error

    def _encode(self, given: Given, outgoing: Outgoing) -> bytes:
        by_place = dict(enumerate(given) if isinstance(given, tuple) else self._by_place(given))
        count = 0
        for place, due in self._dues:
            if place in by_place:
                count += due.count(by_place[place])
        if not self._all_due:
            for place in by_place:
                if self._data[place]:
                    check_at_first_sight(by_place[place], self._annotations[place])
        payload = encode(self._with_lists(given, outgoing) if self._lists else given, outgoing)
        if self._all_due and len(outgoing.entries) != count:
            raise TypeError("a descriptor or capability where data is due")
        return payload

    def _with_lists(self, given: Given, outgoing: Outgoing) -> list[Any] | dict[str, Any]:
        """The arguments with each list of descriptors as its indices in the table."""
        by_place = dict(self._by_place(given))
        for place in self._lists:
            if type(by_place.get(place)) is list:
                by_place[place] = outgoing.add_list(by_place[place])
        if isinstance(given, tuple):
            return list(by_place.values())
        count = len(given[_BY_POSITION])
        named = {name: by_place[self._places[name]] for name in given if name != _BY_POSITION}
        return {_BY_POSITION: [by_place[place] for place in range(count)], **named}

    def _culprit(self, given: Given, error: Exception) -> tuple[str, str]:
        """Which argument cannot be sent, and why: msgspec does not say, so each is tried alone."""
        for place, value in self._by_place(given):
            try:
                if self._data[place]:
                    check_data(value, self._annotations[place])
                for _, due in (known for known in self._dues if known[0] == place):
                    due.count(value)
                encode(value, Outgoing())
            except (*BAD_PAYLOAD, Error) as its_own:
                return f"argument `{self._parameters[place].name}`", str(its_own)
        return "arguments", str(error)

    def unsendable(self, given: Given, numbers: Sequence[int]) -> ArgumentError | None:
        """Why the kernel refused to send a call with these descriptors; None if not for one of them."""
        refused = refused_of(numbers)
        if refused is None:
            return None
        culprit = "arguments"
        for place, value in self._by_place(given):
            alone = Outgoing()
            with contextlib.suppress(*BAD_PAYLOAD, Error):
                encode(value, alone)
            if refused.number in alone.numbers:
                culprit = f"argument `{self._parameters[place].name}`"
        return ArgumentError(f"{self._where}, {culprit} cannot be sent: its descriptor is {refused.why}")

    def decode(self, payload: bytes | memoryview, incoming: Incoming) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arguments of a CALL: by position, and by name.

        Raises:
            ArgumentError, StaleCapability: they are not what the interface says.
        """
        try:
            if _is_map(payload):
                by_position, by_name = self._decode_by_name(payload, incoming)
            else:
                by_position, by_name = self._decode_by_position(payload, incoming), {}
            incoming.check_used()
        except StaleCapability:
            raise
        except Exception as error:  # a __post_init__ of the user's may raise anything for what a peer sends
            words = _PLACE.sub(self._with_name, words_of_failure(error))
            raise ArgumentError(f"{self._where}, arguments: {words}") from error
        if by_name or len(by_position) < self._positional:
            self._check_complete(len(by_position), by_name)
        return by_position, by_name

    def _with_name(self, match: re.Match[str]) -> str:
        """The place of an error, with the index replaced by the parameter's name."""
        place = int(match[2])
        return match[1] + self._parameters[place].name + match[3] if place < len(self._parameters) else ""

    def _decode_by_position(self, payload: bytes | memoryview, incoming: Incoming) -> Sequence[Any]:
        count = _count(payload)
        if count > self._positional:
            raise ArgumentError(f"{count} came by position, and the server knows {self._positional}: it may be older")
        decode = self._decoders.get(count)
        if decode is None:
            decode = self._decoders[count] = decoder_for(self._tuple_of(count))
        decoded: Sequence[Any] = decode(payload, incoming)
        return decoded

    def _decode_by_name(self, payload: Buffer, incoming: Incoming) -> tuple[Sequence[Any], dict[str, Any]]:
        raw = _decode_map(payload)
        first = raw.pop(_BY_POSITION, None)
        by_position = () if first is None else self._decode_by_position(memoryview(first), incoming)
        return by_position, {name: self._decode_named(name, value, incoming) for name, value in raw.items()}

    def _decode_named(self, name: str, payload: Buffer, incoming: Incoming) -> Any:
        place = self._places.get(name)
        if place is None or self._parameters[place].kind is Parameter.POSITIONAL_ONLY:
            raise ArgumentError(f"the server knows no parameter {name!r} that is given by name: it may be older")
        decode = self._named.get(name)
        if decode is None:
            decode = self._named[name] = decoder_for(self._annotations[place])
        try:
            return decode(payload, incoming)
        except StaleCapability:
            raise
        except Exception as error:  # as in decode()
            words = words_of_failure(error)
            placed = _WITHIN.sub(lambda match: f"{match[1]}{name}{match[2]}", words)
            raise ArgumentError(placed if placed != words else f"{words} - at `{name}`") from error

    def _check_complete(self, count: int, by_name: dict[str, Any]) -> None:
        missing = [name for place, name in self._required if name not in by_name and (place is None or place >= count)]
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            raise ArgumentError(f"{self._where}, arguments: {names} missing, for which the server has no default")


def _required(implementation: object, declared: Sequence[Parameter]) -> list[tuple[int | None, str]]:
    """The parameters that must be given, each with its place; None for those that are given by name only."""
    parameters = declared
    if isinstance(implementation, FunctionType):
        # Of the interface, or of the server's class, whose defaults may be others.
        parameters = parameters_of(implementation)[1:]
    return [
        (None if p.kind is p.KEYWORD_ONLY else place, p.name)
        for place, p in enumerate(parameters)
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
