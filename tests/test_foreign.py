"""Files that may be another machine's, or of a server that has stopped: not touched until somebody uses them."""

from __future__ import annotations

import io
import logging
import os
import tempfile

import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors import reaper
from capmarshal._descriptors.foreign import ForeignFile
from fuse_file import CONTENT, FuseFile
from patience import PATIENCE, until
from waiting_thread import waits_in


class Desk(by_hand.Work):
    @cm.method
    def take(self, file: io.BufferedReader) -> None: ...

    @cm.method
    def take_writer(self, file: io.BufferedWriter) -> None: ...

    @cm.method
    def take_two(self, files: list[io.BufferedReader]) -> None: ...

    @cm.method
    def back(self, file: io.BufferedReader) -> io.BufferedReader: ...


class DeskServer(by_hand.Worker, Desk):
    def take(self, file):
        self.held.append(cm.keep(file))

    take_writer = take

    def take_two(self, files):
        self.held += cm.keep(files)

    def back(self, file):
        return file


@pytest.fixture
def desk(caplog):
    # A log record that pytest keeps would keep what is in its traceback.
    caplog.set_level(logging.CRITICAL, "capmarshal")
    server = DeskServer()
    with by_hand.serving(server) as capability:
        yield server, capability
        capability.close()
        server.held.clear()


@pytest.fixture
def stopped(tmp_path):
    """A file whose server has stopped, open for both; somebody reads from it, and so has the lock of its position."""
    with FuseFile(tmp_path) as fuse, cm.Descriptor(os.open(fuse.path, os.O_RDWR)) as file:
        fuse.stop()
        reading = by_hand.Concurrent(os.read, file.fileno(), 1)
        try:
            until(lambda: waits_in(reading, file.fileno()))
            yield fuse, file
        finally:
            fuse.go_on()
            reading.outcome()
            file.close()
            assert reaper.wait(PATIENCE)


@pytest.mark.parametrize("name", ["take", "take_writer", "take_two"])
def test_a_file_whose_server_has_stopped_stops_nobody_else(desk, stopped, name):
    """Not even for a moment: the others are served, and the method has the file."""
    _, capability = desk
    _, file = stopped
    proxy = capability.cast(Desk)
    with cm.timeout(PATIENCE):
        getattr(proxy, name)([file] if name == "take_two" else file)
        assert proxy.double(21) == 42


def test_it_is_read_once_its_server_goes_on(desk, stopped):
    server, capability = desk
    fuse, file = stopped
    with cm.timeout(PATIENCE):
        capability.cast(Desk).take(file)
    fuse.go_on()
    with server.held.pop() as mine:
        mine.seek(1)
        assert mine.read() == CONTENT[1:]
        assert mine.tell() == len(CONTENT)


def test_it_is_returned_untouched(desk, stopped):
    """By the server, whose thread serves others, and to a client, who has a deadline."""
    _, capability = desk
    _, file = stopped
    with cm.timeout(PATIENCE):
        returned = capability.cast(Desk).back(file)
        assert capability.cast(Desk).double(21) == 42
    reaper.close([returned])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(200)) * 100)
    return path


def test_a_reader_on_one_is_as_on_any_other(path):
    """Also where it is in the file when it is made, which nobody asks it."""
    with open(path, "rb") as common, open(path, "rb") as lent:
        for file in (common, lent):
            file.seek(150)
        foreign = io.BufferedReader(ForeignFile(cm.Descriptor.dup_of(lent), "rb"))
        assert (foreign.mode, foreign.name, foreign.fileno()) == ("rb", foreign.raw.name, foreign.raw.fileno())
        for each in (
            lambda file: file.read(10),
            lambda file: file.seek(155),
            lambda file: file.read(10),
            lambda file: file.tell(),
            lambda file: file.seek(-20_000, os.SEEK_END),
            lambda file: file.read1(7),
            lambda file: file.read(),
            lambda file: file.read(),
            lambda file: (file.seekable(), file.readable(), file.writable(), file.isatty()),
            lambda file: file.seek(3) and file.raw.readall(),
        ):
            assert each(foreign) == each(common)
        foreign.close()
        assert foreign.closed
        assert foreign.raw.closed
        for use in (foreign.raw.fileno, foreign.raw.tell, foreign.raw.readable, foreign.raw.seekable, foreign.read):
            with pytest.raises(ValueError, match="closed"):
                use()
        foreign.close()


