"""What a FAIL says: errors on their way from server to client."""

from __future__ import annotations

import errno
import time
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from capmarshal._kernel.deadline import origin
from capmarshal._kernel.errors import (
    ArgumentError,
    CallTimeout,
    DescriptorsLost,
    Disconnected,
    Error,
    ProtocolError,
    Revoked,
    StaleCapability,
    TableFull,
    TooLarge,
    TooManyInFlight,
    UnknownMethod,
    shortened,
)
from capmarshal._kernel.native import FOREVER
from capmarshal._protocol.raised import MOST, Raised, anonymous, own_of, told, words_of
from capmarshal._protocol.rebuilt import rebuilt

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
    UNSENDABLE = 11
    LATE = 12
    REVOKED = 13
    UNREACHED = 14
    BROKEN_OFF = 15


# Bytes of a FAIL: what is said of an error, and the rest.
_MOST = MOST + (64 << 10)
# Characters of a message of ours: a peer's own words may be in it.
_MESSAGE_MAX = 10_000
# Nanoseconds by which clocks of event loops differ: the server may find that time is up before its caller does.
_COARSE = 2_000_000


class Fault(msgspec.Struct, array_like=True, frozen=True):
    """The payload of a FAIL.

    Attributes:
        code: what went wrong.
        message: in words; none of RAISED and DECLARED, whose error has its own.
        error: RAISED and DECLARED: what the method raised.
    """

    code: Code
    message: str
    error: Raised | None = None


class Failing(Exception):  # never leaves the package: becomes a FAIL
    """What ends a call that is no error of its method's.

    Attributes:
        code: what went wrong.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Fault)


def encode(fault: Fault) -> bytes:
    """The payload of a FAIL."""
    if len(fault.message) > _MESSAGE_MAX:
        fault = msgspec.structs.replace(fault, message=shortened(fault.message, _MESSAGE_MAX))
    return _encoder.encode(fault)


def raised(error: BaseException, declared: Sequence[type[BaseException]], brought: bytes = b"") -> Fault:
    """The fault for what a method raised.

    Args:
        error: any.
        declared: the errors that the method declares.
        brought: the payload of the call, see :func:`capmarshal._protocol.raised.told`.
    """
    if isinstance(error, tuple(declared)):
        return Fault(Code.DECLARED, "", told(error, brought))
    return Fault(Code.RAISED, "", anonymous(error))


def read(payload: memoryview) -> Fault | None:
    """What a FAIL says; None where nobody can read it."""
    try:
        return _decoder.decode(payload) if len(payload) <= _MOST else None
    except (ValueError, RecursionError):
        return None


# What an error of a call has that may be let through by who made it for another: the fault that it becomes again.
_CARRIED = "__capmarshal_fault__"

# What is said of calls, by the error that it becomes: of those without a `ran`, or with one that says "no".
_CODES: Sequence[tuple[type[Error], Code]] = (
    (ArgumentError, Code.ARGUMENT),
    (StaleCapability, Code.STALE),
    (UnknownMethod, Code.UNKNOWN_METHOD),
    (CallTimeout, Code.EXPIRED),
    (DescriptorsLost, Code.LOST),
    (TooLarge, Code.TOO_BIG),
    (TableFull, Code.TABLE_FULL),
    (TooManyInFlight, Code.IN_FLIGHT),
    (ProtocolError, Code.MALFORMED),
    (Revoked, Code.REVOKED),
    (Disconnected, Code.UNREACHED),
)
_RAN = {Code.EXPIRED: Code.LATE, Code.UNREACHED: Code.BROKEN_OFF}


def of_call(error: BaseException) -> Fault | None:
    """The fault that becomes an error again which was raised for a call, and not by its method; None: there is none."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    if code is None:
        return None
    if getattr(error, "ran", "no") != "no":
        if code not in _RAN:
            return None
        code = _RAN[code]
    return Fault(code, words_of(error))


