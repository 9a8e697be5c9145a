"""Who listens to all that a node of NATS carries, and what is in that: nothing that a bridge keeps to itself."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import select
import socket
import ssl
import threading
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from capmarshal._bridge_link.tokens import Token
from patience import PATIENCE, until

# Bytes of a secret that is not found anywhere by chance.
_SHORTEST = 6


class Overheard(NamedTuple):
    """One message."""

    subject: str
    reply: str
    headers: bytes
    body: bytes


class Spy:
    """A client of a node, which subscribes to something, all of it unless told otherwise; in a thread of its own.

    It hears at once what is sent at its own node; of others, once they have told each other of it.  It speaks the
    protocol by itself, so that no program of the package's has a part in what it sees, and uses no event loop: any test
    may have one.

    Attributes:
        heard: all messages, in their order.
        told: what the node refused, in its words.
    """

    def __init__(self, address, subject=">", *, user=None, password=None, tls=None):
        """Listens, from when this returns."""
        self.heard, self.told = [], []
        place = urlsplit(address)
        self._socket = socket.create_connection((place.hostname, place.port), timeout=PATIENCE)
        try:
            self._begin(place.hostname, subject, user, password, tls)
        except BaseException:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        try:
            self.catch_up()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Listens no more."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._socket.close()

    def catch_up(self):
        """Returns when all that its node had for it when this was called has been heard."""
        wanted = self._answers + 1
        self._send(b"PING\r\n")
        until(lambda: self._answers >= wanted or not self._thread.is_alive())
        assert self._answers >= wanted, f"the spy was thrown out: {self.told}"

    def publish(self, subject, body, reply=""):
        """Sends something in another's place; whether it was let, ``told`` says after ``catch_up()``."""
        self._send(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n")

    def say_nobody_is_there(self, subject):
        """Sends what a node sends to whose call nobody serves."""
        headers = b"NATS/1.0 503\r\n\r\n"
        self._send(f"HPUB {subject} {len(headers)} {len(headers)}\r\n".encode() + headers + b"\r\n")

    def subscribe(self, subject):
        """Listens there, too."""
        self._subscriptions += 1
        self._send(f"SUB {subject} {self._subscriptions}\r\n".encode())
        self.catch_up()

    def subjects(self):
        """All that it has seen messages of."""
        return {message.subject for message in self.heard} | {message.reply for message in self.heard} - {""}

    def bodies(self, pattern=""):
        """Of all messages whose subject matches."""
        return [message.body for message in self.heard if re.match(pattern, message.subject)]

    def check_hidden(self, *secrets):
        """None of these is in anything that was overheard: neither as it is, nor in hexadecimal digits, nor in base64.

        Args:
            secrets: text, bytes, or tokens, of which neither name nor key may be seen.
        """
        self.catch_up()
        assert self.heard, "the spy has heard nothing, and so it says nothing"
        everything = b"\n".join(
            message.subject.encode() + b" " + message.reply.encode() + b" " + message.headers + b" " + message.body
            for message in self.heard
        )
        for secret in secrets:
            for form in forms(secret):
                assert form not in everything, f"the spy has seen {form!r}"

    def _begin(self, host, subject, user, password, tls):
        # Byte by byte: what comes after this line may be the beginning of TLS.
        told = b""
        while not told.endswith(b"\r\n"):
            told += self._socket.recv(1)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname=host)
        self._socket.setblocking(False)
        # A connection of TLS is used by one thread at a time.
        self._using = threading.Lock()
        login = {"user": user, "pass": password} if user is not None else {}
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, **login}
        self._answers, self._subscriptions = 0, 1
        self._send(f"CONNECT {json.dumps(options)}\r\nSUB {subject} 1\r\n".encode())

    def _send(self, data):
        deadline = time.monotonic() + PATIENCE
        while data:
            try:
                with self._using:
                    data = data[self._socket.send(data) :]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                assert time.monotonic() < deadline, "the spy's node takes nothing"
                select.select([], [self._socket], [], PATIENCE)

    def _read(self):
        while True:
            try:
                with self._using:
                    return self._socket.recv(1 << 16)
            except (BlockingIOError, ssl.SSLWantReadError):
                # Without an end: close() wakes it.
                select.select([self._socket], [], [])

    def _listen(self):
        parsed = bytearray()
        # What ends it is that the node, or close(), ends the connection.
        with contextlib.suppress(OSError):
            while data := self._read():
                parsed += data
                while self._take(parsed):
                    pass

    def _take(self, parsed):
        """Takes one line, and what belongs to it, if it is there."""
        end = parsed.find(b"\r\n")
        if end < 0:
            return False
        line, size = parsed[:end].decode(), end + 2
        words = line.split()
        if words[0] in ("MSG", "HMSG"):
            sizes = 1 if words[0] == "MSG" else 2
            headed = int(words[-2]) if sizes == 2 else 0
            begin, size = size, size + int(words[-1]) + 2
            if len(parsed) < size:
                return False
            data = bytes(parsed[begin : size - 2])
            reply = words[3] if len(words) == 4 + sizes else ""
            self.heard.append(Overheard(words[1], reply, data[:headed], data[headed:]))
        elif words[0] == "PING":
            self._send(b"PONG\r\n")
        elif words[0] == "PONG":
            self._answers += 1
        elif words[0] == "-ERR":
            self.told.append(line.partition(" ")[2].strip("'"))
        del parsed[:size]
        return True


def forms(secret):
    """In which bytes a secret may stand somewhere."""
    if isinstance(secret, Token):
        _, _, name, key = secret.reveal().split(":")
        return forms(secret.reveal()) | {
            form for part in (name, key) for form in (*forms(part), *forms(bytes.fromhex(part)))
        }
    raw = secret.encode() if isinstance(secret, str) else bytes(secret)
    assert len(raw) >= _SHORTEST, f"{secret!r} is in any bytes by chance"
    found = {raw, raw.hex().encode(), raw.hex().upper().encode()}
    # In base64 it begins at one of three places of a group, and characters at its edges are of its neighbours, too.
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw)
        found.add(whole[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6])
    return found
