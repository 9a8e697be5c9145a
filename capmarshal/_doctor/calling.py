"""What every call takes."""

from __future__ import annotations

import array
import os
import select
import socket
import threading
from typing import Final

import capmarshal as cm
from capmarshal._doctor.finding import Level
from capmarshal._doctor.probe import Lacking, Probe

_GROUP: Final = "calls"
_SECONDS: Final = 5.0


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def sockets() -> str:
    """A pair of sockets that keep records."""
    near, far = _pair()
    with near, far:
        near.sendmsg([b"ping"])
        if far.recvmsg(8)[0] != b"ping":
            raise Lacking("what is sent does not arrive")
    return "SEQPACKET"


def passing() -> str:
    """A descriptor arrives, and is the one that was sent."""
    near, far = _pair()
    reader, writer = os.pipe()
    try:
        with near, far:
            near.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer]))])
            data, control, flags, _ = far.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
            if not data or not control or flags & socket.MSG_CTRUNC:
                raise Lacking("the record arrives without its descriptor: a full table, or a security module")
            arrived = array.array("i", control[0][2][:4])[0]
            try:
                os.write(arrived, b"through")
            finally:
                os.close(arrived)
            if os.read(reader, 16) != b"through":
                raise Lacking("another descriptor arrives than was sent")
    finally:
        os.close(reader)
        os.close(writer)
    return "SCM_RIGHTS"


def polling() -> str:
    """A server's epoll set, and what wakes it."""
    woken = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        with select.epoll() as watched:
            watched.register(woken, select.EPOLLIN)
            os.eventfd_write(woken, 1)
            if not watched.poll(_SECONDS):
                raise Lacking("epoll does not tell of an eventfd")
    finally:
        os.close(woken)
    return "epoll, eventfd"


def threads() -> str:
    """A thread that begins."""
    begun = threading.Event()
    thread = threading.Thread(target=begun.set)
    try:
        thread.start()
    except RuntimeError as error:
        raise Lacking(str(error)) from None
    thread.join(_SECONDS)
    if not begun.is_set():
        raise Lacking(f"it does not begin in {_SECONDS:.0f} seconds")
    return "one more begins"


class _Doctor(cm.Interface):
    @cm.method
    def inode(self, file: cm.Descriptor) -> int: ...


class _DoctorServer(_Doctor):
    def inode(self, file: cm.Descriptor) -> int:
        return os.fstat(file.fileno()).st_ino


def call() -> str:
    """A whole call, served by a thread of this process, with a descriptor as its argument."""
    reader, writer = os.pipe()
    with cm.Descriptor(reader), cm.Descriptor(writer) as passed:
        with cm.timeout(_SECONDS), cm.Entrypoint("doctor", close_timeout=_SECONDS) as entrypoint:
            inode = entrypoint.manage(_DoctorServer()).cast(_Doctor).inode(passed)
        if inode != os.fstat(passed.fileno()).st_ino:
            raise Lacking("another descriptor arrives than was passed")
    return "answered, with a descriptor"


def memfds() -> str:
    """Memory that can be handed over and changed by nobody."""
    with cm.Dataspace.from_buffer(b"capmarshal") as data:
        if bytes(data.view()) != b"capmarshal":
            raise Lacking("it has other bytes than were put into it")
    return "made, sealed and mapped"


def waking() -> str:
    """As event loops are woken by other threads: by sendto(2), which send() is."""
    near, far = socket.socketpair()
    with near, far:
        near.send(b"\0")
    return "sendto"


PROBES: Final = (
    Probe(
        _GROUP,
        "sockets",
        sockets,
        Level.MISSING,
        "no call is made and none is served: this is all that calls stand on",
        "let a process make pairs of AF_UNIX sockets",
        call="socketpair, sendmsg, recvmsg",
    ),
    Probe(
        _GROUP,
        "passing descriptors",
        passing,
        Level.MISSING,
        "no capability and no open file reaches anybody",
        "look into the security module's log: `dmesg`, `ausearch -m avc`",
        call="sendmsg, recvmsg",
    ),
    Probe(
        _GROUP,
        "epoll",
        polling,
        Level.MISSING,
        "no entrypoint is made here; calls of others' objects go on",
        call="epoll_create1, epoll_ctl, epoll_pwait, eventfd2",
    ),
    Probe(
        _GROUP,
        "threads",
        threads,
        Level.MISSING,
        "cm.Entrypoint, which serves in a thread, can't; capmarshal.aio.Entrypoint serves, and what may block when it "
        "is closed is closed where it stands",
        "more processes for this user, `ulimit -u 4096`, or for this cgroup: pids.max, `docker run --pids-limit=-1`",
        call="clone, clone3",
    ),
    Probe(
        _GROUP,
        "a call",
        call,
        Level.MISSING,
        "nothing is served here: what is said of the others may tell why",
    ),
    Probe(
        _GROUP,
        "memfds",
        memfds,
        Level.LESS,
        "no Dataspace and no SharedBuffer: big data goes within calls, copied, up to max_bytes",
        "room in RLIMIT_FSIZE and RLIMIT_AS: `ulimit -f unlimited`, `ulimit -v unlimited`",
        call="memfd_create, mmap",
    ),
    Probe(
        _GROUP,
        "waking asyncio",
        waking,
        Level.LESS,
        "asyncio hangs where another thread wakes its loop, as by asyncio.to_thread(): use the blocking colour",
        call="sendto",
    ),
)
