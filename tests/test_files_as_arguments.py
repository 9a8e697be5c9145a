"""What a file is like when it has travelled as an argument."""

import io
import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

import capmarshal as cm
from capmarshal._typed.flushing import flush_within
from patience import PATIENCE


class Reader(cm.Interface):
    @cm.method
    def rest(self, file: io.BufferedReader) -> bytes: ...

    @cm.method
    def write(self, file: io.BufferedWriter, data: bytes) -> None: ...

    @cm.method
    def take(self, file: io.BufferedWriter) -> None: ...


class ReaderServer(Reader):
    def rest(self, file: io.BufferedReader) -> bytes:
        return file.read()

    def write(self, file: io.BufferedWriter, data: bytes) -> None:
        """Left in the buffer: flushed when the call ends."""
        file.write(data)

    def take(self, file: io.BufferedWriter) -> None:
        """Closed when the call ends."""


@pytest.fixture
def reader():
    with cm.Entrypoint("reader") as entrypoint:
        proxy = entrypoint.manage(ReaderServer()).cast(Reader)
        yield proxy
        # pytest holds the proxy until after the descriptors are counted.
        cm.capability(proxy).close()


def test_a_file_of_proc_can_be_sent(reader):
    """Such files cannot be sought from their end, so a reader that has not read ahead must not be."""
    with Path("/proc/version").open("rb") as file:
        assert Path("/proc/version").read_bytes() == reader.rest(file)


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_a_reader_that_has_read_ahead_is_sent_from_where_it_stands(reader, tmp_path, mode):
    (tmp_path / "lines").write_bytes(b"one\ntwo\nthree\n")
    with (tmp_path / "lines").open(mode) as file:
        file.readline()
        assert reader.rest(file) == b"two\nthree\n"


# ------------------------------------------------------------- a writer whose pending bytes find no room


def _pipe(tmp_path):
    reading, writing = os.pipe()
    return open(reading, "rb", buffering=0), open(writing, "wb")


def _fifo(tmp_path):
    """By its path: such a pipe refuses RWF_NOWAIT."""
    os.mkfifo(tmp_path / "fifo")
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = open(tmp_path / "fifo", "wb")
    os.set_blocking(reading, True)
    return open(reading, "rb", buffering=0), writer


def _stream(tmp_path):
    near, far = socket.socketpair()
    with near, far:
        return far.makefile("rb", buffering=0), near.makefile("wb")


def _text(tmp_path):
    reader, writer = _pipe(tmp_path)
    return reader, io.TextIOWrapper(writer, encoding="utf-8")


def _fill(writer):
    """Leaves no room where it writes to; how many bytes that took."""
    number = writer.fileno()
    os.set_blocking(number, False)
    filled = 0
    try:
        while True:
            filled += os.write(number, b"-" * 4096)
    except BlockingIOError:
        os.set_blocking(number, True)
        return filled


@pytest.fixture(params=[_pipe, _fifo, _stream, _text], ids=["pipe", "FIFO", "socket", "text"])
def full(request, tmp_path):
    """(reader, writer, count): a writer with pending bytes, which finds no room; count bytes came before them."""
    reader, writer = request.param(tmp_path)
    with reader:
        filled = _fill(writer)
        pending = bytes(range(65, 91)) * 100
        writer.write(pending.decode() if isinstance(writer, io.TextIOBase) else pending)
        yield reader, writer, b"-" * filled + pending
        if not writer.closed:
            writer.close()


def _closed(writer, source):
    """What is read when a writer is closed that has found no room, with what was written before."""
    got = bytearray()
    draining = threading.Thread(target=lambda: got.extend(source.readall()))
    draining.start()
    writer.close()
    draining.join(PATIENCE)
    return bytes(got)


def test_pending_bytes_for_a_full_pipe_do_not_outlast_the_deadline(reader, full):
    """The call fails in time, and what was not written is written when there is room: all of it, once."""
    source, writer, expected = full
    with pytest.raises(cm.CallTimeout, match="no room in time") as caught, cm.timeout(0.05):
        reader.take(writer)
    assert caught.value.ran == "no"
    assert _closed(writer, source) == expected


