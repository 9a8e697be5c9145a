"""Who has a token and speaks the bridges' protocol by hand, and badly: what is sealed is genuine, and what it says not.

Only how bodies are sealed, and messages written down, is the package's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from capmarshal._bridge_link import messages
from capmarshal._bridge_link.agreeing import Half
from capmarshal._bridge_link.messages import ANSWER, Kind, written
from capmarshal._bridge_link.sealing import Direction, Label, NotGenuine, Seal
from capmarshal._bridge_link.tokens import Token

NO_LEASE = bytes(16)


class Refused(Exception):
    """What it wanted was not done."""


class HostileImporter:
    """One link that it has made.

    Attributes:
        heard: what it was asked: (kind, message).
        answers: by kind: what it answers, a function of the message; None: it does not.
        ahead: how much later the other's clock is.
    """

    def __init__(self, engine, token, name="evil", clocks=time):
        self.heard = []
        self.answers = {
            Kind.PING: lambda _ping: messages.Pong(self.now(), []),
            Kind.BYE: lambda _bye: messages.Taken(),
            Kind.DONE: lambda _done: messages.Taken(),
            Kind.RING: lambda _ring: messages.Taken(),
        }
        self.engine, self.token, self._name, self._clocks = engine, token, name, clocks
        self._stop = None
        self._pings = 0

    def now(self):
        """What its clock shows: that of the machine."""
        return self._clocks.clock_gettime_ns(time.CLOCK_BOOTTIME)

    async def join(self, *, name=None, clock=None, half=None, own=None, link_name=None):
        """Joins the exporter of its token."""
        asks, hears = Seal(self.token, Direction.TO_EXPORTER), Seal(self.token, Direction.TO_IMPORTER)
        self.lease = os.urandom(16)
        hello = await self._ask(
            self.token.subject, asks, hears, Label(Kind.HELLO, os.urandom(16), NO_LEASE), messages.Hello(1)
        )
        answer = messages.read(hello[1], messages.HelloAnswer)
        self.ahead = answer.clock - self.now()
        own, link_name = own or Half(), link_name or os.urandom(16)
        self.link = Token(self.token.exporter, link_name, own.key(answer.half, self.token, link_name))
        at_importer = f"cm.{self._name if name is None else name}.{self.link.subject.rpartition('.')[2]}"
        out, back = Direction.TO_EXPORTER, Direction.TO_IMPORTER
        self._asks, self._hears = Seal(self.link, out), Seal(self.link, back)
        self._takes, self._gives = Seal(self.link, back, at_importer), Seal(self.link, out, at_importer)
        await self.close()
        self._stop = await self.engine.serve(at_importer, self._serve)
        halves = own.public if half is None else half, answer.half
        shown = self.now() if clock is None else clock
        join = messages.Join(link_name, *halves, name or self._name, self.lease, shown)
        label = Label(Kind.JOIN, os.urandom(16), answer.instance, expires=self.expiry(1))
        kind, plain = await self._ask(self.token.subject, asks, hears, label, join)
        if kind != Kind.JOIN | ANSWER:
            raise Refused(messages.read(plain, messages.Refused).words)
        self.their_lease = messages.read(plain, messages.Joined).lease
        return self

    def expiry(self, within):
        """So many seconds from now, by the other's clock."""
        return self.now() + self.ahead + int(within * 1e9)

    async def ask(self, kind, message, *, number=None, within=2.0):
        """Asks once: (kind of the answer, its message); bytes are sealed as they are."""
        label = Label(kind, number or os.urandom(16), self.their_lease, expires=self.expiry(min(within, 5)))
        came, plain = await self._ask(self.link.subject, self._asks, self._hears, label, message, within=within)
        if came == messages.REFUSED:
            return came, messages.read(plain, messages.Refused)
        kinds = {
            Kind.OPEN: messages.Opened,
            Kind.CALL: messages.ANSWER_TO_CALL,
            Kind.PING: messages.Pong,
            Kind.FETCH: messages.Fetched,
            Kind.PAIR: messages.Paired,
        }
        return came, messages.read(plain, kinds.get(came & ~ANSWER, messages.Taken))

    async def open(self, *, number=None, within=6.0):
        """What the token stands for: its number."""
        question = messages.Open(self.token.subject, self.token.proof(self.link))
        kind, answer = await self.ask(Kind.OPEN, question, number=number, within=within)
        if kind == messages.REFUSED:
            raise Refused(answer.words)
        return answer.number

    async def call(self, number, method, payload, table=(), *, call=None, client=0, deadline=0):
        """The outcome of a call, or that it runs.

        Raises:
            Refused: it was not taken, or has failed.
        """
        question = messages.Call(number, method, payload, list(table), deadline, client)
        kind, answer = await self.ask(Kind.CALL, question, number=call)
        if kind == messages.REFUSED:
            raise Refused(answer.words)
        if isinstance(answer, messages.Failed):
            raise Refused(answer.fault)
        return answer

    async def ping(self, **said):
        """Says it lives, and more."""
        self._pings += 1
        fields = {"number": self._pings, "asked": [], "ended": [], "given_up": [], "released": [], "gone": []} | said
        return await self.ask(Kind.PING, messages.Ping(**fields))

    async def close(self):
        """Is there no more, and says nothing."""
        if self._stop is not None:
            await self._stop()
            self._stop = None

    async def _ask(self, subject, asks, hears, label, message, within=2.0):
        body = asks.seal(label, message if isinstance(message, bytes) else written(message))
        come = []

        def accept(answer):
            with contextlib.suppress(NotGenuine):
                found, plain = hears.open(answer)
                if found.call == label.call:
                    come.append((found.kind, plain))
                    return True
            return False

        await self.engine.call(subject, body, within=within, accept=accept)
        return come[0]

    async def _serve(self, body):
        try:
            label, plain = self._takes.open(body)
        except NotGenuine:
            return b""
        message = messages.read(plain, messages.QUESTIONS[label.kind])
        self.heard.append((label.kind, message))
        made = self.answers.get(label.kind)
        if made is None:
            await asyncio.sleep(3600)
            return b""
        answer = made(message)
        if isinstance(answer, tuple):
            kind, answer = answer
        else:
            kind = label.kind | ANSWER
        return self._gives.seal(
            Label(kind, label.call, self.lease), answer if isinstance(answer, bytes) else written(answer)
        )
