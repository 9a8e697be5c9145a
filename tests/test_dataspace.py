"""Dataspace: made here, handed over, and what a stranger may send in its place."""

from __future__ import annotations

import array
import contextlib
import copy
import ctypes
import errno
import fcntl
import gc
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

import capmarshal as cm
from capmarshal._descriptors import dataspace
from interrupting import Interrupting
from patience import PATIENCE

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class Store(cm.Interface):
    """Takes and gives big data."""

    @cm.method
    def total(self, data: cm.Dataspace) -> int: ...

    @cm.method
    def make(self, size: int) -> cm.Dataspace: ...


class StoreServer(Store):
    """The server of it."""

    def total(self, data):
        self.last = data
        return sum(data.view())

    def make(self, size):
        self.made = cm.Dataspace.from_buffer(b"\7" * size)
        return self.made


@pytest.fixture
def store():
    with cm.Entrypoint("store") as entrypoint:
        proxy = entrypoint.manage(StoreServer()).cast(Store)
        yield proxy
        # pytest holds the proxy, and so the door, until after the descriptors are counted.
        cm.capability(proxy).close()


@pytest.fixture
def memfd():
    """memfd(size, seals, flags): a descriptor of a memfd, closed after the test."""
    made = []

    def make(size, seals=SEALS, flags=0, fill=True):
        number = os.memfd_create("hostile", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
        made.append(number)
        if fill:
            os.posix_fallocate(number, 0, size)
        else:
            os.truncate(number, size)
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
        return number

    yield make
    for number in made:
        os.close(number)


class _Lent:
    def __init__(self, number):
        self._number = number

    def fileno(self):
        return self._number


def _mappings():
    return Path("/proc/self/maps").read_text().count("capmarshal-dataspace")


def test_what_was_written_is_seen():
    """create, write, seal, view: the bytes, zero where nothing was written."""
    with cm.Dataspace.create(10) as made:
        made.write(b"ab", 3)
        made.seal()
        made.seal()
        with made.view() as view:
            assert (bytes(view), view.readonly) == (b"\0\0\0ab\0\0\0\0\0", True)


def test_a_copy_of_any_buffer():
    """from_buffer takes anything contiguous, of any item size."""
    with cm.Dataspace.from_buffer(memoryview(b"12345678").cast("I")) as made, made.view() as view:
        assert (made.size, bytes(view)) == (8, b"12345678")
    with cm.Dataspace.from_buffer(b"") as empty, empty.view() as view:
        assert (empty.size, bytes(view)) == (0, b"")


def test_views_outlive_the_dataspace_and_nothing_outlives_the_views():
    """The memory is mapped as long as a view lives, and costs no descriptor."""
    made = cm.Dataspace.from_buffer(b"x" * 5000)
    view = made.view()
    made.close()
    part = view[10:20]
    del view
    gc.collect()
    assert (_mappings(), bytes(part)) == (1, b"x" * 10)
    del part
    gc.collect()
    assert _mappings() == 0


def test_one_that_is_not_sealed_is_written_in_place_and_not_sent(store):
    """What could still change is seen by who makes it, and handed over to nobody."""
    with cm.Dataspace.create(4) as made:
        with made.view() as view, made.view() as other:
            view[1:3] = b"ab"
            assert bytes(other) == b"\0ab\0"
        with pytest.raises(cm.ArgumentError, match="must be sealed"):
            store.total(made)
        made.seal()
        with made.view() as view:
            assert (bytes(view), view.readonly) == (b"\0ab\0", True)
        assert store.total(made) == sum(b"ab")


def test_it_is_sealed_when_nobody_can_write_any_more():
    """While a view lives, of this process or of one that was forked, sealing is an error that says so."""
    with cm.Dataspace.create(5000) as made:
        view = made.view()
        for _ in range(2):
            with pytest.raises(cm.KernelError, match=r"busy, .*let go of each first \(del array\)") as caught:
                made.seal()
            assert (caught.value.errno, made.sealed) == (errno.EBUSY, False)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        os.close(read)
        del view
        with pytest.raises(cm.KernelError, match="in a child that was forked meanwhile, too"):
            made.seal()
        os.close(write)
        os.waitpid(child, 0)
        made.seal()


def test_one_that_was_closed_before_it_was_sealed_is_closed(store):
    """There is nothing any more that could be sealed."""
    made = cm.Dataspace.create(4)
    made.close()
    with pytest.raises(cm.Closed, match="a dataspace that was closed before"):
        made.view()
    with pytest.raises(cm.Closed, match="a dataspace that was closed before: pass it while it is open"):
        store.total(made)


def test_what_is_to_be_in_one_is_given_by_name_of_the_way():
    """Who calls the class with the bytes is told how one is made; and so is who passes the bytes."""
    for wrong in ((), (b"x",), (b"x", 1)):
        with pytest.raises(TypeError, match=r"a dataspace is made with Dataspace\.from_buffer\(data\)"):
            cm.Dataspace(*wrong)
    with pytest.raises(TypeError, match="a size is a number of bytes, not '4'"):
        cm.Dataspace.create("4")


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x"), array.array("i", [1])])
def test_bytes_where_one_is_due(store, data):
    """The error names what makes one of them."""
    with pytest.raises(cm.ArgumentError, match=r"where capmarshal\.Dataspace is due: cm\.Dataspace\.from_buffer"):
        store.total(data)


def test_one_that_is_forgotten_is_named():
    """By what its owner knows of, however it came to it."""
    with cm.Dataspace.from_buffer(b"x") as made:
        for forget in (cm.Dataspace.dup, lambda kept: cm.Dataspace.receive(cm.Descriptor.dup_of(kept))):
            with pytest.warns(ResourceWarning, match="unclosed <memory of a Dataspace, "):
                forget(made)
    with pytest.warns(ResourceWarning, match="unclosed <memory of a Dataspace, "):
        cm.Dataspace.create(1)


def test_it_is_not_copied():
    """Two owners of one descriptor would both close it."""
    with cm.Dataspace.from_buffer(b"x") as made, pytest.raises(TypeError, match=r"dup\(\) makes another"):
        copy.copy(made)


def test_what_a_signal_handler_raises_while_one_is_made_is_raised(fork):
    """At each step; and not that the buffer it is made of is in use, by what was raised."""

    def interrupted(at):
        interrupting = Interrupting(at, KeyboardInterrupt, [dataspace.__file__])
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            cm.Dataspace.from_buffer(bytearray(b"any")).close()
        return interrupting.where

    def sweep():
        # What Ctrl-C keeps from being returned is found unclosed.
        warnings.simplefilter("ignore", ResourceWarning)
        at = 0
        while interrupted(at):
            at += 1
        return at

    assert fork(sweep).result() > 15


def test_sealed_can_not_be_written():
    """Sealed is sealed."""
    with cm.Dataspace.from_buffer(b"abc") as made, pytest.raises(cm.KernelError, match="it is sealed") as caught:
        made.write(b"x")
    assert caught.value.errno == errno.EPERM


@pytest.mark.parametrize(("data", "words"), [("text", "a str"), ([1], "a list"), (None, "a NoneType"), (3, "an int")])
def test_what_is_no_buffer_is_not_written(data, words):
    """And is said to be none in words of the package's own."""
    with cm.Dataspace.create(4) as made, pytest.raises(TypeError, match=f"^what is written is bytes, .*, not {words}$"):
        made.write(data)


@pytest.mark.parametrize(("data", "offset"), [(b"12345", 0), (b"1", 4), (b"1", -1)])
def test_writing_outside_is_refused(data, offset):
    """Nothing is written beyond the end."""
    with cm.Dataspace.create(4) as made, pytest.raises(ValueError, match="in a dataspace of 4"):
        made.write(data, offset)


def test_closed_is_closed():
    """No use after close, and closing twice is nothing."""
    made = cm.Dataspace.from_buffer(b"abc")
    made.close()
    made.close()
    with pytest.raises(cm.Closed):
        made.view()


def test_argument_and_result(store, until):
    """Lent as an argument, owned as a result; the call closes the server's."""
    with cm.Dataspace.from_buffer(bytes(range(100)) * 1000) as data:
        assert store.total(data) == sum(range(100)) * 1000
        assert not data.closed
    with store.make(100_000) as made, made.view() as view:
        assert bytes(view) == b"\7" * 100_000
    until(lambda: cm.capability(store).local.made.closed)


def test_the_received_one_is_the_same_memory(store, identity):
    """No copy is made on the way."""
    with store.make(10) as made, made.dup() as copy:
        assert identity(made) == identity(copy)
        assert made.sealed


@pytest.mark.parametrize("missing", [fcntl.F_SEAL_WRITE, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_SEAL])
def test_a_missing_seal_is_an_error(store, memfd, missing):
    """One that its sender could still change, in any way, is refused."""
    with pytest.raises(cm.ArgumentError, match=r"not sealed.*`data`"):
        store.total(_Lent(memfd(4096, SEALS & ~missing)))


def test_future_write_is_no_seal(store, memfd):
    """F_SEAL_FUTURE_WRITE leaves the sender's own mapping writable, so it is not enough."""
    f_seal_future_write = 0x10
    with pytest.raises(cm.ArgumentError, match="not sealed"):
        store.total(_Lent(memfd(4096, (SEALS & ~fcntl.F_SEAL_WRITE) | f_seal_future_write)))


def test_a_sparse_monster_is_an_error(store, memfd):
    """32 TiB without memory behind it are refused, whatever the seals say."""
    with pytest.raises(cm.ArgumentError, match="claims 35184372088832 bytes"):
        store.total(_Lent(memfd(32 << 40, fill=False)))


MORE_THAN_THERE_IS = """
import errno, itertools, resource
import capmarshal as cm

# Should it be asked for all the same, nothing else on this machine is to be killed for it.
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
makers = (cm.Dataspace.create, lambda size: cm.BufferPool(1, size).take())
for make, size in itertools.product(makers, (1 << 46, 1 << 63, 1 << 100)):
    try:
        make(size)
    except cm.KernelError as error:
        assert error.errno == errno.ENOMEM, error
    else:
        raise AssertionError("made")
"""


@pytest.mark.skipif(
    Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "1", reason="this machine never says no"
)
def test_more_than_there_is_is_an_error():
    """The kernel would have other processes killed to make room."""
    subprocess.run([sys.executable, "-P", "-c", MORE_THAN_THERE_IS], check=True, timeout=PATIENCE)


def test_it_is_no_data_of_the_process(fork):
    """RLIMIT_DATA bounds the heap, and what is handed over is none of it."""

    def make():
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 20, 1 << 20))
        with cm.Dataspace.create(4 << 20) as made:
            return made.size

    assert fork(make).result() == 4 << 20


