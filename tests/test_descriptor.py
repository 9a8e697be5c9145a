"""Descriptor: one owner at each moment, whatever fails."""

import contextlib
import fcntl
import io
import os
import random
import signal
import socket
import stat
import sys
import threading
import time
import warnings

import pytest

from capmarshal import Dataspace, Descriptor
from capmarshal._descriptors import reaper
from capmarshal._descriptors.descriptor import number_of
from capmarshal._kernel.errors import Closed, Error, KernelError, TableFull
from patience import PATIENCE
from slow_closing import is_open


@pytest.fixture
def memfd(files):
    """A Descriptor of a file of its own."""
    with Descriptor.dup_of(files(1)[0]) as descriptor:
        yield descriptor


@pytest.fixture
def directory(tmp_path):
    """A Descriptor of a directory."""
    with Descriptor(os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        yield descriptor


@pytest.fixture
def pipe():
    """Descriptors of the read end and the write end of a pipe."""
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(Descriptor(end)) for end in os.pipe())


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
        with contextlib.suppress(OSError):
            while True:
                os.dup(memfd.fileno())
        try:
            memfd.dup()
        except TableFull as error:
            return str(error)
        return "no error"

    text = fork(child, table=64).result()
    assert "64 of 64" in text
    assert "RLIMIT_NOFILE" in text


def test_number_of_refuses_what_has_no_descriptor(tmp_path):
    """Closed for a closed socket, ValueError for a closed file, TypeError for a fileno() of nonsense."""
    with (tmp_path / "file").open("wb") as file:
        pass
    with pytest.raises(ValueError, match="closed"):
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

    with pytest.raises(TypeError):
        number_of(Nonsense())


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("rb", io.BufferedReader), ("wb", io.BufferedWriter), ("ab", io.BufferedWriter), ("r+b", io.BufferedRandom)],
)
def test_open_makes_the_file_object_of_the_mode(memfd, mode, kind):
    """The file object owns the descriptor from then on, under the same number."""
    number = memfd.fileno()
    with memfd.open(mode) as file:
        assert type(file) is kind
        assert file.fileno() == number
        assert memfd.closed
        memfd.close()
        assert is_open(number)
    assert not is_open(number)


@pytest.mark.parametrize(
    ("mode", "kind"), [("r", io.BufferedReader), ("w", io.BufferedWriter), ("a", io.BufferedWriter)]
)
def test_open_makes_text_in_utf_8_unless_told(memfd, mode, kind):
    """Without "b" it is text, in UTF-8 whatever the locale."""
    with memfd.dup().open(mode) as file:
        assert isinstance(file, io.TextIOWrapper)
        assert type(file.buffer) is kind
        assert file.encoding == "utf-8"
    with memfd.dup().open(mode, encoding="latin-1") as file:
        assert file.encoding == "iso8859-1"


def test_open_reads_and_writes_what_is_there(memfd):
    """Writing neither creates nor truncates; "a" goes on at the end, "r+" does both."""
    with memfd.dup().open("w") as file:
        file.write("één ")
    os.lseek(memfd.fileno(), 0, os.SEEK_SET)
    with memfd.dup().open("ab") as file:
        file.write(b"two")
    with memfd.dup().open("r+b") as file:
        file.seek(0)
        assert file.read() == "één two".encode()
        file.seek(6)
        file.write(b"TWO")
    os.lseek(memfd.fileno(), 0, os.SEEK_SET)
    with memfd.open("r") as file:
        assert file.read() == "één TWO"


@pytest.mark.parametrize("mode", ["", "b", "x", "rw", "w+", "rbb", "U", "rt"])
def test_open_refuses_an_unknown_mode_and_keeps_the_descriptor(memfd, mode):
    """ValueError, and the descriptor is still owned: used, and closed, as before."""
    number = memfd.fileno()
    with pytest.raises(ValueError, match="mode"):
        memfd.open(mode)
    assert memfd.fileno() == number
    assert is_open(number)


@pytest.mark.parametrize(
    ("mode", "encoding", "error"),
    [
        ("r", "no-such-encoding", LookupError),
        ("w", "hex", LookupError),  # exists, but is bytes to bytes
        ("r", "rot13", LookupError),  # text to text
        ("r", "a\0b", ValueError),
        ("rb", "utf-8", ValueError),
    ],
)
def test_open_refuses_a_bad_encoding_and_keeps_the_descriptor(memfd, mode, encoding, error):
    """The descriptor is still owned, and nothing was closed."""
    number = memfd.fileno()
    with pytest.raises(error):
        memfd.open(mode, encoding=encoding)
    assert memfd.fileno() == number
    assert is_open(number)


