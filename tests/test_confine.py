"""`confine()`: a process that confines itself after its start, as an ordinary user."""

import ctypes
import errno
import gc
import itertools
import mmap
import os
import resource
import signal
import socket
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

import capmarshal as cm
import child_program
from capmarshal._child import confine, privileges
from capmarshal._child.undisturbed import undisturbed
from capmarshal._descriptors import reaper
from confined import confines
from loops import run
from patience import PATIENCE

pytestmark = confines


@pytest.fixture
def confined(fork, ordinary_python):
    """confined(function, ...): what a function returns in an ordinary process that has confined itself."""

    def in_child(function, **options):
        def child():
            cm.confine(cm.Confinement(**options))
            return function()

        return fork(child, ordinary=True).result()

    return in_child


def _outcome(action):
    try:
        return action()
    except OSError as error:
        return type(error)


def test_it_does_what_it_may_and_nothing_else(confined):
    """What was open stays open."""
    with open("/etc/passwd") as opened:

        def act():
            refused = [
                _outcome(attempt)
                for attempt in (
                    lambda: open("/etc/passwd"),
                    lambda: open(os.devnull, "w"),
                    socket.socket,
                    lambda: subprocess.run(["true"]),
                    lambda: os.kill(os.getppid(), 0),
                )
            ]
            return refused, opened.readline() != "", sum(range(10))

        assert confined(act) == ([PermissionError] * 5, True, 45)


def test_it_goes_on_calling_and_serving(fork):
    """Calls that it makes by what it holds, and objects of its own; what has to be closed elsewhere is closed."""
    with child_program.registry() as (target, capability):

        def act():
            registry = capability.cast(child_program.Registry)
            with cm.timeout(PATIENCE):
                before = registry.tell("before")
                cm.confine(cm.Confinement())
                after = registry.tell("after")
                with cm.Entrypoint("own") as own:
                    served = own.manage(child_program.RegistryServer()).cast(child_program.Registry).tell("own")
                reader, writer = os.pipe()
                reaper.close([cm.Descriptor(reader)])
                closed = reaper.wait(PATIENCE)
                os.close(writer)
            return before, after, served, closed

        assert fork(act, ordinary=True).result() == (1, 2, 1, True)
        assert target.told == ["before", "after"]


def test_what_is_being_closed_is_closed_first(fork):
    """By threads that are ended then, for they would go on unbound."""

    def act():
        reader, writer = os.pipe()
        reaper.close([cm.Descriptor(reader)])
        cm.confine(cm.Confinement())
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"x")
        return threading.active_count()

    assert fork(act, ordinary=True).result() == 1


class _Circle:
    """What goes when the garbage collector comes; then a thread elsewhere closes what it has, and tells."""

    def __init__(self, number, closed):
        self.own, self._descriptor, self._closed = self, cm.Descriptor(number), closed

    def __del__(self):
        reaper.close([self._descriptor], then=self._closed)


@pytest.mark.parametrize("step", ["before", "while it is bound"])
def test_garbage_that_is_closed_elsewhere_is_not_in_the_way(fork, monkeypatch, step):
    """It waits: the thread that closes it would be unbound, and begins when the process is bound."""
    module, name = {"before": (confine, "_wait_alone"), "while it is bound": (privileges, "give_up")}[step]
    done = getattr(module, name)

    def act():
        (reader, writer), heard = os.pipe(), []

        def collects():
            _Circle(reader, lambda: heard.append((threading.get_ident(), _outcome(lambda: open("/etc/passwd")))))
            gc.collect()
            done()

        monkeypatch.setattr(module, name, collects)
        cm.confine(cm.Confinement())
        assert reaper.wait(PATIENCE)
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"x")
        ((thread, outcome),) = heard
        return thread != threading.get_ident(), outcome

    assert fork(act, ordinary=True).result() == (True, PermissionError)


def test_the_collector_comes_when_all_is_bound(fork, monkeypatch):
    """What a finalizer does may be anything, as starting a thread of its own."""
    give_up, heard = privileges.give_up, []

    class Starts:
        def __del__(self):
            heard.append(_outcome(lambda: open("/etc/passwd")))

    def act():
        def much():
            box = Starts()
            box.own = box
            del box
            # More than the collector lets pass.
            assert len([[] for _ in range(200_000)]) == 200_000
            give_up()

        monkeypatch.setattr(privileges, "give_up", much)
        cm.confine(cm.Confinement())
        gc.collect()
        return heard, gc.isenabled()

    assert fork(act, ordinary=True).result() == ([PermissionError], True)


