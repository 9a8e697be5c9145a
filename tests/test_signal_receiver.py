"""Signals: how they travel, come and are waited for, and what hostile holders of one can do.

For `_capabilities/signal_capability`, `_capabilities/signal_end` and `_capabilities/signal_receiver`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import multiprocessing
import os
import pickle
import resource
import select
import selectors
import signal
import socket
import sys

import pytest

import by_hand
import capmarshal as cm
import matrix
from capmarshal._capabilities import signal_end
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import reaper
from capmarshal._protocol.wire import SIGNAL_RECORD
from documents import fenced, read
from patience import PATIENCE, until

MILLION = 1_000_000


@dataclasses.dataclass
class Subscription:
    name: str
    signal: cm.Signal | None


class Feed(cm.Interface):
    @cm.method
    def subscribe(self, signal: cm.Signal) -> None: ...

    @cm.method
    def among(self, signals: list[cm.Signal | None]) -> list[cm.Signal | None]: ...

    @cm.method
    def within(self, subscription: Subscription) -> Subscription: ...

    @cm.method
    def maybe(self, signal: cm.Signal | None) -> cm.Signal | None: ...

    @cm.method
    def untyped(self, signal: cm.Capability) -> cm.Capability: ...

    @cm.method
    def other(self, feed: Feed) -> None: ...

    @cm.method
    def both(self, signal: cm.Signal, other: cm.Capability) -> None: ...


class FeedServer(Feed):
    def subscribe(self, signal):
        signal.send()

    def among(self, signals):
        return signals

    def within(self, subscription):
        return subscription

    def maybe(self, signal):
        return signal

    def untyped(self, signal):
        return signal

    def other(self, feed):
        raise AssertionError

    def both(self, signal, other):
        signal.send()


@pytest.fixture
def receiver():
    with cm.SignalReceiver() as made:
        yield made


@pytest.fixture
def feed():
    """Served by another process."""
    with contextlib.ExitStack() as stack:

        def make(fork):
            _, capability = stack.enter_context(by_hand.server_process(fork, FeedServer))
            return capability.cast(Feed)

        yield make


def door_of(sent):
    """The door, as any holder may use it."""
    return socket.socket(fileno=os.dup(open_door_of(cm.capability(sent)).number))


def junk(sent, data, descriptors=()):
    with door_of(sent) as door:
        by_hand.send(door, data, descriptors)


def test_another_process_tells_that_something_has_happened(receiver, feed, fork):
    """And nothing else: how often is not told."""
    there = feed(fork)
    there.subscribe(receiver.signal)
    assert receiver.wait(PATIENCE) >= 1
    with pytest.raises(cm.CallTimeout, match=r"^no signal came in 0 s$") as caught:
        receiver.wait(0)
    assert caught.value.ran == "no"
    with (
        pytest.raises(cm.CallTimeout, match=r"^no signal came before the deadline of cm.timeout\(0.01\)"),
        cm.timeout(0.01),
    ):
        receiver.wait()


def test_it_travels_as_any_capability_does(receiver, feed, fork):
    """Alone, in order, in lists and dataclasses, or none; what comes back is the same signal."""
    there = feed(fork)
    sent = receiver.signal
    assert there.among([sent, None]) == [sent, None]
    assert there.among([sent, sent]) == [sent, sent]
    assert there.within(Subscription("a", sent)) == Subscription("a", sent)
    assert (there.maybe(sent), there.maybe(None)) == (sent, None)
    assert there.untyped(sent) is cm.capability(sent)
    assert there.untyped(cm.capability(sent)).cast(cm.Signal) == sent
    assert len({sent, there.maybe(sent)}) == 1
    assert isinstance(there.maybe(sent), cm.Signal)
    assert repr(sent).startswith("<Signal of <Capability nameless ")


def test_a_signal_is_nothing_else(receiver, feed, fork):
    """Each mistake is told what it is, here and as an argument."""
    there, sent = feed(fork), receiver.signal
    with pytest.raises(cm.ArgumentError, match=r"is a cm\.Signal, and not Feed"):
        cm.capability(sent).cast(Feed)
    with pytest.raises(cm.ArgumentError, match=r"leads to an object, .* is no cm\.Signal$"):
        cm.capability(there).cast(cm.Signal)
    with pytest.raises(
        cm.ArgumentError, match=r"Feed.subscribe, arguments: .*FeedServer, not a capmarshal.Signal - at"
    ):
        there.subscribe(there)
    with pytest.raises(
        cm.ArgumentError, match=r"Feed.other, arguments: <Cap.* is a cm.Signal, and not Feed - at `feed`"
    ):
        there.other(sent)
    with pytest.raises(TypeError, match=r"is what SignalReceiver\.signal"):
        cm.Signal()
    with cm.Entrypoint("here") as entrypoint:
        with pytest.raises(TypeError, match="only a server's object"):
            entrypoint.manage(sent)
        with pytest.raises(
            cm.ArgumentError,
            match=r"Feed.subscribe, arguments: <Cap.* leads to an object, .* is no cm.Signal - at `signal`",
        ):
            there.subscribe(entrypoint.manage(FeedServer()))
        with pytest.raises(
            cm.ArgumentError, match=r"Feed.both, arguments: <Cap.* leads to an object, .* is no cm.Signal - at `"
        ):
            there.both(entrypoint.manage(FeedServer()), cm.capability(sent))
    there.both(sent, cm.capability(sent))


def test_by_a_socket_and_by_inheritance(receiver, seqpacket):
    near, far = seqpacket
    cm.send_capability(near, receiver.signal)
    assert cm.receive_capability(far, PATIENCE).cast(cm.Signal) == receiver.signal
    program = "import capmarshal as cm; cm.parent().cast(cm.Signal).send()"
    with cm.spawn([sys.executable, "-P", "-c", program], parent=cm.capability(receiver.signal)) as child:
        assert child.wait(PATIENCE) == 0
    receiver.wait(PATIENCE)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_by_multiprocessing(method, tmp_path, ordinary_python):
    """Pickled for a process that is being created, and for nobody else."""
    del ordinary_python
    program = tmp_path / "program.py"
    program.write_text(f"""\
