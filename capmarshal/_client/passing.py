"""Arguments that are streams: each is served where the call is made, or what it is pulled from is handed on.

A call takes the iterators that it is given, however it ends.  One that fails ends their streams, whoever has them: who
has called knows then that nothing is taken from them any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, TypeAlias

from capmarshal._kernel.errors import ArgumentError, name_of, with_article
from capmarshal._typed.arguments import BY_POSITION
from capmarshal._typed.stream import Stream, source_of
from capmarshal._typed.table import FORGOTTEN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from capmarshal._capabilities.capability import Capability, Proxy
    from capmarshal._typed.arguments import Given
    from capmarshal._typed.declaration import StreamArgument
    from capmarshal._typed.method import Method

    # Serves what iterates: gives what it is pulled from, and what ends it.
    Serve: TypeAlias = Callable[[StreamArgument, Any], tuple[Capability, Callable[[], None]]]


def streams_in(called: Method, given: Given) -> dict[int, Any]:
    """The arguments that are streams, by their places, but for None where that will do.

    Raises:
        ArgumentError: one is no iterator; says what to do.
    """
    by_position = given if isinstance(given, tuple) else given[BY_POSITION]
    found: dict[int, Any] = {}
    for place, declared in called.streamed.items():
        if place < len(by_position):
            found[place] = by_position[place]
        elif isinstance(given, dict) and declared.name in given:
            found[place] = given[declared.name]
        if found.get(place) is None and declared.optional:
            found.pop(place, None)
    return found


def check(called: Method, place: int, value: object) -> None:
    """Refuses what is no iterator.

    Raises:
        ArgumentError: it is none; says what to do.
    """
    kind, words = (AsyncIterator, "an async iterator") if called.awaitable else (Iterator, "an iterator")
    if isinstance(value, kind):
        return
    it_is = "None" if value is None else with_article(name_of(type(value)))
    advice = _advice(value, awaited=called.awaitable)
    raise ArgumentError(
        f"{called.where}, argument `{called.streamed[place].name}`: {it_is} where {words} is due{advice}"
    )


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


def replaced(called: Method, given: Given, made: Mapping[int, Any]) -> Given:
    """The arguments, with others in some places of streams."""
    by_position = given if isinstance(given, tuple) else given[BY_POSITION]
    positional = tuple(made.get(place, value) for place, value in enumerate(by_position))
    if isinstance(given, tuple):
        return positional
    by_name = {called.streamed[place].name: value for place, value in made.items() if place >= len(positional)}
    return {**given, **by_name, BY_POSITION: positional}


def _close(iterator: Any) -> None:
    """Closes an iterator of which nothing was taken, if it is a generator."""
    # Whoever has written it raises what he likes, and the call has failed for something else.
    with contextlib.suppress(Exception):
        getattr(iterator, "close", _nothing)()


def _nothing() -> None: ...


def _passed(called: Method, given: Given, serve: Serve, ends: dict[int, Callable[[], None]]) -> Given:
    """The arguments, with what each stream is pulled from in its place; what ends it is in ``ends``."""
    found = streams_in(called, given)
    ends.update((place, partial(_close, iterator)) for place, iterator in found.items())
    for place, iterator in found.items():
        check(called, place, iterator)
    made: dict[int, Any] = {}
    for place, iterator in found.items():
        source = source_of(iterator) if isinstance(iterator, Stream) else None
        if source is None:
            source, ends[place] = serve(called.streamed[place], iterator)
        made[place] = source
    return replaced(called, given, made)


def passing(invoke: Callable[[Proxy, Method, Given], Any], serve: Serve) -> Callable[[Proxy, Method, Given], Any]:
    """Makes calls by ``invoke`` that have streams among their arguments.

    Args:
        invoke: makes a call of a proxy, of a method, with arguments.
        serve: serves what iterates.
    """

    def invoke_with_streams(proxy: Proxy, called: Method, arguments: Given) -> Any:
        ends: dict[int, Callable[[], None]] = {}
        try:
            return invoke(proxy, called, _passed(called, arguments, serve, ends))
        except BaseException:
            for end in ends.values():
                end()
            raise

    return invoke_with_streams
