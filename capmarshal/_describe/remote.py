"""An interface made of what a server says of one method: by it that is called, as by any other."""

from __future__ import annotations

import inspect
import keyword
import unicodedata
from collections.abc import Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any

from capmarshal._calling import Interface, method
from capmarshal._describe.schemas import CannotBeCalled, Types
from capmarshal._kernel.errors import InterfaceError

if TYPE_CHECKING:
    from collections.abc import Collection

    from capmarshal._describe.schemas import Schema
    from capmarshal._typed.description import Description, MethodDescription

_KINDS = {
    "position": inspect.Parameter.POSITIONAL_ONLY,
    "either": inspect.Parameter.POSITIONAL_OR_KEYWORD,
    "name": inspect.Parameter.KEYWORD_ONLY,
}


def _stub(self: Any) -> Any:
    raise NotImplementedError


def is_name(name: str) -> bool:
    """Whether what a server calls something can be a name in a program, and is none that Python itself uses."""
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith(("__", "_capmarshal")):
        return False
    # Python takes another for the same, as one with a ligature.
    return unicodedata.is_normalized("NFKC", name)


def _annotation(types: Types, schema: Schema, *, is_stream: bool) -> Any:
    """What an annotation is, as far as it says what travels how."""
    kind, is_data = types.make(schema)
    of: Any = Any if is_data else kind
    return Iterator[of] if is_stream else of


def interface_for(described: MethodDescription, of: Description, given: Collection[str]) -> type[Interface]:
    """An interface with that method alone.  What is data, the server looks at: here it may be any.

    Args:
        described: the method.
        of: the whole that it is of.
        given: the parameters that there are arguments for; of the others nothing is known.

    Raises:
        CannotBeCalled: the words say why.
    """
    parameters = described.parameters
    wrong = next((name for name in (described.name, *(each.name for each in parameters)) if not is_name(name)), None)
    if wrong is not None or described.name.startswith("_"):
        raise CannotBeCalled(f"{wrong or described.name!r} is no name that can be called")
    types = Types(of.definitions)
    annotations: dict[str, Any] = {}
    taken = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    for each in parameters:
        known = each.name in given
        annotations[each.name] = _annotation(types, each.schema, is_stream=each.stream) if known else Any
        how = _KINDS.get(each.how, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        default = None if each.optional else inspect.Parameter.empty
        taken.append(inspect.Parameter(each.name, how, default=default))
    annotations["return"] = _annotation(types, described.result, is_stream=described.stream)
    declared: Any = FunctionType(_stub.__code__, globals(), described.name)
    declared.__annotations__ = annotations
    declared.__qualname__ = described.name
    try:
        # Also where a server says that one without a default comes after one with: it names no such method.
        declared.__signature__ = inspect.Signature(taken)
        metaclass: Any = type(Interface)
        # For errors, which name it.
        name = described.interface if is_name(described.interface) else "Remote"
        namespace = {"__module__": __name__, described.name: method(declared)}
        made: type[Interface] = metaclass(name, (Interface,), namespace)
        return made
    except (ValueError, InterfaceError) as error:
        raise CannotBeCalled(f"{described.name}(): {error}") from None
