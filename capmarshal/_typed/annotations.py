"""Annotations, read: strings evaluated, and what stands for another type put in its place.

Names are looked up where a method's declaration stands: in its interface, and in its module.  ``Self`` is the
interface, a type variable is what the interface is derived with, and an alias is what it names.
"""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from capmarshal._capabilities.capability import Delegable
from capmarshal._capabilities.parametrised import parametrised
from capmarshal._typed.marks import INTERFACE, original_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# What stands for another type, and for which.  Compared by identity: not everything in an annotation has a hash.
Meanings: TypeAlias = "Sequence[tuple[Any, Any]]"

# A type variable's of which that is not known.
_UNKNOWN: Final = object()


class Unreadable(Exception):  # never leaves the package
    """What is wrong with an annotation, in words."""


class Reader:
    """Reads the annotations of one declaration.

    Args:
        function: as declared.
        interface: whose namespace it stands in.
        of: the class that is asked about: the interface, or one derived from it.
    """

    def __init__(self, function: types.FunctionType, interface: type, of: type) -> None:
        meanings = _bound(of).get(interface, ())
        if (original := original_of(function)) is not function:
            # What a twin's annotations name, they name where the original stands, and mean what they mean there.
            function, of = original, vars(original)[INTERFACE]
            meanings = _of_the_same_names(of, interface, meanings)
            interface = of
        self._meanings: Meanings = [*meanings, (typing.Self, _itself(interface, of))]
        while "__wrapped__" in vars(function):
            function = function.__wrapped__  # type: ignore[attr-defined]  # where functools.wraps leaves it
        self._globals = function.__globals__
        parameters = {parameter.__name__: parameter for parameter in getattr(interface, "__type_params__", ())}
        # Not its methods, which may be called list: what annotations name are classes and aliases.
        inside = {name: value for name, value in vars(interface).items() if not hasattr(value, "__get__")}
        self._locals = {interface.__name__: interface, **parameters, **inside}

    def read(self, annotation: Any) -> Any:
        """The type that an annotation stands for.

        Raises:
            Unreadable: none.
        """
        alone = types.SimpleNamespace(__annotations__={"it": annotation})
        try:
            read = typing.get_type_hints(alone, self._globals, self._locals, include_extras=True)["it"]
            return _resolved(read, self._meanings)
        except Unreadable:
            raise
        except NameError as error:
            raise Unreadable(
                f"the annotation cannot be understood: {error} where the interface is declared; under `from __future__ "
                "import annotations`, only what its module or the interface itself defines can be named"
            ) from error
        except RecursionError as error:
            raise Unreadable("the annotation is nested too deeply") from error
        except Exception as error:  # an annotation that is a string may be any expression, and raise anything
            raise Unreadable(f"the annotation cannot be understood: {error or type(error).__name__}") from error


def _itself(interface: type, of: type) -> type:
    """What ``Self`` stands for: the interface itself; asked of a server's class, the interface that it serves."""
    # By their bases: a protocol does not let itself be asked for subclasses.
    derived = (cls for cls in of.__mro__ if interface in cls.__mro__ and getattr(cls, "__abstractmethods__", False))
    return next(derived, interface)


def _bound(of: Any) -> dict[type, Meanings]:
    """What the type variables of a class and its bases stand for, by the class that has them."""
    found: dict[type, Meanings] = {}

    def follow(base: Any, meanings: Meanings) -> None:
        cls = typing.get_origin(base) or base
        arguments = (_resolved(argument, meanings) for argument in typing.get_args(base))
        own = list(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
        if cls not in (typing.Generic, typing.Protocol):
            found.setdefault(cls, own)
            for below in vars(cls).get("__orig_bases__", cls.__bases__):
                follow(below, own)

    follow(of, ())
    return found


def _of_the_same_names(interface: Any, twin: Any, meanings: Meanings) -> Meanings:
    """What the type variables of an interface stand for in its twin: what the twin's own of the same names do."""
    known = {of.__name__: meaning for of, meaning in meanings}
    own = {of.__name__: known.get(of.__name__, of) for of in getattr(twin, "__parameters__", ())}
    return [(of, own.get(of.__name__, _UNKNOWN)) for of in getattr(interface, "__parameters__", ())]


def _resolved(annotation: Any, meanings: Meanings, within: tuple[Any, ...] = ()) -> Any:
    """An annotation with everything in it that stands for another type replaced.

    Args:
        annotation: evaluated.
        meanings: of type variables and Self.
        within: the aliases that it was found in.

    Raises:
        Unreadable: an alias that contains itself.
    """
    for of, meaning in meanings:
        if annotation is of:
            if meaning is _UNKNOWN:
                raise Unreadable(
                    f"what {of.__name__} stands for is not known of a twin: its interface has a type variable of that "
                    "name, too, and who derives from it, or casts to it, says what that is"
                )
            return meaning
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return annotation
    replaced = tuple(_resolved(argument, meanings, within) for argument in arguments)
    # PEP 695, or typing_extensions before it: "type Pair[T] = tuple[T, T]".
    alias = origin or annotation
    if type(alias).__name__ == "TypeAliasType":
        if any(alias is other for other in within):
            raise Unreadable(f"the alias {alias.__name__} contains itself; a class may, such as a dataclass")
        return _resolved(alias.__value__, list(zip(alias.__type_params__, replaced, strict=False)), (*within, alias))
    if any(new is not old for new, old in zip(replaced, arguments, strict=True)):
        if origin in (typing.Union, types.UnionType):
            annotation = typing.Union[replaced]  # noqa: UP007 - of as many as there are
        elif origin is not None:
            annotation = typing.Annotated[replaced] if hasattr(annotation, "__metadata__") else origin[replaced]
    if isinstance(origin, type) and issubclass(origin, Delegable):
        return parametrised(annotation)
    return annotation
