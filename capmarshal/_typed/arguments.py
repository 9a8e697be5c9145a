"""The arguments of a call, as they are sent: those that are given travel.

A payload says by itself what it is: an array of the arguments that were given by position, or a map of those that were
given by name, whose key "" holds the array of the others.  What is not given is not in it, and the server's own
defaults stand for that: see :mod:`capmarshal._typed.binding`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from capmarshal._descriptors.refused import refused_of
from capmarshal._kernel.errors import ArgumentError, Error
from capmarshal._typed.codec import BAD_PAYLOAD, encode, encode_data, named, words_of_failure
from capmarshal._typed.fitting import check_at_first_sight, check_data, due_for
from capmarshal._typed.lists import is_list
from capmarshal._typed.placing import check_for
from capmarshal._typed.table import Search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capmarshal._typed.declaration import Declaration
    from capmarshal._typed.table import Outgoing


class _NotGiven:
    """Stands for an argument that was not given: a value that equals the default is one that was."""

    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN: Final = _NotGiven()

# What is encoded: the arguments by position; or those by name, and under this name the others.
Given: TypeAlias = "tuple[Any, ...] | dict[str, Any]"
BY_POSITION: Final = ""


class Arguments:
    """What a method is called with, to payload.

    Args:
        declared: the method, as its interface declares it.
    """

    def __init__(self, declared: Declaration) -> None:
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
        # Where they are within other things.
        self._mixed = [(place, check_for(self._annotations[place])) for place, due in dues if due is None]
        self._lists = [place for place, annotation in enumerate(self._annotations) if is_list(annotation)]

    def given(self, *values: Any) -> Given:
        """What is to be encoded of the arguments, which come in the order of the parameters; some may not be given."""
        positional = values[: self._positional]
        count = next((place for place, value in enumerate(positional) if value is NOT_GIVEN), len(positional))
        rest = zip(self._parameters[count:], values[count:], strict=True)
        by_name = {parameter.name: value for parameter, value in rest if value is not NOT_GIVEN}
        return {BY_POSITION: positional[:count], **by_name} if by_name else positional[:count]

    def _by_place(self, given: Given) -> Iterator[tuple[int, Any]]:
        """The arguments that are given, each with the place of its parameter."""
        yield from enumerate(given if isinstance(given, tuple) else given[BY_POSITION])
        if isinstance(given, dict):
            yield from ((self._places[name], value) for name, value in given.items() if name != BY_POSITION)

    def encode(self, given: Given, outgoing: Outgoing) -> bytes:
        """The payload of a CALL.

        Raises:
            ArgumentError: something in it cannot be sent, or is not what is due.
            Closed, CallTimeout, KernelError: as a descriptor or capability in it raises them.
        """
        try:
            return encode_data(given) if self._are_data else self._encode(given, outgoing)
        except Exception as error:  # what is passed may be an object of the application's, whose fileno() raises it
            place, words = self._culprit(given, error, outgoing)
            where = f"{self._where}, {self._words_for(place)}"
            if isinstance(error, ArgumentError) or (isinstance(error, BAD_PAYLOAD) and not isinstance(error, Error)):
                raise ArgumentError(f"{where}: {words}") from error
            # Of what no argument has raised, it was perhaps a signal handler.
            if place is not None or isinstance(error, Error):
                error.add_note(where)
            raise

    def _encode(self, given: Given, outgoing: Outgoing) -> bytes:
        by_place = dict(enumerate(given) if isinstance(given, tuple) else self._by_place(given))
        count = 0
        for place, due in self._dues:
            if place in by_place:
                count += due.count(by_place[place])
        if self._mixed:
            self._check_mixed(by_place)
        payload = encode(self._with_lists(given, outgoing) if self._lists else given, outgoing)
        if not self._mixed and len(outgoing.entries) != count:
            raise TypeError("a descriptor or capability where data is due")
        return payload

    def _check_mixed(self, by_place: dict[int, Any]) -> None:
        for place, check in self._mixed:
            if place in by_place:
                check(by_place[place])
        for place, value in by_place.items():
            if self._data[place]:
                check_at_first_sight(value, self._annotations[place])

    def _with_lists(self, given: Given, outgoing: Outgoing) -> list[Any] | dict[str, Any]:
        """The arguments with each list of descriptors as its indices in the table."""
        by_place = dict(self._by_place(given))
        for place in self._lists:
            if type(by_place.get(place)) is list:
                by_place[place] = outgoing.add_list(by_place[place])
        if isinstance(given, tuple):
            return list(by_place.values())
        count = len(given[BY_POSITION])
        named = {name: by_place[self._places[name]] for name in given if name != BY_POSITION}
        return {BY_POSITION: [by_place[place] for place in range(count)], **named}

    def _words_for(self, place: int | None) -> str:
        return "arguments" if place is None else f"argument `{self._parameters[place].name}`"

    def _culprit(self, given: Given, error: Exception, outgoing: Outgoing) -> tuple[int | None, str]:
        """Which argument cannot be sent, and why: msgspec does not say.

        Where it is what goes in the table, it is known, and looked for; else each argument is tried alone.
        """
        if outgoing.refused is not None:
            place = self._place_of(given, outgoing.refused)
            return place, words_of_failure(error)
        for place, value in self._by_place(given):
            name = self._parameters[place].name
            try:
                if self._data[place]:
                    check_data(value, self._annotations[place])
                for one, due in self._dues:
                    if one == place:
                        due.count(value)
                for one, check in self._mixed:
                    if one == place:
                        check(value)
                encode(value, Search())
            except Exception as its_own:  # noqa: BLE001 - as in encode(), where it goes on
                return place, named(words_of_failure(its_own), name)
        return None, words_of_failure(error)

    def _place_of(self, given: Given, thing: Any) -> int | None:
        """In which argument a thing is that goes in the table."""
        for place, value in self._by_place(given):
            search = Search()
            with contextlib.suppress(Exception):
                encode(value, search)
            if any(found is thing for found in search.found):
                return place
        return None

    def unsendable(self, given: Given, outgoing: Outgoing) -> ArgumentError | None:
        """Why the kernel refused to send a call with these descriptors; None if not for one of them."""
        refused = refused_of(outgoing.numbers)
        if refused is None:
            return None
        thing = outgoing.files[outgoing.numbers.index(refused.number)]
        culprit = self._words_for(None if thing is None else self._place_of(given, thing))
        return ArgumentError(f"{self._where}, {culprit} cannot be sent: its descriptor is {refused.why}")
