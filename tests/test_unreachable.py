"""Nobody can call an object by a grant any more: it is told once, exactly then, and the object is let go."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import os
import signal
import socket
import threading
import weakref

import pytest

import by_hand
import capmarshal as cm
import matrix
from by_hand import Work, Worker
from capmarshal._capabilities.capability import open_door_of
from capmarshal._protocol import wire
from patience import PATIENCE, until

SO_PASSPIDFD = 76


class Told:
    """A server whose objects' ends are noted."""

    def __init__(self, entrypoint):
        self.entrypoint = entrypoint
        self.objects = []

    def grant(self):
        return self.entrypoint.grant(Worker(), unreachable=self.objects.append)

    def settled(self):
        """What was told when the server has dealt with all that was there before."""
        for _ in range(3):
            assert self.entrypoint.manage(Worker()).cast(Work).double(1) == 2
        return len(self.objects)


@pytest.fixture
def told():
    with cm.Entrypoint("files") as entrypoint:
        yield Told(entrypoint)


def test_a_capability_that_is_dropped(told):
    """With an idle channel, or none; the object goes when it was told."""
    for calls in (False, True):
        granted = told.grant()
        if calls:
            assert granted.cast(Work).double(1) == 2
        assert told.settled() == calls
        del granted
        gc.collect()
        until(lambda expected=calls + 1: len(told.objects) == expected)
    last = weakref.ref(told.objects.pop())
    gc.collect()
    assert last() is None


@matrix.thread_of_its_own
def test_it_is_told_where_methods_run(told):
    """In the thread that serves, between calls."""

    class Where(Worker):
        def double(self, value):
            return threading.get_ident()

    threads = []
    granted = told.entrypoint.grant(Where(), unreachable=lambda _what: threads.append(threading.get_ident()))
    serving = granted.cast(Work).double(1)
    del granted
    gc.collect()
    until(lambda: threads)
    assert threads == [serving]


def test_a_holder_that_is_killed(told, fork):
    """The last one, in whatever state; as long as one of several lives it is not."""
    granted = [told.grant()]
    with by_hand.pipe() as (called, calling):

        def hold():
            assert granted[0].cast(Work).double(1) == 2
            calling.write(b".")
            os.kill(os.getpid(), signal.SIGSTOP)

        holders = [fork(hold), fork(hold)]
        assert called.read(1) + called.read(1) == b".."
        granted.clear()
        gc.collect()
        holders[0].kill()
        assert told.settled() == 0
        holders[1].kill()
        until(lambda: told.objects)
    assert told.settled() == 1


def test_a_copy_that_is_on_its_way(told, make_pair):
    """In the queue of a socket, and nowhere else: who receives it may call."""
    ours, theirs = make_pair()
    granted = told.grant()
    cm.send_capability(ours, granted)
    del granted
    gc.collect()
    assert told.settled() == 0
    received = cm.receive_capability(theirs)
    assert received.cast(Work).double(1) == 2
    cm.send_capability(ours, received)
    del received
    gc.collect()
    assert told.settled() == 0
    ours.close()
    theirs.close()
    until(lambda: told.objects)


def test_copies_that_are_on_their_way_within_others(told, make_pair):
    """In a queue whose ends are in a queue, whose ends are in a queue; then in its own, which the kernel clears up."""
    pairs = [make_pair() for _ in range(3)]
    granted = told.grant()
    cm.send_capability(pairs[0][0], granted)
    del granted
    gc.collect()
    for inner, outer in itertools.pairwise(pairs):
        socket.send_fds(outer[0], [b"."], [end.fileno() for end in inner])
        for end in inner:
            end.close()
    assert told.settled() == 0
    ends = pairs[-1]
    for _ in range(2):
        _, numbers, _, _ = socket.recv_fds(ends[1], 1, 2)
        for end in ends:
            end.close()
        ends = [socket.socket(fileno=number) for number in numbers]
    received = cm.receive_capability(ends[1])
    assert received.cast(Work).double(1) == 2
    cm.send_capability(ends[0], received)
    del received
    gc.collect()
    socket.send_fds(ends[0], [b"."], [end.fileno() for end in ends])
    for end in ends:
        end.close()

    def is_told():
        # Whoever closes a socket that was in flight has the kernel look (unix_gc(), net/unix/garbage.c).
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with one, other:
            socket.send_fds(one, [b"."], [other.fileno()])
        return told.objects

    until(is_told)
    assert told.settled() == 1


def test_a_door_that_a_holder_shuts(told):
    """Nobody can knock at it any more, and who has a channel calls on; with the last of these it is over."""
    granted = told.grant()
    work = granted.cast(Work)
    assert work.double(1) == 2
    with socket.socket(fileno=os.dup(open_door_of(granted).number)) as door:
        door.shutdown(socket.SHUT_RDWR)
    assert told.settled() == 0
    assert work.double(1) == 2
    del work, granted
    gc.collect()
    until(lambda: told.objects)
    assert told.settled() == 1


def test_a_knock_with_the_doors_own_client_end(told):
    """It would keep the door open for ever, with nobody there."""
    granted = told.grant()
    number = open_door_of(granted).number
    by_hand.at_door(granted, wire.KNOCK_RECORD, [number])
    assert told.settled() == 0
    del granted
    gc.collect()
    until(lambda: told.objects)


