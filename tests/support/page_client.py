"""A client, made from docs/protocol.md alone."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time

from page_records import (
    BEGIN,
    CALL,
    FAIL,
    GONE,
    HEAD,
    KNOCK,
    NO_BADGE,
    NO_LIMIT,
    OF_CALL,
    PATIENCE,
    REPLY,
    REVOKED,
    THIS_DOOR,
    VERSION,
    Gathered,
    pack_table,
    packed,
    pair,
    read_table,
    receive,
    send,
    send_any,
    unpacked,
)


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
            data, numbers = self._answer(method, arguments, by_name, until)
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
        table, numbers, entries = [], [], iter(range(1 << 16))

        def placed(argument):
            if isinstance(argument, list):
                return [placed(one) for one in argument]
            if not isinstance(argument, Sent):
                return argument
            what = argument.what
            table.append((len(numbers), what.badge if isinstance(what, Held) else NO_BADGE))
            numbers.append(what.door.fileno() if isinstance(what, Held) else what)
            if argument.lease is not None:
                table.append((0xFFFF, struct.pack("=HHIQ", 0, len(numbers), 0, 4711)))
                numbers.append(argument.lease)
            return next(entries)

        places = [placed(argument) for argument in arguments]
        now = time.monotonic_ns()
        left = NO_LIMIT if until is None else max(until - now, 0)
        record = HEAD.pack(VERSION, CALL, len(table), len(numbers), 0, self.calls)
        record += OF_CALL.pack(left, now, len(method), self.badge) + method.encode() + pack_table(table)
        record += packed(({"": places} if places else {}) | by_name if by_name else places)
        try:
            refusal = send_any(self.channel, record, numbers, self.calls)
        except (BrokenPipeError, ConnectionResetError):
            return None, ()
        return self._received() if refusal is None else (refusal, ())

    def _received(self):
        unread, long = False, None
        while True:
            try:
                data, numbers = receive(self.channel)
            except (ConnectionResetError, BrokenPipeError):
                unread = True
                continue
            if not data:
                if unread and long is None:
                    return None, ()
                raise MayHaveRun
            version, kind, _, descriptors, _, call = HEAD.unpack_from(data)
            assert (version, descriptors) == (VERSION, len(numbers))
            if kind == GONE:
                assert long is None
                return None, ()
            if call < self.calls:
                for number in numbers:
                    os.close(number)
                continue
            assert call == self.calls
            if kind in (REPLY, FAIL):
                return data, numbers
            if kind == BEGIN:
                long = Gathered(data)
            elif long.add(self.channel, data, numbers):
                return long.data, long.numbers
