"""Arguments that are streams: each is served where the call is made, or what it is pulled from is handed on.

A call takes the iterators that it is given, however it ends.  One that fails ends the streams that are served here,
whoever has them: who has called knows then that nothing is taken from them any more.  A stream that is handed on is
served elsewhere, and ends with the last that has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, TypeAlias

from capmarshal._client.taken import take
from capmarshal._kernel.errors import ArgumentError, name_of, with_article
from capmarshal._typed.arguments import BY_POSITION
from capmarshal._typed.stream import Stream, source_of
from capmarshal._typed.table import FORGOTTEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.capability import Capability, Proxy
    from capmarshal._typed.arguments import Given
    from capmarshal._typed.declaration import StreamArgument
    from capmarshal._typed.method import Method

    # Serves what iterates: gives what it is pulled from, and what ends it.
    Serve: TypeAlias = Callable[[StreamArgument, Any], tuple[Capability, Callable[[], None]]]


def _advice(value: object, *, awaited: bool) -> str:
    kind = "AsyncIterator" if awaited else "Iterator"
    if value is None:
        return f": where there may be none, it is annotated {kind}[...] | None"
    if isinstance(value, Awaitable):
        return FORGOTTEN
    if isinstance(value, (FunctionType, MethodType)):
        return ": call it, for what it yields"
    if isinstance(value, AsyncIterable):
        return ": pass aiter(...) of it" if awaited else ": its items are awaited, as by an interface whose calls are"
    if awaited:
        return ": an async def that yields the items makes one"
    if isinstance(value, (str, bytes, bytearray)):
        return ": iter([...]) of it has it as one item"
    return ": pass iter(...) of it" if isinstance(value, Iterable) else ": a generator that yields the items is one"


class Passing:
    """The arguments of one call that are streams.

    Args:
        called: the method.
        given: its arguments.
        serve: serves what iterates.

    Attributes:
        found: what is to iterate, by its place among the arguments; but for None where that will do.
        ends: what ends those that are served, by place.
    """

    def __init__(self, called: Method, given: Given, serve: Serve) -> None:
        self._called, self._given, self._serve = called, given, serve
        self._positional = given if isinstance(given, tuple) else given[BY_POSITION]
        # What each is pulled from, by place.
        self._made: dict[int, Capability] = {}
        self.found = dict(self._find())
        self.ends: dict[int, Callable[[], None]] = {}
        # Which method's call has taken one before; by id(), for it may be there twice.
        self._taken_by: dict[int, str] = {}

    def _find(self) -> Iterator[tuple[int, Any]]:
        for place, declared in self._called.stream_arguments.items():
            if place < len(self._positional):
                value = self._positional[place]
            elif isinstance(self._given, dict) and declared.name in self._given:
                value = self._given[declared.name]
            else:
                continue
            if value is not None or not declared.optional:
                yield place, value

    def take(self) -> None:
        """Takes those that no other call has taken; what is no iterator is its caller's still."""
        kind = AsyncIterator if self._called.awaitable else Iterator
        iterators = {id(value): value for value in self.found.values() if isinstance(value, kind)}
        for key, iterator in iterators.items():
            taken_by = take(iterator, self._called.where)
            if taken_by:
                self._taken_by[key] = taken_by

    def taken_by(self, place: int) -> str:
        """Which method's call has taken one before, that is not this call's to end; empty: none has."""
        return self._taken_by.get(id(self.found[place]), "")

    def check(self) -> None:
        """Refuses what is no iterator, and one that is there twice: each stream is pulled by itself.

        Raises:
            ArgumentError: says what to do.
        """
        called, names = self._called, dict[int, str]()
        kind, words = (AsyncIterator, "an async iterator") if called.awaitable else (Iterator, "an iterator")
        for place, value in self.found.items():
            name = called.stream_arguments[place].name
            if isinstance(value, kind):
                before = names.setdefault(id(value), name)
                if before != name:
                    raise ArgumentError(
                        f"{called.where}, arguments `{before}` and `{name}`: the same iterator: give each its own"
                    )
                continue
            it_is = "None" if value is None else with_article(name_of(type(value)))
            advice = _advice(value, awaited=called.awaitable)
            raise ArgumentError(f"{called.where}, argument `{name}`: {it_is} where {words} is due{advice}")

    def passed(self, place: int, source: Any) -> None:
        """Passes one: what it is pulled from is an argument in its stead.

        Args:
            place: which.
            source: what it is pulled from already; None: it is served here.

        Raises:
            ArgumentError: another call has taken it.
            TableFull, KernelError, RuntimeError: it cannot be served, and is closed.
        """
        if source is None:
            if taken_by := self.taken_by(place):
                name = self._called.stream_arguments[place].name
                words = f"this iterator was taken by an earlier call of {taken_by}, whatever came of that"
                advice = "make a new one for each call, also for a retry"
                raise ArgumentError(f"{self._called.where}, argument `{name}`: {words}: {advice}")
            source, self.ends[place] = self._serve(self._called.stream_arguments[place], self.found[place])
        self._made[place] = source

    def arguments(self) -> Given:
        """The arguments of the call, once all streams are passed."""
        positional = tuple(self._made.get(place, value) for place, value in enumerate(self._positional))
        if isinstance(self._given, tuple):
            return positional
        streamed = self._called.stream_arguments
        by_name = {streamed[place].name: made for place, made in self._made.items() if place >= len(positional)}
        return {**self._given, **by_name, BY_POSITION: positional}


def _end(streams: Passing, place: int) -> None:
    """Ends one stream of a call that has failed: what is not served yet is closed here, if it is a generator."""
    served = streams.ends.get(place)
    if served is not None:
        served()
        return
    if streams.taken_by(place):
        return
    # Whoever has written it raises what he likes, and the call has failed for something else.
    with contextlib.suppress(Exception):
        getattr(streams.found[place], "close", _nothing)()


def _nothing() -> None: ...


def passing(invoke: Callable[[Proxy, Method, Given], Any], serve: Serve) -> Callable[[Proxy, Method, Given], Any]:
    """Makes calls by ``invoke`` that have streams among their arguments.

    Args:
        invoke: makes a call of a proxy, of a method, with arguments.
        serve: serves what iterates.

    Returns:
        What makes such calls.  They raise what ``invoke`` does; ArgumentError, as :class:`Passing`; Closed, of a
        stream that cannot be taken from any more; and TableFull, KernelError or RuntimeError, of one that cannot be
        served.
    """

    def invoke_with_streams(proxy: Proxy, called: Method, arguments: Given) -> Any:
        streams = Passing(called, arguments, serve)
        # All that is in it is ended, also where one of these ends raises, or Ctrl-C comes in one.
        with contextlib.ExitStack() as failing:
            for place in streams.found:
                failing.callback(_end, streams, place)
            streams.take()
            streams.check()
            for place, iterator in streams.found.items():
                streams.passed(place, source_of(iterator) if isinstance(iterator, Stream) else None)
            result = invoke(proxy, called, streams.arguments())
            failing.pop_all()
        return result

    return invoke_with_streams
