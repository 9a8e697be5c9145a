"""The reaper: closing what a stranger sent delays nobody, and what cannot block is closed on the spot."""

import contextlib
import fcntl
import io
import os
import resource
import socket
import tempfile
import threading
import time

import pytest

from capmarshal import Dataspace, Descriptor
from capmarshal._descriptors import reaper as _reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.reaper import Sender
from fuse_file import FuseFile

PATIENCE = 30


def is_open(number):
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


class Slow:
    """Its close() waits until it may."""

    def __init__(self, name="", log=None):
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.name, self.log = name, log

    def fileno(self):
        raise OSError("it has none")

    def close(self):
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        if self.log is not None:
            self.log.append(self.name)


@pytest.fixture
def slow():
    """slow(): something whose close() blocks until the test ends, or lets it."""
    made = []

    def make(*args):
        made.append(Slow(*args))
        return made[-1]

    yield make
    for each in made:
        each.may_end.set()
    assert _reaper.wait(PATIENCE)


def pipe_end():
    """A descriptor that is the reaper's to close."""
    reader, writer = os.pipe()
    os.close(writer)
    return Descriptor(reader)


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


@contextlib.contextmanager
def _listener():
    with socket.create_server(("127.0.0.1", 0)) as made:
        # Said of it, and without any effect: it never lingers.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\x3c\0\0\0")
        yield made.detach()


@contextlib.contextmanager
def _connected():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as made:
        yield made.detach()


QUICK = {
    "memfd": lambda _: contextlib.nullcontext(os.memfd_create("quick", os.MFD_CLOEXEC)),
    "named file": lambda path: contextlib.nullcontext(os.open(path / "file", os.O_RDWR | os.O_CREAT)),
    "directory": lambda path: contextlib.nullcontext(os.open(path, os.O_RDONLY)),
    "/dev/null": lambda _: contextlib.nullcontext(os.open("/dev/null", os.O_RDWR)),
    "/dev/urandom": lambda _: contextlib.nullcontext(os.open("/dev/urandom", os.O_RDONLY)),
    "listener that is said to linger": lambda _: _listener(),
    "connected TCP": lambda _: _connected(),
    "UDP": lambda _: contextlib.nullcontext(socket.socket(type=socket.SOCK_DGRAM).detach()),
}

SLOW = {
    "pipe": lambda _: pipe_end().detach(),
    "FIFO": lambda path: (os.mkfifo(path / "fifo"), os.open(path / "fifo", os.O_RDWR))[1],
    "unix socket": lambda _: socket.socket(socket.AF_UNIX).detach(),
    "a file that has no name": lambda path: os.open(path, os.O_TMPFILE | os.O_RDWR) if os.statvfs(path).f_bsize else -1,
    "/proc": lambda _: os.open("/proc/self/status", os.O_RDONLY),
    "eventfd": lambda _: os.eventfd(0),
}


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize("of", [Descriptor, lambda number: DescriptorList.of([Descriptor(number)])])
def test_what_cannot_block_is_closed_on_the_spot(kind, of, tmp_path):
    """Nothing of it waits for a thread."""
    with QUICK[kind](tmp_path) as number:
        assert _reaper.close([of(number)])
        assert not is_open(number)


@pytest.mark.parametrize("kind", SLOW)
def test_what_may_block_goes_to_the_reaper_and_is_closed(kind, tmp_path):
    """Pipes, unix sockets and what is unknown."""
    number = SLOW[kind](tmp_path)
    told = threading.Event()
    if kind == "a file that has no name" and fcntl_is_tmpfs(number):
        os.close(number)
        pytest.skip("the directory for tests is on tmpfs, where it is as a memfd")
    assert not _reaper.close([Descriptor(number)], then=told.set)
    assert told.wait(PATIENCE)
    assert not is_open(number)


def fcntl_is_tmpfs(number):
    try:
        fcntl.fcntl(number, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("make", "at_once"),
    [
        (lambda path: (path / "file").open("w+b"), True),
        (lambda path: (path / "file").open("w"), True),
        (lambda path: (path / "file").open("wb", buffering=0), True),
        (lambda _: Dataspace.from_buffer(b"abc"), True),
        (lambda _: socket.create_server(("127.0.0.1", 0)), True),
        (lambda _: pipe_end().open("rb"), False),
        # Its close() would write.
        (lambda _: io.BufferedWriter(io.FileIO(socket.socket(type=socket.SOCK_DGRAM).detach(), "w")), False),
        # Whose close() is whose code?
        (lambda path: tempfile.NamedTemporaryFile(dir=path), False),
    ],
)
def test_files_and_sockets_are_closed_as_their_descriptors_are(make, at_once, tmp_path):
    """By what is underneath, unless a close() may do more than close that."""
    file = make(tmp_path)
    number = file.fileno()
    assert _reaper.close([file]) == at_once
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
    """One without close(), or whose close() or fileno() raises whatever it likes (CASES 2.7): the others are closed."""
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


