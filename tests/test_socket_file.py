"""The file of a listening socket: who may connect, how long its path may be, and what is replaced and what stays."""

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import time
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
from full_table import fill
from patience import PATIENCE
from services import double, failure, leave_stale, serving


@pytest.fixture
def umask():
    """umask(mode): until the end of the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids=oct)
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o000, 0o777], ids=oct)
def test_the_mode_is_what_was_said_whatever_the_umask(place, umask, mode, mask):
    """And the lock beside it is its owner's alone."""
    umask(mask)
    with serving(place, mode=mode):
        assert stat.S_IMODE(place.stat().st_mode) == mode
    assert stat.S_IMODE(Path(f"{place}.lock").stat().st_mode) == 0o600 & ~mask


def test_it_is_the_owners_alone_unless_something_else_is_said(place, fork):
    """Another user is refused by the kernel, and told whose doing that is."""
    with serving(place):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        kind, words = fork(lambda: failure(place), ordinary=True).result()
        if os.getuid() == 0:
            assert (kind, "permissions" in words) == ("Refused", True)
        else:
            assert kind == ""


def test_an_ordinary_user_serves_and_connects(place, fork):
    place.parent.chmod(0o777)

    def both():
        with serving(place):
            return double(place), double(place)

    assert fork(both, ordinary=True).result() == (8, 8)


def test_it_never_lets_in_whom_the_mode_keeps_out(place, fork, umask):
    """An ordinary user who tries all the time, while a service begins and ends with no umask, never gets in."""
    if os.getuid() != 0:
        pytest.skip("needs two users")
    umask(0)
    reading, writing = os.pipe()

    def try_on():
        os.close(writing)
        os.set_blocking(reading, False)
        answers = set()
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as tried:
                answers.add(tried.connect_ex(str(place)))
            with contextlib.suppress(FileNotFoundError):
                mode = stat.S_IMODE(place.stat().st_mode)
                if mode & 0o077:
                    answers.add(oct(mode))
            try:
                if os.read(reading, 1) == b"":
                    return answers
            except BlockingIOError:
                pass

    child = fork(try_on, ordinary=True)
    os.close(reading)
    for _ in range(300):
        with cm.Entrypoint("service") as entrypoint:
            entrypoint.listen(place, by_hand.Worker())
    os.close(writing)
    assert child.result() <= {errno.ENOENT, errno.EACCES, errno.ECONNREFUSED}


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_a_path_is_text_or_bytes_or_a_path(place, kind):
    with serving(kind(place)):
        assert double(kind(place)) == 8


@pytest.mark.parametrize(
    "path", ["", b"", "\0abstract", b"\0abstract", "with\0zero", "directory/", b"/", 3, None, ["list"]], ids=repr
)
def test_what_is_no_path_is_refused_by_both(path):
    """In words; an abstract name has no permissions."""
    error = ValueError if isinstance(path, (str, bytes)) else TypeError
    words = "no permissions" if path in ("\0abstract", b"\0abstract") else "path"
    with pytest.raises(error, match=words):
        cm.connect(path, PATIENCE)
    with cm.Entrypoint("service") as entrypoint, pytest.raises(error, match=words):
        entrypoint.listen(path, by_hand.Worker())


def test_a_path_that_is_no_text_will_do(place):
    with serving(os.fsencode(place) + b"\xff\n"):
        assert double(os.fsencode(place) + b"\xff\n") == 8


def test_a_relative_path_is_found_again_from_elsewhere(place, monkeypatch):
    """When its file is removed."""
    monkeypatch.chdir(place.parent)
    with serving("service"):
        assert double("service") == 8
        monkeypatch.chdir("/")
        assert double(place) == 8
    assert not place.exists()


