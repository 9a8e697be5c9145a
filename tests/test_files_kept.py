"""Descriptors that a method keeps, moves elsewhere or leaves behind in another object: whose they are then."""

from __future__ import annotations

import dataclasses
import io
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import by_hand
import capmarshal as cm
from patience import PATIENCE

pytestmark = pytest.mark.usefixtures("quiet_log")

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclasses.dataclass
class Named:
    name: str
    file: cm.Descriptor


class Boxed(msgspec.Struct):
    files: list[Named]


class Hoard(cm.Interface):
    @cm.method
    def write(self, file: io.BufferedWriter) -> int: ...

    @cm.method
    def read(self, file: io.BufferedReader) -> None: ...

    @cm.method
    def sock(self, sock: socket.socket) -> None: ...

    @cm.method
    def many(self, files: list[cm.Descriptor]) -> None: ...

    @cm.method
    def box(self, box: Boxed) -> None: ...

    @cm.method
    def give(self) -> cm.Descriptor: ...

    @cm.method
    def fine(self) -> int: ...


class Hoarder(Hoard):
    """Does what the test says with what it is given, and has what that returns."""

    def __init__(self):
        self.act: Callable[[Any], Any] = lambda thing: None
        self.has: Any = None

    def write(self, file):
        self.has = self.act(file)
        return 0

    def read(self, file):
        self.has = self.act(file)

    sock = many = box = read

    def give(self):
        return self.act(None)

    def fine(self):
        return 1


@pytest.fixture
def hoarder():
    return Hoarder()


@pytest.fixture
def hoard(hoarder):
    with by_hand.serving(hoarder) as capability, cm.timeout(PATIENCE):
        yield capability.cast(Hoard)
        capability.close()
    hoarder.has = None


# ---------------------------------------------------------------------------------------- what has moved elsewhere


def _detached_written(file):
    file.detach().write(b"done")


def _detached_and_held(file):
    raw = file.detach()
    raw.write(b"done")
    return raw


def _wrapped(file):
    text = io.TextIOWrapper(file)
    text.write("done")
    text.flush()
    return text


def _wrapped_and_closed(file):
    with io.TextIOWrapper(file) as text:
        text.write("done")


@pytest.mark.parametrize("act", [_detached_written, _detached_and_held, _wrapped, _wrapped_and_closed])
def test_a_writer_that_was_detached_or_wrapped_is_closed_when_the_call_ends(hoard, hoarder, tmp_path, act):
    """The call succeeds, what was written is there, and the server has nothing of it open: ETXTBSY would say so."""
    hoarder.act = act
    with open(tmp_path / "file", "wb") as file:
        hoard.write(file)
    assert (tmp_path / "file").read_bytes() == b"done"
    assert hoarder.has is None or hoarder.has.closed


def test_a_reader_that_was_detached_is_closed_when_the_call_ends(hoard, hoarder):
    """Whoever holds the raw file."""
    hoarder.act = lambda file: file.detach()
    with open("/proc/version", "rb") as file:
        hoard.read(file)
    assert hoarder.has.closed


def test_a_file_made_of_a_socket_does_not_keep_it_open(hoard, hoarder, make_pair):
    """socket.close() alone would wait for the file to be closed."""
    near, far = make_pair(socket.SOCK_STREAM)
    hoarder.act = lambda sock: sock.makefile("rb")
    hoard.sock(near)
    near.close()
    far.settimeout(PATIENCE)
    assert far.recv(1) == b""
    hoarder.has.close()


def test_the_number_of_a_detached_socket_is_the_methods(hoard, hoarder, make_pair):
    """An int is nobody's but of whoever has it; so is that of a Descriptor."""
    near, far = make_pair(socket.SOCK_STREAM)
    hoarder.act = lambda sock: sock.detach()
    hoard.sock(near)
    os.write(hoarder.has, b"x")
    os.close(hoarder.has)
    assert far.recv(1) == b"x"
    hoarder.act = lambda files: files[0].detach()
    hoard.many([near])
    os.write(hoarder.has, b"y")
    os.close(hoarder.has)
    assert far.recv(1) == b"y"


# --------------------------------------------------------------------------------------------------- what was kept


