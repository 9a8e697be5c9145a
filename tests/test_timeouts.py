"""What a CallTimeout says: whose call, how long it waited, whose deadline that was, and what may be behind it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket

import pytest

import by_hand
import capmarshal as cm
import matrix
from capmarshal._protocol.faults import Code, Fault, encode
from capmarshal._protocol.wire import pack_fail
from patience import PATIENCE, until

# Longer than a call takes, shorter than anybody minds.
SHORT = 0.2
# What is said besides of a call that was sent.
MAYBE = "; the call may have run"


class Ring(cm.Interface):
    """Waits for a word, or calls on."""

    @cm.method
    def wait(self, word: cm.Descriptor) -> None: ...
    @cm.method
    def double(self, value: int) -> int: ...
    @cm.method
    def pass_on(self, other: Ring, word: cm.Descriptor) -> None: ...
    @cm.method
    def around(self, other: Ring, back: Ring) -> None: ...
    @cm.method
    def double_by(self, other: Ring) -> None: ...


class RingServer(Ring):
    """Serves it; ``said`` is what its own calls ended by."""

    def __init__(self):
        self.said = []

    def wait(self, word):
        assert select.select([word], [], [], PATIENCE)[0]

    def double(self, value):
        return 2 * value

    def _note(self, call, *arguments):
        try:
            call(*arguments)
        except cm.CallTimeout as late:
            self.said.append(str(late))

    def pass_on(self, other, word):
        self._note(other.wait, word)

    def around(self, other, back):
        other.double_by(back)

    def double_by(self, other):
        with cm.timeout(SHORT):
            self._note(other.double, 1)


@contextlib.contextmanager
def ring():
    """Proxies of two objects in entrypoints of their own, and a word that does not come before the end."""
    ours, theirs = socket.socketpair()
    with ours, theirs, cm.Entrypoint("one") as one, cm.Entrypoint("two") as two:
        try:
            yield one.manage(RingServer()).cast(Ring), two.manage(RingServer()).cast(Ring), theirs
        finally:
            ours.send(b".")


def without_time(said):
    """A text with N for how long a call waited: never less than the deadline, and more on a busy machine."""
    return re.sub(r" in [\d.]+ s \(", " in N s (", said)


def text_of(call, *arguments):
    """What the error says that a call which lasts too long ends by, without the time, and whether it ran."""
    with pytest.raises(cm.CallTimeout) as caught:
        call(*arguments)
    assert not getattr(caught.value, "__notes__", [])
    return without_time(str(caught.value)), caught.value.ran


def fill(sock):
    """Sends until there is no more room."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(b"x", socket.MSG_DONTWAIT)


def test_it_names_the_call_and_says_how_long_and_by_whose_deadline():
    """A block's, which may have been half over when the call began."""
    with ring() as (one, _, word), cm.timeout(SHORT):
        said, ran = text_of(one.wait, word)
        assert said == "Ring.wait, entrypoint 'one': no answer in N s (the deadline of cm.timeout(0.2))" + MAYBE
        assert ran == "maybe"
        said, ran = text_of(one.wait, word)
        assert said == "Ring.wait, entrypoint 'one': not made: the deadline of cm.timeout(0.2) had passed before"
        assert ran == "no"


def test_a_proxys_timeout_is_named_as_it_was_given():
    """And of two deadlines the one that passed."""
    with ring() as (one, _, word):
        bounded = cm.capability(one).cast(Ring, timeout=SHORT)
        expected = "Ring.wait, entrypoint 'one': no answer in N s (the deadline of cast(timeout=0.2))" + MAYBE
        assert text_of(bounded.wait, word) == (expected, "maybe")
        with cm.timeout(PATIENCE):
            assert text_of(bounded.wait, word)[0] == expected


@matrix.ends_at_the_deadline
def test_an_inherited_deadline_is_the_callers():
    """Of a method's own call, which has what is left to the method."""
    with ring() as (one, two, word):
        server = cm.capability(one).local
        with cm.timeout(SHORT), contextlib.suppress(cm.CallTimeout):
            one.pass_on(two, word)
        (said,) = until(lambda: server.said)
        assert without_time(said).startswith(
            "Ring.wait, entrypoint 'two': no answer in N s (the deadline of this method's caller); "
        )