def test_a_sender_occupies_two_threads_and_others_are_not_delayed(slow):
    """The third thing of one that blocks waits for one of the first two; what others sent does not."""
    sender, other, log = Sender(), Sender(), []
    things = [slow(name, log) for name in range(4)]
    for thing in things:
        assert not _reaper.close([thing], sender)
    assert things[0].begun.wait(PATIENCE)
    assert things[1].begun.wait(PATIENCE)
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
    things = [slow() for _ in range(_reaper.THREADS_MAX + 2)]
    for thing in things:
        _reaper.close([thing], Sender(user))
    told = threading.Event()
    assert not _reaper.close([pipe_end()], Sender(Sender()), told.set)
    assert told.wait(PATIENCE)
    begun = sum(thing.begun.is_set() for thing in things)
    assert 0 < begun < _reaper.THREADS_MAX
    for thing in things:
        thing.may_end.set()
    assert _reaper.wait(PATIENCE)
    assert all(thing.begun.is_set() for thing in things)


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


@pytest.mark.parametrize("count", [1, 2, 16, 17, 300])
@pytest.mark.parametrize("kind", ["pipes", "files", "both"])
def test_all_of_one_record_are_closed_and_nothing_else(count, kind, tmp_path):
    """Few or many, quick or not: each is closed, those among them that were closed before are nobody's any more."""
    path, (reader, writer) = tmp_path / "file", os.pipe()
    path.touch()
    with Descriptor(reader), Descriptor(writer):
        opened = {
            "pipes": lambda at: os.dup(reader),
            "files": lambda at: os.open(path, os.O_RDONLY),
            "both": lambda at: os.open(path, os.O_RDONLY) if at % 2 else os.dup(writer),
        }[kind]
        descriptors = [Descriptor(opened(at)) for at in range(count)]
        numbers = [descriptor.fileno() for descriptor in descriptors]
        # Somebody else's by the time that the batch is closed.
        foreign = descriptors[count // 2].detach()
        _reaper.close(descriptors)
        assert _reaper.wait(PATIENCE)
        assert [number for number in numbers if is_open(number)] == [foreign]
        assert all(descriptor.closed for descriptor in descriptors)
        os.close(foreign)


def test_files_do_not_pile_up_behind_a_busy_reaper(slow, tmp_path):
    """With every thread of it held up, what cannot block is closed at once, however many came in one record."""
    user = Sender()
    for _ in range(2 * _reaper.THREADS_MAX):
        _reaper.close([slow()], Sender(user))
    path = tmp_path / "file"
    path.touch()
    assert _reaper.close([Descriptor(os.open(path, os.O_RDONLY)) for _ in range(300)])


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
    for _ in range(_reaper.THREADS_OF_SENDER):
        _reaper.close([slow()], sender)
    queued = [os.dup(number) for number in pipes(5)]
    for number in queued:
        _reaper.close([Descriptor(number)], sender, told.set)

    def child():
        deadline = time.monotonic() + PATIENCE
        while any(map(is_open, queued)) and time.monotonic() < deadline:
            time.sleep(0.001)
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
    assert _reaper._reaper._alive <= _reaper.THREADS_MAX


def no_thread(monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(_reaper._thread, "start_new_thread", refuse)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_where_no_thread_can_be_had_closing_happens_in_place(monkeypatch, fork, error):
    """It was all open for ever, and 100 calls later the server was deaf (CASES 2.5)."""

    def child():
        no_thread(monkeypatch, error)
        things = [pipe_end() for _ in range(5)]
        numbers = [thing.fileno() for thing in things]
        return _reaper.close(things, then=lambda: os._exit(9)), any(map(is_open, numbers)), _reaper.behind()

    assert fork(child).result() == (True, False, False)


def test_a_thread_that_never_begins_holds_nobody_up(monkeypatch, fork):
    """The kernel has given one, and then there was no memory for it: Thread.start() waited for ever (CASES 2.5)."""

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


def fill():
    """Takes all room in the descriptor table."""
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    return taken


def test_a_full_table_waits_for_the_reaper(fork, slow):
    """What finds no room is tried again when something has been closed; where nothing is being closed, it is not."""

    def child():
        blocking, thing = Slow(), pipe_end()
        taken = fill()
        sender = Sender()
        for _ in range(_reaper.THREADS_OF_SENDER):
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
        taken += fill()
        assert _reaper.wait(PATIENCE)
        again = _reaper.with_room(make), len(tries)
        for number in taken:
            os.close(number)
        return result, again, resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    assert fork(child, table=128).result() == ((7, 1), (-24, 2), 128)


@pytest.mark.parametrize("of", [Descriptor, os.fdopen])
def test_a_file_whose_server_is_stopped_delays_nobody(tmp_path, of):
    """FUSE asks at every close, NFS and CIFS likewise: it is told by its mount, which asks nobody."""
    with FuseFile(tmp_path) as fuse:
        things = [of(os.open(fuse.path, os.O_RDONLY)) for _ in range(3)]
        numbers = [thing.fileno() for thing in things]
        fuse.stop()
        sender, told = Sender(), threading.Event()
        assert not _reaper.close(things, sender, told.set)
        others = threading.Event()
        assert not _reaper.close([pipe_end()], Sender(), others.set)
        assert others.wait(PATIENCE)
        assert sender.waiting == 3
        fuse.go_on()
        assert told.wait(PATIENCE)
        assert not any(map(is_open, numbers))
