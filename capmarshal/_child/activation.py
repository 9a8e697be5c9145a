"""What a supervisor gives a service that it starts: sockets that listen already, and a place to say that it is ready.

It is systemd's protocol (sd_listen_fds(3), sd_notify(3)), which others speak too.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from itertools import chain, repeat

from capmarshal._descriptors import private
from capmarshal._descriptors.descriptor import in_one_step
from capmarshal._descriptors.private import Private
from capmarshal._kernel.deadline import after, seconds_until, words_for
from capmarshal._kernel.errors import CallTimeout, KernelError, NotActivated, error_for, shortened

# SD_LISTEN_FDS_START.
_FIRST = 3
# What a socket without a name is called, sd_listen_fds_with_names(3).
_NAMELESS = "unknown"
# Of a number of descriptors.
_DIGITS_MAX = 10

# Seconds that the supervisor's queue is waited for.
_PATIENCE = 5.0

# What says so in the environment.
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

# Those that were not asked for yet, with their names, once the first was; and something, while the variables are still
# there that tell of these.
_passed: list[tuple[str, Private]] = []
_taken: list[bool] = []


def _names() -> list[str] | None:
    """Of what this process was passed; None where nobody says that it was passed anything.

    Raises:
        NotActivated: the variables that say so cannot be read.
    """
    pid, count, names = (os.environ.get(name) for name in _VARIABLES)
    # What a process was passed that is not this one, as its parent, is none of this one's business: number 3 may be
    # anything here.  Nor is it where nobody says whom it was passed to, as sd_listen_fds(3) has it.
    if count is None or pid != str(os.getpid()):
        return None
    if not (count.isascii() and count.isdecimal()):
        raise NotActivated(f"LISTEN_FDS is a number, not {count!r}")
    # Nobody has passed more; Python makes no number of very many digits, and to look for that many would take for ever.
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if len(count) > _DIGITS_MAX or int(count) > most:
        raise NotActivated(f"LISTEN_FDS says more sockets than the {most} descriptors that this process may have")
    given = names.split(":") if names else [_NAMELESS] * int(count)
    if len(given) != int(count):
        raise NotActivated(f"LISTEN_FDS says {count} sockets, and LISTEN_FDNAMES has {len(given)} names")
    return given


def _take_over() -> None:
    """Takes what this process was passed, once: its own children find nothing.

    Raises:
        NotActivated: the variables that say so cannot be read.
    """
    if not _taken:
        if (names := _names()) is None:
            return
        numbers = {number: name for number, name in enumerate(names, _FIRST) if _is_kept(number)}
        owners = [(name, Private(-1)) for name in numbers.values()]
        owned = map(setattr, [owner for _, owner in owners], repeat("number"), numbers)
        # None of these has a number before the next line, which gives all of them theirs: Ctrl-C comes before, and the
        # next call does it, or after.
        _passed.extend(owners)
        in_one_step(chain(owned, map(_taken.append, (True,))))
    for name in _VARIABLES:
        os.environ.pop(name, None)
    _taken.clear()


def _is_kept(number: int) -> bool:
    """Has a descriptor that this process was passed not go on to children; whether there is one."""
    try:
        os.set_inheritable(number, False)
    except OSError:
        return False
    return True


def activated(name: str) -> socket.socket:
    """A socket that this process was passed by what started it, as systemd passes those of a ``.socket`` unit.

    The first call takes all of them: the variables that tell of them are removed, and nothing goes on to children.

    Args:
        name: ``FileDescriptorName=`` of the unit, which is the unit's own name unless it is said; each call gives
            the next one of that name.

    Returns:
        The socket: the caller's to close, or to pass to :meth:`Entrypoint.listen`, which takes it.

    Raises:
        NotActivated: there is none of that name, or there was, and it was asked for before.
        OSError: it is no socket, and closed.
    """
    with private.lock:
        _take_over()
        # No loop: Ctrl-C at its jump back would leave the lock held, from CPython 3.12 on.
        places = (place for place, (called, owner) in enumerate(_passed) if called == name and owner.number >= 0)
        place = next(places, None)
        if place is not None:
            with _passed[place][1].release() as descriptor:
                del _passed[place]
                return descriptor.socket()
        left = ", ".join(repr(called) for called, owner in _passed if owner.number >= 0)
    if left:
        which = f"there is none called {name!r}, but {left}"
    elif os.environ.get("LISTEN_FDS"):
        # This process's are taken out of the environment.
        whose = os.environ.get("LISTEN_PID")
        said = "is not set" if whose is None else f"says {shortened(repr(whose), _DIGITS_MAX)}"
        which = f"there is none for process {os.getpid()}, and LISTEN_PID, which is to say that there is, {said}"
    else:
        which = "there is none, or none any more"
    raise NotActivated(f"{which}: a socket unit of systemd's, or systemd-socket-activate, passes one (LISTEN_FDS)")


def notify_ready(timeout: float | None = None) -> None:
    """Tells what started this process that it serves: ``READY=1``, which systemd awaits of ``Type=notify``.

    Does nothing where nobody wants to know (NOTIFY_SOCKET is not set).

    Args:
        timeout: seconds; None leaves it to :func:`capmarshal.timeout`, and is 5 seconds at most.

    Raises:
        CallTimeout: the queue of who wants to know stayed full.
        KernelError: it could not be told.
    """
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return
    doing = f"telling {where!r} (NOTIFY_SOCKET) that this service is ready"
    if where[0] not in "/@":
        raise KernelError(errno.EAFNOSUPPORT, f"{doing}: it is no socket of AF_UNIX")
    deadline = after(_PATIENCE if timeout is None else timeout)
    address = f"\0{where[1:]}" if where[0] == "@" else where
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.settimeout(seconds_until(deadline))
            notifier.sendto(b"READY=1", address)
    except (TimeoutError, BlockingIOError):
        raise CallTimeout(f"{doing}: its queue stayed full {words_for(timeout, deadline)}", ran="no") from None
    except OSError as error:
        raise error_for(error.errno or errno.EIO, doing) from None