def test_a_writer_on_one_is_as_on_any_other(path):
    with open(path, "r+b") as lent:
        lent.seek(10)
        with io.BufferedWriter(ForeignFile(cm.Descriptor.dup_of(lent), "wb")) as writer:
            assert writer.tell() == 10
            assert writer.write(b"here") == 4
            assert writer.tell() == 14
            with pytest.raises(io.UnsupportedOperation):
                writer.raw.read(1)
            assert writer.truncate() == 14
    assert path.read_bytes() == bytes(range(10)) + b"here"


def test_text_on_one(path):
    path.write_text("grüße\nalle", encoding="utf-8")
    with open(path, "rb") as lent:
        text = io.TextIOWrapper(io.BufferedReader(ForeignFile(cm.Descriptor.dup_of(lent), "rb")), encoding="utf-8")
        with text:
            assert text.readline() == "grüße\n"
            assert text.read() == "alle"


def test_what_is_not_ready_is_none():
    with by_hand.pipe() as (reader, writer):
        os.set_blocking(reader.fileno(), False)
        os.set_blocking(writer.fileno(), False)
        with ForeignFile(cm.Descriptor.dup_of(reader), "rb") as reads:
            assert reads.read(1) is None
            assert not reads.seekable()
        with ForeignFile(cm.Descriptor.dup_of(writer), "wb") as writes:
            while writes.write(bytes(4096)) is not None:
                pass
            with pytest.raises(io.UnsupportedOperation):
                writes.readinto(bytearray(1))
    with by_hand.pipe() as (reader, _), ForeignFile(cm.Descriptor.dup_of(reader), "rb") as reads:
        with pytest.raises(io.UnsupportedOperation):
            reads.write(b"x")


def test_one_that_is_forgotten_warns_and_is_closed(path):
    with open(path, "rb") as lent:
        reader = io.BufferedReader(ForeignFile(cm.Descriptor.dup_of(lent), "rb"))
        with pytest.warns(ResourceWarning, match="unclosed file"):
            del reader


def test_one_that_has_read_ahead_is_brought_to_where_the_program_is(path):
    """Passed on by a thread that serves nobody, as any other file."""
    with open(path, "rb") as lent, io.BufferedReader(ForeignFile(cm.Descriptor.dup_of(lent), "rb")) as reader:
        assert reader.read(3) == bytes(range(3))
        server = DeskServer()
        with by_hand.serving(server) as capability, cm.timeout(PATIENCE):
            capability.cast(Desk).take(reader)
            capability.close()
        with server.held.pop() as mine:
            assert mine.read(1) == b"\x03"


def test_a_directory_is_no_file(desk, tmp_path):
    _, capability = desk
    with FuseFile(tmp_path) as fuse, cm.Descriptor(os.open(fuse.path.parent, os.O_RDONLY)) as directory:
        with pytest.raises(cm.ArgumentError, match="a file is due; what came is a"), cm.timeout(PATIENCE):
            capability.cast(Desk).take(directory)
    assert reaper.wait(PATIENCE)


def test_files_of_this_machines_own_are_common_ones(desk, path):
    """Programs in C ask for a FileIO."""
    server, capability = desk
    with (
        by_hand.pipe() as (reader, _),
        open(path, "rb") as file,
        tempfile.TemporaryFile(dir=path.parent) as unnamed,
        by_hand.temporary() as memory,
        cm.timeout(PATIENCE),
    ):
        for each in (reader, file, unnamed, memory):
            capability.cast(Desk).take(each)
            with server.held.pop() as received:
                assert type(received.raw) is io.FileIO
