"""What one end of a link tells the other now and then: that it lives, what it does not need any more, what has ended.

One ping at a time, asked until it is answered, each with its number: so all that it says is taken once.  It is sent
every second, and at once where somebody waits for what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from capmarshal._bridge_link.asking import NotTaken
from capmarshal._bridge_link.link import PINGING, LinkLost
from capmarshal._bridge_link.messages import Kind, Ping, Pong, State
from capmarshal._bridge_link.sealing import CALL_BYTES, NotGenuine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from capmarshal._bridge_link.link import Link
    from capmarshal._bridge_link.sealing import Label

    # Takes what a ping says, one thing after the other, and puts down what has become of the calls that it asks for.
    Take: TypeAlias = Callable[[Ping, list[State]], Iterator[None]]

T = TypeVar("T")

# Of each sort, so many go into one ping, which has to fit into a body.
_MOST = 10_000

# So many things of a ping are taken before it is somebody else's turn.
_A_TURN = 250

# So much waits to be released at most: more than may be held here of one link, so that it waits for who answers late.
_RELEASED_MOST = 500_000

# Bytes of why something is gone.
_WHY_MOST = 1_000

# When so many calls have ended, or of so many bytes, the other is told at once: it keeps what they were answered.
_ENDED_MOST = 256
_KEPT_MOST = 1 << 20


class Pinging:
    """One end's, for as long as its link lasts."""

    def __init__(self, link: Link, *, asked: Callable[[], Iterable[bytes]], gone: Callable[[], Iterable[int]]) -> None:
        """None yet.

        Args:
            link: borrowed.
            asked: the calls of which it is not known whether they have come, besides those that are given up.
            gone: the numbers of what has gone since it was asked last.
        """
        self._link = link
        self._asked = asked
        self._look_for_gone = gone
        self._at_once = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._number = 0
        self._ended: list[bytes] = []
        self._kept = 0
        self._given_up: list[bytes] = []
        self._released: list[tuple[int, int]] = []
        self._gone: list[tuple[int, str | None]] = []
        # Of the other's: the last one that was taken, and what it was answered.
        self._last: tuple[int, list[State]] = (0, [])
        self._take: Take = lambda _ping, _states: iter(())
        # The one that is being taken, which has much to say.
        self._taking: tuple[int, asyncio.Task[None]] | None = None

    # What is told ---------------------------------------------------------------------------------------------------

    def ended(self, call: bytes, size: int) -> None:
        """The outcome of a call has been heard, of so many bytes, which the other keeps until it is told."""
        self._ended.append(call)
        self._kept += size
        if len(self._ended) >= _ENDED_MOST or self._kept > _KEPT_MOST:
            self._kept = 0
            self.at_once()

    def given_up(self, call: bytes, *, again: bool = False) -> None:
        """The outcome of a call has not been heard, and is not wanted any more; whether it has come is asked for.

        At once, unless that was not said, and it is asked ``again``.
        """
        self._given_up.append(call)
        if not again:
            self.at_once()

    def released(self, number: int, mentions: int) -> None:
        """What the other has exported is not held here any more; from any thread."""
        self._released.append((number, mentions))
        if len(self._released) == _RELEASED_MOST and self._loop is not None:
            why = "it mentions more than it lets itself be told that nobody has"
            self._loop.call_soon_threadsafe(self._link.lose, why)

    def gone(self, number: int, why: str | None) -> None:
        """What was exported can't be called any more."""
        self._gone.append((number, None if why is None else _kept(why)))
        self.at_once()

    def at_once(self) -> None:
        """Somebody waits for what the next ping says."""
        self._at_once.set()

    async def run(self, told: Callable[[bytes, State], None]) -> None:
        """Pings until the link is lost; what has become of calls that were asked for is told."""
        self._loop = asyncio.get_running_loop()
        pinging = asyncio.create_task(self._ping(told))
        try:
            while not pinging.done():
                left = self._link.clock.left
                if left <= 0:
                    self._link.lose("it has not been heard of for as long as a lease lasts")
                    return
                await asyncio.wait([pinging], timeout=left)
        finally:
            pinging.cancel()
            # Looked at, also where this was cancelled: it has a fault, or was told of the loss first.
            with contextlib.suppress(asyncio.CancelledError, LinkLost):
                await pinging

    async def _ping(self, told: Callable[[bytes, State], None]) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PINGING):
                    await self._at_once.wait()
            self._at_once.clear()
            self._gone += [(number, None) for number in self._look_for_gone()]
            ping, asked = self._next()
            try:
                pong = await self._link.insist(Kind.PING, ping, Pong)
                self._link.clock.show(pong.clock)
            except (NotTaken, NotGenuine) as error:
                # It has lost this one, and still answers.
                self._link.lose(str(error))
                return
            for call, state in zip(asked, pong.states, strict=False):
                told(call, state)

    def _next(self) -> tuple[Ping, list[bytes]]:
        self._number += 1
        given_up = _taken(self._given_up)
        asked = [*given_up, *self._asked()][:_MOST]
        ping = Ping(
            self._number,
            asked,
            _taken(self._ended),
            given_up,
            _taken(self._released),
            _taken(self._gone, _MOST // 100),
        )
        if self._ended or self._given_up or self._gone or self._released:
            # Too many for one.
            self.at_once()
        return ping, asked

    # What is heard --------------------------------------------------------------------------------------------------

    def hear(self, take: Take) -> None:
        """Has the other's pings taken by that, each once; it gives the states of the calls that were asked for."""
        self._take = take
        self._link.answer(Kind.PING, self._heard)

    def _heard(self, _label: Label, ping: Ping) -> Pong | Awaitable[Pong]:
        number, states = self._last
        if self._taking is not None:
            number, taking = self._taking
            if ping.number != number:
                raise NotTaken("one ping was sent beside another one")
            return self._answered(ping, taking)
        if ping.number > number:
            said = [len(each) for each in (ping.asked, ping.ended, ping.given_up, ping.released, ping.gone)]
            if max(said) > _MOST or any(len(call) != CALL_BYTES for call in ping.asked):
                raise NotTaken(f"a ping says {_MOST:,} things of a sort at most")
            states = []
            steps = self._take(ping, states)
            if sum(said) > _A_TURN:
                taking = self._link.run(self._take_in_turns(ping, steps, states))
                self._taking = ping.number, taking
                return self._answered(ping, taking)
            for _ in steps:
                pass
            self._last = ping.number, states
        return self._pong(ping)

    async def _take_in_turns(self, ping: Ping, steps: Iterator[None], states: list[State]) -> None:
        for count, _ in enumerate(steps, 1):
            if count % _A_TURN == 0:
                await asyncio.sleep(0)
        self._last = ping.number, states
        self._taking = None

    async def _answered(self, ping: Ping, taking: asyncio.Task[None]) -> Pong:
        await asyncio.wait([taking])
        return self._pong(ping)

    def _pong(self, ping: Ping) -> Pong:
        number, states = self._last
        return Pong(self._link.renew(), states if ping.number >= number else [])


def _taken(waiting: list[T], most: int = _MOST) -> list[T]:
    """The first of what waits, which does not any more."""
    taken = waiting[:most]
    # No more than were taken: what another thread, or a finalizer here, adds in between stays.
    del waiting[: len(taken)]
    return taken


def _kept(why: str) -> str:
    """What is told of a reason, as an entrypoint keeps it: any text may be one, and no other text can be sent."""
    return why.encode(errors="replace")[:_WHY_MOST].decode(errors="ignore")
