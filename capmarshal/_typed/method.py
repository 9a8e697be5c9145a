"""A remote method: how its calls and results become bytes, and back.  The annotations are the check."""

from __future__ import annotations

import functools
import re
import types
from typing import TYPE_CHECKING, Any, TypeVar

from capmarshal._kernel.errors import ArgumentError, Error, InterfaceError, StaleCapability
from capmarshal._protocol.faults import to_exception
from capmarshal._protocol.wire import pack_size
from capmarshal._typed.arguments import Arguments
from capmarshal._typed.async_stream import AsyncStream
from capmarshal._typed.binding import Binding
from capmarshal._typed.codec import (
    BAD_PAYLOAD,
    data_decoder_for,
    decoder_for,
    encode,
    encode_data,
    is_msgspecs,
    says_all,
    words_of_failure,
)
from capmarshal._typed.colour import colour_of
from capmarshal._typed.declaration import Declaration, declared_in, refuse_forgotten
from capmarshal._typed.fitting import check_for
from capmarshal._typed.implementation import Implementation
from capmarshal._typed.in_order import result_in_order
from capmarshal._typed.items_before import bring_items
from capmarshal._typed.lending import arguments_in_order, data_lender
from capmarshal._typed.long import encoders_for
from capmarshal._typed.marks import CALLED, GIVEN
from capmarshal._typed.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._typed.arguments import Given, Lent
    from capmarshal._typed.async_stream import AnyStream
    from capmarshal._typed.incoming import Incoming
    from capmarshal._typed.outgoing import Outgoing

E = TypeVar("E", bound=Exception)

# The methods of a class, analysed: in its own namespace, so that they go with it.
_METHODS = "__capmarshal_methods__"