@pytest.mark.parametrize("kind", [list, tuple, lambda files: {"a": files[0], "b": files[1]}, set])
def test_a_container_that_is_kept_keeps_its_members(hoard, hoarder, kind):
    """All of them."""
    hoarder.act = lambda files: cm.keep(kind(files))
    files = [by_hand.temporary(b"kept") for _ in range(2)]
    hoard.many(files)
    kept = hoarder.has.values() if isinstance(hoarder.has, dict) else hoarder.has
    for file in [*kept, *files]:
        assert os.pread(file.fileno(), 10, 0) == b"kept"
        file.close()


def test_what_is_kept_of_a_struct_and_a_dataclass_is_what_is_in_them(hoard, hoarder):
    """However deep; the data beside it does not matter."""
    hoarder.act = cm.keep
    with by_hand.temporary(b"kept") as file:
        hoard.box(Boxed([Named("a", file)]))
    with hoarder.has.files[0].file as kept:
        assert os.pread(kept.fileno(), 10, 0) == b"kept"


def test_a_member_alone_that_is_kept_is_kept_alone(hoard, hoarder):
    """The others are closed."""

    def act(files):
        cm.keep(files[1])
        return list(files)

    hoarder.act = act
    files = [by_hand.temporary() for _ in range(3)]
    hoard.many(files)
    assert [file.closed for file in hoarder.has] == [True, False, True]
    for file in [hoarder.has[1], *files]:
        file.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda file: cm.keep(file.detach()),
        lambda file: cm.keep(file).detach(),
        lambda file: cm.keep(io.TextIOWrapper(file)).detach().detach(),
        lambda file: cm.keep(file.raw),
    ],
    ids=["detached", "before it was detached", "in a wrapper", "raw"],
)
@pytest.mark.parametrize("fails", [False, True])
def test_what_was_kept_of_a_file_stays_open_whatever_object_it_was(hoard, hoarder, tmp_path, make, fails):
    """Its own raw file, or what it was wrapped in; also where the call then fails."""

    def act(file):
        hoarder.has = made = make(file)
        if fails:
            raise RuntimeError
        return made

    hoarder.act = act
    with open(tmp_path / "file", "wb") as file:
        if fails:
            with pytest.raises(cm.RemoteError):
                hoard.write(file)
        else:
            hoard.write(file)
    with hoarder.has as raw:
        raw.write(b"later")
    assert (tmp_path / "file").read_bytes() == b"later"


def test_a_file_made_of_a_socket_that_is_kept_keeps_the_socket(hoard, hoarder, make_pair):
    """It would be of no use without."""
    near, far = make_pair(socket.SOCK_STREAM)
    hoarder.act = lambda sock: (sock, cm.keep(sock.makefile("rb")))
    hoard.sock(near)
    far.send(b"line\n")
    sock, file = hoarder.has
    with sock, file:
        assert file.readline() == b"line\n"


def test_a_result_that_was_kept_in_another_object_is_sent_and_stays_open(hoard, hoarder, make_pair):
    """A file made of a socket is returned, and the socket kept."""
    near, far = make_pair(socket.SOCK_STREAM)
    hoarder.act = lambda _: cm.keep(near).makefile("rb", buffering=0)
    with hoard.give() as given:
        os.write(given.fileno(), b"given")
    assert far.recv(10) == b"given"
    near.send(b"kept")
    assert far.recv(10) == b"kept"


@pytest.mark.parametrize("thing", [5, "file", [5], {"a": "b"}, object()])
def test_what_has_no_descriptor_cannot_be_kept(hoard, hoarder, thing):
    """It would be accepted, and what was meant be closed all the same."""
    hoarder.act = lambda file: cm.keep(thing)
    with (
        open("/proc/version", "rb") as file,
        pytest.raises(cm.RemoteError, match=r"TypeError: keep\(\) is for files, sockets, descriptors and streams"),
    ):
        hoard.read(file)


def test_what_lasts_without_that_is_not_kept(hoard, hoarder):
    """A signal, a capability: whoever would keep one is told so."""
    with cm.SignalReceiver() as receiver, open("/proc/version", "rb") as file:
        for thing, name in ((receiver.signal, "Signal"), (cm.capability(receiver.signal), "Capability")):
            hoarder.act = lambda _, thing=thing: cm.keep(thing)
            with pytest.raises(cm.RemoteError, match=rf"a `{name}` lasts for as long as .*: keep it as it is\n"):
                hoard.read(file)