@pytest.mark.parametrize("length", [106, 107, 108, 109, 300, 3000])
def test_a_path_may_be_long(place, length):
    """Longer than the address of a socket; nothing changes its directory, and no descriptor stays open."""
    path = place.parent
    while len(os.fsencode(path)) < length - 60:
        path /= "d" * min(50, length - 11 - len(os.fsencode(path)))
    path.mkdir(parents=True, exist_ok=True)
    path /= "s" * (length - len(os.fsencode(path)) - 1)
    assert len(os.fsencode(path)) == length
    with serving(path):
        assert double(path) == 8
        with cm.Entrypoint("second") as second, pytest.raises(cm.KernelError, match="listens there already"):
            second.listen(path, by_hand.Worker())
    assert not path.exists()
    leave_stale(place)
    place.rename(path)
    with serving(path, mode=0o660):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_name_that_is_too_long_is_refused_in_words(place):
    """For the address has room for the file's own name at least; whoever connects needs none."""
    path = place.parent / ("n" * 150)
    with cm.Entrypoint("service") as entrypoint, pytest.raises(ValueError, match="the name of the file has"):
        entrypoint.listen(path, by_hand.Worker())
    with serving(place):
        place.rename(path)
        assert double(path) == 8
        path.rename(place)


def test_without_proc_a_long_path_is_refused_in_words(place, fork):
    """A short one needs no /proc."""
    if os.getuid() != 0:
        pytest.skip("only root may hide /proc")
    deep = place.parent / ("d" * 120)
    deep.mkdir()
    long = deep / "service"

    def hidden():
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        # CLONE_NEWNS; MS_REC | MS_PRIVATE, so that nobody else sees it.
        if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None):
            return None
        if libc.mount(b"none", b"/proc", b"tmpfs", 0, None):
            return None
        with serving(place):
            short = double(place)
            with cm.Entrypoint("second") as second:
                try:
                    second.listen(long, by_hand.Worker())
                except cm.KernelError as error:
                    listening = str(error)
        return short, listening, failure(long)

    found = fork(hidden).result()
    if found is None:
        pytest.skip("no mount namespace can be had here")
    short, listening, (kind, words) = found
    assert short == 8
    assert "/proc" in listening
    assert (kind, "/proc" in words) == ("KernelError", True)


def test_a_stale_socket_is_replaced(place):
    leave_stale(place)
    with serving(place):
        assert double(place) == 8


@pytest.mark.parametrize("what", ["file", "directory", "symlink", "dangling", "fifo"])
def test_what_is_no_socket_is_never_removed(place, what):
    """A symbolic link to a stale socket neither."""
    target = place.parent / "target"
    leave_stale(target)
    {
        "file": lambda: place.write_text("precious"),
        "directory": place.mkdir,
        "symlink": lambda: place.symlink_to(target),
        "dangling": lambda: place.symlink_to("nowhere"),
        "fifo": lambda: os.mkfifo(place),
    }[what]()
    before = place.lstat()
    with cm.Entrypoint("service") as entrypoint, pytest.raises(cm.KernelError, match="no socket, and stays"):
        entrypoint.listen(place, by_hand.Worker())
    assert place.lstat() == before
    assert target.is_socket()
    # Nor is a lock left beside it.
    assert not Path(f"{place}.lock").exists()


def test_a_directory_that_is_not_there_is_said_to_be_wanted_for_the_path(place):
    """And not for a file that nobody has named: the lock beside it is what is made first."""
    missing = place.parent / "missing" / "service"
    with cm.Entrypoint("service") as entrypoint, pytest.raises(cm.KernelError, match=f"listening at '{missing}'"):
        entrypoint.listen(missing, by_hand.Worker())


def test_the_second_server_is_told_who_the_first_is(place, fork):
    """By process and user; the first goes on."""
    with serving(place):

        def second():
            with cm.Entrypoint("second") as entrypoint:
                try:
                    entrypoint.listen(place, by_hand.Worker())
                except cm.KernelError as error:
                    return error.errno, str(error)

        number, words = fork(second).result()
        assert number == errno.EADDRINUSE
        assert f"process {os.getpid()} (user {os.getuid()}) listens there already" in words
        assert double(place) == 8


@pytest.mark.parametrize("kind", ["STREAM", "DGRAM"])
def test_a_socket_of_another_kind_is_in_use(place, kind):
    """Somebody has it, and does not answer to this: it is left alone."""
    with socket.socket(socket.AF_UNIX, getattr(socket, f"SOCK_{kind}")) as other:
        other.bind(str(place))
        with cm.Entrypoint("service") as entrypoint, pytest.raises(cm.KernelError, match="another kind"):
            entrypoint.listen(place, by_hand.Worker())
        assert place.is_socket()


