"""Ctrl-C between any two steps, of a server's turns and of a client's call: nobody waits for ever, and nothing is lost.

Where ``test_signals.py`` sends signals at random moments, this goes from one place to the next.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import warnings
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import reaper
from capmarshal._testing import leaks
from interrupting import Interrupting, serve_interrupted
from patience import PATIENCE

PACKAGE = Path(cm.__file__).parent
# How an entrypoint is entered and left is swept in test_service.py.
ELSEWHERE = ("service", "session", "letting_go", "journal")
SERVER = [path for path in (PACKAGE / "_server").glob("*.py") if path.stem not in ELSEWHERE]
# Places from one try to the next, in one process.
STRIDE = 6
CLIENT = [*(PACKAGE / "_client").glob("*.py"), *(PACKAGE / "_typed").glob("*.py"), PACKAGE / "_kernel/deadline.py"]


def _calls(proxy, capability):
    """Calls by which a channel comes to be in each state, and by which a peer comes and goes."""
    with by_hand.pipe() as (reader, writer):
        yield lambda: proxy.count([reader, writer])
        yield lambda: proxy.echo(reader).close()
        yield lambda: proxy.double(1)
        # With its last channel, the peer's pidfd is closed.
        open_door_of(capability).idle.clear()
        yield lambda: [file.close() for file in proxy.pipes(2)]
        yield lambda: len(proxy.blob(300_000))
        yield lambda: proxy.double(1)


def _make_calls(entrypoint, capability):
    """Makes them all, whatever becomes of one, and closes the entrypoint; how many were answered."""
    answered = 0
    try:
        for call in _calls(capability.cast(by_hand.Work), capability):
            # All in all less than the test waits for the process, so that it says where.
            with contextlib.suppress(cm.Disconnected, cm.RemoteError), cm.timeout(PATIENCE / 3):
                call()
                answered += 1
    finally:
        entrypoint.close()
    return answered


def _serve(at):
    """Serves these calls, interrupted at one place; where that was, and how many were answered."""
    entrypoint = cm.Entrypoint("swept")
    capability = entrypoint.manage(by_hand.Worker())
    client = by_hand.Concurrent(_make_calls, entrypoint, capability)
    where = serve_interrupted(entrypoint, at, SERVER)
    answered = client.outcome()
    capability.close()
    channels = entrypoint._service._server._channels
    assert (len(channels), any(channels.ledger.total)) == (0, False), where
    return where, answered


@pytest.mark.parametrize("first", range(0, STRIDE, 2))
def test_ctrl_c_between_two_steps_of_a_turn_leaves_nobody_waiting(fork, first):
    """Each call ends, at most two by an error; the next is served, and no descriptor stays open."""

    def sweep():
        logging.disable(logging.CRITICAL)
        # What Ctrl-C keeps from being returned is found unclosed, and pytest would keep what says so.
        warnings.simplefilter("ignore", ResourceWarning)
        _serve(1 << 30)
        before, at = leaks.settled(3), first
        while True:
            where, answered = _serve(at)
            assert answered >= 4, where
            if not where:
                break
            at += STRIDE
        return at, leaks.left(before)

    at, wrong = fork(sweep).result()
    assert at > 500
    assert wrong == []


def test_ctrl_c_between_two_steps_of_pausing_the_door_leaves_no_door_shut():
    """Nor one that is watched twice: whoever knocks later is let in."""
    at = 0
    while True:
        entrypoint = cm.Entrypoint("paused")
        capability = entrypoint.manage(by_hand.Worker())
        server = entrypoint._service._server
        interrupting = Interrupting(at, KeyboardInterrupt, SERVER)
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            server._doorkeeper.watch.pause()
            server._doorkeeper.watch.resume()
        with entrypoint, cm.timeout(PATIENCE):
            assert capability.cast(by_hand.Work).double(1) == 2, interrupting.where
        capability.close()
        if not interrupting.where:
            break
        at += 1
    assert at > 10


class Stop(Exception):
    """What a program's own handler of SIGALRM raises, say."""


def _cause_is_stop(error):
    while error is not None and not isinstance(error, Stop):
        error = error.__cause__ or error.__context__
    return error is not None


