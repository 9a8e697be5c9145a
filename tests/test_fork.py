"""fork in the middle of things: a child neither uses nor keeps its parent's channels and server ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import stat
import threading
import warnings

import by_hand
import capmarshal as cm
import matrix
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors.process import process

PATIENCE = by_hand.PATIENCE


def inodes(numbers=None):
    """What is open: the inodes, of sockets and epoll sets also distinct where two of them are."""
    found = set()
    for number in numbers if numbers is not None else range(4096):
        try:
            found.add((number, os.fstat(number).st_ino))
        except OSError:
            continue
    return found


def test_a_child_uses_the_same_proxies_and_none_of_the_channels(fork):
    """It knocks anew; the parent's channel goes on, and each gets its own answers."""
    with by_hand.server_process(fork) as (_process, capability):
        proxy = capability.cast(by_hand.Work)
        with cm.timeout(PATIENCE):
            assert proxy.double(1) == 2
        (channel,) = open_door_of(capability).idle
        near = channel.near.number

        def call():
            assert channel.near.number == -1
            assert not open_door_of(capability).idle
            with cm.timeout(PATIENCE):
                return [proxy.double(number) for number in range(200)]

        children = [fork(call) for _ in range(3)]
        with cm.timeout(PATIENCE):
            assert [proxy.double(1000 + number) for number in range(200)] == [2000 + 2 * n for n in range(200)]
        for child in children:
            assert child.result() == [2 * number for number in range(200)]
        assert (channel.near.number, list(open_door_of(capability).idle)) == (near, [channel])


def test_a_child_keeps_no_channel_and_no_server_end(fork):
    """Neither those of its parent's clients, nor those of its parent's calls; the client ends of doors stay."""
    with by_hand.serving() as capability, by_hand.serving(label="second") as second:
        with cm.timeout(PATIENCE), by_hand.knock(second) as near:
            assert capability.cast(by_hand.Work).double(1) == 2
            near.send(by_hand.call(second))
            by_hand.answer(near)
            private = inodes(one.number for one in process.privates if one.number >= 0)
            doors = inodes([open_door_of(capability).number, open_door_of(second).number])
            assert len(private) >= 2 * 3 + 2

            def look():
                now = inodes()
                return now & private, doors - now

            assert fork(look).result() == (set(), set())
            assert capability.cast(by_hand.Work).double(2) == 4
            near.send(by_hand.call(second, id=2))
            assert by_hand.answer(near)[0].id == 2


def test_the_parents_epoll_registrations_survive_the_child(fork):
    """A child's epoll_ctl would remove them; so it makes none, whatever it does with what it has."""
    with cm.Entrypoint("parent") as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())
        with by_hand.knock(capability) as near:
            near.send(by_hand.call(capability))
            by_hand.answer(near)

            def close():
                assert entrypoint.closed
                entrypoint.close()
                with cm.Entrypoint("child's own") as own, cm.timeout(PATIENCE):
                    return own.manage(by_hand.Worker()).cast(by_hand.Work).double(3)

            for _ in range(3):
                assert fork(close).result() == 6
                near.send(by_hand.call(capability, id=2))
                assert by_hand.answer(near)[0].id == 2
                with by_hand.knock(capability) as another:
                    another.send(by_hand.call(capability))
                    assert by_hand.answer(another)[0].id == 1


class Holder(cm.Interface):
    @cm.method
    def hold(self, work: by_hand.Work) -> int: ...


class HolderServer(Holder):
    def hold(self, work):
        return work.double(2)


def test_a_child_is_told_that_an_entrypoint_and_its_objects_are_its_parents(fork):
    """And what to do: a capability from before the fork works, and so does an entrypoint of the child's own."""
    worker = by_hand.Worker()
    with cm.Entrypoint("parent") as entrypoint, cm.Entrypoint("closed") as closed:
        capability = entrypoint.manage(worker)
        closed.close()

        def use():
            said = []
            with cm.Entrypoint("child's own") as own, cm.timeout(PATIENCE):
                holder = own.manage(HolderServer()).cast(Holder)
                ways = (
                    lambda: entrypoint.manage(by_hand.Worker()),
                    entrypoint.serve_forever,
                    entrypoint.__enter__,
                    lambda: cm.capability(worker),
                    lambda: holder.hold(worker),
                    closed.serve_forever,
                )
                for way in ways:
                    try:
                        way()
                    except (cm.Closed, TypeError) as error:
                        said.append(f"{type(error).__name__}: {error}")
                assert holder.hold(capability) == 4
                own.manage(worker)
                assert holder.hold(worker) == 4
            return said

        said = fork(use).result()
    parents = "Closed: the entrypoint 'parent' is its parent's: this process is a fork of the one that made it"
    assert [words.startswith(parents) for words in said] == [True] * 3 + [False] * 3
    for words in said[3:5]:
        assert "Worker object is not managed here, in a fork of the process that managed it: use a capability" in words
    assert said[5] == "Closed: the entrypoint 'closed' is closed"


