"""What somebody gets who connects: the same as everybody, or what is made for each."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING

from capmarshal._capabilities.capability import Capability, Proxy
from capmarshal._server.callbacks import refuse_async
from capmarshal._typed.interface import capability

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.listener import ForClient
    from capmarshal._typed.colour import Colour
    from capmarshal._typed.interface import Interface


def giving(
    target: Interface | Capability | None,
    for_client: ForClient | None,
    manage: Callable[[Interface], Capability],
    colour: Colour,
) -> Capability | ForClient:
    """What everybody gets who connects, or what says that.

    Args:
        target: as :meth:`Entrypoint.listen` has it.
        for_client: likewise.
        manage: gives an object a capability.
        colour: of the interfaces that are served.

    Raises:
        TypeError: not one of the two is given, or one is not what it is to be.
        InterfaceError, ValueError, Closed: the target cannot be managed.
    """
    if (target is None) == (for_client is None):
        raise TypeError("listen(path, target) gives everybody the same, listen(path, for_client=...) each its own")
    if for_client is not None:
        if not callable(for_client):
            raise TypeError(f"for_client is called with a Caller, and {for_client!r} cannot be")
        refuse_async(for_client, "for_client", colour)
        return for_client
    if isinstance(target, Capability):
        return target
    if issubclass(type(target), Proxy):
        return capability(target)  # type: ignore[arg-type]  # one of the two is given
    if isinstance(target, types.FunctionType | types.MethodType):
        raise TypeError(f"{target!r} cannot be handed over: what says what each client gets is for_client=...")
    return manage(target)  # type: ignore[arg-type]  # likewise, and checked there
