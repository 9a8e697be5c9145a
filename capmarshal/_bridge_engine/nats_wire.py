"""What comes from a node of NATS by one connection: bodies are taken out of it, and nats-py is given the rest.

With nats-py alone each body waits three times for a task that is woken: the one that reads, the one of its
subscription, and the one that serves it.  Here it is taken where it is received.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    # What takes a message: of its subject, of whom an answer is to go to, its body.
    Taker: TypeAlias = Callable[[bytes, bytes, bytes], None]

_logger = logging.getLogger("capmarshal")

_END = b"\r\n"
_END_BYTES = len(_END)
_HAVE_BODIES = (b"MSG ", b"HMSG ")

# Bytes of a line: https://docs.nats.io/reference/reference-protocols/nats-protocol; INFO is the longest, and has the
# addresses of all nodes in it.
_LINE_MOST = 1 << 20


class Incoming(asyncio.Protocol):
    """Takes the place of nats-py's protocol, which it has beneath it, at the connection's transport.

    Attributes:
        count: messages that were taken.
        heard: how often anything came.
    """

    def __init__(self, beneath: asyncio.Protocol, unread: bytes, most: int) -> None:
        """From the next byte on that is received.

        Args:
            beneath: that of nats-py; it was given all until now, of which no line was a message.
            unread: the last of that, as far as it knows it.
            most: bytes that a body may have; who sends more is no node.
        """
        self._beneath = beneath
        self._most = most
        self._takers: dict[bytes, Taker] = {}
        # What came of something that is not whole yet; and how long that is, if that is known.
        self._left = bytearray()
        self._wanted = 0
        # The rest of a line that nats-py has begun to read; or all, since that is not what a node says.
        self._within_line = bool(unread) and not unread.endswith(_END)
        self._passing = False
        self.count = self.heard = 0

    def take(self, subscription: int, taker: Taker) -> None:
        """Has the messages of a subscription taken, which nats-py then hears nothing of."""
        self._takers[b"%d" % subscription] = taker

    def leave(self, subscription: int) -> None:
        """It has ended."""
        self._takers.pop(b"%d" % subscription, None)

    # What a transport says ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Takes what is whole, and keeps the rest."""
        self.heard += 1
        if self._left:
            self._left += data
            if len(self._left) < self._wanted:
                return
            data, self._left = bytes(self._left), bytearray()
        self._wanted = 0
        at = 0
        if self._within_line:
            at = data.find(b"\n") + 1 or len(data)
            self._within_line = not data.endswith(b"\n", 0, at)
            self._pass(data[:at])
        while at < len(data) and not self._passing:
            after = self._next(data, at)
            if not after:
                break
            at = after
        if self._passing:
            self._pass(data[at:])
        elif at < len(data):
            self._left += memoryview(data)[at:]

    def eof_received(self) -> bool | None:
        """Told to nats-py."""
        return self._beneath.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Likewise."""
        self._takers.clear()
        self._beneath.connection_lost(error)

    def pause_writing(self) -> None:
        """Likewise."""
        self._beneath.pause_writing()

    def resume_writing(self) -> None:
        """Likewise."""
        self._beneath.resume_writing()

    # What a node says -----------------------------------------------------------------------------------------------

    def _next(self, data: bytes, at: int) -> int:
        """Takes what begins there, and says where it ends; 0 where it has not come to its end."""
        end = data.find(_END, at)
        if end < 0:
            self._passing = len(data) - at > _LINE_MOST
            return 0
        begin = after = end + _END_BYTES
        if data.startswith(_HAVE_BODIES, at):
            # Its subject, the subscription, where an answer is to go to, if anywhere, and how long it is; of one that
            # has headers, how long these are, besides.
            words = data[at:end].split()
            count, size_word = len(words), words[-1]
            size = int(size_word) if count > 3 and size_word.isdigit() and len(size_word) < 10 else -1
            if not 0 <= size <= self._most:
                self._passing = True
                return 0
            end = begin + size
            after = end + _END_BYTES
            if after > len(data):
                self._wanted = after - at
                return 0
            if words[0] == b"MSG" and (taker := self._takers.get(words[2])) is not None:
                self.count += 1
                try:
                    taker(words[1], words[3] if count > 4 else b"", data[begin:end])
                except Exception:
                    _logger.exception("what takes a body from a bridge's engine raised")
                return after
        self._pass(data[at:after])
        return after

    def _pass(self, data: bytes) -> None:
        if data:
            self._beneath.data_received(data)
