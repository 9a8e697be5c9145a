"""Streams: what is declared as an Iterator or an AsyncIterator, and travels as an object that is pulled from.

A result is one, which may be declared as a generator, too, or an argument.  Of each an interface is made, with one
method: ``next(at_most)`` gives so many items at most, and whether there are no more.  What iterates at one side, and
what is iterated over at the other, speak that interface.
"""

from __future__ import annotations

import types
import typing
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from capmarshal._typed import declaration
from capmarshal._typed.interface import Interface, method, raises
from capmarshal._typed.marks import CALLED, GIVEN
from capmarshal._typed.parameters import KINDS
from capmarshal._typed.sendable import Unsendable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    # What one call pulls: items, and whether these are the last.
    Pulled: TypeAlias = tuple[list[Any], bool]


def _next(self: Any, at_most: int) -> Pulled:
    raise NotImplementedError


async def _next_awaited(self: Any, at_most: int) -> Pulled:
    raise NotImplementedError


def pull_interface(
    where: str, item: Any, errors: Sequence[type[Exception]], *, awaitable: bool, given: bool
) -> type[Interface]:
    """The interface by which the items of one method's results, or of one of its arguments, are pulled.

    Args:
        where: the method's interface and name, and the parameter's.
        item: the annotation of an item.
        errors: that the method declares.
        awaitable: its calls are to be awaited.
        given: it is an argument.
    """
    template: Any = _next_awaited if awaitable else _next
    declared = type(template)(template.__code__, globals(), "next")
    declared.__qualname__ = f"{where}.next"
    declared.__annotations__ = {"at_most": int, "return": tuple[list[item], bool]}
    declared.__doc__ = "Gives so many of the next items at most, and whether these are the last."
    namespace = {"__qualname__": where, "__module__": __name__, "next": raises(*errors)(method(declared))}
    # Nobody has written next().
    namespace |= {CALLED: f"{where}, items", GIVEN: given}
    made: Any = type(Interface)
    interface: type[Interface] = made(where, (Interface,), namespace)
    return interface


def item_of(annotation: Any, *, result: bool) -> tuple[Any, bool] | None:
    """What the items of a stream are, and whether they are awaited; None where the annotation is none of a stream.

    Args:
        annotation: of a method's result, or of a parameter.
        result: which may be declared as a generator.

    Raises:
        Unsendable: such a one is sent something, or returns something.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    kind = next((stream for known, stream in KINDS.items() if origin is known), None)
    is_generator = kind is not None and kind is not origin
    if kind is None or not arguments or (is_generator and not result):
        return None
    item, *others = arguments
    if any(other not in (None, types.NoneType) for other in others):
        none = ", None" * len(others)
        raise Unsendable(
            f"a stream is sent nothing, and returns nothing: declare it as {origin.__name__}[...{none}], or as "
            f"{kind.__name__}[...]"
        )
    return item, kind is AsyncIterator


declaration.streams_by(item_of, pull_interface)