import multiprocessing, sys
import capmarshal as cm

def tell(signal):
    signal.send()

if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    with cm.SignalReceiver() as receiver:
        process = multiprocessing.Process(target=tell, args=(receiver.signal,))
        process.start()
        receiver.wait({PATIENCE})
        process.join()
        sys.exit(process.exitcode)
""")
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-P", str(program)]) == 0


def test_neither_is_copied(receiver):
    for what in (receiver, receiver.signal):
        for copied in (copy.copy, pickle.dumps):
            with pytest.raises(TypeError, match="neither copied nor pickled"):
                copied(what)
    assert multiprocessing.get_start_method(allow_none=True) != "nobody's"


def test_a_receiver_is_no_argument(receiver):
    """Its number is to be polled, and no file."""
    with pytest.raises(TypeError, match=r"what is passed on is its signal, as receiver\.signal$"):
        cm.Descriptor.dup_of(receiver)


@pytest.mark.parametrize(
    ("method", "wraps"), [("subscribe", False), ("untyped", False), ("among", True)], ids=lambda value: str(value)
)
def test_a_receiver_in_the_place_of_its_signal(receiver, feed, fork, method, wraps):
    """Is told what is meant."""
    there = feed(fork)
    with pytest.raises(cm.ArgumentError, match=r"what is passed on is its signal, as receiver\.signal"):
        getattr(there, method)([receiver] if wraps else receiver)


def test_what_stands_for_no_signal(feed, fork):
    with pytest.raises(cm.ArgumentError, match=r"an int where .*Signal is due: pass what SignalReceiver\.signal or"):
        feed(fork).subscribe(3)


def test_a_million_to_one_that_does_not_look(receiver, fork, open_descriptors):
    """They are one; nobody waits, and nothing grows."""
    sent = receiver.signal
    before = open_descriptors()

    def send():
        memory, held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, open_descriptors()
        for _ in range(MILLION):
            sent.send()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory, open_descriptors() == held

    grown, same = fork(send).result()
    assert same
    assert grown < 1024
    assert 1 <= receiver.wait(0) < 64
    with pytest.raises(cm.CallTimeout):
        receiver.wait(0)
    assert open_descriptors() == before


def elsewhere(fork, seqpacket, then):
    """A process with a receiver of its own, which it waits for once told to; and its signal."""
    near, far = seqpacket

    def receive():
        with cm.SignalReceiver() as mine:
            cm.send_capability(far, mine.signal)
            return then(mine, far)

    child = fork(receive)
    return child, cm.receive_capability(near, PATIENCE).cast(cm.Signal)


def test_a_receiver_that_is_stopped(fork, seqpacket):
    """Who sends does not wait for it, and it finds them all when it goes on."""
    near, _ = seqpacket

    def go_on(mine, far):
        far.recv(1)
        return mine.wait(PATIENCE)

    child, sent = elsewhere(fork, seqpacket, go_on)
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    for _ in range(10_000):
        sent.send()
    os.kill(child.pid, signal.SIGCONT)
    near.send(b"!")
    assert 1 <= child.result() < 64


@pytest.mark.parametrize("unread", [0, 1, 1000])
def test_a_receiver_that_is_killed(fork, seqpacket, unread):
    """Who sends is told, each time: also where what was sent before was never read."""
    child, sent = elsewhere(fork, seqpacket, lambda _mine, far: far.recv(1))
    for _ in range(unread):
        sent.send()
    child.kill()
    cm.wait_gone(sent, PATIENCE)
    for _ in range(3):
        with pytest.raises(cm.Disconnected, match="the receiver of the signal is gone") as caught:
            sent.send()
        assert caught.value.ran == "no"
    assert cm.capability(sent).gone


def test_a_forked_child_has_the_signal_alone(receiver, fork):
    def child():
        said = []
        for what in (lambda: receiver.wait(0), receiver.fileno, receiver.__enter__):
            try:
                what()
            except cm.Closed as closed:
                said.append("its parent's" in str(closed))
        receiver.signal.send()
        receiver.close()
        return said, receiver.closed

    assert fork(child).result() == ([True] * 3, True)
    receiver.wait(PATIENCE)
    assert not receiver.closed


def test_each_signal_wakes_one_of_those_who_wait(receiver):
    waiting = [by_hand.Concurrent(receiver.wait, PATIENCE) for _ in range(3)]
    while any(each.is_alive() for each in waiting):
        receiver.signal.send()
    assert all(each.outcome() for each in waiting)


def test_closing_wakes_all_who_wait(receiver, open_descriptors):
    """Its number is nobody else's before they have been told."""
    sent = receiver.signal
    waiting = [by_hand.Concurrent(receiver.wait, PATIENCE) for _ in range(3)]
    until(lambda: receiver._waiting == 3)
    receiver.close()
    receiver.close()
    for each in waiting:
        with pytest.raises(cm.Closed, match="this SignalReceiver was closed"):
            each.outcome()
    for what in (lambda: receiver.signal, receiver.fileno, receiver.wait):
        with pytest.raises(cm.Closed):
            what()
    with pytest.raises(cm.Disconnected):
        sent.send()
    assert repr(receiver) == "<SignalReceiver closed>"
    del sent
    until(lambda: receiver._end.end.number not in open_descriptors())


