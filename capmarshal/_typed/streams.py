"""Streams: what is declared as an Iterator or an AsyncIterator, and travels as an object that is pulled from.

A result is one, or an argument.  Of each an interface is made, with one method: ``next(at_most)`` gives so many items
at most, and whether there are no more.  What iterates at one side, and what is iterated over at the other, speak that
interface.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from capmarshal._typed import declaration
from capmarshal._typed.interface import Interface, method, raises
from capmarshal._typed.marks import CALLED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    # Items, and whether these are the last.
    Batch: TypeAlias = tuple[list[Any], bool]


def _next(self: Any, at_most: int) -> Batch:
    raise NotImplementedError


async def _next_awaited(self: Any, at_most: int) -> Batch:
    raise NotImplementedError


def pull_interface(where: str, item: Any, errors: Sequence[type[Exception]], *, awaitable: bool) -> type[Interface]:
    """The interface by which the items of one method's results, or of one of its arguments, are pulled.

    Args:
        where: the method's interface and name, and the parameter's.
        item: the annotation of an item.
        errors: that the method declares.
        awaitable: its calls are to be awaited.
    """
    template: Any = _next_awaited if awaitable else _next
    declared = type(template)(template.__code__, globals(), "next")
    declared.__qualname__ = f"{where}.next"
    declared.__annotations__ = {"at_most": int, "return": tuple[list[item], bool]}
    declared.__doc__ = "Gives so many of the next items at most, and whether these are the last."
    namespace = {"__qualname__": where, "__module__": __name__, "next": raises(*errors)(method(declared))}
    # Nobody has written next().
    namespace |= {CALLED: f"{where}, items"}
    made: Any = type(Interface)
    interface: type[Interface] = made(where, (Interface,), namespace)
    return interface


def item_of(annotation: Any) -> tuple[Any, bool] | None:
    """What the items of a stream are, and whether they are awaited; None where the annotation is none of a stream."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin not in (Iterator, AsyncIterator) or len(arguments) != 1:
        return None
    return arguments[0], origin is AsyncIterator


declaration.streams_by(item_of, pull_interface)