def test_a_child_that_outlives_the_parent_keeps_no_client_waiting(fork):
    """The server forks a child that stays, and is killed: its client wakes at once."""

    class Forking(by_hand.Worker):
        def double(self, value):
            self.child = os.fork()
            if self.child == 0:
                signal.pause()
            return self.child

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with by_hand.server_process(fork, Forking) as (process, capability), by_hand.pipe() as (started, began):
            with by_hand.pipe() as (going, _go):
                proxy = capability.cast(by_hand.Work)
                with cm.timeout(PATIENCE):
                    grandchild = proxy.double(1)
                try:
                    working = by_hand.Concurrent(proxy.block, began, going)
                    assert started.read(1) == b"."
                    process.kill()
                    try:
                        working.outcome()
                    except cm.Disconnected as error:
                        assert error.ran == "maybe"
                    else:
                        raise AssertionError("the call did not end")
                finally:
                    os.kill(grandchild, signal.SIGKILL)


class Forking(cm.Interface):
    @cm.method
    def fork(self, how: str, done: cm.Descriptor) -> int: ...


class ForkingServer(Forking):
    """A method that forks; the child goes each way out of it."""

    def __init__(self):
        self.children = []

    def fork(self, how, done):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child:
            self.children.append(child)
            return 1
        if how == "_exit":
            os._exit(0)
        if how == "raises":
            raise ValueError(how)
        if how == "SystemExit":
            raise SystemExit(0)
        return 2


@matrix.forked_with_its_loop
def test_a_child_forked_within_a_method_does_not_answer(caplog):
    """Whether it exits, returns, raises or calls sys.exit(): the one answer is the parent's."""
    server = ForkingServer()
    with cm.Entrypoint("forking") as entrypoint, cm.timeout(PATIENCE), by_hand.pipe() as (reader, writer):
        proxy = entrypoint.manage(server).cast(Forking)
        for how in ("_exit", "returns", "raises", "SystemExit"):
            assert proxy.fork(how, writer) == 1
            pid = server.children.pop()
            pidfd = os.pidfd_open(pid)
            ended, _, _ = select.select([pidfd], [], [], PATIENCE)
            os.close(pidfd)
            if not ended:
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert ended, how
        # Nothing is left in the channel that an answer of a child's would be.
        assert proxy.fork("_exit", writer) == 1
        os.waitpid(server.children.pop(), 0)
        writer.close()
        by_hand.at_end(reader)


def test_fork_while_other_threads_call(fork):
    """Forked at any moment of four threads' calls, each child works, and no call is disturbed."""
    with by_hand.serving() as capability:
        proxy = capability.cast(by_hand.Work)
        stop = threading.Event()

        def call():
            number = 0
            with by_hand.temporary() as file:
                while not stop.is_set():
                    with cm.timeout(PATIENCE):
                        assert proxy.double(number) == 2 * number
                        assert proxy.count([file, file]) == 1
                    number += 1
            return number

        threads = [by_hand.Concurrent(call) for _ in range(4)]
        try:
            for _ in range(15):
                child = fork(lambda: _double_within(proxy))
                assert child.result() == 42
        finally:
            stop.set()
            assert all(thread.outcome() > 0 for thread in threads)


def _double_within(proxy):
    with cm.timeout(PATIENCE):
        return proxy.double(21)


def _work(proxy, queue, number):
    with cm.timeout(PATIENCE):
        queue.put((number, proxy.double(number)))


def test_multiprocessing_by_fork():
    """A process that multiprocessing forks calls with what it inherits."""
    context = multiprocessing.get_context("fork")
    with by_hand.serving() as capability, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        proxy = capability.cast(by_hand.Work)
        queue = context.SimpleQueue()
        processes = [context.Process(target=_work, args=(proxy, queue, number)) for number in range(3)]
        for process in processes:
            process.start()
        assert sorted(queue.get() for _ in processes) == [(0, 0), (1, 2), (2, 4)]
        for process in processes:
            process.join(PATIENCE)
            assert process.exitcode == 0
            process.close()
        queue.close()


class Interrupt(BaseException):
    """What a signal handler raises."""


class Signalling:
    """Is asked first what it has to do in a child; that child gets a signal just then, as Ctrl-C reaches it, too."""

    epoll = True

    def in_child(self):
        os.kill(os.getpid(), signal.SIGUSR1)


def _free(lock):
    """Whether another thread can take a lock."""
    taken = []
    thread = threading.Thread(target=lambda: taken.append(lock.acquire(timeout=1)))
    thread.start()
    thread.join()
    return taken == [True]


def test_ctrl_c_while_a_child_begins_leaves_nothing_half_done(fork):
    """The rest was left out: the child kept its parent's server ends, and a lock that no other thread could take."""
    handled = []

    def interrupt(_number, _frame):
        handled.append(1)
        raise Interrupt

    def fork_again():
        signal.signal(signal.SIGUSR1, interrupt)
        parent, signalling = os.getpid(), Signalling()
        with cm.Entrypoint("parent's"):
            open_ones = [one for one in process.privates if one.number >= 0]
            ends = [one for one in open_ones if stat.S_ISSOCK(os.fstat(one.number).st_mode)]
            process.privates.add(signalling)
            result, tell = os.pipe()
            # Other modules have something to do in a child, too, and what is raised there is lost.
            with contextlib.suppress(Interrupt):
                os.fork()
            process.privates.discard(signalling)
            if os.getpid() != parent:
                kept = sum(one.number >= 0 for one in ends)
                os.write(tell, bytes((len(handled), kept, _free(process.lock))))
                os._exit(0)
            os.close(tell)
            told = os.read(result, 3)
            os.close(result)
            os.wait()
        return len(ends) > 0, tuple(told), signal.pthread_sigmask(signal.SIG_BLOCK, ())

    assert fork(fork_again).result() == (True, (1, 0, True), set())
