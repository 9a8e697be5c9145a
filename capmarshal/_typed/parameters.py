"""The parameters of a function, as ``inspect.signature`` tells them, of a plain one without inspect.

Every process that calls or serves needs them, and importing inspect is a tenth of its start.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any

from capmarshal._typed.marks import AWAITED, original_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# Flags of a code object, Include/cpython/code.h; inspect and types have them too.
_VARARGS, _VARKEYWORDS, _GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x4, 0x8, 0x20, 0x80, 0x200


class Parameter:
    """One parameter, by the words of ``inspect.Parameter``."""

    __slots__ = ("default", "kind", "name")

    POSITIONAL_ONLY, POSITIONAL_OR_KEYWORD, VAR_POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD = range(5)
    empty = object()

    def __init__(self, name: str, kind: int, default: Any) -> None:
        self.name = name
        self.kind = kind
        self.default = default

    def __str__(self) -> str:
        return {self.VAR_POSITIONAL: "*", self.VAR_KEYWORD: "**"}.get(self.kind, "") + self.name


def is_async(function: FunctionType) -> bool:
    """Whether it is a coroutine function or an asynchronous generator."""
    return bool(function.__code__.co_flags & (_COROUTINE | _ASYNC_GENERATOR))


def is_generator(function: FunctionType) -> bool:
    """Whether its calls give a generator, asynchronous or not."""
    return bool(function.__code__.co_flags & (_GENERATOR | _ASYNC_GENERATOR))


def is_awaitable(function: Any) -> bool:
    """Whether what its calls give is to be awaited: it is ``async def``, or a decorator's that wraps such a one.

    So it is where it gives an AsyncIterator, whose items are.  A twin is what it is made for, whatever it is a twin of.
    """
    seen: list[FunctionType] = []
    # One may wrap itself.
    while isinstance(function, FunctionType) and not any(function is other for other in seen):
        if AWAITED in vars(function):
            return bool(vars(function)[AWAITED])
        if is_async(function) or (original_of(function) is function and stream_kind(function) is AsyncIterator):
            return True
        seen.append(function)
        function = vars(function).get("__wrapped__") if original_of(function) is function else None
    return False


# What streams are declared as: generators are, and say more of what can be done with them.
KINDS: Mapping[Any, type] = {
    Iterator: Iterator,
    Generator: Iterator,
    AsyncIterator: AsyncIterator,
    AsyncGenerator: AsyncIterator,
}


def stream_kind(function: FunctionType) -> type | None:
    """Iterator or AsyncIterator, where its result is annotated as one, if only by a string; else None."""
    try:
        written = function.__annotations__.get("return")
    except Exception:  # noqa: BLE001 - whoever reads the declaration says what is wrong with it
        return None
    if isinstance(written, str):
        names = written.partition("[")[0].strip().split(".")
        written = function.__globals__.get(names[0])
        for name in names[1:]:
            written = getattr(written, name, None)
    kind = typing.get_origin(written) or written
    # By identity: not everything in an annotation has a hash.
    return next((stream for known, stream in KINDS.items() if kind is known), None)


def parameters_of(function: FunctionType) -> list[Parameter]:
    """The parameters, in their order; those of the function that it wraps, or is a twin of, where there is one.

    Raises:
        ValueError: it wraps itself, or something that does not tell its parameters.
    """
    function = original_of(function)
    if "__wrapped__" in vars(function) or "__signature__" in vars(function):
        return _as_decorated(function)
    code = function.__code__
    only, count = code.co_posonlyargcount, code.co_argcount
    # Names stand in another order than in the declaration: *rest comes after the keywords.
    positional, others = code.co_varnames[:count], code.co_varnames[count:]
    keywords, rest = others[: code.co_kwonlyargcount], iter(others[code.co_kwonlyargcount :])
    given = function.__defaults__ or ()
    defaults = (Parameter.empty,) * (count - len(given)) + given
    kinds = [Parameter.POSITIONAL_ONLY] * only + [Parameter.POSITIONAL_OR_KEYWORD] * (count - only)
    found = [Parameter(*told) for told in zip(positional, kinds, defaults, strict=True)]
    if code.co_flags & _VARARGS:
        found.append(Parameter(next(rest), Parameter.VAR_POSITIONAL, Parameter.empty))
    by_name = function.__kwdefaults__ or {}
    found += [Parameter(name, Parameter.KEYWORD_ONLY, by_name.get(name, Parameter.empty)) for name in keywords]
    if code.co_flags & _VARKEYWORDS:
        found.append(Parameter(next(rest), Parameter.VAR_KEYWORD, Parameter.empty))
    return found


def _as_decorated(function: FunctionType) -> list[Parameter]:
    # Imported when used: few declarations are decorated.
    import inspect

    return [
        Parameter(told.name, int(told.kind), Parameter.empty if told.default is told.empty else told.default)
        for told in inspect.signature(function).parameters.values()
    ]
