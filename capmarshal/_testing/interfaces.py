"""What an object is called by."""

from __future__ import annotations

from typing import Any

from capmarshal._typed.interface import check_object
from capmarshal._typed.marks import REMOTE
from capmarshal._typed.stubs import function_in


def _declares(cls: type) -> bool:
    return any(
        getattr(attribute, REMOTE, False) or getattr(function_in(attribute), REMOTE, False)
        for attribute in vars(cls).values()
    )


def interface_of(cls: type) -> type[Any]:
    """The interface that a server's class is derived from.

    Raises:
        TypeError: there are several, and none of them has the others' methods.
    """
    declared = [base for base in cls.__mro__ if _declares(base)]
    lowest = [one for one in declared if not any(one is not other and issubclass(other, one) for other in declared)]
    if len(lowest) == 1:
        return lowest[0]
    names = ", ".join(each.__qualname__ for each in lowest) or "none"
    raise TypeError(f"which interface {cls.__qualname__} is called by is to be said, as interface=...: it has {names}")


def checked(target: object, interface: type[Any] | None) -> type[Any]:
    """The interface that an object is to be called by: the one that is said, or its only one.

    Raises:
        TypeError: it is no object of a class derived from an Interface, or has several.
    """
    check_object(target, "served")
    return interface_of(type(target)) if interface is None else interface
