"""What a neighbour can do to a server: a table."""

import contextlib
import functools
import os
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import capmarshal as cm
from bench.neighbours import raw
from bench.neighbours.neighbour import Neighbour

_MIB, _PATIENCE = 1 << 20, 30.0
# include/net/scm.h: SCM_MAX_FD
_MOST = 253
# The other ends of what lingers.
_peers: list[socket.socket] = []


class Load(NamedTuple):
    """One of them.

    Attributes:
        words: what it does.
        once: one call of it, or what stands for one; the server is through with it when this returns.
        go_on: does it until it is over.
        other_user: of another user than the server, where root measures.
    """

    words: str
    once: Callable[[Neighbour], object]
    go_on: Callable[[Neighbour], None]
    other_user: bool = False


def _calls(words: str, once: Callable[[Neighbour], object], threads: int) -> Load:
    return Load(words, once, lambda its: its.repeat(lambda: once(its), threads))


def _knocks(words: str, knock: Callable[[Neighbour], object]) -> Load:
    """There is no answer to wait for, but that to a call that comes after it."""
    return Load(words, lambda its: (knock(its), _add(its)), lambda its: its.repeat(lambda: knock(its)))


def _add(its: Neighbour) -> object:
    return its.shared.add(1, 2)


def _fail(its: Neighbour) -> object:
    with contextlib.suppress(cm.RemoteError):
        its.shared.nap(-1.0)
    return None


def _say(its: Neighbour, records: list[bytes]) -> object:
    """On a channel of its own."""
    with its.door.knock() as near, contextlib.suppress(ConnectionError):
        for record in records:
            raw.send(near, record)
    return its.shared.add(1, 2)


@functools.cache
def _memfds() -> list[cm.Descriptor]:
    return [cm.Descriptor(os.memfd_create("sent", os.MFD_CLOEXEC)) for _ in range(_MOST)]


@functools.cache
def _files_and_pipes() -> list[cm.Descriptor]:
    files: list[cm.Descriptor] = []
    while len(files) < _MOST - 2:
        with tempfile.TemporaryFile() as file:
            files.append(cm.Descriptor(os.dup(file.fileno())))
        files += [cm.Descriptor(number) for number in os.pipe()]
    return files


@functools.cache
def _null() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def _lingering() -> int:
    """A unix socket, in whose queue lies a TCP socket whose last close takes a second."""
    near, far = socket.socketpair()
    with near, socket.create_server(("127.0.0.1", 0)) as listener:
        # Soon full.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with socket.create_connection(listener.getsockname()) as sender:
            _peers.append(listener.accept()[0])
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.send(bytes(65536), socket.MSG_DONTWAIT)
            raw.send(near, b".", [sender.fileno()])
    return far.detach()


def _send_lingering(its: Neighbour) -> object:
    """By hand, so that the server's close is the last."""
    ends = [_lingering() for _ in range(8)]
    with its.door.knock() as near:
        raw.send(near, its.door.call(b"take", b"\x92\xc4\x00\x98" + bytes(range(8)), 8), ends)
        for end in ends:
            os.close(end)
        near.settimeout(_PATIENCE)
        answered = near.recv(4096)
    while len(_peers) > 256:
        _peers.pop(0).close()
    return answered


def _die(its: Neighbour) -> None:
    """A child queues ten calls of 5 ms on each of 50 channels, and is killed."""
    record = its.door.call(b"nap", b"\x91\xcb" + struct.pack(">d", 0.005))
    (hear, tell), (wait, hold) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hold)
        with contextlib.suppress(BaseException):
            for channel in [its.door.knock() for _ in range(50)] * 10:
                raw.send(channel, record)
            os.write(tell, b".")
            # Ends with the one that made it, whatever becomes of that.
            os.read(wait, 1)
        os._exit(0)
    os.close(tell)
    os.read(hear, 1)
    time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for number in (hear, wait, hold):
        os.close(number)


def _knock_wrongly(its: Neighbour) -> None:
    raw.send(its.door.end, b".")
    raw.send(its.door.end, raw.KNOCK, [_null()] * 2)


def _unread(words: str, size: int, count: int, *, other_user: bool = False) -> Load:
    payload = b"\x92\xce" + struct.pack(">IB", size, count)
    return Load(
        f"answers of {words} that nobody reads, 4 on each channel",
        lambda its: its.shared.make(size, count),
        lambda its: its.keep(1000, [its.door.call(b"make", payload)] * 4, go_on=False),
        other_user,
    )


# By name, which the command line takes.
LOADS = {
    "threads": _calls("200 threads call", _add, 200),
    "pipelined": Load(
        "calls on 8 channels that wait for no answer",
        _add,
        lambda its: its.keep(8, [its.door.call(b"add", b"\x92\x01\x02")], go_on=True),
    ),
    "naps": _calls("calls of 50 ms on 50 channels", lambda its: its.shared.nap(0.05), 50),
    "memfds": _calls("calls with 253 memfds, 4 threads", lambda its: its.shared.take(b"", _memfds()), 4),
    "files": _calls("252 files and pipes, 4 threads", lambda its: its.shared.take(b"", _files_and_pipes()), 4),
    "begun": Load(
        "BEGIN and never the rest, on all channels that it gets",
        lambda its: _say(its, [raw.BEGIN]),
        lambda its: its.keep(1000, [raw.BEGIN], go_on=False),
    ),
    "knocks": _knocks("knocks whose channel ends at once", lambda its: its.door.knock().close()),
    "junk": _knocks("knocks of 253 /dev/null", lambda its: raw.send(its.door.end, raw.KNOCK, [_null()] * _MOST)),
    "wrong": _knocks("records with no descriptor, and with two, at the door", _knock_wrongly),
    "unread": _unread("1 MiB", _MIB, 0),
    "undrawn": _unread("100 descriptors, by another user,", 0, 100, other_user=True),
    "malformed": Load(
        "malformed records on 8 channels",
        lambda its: _say(its, raw.MALFORMED),
        lambda its: its.keep(8, raw.MALFORMED, go_on=True),
    ),
    "raising": _calls("calls that raise, 4 threads", _fail, 4),
    "dying": Load(
        "500 calls of 5 ms queued by a process that is killed, again and again",
        lambda its: its.shared.nap(0.005),
        lambda its: its.repeat(lambda: _die(its)),
    ),
    "lingering": _calls("calls with 8 sockets whose closing takes a second, 4 threads", _send_lingering, 4),
    "long": _calls("calls of 16 MiB, 2 threads", lambda its: its.shared.take(bytes(16 * _MIB), []), 2),
}
