"""The reaper: closing what a stranger sent delays nobody, for it is done elsewhere."""

import contextlib
import gc
import os
import resource
import socket
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import pytest

from capmarshal import Descriptor
from capmarshal._descriptors import reaper as _reaper
from capmarshal._descriptors import reaper_threads
from capmarshal._descriptors.closing_jobs import THREADS_OF_SENDER, Job, Sender
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.process import process
from capmarshal._descriptors.reaper_threads import THREADS_MAX
from full_table import fill
from interrupting import Interrupting
from patience import PATIENCE, until
from slow_closing import Slow, is_open, pipe_end


def test_a_lingering_socket_delays_the_reaper_alone(lingering, drain):
    """Its close() takes a minute, or until the peer reads: the caller goes on at once, the reaper waits."""
    number, peer = lingering(60)
    begun = time.monotonic()
    assert not _reaper.close([Descriptor(number)])
    assert time.monotonic() - begun < 30
    assert not _reaper.wait(0.1), "the close did not block, so this test shows nothing"
    drain(peer)
    assert _reaper.wait(PATIENCE)
    assert not is_open(number)


class NoClose:
    def fileno(self):
        return 0


class Raises:
    def __init__(self, error):
        self.error, self.closed = error, 0

    def fileno(self):
        raise self.error

    def close(self):
        self.closed += 1
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(3), KeyboardInterrupt(), ValueError("closed")])
def test_what_a_thing_raises_is_nobodys(error):
    """One without close(), or whose close() or fileno() raises whatever it likes: the others are closed."""
    first, last, broken, told = pipe_end(), pipe_end(), Raises(error), threading.Event()
    numbers = [first.fileno(), last.fileno()]
    assert not _reaper.close([first, NoClose(), broken, last], then=told.set)
    assert told.wait(PATIENCE)
    assert broken.closed == 1
    assert not any(map(is_open, numbers))
    assert not _reaper.close([pipe_end()])
    assert _reaper.wait(PATIENCE)


def test_what_blocks_delays_nothing_else(slow):
    """What takes a minute to close does not hold up what others hand over after it."""
    first = slow()
    _reaper.close([first])
    assert first.begun.wait(PATIENCE)
    told = threading.Event()
    assert not _reaper.close([pipe_end()], then=told.set)
    assert told.wait(PATIENCE)
    assert _reaper.behind()
    first.may_end.set()
    assert _reaper.wait(PATIENCE)
    assert not _reaper.behind()


def test_who_waits_does_so_until_others_are_told():
    """What is closed and not said yet is not over: who has waited finds that done which was to be done then."""
    telling, may_go_on = threading.Event(), threading.Event()

    def tell():
        telling.set()
        may_go_on.wait(PATIENCE)

    assert not _reaper.close([pipe_end()], then=tell)
    assert telling.wait(PATIENCE)
    assert not _reaper.behind()
    assert not _reaper.wait(0)
    may_go_on.set()
    assert _reaper.wait(PATIENCE)


def test_a_sender_occupies_two_threads_and_others_are_not_delayed(slow):
    """The third thing of one that blocks waits for one of the first two; what others sent does not."""
    sender, other, log = Sender(), Sender(), []
    things = [slow(name, log) for name in range(4)]
    # One after the other: which of two threads is the first with what it took is nobody's to say.
    for thing in things[:2]:
        assert not _reaper.close([thing], sender)
        assert thing.begun.wait(PATIENCE)
    for waiting, thing in enumerate(things[2:], 1):
        assert not _reaper.close([thing], sender)
        until(lambda waiting=waiting: len(sender.parked) == waiting)
    told = threading.Event()
    for _ in range(40):
        told.clear()
        assert not _reaper.close([pipe_end()], other, told.set)
        assert told.wait(PATIENCE)
    assert not things[2].begun.is_set()
    things[1].may_end.set()
    assert things[2].begun.wait(PATIENCE)
    assert not things[3].begun.is_set()
    things[2].may_end.set()
    assert things[3].begun.wait(PATIENCE)
    assert log == [1, 2]


