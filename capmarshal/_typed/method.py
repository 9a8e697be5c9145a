"""A remote method: how its calls and results become bytes, and back.  The annotations are the check."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors.refused import refused_of
from capmarshal._kernel.errors import ArgumentError, Error, InterfaceError, StaleCapability
from capmarshal._protocol.wire import pack_size
from capmarshal._typed.codec import data_decoder_for, decoder_for, encode, encoder_for
from capmarshal._typed.declaration import Declaration, declared_in, refuse_forgotten
from capmarshal._typed.table import Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._typed.table import Incoming

# The methods of a class, analysed: in its own namespace, so that they go with it.
_METHODS = "__capmarshal_methods__"

# What a payload that is no good makes msgspec raise: RecursionError for 100,000 nested arrays, BufferError
# for a memoryview with gaps, and so on.
BAD_PAYLOAD = (ValueError, TypeError, OverflowError, RecursionError, BufferError)

# How msgspec ends an error in the n-th argument.  What stands before that may be the peer's own words.
_PLACE = re.compile(r"( - at (?:`key` in )?`)\$\[(\d+)\]([^`]*`)\Z")


class Method:
    """One method of an interface.

    Args:
        interface: that declares it.
        name: of the function.
        function: as declared.
        of: the class that is asked about, where it is one derived from the interface.

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

    def __init__(self, interface: type, name: str, function: Any, of: type | None = None) -> None:
        declared = Declaration(interface, name, function, of or interface)
        self.name = name
        self.wire_name = name.encode()
        self.wire_size = pack_size(self.wire_name)
        self.where = declared.where
        self.raises = declared.raises
        self.function = declared.function
        self.receiver = declared.receiver
        self.parameters = declared.parameters
        self.arguments_are_data, self.result_is_data = declared.arguments_are_data, declared.result_is_data
        self._decode_arguments = decoder_for(declared.arguments)
        self._decode_result = decoder_for(declared.result)
        self._encode_arguments = encoder_for(declared.arguments)
        self._encode_result = encoder_for(declared.result)
        self.decode_data_arguments = data_decoder_for(declared.arguments)
        self.decode_data_result = data_decoder_for(declared.result)
        self._keywords = [p.name for p in self.parameters if p.kind is p.KEYWORD_ONLY]
        self.is_data = self.arguments_are_data and self.result_is_data and not self._keywords

    def _failure(self, what: str, error: Exception) -> ArgumentError:
        """In the words of msgspec, with the place's index replaced by the parameter's name."""

        def named(match: re.Match[str]) -> str:
            place = int(match[2])
            return match[1] + self.parameters[place].name + match[3] if place < len(self.parameters) else ""

        words = str(error) if isinstance(error, (ValueError, TypeError, Error)) else type(error).__name__
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

    def unsendable(self, arguments: tuple[Any, ...], numbers: Sequence[int]) -> ArgumentError | None:
        """Why the kernel refused to send a call with these descriptors; None if not for one of them."""
        refused = refused_of(numbers)
        if refused is None:
            return None
        culprit = "arguments"
        for parameter, argument in zip(self.parameters, arguments, strict=True):
            alone = Outgoing()
            with contextlib.suppress(*BAD_PAYLOAD, Error):
                encode(argument, alone)
            if refused.number in alone.numbers:
                culprit = f"argument `{parameter.name}`"
        return ArgumentError(f"{self.where}, {culprit} cannot be sent: its descriptor is {refused.why}")

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
            InterfaceError: it is, and of an interface that cannot work, which is first used here.
        """
        try:
            return self._decode(self._decode_result, "result", payload, incoming)
        except ArgumentError as error:
            # msgspec makes its own error of it, since every InterfaceError is a TypeError.
            cause = error.__cause__.__cause__ if error.__cause__ is not None else None
            if isinstance(cause, InterfaceError):
                raise cause from None
            raise

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
        refuse_forgotten(cls)
        analysed = [Method(base, name, function, cls) for name, (base, function) in declared_in(cls).items()]
        known = {method.wire_name: method for method in analysed}
        setattr(cls, _METHODS, known)
    return known
