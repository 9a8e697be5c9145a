"""Records as docs/protocol.md has them, made from that page alone: of sockets, struct, and nothing of the package."""

from __future__ import annotations

import select
import socket
import struct
import time

PATIENCE = 30.0
VERSION, NO_BADGE, THIS_DOOR, NO_LIMIT = 3, bytes(16), 65_534, (1 << 64) - 1
KNOCK, CALL, REPLY, FAIL, BEGIN, PART, GO, GONE, REVOKED, SIGNAL = range(1, 11)
HEAD, OF_CALL, LINE, SIZES = (struct.Struct(f"={each}") for each in ("BBHHHQ", "QQH16s", "H16s", "QI"))
HANDOVER = struct.Struct("=8sII16s")
MAGIC = bytes.fromhex("fe 63 61 70 6d 73 68 6c")
# What goes into one record, and into a part.
_WHOLE, _PART, _DESCRIPTORS = 200_000, 190_000, 253

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


def receive(sock, flags=0, room=262_144):
    """The next record and its descriptors; no bytes at the end."""
    ready, _, _ = select.select([sock], [], [], PATIENCE)
    assert ready, "nothing has come"
    flags |= socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    data, control, lost, _ = sock.recvmsg(room, socket.CMSG_SPACE(253 * 4), flags)
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
    """(the client end of a door, the badge) that wait in a socket, of either kind."""
    if sock.type == socket.SOCK_STREAM:
        data, numbers = receive(sock, room=16)
        data += receive(sock, room=HANDOVER.unpack_from(data + bytes(16))[2] - 16)[0]
    else:
        data, numbers = receive(sock)
    magic, version, size, badge = HANDOVER.unpack_from(data)
    assert (magic, version, size) == (MAGIC, VERSION, len(data))
    if badge == NO_BADGE:
        assert not numbers
        busy = struct.unpack_from("=I", data, 32)[0]
        raise PermissionError(busy, data[36:].decode())
    return socket.socket(fileno=numbers[0]), badge


def put(sock, door, badge):
    """Has a capability wait in a socket."""
    send(sock, HANDOVER.pack(MAGIC, VERSION, HANDOVER.size, badge), [door.fileno()])


def refuse(sock, why, busy):
    """Says in its stead why there is none."""
    size = HANDOVER.size + 4 + len(why.encode())
    send(sock, HANDOVER.pack(MAGIC, VERSION, size, NO_BADGE) + struct.pack("=I", busy) + why.encode())


# Long records, in parts -------------------------------------------------------------------------------------------


def send_any(sock, record, numbers, call):
    """Sends a CALL or its answer, in parts where it is long; what the other side says before it has all of it."""
    if len(record) <= _WHOLE and len(numbers) <= _DESCRIPTORS:
        send(sock, record, numbers)
        return None
    send(sock, HEAD.pack(VERSION, BEGIN, 0, 0, 0, call) + SIZES.pack(len(record), len(numbers)))
    while record or numbers:
        some, numbers = numbers[:_DESCRIPTORS], numbers[_DESCRIPTORS:]
        piece, record = record[:_PART], record[_PART:]
        send(sock, HEAD.pack(VERSION, PART, 0, len(some), 0, call) + piece, some)
        while (record or numbers) and (some or select.select([sock], [], [], 0)[0]):
            data, _ = receive(sock)
            if data[1] != GO:
                return data
            some = ()
    return None


class Gathered:
    """A long record on its way in.

    Args:
        begin: the BEGIN.
    """

    def __init__(self, begin):
        self.call = HEAD.unpack_from(begin)[5]
        self._sizes = SIZES.unpack_from(begin, HEAD.size)
        self.data, self.numbers = b"", []

    def add(self, sock, part, numbers):
        """Adds a PART; whether that was the last."""
        _, kind, _, descriptors, _, call = HEAD.unpack_from(part)
        assert (kind, call, descriptors) == (PART, self.call, len(numbers))
        self.data += part[HEAD.size :]
        self.numbers += numbers
        if (len(self.data), len(self.numbers)) == self._sizes:
            return True
        if numbers:
            send(sock, HEAD.pack(VERSION, GO, 0, 0, 0, call))
        return False