def test_many_senders_of_one_user_leave_threads_for_others(slow):
    """Each of them occupies two, all of them together not all there are."""
    user = Sender()
    things = [slow() for _ in range(THREADS_MAX + 2)]
    for thing in things:
        _reaper.close([thing], Sender(user))
    told = threading.Event()
    assert not _reaper.close([pipe_end()], Sender(Sender()), told.set)
    assert told.wait(PATIENCE)
    begun = sum(thing.begun.is_set() for thing in things)
    assert 0 < begun < THREADS_MAX
    for thing in things:
        thing.may_end.set()
    assert _reaper.wait(PATIENCE)
    assert all(thing.begun.is_set() for thing in things)


@contextlib.contextmanager
def ends_of(*queues):
    """The server's ends of channels, by what lies in their queues: records, and with how many descriptors each."""
    with contextlib.ExitStack() as stack:
        nears, ends = [], []
        for records in queues:
            near, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            nears.append(stack.enter_context(near))
            for data, count in records:
                socket.send_fds(near, [data], [near.fileno()] * count) if count else near.send(data)
            ends.append(Descriptor(end.detach()))
        yield nears, ends


UNLADEN = [[], [(b"x", 0)], [(b"", 0), (b"x", 0)]]
LADEN = [[(b"x", 1)], [(b"", 1)], [(b"", 0), (b"", 0), (b"", 2)], [(b"x", 0), (b"x", 3)]]


def test_ends_in_whose_queues_no_descriptor_lies_wait_for_no_thread_of_their_senders(slow):
    """Whatever their sender has the threads occupied with: only the others wait, and only those are on its account."""
    user = Sender()
    sender, told, closed, things = Sender(user), [], threading.Event(), [slow(), slow()]
    for thing in things:
        _reaper.close([thing], sender)
        assert thing.begun.wait(PATIENCE)
    with ends_of(*UNLADEN, *LADEN) as (_, ends):
        numbers = [end.fileno() for end in ends]
        quick, others = numbers[: len(UNLADEN)], numbers[len(UNLADEN) :]
        assert not _reaper.close_ends(DescriptorList.of(ends), sender, told.append, closed.set)
        until(lambda: len(sender.parked) == 1)
        assert [is_open(number) for number in numbers] == [False] * len(quick) + [True] * len(others)
        assert told == others
        assert sender.waiting == user.waiting == len(things) + len(others)
        assert not closed.is_set()
        things[0].may_end.set()
        assert closed.wait(PATIENCE)
        assert not any(map(is_open, others))
    things[1].may_end.set()
    assert _reaper.wait(PATIENCE)
    assert sender.waiting == user.waiting == 0


def test_nothing_comes_to_ends_that_are_handed_over(slow):
    """What would come after the look into their queues would be closed with them."""
    sender, things = Sender(), [slow(), slow()]
    for thing in things:
        _reaper.close([thing], sender)
        assert thing.begun.wait(PATIENCE)
    with ends_of(*LADEN) as (nears, ends):
        _reaper.close_ends(DescriptorList.of(ends), sender, lambda _number: None)
        until(lambda: sender.parked)
        for near in nears:
            with pytest.raises(BrokenPipeError):
                near.send(b"x")
        for thing in things:
            thing.may_end.set()
        assert _reaper.wait(PATIENCE)


def test_the_queue_of_a_listening_socket_is_not_looked_into(slow, place):
    """Those who have connected may send after that: it waits for its sender's threads."""
    sender, things = Sender(), [slow(), slow()]
    for thing in things:
        _reaper.close([thing], sender)
        assert thing.begun.wait(PATIENCE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(place))
        listener.listen()
        client.connect(str(place))
        end = Descriptor(listener.detach())
        number = end.fileno()
        _reaper.close_ends(DescriptorList.of([end]), sender, lambda _number: None)
        until(lambda: sender.parked)
        assert is_open(number)
        for thing in things:
            thing.may_end.set()
        assert _reaper.wait(PATIENCE)
        assert not is_open(number)


