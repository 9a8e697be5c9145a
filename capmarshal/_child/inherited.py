"""What this process was given when it was created: a capability that waits in a socket that it inherited.

The environment says which descriptor that is, and which socket, so that a number which has become another's is told; or
it is standard input, where a handover is found without being told of.  Neither is a secret: the badge is in the socket
alone.  The capability is taken when capmarshal is imported, and goes no further: the variable is removed, and so is
the socket.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import sys
from typing import TYPE_CHECKING

from capmarshal._capabilities.handover import receive_capability, waits_in
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._kernel.errors import Disconnected, Error, KernelError, NoParent
from capmarshal._kernel.native import NOW, lib

if TYPE_CHECKING:
    from capmarshal._capabilities.capability import Capability

VARIABLE = "CAPMARSHAL_PARENT"
# For `python -X`: nothing is taken when this is imported.
NOT_YET = "capmarshal_not_yet"
STDIN = 0
# Characters: of two numbers of 64 bits, and more.
_TOLD_MAX = 64
# include/uapi/asm-generic/socket.h; Python has no name for it.
_SO_PEEK_OFF = 42

_NOTHING = (
    "this process inherited no capability: capmarshal.spawn() starts one that does, with parent_as_stdin=True also "
    "where the environment is cleared on the way"
)
_LOST = (
    "the socket in which a capability waited for this process is not there any more: another interpreter of this "
    "process has taken it, or a program in between has closed descriptor {}, as launchers do with all from 3 up; "
    "spawn(..., parent_as_stdin=True) passes it as standard input"
)
_REPLACED = "a capability waited for this process in its standard input, which a program in between has replaced"
_TAKEN = (
    "the capability that this process inherited was taken before, by another process that inherited the same socket"
)
_USELESS = "the capability that this process inherited could not be taken: {}"

_parent: Capability | None = None
_why_none = _NOTHING


def told_of(number: int, *, as_stdin: bool) -> str:
    """What the environment of a child says of the socket that it inherits, under that number or as standard input."""
    return f"{STDIN if as_stdin else number}:{os.fstat(number).st_ino}"


def parent() -> Capability:
    """The capability that this process was given when it was created; the same object each time.

    By :func:`spawn`; or by any program that has put it into a SEQPACKET socket, with :func:`send_capability`, and made
    that this process's standard input.

    Raises:
        NoParent: it was given none, or can't use it; the message says why.
    """
    if _parent is None:
        raise NoParent(_why_none)
    return _parent


def _is_socket(number: int, inode: int | None = None) -> bool:
    """Whether a descriptor is a socket, and that one."""
    try:
        status = os.fstat(number)
    except (OSError, OverflowError):
        return False
    return stat.S_ISSOCK(status.st_mode) and inode in (status.st_ino, None)


def _numbers_in(told: str) -> tuple[int, int] | None:
    """The descriptor and the inode that the environment tells of; None where it says something else."""
    number, colon, inode = told.partition(":")
    # Python makes no number of very many digits.
    if not (colon and number.isdecimal() and inode.isdecimal() and told.isascii() and len(told) <= _TOLD_MAX):
        return None
    return int(number), int(inode)


def _take(number: int) -> tuple[Capability | None, str]:
    """The capability that waits in a socket; or None, and why."""
    try:
        return receive_capability(number, 0), ""
    except Disconnected:
        return None, _TAKEN
    except KernelError as error:
        return None, _USELESS.format(error.strerror)
    except (Error, TypeError) as error:
        return None, _USELESS.format(error)


def _waits_in_stdin() -> bool:
    """Whether standard input is a socket in which a handover waits.  Nothing is changed of one that is something else.

    Neither what its reader is to be told, which the kernel reports but once, nor where he peeks (SO_PEEK_OFF).
    """
    if not _is_socket(STDIN) or lib.cm_wait(STDIN, select.POLLIN, NOW) & ~select.POLLHUP != select.POLLIN:
        return False
    family, kind = lib.cm_socket_option(STDIN, socket.SO_DOMAIN), lib.cm_socket_option(STDIN, socket.SO_TYPE)
    # An error is negative: a filter does not let that be asked.
    ours = (family < 0 or family == socket.AF_UNIX) and (kind < 0 or kind == socket.SOCK_SEQPACKET)
    return ours and lib.cm_socket_option(STDIN, _SO_PEEK_OFF) < 0 and waits_in(STDIN)


def _inherit() -> tuple[Capability | None, str]:
    """Takes over what this process was given; or None, and why there is nothing."""
    told = os.environ.pop(VARIABLE, None)
    numbers = _numbers_in(told) if told is not None else None
    if numbers is not None and numbers[0] != STDIN and _is_socket(*numbers):
        number = numbers[0]
        os.set_inheritable(number, False)
        taken = _take(number)
        if taken[0] is not None:
            # Not by the reaper's thread, at every start: what else may be in it is from whoever has made this process.
            Descriptor(number).close()
        return taken
    if _waits_in_stdin():
        # It stays open: whoever reads it finds that it has ended.
        return _take(STDIN)
    if numbers is None:
        return None, _NOTHING
    if numbers[0] != STDIN:
        return None, _LOST.format(numbers[0])
    return None, _TAKEN if _is_socket(*numbers) else _REPLACED


def inherit() -> None:
    """Takes it over: when capmarshal is imported, or, by the launcher, when it has confined this process."""
    global _parent, _why_none
    _parent, _why_none = _inherit()


if NOT_YET not in sys._xoptions:  # noqa: SLF001 - that is its name
    inherit()
