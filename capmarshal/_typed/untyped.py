"""Calls as they travel: a method's name, a payload that nobody has decoded, and what stands in the table.

Whoever passes calls on needs no interface for that, and what they mean is between the two at the ends.
"""

from __future__ import annotations

import functools
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from capmarshal._capabilities.capability import Capability
from capmarshal._capabilities.signal_capability import Signal
from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.refused import refused_of
from capmarshal._descriptors.shared_buffer import SharedBuffer
from capmarshal._kernel.errors import ArgumentError, printable, shortened
from capmarshal._protocol import faults
from capmarshal._protocol.wire import METHOD_MAX, NO_BADGE, SIGNAL_BADGE, pack_size
from capmarshal._typed.interface import Interface, method
from capmarshal._typed.method import Method
from capmarshal._typed.outgoing import Outgoing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._protocol.wire import Entry
    from capmarshal._typed.arguments import Given, Lent
    from capmarshal._typed.incoming import Incoming

# What stands in a table that came.
Entered: TypeAlias = Capability | Signal | Descriptor | Dataspace | SharedBuffer

# Of what a stranger calls a method, this much goes into errors.
_NAME_SHOWN = 64

# Of the names by which something was called, so many are remembered, of so many characters.
_NAMES_MAX, _NAME_SIZE = 256, 256


class UntypedCall(msgspec.Struct, frozen=True):
    """A call as it travels: given to :meth:`Forwarder.forward`, and made by :func:`forward`.

    Attributes:
        method: its name; ``"?"``: what can be called.
        payload: the arguments, in MessagePack, as they came.
        table: the capabilities and descriptors to which the payload refers by their places, in order.  Of a call that
            came, each is a :class:`Capability`, :class:`Signal`, :class:`Descriptor`, :class:`Dataspace` or
            :class:`SharedBuffer`; of one that is made, whatever can be an argument.
    """

    method: str
    payload: bytes
    table: list[Any] | tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"<UntypedCall of {name_shown(self.method.encode(errors='replace'))!r}, {_sizes(self)}>"


class UntypedResult(msgspec.Struct, frozen=True):
    """The result of a call as it travels.

    Attributes:
        payload: the result, in MessagePack.
        table: as of :class:`UntypedCall`; also objects that nobody manages may stand in one that is returned.
    """

    payload: bytes
    table: list[Any] | tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"<UntypedResult, {_sizes(self)}>"


def _sizes(of: UntypedCall | UntypedResult) -> str:
    """For a repr: what a payload says is for who decodes it, and for no log."""
    return f"{len(of.payload)} bytes, {len(of.table)} in its table"


class Untyped(Interface):
    """What a capability is cast to whose calls are untyped."""

    @method
    def forward(self, call: Capability) -> Capability:
        """Stands for any method."""


@functools.cache
def _template() -> Method:
    return Method(Untyped, "forward", Untyped.forward)


class UntypedMethod(Method):
    """Any method, of which nothing is known but its name.

    Its one argument is an :class:`UntypedCall`, and its result an :class:`UntypedResult`.

    Args:
        name: the method's, as it travels.
        where: what people call it; None: by its name.
        raises: the errors that are declared of who forwards it.
    """

    def __init__(self, name: bytes, where: str | None = None, raises: Sequence[type[Exception]] = ()) -> None:
        # What it has in common with others costs more to make than a call.
        vars(self).update(vars(_template()))
        self.wire_name, self.wire_size = name, pack_size(name)
        self.where = where or f"{name_shown(name)}()"
        self.raises = raises
        self.arguments_in_order = self.result_in_order = None
        # Mostly: where something stands in the table, that is told by the call, and by the result.
        self.arguments_are_data = True
        self.encode_data_arguments, self.read_data_result, self.data_of_result = _data_of_call, _read_data, _data_of
        # Of functions: what is of methods of its own would be a cycle in each call.
        self.decode_data_arguments = partial(_decode_data_call, name.decode())
        self.decode_arguments_after = _raise_again
        self.decode_arguments = partial(_decode_call, name, self.where)
        self.lend = partial(_lend, self.where)
        self.unsendable = partial(_unsendable, self.where)

    def encode_result(self, result: Any, outgoing: Outgoing) -> bytes:
        """The payload of a REPLY.

        Raises:
            TypeError: it is none; or something in its table cannot be sent.
        """
        if not isinstance(result, UntypedResult):
            raise TypeError(f"{self.where} returned {result!r}, where an UntypedResult is due")
        for thing in result.table:
            outgoing.add(thing)
        return _checked(result.payload)

    def decode_result(self, payload: memoryview, incoming: Incoming) -> UntypedResult:
        """The result of a REPLY.

        Raises:
            ArgumentError, StaleCapability: what stands in its table cannot be received.
        """
        return UntypedResult(bytes(payload), _entered(incoming, f"{self.where}, result"))

    def error_for(self, payload: memoryview, where: str, until: int) -> BaseException:
        """What is raised for a FAIL, which goes on as it came where it is let through."""
        error = super().error_for(payload, where, until)
        faults.carry(error, faults.read(payload))
        return error


