"""What a method keeps of a file, without the file that stands on it: it stays open, and nothing refers to it."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import pty
import tty
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors import reaper
from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable


class Keeping(cm.Interface):
    @cm.method
    def read(self, file: io.BufferedReader) -> None: ...

    @cm.method
    def write(self, file: io.BufferedWriter) -> None: ...

    @cm.method
    def give(self) -> cm.Descriptor: ...


class Keeper(Keeping):
    """Does what the test says with what it is given."""

    act: Callable[[Any], Any]

    def read(self, file):
        self.act(file)

    write = read

    def give(self):
        return self.act(None)


@pytest.fixture
def keeper(caplog):
    # A log record that pytest keeps would keep what is in its traceback.
    caplog.set_level(logging.CRITICAL, "capmarshal")
    return Keeper()


@pytest.fixture
def keeping(keeper):
    with by_hand.serving(keeper) as capability, cm.timeout(PATIENCE):
        yield capability.cast(Keeping)
        capability.close()
    vars(keeper).clear()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mode", ["rb", "wb"])
def test_a_raw_file_that_was_kept_goes_with_the_last_that_refers_to_it(keeping, keeper, tmp_path, mode, fails):
    """There and then, and not when the garbage collector comes, in whatever thread that is."""
    kept = []

    def act(file):
        kept.append(cm.keep(file.raw))
        if fails:
            raise RuntimeError

    keeper.act = act
    (tmp_path / "file").touch()
    with open(tmp_path / "file", mode) as file, contextlib.suppress(cm.RemoteError):
        (keeping.read if mode == "rb" else keeping.write)(file)
    assert reaper.wait(PATIENCE)
    gone = weakref.ref(kept[0])
    assert not kept[0].closed
    gc.disable()
    try:
        kept.pop().close()
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(("fails", "expected"), [(False, b"left"), (True, b"")])
def test_what_is_left_in_a_writer_whose_raw_file_was_kept(keeping, keeper, tmp_path, fails, expected):
    """It is written when the call returns, and dropped when it fails."""
    kept = []

    def act(file):
        file.write(b"left")
        kept.append(cm.keep(file.raw))
        if fails:
            raise RuntimeError

    keeper.act = act
    with open(tmp_path / "file", "wb") as file, contextlib.suppress(cm.RemoteError):
        keeping.write(file)
    assert reaper.wait(PATIENCE)
    kept.pop().close()
    assert (tmp_path / "file").read_bytes() == expected


def test_what_is_left_in_a_writer_of_a_terminal_whose_raw_file_was_kept(keeping, keeper):
    """It is written elsewhere, since a terminal may have no room, and the raw file stays open."""
    kept = []

    def act(file):
        file.write(b"left")
        kept.append(cm.keep(file.raw))

    keeper.act = act
    master, slave = pty.openpty()
    tty.setraw(slave)
    with open(slave, "wb") as file:
        keeping.write(file)
    assert os.read(master, 100) == b"left"
    assert reaper.wait(PATIENCE)
    with kept.pop() as raw:
        raw.write(b"later")
        assert os.read(master, 100) == b"later"
    os.close(master)


@pytest.mark.parametrize("mode", ["rb", "wb", "r+b"])
def test_a_text_file_that_is_returned_lets_go_of_the_file_that_was_kept(keeping, keeper, tmp_path, mode):
    """What it stands on is open when it has gone."""
    (tmp_path / "file").touch()
    with open(tmp_path / "file", mode) as file:
        keeper.act = lambda _: io.TextIOWrapper(cm.keep(file), encoding="utf-8")
        keeping.give().close()
        assert reaper.wait(PATIENCE)
        gc.collect()
        assert not file.closed


def test_what_cannot_be_written_is_dropped_and_the_raw_file_stays_open(keeping, keeper, tmp_path):
    """A device that is full: the call fails, and nobody closes what was kept."""
    kept = []

    def act(file):
        file.write(b"left")
        kept.append(cm.keep(file.raw))

    keeper.act = act
    with open("/dev/full", "wb") as file, pytest.raises(cm.RemoteError, match="No space left"):
        keeping.write(file)
    assert reaper.wait(PATIENCE)
    with kept.pop() as raw:
        assert not raw.closed
