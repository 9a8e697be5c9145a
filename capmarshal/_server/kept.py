"""What a method keeps: every file, socket and descriptor in what it was given, and all that these stand on."""

from __future__ import annotations

from typing import Any

from capmarshal._descriptors.layers import layers_of


def all_in(thing: object) -> list[Any]:
    """The files, sockets and descriptors in a thing, each with all its layers.

    Looked through is what arguments come in: lists, tuples, sets, the values of dicts, and the fields of dataclasses,
    attrs classes and Structs.

    Raises:
        TypeError: it is something, and there is none in it.
    """
    found: list[Any] = []
    waiting, seen = [thing], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if hasattr(one, "fileno"):
            found += layers_of(one)
        else:
            waiting += _members(one)
    # Of nothing there is nothing to keep, as an optional argument or a list may be.
    nothing = thing is None or (isinstance(thing, (list, tuple, set, frozenset, dict)) and not thing)
    if not found and not nothing:
        raise TypeError(
            "keep() is for files, sockets and descriptors, and for what has some in it; "
            f"a `{type(thing).__qualname__}` has none that the call would close"
        )
    return found


def _members(thing: Any) -> list[Any]:
    if isinstance(thing, (list, tuple, set, frozenset)):
        return list(thing)
    if isinstance(thing, dict):
        return list(thing.values())
    kind = type(thing)
    names = [*getattr(kind, "__dataclass_fields__", ()), *getattr(kind, "__struct_fields__", ())]
    names += [attribute.name for attribute in getattr(kind, "__attrs_attrs__", ())]
    return [getattr(thing, name, None) for name in names]
