"""The colour of an interface: whether calls of its methods block, or are to be awaited.

It is that of all its methods, own and inherited: whoever calls them, and whoever serves them, does so from a thread or
from an event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
from msgspec.inspect import CustomType

from capmarshal._kernel.errors import InterfaceError, name_of
from capmarshal._typed.marks import REMOTE
from capmarshal._typed.parameters import is_awaitable
from capmarshal._typed.records import walk
from capmarshal._typed.stubs import function_in

if TYPE_CHECKING:
    from collections.abc import Iterator

Colour: TypeAlias = Literal["blocking", "awaitable"]

# Where each is served, and how the other becomes it.
_SERVED: Final = {"blocking": "capmarshal.Entrypoint", "awaitable": "capmarshal.aio.Entrypoint"}
_TWIN: Final = {"blocking": "capmarshal.blocking", "awaitable": "capmarshal.awaitable"}


def _declarations(cls: type) -> Iterator[tuple[Colour, str, str]]:
    """All that a class and its bases declare, also what is declared again: colour, interface and name."""
    for base in reversed(cls.__mro__):
        for name, attribute in vars(base).items():
            if getattr(attribute, REMOTE, False) or getattr(function_in(attribute), REMOTE, False):
                yield ("awaitable" if is_awaitable(attribute) else "blocking"), base.__qualname__, name


def colour_of(cls: type) -> Colour | None:
    """The colour of an interface, or of a server's class; None if it declares no method.

    Raises:
        InterfaceError: it has both; names a method of each.
    """
    first: dict[Colour, tuple[str, str]] = {}
    for colour, interface, name in _declarations(cls):
        first.setdefault(colour, (interface, name))
    if len(first) > 1:
        (one, (its, name)), (other, (others, named)) = first.items()
        raise InterfaceError(
            f"{cls.__qualname__} has methods of both colours: {its}.{name} is {one}, and {others}.{named} {other}; an "
            f"interface has one, and takes the twin of a method that has the other: `{named} = {_TWIN[one]}("
            f"{others}.{named})`, in a class that is not derived from {others}"
        )
    return next(iter(first), None)


def refuse_colour(cls: type, served: Colour) -> None:
    """Refuses a server's class whose colour is not what is served somewhere.

    Raises:
        InterfaceError: it is the other; says where that is served.
    """
    for colour, interface, name in _declarations(cls):
        if colour != served:
            raise InterfaceError(
                f"{cls.__qualname__} is {colour}, as {interface}.{name} is declared: {_SERVED[colour]} manages it, and "
                f"{_SERVED[served]} one of the twin interface, which has `{name} = {_TWIN[served]}({interface}.{name})`"
            )


def refuse_forward(cls: Any, served: Colour) -> None:
    """Refuses a class that forwards by a method that is awaited where that blocks, or the other way round.

    Raises:
        InterfaceError: it is the other.
    """
    if is_awaitable(cls.forward) is not (served == "awaitable"):
        due, other = ("async def", "def") if served == "awaitable" else ("def", "async def")
        raise InterfaceError(
            f"{cls.__qualname__}.forward is {other}, where {_SERVED[served]} serves {due} forward(self, call)"
        )


def refuse_blocking_in(annotation: Any, where: str) -> None:
    """Refuses what an awaited method takes, where an interface whose calls block is in it: they would stop its loop.

    Args:
        annotation: of the parameter, as read.
        where: method and parameter, for people.

    Raises:
        InterfaceError: there is one; says what to write.
    """
    for node in walk(msgspec.inspect.type_info(annotation)):
        if isinstance(node, CustomType) and colour_of(node.cls) == "blocking":
            name = node.cls.__qualname__
            raise InterfaceError(
                f"{where}: calls of {name} block, and would stop the event loop that the method runs in. A twin keeps "
                f"the annotations of its original: declare the method by hand, as async def, with the awaitable twin "
                f"of {name} in its place, or with capmarshal.Capability: its cast() gives a proxy of either colour"
            )


def difference_of_colour(managed: type, wanted: type) -> str:
    """For the error that an object is of another class than was wanted: empty where its colour is not what differs."""
    one, other = colour_of(managed), colour_of(wanted)
    if None in (one, other) or one == other:
        return ""
    return (
        f": {name_of(managed)} is {one}, and {name_of(wanted)} {other}; a twin keeps the annotations of its original: "
        f"declare the method by hand, with the {one} interface in place of {name_of(wanted)}"
    )
