"""Making the description of an object, of its class."""

from __future__ import annotations

import datetime as dt
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from capmarshal._capabilities.capability import SIGNALS, Capability, Delegable
from capmarshal._kernel.errors import name_of
from capmarshal._typed.declaration import Declaration, declared_in
from capmarshal._typed.description import (
    CAPABILITY,
    KEYS,
    KIND,
    Description,
    InterfaceDescription,
    MethodDescription,
    ParameterDescription,
)
from capmarshal._typed.parameters import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# The descriptions of a class, by what of it can be called: in its own namespace, so that they go with it.
_DESCRIBED = "__capmarshal_described__"
# Of how many grants of one class, each of other methods, that is kept.
_KEPT_MAX = 64
_REFERENCE = "#/$defs/{name}"

_encode = msgspec.msgpack.Encoder().encode


def described(cls: type, only: frozenset[bytes] | None) -> bytes:
    """The payload that describes an object.

    Args:
        cls: of the object.
        only: the names of the methods that can be called; None: all.
    """
    known: dict[frozenset[bytes] | None, bytes] | None = cls.__dict__.get(_DESCRIBED)
    if known is None:
        known = {}
        setattr(cls, _DESCRIBED, known)
    if (payload := known.get(only)) is None:
        payload = _encode(_describe(cls, only))
        if len(known) < _KEPT_MAX:
            known[only] = payload
    return payload


def _describe(cls: type, only: frozenset[bytes] | None) -> Description:
    declared = [
        (base, Declaration(base, name, function, cls))
        for name, (base, function) in declared_in(cls).items()
        if only is None or name.encode() in only
    ]
    annotations = [annotation for _, each in declared for annotation in _annotations_of(each)]
    schemas, definitions = _schemas(annotations)
    by_order = iter(schemas)
    methods = tuple(_method(each, by_order) for _, each in declared)
    docs = {_interface_of(each): vars(base).get("__doc__") or "" for base, each in declared}
    return Description(tuple(InterfaceDescription(*told) for told in docs.items()), methods, definitions)


def _interface_of(declared: Declaration) -> str:
    return declared.where.rpartition(".")[0]


def _item_of(pulled: Any) -> Any:
    """What the items are of a stream, by the interface by which it is pulled."""
    return typing.get_args(typing.get_args(pulled.next.__annotations__["return"])[0])[0]


def _annotations_of(declared: Declaration) -> list[Any]:
    """The types of a method's parameters and its result; of streams, of their items."""
    streams = declared.stream_arguments
    found = [
        _item_of(streams[place].result) if place in streams else annotation
        for place, annotation in enumerate(declared.annotations)
    ]
    return [*found, _item_of(declared.result) if declared.gives_stream else declared.result]


def _method(declared: Declaration, schemas: Iterable[dict[str, Any]]) -> MethodDescription:
    parameters = tuple(
        _parameter(parameter, schema, stream=place in declared.stream_arguments)
        for place, (parameter, schema) in enumerate(zip(declared.parameters, schemas, strict=False))
    )
    return MethodDescription(
        declared.function.__name__,
        _interface_of(declared),
        parameters,
        next(iter(schemas)),
        declared.gives_stream,
        tuple(error.__qualname__ for error in declared.raises),
        declared.function.__doc__ or "",
    )


def _parameter(parameter: Parameter, schema: dict[str, Any], *, stream: bool) -> ParameterDescription:
    how = {Parameter.POSITIONAL_ONLY: "position", Parameter.KEYWORD_ONLY: "name"}.get(parameter.kind, "either")
    if parameter.default is Parameter.empty:
        return ParameterDescription(parameter.name, schema, how, stream)
    try:
        default = msgspec.to_builtins(parameter.default)
    except Exception:  # noqa: BLE001 - no data; `...`, say, or a file
        default = msgspec.UNSET
    return ParameterDescription(parameter.name, schema, how, stream, True, default)


def _schemas(annotations: Sequence[Any]) -> tuple[Sequence[dict[str, Any]], dict[str, dict[str, Any]]]:
    """What JSON Schema says of types, and the definitions that it refers to."""
    marked = [_said_whole(annotation) for annotation in annotations]
    try:
        return _components(marked)
    except Exception:  # noqa: BLE001 - what cannot be said in it does not keep all else from being said
        return _components([annotation if _has_schema(annotation) else Any for annotation in marked])


def _components(annotations: Sequence[Any]) -> tuple[Sequence[dict[str, Any]], dict[str, dict[str, Any]]]:
    return msgspec.json.schema_components(annotations, schema_hook=_no_data, ref_template=_REFERENCE)


def _has_schema(annotation: Any) -> bool:
    try:
        _components([annotation])
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


def _no_data(cls: type) -> dict[str, Any]:
    """What is said of what travels beside the payload."""
    if issubclass(cls, (Capability, Delegable)) and SIGNALS not in cls.__dict__:
        # Which interface is not known of the former.
        return {KIND: CAPABILITY} if issubclass(cls, Capability) else {KIND: CAPABILITY, "title": cls.__qualname__}
    return {KIND: name_of(cls).removeprefix("capmarshal.")}


def _said_whole(annotation: Any) -> Any:
    """A type of which more is said than msgspec says: within no class, the types of keys, and what is a date."""
    if annotation is dt.datetime:
        return Annotated[annotation, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None or origin in (typing.Literal, typing.Annotated) or not arguments:
        return annotation
    replaced = tuple(argument if argument is ... else _said_whole(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[replaced]  # noqa: UP007 - of as many as there are
    if origin is not dict:
        return origin[replaced] if origin in (list, tuple, set, frozenset) else annotation
    if replaced[0] is str:
        return origin[replaced]
    keys, _ = _components([replaced[0]])
    return Annotated[origin[replaced], msgspec.Meta(extra_json_schema={KEYS: keys[0]})]
