"""What a neighbour can do to a server, as a table; and the neighbour, which does one thing until it is told to end.

It says by hand what no honest client says.
"""

import array
import contextlib
import functools
import itertools
import json
import os
import resource
import select
import signal
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

import capmarshal as cm
from bench.contenders import DESCRIPTORS_MAX
from bench.servers import Works, drop_root
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._protocol import wire

# Seconds: for an answer; for the benchmark to ask for the end, which it does long before.
_PATIENCE, _LONGEST = 30.0, 120.0
_MIB, _TRIES = 1 << 20, 7
# The other ends of what lingers.
_peers: list[socket.socket] = []


def _send(to: socket.socket, record: bytes, numbers: Sequence[int] = ()) -> None:
    """Sends a record with descriptors; waits for room, for a second at most."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))] if numbers else []
    poll = select.poll()
    poll.register(to, select.POLLOUT)
    for patience in (1000, 0):
        with contextlib.suppress(BlockingIOError):
            to.sendmsg([record], control, socket.MSG_DONTWAIT)
            return
        poll.poll(patience)


class Neighbour:
    """What a load has to work with: a proxy, and the door and the badge behind it, to speak by hand."""

    def __init__(self, capability: cm.Capability) -> None:
        self.shared: Works = capability.cast(Works)
        self.door = socket.socket(fileno=os.dup(open_door_of(capability).number))
        self._badge = badge_of(capability)
        self.over = threading.Event()
        # By many threads, and one step of the interpreter's.
        self.done, self.refused = itertools.count(), itertools.count()

    def add(self) -> object:
        return self.shared.add(1, 2)

    def knock(self) -> socket.socket:
        """A new channel's near end."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            _send(self.door, wire.KNOCK_RECORD, [far.fileno()])
        near.setblocking(False)
        return near

    def call(self, method: str, *arguments: object, count: int = 0) -> bytes:
        """A CALL record with a table of so many descriptors."""
        payload = msgspec.msgpack.encode(arguments)
        name = method.encode()
        return wire.pack_call(1, self._badge, wire.NO_LIMIT, 0, name, wire.PLAIN[:count], count, payload)

    def attempt(self, deed: Callable[[], object]) -> None:
        """Does it once; an error is counted, and no more."""
        try:
            deed()
        except Exception:  # noqa: BLE001 - whatever it is: the load goes on
            next(self.refused)
            time.sleep(0.001)
        else:
            next(self.done)

    def repeat(self, deed: Callable[[], object], threads: int = 1) -> None:
        """Does it again and again, in so many threads."""

        def run() -> None:
            while not self.over.is_set():
                self.attempt(deed)

        for _ in range(threads):
            threading.Thread(target=run, daemon=True).start()

    def keep(self, most: int, records: Sequence[bytes], *, go_on: bool) -> None:
        """Keeps as many channels as it gets, up to ``most``; those that the server ends are replaced at once.

        The records are sent on each, and nothing is read; or, to ``go_on``, they are sent again and again as long as
        there is room, and the answers thrown away.
        """
        channels: dict[int, socket.socket] = {}
        poll = select.poll()

        def add() -> None:
            near = self.knock()
            channels[near.fileno()] = near
            poll.register(near, select.POLLIN | select.POLLOUT if go_on else 0)
            if not go_on:
                _say(near, records)

        while not self.over.is_set():
            if len(channels) < most:
                self.attempt(add)
            for number, event in poll.poll(0 if len(channels) < most else 50):
                if event & select.POLLHUP:
                    poll.unregister(number)
                    channels.pop(number).close()
                    next(self.refused)
                else:
                    with contextlib.suppress(BlockingIOError, ConnectionError):
                        while channels[number].recv(4096):
                            pass
                    _say(channels[number], records)
                    next(self.done)


def _say(channel: socket.socket, records: Sequence[bytes]) -> None:
    with contextlib.suppress(BlockingIOError, ConnectionError):
        for record in records:
            channel.send(record)


Deed = Callable[[Neighbour], object]


class Load(NamedTuple):
    """One of them."""

    words: str  # what it does
    once: Deed  # one call of it, or what stands for one; the server is through with it when this returns
    go_on: Deed  # does it until it is over
    other_user: bool = False  # than the server, where root measures


def _calls(words: str, once: Deed, threads: int) -> Load:
    return Load(words, once, lambda its: its.repeat(lambda: once(its), threads))


def _knocks(words: str, knock: Deed) -> Load:
    """There is no answer to wait for, but that to a call that comes after it."""
    return Load(words, lambda its: (knock(its), its.add()), lambda its: its.repeat(lambda: knock(its)))


def _records(words: str, records: Sequence[bytes], most: int, *, go_on: bool) -> Load:
    """By hand, on channels of its own."""

    def once(its: Neighbour) -> None:
        with its.knock() as near:
            _say(near, records)
        its.add()

    return Load(words, once, lambda its: its.keep(most, records, go_on=go_on))


def _unread(words: str, size: int, count: int, *, other_user: bool = False) -> Load:
    return Load(
        f"answers of {words} that nobody reads, 4 on each channel",
        lambda its: its.shared.make(size, count),
        lambda its: its.keep(1000, [its.call("make", size, count)] * 4, go_on=False),
        other_user,
    )


