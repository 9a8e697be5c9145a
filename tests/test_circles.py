"""Calls that go back and forth between two servers: what ends them where each waits for the other."""

from __future__ import annotations

import logging

import anyio
import pytest

import capmarshal as cm
from capmarshal import aio
from loops import LOOPS, run
from patience import PATIENCE, until

COLOURS = ["blocking", *LOOPS]

# Seconds; longer than calls take that wait for nobody.
SHORT = 0.5


class Player(cm.Interface):
    """Plays with another one; ``rounds`` calls after this one."""

    @cm.method
    def play(self, other: Player, rounds: int) -> int: ...


class AwaitedPlayer(cm.Interface):
    @cm.method
    async def play(self, other: AwaitedPlayer, rounds: int) -> int: ...


class _Blocking(Player):
    def play(self, other, rounds):
        return 1 + other.play(self, rounds - 1) if rounds else 0


class _Awaited(AwaitedPlayer):
    async def play(self, other, rounds):
        return 1 + await other.play(self, rounds - 1) if rounds else 0


class _Lines(logging.Handler):
    """Writes what is logged to a file of the test's."""

    def __init__(self, path):
        super().__init__(logging.WARNING)
        self._path = path
        self.setFormatter(logging.Formatter())

    def emit(self, record):
        with self._path.open("a") as file:
            file.write(self.format(record) + "\n")


def _serve(path, colour, concurrency):
    """A server in one of the colours, in a process of its own; until that is killed."""
    logging.getLogger("capmarshal").addHandler(_Lines(path.with_suffix(".log")))
    logging.getLogger("capmarshal").propagate = False
    if colour == "blocking":
        with cm.Entrypoint(path.name) as entrypoint:
            entrypoint.listen(path, _Blocking())
            until(lambda: False, 10 * PATIENCE)

    async def main():
        async with aio.Entrypoint(path.name, concurrency=concurrency) as entrypoint:
            entrypoint.listen(path, _Awaited())
            await anyio.sleep_forever()

    run(colour, main, seconds=10 * PATIENCE)


def _connect(path):
    """Once it listens; its file is there before."""

    def connected():
        try:
            return cm.connect(path, PATIENCE)
        except cm.Disconnected:
            return None

    until(path.exists)
    return until(connected).cast(Player)


@pytest.fixture
def players(fork, tmp_path):
    """Makes two servers, which may have so many calls running: proxies of the one that begins, and of the other."""
    made = []

    def start(colours, concurrency=1):
        paths = [tmp_path / "ping", tmp_path / "pong"]
        for path, colour in zip(paths, colours, strict=True):
            made.append(fork(lambda path=path, colour=colour: _serve(path, colour, concurrency)))
        return [*map(_connect, paths), made]

    yield start
    for child in made:
        child.kill()


def _plays(first, second):
    """Whether calls go back and forth that wait for nobody."""
    with cm.timeout(PATIENCE):
        return first.play(second, 1) == second.play(first, 1) == 1


def _is_late(first, second):
    """Begins a circle that a deadline ends: that of who has begun, or, as soon, that of the first one's own call."""
    with cm.timeout(SHORT), pytest.raises((cm.CallTimeout, cm.RemoteError)) as caught:
        first.play(second, 20)
    error = caught.value
    assert error.ran == "maybe" if isinstance(error, cm.CallTimeout) else error.type == "CallTimeout"


@pytest.mark.parametrize("colours", [*zip(COLOURS, COLOURS, strict=True), ("blocking", "asyncio")])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_deadline_ends_a_circle(players, colours, concurrency):
    """Where each waits for the other; and both serve on."""
    first, second, _ = players(colours, concurrency)
    assert _plays(first, second)
    _is_late(first, second)
    assert _plays(first, second)


def test_a_method_that_waits_says_at_its_deadline_that_each_may_wait_for_the_other(players, tmp_path):
    """In the log of a server that takes one call at a time, which knows that it has taken no other meanwhile."""
    first, second, _ = players(("blocking", "blocking"))
    _is_late(first, second)
    said = "if the server waited for it in turn, each waited for the other"
    until(lambda: any(said in log.read_text() for log in tmp_path.glob("*.log")))


@pytest.mark.parametrize("colour", list(LOOPS))
def test_servers_in_event_loops_say_that_a_call_waits_and_the_end_of_who_has_begun_ends_the_circle(
    players, colour, fork, tmp_path
):
    """Also where it has no deadline: it is cancelled, and so is what its methods await, one after the other."""
    first, second, _ = players((colour, colour))
    began = fork(lambda: first.play(second, 20))
    said = "a call waits until another ends"
    until(lambda: any(said in log.read_text() for log in tmp_path.glob("*.log")))
    began.kill()
    assert _plays(first, second)


def test_blocking_servers_wait_for_each_other_until_one_of_them_ends(players, fork):
    """Without a deadline: who has begun the circle does not end it, since a method that blocks is not cancelled."""
    first, second, (_, other) = players(("blocking", "blocking"))
    began = fork(lambda: first.play(second, 20))
    for each in (first, second):
        until(lambda each=each: not _answers(each))
    began.kill()
    assert not _answers(first)
    assert not _answers(second)
    other.kill()
    until(lambda: _answers(first))


def _answers(player):
    """Whether a call that needs nobody else is answered, in a while."""
    try:
        with cm.timeout(SHORT):
            return player.play(player, 0) == 0
    except cm.CallTimeout:
        return False
