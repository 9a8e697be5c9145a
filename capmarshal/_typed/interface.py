"""Typed interfaces: which methods can be called remotely."""

from __future__ import annotations

import abc
import types
import typing
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from capmarshal._capabilities.capability import Capability, Delegable, Proxy
from capmarshal._capabilities.space import capability_of
from capmarshal._kernel.errors import InterfaceError, name_of, with_article
from capmarshal._typed.colour import refuse_colour, refuse_forward
from capmarshal._typed.declaration import declared_in, refuse_overridden, refuse_unservable
from capmarshal._typed.marks import INTERFACE, RAISES, REMOTE, forwards
from capmarshal._typed.method import methods_of
from capmarshal._typed.stubs import is_stub

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.signal_capability import Signal
    from capmarshal._typed.colour import Colour

__all__ = ["Interface", "capability", "check_manageable", "check_object", "method", "raises"]

F = TypeVar("F", bound="Callable[..., Any]")

# What dataclasses and attrs leave on a class whose fields msgspec would send.
_FIELD_MARKS = ("__dataclass_fields__", "__attrs_attrs__")
# What a proxy needs for itself.
_RESERVED = "_capability"
# A mark of a class whose objects can be managed.
_SERVABLE = "__capmarshal_servable__"

if TYPE_CHECKING:
    from abc import ABCMeta as _ProtocolType
    from abc import abstractmethod as method
else:
    _ProtocolType = type(typing.Protocol)

    def method(function: F) -> F:
        """Declares a method of an interface as one that can be called remotely.

        To type checkers and to Python it is abstract: a server that forgets to define it is refused.  Every parameter
        and the result must be annotated: the annotation says what both sides hold, and is the check.

        Raises:
            InterfaceError: a property, a static or a class method.
        """
        if not isinstance(function, types.FunctionType):
            kind = with_article(name_of(type(function)))
            raise InterfaceError(f"@method declares a plain function that takes self, not {kind}: {function!r}")
        setattr(function, REMOTE, True)
        return abc.abstractmethod(function)


def raises(*errors: type[Exception]) -> Callable[[F], F]:
    """Declares the errors that a remote method raises on purpose: they arrive at the caller as themselves.

    With text, ``args``, notes and attributes that are plain data; the path of an :class:`OSError` only if the call
    named it.  What a built-in class keeps beside these, as the ``name`` of an :class:`ImportError`, does not travel.  A
    declared group arrives with its members: those that are declared as themselves, the others as
    :class:`RemoteError`, all with their notes.  Any other error arrives as :class:`RemoteError`.

    Raises:
        TypeError: not exception classes.
    """
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, Exception)):
            raise TypeError(f"raises() takes exception classes, not {error!r}")

    def declare(function: F) -> F:
        setattr(function, RAISES, errors)
        return function

    return declare


class _InterfaceType(_ProtocolType):
    """Refuses classes whose objects msgspec would send field by field, where a capability is meant.

    Derived from the type of protocols, so that an interface may have one beside it.  It is none itself.
    """

    if not TYPE_CHECKING:
        # Whose types would be for each checker to infer.
        __instancecheck__ = abc.ABCMeta.__instancecheck__
        __subclasscheck__ = abc.ABCMeta.__subclasscheck__

    def __setattr__(cls, name: str, value: object) -> None:  # noqa: N805 - of a metaclass, which ruff cannot see
        # What the dataclass decorator does; attrs with slots makes a new class, which __init_subclass__ sees.
        if name in _FIELD_MARKS:
            raise InterfaceError(_no_fields(cls))
        super().__setattr__(name, value)


def _no_fields(cls: type) -> str:
    return (
        f"{cls.__qualname__}: an Interface cannot be a dataclass, attrs class, Struct or container, "
        "for msgspec would send its fields"
    )


class Interface(Delegable, metaclass=_InterfaceType):
    """The base of interfaces, and so of the servers that implement them.

    As an annotation of a remote method, a subclass stands for a capability: a proxy or a managed object may be passed.
    """

    __slots__ = ()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        containers = (msgspec.Struct, dict, list, tuple, set, frozenset, str, bytes, int)
        if issubclass(cls, containers) or any(hasattr(cls, mark) for mark in _FIELD_MARKS):
            raise InterfaceError(_no_fields(cls))
        for base, attribute in declared_in(cls).values():
            if isinstance(attribute, types.FunctionType):
                vars(attribute).setdefault(INTERFACE, base)
        for name, attribute in vars(cls).items():
            # @method once more, where a server defines what is declared: to abc, that would be a method still to come.
            again = getattr(attribute, REMOTE, False) and not is_stub(attribute)
            if again and any(name in declared_in(base) for base in cls.__bases__):
                attribute.__isabstractmethod__ = False
        if _RESERVED in cls.__dict__:
            raise InterfaceError(f"{cls.__qualname__}.{_RESERVED}: the name is one that proxies need for themselves")


def capability(of: Interface | Signal) -> Capability:
    """The untyped capability of a proxy, a managed object or a signal.

    Raises:
        TypeError: neither.
    """
    if not issubclass(type(of), Delegable):
        given = f"the class {name_of(of)}" if isinstance(of, type) else with_article(name_of(type(of)))
        raise TypeError(f"{given} stands for no capability: pass a proxy, or an object that an entrypoint manages")
    return capability_of(of)


def check_object(target: object, done: str) -> None:
    """Refuses what is no server's object, but stands for one, say.

    Args:
        target: that was passed.
        done: what would be done with it: "managed".

    Raises:
        TypeError: it is none.
    """
    cls = type(target)
    # By its type: a mock of an interface says that it is one.
    if issubclass(cls, Interface) and not issubclass(cls, Proxy):
        return
    hint = ""
    if issubclass(cls, (Proxy, Capability)):
        hint = ", which stands for one, here or elsewhere: `local` of a capability of this process is the object itself"
    elif issubclass(cls, _InterfaceType):
        hint = ", of which there is to be an object first"
    raise TypeError(
        f"only a server's object, of a class derived from an Interface, can be {done}, not {target!r}{hint}"
    )


def check_manageable(target: object, colour: Colour) -> None:
    """Refuses what cannot be served.

    Args:
        target: what is to be.
        colour: of the interfaces that are served there.

    Raises:
        TypeError, InterfaceError: it is no server's object, or one of the other colour, or one whose methods are
            awaited and take an interface whose methods block.
    """
    check_object(target, "managed")
    cls = type(target)
    methods_of(cls)
    refuse_colour(cls, colour)
    if forwards(cls):
        refuse_forward(cls, colour)
    if _SERVABLE not in vars(cls):
        refuse_overridden(cls)
        refuse_unservable(cls, {method.name for method in methods_of(cls).values() if method.gives_stream})
        for method in methods_of(cls).values():
            method.implementation.refuse_misfit()
            method.implementation.refuse_blocking()
        setattr(cls, _SERVABLE, True)
