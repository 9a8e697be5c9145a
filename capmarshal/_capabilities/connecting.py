"""Connecting to a service that runs already: who may connect is handed a capability."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import time
from typing import TYPE_CHECKING

from capmarshal._capabilities.handover import NOTHING, receiving
from capmarshal._capabilities.space import space
from capmarshal._descriptors import private, reaper
from capmarshal._descriptors.socket_paths import address_to_connect, checked_path, words_for
from capmarshal._kernel.deadline import after, ahead, seconds_until
from capmarshal._kernel.deadline import words_for as words_for_time
from capmarshal._kernel.errors import (
    CallTimeout,
    Disconnected,
    Error,
    KernelError,
    ProtocolError,
    Refused,
    TooManyInFlight,
    error_for,
)
from capmarshal._kernel.native import FOREVER, NOW, lib
from capmarshal._kernel.waiting import AT_A_TIME, Backoff, Patience, drive

if TYPE_CHECKING:
    from capmarshal._capabilities.capability import Capability
    from capmarshal._descriptors.private import Private
    from capmarshal._descriptors.socket_paths import StrOrBytesPath
    from capmarshal._kernel.waiting import Steps

_TIMEVAL = struct.Struct("@ll")
_MICROSECONDS = 1_000_000


def connect(path: StrOrBytesPath, timeout: float | None = None) -> Capability:
    """The capability that a service hands over to whoever may connect: see :meth:`Entrypoint.listen`.

    Args:
        path: of the service's socket.
        timeout: seconds; 0 does not wait, None leaves it to :func:`capmarshal.timeout`.

    Raises:
        Refused: the permissions of the socket, or the service, do not let this process in.
        Disconnected: there is no such file, nobody listens there, or who did has gone; another time it may be there.
        CallTimeout: the service has not answered.
        TooManyInFlight: it hands nothing over for now, for what it has handed over waits to be taken.
        ProtocolError: it is no service of capmarshal's, or of another version.
        KernelError: what is there is no socket, or anything else that connect(2) says.
        TableFull: no room in the descriptor table.
        TypeError: it is no path.
        ValueError: it names no file, or it is no time to wait.
        RuntimeError: the service is of this process, and is to answer in this very thread.
    """
    return drive(connecting(path, timeout, blocks=True))


def connecting(path: StrOrBytesPath, timeout: float | None, *, blocks: bool) -> Steps[Capability]:
    """As :func:`connect`, in steps.

    Args:
        path: likewise.
        timeout: likewise.
        blocks: where as many wait as may, connect(2) itself may wait.
    """
    named = checked_path(path)
    deadline = after(timeout)
    if (home := space.listener_at(named)) is not None:
        why = home.never_while_blocked("aio.connect(...)") if blocks else home.never_while_awaited()
        if why:
            raise RuntimeError(f"connecting to {words_for(named)} {why}")
    patience = Patience(deadline)
    busy: TooManyInFlight | None = None
    while True:
        try:
            made = yield from private.socket_made(f"connecting to {words_for(named)}")
            with reaper.closing(made) as connection:
                yield from _connect(connection, named, deadline, timeout, blocks)
                return (yield from _receive(connection, named, deadline, timeout))
        except TooManyInFlight as error:
            busy = error
            if not (yield from patience.wait(-1, 0)):
                raise
        except CallTimeout:
            if busy is not None:
                # The service has said what it lacks; that there was no time to say so again is no news.
                raise busy from None
            raise


def _connect(connection: Private, path: bytes, deadline: int, timeout: float | None, blocks: bool) -> Steps[None]:
    backoff = Backoff(deadline)
    while True:
        # For so long does connect(2) wait where as many wait as may.
        _set_patience(connection, min(deadline, ahead(AT_A_TIME)) if blocks else NOW)
        with address_to_connect(path) as address:
            result = lib.lx_connect(connection.number, address, len(address))
        if result == 0:
            return
        if result == -errno.EAGAIN:
            if time.monotonic_ns() < deadline if blocks else (yield from backoff.wait(-1, 0)):
                continue
            when = words_for_time(timeout, deadline)
            raise CallTimeout(f"connecting to {words_for(path)}: too many others wait there {when}", ran="no")
        if result != -errno.EINTR:
            raise _failure(-result, path)


def _failure(number: int, path: bytes) -> Error:
    """The error for what connect(2) says of a path."""
    doing = f"connecting to {words_for(path)}"
    match number:
        case errno.ENOENT:
            return Disconnected(f"{doing}: there is no such file: its service has not begun, or has ended", ran="no")
        case errno.ECONNREFUSED if not _is_socket(path):
            return KernelError(errno.ENOTSOCK, f"{doing}: it is no socket")
        case errno.ECONNREFUSED:
            return Disconnected(f"{doing}: nobody listens there: its service has ended, or is about to begin", ran="no")
        case errno.EACCES | errno.EPERM:
            whose = "its permissions, or those of a directory on the way"
            return Refused(number, f"{doing}: {whose}, keep user {os.geteuid()} out")
        case errno.EPROTOTYPE:
            return ProtocolError(f"{doing}: it is no service of capmarshal's: its socket is not SEQPACKET")
    return error_for(number, doing)


def _is_socket(path: bytes) -> bool:
    """Whether a file is a socket: of others connect(2) says that nobody listens there; also where it can't be told."""
    with contextlib.suppress(OSError):
        return stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116 - pathlib is slow to import
    return True


def _set_patience(connection: Private, deadline: int) -> None:
    os.set_blocking(connection.number, deadline != NOW)
    if deadline == NOW:
        return
    # A time of 0 would be for ever (socket(7)).
    left = max(int(seconds_until(deadline) * _MICROSECONDS), 1)
    value = _TIMEVAL.pack(*divmod(left, _MICROSECONDS))
    lib.lx_setsockopt(connection.number, socket.SOL_SOCKET, socket.SO_SNDTIMEO, value, len(value))


def _receive(connection: Private, path: bytes, deadline: int, timeout: float | None) -> Steps[Capability]:
    """What the service hands over, once there is a connection."""
    doing = f"connected to {words_for(path)}, and"
    try:
        return (yield from receiving(connection, seconds_until(deadline) if deadline != FOREVER else None))
    except CallTimeout:
        why = "its service is busy, or stopped, or not served yet"
        when = words_for_time(timeout, deadline)
        raise CallTimeout(f"{doing} nothing was handed over {when}: {why}", ran="no") from None
    except Disconnected as error:
        said = str(error).startswith(NOTHING)
        gone = str(error) if said else "the service has ended, or hung up, and handed nothing over"
        raise Disconnected(f"{doing} {gone}", ran="no") from None
    except TooManyInFlight as error:
        raise TooManyInFlight(errno.ETOOMANYREFS, f"{doing} {error.strerror}") from None
    except Refused as error:
        raise Refused(errno.EACCES, f"{doing} {error.strerror}") from None
    except ProtocolError as error:
        raise ProtocolError(f"{doing} it is no service that this version of capmarshal can use: {error}") from None
