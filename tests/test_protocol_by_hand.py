"""What docs/protocol.md says is enough: a client and a server, written from that page alone, of sockets and struct.

Nothing of the package is used by either but by the other side.  They do what is needed here, and no more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import threading
import time

import pytest

import capmarshal as cm
from exchanges import Counter, Desk, DeskServer
from matrix import streams_are_awaited
from patience import PATIENCE

pytestmark = pytest.mark.usefixtures("quiet_log")

VERSION, NO_BADGE, THIS_DOOR, NO_LIMIT = 3, bytes(16), 65_534, (1 << 64) - 1
KNOCK, CALL, REPLY, FAIL, BEGIN, PART, GO, GONE, REVOKED, SIGNAL = range(1, 11)
HEAD, OF_CALL, LINE = struct.Struct("=BBHHHQ"), struct.Struct("=QQH16s"), struct.Struct("=H16s")
HANDOVER = struct.Struct("=8sII16s")
MAGIC = bytes.fromhex("fe 63 61 70 6d 73 68 6c")

# MessagePack: what is needed of it ------------------------------------------------------------------------------


def packed(value):
    """A value as it travels."""
    if value is None or value is True or value is False:
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return b"\xd3" + value.to_bytes(8, "big", signed=True)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"\xdb" + struct.pack(">I", len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, dict):
        items = [packed(one) for pair in value.items() for one in pair]
        return b"\xdf" + struct.pack(">I", len(value)) + b"".join(items)
    return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(packed, value))


def unpacked(data):
    """The value again, which is all of the data."""
    value, at = _unpacked(data, 0)
    assert at == len(data)
    return value


_PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = dict(zip(range(0xCA, 0xD4), "fdBHIQbhiq", strict=True))
_LENGTHS = dict(zip((0xC4, 0xC5, 0xC6, *range(0xD9, 0xE0)), "BHIBHIHIHI", strict=True))


def _unpacked(data, at):
    head, at = data[at], at + 1
    if head in _PLAIN:
        return _PLAIN[head], at
    if head <= 0x7F or head >= 0xE0:
        return (head if head <= 0x7F else head - 256), at
    if head in _NUMBERS:
        number = struct.Struct(">" + _NUMBERS[head])
        return number.unpack_from(data, at)[0], at + number.size
    if head in _LENGTHS:
        length = struct.Struct(">" + _LENGTHS[head])
        count, at = length.unpack_from(data, at)[0], at + length.size
    else:
        count = head & (0x1F if head >= 0xA0 else 0x0F)
    if head in (0xC4, 0xC5, 0xC6):
        return bytes(data[at : at + count]), at + count
    if 0xA0 <= head <= 0xBF or head in (0xD9, 0xDA, 0xDB):
        return bytes(data[at : at + count]).decode(), at + count
    is_map = head <= 0x8F or head in (0xDE, 0xDF)
    items = []
    for _ in range(2 * count if is_map else count):
        item, at = _unpacked(data, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2], strict=True)) if is_map else items), at


# Records ----------------------------------------------------------------------------------------------------------


def send(sock, data, numbers=()):
    """One record, and its descriptors."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(numbers)}i", *numbers))] if numbers else []
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            sock.sendmsg([data], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            return
        except BlockingIOError:
            assert time.monotonic() < deadline
            select.select([], [sock], [], PATIENCE)


def receive(sock, flags=0):
    """The next record and its descriptors; no bytes at the end."""
    ready, _, _ = select.select([sock], [], [], PATIENCE)
    assert ready, "nothing has come"
    room = socket.CMSG_SPACE(253 * 4)
    data, control, lost, _ = sock.recvmsg(262_144, room, flags | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
    assert not lost & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
    numbers = []
    for level, kind, part in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers += struct.unpack(f"{len(part) // 4}i", part)
    return data, numbers


def pack_table(table):
    """Its lines; an entry is (slot, badge)."""
    return b"".join(LINE.pack(*entry) for entry in table)


def read_table(data, at, count):
    """(the entries, where they end)."""
    end = at + count * LINE.size
    return [LINE.unpack_from(data, start) for start in range(at, end, LINE.size)], end


def pair():
    """A door, or a channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def take(sock):
    """The capability that waits in a socket."""
    data, numbers = receive(sock)
    magic, version, size, badge = HANDOVER.unpack_from(data)
    assert (magic, version, size) == (MAGIC, VERSION, len(data))
    if badge == NO_BADGE:
        assert not numbers
        busy = struct.unpack_from("=I", data, 32)[0]
        raise PermissionError(busy, data[36:].decode())
    return Held(socket.socket(fileno=numbers[0]), badge)


def put(sock, door, badge):
    """Has a capability wait in a socket."""
    send(sock, HANDOVER.pack(MAGIC, VERSION, HANDOVER.size, badge), [door.fileno()])


# The client -------------------------------------------------------------------------------------------------------


class Failed(Exception):
    """A FAIL: its code and its message, and what was raised, if it says so."""

    def __init__(self, code, message, error=None):
        super().__init__(code, message, error)
        self.code, self.message = code, message
        self.classes, self.text = error[:2] if error else ((), message)


class MayHaveRun(Exception):
    """The end of a channel."""


class Revoked(Exception):
    """What a door says last."""


class Sent:
    """What an argument stands for that is in the table: a descriptor's number, with a lease or not, or a capability."""

    def __init__(self, what, lease=None):
        self.what, self.lease = what, lease


class Held:
    """A capability that is held: the client end of a door, which is taken, and a badge."""

    def __init__(self, door, badge):
        self.door, self.badge = door, badge
        self.channel, self.calls, self.knocks = None, 0, 0

    def close(self):
        self.door.close()
        if self.channel is not None:
            self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def knock(self):
        near, far = pair()
        self.knocks += 1
        with far:
            try:
                send(self.door, HEAD.pack(VERSION, KNOCK, 0, 1, 0, 0), [far.fileno()])
            except (BrokenPipeError, ConnectionResetError):
                near.close()
                raise self.epitaph() from None
        self.channel = near

    def epitaph(self):
        self.door.setsockopt(socket.SOL_SOCKET, 42, -1)  # SO_PEEK_OFF
        for _ in range(2):
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                data = self.door.recv(1016, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                if data[:2] == bytes([VERSION, REVOKED]):
                    return Revoked(data[16:].decode())
                break
        return ConnectionError("the server has gone")

    def call(self, method, *arguments, until=None, **by_name):
        """(what the method gives, the descriptors and capabilities that its answer's table has)."""
        backoff, deadline = 0.001, time.monotonic() + PATIENCE
        while True:
            if is_new := self.channel is None:
                self.knock()
            data, table, numbers = self._answer(method, arguments, by_name, until)
            if data is not None:
                break
            self.channel.close()
            self.channel = None
            assert time.monotonic() < deadline
            if is_new:
                select.select([], [], [], backoff)
                backoff = min(2 * backoff, 0.064)
        if data[1] == FAIL:
            raise Failed(*unpacked(data[16:]))
        lines, end = read_table(data, 16, HEAD.unpack_from(data)[2])
        # What is said of arrays is passed over.
        table = [line for line in lines if line[0] != 0xFFFF]
        doors = {slot for slot, badge in table if badge != NO_BADGE and slot != THIS_DOOR}
        taken = {slot: socket.socket(fileno=numbers[slot]) for slot in doors}
        found = []
        for slot, badge in table:
            if badge == NO_BADGE:
                found.append(numbers[slot])
            else:
                found.append(Held((self.door if slot == THIS_DOOR else taken[slot]).dup(), badge))
        for door in taken.values():
            door.close()
        return unpacked(data[end:]), found

    def _answer(self, method, arguments, by_name, until):
        self.calls += 1
        table, numbers, places, entries = [], [], [], 0
        for argument in arguments:
            if not isinstance(argument, Sent):
                places.append(argument)
                continue
            places.append(entries)
            what, entries = argument.what, entries + 1
            table.append((len(numbers), what.badge if isinstance(what, Held) else NO_BADGE))
            numbers.append(what.door.fileno() if isinstance(what, Held) else what)
            if argument.lease is not None:
                table.append((0xFFFF, struct.pack("=HHIQ", 0, len(numbers), 0, 4711)))
                numbers.append(argument.lease)
        now = time.monotonic_ns()
        left = NO_LIMIT if until is None else max(until - now, 0)
        record = HEAD.pack(VERSION, CALL, len(table), len(numbers), 0, self.calls)
        record += OF_CALL.pack(left, now, len(method), self.badge) + method.encode() + pack_table(table)
        record += packed(({"": places} if places else {}) | by_name if by_name else places)
        try:
            refusal = self._send(record, numbers)
        except (BrokenPipeError, ConnectionResetError):
            return None, (), ()
        return self._received() if refusal is None else (refusal, (), ())

    def _send(self, record, numbers):
        """Sends it, in parts where it is long; what the server says before it has all of it."""
        if len(record) <= 200_000 and len(numbers) <= 253:
            send(self.channel, record, numbers)
            return None
        send(
            self.channel, HEAD.pack(VERSION, BEGIN, 0, 0, 0, self.calls) + struct.pack("=QI", len(record), len(numbers))
        )
        while record or numbers:
            some, numbers, piece, record = numbers[:253], numbers[253:], record[:190_000], record[190_000:]
            send(self.channel, HEAD.pack(VERSION, PART, 0, len(some), 0, self.calls) + piece, some)
            while (record or numbers) and (some or select.select([self.channel], [], [], 0)[0]):
                data, _ = receive(self.channel)
                if data[1] == FAIL:
                    return data
                assert data[1] == GO
                some = ()
        return None

    def _received(self):
        unread, begun, record, gathered = False, None, b"", []
        while True:
            try:
                data, numbers = receive(self.channel)
            except (ConnectionResetError, BrokenPipeError):
                unread = True
                continue
            if not data:
                if unread and begun is None:
                    return None, (), ()
                raise MayHaveRun
            version, kind, _, descriptors, _, call = HEAD.unpack_from(data)
            assert version == VERSION
            assert descriptors == len(numbers)
            if kind == GONE:
                assert begun is None
                return None, (), ()
            if call < self.calls:
                for number in numbers:
                    os.close(number)
                continue
            assert call == self.calls
            if kind in (REPLY, FAIL):
                return data, (), numbers
            if kind == BEGIN:
                begun = struct.unpack_from("=QI", data, 16)
                continue
            assert kind == PART
            record, gathered = record + data[16:], gathered + numbers
            if (len(record), len(gathered)) == begun:
                return record, (), gathered
            if numbers:
                send(self.channel, HEAD.pack(VERSION, GO, 0, 0, 0, self.calls))


@pytest.fixture
def desk():
    """What the client by hand holds: an object of capmarshal's."""
    with cm.Entrypoint("desk") as entrypoint, held(entrypoint.manage(DeskServer())) as taken:
        yield taken


@contextlib.contextmanager
def held(capability):
    """It, handed over."""
    here, there = pair()
    with here, there:
        cm.send_capability(here, capability)
        taken = take(there)
    with taken:
        yield taken


def temporary(data):
    """A file in memory: its number."""
    number = os.memfd_create("by hand", os.MFD_CLOEXEC)
    os.write(number, data)
    return number


def test_calls_with_data(desk):
    """On one channel, one after the other; by position and by name."""
    assert [desk.call("add", 2, 3), desk.call("add", -(1 << 40), 1)] == [(5, []), (1 - (1 << 40), [])]
    assert desk.call("text", 0.5)[0] == "0.50"
    assert desk.call("text", 0.5, digits=1)[0] == "0.5"
    assert desk.call("text", digits=1, value=0.5)[0] == "0.5"
    assert desk.knocks == 1


def test_a_descriptor_there_and_back(desk):
    """It is the same file."""
    number = temporary(b"tea")
    index, (back,) = desk.call("copy", Sent(number))
    assert index == 0
    assert os.pread(back, 10, 0) == b"tea"
    os.close(number)
    os.close(back)


def test_a_declared_error(desk):
    """By the names of its classes, and its text; and the channel goes on."""
    with pytest.raises(Failed) as failed:
        desk.call("find", "tea")
    assert (failed.value.code, failed.value.classes[:2]) == (1, ["KeyError", "LookupError"])
    assert failed.value.text == "'tea'"
    assert desk.call("add", 2, 3)[0] == 5
    assert desk.knocks == 1


@pytest.mark.parametrize(("method", "arguments", "code"), [("paint", (), 4), ("add", ("a", 1), 2), ("add", (1,), 2)])
def test_what_is_no_call_of_the_interface(desk, method, arguments, code):
    """Is told apart by the code."""
    with pytest.raises(Failed) as failed:
        desk.call(method, *arguments)
    assert failed.value.code == code


def test_a_guessed_badge_selects_nothing(desk):
    """STALE."""
    with Held(desk.door.dup(), b"guess" + bytes(11)) as guessed, pytest.raises(Failed) as failed:
        guessed.call("add", 2, 3)
    assert failed.value.code == 3


def test_a_deadline(desk):
    """A call that is in time, and one that comes too late, which is not run."""
    assert desk.call("add", 2, 3, until=time.monotonic_ns() + 30 * 10**9)[0] == 5
    with pytest.raises(Failed) as failed:
        desk.call("add", 2, 3, until=time.monotonic_ns() - 1)
    assert failed.value.code == 5


def test_a_handed_capability_is_called_and_handed_on(desk):
    """By its own door; and as an argument, of which the server knows that it is its own."""
    index, (counter,) = desk.call("counter")
    with counter:
        assert index == 0
        assert counter.call("step") == (1, [])
        assert desk.call("use", Sent(counter)) == (2, [])
        assert counter.knocks == 1


@streams_are_awaited
def test_a_stream_of_three(desk):
    """Two, and the last; then it is at its end."""
    _, (stream,) = desk.call("letters")
    with stream:
        (first, ended), _ = stream.call("next", 2)
        assert (first, ended) == (["a", "b"], False)
        assert stream.call("next", 2)[0] == [["c"], True]


def test_files_and_sockets_as_arguments(desk):
    """A file is read from where its offset stands."""
    number = temporary(b"tea and cake")
    os.lseek(number, 8, os.SEEK_SET)
    assert desk.call("read", Sent(number)) == (b"cake", [])
    os.close(number)
    here, there = pair()
    with here, there:
        assert desk.call("greet", Sent(there.fileno())) == (None, [])
        assert here.recv(100) == b"good day"
    directory = os.open("/", os.O_RDONLY)
    with pytest.raises(Failed) as failed:
        desk.call("read", Sent(directory))
    assert failed.value.code == 2
    os.close(directory)


# F_ADD_SEALS, fcntl(2).
SEALS = {"SEAL": 1, "SHRINK": 2, "GROW": 4, "WRITE": 8}


def sealed(data, *seals):
    """Memory with these seals: its number."""
    number = os.memfd_create("by hand", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(number, data)
    fcntl.fcntl(number, 1033, sum(SEALS[seal] for seal in seals))
    return number


def test_a_dataspace_as_an_argument(desk):
    """With all four seals; without any of them it is none."""
    number = sealed(bytes([1, 2, 3]), *SEALS)
    assert desk.call("total", Sent(number)) == (6, [])
    os.close(number)
    for missing in SEALS:
        number = sealed(b"", *(seal for seal in SEALS if seal != missing))
        with pytest.raises(Failed) as failed:
            desk.call("total", Sent(number))
        assert failed.value.code == 2
        os.close(number)


def test_a_shared_buffer_as_an_argument(desk):
    """What the other side has written is in it; and it has let go when nobody has its lease."""
    number = sealed(bytes(4096), "SHRINK", "GROW", "SEAL")
    mine, lease = pair()
    with mine, lease:
        assert desk.call("mark", Sent(number, lease.fileno())) == (4096, [])
        assert os.pread(number, 5, 0) == b"a tea"
        with pytest.raises(Failed) as failed:
            desk.call("mark", Sent(number))
        assert failed.value.code == 2
        lease.close()
        assert receive(mine) == (b"", [])
    os.close(number)


def test_an_array_is_memory_to_who_knows_none(desk):
    """What else is said of it is passed over."""
    index, (memory,) = desk.call("grid")
    assert (index, os.pread(memory, 100, 0)) == (0, bytes(48))
    os.close(memory)


def test_a_long_answer(desk):
    """In parts."""
    assert desk.call("zeros", 500_000)[0] == bytes(500_000)
    assert desk.call("add", 2, 3)[0] == 5


def test_a_call_of_many_descriptors(desk):
    """In parts, which wait for each other."""
    numbers = [temporary(b"") for _ in range(300)]
    table = [(slot, NO_BADGE) for slot in range(300)]
    desk.knock()
    desk.calls = 1
    record = HEAD.pack(VERSION, CALL, 300, 300, 0, 1) + OF_CALL.pack(NO_LIMIT, 0, 6, desk.badge) + b"inodes"
    assert desk._send(record + pack_table(table) + packed([list(range(300))]), numbers) is None
    data, _, _ = desk._received()
    for number in numbers:
        os.close(number)
    assert unpacked(data[16:]) == 300


def test_a_long_call_that_is_refused():
    """It is told before all of it is sent, and the channel goes on."""
    with cm.Entrypoint("desk", max_bytes=1_000_000) as entrypoint, held(entrypoint.manage(DeskServer())) as desk:
        with pytest.raises(Failed) as failed:
            desk.call("find", "x" * 3_000_000)
        assert failed.value.code == 7
        assert desk.call("add", 2, 3)[0] == 5
        assert desk.knocks == 1


def test_a_revoked_door():
    """Calls are answered until then; and then it says why."""
    with cm.Entrypoint("desk") as entrypoint:
        granted = entrypoint.grant(DeskServer(), label="guest")
        with held(granted) as desk:
            assert desk.call("add", 2, 3)[0] == 5
            entrypoint.revoke(granted, "the lease has run out")
            with pytest.raises(Revoked, match="the lease has run out"):
                desk.call("add", 2, 3)


def test_a_deep_grant_hands_out_behind_its_own_door():
    """No descriptor comes: it is called through this door."""
    with cm.Entrypoint("desk") as entrypoint, held(entrypoint.grant(DeskServer(), deep=True)) as desk:
        _, (counter,) = desk.call("counter")
        with counter:
            assert counter.call("step")[0] == 1


def test_the_end_of_a_server():
    """The door has hung up, and has no epitaph."""
    with cm.Entrypoint("desk") as entrypoint:
        taken = take_over(entrypoint.manage(DeskServer()))
        assert taken.call("add", 2, 3)[0] == 5
    with taken, pytest.raises(ConnectionError, match="the server has gone"):
        taken.call("add", 2, 3)


def take_over(capability):
    """As held(), for whoever closes it later."""
    here, there = pair()
    with here, there:
        cm.send_capability(here, capability)
        return take(there)


def test_a_service_is_connected_to(place):
    """And hands its capability over; or says why not."""
    shut = place.with_name("shut")
    with cm.Entrypoint("desk") as entrypoint:
        entrypoint.listen(place, DeskServer())
        entrypoint.listen(shut, for_client=lambda _caller: None)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(place))
            taken = take(connection)
        with taken:
            assert taken.call("add", 2, 3)[0] == 5
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(shut))
            with pytest.raises(PermissionError, match="is not let in") as refused:
                take(connection)
            assert refused.value.errno == 0


def test_a_signal():
    """Sent through its door, with no knock."""
    with cm.SignalReceiver() as receiver, held(cm.capability(receiver.signal)) as signal:
        assert signal.badge == b"capmarshalsignal"
        send(signal.door, HEAD.pack(VERSION, SIGNAL, 0, 0, 0, 0))
        assert receiver.wait(PATIENCE) == 1


def test_another_version_is_answered(desk):
    """In the server's own, with both numbers."""
    near, far = pair()
    with near:
        with far:
            send(desk.door, HEAD.pack(9, KNOCK, 0, 1, 0, 0), [far.fileno()])
        send(near, HEAD.pack(9, CALL, 0, 0, 0, 1) + b"whatever that version has")
        data, _ = receive(near)
        assert data[:2] == bytes([VERSION, FAIL])
        code, message, _ = unpacked(data[16:])
        assert (code, message) == (10, "version 9 of the protocol; this is version 3")


@pytest.mark.parametrize(
    ("record", "answered"),
    [
        (HEAD.pack(VERSION, CALL, 0, 0, 0, 1), True),
        (HEAD.pack(VERSION, 99, 0, 0, 0, 1), True),
        (HEAD.pack(9, BEGIN, 0, 0, 0, 1) + bytes(12), True),
        (b"less than a head", True),
        (b"less", False),
        (HEAD.pack(VERSION, REPLY, 0, 0, 0, 1), False),
        (HEAD.pack(VERSION, FAIL, 0, 0, 0, 1), False),
        (HEAD.pack(VERSION, KNOCK, 0, 1, 0, 0), False),
        (HEAD.pack(VERSION, GONE, 0, 0, 0, 0), False),
        (HEAD.pack(VERSION, BEGIN, 0, 0, 0, 1), False),
        (HEAD.pack(VERSION, PART, 0, 0, 0, 1) + b"x", False),
        (HEAD.pack(VERSION, GO, 0, 0, 0, 1) + b"x", False),
    ],
)
def test_what_is_no_call_is_answered_or_ends_the_channel(desk, record, answered):
    """By what has come of it."""
    desk.knock()
    send(desk.channel, record)
    data, _ = receive(desk.channel)
    if answered:
        assert (data[:2], unpacked(data[16:])[0]) == (bytes([VERSION, FAIL]), 10)
    else:
        assert not data


def test_a_channel_is_given_up_by_a_word():
    """It says that nothing more was read; its client knocks again."""
    limits = cm.Limits(channels=1)
    with cm.Entrypoint("desk", limits=limits) as entrypoint, held(entrypoint.manage(DeskServer())) as desk:
        with Held(desk.door.dup(), desk.badge) as other:
            assert desk.call("add", 2, 3)[0] == 5
            assert other.call("add", 2, 3)[0] == 5
            assert receive(desk.channel) == (HEAD.pack(VERSION, GONE, 0, 0, 0, 0), [])
            assert receive(desk.channel) == (b"", [])
            assert desk.call("add", 2, 3)[0] == 5
            assert desk.knocks == 2


# The server -------------------------------------------------------------------------------------------------------


class Raise(Exception):
    """What a method raises: names of classes, and a text."""


class HandServer(threading.Thread):
    """One thread that serves some objects behind one door: of each badge, its methods by name.

    A method is given its arguments, the descriptors and capabilities of the table, and the time that is left; it gives
    a value, and what is in the table of the answer, each (what is sent, or None for this door, badge).
    """

    def __init__(self, objects):
        super().__init__(daemon=True)
        self.objects = objects
        self.end, self.client = pair()
        self.end.setblocking(False)
        self.channels, self.refuses, self.knocks = [], 0, 0
        self._wake, self._woken = pair()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._wake.close()
        self.join(PATIENCE)
        assert not self.is_alive()
        for sock in (self.end, self.client, self._woken, *self.channels):
            sock.close()

    def run(self):
        while True:
            ready, _, _ = select.select([self._woken, self.end, *self.channels], [], [])
            if self._woken in ready:
                return
            for sock in ready:
                if sock is self.end:
                    self._open()
                elif not self._serve(sock):
                    self.channels.remove(sock)
                    sock.close()

    def _open(self):
        data, numbers = receive(self.end)
        assert data[1:] == HEAD.pack(VERSION, KNOCK, 0, 1, 0, 0)[1:]
        self.knocks += 1
        self.channels.append(socket.socket(fileno=numbers[0]))

    def _serve(self, channel):
        """Answers one call; whether the channel goes on."""
        if self.refuses:
            # Unread: its client says it again on another one.
            self.refuses -= 1
            return False
        data, numbers = receive(channel)
        if not data:
            return False
        version, kind, entries, descriptors, _, call = HEAD.unpack_from(data)
        assert (version, kind, descriptors) == (VERSION, CALL, len(numbers))
        left, sent_at, size, badge = OF_CALL.unpack_from(data, 16)
        method = data[50 : 50 + size].decode()
        table, end = read_table(data, 50 + size, entries)
        came = [(numbers[slot], badge_of) for slot, badge_of in table]
        waited = max(time.monotonic_ns() - sent_at, 0)
        methods = self.objects.get(badge)
        sent, made = (), b""
        try:
            if methods is None:
                raise Failed(3, "no such object")
            if method not in methods:
                raise Failed(4, f"no method {method}")
            if left != NO_LIMIT and waited >= left:
                raise Failed(5, "too late")
            value, sent = methods[method](unpacked(data[end:]), came, left)
            made = packed(value)
            kind = REPLY
        except Failed as failed:
            kind, made = FAIL, packed([failed.code, failed.message, None])
        except Raise as error:
            kind, made = FAIL, packed([1, "", [list(error.args[:-1]), error.args[-1]]])
        files = [file for file, _ in sent if file is not None]
        slots = iter(range(len(files)))
        lines = [(THIS_DOOR if file is None else next(slots), badge_of) for file, badge_of in sent]
        answer = HEAD.pack(VERSION, kind, len(lines), len(files), 0, call) + pack_table(lines) + made
        for number in set(numbers) - set(files):
            os.close(number)
        send(channel, answer, files)
        for number in set(numbers) & set(files):
            os.close(number)
        return True


A, B = b"a" * 16, b"b" * 16


def objects():
    """What the server by hand serves: a desk, and the one counter that it gives."""
    steps, letters = iter(range(1, 100)), ["a", "b", "c"]

    def find(arguments, _came, _left):
        raise Raise("MissingTea", "KeyError", repr(arguments[0]))

    def pulled(arguments, _came, _left):
        some = letters[: arguments[0]]
        del letters[: arguments[0]]
        return [some, not letters], ()

    desk = {
        "add": lambda arguments, _came, _left: (sum(arguments), ()),
        "text": lambda arguments, _came, _left: (repr(arguments), ()),
        "copy": lambda _arguments, came, _left: (0, [(came[0][0], NO_BADGE)]),
        "find": find,
        "counter": lambda _arguments, _came, _left: (0, [(None, B)]),
        "letters": lambda _arguments, _came, _left: (0, [(None, b"s" * 16)]),
    }
    return {A: desk, B: {"step": lambda _arguments, _came, _left: (next(steps), ())}, b"s" * 16: {"next": pulled}}


@pytest.fixture
def served():
    """The server by hand, and a proxy of capmarshal's."""
    with HandServer(objects()) as server:
        here, there = pair()
        with here, there:
            put(here, server.client, A)
            capability = cm.receive_capability(there, PATIENCE)
        yield server, capability.cast(Desk)
        capability.close()


def test_a_client_of_capmarshals_calls_it(served):
    """With data, by name, with a descriptor there and back, and a capability that it is handed."""
    server, desk = served
    assert [desk.add(2, 3), desk.add(5, 7)] == [5, 12]
    assert desk.text(0.5, digits=1) == "{'': [0.5], 'digits': 1}"
    number = temporary(b"tea")
    with cm.Descriptor(number) as file, desk.copy(file) as back:
        assert os.pread(back.fileno(), 10, 0) == b"tea"
    counter = desk.counter()
    assert [counter.step(), counter.step()] == [1, 2]
    assert isinstance(counter, Counter)
    assert server.knocks == 1


@streams_are_awaited
def test_a_client_of_capmarshals_takes_its_stream(served):
    """Of three items."""
    _, desk = served
    assert list(desk.letters()) == ["a", "b", "c"]


@streams_are_awaited
def test_an_argument_that_is_a_stream(desk):
    """Whoever calls serves it; it is pulled from, and let go."""
    with HandServer(objects()) as server, Held(server.client.dup(), b"s" * 16) as stream:
        assert desk.call("together", Sent(stream)) == ("abc", [])
        assert server.knocks == 1


def test_its_errors_arrive(served):
    """A declared one by the name that its interface knows; and those that have a code."""
    server, desk = served
    with pytest.raises(KeyError, match="tea"):
        desk.find("tea")
    with pytest.raises(cm.UnknownMethod, match="no method zeros"):
        desk.zeros(1)
    del server.objects[A]
    with pytest.raises(cm.StaleCapability):
        desk.add(2, 3)


def test_its_calls_have_their_time(served):
    """What is left is told, and less than there was."""
    server, desk = served
    told = []
    server.objects[A]["add"] = lambda _arguments, _came, left: (told.append(left) or 0, ())
    with cm.timeout(30):
        desk.add(2, 3)
    desk.add(2, 3)
    assert 0 < told[0] <= 30 * 10**9
    assert told[1] == NO_LIMIT


def test_a_call_that_it_has_not_read_is_made_again(served):
    """On new channels, until one is served."""
    server, desk = served
    server.refuses = 3
    assert desk.add(2, 3) == 5
    assert server.knocks == 4


def test_its_epitaph_is_read(served):
    """By who holds the door, when the channel has ended."""
    server, desk = served
    assert desk.add(2, 3) == 5
    send(server.end, HEAD.pack(VERSION, REVOKED, 0, 0, 0, 0) + b"so it is")
    server._wake.close()
    server.join(PATIENCE)
    for sock in (server.end, *server.channels):
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
    with pytest.raises(cm.Revoked, match="so it is"):
        desk.add(2, 3)
