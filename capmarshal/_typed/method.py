"""A remote method: how its calls and results become bytes, and back.  The annotations are the check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capmarshal._kernel.errors import ArgumentError, Error, InterfaceError, StaleCapability
from capmarshal._protocol.wire import pack_size
from capmarshal._typed.arguments import BAD_PAYLOAD, Arguments, words_of_failure
from capmarshal._typed.codec import data_decoder_for, decoder_for, encoder_for
from capmarshal._typed.declaration import Declaration, declared_in, refuse_forgotten
from capmarshal._typed.fitting import check_data, due_for

if TYPE_CHECKING:
    from capmarshal._typed.table import Incoming, Outgoing

# The methods of a class, analysed: in its own namespace, so that they go with it.
_METHODS = "__capmarshal_methods__"


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
        given, encode_arguments, unsendable, decode_arguments: see :class:`Arguments`.
        decode_data_arguments, decode_data_result: payload to values, if they are data; raise anything that msgspec
            raises, and KeyError.
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
        self._decode_result = decoder_for(declared.result)
        self._encode_result = encoder_for(declared.result)
        self._result, self._due = declared.result, None if self.result_is_data else due_for(declared.result)
        self.decode_data_result = data_decoder_for(declared.result)
        arguments = Arguments(declared, getattr(of or interface, name, function))
        self.given, self.encode_arguments, self.decode_arguments = arguments.given, arguments.encode, arguments.decode
        self.unsendable = arguments.unsendable
        self.decode_data_arguments = arguments.decode_data
        by_name = any(p.kind is p.KEYWORD_ONLY for p in self.parameters)
        self.is_data = self.arguments_are_data and self.result_is_data and not by_name

    def encode_result(self, result: Any, outgoing: Outgoing) -> bytes:
        """The payload of a REPLY.

        Raises:
            ArgumentError: something in it cannot be sent.
        """
        try:
            payload = self._encode_result(result, outgoing)
            # Not before: what has descriptors is in the table now, and so is closed with the call, sent or not.
            if self._due is not None:
                self._due.count(result)
            elif self.result_is_data and outgoing.entries:
                check_data(result, self._result)
        except (*BAD_PAYLOAD, Error) as error:
            raise self._failure(error) from error
        return payload

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
            raise StaleCapability(f"{self.where}, result: {stale}") from None
        except Exception as error:  # a __post_init__ of the user's may raise anything for what a peer sends
            # msgspec makes its own error of it, since every InterfaceError is a TypeError.
            if isinstance(error.__cause__, InterfaceError):
                raise error.__cause__ from None
            raise self._failure(error) from error
        return decoded

    def _failure(self, error: Exception) -> ArgumentError:
        return ArgumentError(f"{self.where}, result: {words_of_failure(error)}")


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
