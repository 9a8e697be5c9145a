"""Files that are more than their descriptor: refused before anything is sent, with the parameter and a way out."""

from __future__ import annotations

import bz2
import codecs
import gzip
import http.client
import io
import logging
import lzma
import os
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile

import pytest

import by_hand
import capmarshal as cm
from capmarshal._typed.preparing import prepare
from patience import PATIENCE


class Taker(cm.Interface):
    @cm.method
    def rest(self, file: cm.Descriptor) -> bytes: ...

    @cm.method
    def take(self, file: cm.Descriptor) -> None: ...

    @cm.method
    def give(self, what: str) -> cm.Descriptor: ...


class TakerServer(Taker):
    def __init__(self):
        self.calls = 0

    def rest(self, file):
        self.calls += 1
        return os.read(file.fileno(), 1000)

    def take(self, file):
        self.calls += 1

    def give(self, what):
        near, far = socket.socketpair()
        with far:
            far.send(what.encode())
        file = near.makefile("rb")
        near.close()
        file.readline()
        return file


@pytest.fixture
def server():
    return TakerServer()


@pytest.fixture
def taker(server):
    with by_hand.serving(server) as capability, cm.timeout(PATIENCE):
        yield capability.cast(Taker)
        capability.close()


def _pipe_with(data, mode="rb", **options):
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return open(reading, mode, **options)


def _socket_file(data, mode="rb"):
    near, far = socket.socketpair()
    with near, far:
        far.sendall(data)
        return near.makefile(mode)


def _response():
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\none\ntwo\n")
        response = http.client.HTTPResponse(near)
    response.begin()
    return response


READERS = {
    "pipe": lambda: _pipe_with(b"one\ntwo\n"),
    "socket": lambda: _socket_file(b"one\ntwo\n"),
    "text of a pipe": lambda: _pipe_with(b"one\ntwo\n", "r"),
    "text of a socket": lambda: _socket_file(b"one\ntwo\n", "r"),
    "text, all of it read": lambda: _pipe_with(b"one\n", "r"),
    "HTTP": _response,
}


@pytest.mark.parametrize("kind", READERS)
def test_what_has_read_ahead_from_a_pipe_or_socket_is_refused(taker, server, kind):
    """The rest would be lost without a word; and the file is as it was: the program goes on reading."""
    with READERS[kind]() as file:
        file.readline()
        with pytest.raises(
            cm.ArgumentError, match=r"Taker\.rest, argument `file`: .*(file\.raw|file\.buffer\.raw|pass)"
        ):
            taker.rest(file)
        assert server.calls == 0
        assert file.read() in (b"two\n", "two\n", "")


def test_the_output_of_a_process_is_refused_once_it_was_read_from(taker):
    """The commonest of them: Popen.stdout after readline()."""
    command = [sys.executable, "-c", r"import os; os.write(1, b'one\ntwo\n')"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"one\n"
        with pytest.raises(cm.ArgumentError, match="4 bytes that it has read ahead would stay here"):
            taker.rest(process.stdout)
        assert process.stdout.readline() == b"two\n"


@pytest.mark.parametrize("mode", ["w+", "w+b"])
@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile, tempfile.SpooledTemporaryFile])
def test_a_temporary_file_is_sent_from_where_it_stands(taker, make, mode):
    """The wrappers of tempfile are looked through, and what is pending in them is written."""
    with make(mode=mode) as file:
        file.write("one\ntwo\n" if mode == "w+" else b"one\ntwo\n")
        file.seek(4)
        file.write("TWO\n" if mode == "w+" else b"TWO\n")
        file.seek(0)
        file.readline()
        assert taker.rest(file) == b"TWO\n"


@pytest.mark.parametrize("mode", ["r", "rb"])
@pytest.mark.parametrize("make", [_pipe_with, _socket_file], ids=["pipe", "socket"])
def test_what_has_not_been_read_from_is_sent(taker, make, mode):
    """Nothing of it is read by the look: all of it arrives."""
    with make(b"one\ntwo\n", mode) as file:
        assert taker.rest(file) == b"one\ntwo\n"


def test_a_buffer_that_was_read_empty_is_sent(taker):
    """Nothing of what was read stays here."""
    with _pipe_with(b"one\n") as file:
        assert file.readline() == b"one\n"
        assert taker.rest(file) == b""


def test_the_raw_file_of_one_that_has_read_ahead_is_sent(taker):
    """As the error says: the program knows what it does then."""
    with _pipe_with(b"one\ntwo\n") as file:
        file.readline()
        assert taker.rest(file.raw) == b""


class _Waiting(io.FileIO):
    """Tells when somebody begins to read."""

    def __init__(self, number):
        super().__init__(number)
        self.begun = threading.Event()

    def readinto(self, buffer):
        self.begun.set()
        return super().readinto(buffer)


def test_a_reader_that_another_thread_waits_in_is_not_waited_for(taker, server):
    """That thread holds the lock of the buffer until somebody writes."""
    reading, writing = os.pipe()
    with _Waiting(reading) as raw, io.BufferedReader(raw) as file:
        threads = [threading.Thread(target=lambda: file.read(1)), threading.Thread(target=lambda: taker.take(file))]
        threads[0].start()
        assert raw.begun.wait(PATIENCE)
        threads[1].start()
        threads[1].join(PATIENCE)
        sent = not threads[1].is_alive()
        os.close(writing)
        for thread in threads:
            thread.join(PATIENCE)
    assert sent
    assert server.calls == 1