def test_where_the_kernel_does_not_tell_what_lies_in_queues_all_ends_are_their_senders(slow, fork):
    """Here, since there is no room in the table to ask it."""

    def child():
        sender, things, told = Sender(), [Slow(), Slow()], []
        for thing in things:
            _reaper.close([thing], sender)
            assert thing.begun.wait(PATIENCE)
        with ends_of([]) as (_, ends):
            number = ends[0].fileno()
            ends = DescriptorList.of(ends)
            taken = fill(0)
            _reaper.close_ends(ends, sender, told.append)
            until(lambda: sender.parked)
            waits = is_open(number), told == [number]
            for each in taken:
                os.close(each)
            for thing in things:
                thing.may_end.set()
            return waits, _reaper.wait(PATIENCE), is_open(number)

    assert fork(child, table=128).result() == ((True, True), True, False)


def test_a_child_says_nothing_on_ends_that_its_parent_closes(slow, fork):
    """It closes its copies, and the parent's are the parent's."""
    sender, told, things = Sender(), [], [slow(), slow()]
    for thing in things:
        _reaper.close([thing], sender)
        assert thing.begun.wait(PATIENCE)
    with ends_of(*LADEN) as (_, ends):
        numbers = [end.fileno() for end in ends]
        _reaper.close_ends(DescriptorList.of(ends), sender, told.append)
        until(lambda: sender.parked)

        def child():
            del told[:]
            until(lambda: not any(map(is_open, numbers)))
            return told

        assert fork(child).result() == []
        assert all(map(is_open, numbers))
        for thing in things:
            thing.may_end.set()
        assert _reaper.wait(PATIENCE)


def test_a_sender_knows_how_many_of_its_descriptors_wait(slow):
    """Those handed over and not closed yet, of a user also those of its peers; what is closed on the spot is not."""
    user = Sender()
    peer, sibling = Sender(user), Sender(user)
    first = slow()
    _reaper.close([first, *(pipe_end() for _ in range(9)), Descriptor(os.open("/dev/null", os.O_RDONLY))], peer)
    assert first.begun.wait(PATIENCE) or True
    second = slow()
    _reaper.close([second], sibling)
    assert second.begun.wait(PATIENCE)
    assert (sibling.waiting, user.waiting - peer.waiting) == (1, 1)
    assert peer.waiting == 10
    first.may_end.set()
    second.may_end.set()
    assert _reaper.wait(PATIENCE)
    assert (peer.waiting, sibling.waiting, user.waiting) == (0, 0, 0)


def test_a_child_forked_in_the_middle_of_a_batch_closes_the_rest(lingering, drain, fork, pipes):
    """What the parent's reaper has not begun to close, the child's closes; each in its own table only."""
    number, peer = lingering(60)
    rest = [os.dup(number) for number in pipes(100)]
    _reaper.close([Descriptor(number), *map(Descriptor, rest)])
    assert not _reaper.wait(0.1), "the close did not block, so this test shows nothing"

    def child():
        return _reaper.wait(PATIENCE), [is_open(number) for number in rest]

    assert fork(child).result() == (True, [False] * 100)
    assert [is_open(number) for number in rest] == [True] * 100
    drain(peer)
    assert _reaper.wait(PATIENCE)
    assert [is_open(number) for number in rest] == [False] * 100


def test_a_child_forked_while_the_reaper_is_busy_closes_its_copies(slow, fork, pipes):
    """What waits in the parent's queue is open in the child too: the child's own reaper closes it, and tells nobody."""
    sender, told = Sender(), threading.Event()
    for _ in range(THREADS_OF_SENDER):
        thing = slow()
        _reaper.close([thing], sender)
        assert thing.begun.wait(PATIENCE)
    queued = [os.dup(number) for number in pipes(5)]
    for number in queued:
        _reaper.close([Descriptor(number)], sender, told.set)

    def child():
        until(lambda: not any(map(is_open, queued)))
        return [is_open(number) for number in queued], told.is_set()

    assert fork(child).result() == ([False] * 5, False)
    # And the parent's are the parent's business.
    assert [is_open(number) for number in queued] == [True] * 5