def name_shown(name: bytes) -> str:
    """What a stranger calls a method, for people."""
    return printable(shortened(name[: 4 * _NAME_SHOWN].decode("utf-8", "backslashreplace"), _NAME_SHOWN))


def wire_name_of(call: UntypedCall) -> bytes:
    """The name of its method, as it travels.

    Raises:
        TypeError: it is no text.
        ValueError: none that can travel.
    """
    name = call.method.encode()
    if len(name) > METHOD_MAX:
        raise ValueError(f"a method's name of more than {METHOD_MAX} bytes")
    return name


def method_of(call: UntypedCall) -> UntypedMethod:
    """The method that it calls; raises as :func:`wire_name_of`."""
    name = call.method
    # Strangers choose them.
    if type(name) is str and len(name) <= _NAME_SIZE:
        return _remembered(name)
    return UntypedMethod(wire_name_of(call))


@functools.lru_cache(_NAMES_MAX)
def _remembered(name: str) -> UntypedMethod:
    return UntypedMethod(name.encode())


def _checked(payload: object) -> bytes:
    if not isinstance(payload, bytes):
        raise TypeError(f"a payload is bytes, not {payload!r:.100}")
    return payload


def _entered(incoming: Incoming, where: str) -> tuple[Entered, ...]:
    """What stands in a table that came."""
    made: list[Any] = []
    for index, entry in enumerate(incoming.entries):
        try:
            made.append(incoming.make(_kind_of(entry), index))
        except ArgumentError as error:
            raise ArgumentError(f"{where}, entry {index} of the table: {error}") from error
    return tuple(made)


def _kind_of(entry: Entry) -> type:
    """What is made of one.  What is no more than a descriptor may be anything: who decodes the payload looks at it."""
    if entry.badge != NO_BADGE:
        return Signal if entry.badge == SIGNAL_BADGE else Capability
    if entry.lease is not None:
        return SharedBuffer
    return Descriptor if entry.array is None else Dataspace


def _decode_data_call(name: str, payload: bytes | memoryview) -> tuple[UntypedCall]:
    """The arguments of a call with which nothing came but its payload."""
    return (UntypedCall(name, bytes(payload)),)


def _raise_again(
    error: Exception,
    payload: bytes | memoryview,  # noqa: ARG001 - as its like has it
    incoming: Incoming,  # noqa: ARG001 - likewise
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Any payload can be passed on: a signal handler has raised it."""
    raise error


def _data_of_call(given: Given) -> bytes:
    """The payload of a call in whose table nothing stands.

    Raises:
        TypeError: something does, or it is no payload: see :func:`_lend`.
    """
    call: Any
    (call,) = given
    if call.table:
        raise TypeError("more than data")
    return _checked(call.payload)


def _data_of(result: Any) -> bytes | None:
    """The payload of a result in whose table nothing stands; None of any other."""
    if type(result) is UntypedResult and not result.table and type(result.payload) is bytes:
        return result.payload
    return None


def _read_data(answer: object) -> UntypedResult:
    """The result of a REPLY with which nothing came but its payload.

    Raises:
        TypeError: it is another answer.
    """
    if type(answer) is not bytes:
        raise TypeError("more than data")
    return UntypedResult(answer)


def _decode_call(
    name: bytes, where: str, payload: bytes | memoryview, incoming: Incoming
) -> tuple[Sequence[Any], dict[str, Any]]:
    return (UntypedCall(name.decode(), bytes(payload), _entered(incoming, where)),), {}


def _lend(where: str, given: Given) -> Lent:
    """What a call is sent with."""
    call: Any
    (call,) = given
    outgoing = Outgoing()
    for place, thing in enumerate(call.table):
        try:
            outgoing.add(thing)
        except TypeError as error:
            raise ArgumentError(f"{where}, entry {place} of the table: {error}") from error
    return _checked(call.payload), outgoing.numbers, outgoing.entries or (), outgoing


def _unsendable(where: str, _given: Given, outgoing: Outgoing) -> ArgumentError | None:
    """Why the kernel refused to send a call with these descriptors; None if not for one of them."""
    refused = refused_of(outgoing.numbers)
    if refused is None:
        return None
    slot = outgoing.numbers.index(refused.number)
    place = next(place for place, entry in enumerate(outgoing.entries) if entry.slot == slot)
    return ArgumentError(f"{where}, entry {place} of the table cannot be sent: its descriptor is {refused.why}")
