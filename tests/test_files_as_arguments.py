"""What a file is like when it has travelled as an argument."""

import io
from pathlib import Path

import pytest

import capmarshal as cm


class Reader(cm.Interface):
    @cm.method
    def rest(self, file: io.BufferedReader) -> bytes: ...


class ReaderServer(Reader):
    def rest(self, file: io.BufferedReader) -> bytes:
        return file.read()


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