def _fail(its: Neighbour) -> None:
    with contextlib.suppress(cm.RemoteError):
        its.shared.nap(-1.0)


_CALL = functools.partial(wire.pack_call, 1, bytes(wire.BADGE_SIZE), wire.NO_LIMIT, 0)
# Each in another way: too short, of a version and of a kind that there is not, and without what its head announces.
_MALFORMED = [
    b"\xff" * 5,
    b"\x09" + _CALL(b"add", [], 0, b"")[1:],
    bytes([wire.VERSION, 200]) + wire.pack_go(2)[2:],
    _CALL(b"add", wire.PLAIN[:7], 0, b"")[: wire.CALL_SIZE + 3],
    _CALL(bytes(999), [], 0, b"")[: wire.CALL_SIZE + 3],
]


# Made when they are needed, and once.
_memfds = functools.cache(lambda: [cm.Descriptor(os.memfd_create("sent")) for _ in range(DESCRIPTORS_MAX)])
_null = functools.cache(lambda: os.open(os.devnull, os.O_RDONLY))


@functools.cache
def _files_and_pipes() -> list[cm.Descriptor]:
    files: list[cm.Descriptor] = []
    while len(files) < DESCRIPTORS_MAX - 2:
        with tempfile.TemporaryFile() as file:
            files.append(cm.Descriptor(os.dup(file.fileno())))
        files += [cm.Descriptor(number) for number in os.pipe()]
    return files


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
            _send(near, b".", [sender.fileno()])
    return far.detach()


def _send_lingering(its: Neighbour) -> object:
    """By hand, so that the server's close is the last."""
    ends = [_lingering() for _ in range(8)]
    with its.knock() as near:
        _send(near, its.call("take_descriptors", [*range(8)], count=8), ends)
        for end in ends:
            os.close(end)
        near.settimeout(_PATIENCE)
        answered = near.recv(4096)
    while len(_peers) > 256:
        _peers.pop(0).close()
    return answered


def _die(its: Neighbour) -> None:
    """A child queues ten calls of 5 ms on each of 50 channels, and is killed."""
    record = its.call("nap", 0.005)
    (hear, tell), (wait, hold) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hold)
        with contextlib.suppress(BaseException):
            for channel in [its.knock() for _ in range(50)] * 10:
                _send(channel, record)
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
    _send(its.door, b".")
    _send(its.door, wire.KNOCK_RECORD, [_null()] * 2)


# By name, which the command line takes.
LOADS = {
    "threads": _calls("200 threads call", Neighbour.add, 200),
    "pipelined": Load(
        "calls on 8 channels that wait for no answer",
        Neighbour.add,
        lambda its: its.keep(8, [its.call("add", 1, 2)], go_on=True),
    ),
    "naps": _calls("calls of 50 ms on 50 channels", lambda its: its.shared.nap(0.05), 50),
    "memfds": _calls("calls with 253 memfds, 4 threads", lambda its: its.shared.take_descriptors(_memfds()), 4),
    "files": _calls("252 files and pipes, 4 threads", lambda its: its.shared.take_descriptors(_files_and_pipes()), 4),
    "begun": _records(
        "BEGIN and never the rest, on all channels that it gets", [wire.pack_begin(1, 16 * _MIB, 0)], 1000, go_on=False
    ),
    "knocks": _knocks("knocks whose channel ends at once", lambda its: its.knock().close()),
    "junk": _knocks(
        "knocks of 253 /dev/null", lambda its: _send(its.door, wire.KNOCK_RECORD, [_null()] * DESCRIPTORS_MAX)
    ),
    "wrong": _knocks("records with no descriptor, and with two, at the door", _knock_wrongly),
    "unread": _unread("1 MiB", _MIB, 0),
    "undrawn": _unread("100 descriptors, by another user,", 0, 100, other_user=True),
    "malformed": _records("malformed records on 8 channels", _MALFORMED, 8, go_on=True),
    "raising": _calls("calls that raise, 4 threads", _fail, 4),
    "dying": Load(
        "500 calls of 5 ms queued by a process that is killed, again and again",
        lambda its: its.shared.nap(0.005),
        lambda its: its.repeat(lambda: _die(its)),
    ),
    "lingering": _calls("calls with 8 sockets whose closing takes a second, 4 threads", _send_lingering, 4),
    "long": _calls("calls of 16 MiB, 2 threads", lambda its: its.shared.take_bytes(bytes(16 * _MIB)), 2),
}


def neighbour(name: str) -> None:
    """Prints a line when it goes on for good, and what it did at the end, as JSON.

    That is how long it takes once while nobody else calls, how often it did it, and how often it could not.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    load = LOADS[name]
    its = Neighbour(cm.parent())
    if load.other_user:
        drop_root(1)
    once = statistics.median(timeit.repeat(lambda: load.once(its), number=1, repeat=_TRIES))
    threading.Thread(target=load.go_on, args=(its,), daemon=True).start()
    print("here", flush=True)
    select.select([sys.stdin], [], [], _LONGEST)
    its.over.set()
    print(json.dumps([once, next(its.done), next(its.refused)]), flush=True)
    # Its threads may be in the middle of something.
    os._exit(0)