def test_pending_bytes_where_the_time_is_up_before(full):
    """That is what is said, and not that another thread keeps the file's lock."""
    source, writer, expected = full
    with pytest.raises(cm.CallTimeout, match="no time left"):
        flush_within(writer, time.monotonic_ns())
    assert _closed(writer, source) == expected


def test_what_a_signal_handler_raises_while_there_is_no_room_is_the_programs(reader, full):
    """Also if it is a CallTimeout: of another call, whose text says all that there is to say."""
    source, writer, expected = full
    own = cm.CallTimeout("the program's own")

    def handler(*_):
        raise own

    def take():
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        reader.take(writer)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(cm.CallTimeout) as caught, cm.timeout(PATIENCE):
            take()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert _closed(writer, source) == expected
    assert caught.value is own


@pytest.fixture
def interrupted():
    """Signals whose handler does nothing, a hundred a second; what has not ended by the time of PATIENCE fails."""
    give_up = time.monotonic() + PATIENCE

    def handler(number, frame):
        if time.monotonic() > give_up:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise AssertionError("still blocked")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_signals_do_not_let_a_flush_outlast_the_deadline(reader, full, interrupted):
    """A wait that a signal ends early says nothing of room: the write after it would block."""
    source, writer, expected = full
    got = bytearray()
    draining = threading.Thread(target=lambda: got.extend(source.readall()))
    try:
        with pytest.raises(cm.CallTimeout, match="no room in time"), cm.timeout(0.5):
            reader.take(writer)
    finally:
        draining.start()
        writer.close()
        draining.join(PATIENCE)
    assert bytes(got) == expected


def test_pending_bytes_are_written_while_somebody_reads(reader, full):
    """With a deadline that is far enough away, bit by bit, as there is room."""
    source, writer, expected = full
    got = bytearray()

    def drain():
        while piece := source.read(1000):
            got.extend(piece)

    draining = threading.Thread(target=drain)
    draining.start()
    with cm.timeout(PATIENCE):
        reader.take(writer)
    writer.close()
    draining.join(PATIENCE)
    assert bytes(got) == expected


def test_a_flush_leaves_the_file_as_it_was(full):
    """In time or not: the raw file's own write() is in its place again."""
    source, writer, _ = full
    with pytest.raises(cm.CallTimeout):
        flush_within(writer, 1)
    assert "write" not in vars(getattr(writer, "buffer", writer).raw)
    draining = threading.Thread(target=source.readall)
    draining.start()
    writer.close()
    draining.join(PATIENCE)


@pytest.mark.parametrize("make", [_pipe, _fifo, _stream], ids=["pipe", "FIFO", "socket"])
def test_a_full_pipe_of_a_clients_does_not_hold_the_server_up(reader, tmp_path, caplog, make):
    """What a method leaves in its buffer finds no room: the call fails, with no deadline too, and others are served."""
    # A record that pytest keeps would keep what is in its traceback, and that is counted as a leak.
    caplog.set_level(logging.CRITICAL, "capmarshal")
    source, writer = make(tmp_path)
    with source, writer:
        _fill(writer)
        with pytest.raises(cm.RemoteError, match=r"CallTimeout: .*no room in time"):
            reader.write(writer, b"more")
        with cm.timeout(PATIENCE), open("/proc/version", "rb") as file:
            assert reader.rest(file)


@pytest.mark.parametrize("make", [_pipe, _fifo, _stream], ids=["pipe", "FIFO", "socket"])
def test_what_a_method_left_in_its_buffer_is_written_when_the_call_returns(reader, tmp_path, make):
    """Also where it is not written to a regular file."""
    source, writer = make(tmp_path)
    with source, writer:
        reader.write(writer, b"all of it")
        assert source.read(100) == b"all of it"
