"""What a grant lets call: ``only=(Files.read, Files.stat)``, some of its object's methods."""

from __future__ import annotations

from collections.abc import Iterable
from types import FunctionType
from typing import TYPE_CHECKING

from capmarshal._typed.marks import REMOTE, forwards, original_of
from capmarshal._typed.method import methods_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capmarshal._typed.interface import Interface
    from capmarshal._typed.method import Method


def methods_in(only: Iterable[object], target: Interface) -> frozenset[bytes]:
    """The names of the methods that a grant of an object is restricted to.

    A method and its twin have one name, and either says it, whichever the object's interface declares.

    Raises:
        TypeError: these are no methods that can be called.
        ValueError: there are none.
    """
    remote, names = methods_of(type(target)), set()
    if not isinstance(only, Iterable) or isinstance(only, (str, bytes)):
        raise TypeError(f"only is some methods, {_as_written(only, remote)}, not {only!r}")
    for function in only:
        name = str(getattr(function, "__name__", ""))
        declared = any(_is_same(vars(cls).get(name), function) for cls in type(target).__mro__)
        # Of any interface: what it forwards is not known.
        forwarded = forwards(type(target)) and getattr(function, REMOTE, False)
        if not forwarded and (not declared or name.encode() not in remote):
            what = f"a remote method of {type(target).__qualname__}; each is its interface's"
            raise TypeError(f"only: {function!r} is not {what}, {_as_written(function, remote)}")
        names.add(name.encode())
    if not names:
        raise ValueError("a grant by which nothing can be called: only has no methods")
    return frozenset(names)


def _is_same(declared: object, function: object) -> bool:
    """Whether a function is what a class has there, or both are twins of one."""
    if isinstance(declared, FunctionType) and isinstance(function, FunctionType):
        return original_of(declared) is original_of(function)
    return declared is function


def _as_written(wrong: object, remote: Mapping[bytes, Method]) -> str:
    """How the method is written that was meant by something else, or where that says nothing, the object's first."""
    name = wrong if isinstance(wrong, str) else str(getattr(wrong, "__name__", ""))
    meant = remote.get(name.encode(errors="replace")) or next(iter(remote.values()), None)
    return f"as only=({meant.where if meant is not None else 'Files.read'},)"
