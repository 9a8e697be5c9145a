"""Functions of the application's that an entrypoint calls beside methods: refused where nobody would await them."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING

from capmarshal._typed.parameters import is_async

if TYPE_CHECKING:
    from capmarshal._typed.colour import Colour


def refuse_async(function: object, what: str, colour: Colour) -> None:
    """Refuses what would have to be awaited where nothing is.

    Args:
        function: that is to be called.
        what: it is, for people.
        colour: of the interfaces that are served.

    Raises:
        TypeError: so it is.
    """
    if colour == "blocking" and _is_awaited(function):
        raise TypeError(f"{what} is async, and what a capmarshal.aio.Entrypoint awaits; write def")


def _is_awaited(function: object) -> bool:
    """Whether what a call of it gives is to be awaited, as far as that can be seen before one is made."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - not whether there is one, but which
    return isinstance(function, types.FunctionType) and is_async(function)
