"""What is to be done once nobody can use a thing any more: later than its ``__del__``.

The collector finalises all objects of a garbage cycle before it breaks the cycle, the older ones first.  So a
``__del__`` that closes a descriptor may be followed by a user's ``__del__`` that uses it, when the number is somebody
else's already.  Memory of cffi's refers to nothing, and so is not the collector's concern: it goes when the last that
refers to it does, which in a cycle is when that is broken.  By then no code of anybody's can reach it.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._kernel.native import CData


# As weakref.finalize, which does more, at several times the cost.
class _Last(weakref.ref[Any]):
    """A reference that knows what is to be done."""

    __slots__ = ("arguments", "then")

    then: Callable[..., object]
    arguments: tuple[object, ...]


# By their ids.
_waiting: dict[int, _Last] = {}


def when_gone(memory: CData, then: Callable[..., object], *arguments: object) -> None:
    """Has ``then(*arguments)`` called when ``memory`` goes; not at the end of the interpreter.

    Args:
        memory: made by ``ffi.new()``, and referred to by the thing alone.
        then: called in whichever thread that happens.
        arguments: none of them refers to the thing.
    """
    last = _Last(memory, _gone)
    last.then, last.arguments = then, arguments
    _waiting[id(last)] = last


def _gone(
    last: _Last, waiting: dict[int, _Last] = _waiting, is_finalizing: Callable[[], bool] = sys.is_finalizing
) -> None:
    # What it needs is bound here: the module's names may be gone at the end of the interpreter.
    if waiting.pop(id(last), None) is not None and not is_finalizing():
        last.then(*last.arguments)
