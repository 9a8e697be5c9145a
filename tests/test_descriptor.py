"""Descriptor: one owner at each moment, whatever fails."""

import copy
import fcntl
import io
import os
import pickle
import signal
import socket
import threading
import warnings
import weakref

import pytest

from capmarshal import Descriptor
from capmarshal._descriptors.descriptor import number_of
from capmarshal._kernel.errors import Closed, Error, KernelError, TableFull
from full_table import fill
from slow_closing import is_open


def test_it_owns_the_number_that_it_is_given(files):
    """No copy: fileno() is the very number, and close() closes it."""
    number = os.dup(files(1)[0])
    descriptor = Descriptor(number)
    assert descriptor.fileno() == number
    assert not descriptor.closed
    descriptor.close()
    assert descriptor.closed
    assert not is_open(number)


def test_a_with_block_closes_it(files):
    """As a context manager it closes at the end of the block, and gives itself to the block."""
    with Descriptor(os.dup(files(1)[0])) as descriptor:
        number = descriptor.fileno()
        assert is_open(number)
    assert not is_open(number)


@pytest.mark.parametrize("wrong", [None, "3", 3.0, True, b"\3"])
def test_only_an_int_is_a_descriptor(wrong):
    """Anything else, bool too, is a TypeError."""
    with pytest.raises(TypeError):
        Descriptor(wrong)


def test_a_negative_number_is_no_descriptor():
    """-1, an unchecked failure of a call, is refused."""
    with pytest.raises(ValueError, match="-1"):
        Descriptor(-1)


def test_closing_twice_is_harmless_even_when_the_number_lives_again(memfd, files):
    """The second close() does nothing: the number may be somebody else's by then."""
    number, other = memfd.fileno(), files(1)[0]
    memfd.close()
    os.dup2(other, number)
    memfd.close()
    assert is_open(number)
    os.close(number)


def test_a_second_close_during_the_first_leaves_a_reused_number_alone(lingering, drain, until, files):
    """While a close() blocks in the kernel, its number is free: a second close() must not hit its new user."""
    number, peer = lingering(60)
    descriptor, other = Descriptor(number), files(1)[0]
    first = threading.Thread(target=descriptor.close)
    first.start()
    until(lambda: not is_open(number))
    assert first.is_alive(), "the close did not block, so this test shows nothing"
    os.dup2(other, number)
    descriptor.close()
    assert descriptor.closed
    assert is_open(number)
    os.close(number)
    drain(peer)
    first.join(30)
    assert not first.is_alive()


def test_a_signal_handler_that_closes_during_close_leaves_a_reused_number_alone(lingering, drain, until, files):
    """As above, for the same thread: the handler runs when the interrupted close() returns."""
    number, peer = lingering(60)
    descriptor, other = Descriptor(number), files(1)[0]
    ran = []

    def handler(*_):
        ran.append(descriptor.closed)
        os.dup2(other, number)
        descriptor.close()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        # A lingering close() is interrupted by a signal; the descriptor is gone all the same.
        descriptor.close()
        until(lambda: ran)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ran == [True]
    assert is_open(number)
    os.close(number)
    drain(peer)


def test_close_never_raises(files):
    """Somebody else closed it: nothing to be done about, nothing raised."""
    number = os.dup(files(1)[0])
    descriptor = Descriptor(number)
    os.close(number)
    descriptor.close()
    assert descriptor.closed