@pytest.fixture
def pipes():
    """pipes(n): reading ends of pipes, closed after the test."""
    made = []

    def make(count):
        made.extend(pipe_end() for _ in range(count))
        return [each.fileno() for each in made[-count:]]

    yield make
    for each in made:
        each.close()


def test_few_threads_whatever_comes():
    """Many threads that hand over at once start no more threads than may block."""
    start = threading.Barrier(8)

    def hand_over():
        start.wait(PATIENCE)
        for _ in range(20):
            _reaper.close([pipe_end()])

    threads = [threading.Thread(target=hand_over) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert _reaper.wait(PATIENCE)
    assert _reaper._reaper._threads.alive <= THREADS_MAX


def no_thread(monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(_reaper._thread, "start_new_thread", refuse)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_where_no_thread_can_be_had_closing_happens_in_place(monkeypatch, fork, error):
    """It was all open for ever, and 100 calls later the server was deaf."""

    def child():
        no_thread(monkeypatch, error)
        things = [pipe_end() for _ in range(5)]
        numbers = [thing.fileno() for thing in things]
        return _reaper.close(things, then=lambda: os._exit(9)), any(map(is_open, numbers)), _reaper.behind()

    assert fork(child).result() == (True, False, False)


def test_a_process_that_may_start_no_thread_closes_in_place(fork):
    """By its RLIMIT_NPROC, which counts all threads of its user and binds whoever is not root."""

    def child():
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        with pytest.raises(RuntimeError):
            threading.Thread(target=int).start()
        _reaper.prepare()
        for _ in range(100):
            thing = pipe_end()
            number = thing.fileno()
            if not _reaper.close([thing]) or is_open(number):
                return False
        return True

    assert fork(child, ordinary=True).result()


def test_a_thread_that_never_begins_holds_nobody_up(monkeypatch, fork):
    """The kernel has given one, and then there was no memory for it: Thread.start() waited for ever."""

    def child():
        begun = time.monotonic()
        monkeypatch.setattr(_reaper._thread, "start_new_thread", lambda *_: 1)
        thing = pipe_end()
        number = thing.fileno()
        closed = _reaper.close([thing]), is_open(number), time.monotonic() - begun < PATIENCE
        monkeypatch.undo()
        # The next that is needed is started again.
        thing = pipe_end()
        number = thing.fileno()
        return closed, _reaper.close([thing]), _reaper.wait(PATIENCE), is_open(number)

    assert fork(child).result() == ((True, False, True), False, True, False)


def test_a_prepared_reaper_needs_no_other_thread(monkeypatch, fork):
    """Its first one closes what comes, one after the other."""

    def child():
        _reaper.prepare()
        no_thread(monkeypatch, RuntimeError("can't start new thread"))
        things = [pipe_end() for _ in range(5)]
        numbers = [thing.fileno() for thing in things]
        at_once = [_reaper.close([thing]) for thing in things]
        return any(at_once), _reaper.wait(PATIENCE), any(map(is_open, numbers))

    assert fork(child).result() == (False, True, False)


def test_close_within_waits_so_long_and_no_longer(slow):
    """True when all is closed."""
    assert _reaper.close_within(PATIENCE, [pipe_end(), pipe_end()])
    assert not _reaper.close_within(0.01, [slow()])


def test_a_full_table_waits_for_the_reaper(fork, slow):
    """What finds no room is tried again when something has been closed; where nothing is being closed, it is not."""

    def child():
        blocking, thing = Slow(), pipe_end()
        taken = fill(0)
        sender = Sender()
        for _ in range(THREADS_OF_SENDER):
            _reaper.close([blocking], sender)
        assert blocking.begun.wait(PATIENCE)
        _reaper.close([thing], sender)
        tries = []

        def make():
            try:
                os.close(os.dup(0))
            except OSError as error:
                tries.append(error.errno)
                blocking.may_end.set()
                return -error.errno
            return 7

        result = _reaper.with_room(make), len(tries)
        taken += fill(0)
        assert _reaper.wait(PATIENCE)
        again = _reaper.with_room(make), len(tries)
        for number in taken:
            os.close(number)
        return result, again, resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    assert fork(child, table=128).result() == ((7, 1), (-24, 2), 128)


@pytest.mark.parametrize("reused", [False, True])
def test_what_is_closed_in_the_middle_of_a_fork_is_closed_in_the_child(reused, fork):
    """The table was copied before that, and the memory after it; unless the number is another's by then."""
    one, other = socket.socketpair()

    def in_child():
        reaper = _reaper.Reaper()
        closing = DescriptorList.of([Descriptor(one.detach())])
        number = closing.numbers()[0]
        process.lists[0] = closing
        reaper.before_fork()
        # As memory is when the parent's thread has closed it.
        closing.struct.numbers[0] = -1
        if reused:
            os.dup2(other.fileno(), number)
        reaper.in_child()
        assert reaper.wait(PATIENCE)
        return is_open(number)

    with one, other:
        assert fork(in_child).result() is reused


def test_what_was_not_being_closed_is_not_noted_for_a_child():
    """Nor is anything in the parent when it has forked."""
    reaper = _reaper.Reaper()
    reaper.before_fork()
    assert not reaper._before_fork.closed_meanwhile()
    one, other = socket.socketpair()
    with one, other:
        process.lists[0] = closing = DescriptorList.of([Descriptor(os.dup(one.fileno()))])
        try:
            reaper.before_fork()
            assert reaper._before_fork
            reaper.after_fork()
            assert not reaper._before_fork
        finally:
            del process.lists[0]
            closing.close()


def test_threads_end_when_they_are_told_and_begin_again(fork):
    """What was handed over before is closed first; and what is handed over later is closed, too."""

    def threads():
        return len([*Path("/proc/self/task").iterdir()])

    def child():
        counts = []
        for _ in range(3):
            reader, writer = os.pipe()
            _reaper.close([Descriptor(reader)])
            assert _reaper.end_threads(PATIENCE)
            until(lambda: threads() == 1)
            with pytest.raises(BrokenPipeError):
                os.write(writer, b"x")
            os.close(writer)
            counts.append(threads())
            _reaper.go_on()
        reader, writer = os.pipe()
        _reaper.close([Descriptor(reader)])
        return counts, _reaper.wait(PATIENCE)

    assert fork(child).result() == ([1, 1, 1], True)


@pytest.mark.parametrize("can", [True, False], ids=["by a thread", "in place"])
def test_what_comes_while_threads_have_ended_waits_until_they_go_on(monkeypatch, fork, can):
    """No thread begins meanwhile; what is there is closed then, by one or where none can be had."""

    def child():
        assert _reaper.end_threads(PATIENCE)
        thing, told = pipe_end(), threading.Event()
        number = thing.fileno()
        assert not _reaper.close([thing], then=told.set)
        before = is_open(number), _reaper.wait(0), _reaper._reaper._threads.alive
        if not can:
            no_thread(monkeypatch, RuntimeError("can't start new thread"))
        _reaper.go_on()
        return before, told.wait(PATIENCE), is_open(number), _reaper.wait(PATIENCE)

    assert fork(child).result() == ((True, False, 0), True, False, True)


@pytest.mark.parametrize("at", range(12))
def test_ctrl_c_between_two_steps_of_ending_its_threads_leaves_nothing_open(at):
    """What has told a thread to end, and it has not done yet, ends none that is to go on."""
    _reaper.prepare()
    threads, number = _reaper._reaper._threads, pipe_end().detach()
    interrupting = Interrupting(at, KeyboardInterrupt, [reaper_threads.__file__])
    # None of them ends in this block.
    with threads.lock:
        with pytest.raises(KeyboardInterrupt), interrupting:
            threads.end(time.monotonic() + PATIENCE)
        _reaper.close([Descriptor(number)])
        _reaper.go_on()
    # Not by wait(), which starts a thread where there is none.
    until(lambda: not is_open(number))


def test_going_on_that_was_interrupted_is_done_again():
    """Nothing is left in the queue of a reaper that has no thread."""
    _reaper.prepare()
    assert _reaper.end_threads(PATIENCE)
    number = pipe_end().detach()
    _reaper.close([Descriptor(number)])
    at = 0
    while True:
        interrupting = Interrupting(at, KeyboardInterrupt, [reaper_threads.__file__])
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            _reaper.go_on()
        _reaper.go_on()
        # Not by wait(), which starts a thread where there is none.
        until(lambda: not is_open(number))  # noqa: B023 - called here
        if not interrupting.where:
            break
        at += 1
        assert _reaper.end_threads(PATIENCE)
        number = pipe_end().detach()
        _reaper.close([Descriptor(number)])
    assert at >= 3


def test_what_is_done_where_no_thread_can_be_had_is_not_lost_by_ctrl_c(monkeypatch, fork):
    """Wherever that comes while it goes on: all is closed when it has gone on once more, and counted once."""
    package = Path(_reaper.__file__).parent
    files = [package / f"{name}.py" for name in ("reaper_threads", "reaper", "closing_jobs", "descriptor_list")]

    def child():
        warnings.simplefilter("ignore", ResourceWarning)
        no_thread(monkeypatch, RuntimeError("can't start new thread"))
        at = 0
        while True:
            assert _reaper.end_threads(PATIENCE)
            user, told = Sender(), []
            sender, things = Sender(user), [pipe_end() for _ in range(3)]
            numbers = [thing.fileno() for thing in things]
            # As two records, each of which is a job.
            _reaper.close(things[:2], sender, partial(told.append, 0))
            _reaper.close(things[2:], sender, partial(told.append, 1))
            before = sender.waiting, user.waiting
            del things
            interrupting = Interrupting(at, KeyboardInterrupt, files)
            with contextlib.suppress(KeyboardInterrupt), interrupting:
                _reaper.go_on()
            _reaper.go_on()
            gc.collect()
            assert not any(map(is_open, numbers)), interrupting.where
            assert (before, sender.waiting, user.waiting) == ((3, 3), 0, 0), interrupting.where
            assert _reaper.wait(0), interrupting.where
            assert len(told) == len({*told}), interrupting.where
            if not interrupting.where:
                return at, told
            at += 1

    at, told = fork(child).result()
    assert at > 20
    assert told == [0, 1]


def test_ctrl_c_while_a_file_is_closed_in_place_is_the_programs(monkeypatch, fork):
    """It comes out, whether that begins there or goes on there; the others are closed, and nothing is closed twice."""

    def child():
        no_thread(monkeypatch, RuntimeError("can't start new thread"))
        for goes_on in (False, True):
            if goes_on:
                assert _reaper.end_threads(PATIENCE)
            last, interrupted = pipe_end(), Raises(KeyboardInterrupt())
            number, interrupts = last.fileno(), 0
            try:
                _reaper.close([interrupted, last])
            except KeyboardInterrupt:
                interrupts += 1
            try:
                _reaper.go_on()
            except KeyboardInterrupt:
                interrupts += 1
            _reaper.go_on()
            assert (interrupts, interrupted.closed, is_open(number)) == (1, 1, False), goes_on
        return True

    assert fork(child).result()


def test_what_is_closed_in_place_is_not_lost_by_ctrl_c(monkeypatch, fork):
    """A thread closes the rest, once one can be had."""
    package = Path(_reaper.__file__).parent
    files = [package / f"{name}.py" for name in ("reaper", "closing_jobs", "descriptor_list")]

    def child():
        at = 0
        while True:
            thing = pipe_end()
            number, job = thing.fileno(), Job(DescriptorList.of([thing]), 1, [], Sender(), None)
            interrupting = Interrupting(at, KeyboardInterrupt, files)
            with monkeypatch.context() as patch:
                no_thread(patch, RuntimeError("can't start new thread"))
                with contextlib.suppress(KeyboardInterrupt), interrupting:
                    _reaper._reaper._do(job)
            del job
            assert _reaper.wait(PATIENCE), interrupting.where
            assert not is_open(number), interrupting.where
            if not interrupting.where:
                return at
            # No thread is to be there the next time.
            assert _reaper.end_threads(PATIENCE)
            _reaper.go_on()
            at += 1

    assert fork(child).result() > 3