class _Response(io.IOBase):
    """As libraries of HTTP have it: on something that they do not show, and that has read ahead."""

    def __init__(self, path):
        self._response = open(path, "rb")

    def fileno(self):
        return self._response.fileno()

    def close(self):
        self._response.close()
        super().close()


TRANSFORMING = {
    "a class of its own": _Response,
    "gzip": lambda path: gzip.open(path, "rb"),
    "gzip text": lambda path: gzip.open(path, "rt"),
    "gzip in a buffer": lambda path: io.BufferedReader(gzip.open(path, "rb")),
    "gzip writer": lambda path: gzip.open(path, "wb"),
    "bz2": lambda path: bz2.open(path, "rb"),
    "lzma": lambda path: lzma.open(path, "wb"),
    "codecs": lambda path: codecs.open(path, "r", "utf-16"),
}


@pytest.mark.filterwarnings("ignore:codecs.open:DeprecationWarning")
@pytest.mark.parametrize("kind", TRANSFORMING)
def test_what_transforms_is_refused(taker, server, tmp_path, kind):
    """Its fileno() is that of what lies underneath: compressed bytes would arrive, or uncompressed ones be written."""
    (tmp_path / "file").write_bytes(b"")
    with (
        TRANSFORMING[kind](tmp_path / "file") as file,
        pytest.raises(cm.ArgumentError, match=r"`file`: .*other bytes than its descriptor does: pass the file"),
    ):
        taker.rest(file)
    assert server.calls == 0


def test_a_tls_socket_is_refused(taker):
    """Plain text would go where the peer expects TLS; a file made of such a socket likewise."""
    near, far = socket.socketpair()
    context = ssl.create_default_context()
    with far, context.wrap_socket(near, server_hostname="x", do_handshake_on_connect=False) as tls:
        for file in (tls, tls.makefile("rb")):
            with pytest.raises(cm.ArgumentError, match=r"`file`: .*pass the file or socket underneath"):
                taker.rest(file)
            if file is not tls:
                file.close()


def _zip_member(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("member", b"x")
    with zipfile.ZipFile(path) as archive:
        return archive.open("member")


def _tar_member(path):
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "member")
    with tarfile.open(path) as archive:
        return archive.extractfile("member")


def _both_ways(_):
    near, far = socket.socketpair()
    with near, far:
        return near.makefile("rwb")


@pytest.mark.parametrize(
    "make", [_zip_member, _tar_member, _both_ways, lambda _: io.BytesIO(), lambda _: io.StringIO()], ids=range(5)
)
def test_what_has_no_descriptor_is_refused(taker, tmp_path, make):
    """In words, and with the name of the parameter: some of these raise a bare AttributeError when they are asked."""
    with (
        make(tmp_path / "archive") as file,
        pytest.raises(cm.ArgumentError, match=r"`file`: .*has no descriptor: send"),
    ):
        taker.rest(file)


TEXTS = {
    "a lone CR": ("utf-8", b"one\rtwo\rthree\r"),
    "a lone CR after more bytes than characters": ("utf-8", "\u00e9\u00e9\r\u00e9\r\u00e9".encode()),
    "utf-7": ("utf-7", "a\u00e9\u00e9\u00e9b\nc\n".encode("utf-7")),
    "iso2022": ("iso2022_jp", "\u65e5\u672c\u8a9e\n\u65e5\u672c\n".encode("iso2022_jp")),
    "utf-16": ("utf-16", "one\ntwo\n".encode("utf-16")),
    "CRLF": ("utf-8", b"one\r\ntwo\r\n"),
}


@pytest.mark.parametrize("count", range(7))
@pytest.mark.parametrize("name", TEXTS)
def test_text_is_sent_from_where_the_program_is_or_not_at_all(taker, tmp_path, name, count):
    """Where the codec is in the middle of something, tell() is no position, and the file is refused."""
    encoding, data = TEXTS[name]
    (tmp_path / "text").write_bytes(data)
    with open(tmp_path / "text", encoding=encoding) as file:
        expected = file.read()[count:]
        file.seek(0)
        file.read(count)
        try:
            arrived = taker.rest(file)
        except cm.ArgumentError as error:
            assert "open it as bytes" in str(error)
            return
    text = arrived.decode("utf-16-le" if encoding == "utf-16" and count else encoding)
    assert text.replace("\r\n", "\n").replace("\r", "\n") == expected


def test_a_result_that_has_read_ahead_is_refused(taker, caplog):
    """The server says so, for the caller would miss what was read."""
    # A record that pytest keeps would keep what is in its traceback, and that is counted as a leak.
    caplog.set_level(logging.CRITICAL, "capmarshal")
    with pytest.raises(cm.RemoteError, match=r"ArgumentError: Taker\.give, result: 4 bytes that it has read ahead"):
        taker.give("one\ntwo\n")


def test_text_that_is_being_iterated_over_is_refused_with_the_way_out(tmp_path):
    """Only the decoder knows how far a `for` has read; a file that has been brought to a place is passed."""
    (tmp_path / "lines").write_text("first\nsecond\nthird\n")
    with open(tmp_path / "lines", encoding="utf-8") as lines:
        next(lines)
        with pytest.raises(ValueError, match=r"telling position disabled .*; seek\(\) to where .* readline\(\)"):
            prepare(lines)
        lines.seek(0)
        lines.readline()
        prepare(lines)
        assert os.read(lines.fileno(), 6) == b"second"