@pytest.mark.parametrize("raises", [False, True], ids=["starts a thread", "raises"])
def test_a_signal_is_heard_when_all_is_bound(fork, monkeypatch, raises):
    """What its handler starts is bound, and what it raises leaves nothing half done."""
    give_up, threads, heard = privileges.give_up, [], []

    def handler(*_):
        if raises:
            raise ZeroDivisionError
        threads.append(threading.Thread(target=lambda: heard.append(_outcome(lambda: open("/etc/passwd")))))
        threads[0].start()

    def act():
        signal.signal(signal.SIGUSR1, handler)
        monkeypatch.setattr(privileges, "give_up", lambda: (os.kill(os.getpid(), signal.SIGUSR1), give_up()))
        try:
            cm.confine(cm.Confinement())
        except ZeroDivisionError:
            heard.append(_outcome(lambda: open("/etc/passwd")))
        for thread in threads:
            thread.join(PATIENCE)
        with pytest.raises(cm.NotConfined, match="is confined"):
            cm.confine(cm.Confinement())
        return heard, signal.pthread_sigmask(signal.SIG_BLOCK, [])

    assert fork(act, ordinary=True).result() == ([PermissionError], set())


def test_a_signal_that_comes_while_they_are_being_blocked_leaves_none_blocked(fork, monkeypatch):
    """What its handler raises then keeps the block from being entered; the process would have heard none any more."""
    # os.kill() looks for signals itself.
    arise, every, entered = ctypes.CDLL(None)["raise"], signal.valid_signals(), []

    class Coming:
        def __sub__(self, others):
            # By C alone, while they are read: Python has not looked for signals when they are blocked.
            return itertools.chain(iter(partial(arise, signal.SIGUSR1), 0), every - others)

    def handler(*_):
        raise ZeroDivisionError

    def act():
        signal.signal(signal.SIGUSR1, handler)
        monkeypatch.setattr(signal, "valid_signals", Coming)
        with pytest.raises(ZeroDivisionError), undisturbed():
            entered.append(True)
        return entered, signal.pthread_sigmask(signal.SIG_BLOCK, ()), gc.isenabled()

    assert fork(act).result() == ([], set(), True)


@pytest.mark.parametrize("kind", ["thread", "library"])
def test_other_threads_make_it_refuse(fork, kind):
    """Of the program's, or a library's that Python does not know; and nothing was changed."""

    def act():
        import _thread

        end = threading.Event()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with cm.Entrypoint("own") as own:
            served = own.manage(child_program.RegistryServer()).cast(child_program.Registry)
            if kind == "thread":
                threading.Thread(target=end.wait, name="a thread of its own").start()
            else:
                _thread.start_new_thread(end.wait, ())
            with pytest.raises(cm.NotConfined) as raised:
                cm.confine(cm.Confinement(descriptors=64))
            with cm.timeout(PATIENCE):
                assert served.tell("served on") == 1
        end.set()
        unchanged = resource.getrlimit(resource.RLIMIT_NOFILE) == before
        with open("/etc/passwd") as file, open(os.devnull, "w"):
            return str(raised.value), unchanged, file.readline() != "", subprocess.run(["true"]).returncode

    words, *rest = fork(act, ordinary=True).result()
    named = {"thread": "'a thread of its own'", "library": "of a library"}[kind]
    assert named in words
    # What to do, of the one that most people meet.
    assert ("OPENBLAS_NUM_THREADS=1" in words) == (kind == "library")
    assert rest == [True, True, 0]


def test_it_works_while_an_event_loop_serves(fork):
    """Which has no thread: the calls go on."""
    from capmarshal import aio

    class Doubles(cm.Interface):
        @cm.method
        async def double(self, value: int) -> int: ...

    class DoublesServer(Doubles):
        async def double(self, value):
            if value == 1:
                cm.confine(cm.Confinement())
            return value * 2

    async def main():
        async with aio.Entrypoint("doubles") as entrypoint:
            doubles = entrypoint.manage(DoublesServer()).cast(Doubles)
            results = [await doubles.double(value) for value in range(4)]
        return results, _outcome(lambda: open("/etc/passwd"))

    # uvloop may have an io_uring: see below.
    for loop in ("asyncio", "trio"):
        assert fork(lambda loop=loop: run(loop, main), ordinary=True).result() == ([0, 2, 4, 6], PermissionError)


def test_an_io_uring_makes_it_refuse(fork):
    """No filter sees what is asked by one; a loop of uvloop's has one, where the kernel lets it."""

    async def main():
        rings = [path for path in Path("/proc/self/fd").iterdir() if _target(path) == "anon_inode:[io_uring]"]
        try:
            cm.confine(cm.Confinement())
        except cm.NotConfined as error:
            return bool(rings), str(error)
        return bool(rings), "confined"

    ring, words = fork(lambda: run("uvloop", main), ordinary=True).result()
    assert ("is an io_uring" in words) if ring else (words == "confined")


