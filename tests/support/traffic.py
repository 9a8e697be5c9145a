"""Calls by an engine without end, and what is true of them whatever is killed, stopped and parted meanwhile."""

from __future__ import annotations

import asyncio

import engines
from capmarshal._bridge_engine.engine import NotSent, Unanswered


class Traffic:
    """Calls without end, and what became of each: none may have run of which it is said that it never will."""

    def __init__(self, caller, server, *, within=1, subject="cm.host.traffic"):
        self._caller, self._server, self._within, self._subject = caller, server, within, subject
        self.ran, self.answered, self.not_sent, self.unknown = [], [], [], []
        self._go_on = True

    async def __aenter__(self):
        async def serve(body):
            self.ran.append(body)
            return b"answer to " + body

        await self._server.serve(self._subject, serve)
        await engines.answered(self._caller, self._subject, b"first")
        self._tasks = [asyncio.create_task(self._call(number)) for number in range(8)]
        return self

    async def __aexit__(self, *_exception):
        self._go_on = False
        await asyncio.gather(*self._tasks)

    async def _call(self, who):
        number = 0
        while self._go_on:
            body = b"%d.%d" % (who, number)
            number += 1
            try:
                assert await self._caller.call(self._subject, body, within=self._within) == b"answer to " + body
                self.answered.append(body)
            except NotSent:
                self.not_sent.append(body)
                await asyncio.sleep(0.005)  # a pause: it fails at once, and again
            except Unanswered:
                self.unknown.append(body)

    async def more(self, count=100):
        """Returns when so many more were answered."""
        wanted = len(self.answered) + count
        await engines.awaited(lambda: len(self.answered) >= wanted)

    async def refused(self):
        """Returns when one more was refused."""
        before = len(self.not_sent)
        await engines.awaited(lambda: len(self.not_sent) > before)

    def check(self):
        """What is true of it, whatever was killed."""
        assert not set(self.not_sent) & set(self.ran)
        assert set(self.answered) <= set(self.ran)
        calls = [body for body in self.ran if body != b"first"]
        assert len(calls) == len(set(calls))