@pytest.mark.parametrize("mode", ["r", "rb", "wb"])
def test_open_of_a_directory_keeps_the_descriptor(directory, mode):
    """A directory is no file object; its descriptor stays with its owner."""
    with pytest.raises(IsADirectoryError):
        directory.open(mode)
    assert stat.S_ISDIR(os.fstat(directory.fileno()).st_mode)


@pytest.mark.parametrize("mode", ["r+", "r+b"])
def test_open_both_ways_of_a_pipe_keeps_the_descriptor(pipe, mode):
    """What has no position cannot be read and written through one buffer: OSError, still owned."""
    with pytest.raises(OSError, match="seek"):
        pipe[0].open(mode)
    assert is_open(pipe[0].fileno())


def test_open_of_both_ends_of_a_pipe(pipe):
    """A pipe opens one way; "a" needs no position."""
    with pipe[1].open("a") as writer:
        writer.write("through")
    with pipe[0].open("r") as reader:
        assert reader.read() == "through"


def test_socket_makes_a_socket_object(seqpacket):
    """It owns the number from then on, and knows family and type by itself."""
    descriptor = Descriptor.dup_of(seqpacket[0])
    number = descriptor.fileno()
    with descriptor.socket() as sock:
        assert (sock.family, sock.type, sock.fileno()) == (socket.AF_UNIX, socket.SOCK_SEQPACKET, number)
        assert descriptor.closed
        seqpacket[1].send(b"x")
        assert sock.recv(9) == b"x"
    assert not is_open(number)


def test_socket_of_what_is_none_keeps_the_descriptor(memfd):
    """OSError, and the descriptor is still owned."""
    with pytest.raises(OSError, match="non-socket"):
        memfd.socket()
    assert is_open(memfd.fileno())


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


class Interrupt(BaseException):
    pass


TURNS = {
    "open": lambda descriptor: descriptor.open("rb"),
    "open text": lambda descriptor: descriptor.open("r"),
    "open both ways": lambda descriptor: descriptor.open("r+b"),
    "socket": lambda descriptor: descriptor.socket(),
    "dup": lambda descriptor: descriptor.dup(),
    "dataspace": Dataspace.receive,
}


@pytest.mark.parametrize("name", TURNS)
def test_interrupted_at_any_step_it_has_one_owner(fork, name, tmp_path):
    """By a real signal: of 32,880 such calls, 14,157 left two.  And nothing leaks."""

    def child():
        turn = TURNS[name]
        warnings.simplefilter("ignore")
        # One that comes in a __del__ goes no further.
        sys.unraisablehook = lambda _: None

        def raise_it(_number, _frame):
            raise Interrupt

        signal.signal(signal.SIGALRM, raise_it)
        (tmp_path / "file").write_bytes(b"x")
        with {
            "socket": socket.socket,
            "dataspace": lambda: Dataspace.from_buffer(b"abc"),
        }.get(name, (tmp_path / "file").open)() as source:
            whole = os.fstat(source.fileno())
            free = os.dup(0)
            os.close(free)
            interrupted, wrong = 0, 0
            for _ in range(600):
                descriptor = Descriptor.dup_of(source)
                descriptor.close()
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.0005))
                    until = time.monotonic() + 0.005
                    # Not `while ... < until`: under 3.13.0, what a signal raises there is not in the try block.
                    while True:
                        if time.monotonic() >= until:
                            break
                        descriptor = Descriptor.dup_of(source)
                        turn(descriptor).close()
                        descriptor.close()
                except Interrupt:
                    interrupted += 1
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                try:
                    wrong += not descriptor.closed and os.fstat(descriptor.fileno()) != whole
                except OSError:
                    wrong += 1
                    descriptor.detach()
                del descriptor
            assert reaper.wait(PATIENCE)
            again = os.dup(0)
            os.close(again)
        return again == free, wrong, interrupted > 300

    assert fork(child).result() == (True, 0, True)


def test_an_interrupt_before_the_file_has_it_leaves_it_where_it_was(monkeypatch):
    """And one that comes right after: the file has it, and is closed."""

    class Late(io.FileIO):
        def __init__(self, number, mode):
            super().__init__(number, mode)
            raise Interrupt

    class Early(io.FileIO):
        def __init__(self, _number, _mode):
            raise Interrupt

    for kind, closed in ((Early, False), (Late, True)):
        descriptor = Descriptor(os.dup(0))
        number = descriptor.fileno()
        with monkeypatch.context() as patch:
            patch.setattr(io, "FileIO", kind)
            with pytest.raises(Interrupt):
                descriptor.open("rb")
        assert descriptor.closed == closed
        if closed:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)
        descriptor.close()
