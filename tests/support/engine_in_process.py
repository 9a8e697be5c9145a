"""An engine within one event loop, for tests: it loses, delays, repeats, reorders and parts when it is told to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from capmarshal._bridge_engine.awaited_answers import AwaitedAnswers
from capmarshal._bridge_engine.engine import CLOSING, EngineClosed, NobodyThere, NoConnection, check, take_all
from capmarshal._bridge_engine.handling import CONCURRENCY, Handling, tell


@dataclass
class Flight:
    """A body that is on its way from one engine to another."""

    kind: str  # "call", "answer" or "sent"
    subject: str
    body: bytes
    sender: InProcessEngine
    receiver: InProcessEngine
    arrive: object = field(repr=False)


class Network:
    """What several engines have in common.

    Bodies arrive at once, unless ``holding``: then they stay in ``held`` until a test has one of them arrive, or be
    lost, by its place there; as often as it likes, and in any order.

    Attributes:
        judge: says of each flight what becomes of it: "carry", "hold" or "lose"; or "later": it has it land itself.
    """

    def __init__(self):
        self.engines = []
        self.holding = False
        self.held = []
        self.judge = lambda _flight: "hold" if self.holding else "carry"
        self._parted = {}
        self._noticed = False
        # Seen by whoever spies: all that any engine was given.
        self.seen = []

    def engine(self, concurrency=CONCURRENCY):
        """One more that is connected."""
        made = InProcessEngine(self, concurrency)
        self.engines.append(made)
        return made

    def arrive(self, place=0, again=False):
        """Has what is held at that place arrive; and, said so, stay, to arrive once more."""
        flight = self.held[place] if again else self.held.pop(place)
        self.land(flight)

    def lose(self, place=0):
        """What is held at that place never arrives."""
        del self.held[place]

    def release(self):
        """Holds nothing any more: what was held arrives in the order in which it was sent."""
        self.holding = False
        self.judge = lambda _flight: "hold" if self.holding else "carry"
        while self.held:
            self.arrive()

    def part(self, *groups, noticed):
        """Nothing gets from one group of engines to another; and, where that was noticed, is nobody there."""
        self._parted = {engine: number for number, group in enumerate(groups) for engine in group}
        self._noticed = noticed

    def join(self):
        """As before that."""
        self._parted = {}

    def reaches(self, one, other):
        """Whether what one engine sends gets to the other."""
        return self._parted.get(one) == self._parted.get(other)

    def carry(self, flight):
        """Takes what an engine sends."""
        self.seen.append((flight.subject, flight.body))
        verdict = self.judge(flight)
        if verdict == "hold":
            self.held.append(flight)
        elif verdict == "carry":
            # As over any wire: later than whatever the sender does now.
            asyncio.get_running_loop().call_soon(self.land, flight)

    def served(self, subject):
        """How many serve or watch it."""
        return sum(name == subject for engine in self.engines for name, _, _ in engine._subscriptions)

    def known(self, one, other):
        """Whether an engine is told that another serves."""
        return other.connected and (self.reaches(one, other) or not self._noticed)

    def land(self, flight):
        """It arrives, if it can."""
        if flight.receiver.connected and self.reaches(flight.sender, flight.receiver):
            flight.arrive()


class InProcessEngine:
    """One bridge's."""

    def __init__(self, network, concurrency):
        self._network = network
        self._closed, self._over = False, asyncio.Event()
        self._connected = asyncio.Event()
        self._connected.set()
        self._answers = AwaitedAnswers()
        self._handling = Handling(concurrency)
        # Of each subscription: its subject, and a queue with the task that empties it.
        self._subscriptions = []

    @property
    def connected(self):
        """Whether it has a connection."""
        return self._connected.is_set()

    def disconnect(self):
        """Its node is gone."""
        self._connected.clear()

    def connect(self):
        """There is another one."""
        self._connected.set()

    async def serve(self, subject, handler):
        """As the seam says."""

        room = self._handling.room()

        async def take(caller, number, body):
            async def answer(made):
                check(subject, made)
                await self._connected.wait()
                self._fly("answer", subject, made, caller, lambda: caller._answered(number, made))

            self._handling.start(room, handler, body, answer)

        return self._subscribe(subject, take)

    async def call(self, subject, body, *, within, accept=take_all):
        """As the seam says."""
        check(subject, body, within)
        self._check_open()
        self._check_connected()
        body = bytes(body)
        with self._answers.expect(accept) as awaited:
            there = self._network_subscriptions(subject)
            if not there:
                await asyncio.sleep(0)
                awaited.fail(NobodyThere(f"nobody serves {subject}"))
            for engine, queue in there:
                entry = (self, awaited.number, body)
                self._fly("call", subject, body, engine, lambda queue=queue, entry=entry: queue.put_nowait(entry))
            return await awaited.wait(within)

    async def watch(self, subject, watcher):
        """As the seam says."""

        async def take(_sender, _number, body):
            await tell(watcher, body)

        return self._subscribe(subject, take)

    async def send(self, subject, body):
        """As the seam says."""
        check(subject, body)
        self._check_open()
        self._check_connected()
        body = bytes(body)
        for engine, queue in self._network_subscriptions(subject):
            self._fly("sent", subject, body, engine, lambda queue=queue: queue.put_nowait((self, "", body)))
        await asyncio.sleep(0)

    async def close(self, *, within=CLOSING):
        """As the seam says."""
        if self._closed:
            await self._over.wait()
            return
        self._closed = True
        for subscription in list(self._subscriptions):
            await self._stop(subscription)
        await self._handling.finish(within)
        self._answers.fail_all("the engine was closed before an answer had come")
        self._network.engines.remove(self)
        self._over.set()

    def _fly(self, kind, subject, body, receiver, arrive):
        self._network.carry(Flight(kind, subject, body, self, receiver, arrive))

    def _answered(self, number, body):
        if awaited := self._answers.find(number):
            awaited.come(body)

    def _network_subscriptions(self, subject):
        return [
            (engine, queue)
            for engine in self._network.engines
            if self._network.known(self, engine)
            for name, queue, _ in engine._subscriptions
            if name == subject
        ]

    def _subscribe(self, subject, take):
        check(subject)
        self._check_open()
        queue = asyncio.Queue()

        async def empty():
            while True:
                await take(*await queue.get())

        subscription = (subject, queue, asyncio.create_task(empty()))
        self._subscriptions.append(subscription)
        return lambda: self._stop(subscription)

    async def _stop(self, subscription):
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            _, _, task = subscription
            task.cancel()
            await asyncio.wait([task])

    def _check_open(self):
        if self._closed:
            raise EngineClosed("the engine was closed")

    def _check_connected(self):
        if not self.connected:
            raise NoConnection("the engine has no connection to any node")


class Slow:
    """An engine of which nothing is served until it may go on: as where its node takes its time.

    Attributes:
        go: set when it may.
    """

    def __init__(self, engine):
        self.go = asyncio.Event()
        self._engine = engine

    def __getattr__(self, name):
        return getattr(self._engine, name)

    async def serve(self, subject, handler):
        """As the seam says."""
        await self.go.wait()
        return await self._engine.serve(subject, handler)