def test_huge_pages_are_an_error(store):
    """Memory that may need a huge page at the moment of reading is refused."""
    number = ctypes.CDLL(None, use_errno=True).memfd_create(b"huge", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    if number < 0:
        pytest.skip("this kernel has no hugetlb")
    with cm.Descriptor(number) as huge:
        fcntl.fcntl(huge, fcntl.F_ADD_SEALS, SEALS)
        with pytest.raises(cm.ArgumentError, match="huge pages"):
            store.total(huge)


def test_no_memfd_is_an_error(store):
    """A file is no dataspace."""
    with Path("/dev/null").open("rb") as file, pytest.raises(cm.ArgumentError, match="no memfd"):
        store.total(file)


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="there is no tmpfs at /dev/shm")
def test_a_file_of_tmpfs_is_an_error_that_says_so(store):
    """It has seals as a memfd has, and can be given none: its sender is not told to seal it."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file, pytest.raises(cm.ArgumentError, match="a file of tmpfs"):
        store.total(file)


def test_the_sender_cannot_take_back_what_is_viewed():
    """A writable mapping prevents sealing: what is sealed nobody has mapped for writing."""
    with cm.Dataspace.create(mmap.PAGESIZE) as made:
        writable = mmap.mmap(made.fileno(), mmap.PAGESIZE)
        with pytest.raises(cm.KernelError, match="busy"):
            made.seal()
        writable.close()
        made.seal()