@pytest.mark.parametrize("kind", ["data", "descriptors", "long"])
def test_what_a_signal_handler_raises_in_a_call_is_not_swallowed(kind, open_descriptors):
    """Wherever it is raised: the program that has said that it wants to stop does not go on as if nothing were."""
    with by_hand.serving() as capability, by_hand.temporary() as file, cm.timeout(PATIENCE):
        proxy = capability.cast(by_hand.Work)
        call = {
            "data": lambda: proxy.double(1),
            "descriptors": lambda: proxy.echo(file).close(),
            "long": lambda: proxy.size(bytes(300_000)),
        }[kind]
        call()
        gc.collect()
        # A result that Stop keeps from being returned is found unclosed.
        warnings.simplefilter("ignore", ResourceWarning)
        before, at = open_descriptors(), 0
        while True:
            interrupting = Interrupting(at, Stop, CLIENT)
            raised = None
            try:
                with interrupting:
                    call()
            except (Stop, cm.Error) as error:
                raised = error
            if not interrupting.where:
                break
            assert _cause_is_stop(raised), interrupting.where
            at += 1
            call()
        assert raised is None
        assert at > 5
        raised = None
        gc.collect()
        open_door_of(capability).idle.clear()
        assert reaper.wait(PATIENCE)
        assert len(open_descriptors() - before) <= 1


DEADLINES = [PACKAGE / "_kernel/deadline.py", PACKAGE / "_client/proxy.py", PACKAGE / "_server/calls.py"]


class Limited(cm.Interface):
    """Calls itself, within the limit of its caller."""

    @cm.method
    def nothing(self) -> None: ...
    @cm.method
    def interrupted(self, at: int) -> tuple[str, float]: ...


class LimitedServer(Limited):
    def nothing(self) -> None:
        pass

    def interrupted(self, at: int) -> tuple[str, float]:
        interrupting = Interrupting(at, Stop, DEADLINES)
        with contextlib.suppress(Stop, cm.RemoteError), interrupting:
            self.inline.nothing()
        return interrupting.where, cm.remaining()


def _block():
    with cm.timeout(50):
        pass


def _generator():
    def bounded():
        with cm.timeout(50):
            yield

    block = bounded()
    next(block)
    block.close()


def _stack():
    with contextlib.ExitStack() as stack:
        stack.enter_context(cm.timeout(50))


@pytest.mark.parametrize("kind", ["block", "generator", "stack", "proxy", "served"])
def test_ctrl_c_where_a_limit_begins_or_ends_leaves_the_one_that_was_in_force(kind):
    """Whatever was not entered, or not left: calls that come after it have no other limit than before."""
    idle = cm.Entrypoint("idle")
    with by_hand.serving() as capability, contextlib.closing(idle):
        proxy = capability.cast(by_hand.Work, timeout=50)
        bounded = {
            "block": _block,
            "generator": _generator,
            "stack": _stack,
            "proxy": lambda: proxy.double(1),
            "served": lambda: idle._dispatcher.calls.serve(lambda: None),
        }[kind]
        for outside, least in ((None, PATIENCE * 10), (100, 99)):
            at = 0
            while True:
                interrupting = Interrupting(at, KeyboardInterrupt, [*DEADLINES, contextlib.__file__])
                with cm.timeout(outside):
                    with contextlib.suppress(KeyboardInterrupt), interrupting:
                        bounded()
                    if kind == "stack":
                        # The exception refers to a frame of ExitStack's, which refers to the exception.
                        gc.collect()
                    assert not idle._dispatcher.served(), interrupting.where
                    assert cm.remaining() > least, interrupting.where
                    if outside is not None:
                        assert cm.remaining() <= outside, interrupting.where
                if not interrupting.where:
                    break
                at += 1
            assert at > 4


def test_what_a_signal_handler_raises_in_a_call_inline_leaves_its_caller_the_limit(caplog):
    """In a method that goes on after it."""
    server = LimitedServer()
    with cm.Entrypoint("inline") as entrypoint, cm.timeout(100):
        proxy = entrypoint.manage(server).cast(Limited)
        server.inline = entrypoint.manage(server).cast(Limited, timeout=50)
        at = 0
        while True:
            where, left = proxy.interrupted(at)
            assert 90 < left <= 100, where
            if not where:
                break
            at += 1
        assert at > 10
        # Their tracebacks have the proxies in them.
        caplog.clear()
        del server.inline


def test_a_block_that_ctrl_c_left_in_force_ends_with_its_object():
    """Where the object has a name, and so outlives its block; it can be entered again, and left."""
    at = 0
    while True:
        limit = cm.timeout(50)
        interrupting = Interrupting(at, KeyboardInterrupt, DEADLINES)
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            with limit:
                pass
        with limit:
            assert 49 < cm.remaining() <= 50
        del limit
        assert cm.remaining() == float("inf"), interrupting.where
        if not interrupting.where:
            break
        at += 1
    assert at > 4