@matrix.takes_one_call
def test_of_a_circle_it_says_what_it_may_be():
    """An entrypoint that calls back whoever waits for it: the error says so of the thread that it knows of, its own."""
    with ring() as (one, two, _), cm.timeout(PATIENCE):
        one.around(two, one)
        (said,) = cm.capability(two).local.said
        assert without_time(said) == (
            "Ring.double, entrypoint 'one': no answer in N s (the deadline of cm.timeout(0.2)); the call may have "
            "run; the caller was a method of entrypoint 'two', which takes no other call meanwhile: if the server "
            "waited for it in turn, each waited for the other"
        )


def test_a_call_that_was_sent_is_told_from_one_that_was_not(fork):
    """A stopped process: the first call is in its queue, and one that is too large for that was not sent whole."""
    with by_hand.server_process(fork) as (process, capability):
        work = capability.cast(by_hand.Work)
        with cm.timeout(PATIENCE):
            assert work.double(1) == 2
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        try:
            bounded = capability.cast(by_hand.Work, timeout=SHORT)
            said, ran = text_of(bounded.double, 1)
            assert said.partition(": ")[2] == "no answer in N s (the deadline of cast(timeout=0.2))" + MAYBE
            assert ran == "maybe"
            said, ran = text_of(bounded.size, bytes(8 << 20))
            assert said.startswith("Work.size, entrypoint 'elsewhere': not sent whole: the server did not ")
            assert ran == "no"
        finally:
            os.kill(process.pid, signal.SIGCONT)


def test_a_call_that_the_server_came_to_too_late():
    """The server says so, in its own words; whose deadline that was, its client knows."""
    with by_hand.Impostor() as impostor:
        label, proxy = impostor.capability.label, impostor.capability.cast(by_hand.Work, timeout=PATIENCE)
        calling = by_hand.Concurrent(proxy.double, 1)
        with impostor.accept() as channel:
            channel.recv(4096)
            channel.send(pack_fail(1, encode(Fault(Code.EXPIRED, "too late"))))
            said, ran = text_of(calling.outcome)
    assert said == f"Work.double, entrypoint {label!r}: too late (the deadline of cast(timeout={PATIENCE}))"
    assert ran == "no"


@matrix.says_how_to_serve
def test_of_an_entrypoint_of_this_process_that_nobody_serves_it_says_that():
    """Made and never entered: the commonest mistake of a first program."""
    entrypoint = cm.Entrypoint("idle")
    proxy = entrypoint.manage(RingServer()).cast(Ring, timeout=SHORT)
    said, _ = text_of(proxy.double, 1)
    assert said.endswith(
        "; nobody serves entrypoint 'idle', which is of this process: enter it (with), or call serve_forever()"
    )
    entrypoint.close()


@matrix.signals_end_loops
@pytest.mark.parametrize("seconds", [None, PATIENCE])
def test_one_that_a_signal_handler_raises_in_a_call_is_the_programs(seconds):
    """It may be of another call, of the handler's, and says what it says."""
    own = cm.CallTimeout("the program's own", ran="no")

    def handler(*_):
        raise own

    def wait(one, word):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        one.wait(word)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with ring() as (one, _, word), cm.timeout(seconds), pytest.raises(cm.CallTimeout) as caught:
            wait(one, word)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught.value is own
    assert (str(own), own.ran) == ("the program's own", "no")


def test_of_a_message_it_says_the_seconds_or_the_block():
    """Whichever came first; received and sent."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert text_of(cm.Message.receive, ours, 0.01)[0] == "no message came in 0.01 s"
        with cm.timeout(0.01):
            said = "no message came before the deadline of cm.timeout(0.01)"
            assert text_of(cm.Message.receive, ours, 1.0)[0] == said
            assert text_of(cm.Message.receive, ours)[0] == said
        fill(ours)
        said = "the receiver's queue stayed full, and nothing was sent in 0.01 s"
        assert text_of(cm.Message(b"x").send, ours, 0.01) == (said, "no")


@matrix.loop_is_kept
def test_of_an_entrypoint_that_does_not_end_it_names_what_runs():
    """close() and dissolve(), while a method waits."""
    worker = by_hand.Worker()
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go), cm.Entrypoint("busy") as busy:
        proxy = busy.manage(worker).cast(by_hand.Work)
        calling = by_hand.Concurrent(proxy.block, began, going)
        assert started.read(1) == b"."
        with cm.timeout(0.01):
            said, _ = text_of(busy.dissolve, worker)
            assert said.endswith("a call of the object has not ended before the deadline of cm.timeout(0.01)")
        said, _ = text_of(busy.close, 0.01)
        assert said.startswith("<Entrypoint 'busy' closed> is closed, but ")
        assert said.endswith(" has not ended in 0.01 s")
        go.close()
        with contextlib.suppress(cm.Disconnected):
            calling.outcome()
