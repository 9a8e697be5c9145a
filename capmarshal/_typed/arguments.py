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
from capmarshal._typed.fitting import check_for
from capmarshal._typed.outgoing import Outgoing
from capmarshal._typed.table import Search

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capmarshal._capabilities.door import Door
    from capmarshal._protocol.wire import Entry
    from capmarshal._typed.declaration import Declaration
    from capmarshal._typed.long import Payload


class _NotGiven:
    """Stands for an argument that was not given: a value that equals the default is one that was."""

    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN: Final = _NotGiven()

# What is encoded: the arguments by position; or those by name, and under this name the others.
Given: TypeAlias = "tuple[Any, ...] | dict[str, Any]"
BY_POSITION: Final = ""

# What holds doors and descriptors until they are sent: a capability may be closed meanwhile.
Held: TypeAlias = "Sequence[Door] | Outgoing"
# What a call is sent with: the payload; the descriptors, borrowed; the table, or None where that is of plain ones in
# order; and what holds them.
Lent: TypeAlias = "tuple[Payload, Sequence[int], Sequence[Entry] | None, Held]"


class Arguments:
    """What a method is called with, to payload.

    Args:
        declared: the method, as its interface declares it.
    """

    def __init__(self, declared: Declaration) -> None:
        self._where = declared.where
        self._parameters = declared.parameters
        self._places = {parameter.name: place for place, parameter in enumerate(self._parameters)}
        self._positional = sum(p.kind is not p.KEYWORD_ONLY for p in self._parameters)
        both = zip(declared.annotations, declared.data, strict=True)
        self._checks = [check_for(annotation, is_data=is_data) for annotation, is_data in both]
        self._custom = [place for place, is_data in enumerate(declared.data) if not is_data]

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
            return self._encode(given, outgoing) if self._custom else encode_data(given)
        except Exception as error:  # what is passed may be an object of the application's, whose fileno() raises it
            place, words = self._culprit(given, error, outgoing)
            where = f"{self._where}, {self._words_for(place)}"
            if isinstance(error, ArgumentError) or (isinstance(error, BAD_PAYLOAD) and not isinstance(error, Error)):
                raise ArgumentError(f"{where}: {words}") from error
            # Of what no argument has raised, it was perhaps a signal handler.
            if place is not None or isinstance(error, Error):
                error.add_note(where)
            raise

    def in_a_table(self, given: Given) -> Lent:
        """What a call is sent with, whatever is in the arguments; raises what :meth:`encode` does."""
        outgoing = Outgoing()
        payload = self.encode(given, outgoing)
        return payload, outgoing.numbers, outgoing.entries, outgoing

    def _encode(self, given: Given, outgoing: Outgoing) -> bytes:
        by_place = dict(self._by_place(given))
        count = sum(self._checks[place](by_place[place]) for place in self._custom if place in by_place)
        payload = encode(given, outgoing)
        if len(outgoing.entries) != count:
            raise TypeError("a descriptor or capability where data is due")
        return payload

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
            try:
                self._checks[place](value)
            except Exception as its_own:  # noqa: BLE001 - as in encode(), where it goes on
                return place, named(words_of_failure(its_own), self._parameters[place].name)
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
