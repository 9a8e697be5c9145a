"""A remote method, analysed: how its calls and results become bytes, and back.

The annotations are the check, and they are read once, when the interface is first used, so that they may name what is
defined after it.
"""

from __future__ import annotations

import re
import typing
from types import FunctionType
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._capabilities.capability import Capability, Delegable
from capmarshal._kernel.errors import ArgumentError, Error, InterfaceError, StaleCapability
from capmarshal._protocol.wire import METHOD_MAX, pack_size
from capmarshal._typed.codec import data_decoder_for, decoder_for, encode, encoder_for
from capmarshal._typed.parameters import Parameter, is_async, parameters_of
from capmarshal._typed.table import DESCRIPTOR_TYPES, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._typed.table import Incoming

# What a declaration leaves on its function: that it can be called remotely, and the errors that it raises on purpose.
REMOTE = "__capmarshal_method__"
RAISES = "__capmarshal_raises__"
# The methods of a class, analysed: in its own namespace, so that they go with it.
_METHODS = "__capmarshal_methods__"

# What a payload that is no good makes msgspec raise: RecursionError for 100,000 nested arrays, and so on.
BAD_PAYLOAD = (ValueError, TypeError, OverflowError, RecursionError)

# How msgspec ends an error in the n-th argument.  What stands before that may be the peer's own words.
_PLACE = re.compile(r"( - at (?:`key` in )?`)\$\[(\d+)\]([^`]*`)\Z")


