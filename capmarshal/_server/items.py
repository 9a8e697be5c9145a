"""Items of a stream on their way out: each is measured once, when its maker gives it, and sent as it was then.

What is data alone is encoded at that moment.  So a maker may use one list for item after item, as any loop over a local
generator lets it; and what is made ahead of who takes it costs what it will travel as.
"""

from __future__ import annotations

import types
import typing
from typing import Any, Protocol, TypeAlias

from msgspec import Raw

from capmarshal._typed.codec import encode, encode_data
from capmarshal._typed.fitting import check_for
from capmarshal._typed.method import methods_of
from capmarshal._typed.table import Search, is_delegable

# Bytes of one descriptor or capability in a table; and of a number, or of what stands before bytes, at most.
_ENTRY, _NUMBER = 64, 9
# Descriptors of one thing that is no capability: a shared buffer has two.
_MOST_EACH = 2
_INT = 1 << 63
_SHORT = frozenset({float, bool, types.NoneType})

# What is sent for one, its bytes, the descriptors and the capabilities that go with it, and whether it can be sent, as
# far as that is known.
Item: TypeAlias = tuple[Any, int, int, int, bool]


class Streamed(Protocol):
    """What a stream is declared as: the method whose result it is, or an argument."""

    @property
    def where(self) -> str:
        """Interface, method and parameter, for people."""

    @property
    def result(self) -> Any:
        """The interface by which it is pulled."""

    @property
    def items_are_data(self) -> bool:
        """Whether no capability and no descriptor can be in its items."""


class Items:
    """Measures the items of streams.

    Args:
        declared: what these are declared as.
    """

    __slots__ = ("_check",)

    def __init__(self, declared: Streamed) -> None:
        batch, _ = typing.get_args(methods_of(declared.result)[b"next"].result)
        (annotation,) = typing.get_args(batch)
        self._check = None if declared.items_are_data else check_for(annotation, is_data=False)

    def measured(self, item: Any) -> Item:
        """One of them, without touching the descriptors in it."""
        kind = type(item)
        try:
            if self._check is None:
                if (kind is int and -_INT <= item < _INT) or kind in _SHORT:
                    return item, _NUMBER, 0, 0, True
                if kind is bytes:
                    return item, len(item) + _NUMBER, 0, 0, True
                if kind is str:
                    return item, len(encode_data(item)), 0, 0, True
            search = Search()
            payload = encode(item, search)
            if self._check is None:
                return (item, 0, 0, 0, False) if search.found else (Raw(payload), len(payload), 0, 0, True)
            self._check(item)
        except Exception:  # noqa: BLE001 - what is wrong with it is said when it is sent
            return item, 0, 0, 0, False
        capabilities = sum(map(is_delegable, search.found))
        descriptors = _MOST_EACH * (len(search.found) - capabilities) + capabilities
        return item, len(payload) + _ENTRY * len(search.found), descriptors, capabilities, True
