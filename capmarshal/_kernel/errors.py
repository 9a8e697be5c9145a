"""The exception tree, and the one place where a negative errno becomes an exception.

Every error says what happened, whose limit it was where there is one, and what to do.  Each is a
:class:`Error` and also the builtin exception that a caller would catch who has never heard of capmarshal.
"""

from __future__ import annotations

import errno
import os
import resource
from typing import Final, Literal, TypeAlias

# What a filter or a security module says of a system call that it does not let pass.
DENIED: Final = (errno.EPERM, errno.EACCES, errno.ENOSYS)

# Whether the method ran: known not to have, or not known.
Ran: TypeAlias = Literal["no", "maybe"]


class Error(Exception):
    """The root of every error that capmarshal raises."""


class KernelError(Error, OSError):
    """A system call failed; ``errno`` says how, the message what it was for."""


class TableFull(KernelError):
    """This process's descriptor table (EMFILE), or the machine's (ENFILE), has no room for one more."""


class TooManyInFlight(KernelError):
    """ETOOMANYREFS: too many descriptors of one user were sent and not yet received."""


class Refused(KernelError, PermissionError):
    """A service does not let this process in: it says so, or the permissions of its socket do."""


class NotConfined(KernelError):
    """A process is not confined as it was asked for: the message says what is missing here, or in the way.

    Attributes:
        missing: the names of the parts that are missing, which ``Confinement(missing=...)`` does without.
    """

    def __init__(self, number: int, message: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(number, message)
        self.missing: tuple[str, ...] = missing


class RecordTooBig(KernelError):
    """EMSGSIZE: the bytes do not fit into one record of the socket."""


class TooLarge(Error, ValueError):
    """A call's arguments or its result are more than its entrypoint takes; the message says which maximum."""


class DescriptorsLost(KernelError):
    """A record arrived, and the kernel withheld some of its descriptors; those that came have been closed.

    Attributes:
        data: the bytes of the record, so that its sender can still be answered; empty where a call already was.
    """

    def __init__(self, number: int, message: str, data: bytes = b"") -> None:
        super().__init__(number, message)
        self.data = data


class MessageTruncated(KernelError):
    """A record was larger than the room for it; its descriptors have been closed, and its end is gone.

    Attributes:
        data: the bytes that did fit.
    """

    def __init__(self, number: int, message: str, data: bytes = b"") -> None:
        super().__init__(number, message)
        self.data = data


class Disconnected(Error, ConnectionError):
    """The other side is gone.

    Attributes:
        ran: ``"no"`` if the call was certainly never begun, so that repeating it is safe; ``"maybe"`` if its server
            may have begun or finished it, as where its method has raised this, of a call of its own.
    """

    def __init__(self, message: str, ran: Ran = "maybe") -> None:
        super().__init__(message)
        self.ran: Ran = ran


class CallTimeout(Error, TimeoutError):
    """A deadline passed.

    Attributes:
        ran: as in :class:`Disconnected`.
    """

    def __init__(self, message: str, ran: Ran = "maybe") -> None:
        super().__init__(message)
        self.ran: Ran = ran


class ArgumentError(Error, TypeError):
    """An argument or a result is not what the interface says; the message names method and parameter."""


class InterfaceError(Error, TypeError):
    """An interface is declared in a way that cannot work; raised when it is first used."""


class UnknownMethod(Error, AttributeError):
    """The object behind a capability has no such remote method."""


class StaleCapability(Error, LookupError):
    """The capability's badge selects no object: it was dissolved, or the badge was guessed."""


class Revoked(Error, PermissionError):
    """The server has taken back the grant that the capability came from: it is so for ever, and nothing has crashed.

    Attributes:
        ran: ``"no"``: a call that has begun before is answered.  ``"maybe"`` where the call's method has raised this,
            of a call of its own: the grant was that one's.
    """

    def __init__(self, message: str, ran: Ran = "no") -> None:
        super().__init__(message)
        self.ran: Ran = ran


class NoParent(Error, LookupError):
    """This process was given no capability when it was created, or can't use it; the message says why."""


class NotActivated(Error, LookupError):
    """This process was not given such a socket by what started it."""


class Closed(Error, OSError, ValueError):
    """The object was closed, detached or taken before; what it held is no longer there to use.

    Of a closed file Python says ValueError, of a closed socket OSError: it is both, as io.UnsupportedOperation is.

    Attributes:
        errno: EBADF, always.
    """

    # Of the class: its one argument is the message, however it was made, pickled or sent.
    errno: int | None = errno.EBADF


class ProtocolError(Error, ConnectionError):
    """The other side sent a record that capmarshal's protocol does not allow; a channel has been dropped."""


class RemoteError(Error):
    """The method raised an error that its interface does not declare.

    Attributes:
        type: the name of the exception's class, as the server knows it.
        message: its text.
    """

    def __init__(self, type: str, message: str) -> None:  # noqa: A002 - the public name of the attribute
        super().__init__(type, message)
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


# The system call that has something watched.
WATCHING = "epoll_ctl(2)"


def table_limit() -> str:
    """The size of this process's descriptor table, in words, and what helps."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where the hard limit is no higher, only who is privileged raises it.
    where = f"up to {hard} here" if hard > soft else "and the hard one, before the program is started"
    return f"descriptor table full ({soft} of {soft}, RLIMIT_NOFILE): close some, or raise that by ulimit -n, {where}"


def in_flight_limit() -> str:
    """Whose limit ETOOMANYREFS is, and what helps (unix(7); too_many_unix_fds() in net/core/scm.c)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"user {os.getuid()} has more descriptors in flight, over all its processes, than this process's soft "
        f"RLIMIT_NOFILE of {soft}: let the receivers receive, raise the limit, or run a flooding process as another "
        "user"
    )


