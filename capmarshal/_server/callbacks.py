"""Functions of the application's that an entrypoint calls beside methods: refused where nobody would await them."""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING

from capmarshal._typed.parameters import Parameter, is_async, parameters_of

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


def refuse_misfit(function: object, given: int, what: str) -> None:
    """Refuses what takes other arguments than it is called with, as far as that can be seen before.

    Args:
        function: that is to be called.
        given: with how many, all by position.
        what: it is and what it is called with, for people.

    Raises:
        TypeError: so it is.
    """
    plain = getattr(function, "__func__", function)
    # Another would tell by inspect alone, which a sandbox may keep from being imported.
    if not isinstance(plain, types.FunctionType) or vars(plain).keys() & {"__wrapped__", "__signature__"}:
        return
    # A bound method's object is one more.
    given += plain is not function
    least = most = 0
    for parameter in parameters_of(plain):
        is_due = parameter.default is Parameter.empty
        if parameter.kind <= Parameter.POSITIONAL_OR_KEYWORD:
            least += is_due
            most += 1
        elif parameter.kind == Parameter.VAR_POSITIONAL:
            most = sys.maxsize
        elif parameter.kind == Parameter.KEYWORD_ONLY and is_due:
            # By position nothing is it.
            least = sys.maxsize
    if not least <= given <= most:
        raise TypeError(f"{what}, and {function!r} takes other arguments")


def _is_awaited(function: object) -> bool:
    """Whether what a call of it gives is to be awaited, as far as that can be seen before one is made."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - not whether there is one, but which
    return isinstance(function, types.FunctionType) and is_async(function)