class Method:
    """One method of an interface.

    Args:
        interface: that declares it.
        name: of the function.
        function: as declared.

    Raises:
        InterfaceError: it is declared in a way that cannot work.

    Attributes:
        name: of the function.
        wire_name, wire_size: the name and its length, as a CALL has them.
        receiver: what the declaration calls ``self``.
        where: interface and method, for people.
        raises: the declared errors.
        arguments_are_data, result_is_data: no capability and no descriptor can be in them.
        is_data: both, and the arguments can be passed one after the other.
        decode_data_arguments, decode_data_result: payload to values, if they are; raise anything that msgspec raises.
    """

    def __init__(self, interface: type, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.wire_name = name.encode()
        if len(self.wire_name) > METHOD_MAX:
            raise InterfaceError(f"{interface.__qualname__}: a method's name of more than {METHOD_MAX} bytes")
        self.wire_size = pack_size(self.wire_name)
        self.where = f"{interface.__qualname__}.{name}"
        self.raises: Sequence[type[Exception]] = getattr(function, RAISES, ())
        self.function = function
        if not isinstance(function, FunctionType):
            raise InterfaceError(f"{self.where}: a remote method is a plain function")
        if is_async(function):
            raise InterfaceError(f"{self.where}: async methods are not supported yet")
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except (NameError, TypeError, AttributeError) as error:
            raise InterfaceError(f"{self.where}: an annotation cannot be understood: {error}") from error
        receiver, self.parameters = _receiver_and_rest(function)
        if receiver is None:
            raise InterfaceError(f"{self.where}: there is no parameter for the object itself; begin with self")
        self.receiver = receiver
        for parameter in self.parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise InterfaceError(
                    f"{self.where}: {parameter} has no fixed place in a message; take a list or a dict"
                )
            if parameter.name not in hints:
                raise InterfaceError(f"{self.where}: parameter {parameter.name} has no annotation")
        if "return" not in hints:
            raise InterfaceError(f"{self.where}: the result has no annotation; write -> None if there is none")
        annotations = tuple(hints[parameter.name] for parameter in self.parameters)
        of_all: Any = tuple[annotations]  # type: ignore[valid-type]  # made at run time
        self._decode_arguments, self.arguments_are_data = self._decoder(of_all, "arguments")
        self._decode_result, self.result_is_data = self._decoder(hints["return"], "result")
        self._encode_arguments = encoder_for(of_all)
        self._encode_result = encoder_for(hints["return"])
        self.decode_data_arguments = data_decoder_for(of_all)
        self.decode_data_result = data_decoder_for(hints["return"])
        self._keywords = [p.name for p in self.parameters if p.kind is p.KEYWORD_ONLY]
        self.is_data = self.arguments_are_data and self.result_is_data and not self._keywords

    def _decoder(self, annotation: Any, of: str) -> tuple[Callable[[Buffer, Incoming], Any], bool]:
        """How to decode it, and whether it is data alone."""
        custom: list[type] = []
        try:
            _refuse_foreign_types(msgspec.inspect.type_info(annotation), set(), custom)
            return decoder_for(annotation), not custom
        except (TypeError, ValueError, NameError, AttributeError) as error:
            raise InterfaceError(f"{self.where}, {of}: {error}") from error

    def _failure(self, what: str, error: Exception) -> ArgumentError:
        """In the words of msgspec, with the place's index replaced by the parameter's name."""

        def named(match: re.Match[str]) -> str:
            place = int(match[2])
            return match[1] + self.parameters[place].name + match[3] if place < len(self.parameters) else ""

        words = str(error) if isinstance(error, (ValueError, TypeError)) else type(error).__name__
        if what == "arguments":
            words = _PLACE.sub(named, words)
        return ArgumentError(f"{self.where}, {what}: {words}")

    def encode_arguments(self, arguments: tuple[Any, ...], outgoing: Outgoing) -> bytes:
        """The payload of a CALL.

        Raises:
            ArgumentError: something in it cannot be sent.
            Closed: a descriptor or capability in it is.
        """
        try:
            return self._encode_arguments(arguments, outgoing)
        except Error as error:
            error.add_note(f"{self.where}, {self._culprit(arguments)}")
            raise
        except BAD_PAYLOAD as error:
            raise ArgumentError(f"{self.where}, {self._culprit(arguments)}: {error}") from error

    def _culprit(self, arguments: tuple[Any, ...]) -> str:
        """The parameter whose argument cannot be encoded: msgspec does not say, so each is tried alone."""
        for parameter, argument in zip(self.parameters, arguments, strict=True):
            try:
                encode(argument, Outgoing())
            except (*BAD_PAYLOAD, Error):
                return f"argument `{parameter.name}`"
        return "arguments"

    def decode_arguments(self, payload: memoryview, incoming: Incoming) -> list[Any]:
        """The arguments of a CALL, in the order of the parameters.

        Raises:
            ArgumentError, StaleCapability: they are not what the interface says.
        """
        return self._decode(self._decode_arguments, "arguments", payload, incoming)  # type: ignore[no-any-return]  # a tuple

    def encode_result(self, result: Any, outgoing: Outgoing) -> bytes:
        """The payload of a REPLY.

        Raises:
            ArgumentError: something in it cannot be sent.
        """
        try:
            return self._encode_result(result, outgoing)
        except (*BAD_PAYLOAD, Error) as error:
            raise self._failure("result", error) from error

    def decode_result(self, payload: memoryview, incoming: Incoming) -> Any:
        """The result of a REPLY.

        Raises:
            ArgumentError, StaleCapability: it is not what the interface says.
        """
        return self._decode(self._decode_result, "result", payload, incoming)

    def _decode(self, decode: Callable[[Buffer, Incoming], Any], what: str, payload: Buffer, incoming: Incoming) -> Any:
        try:
            decoded = decode(payload, incoming)
            incoming.check_used()
            return decoded
        except StaleCapability:
            raise
        except Exception as error:  # a __post_init__ of the user's may raise anything for what a peer sends
            raise self._failure(what, error) from error

    def run(self, target: Any, arguments: Sequence[Any]) -> Any:
        """Calls the method of a managed object."""
        bound = getattr(target, self.name)
        if not self._keywords:
            return bound(*arguments)
        positional = len(arguments) - len(self._keywords)
        return bound(*arguments[:positional], **dict(zip(self._keywords, arguments[positional:], strict=True)))


def methods_of(cls: type) -> dict[bytes, Method]:
    """The remote methods of an interface or a server, by name; analysed when first asked for.

    Raises:
        InterfaceError: one is declared in a way that cannot work.
    """
    known: dict[bytes, Method] | None = cls.__dict__.get(_METHODS)
    if known is None:
        declared: dict[str, tuple[type, Any]] = {}
        for base in reversed(cls.__mro__):
            for name, function in vars(base).items():
                if getattr(function, REMOTE, False):
                    declared[name] = (base, function)
        known = {name.encode(): Method(base, name, function) for name, (base, function) in declared.items()}
        setattr(cls, _METHODS, known)
    return known


def _receiver_and_rest(function: FunctionType) -> tuple[str | None, list[Parameter]]:
    """What a method calls its object, if it has a place for it, and its other parameters."""
    parameters = parameters_of(function)
    if not parameters or parameters[0].kind not in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
        return None, parameters
    return parameters[0].name, parameters[1:]


def _refuse_foreign_types(node: Any, seen: set[int], custom: list[type]) -> None:
    """Walks msgspec's description of a type; what in it is no data goes into ``custom``.

    Raises:
        TypeError: it contains a class that neither msgspec nor capmarshal knows how to send.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, msgspec.inspect.CustomType):
        custom.append(node.cls)
        if node.cls not in (Capability, *DESCRIPTOR_TYPES) and not issubclass(node.cls, Delegable):
            raise TypeError(
                f"{node.cls.__qualname__} is neither data, nor an Interface, nor one of Capability, Descriptor, "
                "Dataspace, io.BufferedReader, io.BufferedWriter, socket.socket"
            )
    elif isinstance(node, (tuple, list)):
        for part in node:
            _refuse_foreign_types(part, seen, custom)
    elif isinstance(node, (msgspec.inspect.Type, msgspec.inspect.Field)):
        for name in node.__struct_fields__:
            _refuse_foreign_types(getattr(node, name), seen, custom)
