"""Where several objects would close one number, exactly one does: the second close would be of somebody else's."""

from __future__ import annotations

import io
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors import reaper
from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

# Of closes that found their number closed already.
late: list[OSError] = []


class Watched(io.FileIO):
    """Says when somebody else has closed its number."""

    def close(self):
        try:
            super().close()
        except OSError as error:
            late.append(error)


class WatchedSocket(socket.socket):
    """Likewise."""

    def close(self):
        try:
            super().close()
        except OSError as error:
            late.append(error)


class Numbers(cm.Interface):
    @cm.method
    def plain(self, descriptor: cm.Descriptor) -> list[cm.Descriptor]: ...

    @cm.method
    def file(self, file: io.BufferedReader) -> list[cm.Descriptor]: ...

    @cm.method
    def writer(self, file: io.BufferedWriter) -> list[cm.Descriptor]: ...

    @cm.method
    def sock(self, sock: socket.socket) -> list[cm.Descriptor]: ...

    @cm.method
    def data(self, data: cm.Dataspace) -> list[cm.Descriptor]: ...


class NumbersServer(Numbers):
    """Returns what the test makes of the argument."""

    act: Callable[[Any], list[Any]]

    def plain(self, thing):
        return self.act(thing)

    file = writer = sock = data = plain


@pytest.fixture
def server(caplog):
    # A log record that pytest keeps would keep what is in its traceback.
    caplog.set_level(logging.CRITICAL, "capmarshal")
    return NumbersServer()


@pytest.fixture
def numbers(server):
    late.clear()
    with by_hand.serving(server) as capability, cm.timeout(PATIENCE):
        yield capability.cast(Numbers)
        capability.close()
    assert reaper.wait(PATIENCE)
    assert not late
    vars(server).clear()


@pytest.fixture
def lent():
    with by_hand.temporary(b"lent") as file:
        yield file


def _text(thing):
    return [io.TextIOWrapper(io.BufferedReader(Watched(thing.fileno())), encoding="utf-8")]


ONE_OF_TWO = [
    lambda thing: [Watched(thing.fileno())],
    lambda thing: [io.BufferedReader(Watched(thing.fileno()))],
    _text,
    lambda thing: [thing, Watched(thing.fileno())],
    lambda thing: [Watched(thing.fileno()), thing, thing],
    lambda thing: [cm.Descriptor(thing.fileno()), Watched(thing.fileno())],
]


@pytest.mark.parametrize("act", ONE_OF_TWO)
@pytest.mark.parametrize("fails", [False, True])
def test_a_file_made_of_a_descriptors_number(numbers, server, lent, act, fails, identity):
    """The file closes it, and the descriptor forgets it; also where the call then fails."""
    server.act = lambda thing: act(thing) + ([3] if fails else [])
    for _ in range(3):
        if fails:
            with pytest.raises(cm.Error, match="result"):
                numbers.plain(lent)
        else:
            for result in numbers.plain(lent):
                with result:
                    assert identity(result) == identity(lent)


@pytest.mark.parametrize("fails", [False, True])
def test_a_descriptor_made_of_a_files_number(numbers, server, lent, fails):
    """The file closes it, and the descriptor forgets it."""
    made = []

    def act(file):
        made[:] = [cm.Descriptor(file.fileno())]
        return made + ([3] if fails else [])

    server.act = act
    if fails:
        with pytest.raises(cm.Error):
            numbers.file(lent)
    else:
        numbers.file(lent)[0].close()
    assert reaper.wait(PATIENCE)
    assert made[0].closed


def test_a_socket_made_of_a_sockets_number(numbers, server, make_pair):
    """One of the two forgets it; also where a file stands on it."""
    near, far = make_pair(socket.SOCK_STREAM)
    server.act = lambda sock: [WatchedSocket(fileno=sock.fileno())]
    numbers.sock(near)[0].close()
    server.act = lambda sock: [WatchedSocket(fileno=sock.fileno()).makefile("rb", buffering=0)]
    numbers.sock(near)[0].close()
    near.close()
    far.settimeout(PATIENCE)
    assert far.recv(1) == b""


def test_what_a_dataspace_is_made_of_is_its_own(numbers, server):
    """Both ways: of a Descriptor that it then owns, and a Descriptor of its number."""
    with cm.Dataspace.from_buffer(b"data") as data:
        server.act = lambda data: [cm.Descriptor(data.fileno()), Watched(data.fileno())]
        for result in numbers.data(data):
            result.close()
        server.act = lambda thing: [cm.Dataspace(thing, 4, sealed=True)]
        numbers.plain(data)[0].close()


def test_what_was_kept_closes_it(numbers, server, lent):
    """The argument forgets it, and the file that was kept of its number stays open."""
    kept = []

    def act(descriptor):
        kept[:] = [cm.keep(Watched(descriptor.fileno()))]
        return []

    server.act = act
    numbers.plain(lent)
    with kept.pop() as file:
        assert os.pread(file.fileno(), 10, 0) == b"lent"
    server.act = lambda descriptor: (act(descriptor), kept)[1]
    numbers.plain(lent)[0].close()
    with kept.pop() as file:
        assert os.pread(file.fileno(), 10, 0) == b"lent"


@pytest.mark.parametrize("keep", [False, True])
def test_two_files_of_one_number_are_refused(numbers, server, lent, keep):
    """Neither can be told to forget it: the caller is told, and one of them is never closed."""
    held = []

    def act(thing):
        held[:] = [cm.keep(thing)] if keep else []
        return [Watched(thing.fileno())]

    server.act = act
    with pytest.raises(cm.Error, match=r"both would close it.*closefd=False"):
        (numbers.plain if keep else numbers.file)(lent)
    assert reaper.wait(PATIENCE)
    for file in held:
        assert os.pread(file.fileno(), 10, 0) == b"lent"
        file.close()


def test_what_borrows_a_number_writes_before_it_is_closed(numbers, server, tmp_path):
    """What is left in the buffer of a writer with closefd=False, in a call that fails, goes nowhere else."""
    written = tmp_path / "written"

    def act(descriptor):
        text = io.TextIOWrapper(open(descriptor.fileno(), "wb", closefd=False), encoding="utf-8")
        text.write("late")
        return [text, 3]

    server.act = act
    with written.open("wb") as file, pytest.raises(cm.Error, match="result"):
        numbers.plain(file)
    assert reaper.wait(PATIENCE)
    assert written.read_bytes() == b"late"
