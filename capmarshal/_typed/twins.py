"""Twins: methods of an interface once more, in the other colour.

A twin is a declaration as any other: it stands in a class of its own, where it has the name, the parameters, the
annotations and the declared errors of its original.  The wire knows nothing of colours, so twins call each other's
servers.
"""

from __future__ import annotations

import functools
import types
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from capmarshal._kernel.errors import InterfaceError
from capmarshal._typed.marks import AWAITED, INTERFACE, ORIGINAL, REMOTE, original_of
from capmarshal._typed.parameters import is_awaitable, stream_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

P = ParamSpec("P")
R = TypeVar("R")


def awaitable(method: Callable[Concatenate[Any, P], R], /) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """The twin of a blocking method, whose calls are awaited: as if declared once more with ``async def``.

    Stands in a class that declares the interface for event loops, under the method's own name::

        class AsyncHost(cm.Interface):
            read = cm.awaitable(Host.read)

    What its annotations name stays as it is.  A method that takes or returns proxies whose calls shall be awaited too
    is declared by hand.

    Raises:
        InterfaceError: not a method that an interface declares, or one that is awaited already.
    """
    _check(method, "awaitable")
    if is_awaitable(method):
        raise InterfaceError(f"awaitable({_named(method)}): it is awaited already, since it is declared as async")
    return _twin(method, _AWAITED)  # type: ignore[no-any-return]  # made at run time


def blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> Callable[Concatenate[Any, P], R]:
    """The twin of an awaitable method, whose calls block: as if declared once more with ``def``.

    See :func:`awaitable`.

    Raises:
        InterfaceError: not a method that an interface declares, or one that blocks already.
    """
    _check(method, "blocking")
    if not is_awaitable(method):
        raise InterfaceError(f"blocking({_named(method)}): it blocks already, since it is not declared as async")
    return _twin(method, _BLOCKING)  # type: ignore[no-any-return]  # made at run time


def awaitable_stream(
    method: Callable[Concatenate[Any, P], Iterator[R]], /
) -> Callable[Concatenate[Any, P], AsyncIterator[R]]:
    """The twin of a blocking method that gives a stream: as if declared once more with ``-> AsyncIterator[...]``.

    See :func:`awaitable`.

    Raises:
        InterfaceError: not a method that an interface declares as ``-> Iterator[...]``.
    """
    _check(method, "awaitable_stream", Iterator)
    return _twin(method, _BLOCKING, awaited=True)  # type: ignore[no-any-return]  # made at run time


def blocking_stream(
    method: Callable[Concatenate[Any, P], AsyncIterator[R]], /
) -> Callable[Concatenate[Any, P], Iterator[R]]:
    """The twin of a method that gives a stream whose items are awaited: as if declared with ``-> Iterator[...]``.

    See :func:`awaitable`.

    Raises:
        InterfaceError: not a method that an interface declares as ``-> AsyncIterator[...]``.
    """
    _check(method, "blocking_stream", AsyncIterator)
    return _twin(method, _BLOCKING, awaited=False)  # type: ignore[no-any-return]  # made at run time


# What twins are made of: stubs, whose calls never come to be.


async def _awaited(*_: Any, **__: Any) -> Any:
    raise NotImplementedError


def _blocks(*_: Any, **__: Any) -> Any:
    raise NotImplementedError


_AWAITED, _BLOCKING = _awaited.__code__, _blocks.__code__


def _named(method: Any) -> str:
    return f"{vars(original_of(method))[INTERFACE].__qualname__}.{method.__name__}"


def _check(method: Any, by: str, gives: type | None = None) -> None:
    if not isinstance(method, types.FunctionType) or not getattr(method, REMOTE, False):
        raise InterfaceError(
            f"{by}() makes the twin of a method that an interface declares, as of Host.read, not of {method!r}"
        )
    if INTERFACE not in vars(original_of(method)):
        raise InterfaceError(
            f"{by}({method.__name__}): the method's own interface is not there yet; a twin stands in another class"
        )

    kind = stream_kind(original_of(method))
    if AWAITED in vars(method):
        kind = AsyncIterator if vars(method)[AWAITED] else Iterator
    if kind is not gives:
        what, instead = "no stream", "awaitable or blocking"
        if kind is not None:
            what, instead = "a stream", "awaitable_stream" if kind is Iterator else "blocking_stream"
        raise InterfaceError(f"{by}({_named(method)}): it gives {what}: its twin is made by {instead}")


def _twin(method: Any, code: types.CodeType, awaited: bool | None = None) -> Any:
    made = functools.update_wrapper(types.FunctionType(code, globals()), method)
    original = original_of(method)
    if awaited is not None:
        setattr(made, AWAITED, awaited)
    else:
        vars(made).pop(AWAITED, None)
    setattr(made, ORIGINAL, original)
    # For inspect, which tells its parameters.
    made.__wrapped__ = original
    return made