def carry(error: BaseException, fault: Fault | None) -> None:
    """Has an error of a call become this fault where it is let through by who made the call for another."""
    if fault is not None:
        own_of(error).setdefault(_CARRIED, fault)


def carried_by(error: BaseException) -> Fault | None:
    """The fault that an error becomes where it is let through, if any."""
    carried = own_of(error).get(_CARRIED)
    return carried if isinstance(carried, Fault) else None


def forwarded(error: BaseException, declared: Sequence[type[BaseException]]) -> Fault | None:
    """The fault for what was raised by who makes calls for another; None: it is an error of its own.

    Args:
        error: any.
        declared: the errors that are declared of it.
    """
    return carried_by(error) or (of_call(error) if isinstance(error, tuple(declared)) else None)


def _as_raised(sent: Raised, declared: Sequence[type[BaseException]], where: str, by: str) -> BaseException:
    error = rebuilt(sent, declared)
    # Not by add_note(): a frozen dataclass refuses that.
    own_of(error).setdefault("__notes__", []).append(f"raised by {by}, in {where}")
    return error


def name_in(payload: memoryview) -> str:
    """What the error in a FAIL of our own is called, for the log."""
    fault = _decoder.decode(payload)
    return fault.error.classes[0] if fault.error is not None else type(to_exception(payload, (), "")).__qualname__


def _whose() -> str:
    """Whose deadline it was, for the text of an error; empty where that is not known, as of a scope that has moved."""
    within = origin()
    return f" ({within})" if within else ""


def _too_late(error: BaseException, where: str) -> CallTimeout:
    """What is said of a method that has raised something when time was up."""
    words = f"no result in time{_whose()}; the method ran, and raised {type(error).__qualname__}"
    late = CallTimeout(f"{where}: {words}", ran="maybe")
    late.__cause__ = error
    return late


def to_exception(
    payload: memoryview,
    declared: Sequence[type[BaseException]],
    where: str,
    until: int = FOREVER,
    by: str = "the server",
) -> BaseException:
    """What the client raises for a FAIL.

    Args:
        payload: of the record; hostile, for all we know.
        declared: the errors that the method declares.
        where: the method, as people write it, and its entrypoint.
        until: the deadline of the call, where what the method raises later may be raised for that.
        by: who has answered.
    """
    try:
        if len(payload) > _MOST:
            raise ValueError("more than a server may say of an error")
        fault = _decoder.decode(payload)
        if fault.error is not None:
            error = _as_raised(fault.error, declared if fault.code is Code.DECLARED else (), where, by)
            # Mostly not asked.
            in_time = until == FOREVER or time.monotonic_ns() < until - _COARSE
            return error if in_time else _too_late(error, where)
    except (ValueError, RecursionError):
        return ProtocolError(f"{where}: the server's error cannot be read")
    message = f"{where}: {fault.message}"
    match fault.code:
        case Code.EXPIRED:
            return CallTimeout(f"{message}{_whose()}", ran="no")
        case Code.LATE:
            return CallTimeout(f"{message}{_whose()}", ran="maybe")
        case Code.LOST:
            return DescriptorsLost(errno.EMFILE, message)
        case Code.TOO_BIG:
            return TooLarge(message)
        case Code.TABLE_FULL:
            return TableFull(errno.EMFILE, message)
        case Code.IN_FLIGHT:
            return TooManyInFlight(errno.ETOOMANYREFS, message)
        case Code.UNSENDABLE:
            return ArgumentError(f"{where}, result: {fault.message}")
        case Code.STALE:
            return StaleCapability(message)
        case Code.REVOKED:
            return Revoked(message)
        case Code.UNREACHED:
            return Disconnected(message, ran="no")
        case Code.BROKEN_OFF:
            return Disconnected(message, ran="maybe")
        case Code.UNKNOWN_METHOD:
            return UnknownMethod(message)
        case Code.ARGUMENT:
            # Says by itself where, as the server calls it.
            return ArgumentError(fault.message)
    return ProtocolError(message)
