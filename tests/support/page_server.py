"""A server, made from docs/protocol.md alone; and what it serves."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time

from page_client import Failed
from page_records import (
    BEGIN,
    CALL,
    FAIL,
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

# Badges of what objects() has.
DESK, COUNTER, LETTERS = b"d" * 16, b"c" * 16, b"l" * 16


class Raise(Exception):
    """What a method raises: names of classes, and a text."""


class PageServer(threading.Thread):
    """One thread that serves some objects behind one door.

    Args:
        objects: by badge, their methods by name.  One is given its arguments, what the table of the call has (numbers
            and badges), and the time that is left; it gives a value, and what the table of the answer is to have:
            numbers and badges, None for a number of this door.

    Attributes:
        knocks: how many came.
        users: the process and the user of each, by the kernel's word.
        refuses: channels that are ended in place of reading them.
        leaves: calls that are read and never answered.
        holds_back: answers that are sent with the next one only.
        version: that it answers in.
    """

    def __init__(self, objects):
        super().__init__(daemon=True)
        self.objects = objects
        self.end, self.client = pair()
        self.end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.knocks, self.users = 0, []
        self.refuses = self.leaves = self.holds_back = 0
        self.version = VERSION
        self._channels, self._held_back = [], []
        self._wake, self._woken = pair()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._leave()
        for sock in (self.end, self.client, self._woken, *self._channels):
            sock.close()

    def _leave(self):
        self._wake.close()
        self.join(PATIENCE)
        assert not self.is_alive()

    def revoke(self, reason):
        """Serves no more, and leaves an epitaph."""
        self._leave()
        send(self.end, HEAD.pack(VERSION, REVOKED, 0, 0, 0, 0) + reason.encode())
        for sock in (self.end, *self._channels):
            sock.shutdown(socket.SHUT_RDWR)

    def run(self):
        while True:
            ready, _, _ = select.select([self._woken, self.end, *self._channels], [], [])
            if self._woken in ready:
                return
            for sock in ready:
                if sock is self.end:
                    self._open()
                elif not self._serve(sock):
                    self._channels.remove(sock)
                    sock.close()

    def _open(self):
        rooms = socket.CMSG_SPACE(253 * 4) + socket.CMSG_SPACE(12)
        data, control, _, _ = self.end.recvmsg(100, rooms, socket.MSG_CMSG_CLOEXEC)
        came = {kind: part for _, kind, part in control}
        assert data == HEAD.pack(VERSION, KNOCK, 0, 1, 0, 0)
        self.knocks += 1
        self.users.append(struct.unpack("=3i", came[2])[:2])  # SCM_CREDENTIALS
        self._channels.append(socket.socket(fileno=struct.unpack("=i", came[socket.SCM_RIGHTS])[0]))

    def _serve(self, channel):
        """Answers one call; whether the channel goes on."""
        if self.refuses:
            # Unread: its client says it again on another one.
            self.refuses -= 1
            return False
        data, numbers = receive(channel)
        if data and data[1] == BEGIN:
            long, last = Gathered(data), False
            while not last:
                last = long.add(channel, *receive(channel))
            data, numbers = long.data, long.numbers
        if not data:
            return False
        if self.leaves:
            self.leaves -= 1
            for number in numbers:
                os.close(number)
            return False
        self._answer(channel, data, numbers)
        return True

    def _answer(self, channel, data, numbers):
        version, kind, entries, descriptors, _, call = HEAD.unpack_from(data)
        assert (version, kind, descriptors) == (VERSION, CALL, len(numbers))
        left, sent_at, size, badge = OF_CALL.unpack_from(data, HEAD.size)
        start = HEAD.size + OF_CALL.size + size
        table, end = read_table(data, start, entries)
        came = [(numbers[slot], badge_of) for slot, badge_of in table]
        sent = ()
        try:
            method = self._method(badge, data[start - size : start].decode())
            if left != NO_LIMIT and max(time.monotonic_ns() - sent_at, 0) >= left:
                raise Failed(5, "too late")
            value, sent = method(unpacked(data[end:]), came, left)
            kind, made = REPLY, packed(value)
        except Failed as failed:
            kind, made = FAIL, packed([failed.code, failed.message, None])
        except Raise as error:
            kind, made = FAIL, packed([1, "", [list(error.args[:-1]), error.args[-1]]])
        files = [file for file, _ in sent if file is not None]
        slots = iter(range(len(files)))
        lines = [(THIS_DOOR if file is None else next(slots), badge_of) for file, badge_of in sent]
        answer = HEAD.pack(self.version, kind, len(lines), len(files), 0, call) + pack_table(lines) + made
        for number in set(numbers) - set(files):
            os.close(number)
        self._held_back.append((answer, files, call))
        if self.holds_back:
            self.holds_back -= 1
            return
        for answer in self._held_back:
            send_any(channel, *answer)
        self._held_back.clear()
        for number in files:
            os.close(number)

    def _method(self, badge, name):
        if badge not in self.objects:
            raise Failed(3, "no such object")
        if name not in self.objects[badge]:
            raise Failed(4, f"no method {name}")
        return self.objects[badge][name]


def objects():
    """A desk, the one counter that it gives, and its letters."""
    steps, letters = iter(range(1, 100)), ["a", "b", "c"]

    def find(arguments, _came, _left):
        raise Raise("MissingTea", "KeyError", repr(arguments[0]))

    def pulled(arguments, _came, _left):
        some = letters[: arguments[0]]
        del letters[: arguments[0]]
        return [some, not letters], ()

    def copies(_arguments, came, _left):
        return list(range(300)), [(os.dup(came[0][0]), NO_BADGE) for _ in range(300)]

    desk = {
        "add": lambda arguments, _came, _left: (sum(arguments), ()),
        "text": lambda arguments, _came, _left: (repr(arguments), ()),
        "copy": lambda _arguments, came, _left: (0, [(came[0][0], NO_BADGE)]),
        "find": find,
        "counter": lambda _arguments, _came, _left: (0, [(None, COUNTER)]),
        "letters": lambda _arguments, _came, _left: (0, [(None, LETTERS)]),
        "zeros": lambda arguments, _came, _left: (bytes(arguments[0]), ()),
        "inodes": lambda _arguments, came, _left: (len({os.fstat(one).st_ino for one, _ in came}), ()),
        "copies": copies,
    }
    step = {"step": lambda _arguments, _came, _left: (next(steps), ())}
    return {DESK: desk, COUNTER: step, LETTERS: {"next": pulled}}