def test_who_sends_is_told_at_once():
    """Closing may take long, of what lies in the queue, and is done elsewhere."""
    for _ in range(200):
        receiver = cm.SignalReceiver()
        sent = receiver.signal
        receiver.close()
        with pytest.raises(cm.Disconnected):
            sent.send()


def test_one_that_is_forgotten_is_closed(open_descriptors):
    before = open_descriptors()
    sent = cm.SignalReceiver().signal
    gc.collect()
    cm.wait_gone(sent, PATIENCE)
    with pytest.raises(cm.Disconnected):
        sent.send()
    del sent
    until(lambda: open_descriptors() == before)


def test_closing_the_capability(receiver):
    """Who gave it up sends nothing; others do."""
    sent = receiver.signal
    cm.capability(sent).close()
    with pytest.raises(cm.Closed):
        sent.send()


def test_a_selector_tells_of_signals_and_servers(receiver, feed, fork):
    """Beside anything else that a program waits for."""
    there = feed(fork)
    with selectors.DefaultSelector() as selector:
        selector.register(receiver, selectors.EVENT_READ)
        selector.register(cm.capability(there), selectors.EVENT_READ)
        assert selector.select(0) == []
        there.subscribe(receiver.signal)
        assert [key.fileobj for key, _ in selector.select(PATIENCE)] == [receiver]
        receiver.wait(0)
        assert selector.select(0) == []


