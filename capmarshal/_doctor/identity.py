"""How sockets are told apart, and who is known to have knocked."""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import struct
import uuid
from typing import Final

from capmarshal._doctor import reasons
from capmarshal._doctor.finding import Level
from capmarshal._doctor.probe import Lacking, Probe
from capmarshal._kernel.native import lib

_GROUP: Final = "who is who"

# include/uapi/asm-generic/socket.h, linux/fcntl.h, linux/kcmp.h; CPython has no names for them.
_SO_COOKIE, _SO_PASSPIDFD, _SO_PASSRIGHTS = 57, 76, 83
_SCM_PIDFD = 4
_F_DUPFD_QUERY, _KCMP_FILE = 1027, 0
# pid, uid and gid of a sender: struct ucred.
_CREDENTIALS: Final = struct.Struct("iII")


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def cookie() -> str:
    """The kernel's own identity of a socket: two have two."""
    near, far = _pair()
    with near, far:
        told = {end.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8) for end in (near, far)}
    if len(told) != 2:
        raise Lacking("two sockets have the same one")
    return "told"


def kind() -> str:
    """What a socket is, asked of the kernel."""
    near, far = _pair()
    with near, far:
        told = [near.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_DOMAIN, socket.SO_TYPE)]
    if told != [socket.AF_UNIX, socket.SOCK_SEQPACKET]:
        raise Lacking("it is said to be what it is not")
    return "told"


def comparing() -> str:
    """Whether two descriptors are the same open file: of a copy, and of another one."""
    near, far = _pair()
    with near, far, near.dup() as copy:
        query = lib.lx_fcntl(near.fileno(), _F_DUPFD_QUERY, copy.fileno())
        if query == 1 and lib.lx_fcntl(near.fileno(), _F_DUPFD_QUERY, far.fileno()) == 0:
            return "F_DUPFD_QUERY"
        same = lib.lx_kcmp(os.getpid(), os.getpid(), _KCMP_FILE, near.fileno(), copy.fileno())
    if same == 0:
        return "kcmp(2), which does as well as F_DUPFD_QUERY of Linux 6.10"
    why = errno.errorcode.get(-same, "they are said to be different")
    raise Lacking(f"neither F_DUPFD_QUERY nor kcmp(2): {why}", mend="Linux 6.10 or later, or a filter that allows kcmp")


def names() -> str:
    """A name for one end, which the other end tells."""
    near, far = _pair()
    with near, far:
        name = f"\0capmarshal/doctor/{uuid.uuid4().hex[:16]}"
        far.bind(name)
        if near.getpeername() != name.encode():
            raise Lacking("getpeername(2) tells another")
    return "bind, getpeername"


def credentials() -> str:
    """Who has sent a record: process and user."""
    near, far = _pair()
    with near, far:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        near.sendmsg([b"."])
        _, control, _, _ = far.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
    told = [data for _, what, data in control if what == socket.SCM_CREDENTIALS]
    if not told:
        raise Lacking("none come with a record")
    pid, uid, _ = _CREDENTIALS.unpack(told[0][: _CREDENTIALS.size])
    if (pid, uid) != (os.getpid(), os.getuid()):
        raise Lacking(f"they say process {pid} of user {uid}, and it is {os.getpid()} of {os.getuid()}")
    return f"SO_PASSCRED: process {pid}, user {uid}"


def process_by_knock() -> str:
    """A descriptor of the process that has sent a record, by which processes are told apart."""
    near, far = _pair()
    with near, far, select.epoll() as other:
        far.setsockopt(socket.SOL_SOCKET, _SO_PASSPIDFD, 1)
        near.sendmsg([b"."])
        _, control, flags, _ = far.recvmsg(1, socket.CMSG_SPACE(4))
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        told = [array.array("i", data[:4])[0] for _, what, data in control if what == _SCM_PIDFD]
        if not told or told[0] < 0:
            raise Lacking("none comes with a record")
        try:
            # Before pidfs, all of them share one inode, and epoll sets have it too.
            is_own = os.fstat(told[0]).st_ino != os.fstat(other.fileno()).st_ino
        finally:
            os.close(told[0])
    if not is_own:
        raise Lacking("SO_PASSPIDFD, but pidfds have no identity (pidfs)", mend="Linux 6.9 or later")
    return "SO_PASSPIDFD, pidfs"


def process_by_number() -> str:
    """A descriptor of a process, by which its end is noticed."""
    number = os.pidfd_open(os.getpid())
    try:
        if select.select([number], [], [], 0)[0]:
            raise Lacking("it says that a process has ended that has not")
    finally:
        os.close(number)
    return "pidfd_open"


def refusing_rights() -> str:
    """A socket that takes no descriptors."""
    near, far = _pair()
    with near, far:
        off = struct.pack("i", 0)
        result = lib.lx_setsockopt(far.fileno(), socket.SOL_SOCKET, _SO_PASSRIGHTS, off, len(off))
        reasons.checked(result)
        try:
            near.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [near.fileno()]))])
        except PermissionError:
            return "a socket of yours may refuse all descriptors"
    raise Lacking("it is set, and a descriptor is sent all the same")


PROBES: Final = (
    Probe(
        _GROUP,
        "SO_COOKIE",
        cookie,
        Level.LESS,
        "doors are known by their inodes, and compared: two system calls more for each capability that is received",
        call="getsockopt",
    ),
    Probe(
        _GROUP,
        "SO_DOMAIN, SO_TYPE",
        kind,
        Level.LESS,
        "a socket.socket can't be received (take a cm.Descriptor), nobody listens, and another thread closes those "
        "sockets that were received",
        call="getsockopt",
    ),
    Probe(
        _GROUP,
        "comparing descriptors",
        comparing,
        Level.LESS,
        "nothing, where SO_COOKIE is told; else each receipt of a capability is one descriptor more, and one that "
        "comes home is called as any other",
        call="kcmp",
    ),
    Probe(
        _GROUP,
        "names of doors",
        names,
        Level.LESS,
        "labels and names are empty, here or of the doors that are made here: logs and `ss -xap` say less",
        call="bind, getpeername",
    ),
    Probe(
        _GROUP,
        "who knocks",
        credentials,
        Level.LESS,
        "all clients are one process to cm.Limits and the log, and cm.caller() knows nobody: give each client that you "
        "don't trust an entrypoint of its own",
        call="setsockopt",
    ),
    Probe(
        _GROUP,
        "pidfds of who knocks",
        process_by_knock,
        Level.LESS,
        "clients are told apart by process ID: those of other pid namespaces are all process 0, and share its limits",
        call="setsockopt",
        since="6.9",
    ),
    Probe(
        _GROUP,
        "pidfds",
        process_by_number,
        Level.LESS,
        "that a client has died is noticed when its sockets are closed, which a child of its may keep open; "
        "cm.aio.spawn() waits for a child by asking again and again",
        call="pidfd_open",
        since="5.3",
    ),
    Probe(
        _GROUP,
        "SO_PASSRIGHTS",
        refusing_rights,
        Level.NOTE,
        "nothing: a socket of yours can't refuse descriptors, which the package never asks for",
        call="setsockopt",
        since="6.16",
    ),
)
