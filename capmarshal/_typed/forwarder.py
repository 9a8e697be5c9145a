"""Objects that answer any method by one of their own, which passes the call on, or does not."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from capmarshal._typed.interface import Interface
from capmarshal._typed.marks import AT_ONCE, FORWARDS, RAISES
from capmarshal._typed.untyped import UntypedMethod, name_shown

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from capmarshal._typed.method import Method
    from capmarshal._typed.untyped import UntypedCall, UntypedResult


class Forwarder(Interface):
    """The base of objects that answer every method, whatever it is called, by :meth:`forward`.

    Managed and granted as any other: what is called of it may be cast to any interface.  Methods that a class derived
    from it declares, or inherits, are its own; all others are forwarded.
    """

    __slots__ = ()

    @abc.abstractmethod
    def forward(self, call: UntypedCall) -> UntypedResult | Awaitable[UntypedResult]:
        """Answers a call: ``async def`` where an event loop serves it.

        What stands in the table is the call's, as arguments are: closed when it ends, unless it is returned, or taken
        out by :func:`keep`.  :func:`remaining` and :func:`caller` say how long it may take, and who calls.

        What :func:`forward` has raised, and is let through, arrives as it was: declared errors as themselves.  Any
        other error is a :class:`RemoteError`, unless ``@raises`` declares it here: it arrives as itself then where the
        caller's interface declares it, too; and so does in any case what is said of calls, as :class:`ArgumentError`,
        :class:`UnknownMethod` and :class:`Disconnected`.
        """
        raise NotImplementedError


setattr(Forwarder, FORWARDS, True)


def forwarding_method(cls: type, name: bytes) -> Method | None:
    """What a class that forwards has for a method of any name; None where it does not, or no method is called so."""
    if not getattr(cls, FORWARDS, False):
        return None
    try:
        name.decode()
    except UnicodeDecodeError:
        return None
    declared = getattr(cls.forward, RAISES, ())  # type: ignore[attr-defined]  # every such class has one
    method = UntypedMethod(name, f"{cls.__qualname__}.forward, {name_shown(name)}()", declared)
    method.begins_at_once = getattr(cls, AT_ONCE, False)
    return method
