"""Generic interfaces with arguments: the class that ``Box[int]`` stands for."""

from __future__ import annotations

import types
from typing import Any

from capmarshal._descriptors.private import lock

# In the namespace of a generic interface: the classes that were made for it, each with the alias that it stands for.
_MADE = "__capmarshal_parametrised__"


def parametrised(alias: Any) -> type:
    """The class for a generic interface with arguments: derived from it as a program would derive it, and made once.

    Whatever is an object of the generic interface is one of this class too: arguments are not known of objects.
    """
    origin: type = alias.__origin__
    if (known := _known(origin, alias)) is not None:
        return known
    names = [argument.__qualname__ if isinstance(argument, type) else repr(argument) for argument in alias.__args__]
    arguments = f"[{', '.join(names)}]"

    def subclasshook(cls: type, other: type) -> Any:
        """Of this class alone, not of those derived from it: its proxies'."""
        return origin in other.__mro__ if "__subclasshook__" in vars(cls) else NotImplemented

    body = {
        "__module__": origin.__module__,
        "__qualname__": origin.__qualname__ + arguments,
        "__subclasshook__": classmethod(subclasshook),
    }
    # Not under the lock: what a class of the user's does when others are derived from it may be anything.
    made = types.new_class(origin.__name__ + arguments, (alias,), exec_body=lambda namespace: namespace.update(body))
    with lock:
        # Another thread may have been faster.
        if (known := _known(origin, alias)) is not None:
            return known
        setattr(origin, _MADE, [*origin.__dict__.get(_MADE, ()), (alias, made)])
    return made


def interface_behind(cls: type) -> Any:
    """What is cast to where a proxy's interface is that class: the generic interface with arguments, or itself."""
    made: list[tuple[Any, type]] = cls.__bases__[0].__dict__.get(_MADE, [])
    return next((alias for alias, known in made if known is cls), cls)


def _known(origin: type, alias: Any) -> type | None:
    """The class that was made before, if one was."""
    return next((made for other, made in origin.__dict__.get(_MADE, ()) if other == alias), None)
