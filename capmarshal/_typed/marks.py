"""What a declaration leaves on its function, and what classes make of what is declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import FunctionType

# That it can be called remotely, and the errors that it raises on purpose.
REMOTE: Final = "__capmarshal_method__"
RAISES: Final = "__capmarshal_raises__"
# The class that declares it, once there is that; and of a twin, what it is a twin of.
INTERFACE: Final = "__capmarshal_interface__"
ORIGINAL: Final = "__capmarshal_original__"
# Of the twin of a method that gives a stream: whether its items are awaited.
AWAITED: Final = "__capmarshal_awaited__"
# In the namespace of an interface that nobody wrote: what people call a call of it.
CALLED: Final = "__capmarshal_called__"
# Likewise, of one by which an argument is pulled: whoever makes the call answers.
GIVEN: Final = "__capmarshal_given__"
# Of classes whose objects answer any method, by forward().
FORWARDS: Final = "__capmarshal_forwards__"
# Likewise, of those whose forward() asks for no context of its own: it begins in the turn in which its call comes, in a
# task that has run others.
AT_ONCE: Final = "__capmarshal_at_once__"


def forwards(cls: type) -> bool:
    """Whether objects of a class answer any method, by ``forward()``."""
    return getattr(cls, FORWARDS, False)


def original_of(function: FunctionType) -> FunctionType:
    """What a twin is a twin of; any other function itself."""
    original: Any = vars(function).get(ORIGINAL, function)
    return original  # type: ignore[no-any-return]  # as it was left there


def defined_by(cls: type) -> list[str]:
    """The remote methods that a class, or a base of it, defines beside declaring them: those of a server's class."""
    declared = {name for base in cls.__mro__ for name, value in vars(base).items() if getattr(value, REMOTE, False)}
    return sorted(name for name in declared if not getattr(getattr(cls, name), "__isabstractmethod__", False))