def test_a_server_that_accepts_nobody_is_in_use(place):
    """Stopped, or busy: as many wait there as may, and it is no stale socket for that."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as busy:
        busy.bind(str(place))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waits:
            waits.connect(str(place))
            with cm.Entrypoint("service") as entrypoint, pytest.raises(cm.KernelError, match="is busy"):
                entrypoint.listen(place, by_hand.Worker())
        assert place.is_socket()


def test_of_many_that_begin_at_once_one_listens(place, fork):
    """A bound socket that does not listen yet looks stale: the lock beside it keeps them apart."""
    leave_stale(place)
    wait, go = os.pipe()
    done, end = os.pipe()

    def begin():
        os.close(go)
        os.close(end)
        with cm.Entrypoint("service") as entrypoint:
            os.read(wait, 1)
            try:
                entrypoint.listen(place, by_hand.Worker())
            except cm.KernelError as error:
                return "listens there already" in str(error)
            double(place)
            os.read(done, 1)
            return double(place)

    children = [fork(begin) for _ in range(8)]
    os.close(go)
    os.close(wait)
    # All but one are told, and end.
    pending, deadline = list(children), time.monotonic() + PATIENCE
    while len(pending) > 1:
        ended, _, _ = select.select([child._result for child in pending], [], [], deadline - time.monotonic())
        assert ended
        pending = [child for child in pending if child._result not in ended]
    os.close(end)
    os.close(done)
    assert sorted(child.result() for child in children) == [True] * 7 + [8]


def test_who_holds_the_lock_is_waited_for(place):
    """Within the deadline: another that begins holds it for a moment."""
    with open(f"{place}.lock", "w") as lock, cm.Entrypoint("service") as entrypoint:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with cm.timeout(0.05), pytest.raises(cm.KernelError, match="is locked"):
            entrypoint.listen(place, by_hand.Worker())
        assert not place.exists()
        waiting = by_hand.Concurrent(entrypoint.listen, place, by_hand.Worker())
        fcntl.flock(lock, fcntl.LOCK_UN)
        waiting.outcome()
        assert double(place) == 8


def test_nothing_is_followed_to_the_lock(place):
    """A symbolic link there is another's doing."""
    target = place.parent / "target"
    Path(f"{place}.lock").symlink_to(target)
    with cm.Entrypoint("service") as entrypoint, pytest.raises(cm.KernelError, match=r"service\.lock"):
        entrypoint.listen(place, by_hand.Worker())
    assert not target.exists()
    assert not place.exists()


def test_a_fifo_as_the_lock_keeps_nobody(place, fork):
    """A stranger's, at which nobody writes: opening it would wait, and hold up every thread that makes a descriptor."""
    os.mkfifo(f"{place}.lock")

    def serve():
        with serving(place):
            return double(place)

    assert fork(serve).result() == 8


@pytest.mark.parametrize("name", ["nowhere/service", "service/below"])
def test_where_there_is_no_directory_nothing_is_made(place, name):
    place.write_text("file")
    with cm.Entrypoint("service") as entrypoint, pytest.raises(cm.KernelError):
        entrypoint.listen(place.parent / name, by_hand.Worker())


def test_a_directory_that_may_not_be_written_to_is_said(place, fork):
    """As an ordinary user: the error names what could not be made."""

    def serve():
        with cm.Entrypoint("service") as entrypoint:
            try:
                entrypoint.listen(place, by_hand.Worker())
            except cm.KernelError as error:
                return str(error)

    if os.getuid() == 0:
        assert "service.lock" in fork(serve, ordinary=True).result()


def test_a_full_table_leaves_nothing(place, fork):
    """At whichever descriptor it is full."""

    def serve():
        entrypoint = cm.Entrypoint("service")
        full = fill(0)
        errors = set()
        while True:
            try:
                entrypoint.listen(place, by_hand.Worker())
            except cm.TableFull:
                errors.add(len(full))
                assert not place.exists()
                os.close(full.pop())
            else:
                break
        for number in full:
            os.close(number)
        with entrypoint:
            assert double(place) == 8
        return len(errors)

    assert fork(serve, table=64).result() >= 2