# What is the annotation's when it is of its class.
_PLAIN = frozenset({bool, int, float, str, bytes, types.NoneType})
# How msgspec ends an error within one of the items of a stream that came together.
_ITEM = re.compile(r"( - at (?:`key` in )?`)\$\[0\]\[\d+\]([^`]*`)\Z")
# Classes of one method's results that are known: a server may make them as it goes.
_KNOWN_MAX = 64


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
        awaitable: what its calls give is to be awaited.
        gives_stream: its result is a stream, and travels as an object of :attr:`result`.
        items_are_data: it is one in whose items no capability and no descriptor can be.
        gives_items: its own result is the next items of a stream.
        answers: who does, for people.
        stream_arguments: its arguments that are streams, by the places of their parameters.
        result: the result's type.
        arguments_are_data, result_is_data: no capability and no descriptor can be in them.
        arguments_in_order, result_in_order: how they travel where descriptors, and in arguments capabilities, stand in
            order; None where they may not.
        function: as declared.
        parameters: but for the receiver, in their order.
        given, encode_arguments, unsendable: see :class:`Arguments`.
        lend: what a call is sent with; see :mod:`capmarshal._typed.lending`.
        encode_data_arguments, encode_data_result: of arguments and results that are data.
        decode_arguments, decode_arguments_after: see :class:`Binding`; what is pulled is a stream in the former.
        read_data_result: :attr:`decode_data_result`, once calls are made, and else None: where it stands from the
            beginning, CPython finds it sooner.
        data_of_result: gives the payload of a result that is data, and None of another, where only the result tells;
            itself None where the interface tells.
        begins_at_once: see :data:`capmarshal._typed.marks.AT_ONCE`.
        plain_result: the class of results that are data of one of Python's own, and nothing is in them; else None.
        known_results: the classes of results that are data of which one was found to be what the interface says.
        implementation: what the class that is asked about has in its place.
    """

    begins_at_once = False

    def __init__(self, interface: type, name: str, function: Any, of: type | None = None) -> None:
        declared = Declaration(interface, name, function, of or interface)
        self.name = name
        self.wire_name = name.encode()
        self.wire_size = pack_size(self.wire_name)
        self.where = declared.where
        self.gives_items = CALLED in vars(interface)
        self.answers = "the caller's iterator" if vars(interface).get(GIVEN) else "the server"
        self._result = self.where if self.gives_items else f"{self.where}, result"
        self.raises = declared.raises
        self.awaitable = declared.awaitable
        self.gives_stream, self.items_are_data = declared.gives_stream, declared.items_are_data
        self.stream_arguments = declared.stream_arguments
        self.function = declared.function
        self.receiver = declared.receiver
        self.parameters = declared.parameters
        self.arguments_are_data, self.result_is_data = declared.arguments_are_data, declared.result_is_data
        self.result = declared.result
        result = types.NoneType if declared.result is None else declared.result
        self.read_data_result: Callable[[Buffer], Any] | None = None
        self.data_of_result: Callable[[Any], bytes | None] | None = None
        self.plain_result = result if result in _PLAIN else None
        self.known_results: set[type] = {result} if result in _PLAIN else set()
        self.encode_data_arguments, self.encode_data_result = encoders_for(declared.annotations, declared.result)
        self._check_result = check_for(declared.result, is_data=declared.result_is_data)
        arguments = Arguments(declared)
        self.given, self.encode_arguments, self.unsendable = arguments.given, arguments.encode, arguments.unsendable
        self.arguments_in_order = arguments_in_order(declared, arguments)
        self.result_in_order = result_in_order(declared.result, is_data=declared.result_is_data)
        self.lend: Callable[[Given], Lent] = arguments.in_a_table
        if declared.arguments_are_data:
            self.lend = data_lender(self.encode_data_arguments, arguments)
        elif self.arguments_in_order is not None:
            self.lend = self.arguments_in_order.lend
        self.implementation = Implementation(declared, name, of or interface)
        self._binding = Binding(declared, self.implementation)
        self.decode_arguments, self.decode_arguments_after = self._binding.decode, self._binding.decode_after
        if declared.stream_arguments:
            self._pulled = tuple(streamed.result for streamed in declared.stream_arguments.values())
            self.decode_arguments = self._decode_with_streams
            # What stands in order is made without that.
            self.arguments_in_order, self.lend = None, arguments.in_a_table

    # Made when they are first wanted: a client decodes no arguments, and a server no results.

    def will_be_called(self) -> None:
        """Makes what calls need, now: one may be made when the interpreter ends, and nothing is imported then."""
        _ = self._decode_result
        if self.result_is_data:
            self.read_data_result = self.decode_data_result

    @functools.cached_property
    def decode_data_arguments(self) -> Callable[[bytes | memoryview], Any]:
        """Payload to arguments: see :meth:`Binding.data_decoder`."""
        return self._binding.data_decoder()

    @functools.cached_property
    def decode_data_result(self) -> Callable[[Buffer], Any]:
        """Payload to a result that is data; raises anything that msgspec raises."""
        return data_decoder_for(self.result)

    @functools.cached_property
    def _decode_result(self) -> Callable[[Buffer, Incoming], Any]:
        return decoder_for(self.result)

    def _decode_with_streams(
        self, payload: bytes | memoryview, incoming: Incoming
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """As :meth:`Binding.decode`; what iterates over the streams is in ``incoming.streams``, too."""
        by_position, by_name = self._binding.decode(payload, incoming)
        by_position = [self._stream(value, incoming) for value in by_position]
        return by_position, {name: self._stream(value, incoming) for name, value in by_name.items()}

    def _stream(self, value: Any, incoming: Incoming) -> Any:
        """What iterates over an argument, where it is what is pulled from; else that itself."""
        if not isinstance(value, self._pulled):
            return value
        stream: AnyStream = AsyncStream(None, value) if self.awaitable else Stream(value)
        incoming.streams = (*incoming.streams, stream)
        return stream

    def encode_result(self, result: Any, outgoing: Outgoing) -> bytes:
        """The payload of a REPLY.

        Raises:
            ArgumentError: something in it cannot be sent.
        """
        try:
            payload = encode(result, outgoing)
            # Not before: what has descriptors is in the table now, and so is closed with the call, sent or not.
            self._check_result(result)
        except (*BAD_PAYLOAD, Error) as error:
            raise self._failure(error) from error
        return payload

    def misfit(self, result: Any) -> str:
        """What is wrong with a result that is data, at the server, where nothing else decodes it; empty if nothing is.

        Of those of one class the first that is good is looked at, and no later one: a result that is None where one is
        due is found whenever it is returned, what is wrong within a list perhaps by its client alone.
        """
        if len(self.known_results) >= _KNOWN_MAX:
            return ""
        try:
            self.decode_data_result(encode_data(result))
        except BAD_PAYLOAD as error:
            return self._words(error)
        self.known_results.add(type(result))
        return ""

    def decode_result(self, payload: memoryview, incoming: Incoming) -> Any:
        """The result of a REPLY.

        Raises:
            ArgumentError, StaleCapability: it is not what the interface says.
            InterfaceError: it is, and of an interface that cannot work, which is first used here.
        """
        try:
            decoded = self._decode_result(payload, incoming)
            incoming.check_used()
        except StaleCapability as stale:
            raise self._bringing(StaleCapability(f"{self._result}: {stale}"), payload) from None
        except Exception as error:  # a __post_init__ of the user's may raise anything for what a peer sends
            # msgspec makes its own error of it, since every InterfaceError is a TypeError.
            if isinstance(error.__cause__, InterfaceError):
                raise error.__cause__ from None
            raise self._refusal(error, payload) from error
        return decoded

    def error_for(self, payload: memoryview, where: str, until: int) -> BaseException:
        """What is raised for a FAIL; see :func:`capmarshal._protocol.faults.to_exception`."""
        return to_exception(payload, self.raises, where, until, self.answers)

    def refuse_result(self, error: Exception, payload: bytes) -> None:
        """Says what is wrong with a result that is data, if that is known by what :attr:`decode_data_result` raised.

        Raises:
            ArgumentError: it is not what the interface says.
        """
        if says_all(error, payload):
            raise self._refusal(error, payload) from error

    def _refusal(self, error: Exception, payload: Buffer) -> ArgumentError:
        failure = self._bringing(self._failure(error), payload)
        failure.add_note(f"{self.answers} returned it, where the interface here says something else")
        return failure

    def _bringing(self, failure: E, payload: Buffer) -> E:
        """An error of a result, which brings the items before it where the method gives items."""
        if self.gives_items:
            bring_items(failure, self.result, payload)
        return failure

    def _failure(self, error: Exception) -> ArgumentError:
        return ArgumentError(f"{self._result}: {self._words(error)}")

    def _words(self, error: Exception) -> str:
        words = words_of_failure(error)
        if self.gives_items:
            return _ITEM.sub(r"\1item\2", words)
        declared = ": it is declared -> None" if self.plain_result is types.NoneType and is_msgspecs(error) else ""
        return f"{words}{declared}"


def methods_of(cls: type) -> dict[bytes, Method]:
    """The remote methods of an interface or a server, by name; analysed when first asked for.

    Raises:
        InterfaceError: one is declared in a way that cannot work.
    """
    known: dict[bytes, Method] | None = cls.__dict__.get(_METHODS)
    if known is None:
        refuse_forgotten(cls)
        colour_of(cls)
        analysed = [Method(base, name, function, cls) for name, (base, function) in declared_in(cls).items()]
        known = {method.wire_name: method for method in analysed}
        setattr(cls, _METHODS, known)
    return known
