"""What a FAIL says: errors on their way from server to client."""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._kernel.deadline import origin
from capmarshal._kernel.errors import (
    ArgumentError,
    CallTimeout,
    DescriptorsLost,
    Error,
    ProtocolError,
    RemoteError,
    StaleCapability,
    TableFull,
    TooLarge,
    TooManyInFlight,
    UnknownMethod,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class Code(IntEnum):
    """What went wrong."""

    RAISED = 0
    DECLARED = 1
    ARGUMENT = 2
    STALE = 3
    UNKNOWN_METHOD = 4
    EXPIRED = 5
    LOST = 6
    TOO_BIG = 7
    TABLE_FULL = 8
    IN_FLIGHT = 9
    MALFORMED = 10


class Fault(msgspec.Struct, array_like=True, frozen=True):
    """The payload of a FAIL.

    Attributes:
        code: what went wrong.
        message: in words.
        type: RAISED and DECLARED: the exception's class.
        declared: DECLARED: its place among the errors that the method declares.
        arguments: DECLARED: the exception's ``args``.
    """

    code: Code
    message: str
    type: str = ""
    declared: int = 0
    arguments: list[Any] = []


# Characters of an error's text: it shall fit into a record, whatever a library put into it.
_WORDS_MAX = 10_000

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Fault)


def encode(fault: Fault) -> bytes:
    """The payload of a FAIL."""
    return _encoder.encode(fault)


def _words(error: BaseException) -> str:
    """An exception's text, without the path that the text of an OSError ends in.

    Whatever the exception is: these words answer the call that raised it.
    """
    try:
        words = (
            f"[Errno {error.errno}] {error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
        )
    except Exception as worse:  # noqa: BLE001 - a __str__ or __repr__ of the user's may raise anything
        words = f"(its text cannot be had: {type(worse).__qualname__})"
    # Names of files that are no UTF-8 come as lone surrogates, which msgspec refuses.
    return words[:_WORDS_MAX].encode("utf-8", "backslashreplace").decode()


def raised(error: BaseException, declared: Sequence[type[BaseException]]) -> Fault:
    """The fault for what a method raised."""
    name, words = type(error).__qualname__, _words(error)
    for place, kind in enumerate(declared):
        if isinstance(error, kind):
            fault = Fault(Code.DECLARED, words, name, place, list(error.args))
            try:
                encode(fault)
            except Exception:  # noqa: BLE001 - whatever a class among them raises when it is asked for its fields
                fault = Fault(Code.DECLARED, words, name, place, [words])
            return fault
    return Fault(Code.RAISED, words, name)


def _declared_error(fault: Fault, declared: Sequence[type[BaseException]], where: str) -> BaseException:
    if not 0 <= fault.declared < len(declared):
        return RemoteError(fault.type, fault.message)
    kind = declared[fault.declared]
    try:
        try:
            error = kind(*fault.arguments)
        except Exception:  # noqa: BLE001 - an __init__ of the class's own may want other arguments, and raise anything
            error = kind.__new__(kind)
            error.args = tuple(fault.arguments)
    except Exception:  # noqa: BLE001 - and so may a __new__
        return RemoteError(fault.type, fault.message)
    error.add_note(f"raised by the server, in {where}")
    return error


def to_exception(payload: memoryview, declared: Sequence[type[BaseException]], where: str) -> BaseException:
    """What the client raises for a FAIL.

    Args:
        payload: of the record; hostile, for all we know.
        declared: the errors that the method declares.
        where: the method, as people write it.
    """
    try:
        fault = _decoder.decode(payload)
    except (ValueError, RecursionError):
        return ProtocolError(f"{where}: the server's error cannot be read")
    message = f"{where}: {fault.message}"
    match fault.code:
        case Code.RAISED:
            return RemoteError(fault.type, fault.message)
        case Code.DECLARED:
            return _declared_error(fault, declared, where)
        case Code.EXPIRED:
            return CallTimeout(f"{message} ({origin()})", ran="no")
        case Code.LOST:
            return DescriptorsLost(errno.EMFILE, message)
        case Code.TOO_BIG:
            return TooLarge(message)
        case Code.TABLE_FULL:
            return TableFull(errno.EMFILE, message)
        case Code.IN_FLIGHT:
            return TooManyInFlight(errno.ETOOMANYREFS, message)
    # These say by themselves where.
    plain: dict[Code, type[Error]] = {
        Code.ARGUMENT: ArgumentError,
        Code.STALE: StaleCapability,
        Code.UNKNOWN_METHOD: UnknownMethod,
    }
    return plain.get(fault.code, ProtocolError)(fault.message)