@pytest.fixture(params=["pidfds", "no pidfds"])
def tell_pidfds(request):
    """tell_pidfds(entrypoint): whether knocks at its grants' doors bring pidfds; before Linux 6.5 they do not."""

    def tell(entrypoint):
        [doorkeeper] = entrypoint._service.grants._own_doors._doorkeepers.values()
        with socket.socket(fileno=os.dup(doorkeeper.door.number)) as door:
            door.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, int(request.param == "pidfds"))

    return tell


def test_channels_that_keep_each_other_end_with_their_process(told, fork, tell_pidfds):
    """Both ends of one pair, knocked with: nobody can speak on them, and nobody's end would end them."""
    granted = [told.grant()]
    assert told.settled() == 0
    tell_pidfds(told.entrypoint)

    def knock():
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        by_hand.at_door(granted[0], wire.KNOCK_RECORD, [near.fileno()])
        by_hand.at_door(granted[0], wire.KNOCK_RECORD, [far.fileno()])
        assert granted[0].cast(Work).double(1) == 2

    fork(knock).result()
    granted.clear()
    gc.collect()
    until(lambda: told.objects)


def test_channels_that_keep_each_other_and_come_after_their_process(told, fork, tell_pidfds):
    """It has ended by the time when the server comes to its door."""
    granted = [told.grant()]
    assert told.settled() == 0
    tell_pidfds(told.entrypoint)

    def knock():
        for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET):
            by_hand.at_door(granted[0], wire.KNOCK_RECORD, [end.fileno()])

    with by_hand.busy(told.entrypoint.manage(Worker())):
        fork(knock).result()
        granted.clear()
        gc.collect()
    until(lambda: told.objects)


def test_a_revoked_one_is_not_told(told):
    granted = told.grant()
    told.entrypoint.revoke(granted)
    del granted
    gc.collect()
    until(lambda: not told.entrypoint._service.grants._revoked)
    assert told.settled() == 0


def test_one_that_the_end_of_service_finds_is_not_told():
    objects = []
    with cm.Entrypoint("files") as entrypoint:
        granted = entrypoint.grant(Worker(), unreachable=objects.append)
    del granted
    gc.collect()
    assert not objects


@pytest.mark.parametrize(
    "kind", [LookupError, *(pytest.param(kind, marks=matrix.thread_of_its_own) for kind in (SystemExit, GeneratorExit))]
)
def test_what_it_raises_ends_nothing(told, caplog, kind):
    """It is in the log, with whose it was, and nothing is said of a fault of the package's own."""
    caplog.set_level(logging.ERROR, "capmarshal")

    def fail(_what):
        raise kind("not here")

    granted = told.entrypoint.grant(Worker(), label="plugin 3", unreachable=fail)
    del granted
    gc.collect()
    until(lambda: caplog.records)
    assert "nobody can reach <Grant 'plugin 3'> failed" in caplog.text
    assert f"{kind.__name__}: not here" in caplog.text
    assert told.settled() == 0
    assert len(caplog.records) == 1
    # Its traceback refers to the entrypoint.
    caplog.clear()


class _Awaited:
    async def __call__(self, _what=None): ...

    async def told(self, _what): ...


@pytest.mark.parametrize("how", ["object", "method", "partial", "partial of a partial"])
def test_a_thread_awaits_nothing(told, how):
    """Whatever it is that would have to be awaited; and no more where a signal has come, or somebody connects."""
    awaited = {
        "object": _Awaited(),
        "method": _Awaited().told,
        "partial": functools.partial(_Awaited().told, None),
        "partial of a partial": functools.partial(functools.partial(_Awaited()), None),
    }[how]
    with pytest.raises(TypeError, match="unreachable is async, and what a"):
        told.entrypoint.grant(Worker(), unreachable=awaited)
    with pytest.raises(TypeError, match="the handler of a signal is async, and what a"):
        told.entrypoint.on_signal(awaited)


@matrix.awaits_what_it_gets
def test_what_turns_out_to_be_awaited_is_in_the_log(told, caplog):
    """A thread has it only when it is called: it is not lost without a word."""
    granted = told.entrypoint.grant(Worker(), unreachable=lambda _what: _Awaited()())
    del granted
    gc.collect()
    until(lambda: caplog.records)
    assert "unreachable, of <Grant 'files'>, gave something to be awaited" in caplog.text
    caplog.clear()
    sent = told.entrypoint.on_signal(lambda: _Awaited()())
    sent.send()
    until(lambda: caplog.records)
    assert "gave something to be awaited, which only a capmarshal.aio.Entrypoint does" in caplog.text
    assert told.settled() == 0
    caplog.clear()


def test_it_may_grant_and_revoke(told):
    """In the serving thread, as a method may."""
    again = []
    granted = told.entrypoint.grant(Worker(), unreachable=lambda what: again.append(told.entrypoint.grant(what)))
    del granted
    gc.collect()
    until(lambda: again)
    with cm.timeout(PATIENCE):
        assert again[0].cast(Work).double(1) == 2
    told.entrypoint.revoke(again[0])