@matrix.Only(
    "client", "trio closes what Python writes to when a signal comes before it stops that", also=("asyncio", "uvloop")
)
def test_from_a_signal_handler_in_the_middle_of_anything(receiver):
    """No lock is taken: of a call's, of the receiver's own wait, of another send."""
    sent = receiver.signal
    previous = signal.signal(signal.SIGALRM, lambda *_: sent.send())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
        with by_hand.serving() as capability:
            work = capability.cast(by_hand.Work)
            for _ in range(200):
                assert work.double(2) == 4
                sent.send()
                receiver.wait(PATIENCE)
            receiver.wait(PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize(
    "data",
    [b"", b"x", SIGNAL_RECORD[:-1], SIGNAL_RECORD + b"x", bytes(len(SIGNAL_RECORD)), bytes(4000)],
    ids=["empty", "short", "cut", "longer", "zeros", "long"],
)
@pytest.mark.parametrize("count", [0, 1, 253])
def test_junk_is_no_signal(receiver, data, count, files, caplog, open_descriptors):
    """It is logged once, its descriptors are closed, and signals come as before."""
    sent, (file,) = receiver.signal, files(1)
    before = open_descriptors()
    for _ in range(3):
        junk(sent, data, [file] * count)
        with pytest.raises(cm.CallTimeout):
            receiver.wait(0)
    assert [record.getMessage() for record in caplog.records] == [
        "a SignalReceiver was sent what is no signal, by one of those who hold its signal"
    ]
    assert open_descriptors() == before
    sent.send()
    assert receiver.wait(PATIENCE) == 1


def test_a_signal_with_descriptors_is_none(receiver, files, quiet_log):
    del quiet_log
    junk(receiver.signal, SIGNAL_RECORD, files(1))
    with pytest.raises(cm.CallTimeout):
        receiver.wait(0)


def test_a_holder_that_fills_the_queue_has_what_others_send_lost(receiver, quiet_log):
    """Who sends is not told, nor kept waiting: a holder of the same signal can do that, and no other."""
    del quiet_log
    sent = receiver.signal
    with door_of(sent) as door, contextlib.suppress(BlockingIOError):
        while True:
            door.send(b"junk", socket.MSG_DONTWAIT)
    sent.send()
    with pytest.raises(cm.CallTimeout):
        receiver.wait(0)
    sent.send()
    assert receiver.wait(PATIENCE) == 1


def test_a_flood_of_junk_keeps_nobody_beyond_the_deadline(receiver, fork, quiet_log):
    """Also where it never ends: what waits gives up in time."""
    del quiet_log
    sent = receiver.signal

    def flood():
        with door_of(sent) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            with contextlib.suppress(ConnectionError):
                while True:
                    door.send(b"junk")

    child = fork(flood)
    for timeout in (0, 0.05):
        with pytest.raises(cm.CallTimeout):
            receiver.wait(timeout)
    receiver.close()
    child.result()


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_holder_that_shuts_the_door_ends_it_for_all(receiver, how):
    """Each is told, and nobody spins: other doors are untouched."""
    sent = receiver.signal
    sent.send()
    with door_of(sent) as door:
        door.shutdown(how)
    with pytest.raises(cm.Disconnected, match="is gone"):
        sent.send()
    # What was sent before has come.
    assert receiver.wait(PATIENCE) == 1
    for _ in range(2):
        with pytest.raises(
            cm.Disconnected, match="no signal will come: all who held the signal have gone, or one"
        ) as caught:
            receiver.wait(PATIENCE)
        assert caught.value.ran == "no"
    with cm.SignalReceiver() as other:
        other.signal.send()
        assert other.wait(PATIENCE) == 1


def set_flags(door):
    door.setblocking(True)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bytes(16))


