"""What can't go to another machine, and which argument that was: the object there is asked, as who forwards knows none.

Only where such a call is refused; who waits for its error can wait for that, too, and gets it without where there is no
answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal import ArgumentError, UntypedCall
from capmarshal._kernel.errors import printable, shortened
from capmarshal._protocol.wire import DESCRIBE
from capmarshal._typed.description import CAPABILITY, KIND, Description

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from capmarshal import UntypedResult

# Seconds that the object has to say what can be called.
_PATIENCE = 2.0

# An array without items, in MessagePack.
_NO_ARGUMENTS = b"\x90"

# What of a table goes to another machine.
_GOES = frozenset({CAPABILITY, "Dataspace", "Signal"})

# Characters of a name that another machine says.
_NAME_SHOWN = 64


class Stays(ArgumentError):
    """Something in a table stays on its machine.

    Attributes:
        why: in words.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.why = why


async def named(error: Stays, method: str, ask: Callable[[UntypedCall], Awaitable[UntypedResult]]) -> ArgumentError:
    """The same error, which says which argument it is, as far as the object tells.

    Args:
        error: of a call.
        method: that was called.
        ask: calls the object.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            result = await ask(UntypedCall(DESCRIBE.decode(), _NO_ARGUMENTS))
        description = msgspec.msgpack.decode(result.payload, type=Description)
        words = next(_words(description, method), "")
    except Exception:  # noqa: BLE001 - whatever it is, the error is known without it
        words = ""
    return ArgumentError(f"{words}: {error.why}" if words else str(error))


def _words(description: Description, method: str) -> Iterator[str]:
    for each in description.methods:
        if each.name == method:
            stay = [
                f"`{_shown(parameter.name)}`"
                for parameter in each.parameters
                if _may_stay(parameter.schema, description.definitions, set())
            ]
            if stay:
                yield f"{_shown(each.interface)}.{_shown(method)}, argument {' or '.join(stay[:10])}"


def _may_stay(schema: Any, definitions: dict[str, dict[str, Any]], seen: set[str]) -> bool:
    """Whether a type may have something in it that stays."""
    if isinstance(schema, list):
        return any(_may_stay(each, definitions, seen) for each in schema)
    if not isinstance(schema, dict):
        return False
    if KIND in schema:
        return schema[KIND] not in _GOES
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference not in seen:
        seen.add(reference)
        return _may_stay(definitions.get(reference.rpartition("/")[2]), definitions, seen)
    return any(_may_stay(each, definitions, seen) for key, each in schema.items() if key != "default")


def _shown(name: str) -> str:
    return printable(shortened(name, _NAME_SHOWN))