@pytest.mark.parametrize("thing", [None, [], {}])
def test_of_nothing_nothing_is_kept(hoard, hoarder, thing):
    """An optional argument that did not come, an empty list."""
    hoarder.act = lambda file: cm.keep(thing)
    with open("/proc/version", "rb") as file:
        hoard.read(file)


# ---------------------------------------------------------------------------------------------- what is not waited for


def _fill(number):
    """Leaves no room in a pipe; how many bytes that took."""
    os.set_blocking(number, False)
    filled = 0
    try:
        while True:
            filled += os.write(number, bytes(4096))
    except BlockingIOError:
        os.set_blocking(number, True)
        return filled


def test_a_writer_that_was_kept_is_not_flushed_when_the_call_ends(hoard, hoarder):
    """Another thread may wait in it, for a pipe that its client has filled: the serving thread must not do so too."""
    reading, writing = os.pipe()
    filled = _fill(writing)
    begun = threading.Event()

    def act(file):
        cm.keep(file)
        file.raw.write = lambda data: (begun.set(), io.FileIO.write(file.raw, data))[1]
        file.write(b"later")
        thread = threading.Thread(target=file.flush)
        thread.start()
        begun.wait(PATIENCE)
        return file, thread

    hoarder.act = act
    with open(reading, "rb", buffering=0) as source, open(writing, "wb") as file:
        hoard.write(file)
        assert hoard.fine() == 1
        kept, thread = hoarder.has
        left = filled + len(b"later")
        while left:
            left -= len(source.read(left))
        thread.join(PATIENCE)
        kept.close()


def test_a_result_for_a_full_pipe_is_refused_and_others_are_served(hoard, hoarder):
    """Its pending bytes find no room, and nobody is waited for to make some: the caller gets an error."""
    reading, writing = os.pipe()
    _fill(writing)
    with open(reading, "rb", buffering=0) as source:
        writer = open(writing, "wb")

        def act(_):
            writer.write(b"pending")
            return writer

        hoarder.act = act
        with pytest.raises(cm.RemoteError, match="no room"):
            hoard.give()
        assert hoard.fine() == 1
        source.readall()


class Diary(cm.Interface):
    @cm.method
    def log(self) -> io.BufferedWriter: ...

    @cm.method
    def sock(self) -> socket.socket: ...

    @cm.method
    def copy(self) -> cm.Descriptor: ...

    @cm.method
    def all(self) -> list[cm.Descriptor]: ...

    @cm.method
    def note(self) -> None: ...


class DiaryServer(Diary):
    """Returns what it goes on to use."""

    def __init__(self, log, sock, copy):
        self.mine = {"log": log, "sock": sock, "copy": copy}

    def log(self):
        return self.mine["log"]

    def sock(self):
        return self.mine["sock"]

    def copy(self):
        return self.mine["copy"]

    def all(self):
        return [self.mine["copy"]]

    def note(self):
        self.mine["log"].write(b"x")


def test_a_servers_own_file_that_is_returned_twice_is_said_to_be_the_calls(tmp_path):
    """A call closes what it returns: the error of the second says so, and how it is returned for good."""
    log, sock, copy = open(tmp_path / "log", "wb"), socket.socket(), cm.Descriptor(os.open(os.devnull, os.O_RDONLY))
    with by_hand.serving(DiaryServer(log, sock, copy)) as capability, cm.timeout(PATIENCE):
        diary = capability.cast(Diary)
        for give in (diary.log, diary.sock, diary.copy):
            give().close()
            with pytest.raises(cm.RemoteError, match=r"a call closes .* what it returns: .*dup_of.*cm\.keep\(file\)"):
                give()
        with pytest.raises(cm.RemoteError, match=r"a call closes .* what it returns"):
            diary.all()
        with pytest.raises(cm.RemoteError, match="write to closed file") as caught:
            diary.note()
        assert "what it returns is closed when it ends" in caught.value.__notes__[0]
        capability.close()