@pytest.mark.parametrize(
    "change",
    [
        set_flags,
        lambda door: door.setblocking(False),
        lambda door: door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1),
        lambda door: door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30),
        lambda door: door.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1),
        lambda door: door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1),
    ],
    ids=["blocking", "nonblocking", "small", "large", "passcred", "receiving"],
)
def test_no_flag_of_the_shared_socket_is_trusted(receiver, change):
    """Nobody waits, and what was sent comes."""
    sent = receiver.signal
    with door_of(sent) as door:
        change(door)
        for _ in range(2000):
            sent.send()
        assert receiver.wait(0) >= 1
        with contextlib.suppress(cm.CallTimeout):
            while receiver.wait(0):
                pass
        assert not select.select([receiver], [], [], 0)[0]


def test_the_queue_is_short(receiver):
    """What one that does not look costs the kernel, unless a holder lengthens it."""
    for _ in range(100):
        receiver.signal.send()
    assert receiver.wait(0) < 16


def test_descriptors_that_take_long_to_close(receiver, lingering, quiet_log, open_descriptors):
    """They delay nobody, and are bounded: a holder that goes on has shut the door, as it could by shutdown(2)."""
    del quiet_log
    peers = []
    reading, writing = os.pipe()
    before = len(open_descriptors())
    for _ in range(2):
        number, peer = lingering(int(PATIENCE))
        peers.append(peer)
        junk(receiver.signal, b"junk", [number, *[reading] * 252])
        os.close(number)
    with pytest.raises(cm.CallTimeout):
        receiver.wait(0)
    for _ in range(2):
        with pytest.raises(cm.Disconnected, match="descriptors that take long to close"):
            receiver.wait(0)
    assert 0 < len(open_descriptors()) - before <= 2 * signal_end._PILE + len(peers)
    with pytest.raises(cm.Disconnected):
        receiver.signal.send()
    for peer in peers:
        peer.close()
    os.close(reading)
    os.close(writing)
    assert reaper.wait(PATIENCE)


def test_what_the_page_shows():
    """The board, and who subscribes to it."""
    page = read("docs/authority.md")
    section = page.partition("\n## Signals\n")[2].partition("\n## ")[0]
    server, client = fenced(section)
    scope = {"__name__": "board", "print": print}
    exec(server, scope)
    seen, made = [], scope["BoardServer"]()
    with cm.Entrypoint("board") as entrypoint:
        scope |= {"print": seen.append, "board": entrypoint.manage(made).cast(scope["Board"])}
        subscriber = by_hand.Concurrent(exec, client, scope)
        until(lambda: made.subscribers)
        made.add("a line")
        subscriber.outcome()
        assert seen == [["a line"]]
        made.add("another")
        assert made.subscribers == set()


def test_a_receiver_has_two_descriptors(open_descriptors):
    before = len(open_descriptors())
    with cm.SignalReceiver() as made:
        assert len(open_descriptors()) == before + 2
        assert not made.closed


def test_a_full_table_is_told(receiver):
    """And nothing is left of what could not be made."""
    del receiver
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        with pytest.raises(cm.TableFull), cm.timeout(0.01):
            cm.SignalReceiver()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)
