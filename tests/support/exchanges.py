"""Whole exchanges of the protocol as they went over sockets: run as a program, it writes them into docs/protocol.md.

What no two runs have in common is made equal: badges, times, and the CPU that something was sent from.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import socket
import struct
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec

import capmarshal as cm
from capmarshal._descriptors.memory import make_memory
from capmarshal._protocol import wire
from middleman import Middleman, receive
from patience import until

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
# In the document: a name, and behind it what is written there.
PLACE = re.compile(r"(<!-- exchange: (.+?) -->\n)(?:```text\n.*?```\n)?", re.DOTALL)

_NAMES = ("KNOCK", "CALL", "REPLY", "FAIL", "BEGIN", "PART", "GO", "GONE", "REVOKED", "SIGNAL")
KINDS = {getattr(wire, name): name for name in _NAMES}
_IN_A_LINE, _COLUMN, _WIDTH, _SHOWN = 16, 49, 67, 32
# What stands for times.
_LEFT, _SENT_AT = 1_500_000_000, 3_600_000_000_000


class Counter(cm.Interface):
    @cm.method
    def step(self) -> int: ...


class Desk(cm.Interface):
    @cm.method
    def add(self, left: int, right: int) -> int: ...

    @cm.method
    def text(self, value: float, *, digits: int = 2) -> str: ...

    @cm.method
    def copy(self, file: cm.Descriptor) -> cm.Descriptor: ...

    @cm.method
    def counter(self) -> Counter: ...

    @cm.method
    def use(self, counter: Counter) -> int: ...

    @cm.method
    @cm.raises(KeyError)
    def find(self, name: str) -> int: ...

    @cm.method
    def letters(self) -> Iterator[str]: ...

    @cm.method
    def together(self, parts: Iterator[str]) -> str: ...

    @cm.method
    def zeros(self, size: int) -> bytes: ...

    @cm.method
    def grid(self) -> cm.Dataspace: ...

    @cm.method
    def length(self, file: cm.Descriptor) -> int: ...

    @cm.method
    def both(self, first: cm.Capability, second: cm.Capability) -> bool: ...

    @cm.method
    def total(self, data: cm.Dataspace) -> int: ...

    @cm.method
    def mark(self, buffer: cm.SharedBuffer) -> int: ...

    @cm.method
    def read(self, file: io.BufferedReader) -> bytes: ...

    @cm.method
    def greet(self, other: socket.socket) -> None: ...

    @cm.method
    def inodes(self, files: list[cm.Descriptor]) -> int: ...

    @cm.method
    def copies(self, file: cm.Descriptor) -> list[cm.Descriptor]: ...

    @cm.method
    @cm.raises(KeyError)
    def broken(self) -> Iterator[str]: ...

    @cm.method
    def ring(self, bell: cm.Signal) -> None: ...


class CounterServer(Counter):
    def __init__(self):
        self.steps = 0

    def step(self):
        self.steps += 1
        return self.steps


class DeskServer(Desk):
    """Serves it; ``ended`` is how many streams of letters are at their end."""

    def __init__(self):
        self.ended = 0

    def add(self, left, right):
        return left + right

    def text(self, value, *, digits=2):
        return f"{value:.{digits}f}"

    def copy(self, file):
        return file

    def counter(self):
        return CounterServer()

    def use(self, counter):
        return counter.step()

    def find(self, name):
        raise KeyError(name)

    def letters(self):
        try:
            yield from "abc"
        finally:
            self.ended += 1

    def together(self, parts):
        return "".join(parts)

    def zeros(self, size):
        return bytes(size)

    def grid(self):
        made = cm.Dataspace.create((2, 3), "d")
        made.seal()
        return made

    def length(self, file):
        return os.fstat(file.fileno()).st_size

    def both(self, first, second):
        return first is second

    def total(self, data):
        return sum(data.view())

    def mark(self, buffer):
        with buffer.view() as view:
            view[:5] = b"a tea"
            return len(view)

    def read(self, file):
        return file.read()

    def greet(self, other):
        other.send(b"good day")

    def inodes(self, files):
        return len({os.fstat(file.fileno()).st_ino for file in files})

    def copies(self, file):
        return [cm.Descriptor.dup_of(file) for _ in range(300)]

    def broken(self):
        yield "a"
        raise KeyError("b")

    def ring(self, bell):
        bell.send()


# The records, split into what they consist of ---------------------------------------------------------------------


class Records:
    """Writes records down, one after the other."""

    def __init__(self):
        self._badges = {}

    def _badge(self, badge):
        if badge in (wire.NO_BADGE, wire.SIGNAL_BADGE):
            return badge
        return self._badges.setdefault(badge, bytes([0xB1 + len(self._badges)]) * len(badge))

    def written(self, data, descriptors, to):
        """One record, in lines."""
        kind = KINDS[data[1]]
        many = "" if descriptors == 1 else "s"
        attached = f", with {descriptors} descriptor{many}" if descriptors else ""
        yield f"to {to}: {kind}{attached}"
        for piece, comment in getattr(self, f"_{kind.lower()}", self._rest)(data):
            if piece:
                yield from _lines(piece, comment)

    def _head(self, data):
        head = bytearray(data[:16])
        # The CPU that it was sent from.
        head[6:8] = b"\0\0"
        _, _, entries, descriptors, _, call = struct.unpack("=BBHHHQ", head)
        said = ["head"]
        said += [f"{entries} line{'' if entries == 1 else 's'}"] if entries else []
        said += [f"{descriptors} descriptor{'' if descriptors == 1 else 's'}"] if descriptors else []
        said += [f"ID {call}"] if call else []
        return bytes(head), ", ".join(said)

    def _rest(self, data):
        yield self._head(data)
        if len(data) > wire.HEAD_SIZE:
            yield data[wire.HEAD_SIZE :], _quoted(data[wire.HEAD_SIZE :])

    def _begin(self, data):
        yield self._head(data)
        size, descriptors = struct.unpack_from("=QI", data, 16)
        yield data[16:24], f"the record has {size:,} bytes"
        yield data[24:28], f"and {descriptors} descriptors"

    def _part(self, data):
        yield self._head(data)
        piece = data[16:]
        if piece[:1] == bytes([wire.VERSION]):
            # The record's own head; and of a CALL the time, which nobody looks at where there is no limit.
            sent_at = bytes(8) if piece[1] == wire.CALL else piece[24:32]
            piece = self._head(piece)[0] + piece[16:24] + sent_at + piece[32:]
        yield piece, f"the next {len(piece):,} of them"

    def _call(self, data):
        yield self._head(data)
        left, _, size = struct.unpack_from("=QQH", data, 16)
        if left == wire.NO_LIMIT:
            yield data[16:24], "time left: no limit"
            yield data[24:32], "sent at: not looked at then"
        else:
            yield struct.pack("=Q", _LEFT), f"time left: {_LEFT:,} ns"
            yield struct.pack("=Q", _SENT_AT), f"sent at: {_SENT_AT:,} ns"
        yield data[32:34], f"the method's name has {size} bytes"
        yield self._badge(data[34:50]), "badge"
        yield data[50 : 50 + size], _quoted(data[50 : 50 + size])
        yield from self._table_and_payload(data, 50 + size)

    def _reply(self, data):
        yield self._head(data)
        yield from self._table_and_payload(data, 16)

    def _fail(self, data):
        yield self._head(data)
        yield data[16:], _decoded(data[16:])

    def _table_and_payload(self, data, at):
        for _ in range(struct.unpack_from("=H", data, 2)[0]):
            slot, badge = struct.unpack_from("=H16s", data, at)
            if slot == 0xFFFF:
                yield data[at : at + 18], "slot of none: more of the array"
            else:
                what = "this descriptor itself" if badge == wire.NO_BADGE else "a capability by it"
                yield struct.pack("=H16s", slot, self._badge(badge)), f"slot {slot}: {what}"
            at += 18
        yield data[at:], f"payload: {_decoded(data[at:])}"


def _lines(piece, comment):
    """Some bytes of a record, with what they are beside them."""
    shown = piece if len(piece) <= 5 * _SHOWN else piece[:_SHOWN]
    # A line of a table: its slot, and its badge.
    starts = [0, 2] if comment.startswith("slot") else range(0, len(shown), _IN_A_LINE)
    lines = [shown[start:end].hex(" ") for start, end in itertools.pairwise([*starts, len(shown)])]
    if len(shown) < len(piece):
        lines.append(f"... and {len(piece) - len(shown):,} more")
    for line, words in itertools.zip_longest(lines, textwrap.wrap(comment, _WIDTH), fillvalue=""):
        yield f"    {line:<{_COLUMN}}{words}".rstrip()


def _quoted(data):
    return '"' + data.decode() + '"'


def _decoded(payload):
    if len(payload) > 5 * _SHOWN:
        return f"{len(payload):,} bytes of MessagePack"
    return repr(msgspec.msgpack.decode(payload))


# The exchanges ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _between():
    with cm.Entrypoint("desk") as entrypoint, Middleman() as middleman:
        real = entrypoint.manage(DeskServer())
        yield middleman, middleman.before(real).cast(Desk)


def _file():
    return make_memory(1, "file")


def _data(desk):
    assert desk.add(2, 3) == 5


def _again(desk):
    assert [desk.add(2, 3), desk.add(5, 7)] == [5, 12]


def _named(desk):
    assert desk.text(0.5, digits=1) == "0.5"


def _in_time(desk):
    with cm.timeout(30):
        assert desk.add(2, 3) == 5


def _descriptor(desk):
    with _file() as file, desk.copy(file) as copy:
        assert os.fstat(copy.fileno()).st_ino == os.fstat(file.fileno()).st_ino


def _new_capability(desk):
    assert desk.counter().step() == 1


def _capability_as_argument(desk):
    assert desk.use(desk.counter()) == 1


def _declared(desk):
    with contextlib.suppress(KeyError):
        desk.find("tea")


def _unknown_method(desk):
    class Other(cm.Interface):
        @cm.method
        def paint(self) -> None: ...

    with contextlib.suppress(cm.UnknownMethod):
        cm.capability(desk).cast(Other).paint()


def _stream(desk):
    assert list(desk.letters()) == ["a", "b", "c"]


def _stream_as_argument(desk):
    assert desk.together(iter("abc")) == "abc"


def _array(desk):
    with desk.grid() as grid:
        assert (grid.shape, grid.format) == ((2, 3), "d")


def _long(desk):
    assert desk.zeros(300_000) == bytes(300_000)


def _many(desk):
    with contextlib.ExitStack() as stack:
        assert desk.inodes([stack.enter_context(_file()) for _ in range(300)]) == 300


# By the names that the document has for them.
_CALLS = {
    "a knock, and a call with data": _data,
    "the next call": _again,
    "an argument by name": _named,
    "a time limit": _in_time,
    "a descriptor there and back": _descriptor,
    "a new capability": _new_capability,
    "a capability as an argument": _capability_as_argument,
    "a declared error": _declared,
    "an unknown method": _unknown_method,
    "a stream of three items": _stream,
    "a stream as an argument": _stream_as_argument,
    "an array": _array,
    "a long answer": _long,
    "many descriptors": _many,
}

# Records that another exchange has shown: the knock.
_SHOWN_BEFORE = {"a knock, and a call with data": 0, "the next call": 3}


def _of_call(name):
    with _between() as (middleman, desk):
        _CALLS[name](desk)
        passed = list(middleman.passed)
    writer, lines = Records(), []
    several = max(one.door for one in passed) > 1
    for to, door, data, descriptors in passed[_SHOWN_BEFORE.get(name, 1) :]:
        which = f" (door {door})" if several else ""
        lines += writer.written(data, descriptors, to + which)
    return lines


def _revoked(_name):
    with cm.Entrypoint("desk") as entrypoint, Middleman() as middleman:
        granted = entrypoint.grant(DeskServer(), label="guest")
        desk = middleman.before(granted).cast(Desk)
        assert desk.add(2, 3) == 5
        before = len(middleman.passed)
        entrypoint.revoke(granted, "the lease has run out")
        until(lambda: cm.capability(desk).gone)
        with contextlib.suppress(cm.Revoked):
            desk.add(2, 3)
        passed = [one for one in middleman.passed[before:] if one.data[1] == wire.REVOKED]
    return [line for to, _, data, descriptors in passed for line in Records().written(data, descriptors, to)]


def _signal(_name):
    with cm.SignalReceiver() as receiver, Middleman() as middleman:
        middleman.before(cm.capability(receiver.signal)).cast(cm.Signal).send()
        receiver.wait(30)
        passed = list(middleman.passed)
    return [line for to, _, data, descriptors in passed for line in Records().written(data, descriptors, to)]


def _handover(_name):
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there, cm.Entrypoint("desk") as entrypoint:
        cm.send_capability(here, entrypoint.manage(DeskServer()))
        return _waiting(there)


def _refusal(_name):
    with tempfile.TemporaryDirectory() as directory, cm.Entrypoint("desk") as entrypoint:
        path = f"{directory}/desk.sock"
        entrypoint.listen(path, for_client=lambda _caller: None)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(path)
            return _waiting(client)


def _waiting(sock):
    """What waits in a socket: a handover, or why there is none."""
    data, numbers = receive(sock)
    for number in numbers:
        os.close(number)
    lines = [f"in the socket{', with 1 descriptor' if numbers else ''}"]
    version, size = struct.unpack_from("=II", data, 8)
    lines += _lines(data[:8], "magic")
    lines += _lines(data[8:12], f"version {version}")
    lines += _lines(data[12:16], f"{size} bytes")
    badge = data[16:32]
    lines += _lines(badge if badge == wire.NO_BADGE else b"\xb1" * 16, "badge")
    if len(data) > 32:
        busy = struct.unpack_from("=I", data, 32)[0]
        words = re.sub(r"process \d+ of user \d+", "process 4711 of user 1000", data[36:].decode()).encode()
        lines[3] = next(iter(_lines(struct.pack("=I", 36 + len(words)), f"{36 + len(words)} bytes")))
        lines += _lines(data[32:36], f"busy: {busy}")
        lines += _lines(words, _quoted(words))
    return lines


_OTHERS = {"a revoked door": _revoked, "a signal": _signal, "a handover": _handover, "a refusal": _refusal}


def exchange(name):
    """One of them, as it is written in the document."""
    lines = _OTHERS.get(name, _of_call)(name)
    return "\n".join(["```text", *lines, "```", ""])


def names():
    """Those that there are."""
    return [*_CALLS, *_OTHERS]


def document(text):
    """The document with all exchanges that it has a place for written anew."""
    return PLACE.sub(lambda place: place[1] + exchange(place[2]), text)


if __name__ == "__main__":
    if sys.byteorder != "little":
        sys.exit("the document shows little-endian machines")
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
