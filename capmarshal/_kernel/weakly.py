"""Methods that are called without being kept: how a part of something tells the whole, and those made after it.

Whole and parts that refer to each other are a cycle, which goes when the garbage collector comes: it counts objects,
and not the memory and the descriptors that these hold, and a program may have turned it off.
"""

from __future__ import annotations

import types
import weakref
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


def weakly(method: Callable[P, T], otherwise: T) -> Callable[P, T]:
    """Calls a method as long as its object is kept by others.

    Args:
        method: bound to that object.
        otherwise: what is returned when that is gone.
    """
    assert isinstance(method, types.MethodType)  # noqa: S101 - anything else keeps nothing, or something else
    this, function = weakref.ref(method.__self__), method.__func__

    def call(*arguments: P.args, **by_name: P.kwargs) -> T:
        target = this()
        return function(target, *arguments, **by_name) if target is not None else otherwise

    return call