def watches_limit() -> str:
    """Whose limit ENOSPC of epoll_ctl(2) is, and what helps (ep_insert() in fs/eventpoll.c)."""
    return (
        f"user {os.getuid()} has as much in epoll sets, over all its processes, as it may (sysctl "
        "fs.epoll.max_user_watches): end who takes it, raise the limit, or run what is not trusted as another "
        "user"
    )


def error_for(number: int, doing: str, calls: str = "") -> Error:
    """The exception for a failed system call.

    Args:
        number: the errno, positive.
        doing: what failed, as "sending a message".
        calls: where that can't be done without it: which system call failed, as "sendmsg(2)".
    """
    if number == errno.ENOSPC and calls == WATCHING:
        return KernelError(number, f"{doing}: {watches_limit()}")
    if number == errno.EMFILE:
        return TableFull(number, f"{doing}: {table_limit()}")
    if number == errno.ENFILE:
        return TableFull(
            number, f"{doing}: the machine's file table is full: close descriptors, or raise it (sysctl fs.file-max)"
        )
    if number == errno.ETOOMANYREFS:
        return TooManyInFlight(number, f"{doing}: {in_flight_limit()}")
    if number == errno.EMSGSIZE:
        return RecordTooBig(number, f"{doing}: larger than one record of this socket may be (SO_SNDBUF - 32)")
    if number in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED):
        return Disconnected(f"{doing}: {os.strerror(number)}", ran="no")
    if number in (errno.ETIMEDOUT, errno.EAGAIN):
        return CallTimeout(f"{doing}: the deadline passed", ran="no")
    refused = f": a filter or a security module refuses {calls}" if calls and number in DENIED else ""
    return KernelError(number, f"{doing}: {os.strerror(number)}{refused}")


def check(result: int, doing: str, calls: str = "") -> int:
    """Hands a system call's result through.

    Raises:
        Error: if it is a negative errno; see :func:`error_for`.
    """
    if result < 0:
        raise error_for(-result, doing, calls)
    return result


# What people call a class's module, before its name.  Of _io, and of pathlib._local, which CPython 3.13 has, no program
# knows.
_MODULES = {"builtins": "", "__main__": "", "_io": "io.", "pathlib._local": "pathlib."}


def name_of(cls: type) -> str:
    """A class as people know it: with its module, unless that is Python's own builtins, or the program itself."""
    return _MODULES.get(cls.__module__, f"{cls.__module__}.") + cls.__qualname__


def with_article(words: str) -> str:
    """Words for something, as "int" or "`int`", with "a" or "an" before them."""
    return f"{'an' if words.lstrip('`')[0] in 'aeiouAEIO' else 'a'} {words}"


# Characters of a text that a peer may have written, in an error, an answer or a line of the log.
WORDS_MAX = 1000


def shortened(words: str, most: int = WORDS_MAX) -> str:
    """What a peer may have written, as much of it as people read: of a long text the beginning and the end."""
    left_out = len(words) - most
    if left_out <= 0:
        return words
    end = most // 4
    return f"{words[: most - end]}... ({left_out} characters left out) ...{words[-end:]}"


def printable(words: str) -> str:
    """What a peer may have written, on one line, and nothing in it that a terminal obeys."""
    if words.isprintable():
        return words
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