def test_a_forgotten_one_warns_and_is_closed(files):
    """ResourceWarning, naming the descriptor; and it does not stay open."""
    number = os.dup(files(1)[0])
    descriptor = Descriptor(number)
    with pytest.warns(ResourceWarning, match=rf"unclosed <Descriptor {number}>"):
        del descriptor
    assert not is_open(number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_forgotten_one_is_closed_where_warnings_are_errors(files):
    """python -W error turns the warning into an exception; the descriptor is closed all the same."""
    number = os.dup(files(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Descriptor(number)
    assert not is_open(number)


def test_a_weak_reference_does_not_keep_it(files):
    """And is told when it goes."""
    told, descriptor = [], Descriptor.dup_of(files(1)[0])
    reference = weakref.ref(descriptor, told.append)
    assert reference() is descriptor
    descriptor.close()
    del descriptor
    assert (reference(), told) == (None, [reference])


def test_detach_gives_it_up(memfd):
    """The caller owns the number then; the Descriptor closes nothing and has nothing."""
    number = memfd.detach()
    memfd.close()
    assert memfd.closed
    assert is_open(number)
    os.close(number)


@pytest.mark.parametrize("use", ["fileno", "dup", "detach", "open", "socket"])
def test_a_closed_one_says_so(memfd, use):
    """Every use of a closed one is Closed, a ValueError as with Python's files."""
    memfd.close()
    with pytest.raises(Closed) as caught:
        getattr(memfd, use)()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, Error)


def test_dup_is_cloexec_and_shares_the_open_file(memfd, identity):
    """A copy has a number of its own, CLOEXEC, for the same open file: they share the offset."""
    os.write(memfd.fileno(), b"abcdef")
    with memfd.dup() as copy:
        assert copy.fileno() != memfd.fileno()
        assert fcntl.fcntl(copy.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        assert identity(copy) == identity(memfd)
        os.lseek(copy.fileno(), 2, os.SEEK_SET)
        assert os.read(memfd.fileno(), 9) == b"cdef"
    assert not memfd.closed


def test_dup_of_a_file_leaves_the_file_alone(tmp_path, identity):
    """dup_of() takes anything with a fileno(); that stays open, and survives the copy."""
    with (tmp_path / "file").open("wb") as file:
        with Descriptor.dup_of(file) as copy:
            assert identity(copy) == identity(file)
        file.write(b"still open")
    assert (tmp_path / "file").read_bytes() == b"still open"


def test_dup_of_a_number_that_is_not_open():
    """KernelError with the errno, an OSError."""
    with pytest.raises(KernelError) as caught:
        Descriptor.dup_of(1_000_000)
    assert caught.value.errno == 9


def test_dup_with_a_full_table_names_the_limit(fork, memfd):
    """TableFull says which limit, and how large it is."""

    def child():
        fill(0)
        try:
            memfd.dup()
        except TableFull as error:
            return str(error)
        return "no error"

    text = fork(child, table=64).result()
    assert "64 of 64" in text
    assert "RLIMIT_NOFILE" in text


def test_number_of_refuses_what_has_no_descriptor(tmp_path):
    """Closed for what is closed, TypeError for no fileno(), and for one that has nothing to give."""
    with (tmp_path / "file").open("wb") as file:
        pass
    with pytest.raises(Closed, match="a `BufferedWriter` that was closed before"):
        number_of(file)
    with socket.socket() as sock:
        pass
    with pytest.raises(Closed):
        number_of(sock)
    with pytest.raises(Closed):
        number_of(-1)

    class Nonsense:
        def fileno(self):
            return "3"

    for nothing in (Nonsense(), 3.5, "file", None):
        with pytest.raises(TypeError, match="is due, not"):
            number_of(nothing)
    with pytest.raises(TypeError, match="a `BytesIO` has no descriptor"):
        number_of(io.BytesIO())


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_neither_copied_nor_pickled(memfd, again):
    """Two owners of one number: the second would close what somebody else has got by then."""
    with pytest.raises(TypeError, match=r"one owner: dup\(\) makes another"):
        again(memfd)


def test_the_repr_tells_open_from_closed(memfd):
    """repr() names the number, and never a number that is not its own any more."""
    assert repr(memfd) == f"<Descriptor {memfd.fileno()}>"
    memfd.close()
    assert repr(memfd) == "<Descriptor closed>"


def test_one_that_lives_until_the_interpreter_ends_makes_no_noise(run_peer):
    """No traceback from __del__ at interpreter shutdown; the kernel closes."""

    def script():
        global forgotten
        forgotten = Descriptor(os.dup(0))

    run_peer(script).finish(stderr=None)
