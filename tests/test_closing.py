"""What cannot block is closed on the spot, whatever it is and however much; all else is the reaper's."""

import contextlib
import errno
import io
import os
import random
import socket
import stat
import tempfile
import threading

import pytest

from capmarshal import Dataspace, Descriptor
from capmarshal._descriptors import closing
from capmarshal._descriptors import reaper as _reaper
from capmarshal._descriptors.closing import closes_own_reader
from capmarshal._descriptors.closing_jobs import Sender
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.mounts import mounts
from capmarshal._descriptors.reaper_threads import THREADS_MAX
from capmarshal._kernel.native import lib
from fuse_file import FuseFile
from patience import PATIENCE
from refusing import refuse
from slow_closing import is_open, number_has_seals, pipe_end


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
    if kind == "a file that has no name" and number_has_seals(number):
        os.close(number)
        pytest.skip("the directory for tests is on tmpfs, where it is as a memfd")
    assert not _reaper.close([Descriptor(number)], then=told.set)
    assert told.wait(PATIENCE)
    assert not is_open(number)


@pytest.mark.parametrize("kind", [*QUICK, *SLOW])
def test_of_own_readers_only_a_regular_file_with_a_name_is_closed_on_the_spot(kind, tmp_path):
    """Asked without a look at the mounts, which was taken when the file came."""
    made = QUICK[kind](tmp_path) if kind in QUICK else contextlib.nullcontext(SLOW[kind](tmp_path))
    with made as number:
        # One of /proc has a name, too: nobody asks this of it, as it is none of this machine's own.
        assert closes_own_reader(number) == (kind in ("named file", "/proc"))
        os.close(number)
        assert not closes_own_reader(number)


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


def _closes_these_alone(path, random):
    """Closes some of many files, in any order, with what may block among them; what of that was not as it should be."""
    # Enough for several rows, which others' interrupt.
    opened = [os.open(path, os.O_RDONLY) if random.random() < 0.95 else os.pipe()[0] for _ in range(200)]
    chosen = [number for number in opened if random.random() < 0.9]
    if random.random() < 0.5:
        random.shuffle(chosen)
    quick = {number for number in chosen if stat.S_ISREG(os.fstat(number).st_mode)}
    with contextlib.closing(DescriptorList.of([Descriptor(number) for number in chosen])) as descriptors:
        left = closing.close_quick(descriptors)
        closed = {number for number in opened if not is_open(number)}
        counted = left == len(chosen) - len(quick) == sum(number >= 0 for number in descriptors.numbers())
        return counted, closed ^ quick


@pytest.mark.parametrize("refused", [0, errno.EPERM, errno.ENOSYS])
def test_files_in_a_row_are_closed_and_none_between_them(fork, tmp_path, refused):
    """Many in one system call, and each by itself where that is refused, or is not there."""
    path = tmp_path / "file"
    path.touch()

    def child():
        if refused:
            refuse(["close_range"], refused)
        closed = [_closes_these_alone(path, random.Random(seed)) for seed in range(4)]
        one_by_one = mounts.struct.one_by_one
        # What was learned goes with the list of mounts by which it was learned.
        mounts.read()
        return closed, one_by_one, mounts.struct.one_by_one

    assert fork(child).result() == ([(True, set())] * 4, int(refused != 0), 0)


def test_files_do_not_pile_up_behind_a_busy_reaper(slow, tmp_path):
    """With every thread of it held up, what cannot block is closed at once, however many came in one record."""
    user = Sender()
    for _ in range(2 * THREADS_MAX):
        _reaper.close([slow()], Sender(user))
    path = tmp_path / "file"
    path.touch()
    assert _reaper.close([Descriptor(os.open(path, os.O_RDONLY)) for _ in range(300)])


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


def test_a_child_forked_while_a_list_is_closed_on_the_spot_closes_it_too(fork, monkeypatch, tmp_path):
    """Another thread may fork then: the one that was closing does not exist in the child."""
    (tmp_path / "file").touch()
    numbers = [os.open(tmp_path / "file", os.O_RDONLY) for _ in range(20)]
    some = [Descriptor(number) for number in numbers]
    seen, parent = [], os.getpid()

    class Forking:
        def __getattr__(self, name):
            return getattr(lib, name)

        def cm_close_quick(self, *arguments):
            if os.getpid() == parent:
                seen.append(fork(lambda: any(map(is_open, numbers))).result())
            return lib.cm_close_quick(*arguments)

    monkeypatch.setattr(closing, "lib", Forking())
    assert _reaper.close(some)
    # Asked twice where the mounts had changed.
    assert set(seen) == {False}
    assert not any(map(is_open, numbers))