def test_an_io_uring_that_is_closed_and_mapped_makes_it_refuse(fork):
    """The kernel may still take what is asked for there, by a thread of its own that no filter binds."""
    io_uring_setup, room, ring_at, pages = 425, 120, 0, 4096

    def act():
        libc = ctypes.CDLL(None, use_errno=True)
        number = libc.syscall(ctypes.c_long(io_uring_setup), 4, ctypes.create_string_buffer(room))
        if number < 0:
            return ""
        # Not Python's, which keeps a descriptor of its own.
        libc.mmap.restype, size = ctypes.c_void_p, ctypes.c_size_t(pages)
        place = ctypes.c_void_p(libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, number, ctypes.c_long(ring_at)))
        os.close(number)
        with pytest.raises(cm.NotConfined) as raised:
            cm.confine(cm.Confinement())
        libc.munmap(place, size)
        cm.confine(cm.Confinement())
        return str(raised.value)

    words = fork(act, ordinary=True).result()
    if not words:
        pytest.skip("no io_uring here")
    assert "an io_uring is mapped, which does what a filter does not see" in words


def _target(path):
    try:
        return str(path.readlink())
    except OSError:
        return ""


def test_it_confines_once_and_says_so_the_second_time(confined):
    """What binds a process can't be changed by it."""

    def again():
        with pytest.raises(cm.Error) as raised:
            cm.confine(cm.Confinement())
        return type(raised.value).__name__, str(raised.value)

    kind, words = confined(again)
    assert kind == "NotConfined"
    assert "is confined, and stays as it is" in words


def test_descriptors_that_are_open_already_make_it_refuse(fork):
    """Where there would be no room for another; nothing was changed, and what is enough is said."""

    def act():
        opened = [os.pipe() for _ in range(40)]
        with pytest.raises(cm.NotConfined) as raised:
            cm.confine(cm.Confinement())
        unchanged = resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64
        cm.confine(cm.Confinement(descriptors=256))
        return len(opened), raised.value.errno, str(raised.value), unchanged

    *rest, words, unchanged = fork(act, ordinary=True).result()
    assert (rest, unchanged) == ([40, errno.EMFILE], True)
    assert words.startswith("[Errno 24] descriptors=64 are too few: this process has ")


def test_limits_are_put_on(confined):
    """As on a process that was spawned confined."""

    def limits():
        return [
            resource.getrlimit(kind) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU)
        ]

    assert confined(limits, descriptors=40, memory=1 << 40, cpu=50) == [(40, 40), (1 << 40, 1 << 40), (50, 51)]


def test_it_spawns_no_other_and_says_why(fork):
    """Not by the error of the first thing that it is refused on the way."""

    def act():
        told = []
        with child_program.registry() as (_, capability):
            cm.confine(cm.Confinement())
            for options in ({}, {"confine": cm.Confinement()}):
                with pytest.raises(PermissionError) as raised:
                    cm.spawn(["plugin.py"], parent=capability, **options)
                told.append(str(raised.value))
        return told

    words = "[Errno 1] this process is confined, and starts no other"
    assert fork(act, ordinary=True).result() == [words, words]


def test_memory_that_is_mapped_already_makes_it_refuse(fork):
    """What is had would go on being used, beyond the limit; it says how much is needed, and nothing was changed."""

    def act():
        with mmap.mmap(-1, 200 << 20):
            with pytest.raises(cm.NotConfined) as raised:
                cm.confine(cm.Confinement(memory=200 << 20, descriptors=64))
            unchanged = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE)]
            needed = int(str(raised.value).split()[-1])
            # What is imported meanwhile is mapped, too.
            cm.confine(cm.Confinement(memory=needed + (8 << 20)))
        return raised.value.errno, str(raised.value), unchanged

    number, words, (memory, descriptors) = fork(act, ordinary=True).result()
    assert number == errno.ENOMEM
    assert f"memory={200 << 20} is too little: this process maps " in words
    assert memory == resource.getrlimit(resource.RLIMIT_AS)[0]
    assert descriptors > 64


@pytest.mark.parametrize("wrong", [None, {}, "strict"])
def test_what_is_no_confinement_is_refused(wrong):
    """Nothing is changed."""
    with pytest.raises(TypeError, match="takes a Confinement"):
        cm.confine(wrong)


def test_a_path_that_is_not_there_is_told(fork):
    """By the error of the system's that it is; nothing was changed."""

    def act():
        with pytest.raises(FileNotFoundError) as raised:
            cm.confine(cm.Confinement(read=["/nonexistent"], descriptors=64))
        return raised.value.filename, resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64, subprocess.run(["true"]).args

    assert fork(act, ordinary=True).result() == ("/nonexistent", True, ["true"])


def test_signals_go_on(confined):
    """Handlers that were there run."""

    def act():
        heard = []
        signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
        signal.raise_signal(signal.SIGUSR1)
        return heard

    assert confined(act) == [1]
