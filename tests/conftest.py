"""What every test gets: nothing leaks, no child stays behind; and helpers that make real processes.

pytest's import mode does not let test files import each other, so each helper is a fixture that returns a function
or a class.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import inspect
import os
import pickle
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
import traceback
import warnings
from pathlib import Path

import _cffi_backend
import msgspec
import pytest

import capmarshal
from capmarshal._descriptors import reaper as _reaper

# Generous: reached only when something hangs.
PATIENCE = 30.0

_NOBODY = 65534


def _listing():
    """Each open descriptor of this process, and what it is: {number: target}."""
    listed = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - iterdir() would keep a descriptor of its own open
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            listed[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - the target is not a path
    return listed


def _settled_listing():
    gc.collect()
    assert _reaper.wait(PATIENCE), "the reaper is still closing something: a test left it work that blocks"
    return _listing()


def _differences(before, after):
    lines = [f"leaked: {number} -> {after[number]}" for number in sorted(after.keys() - before.keys())]
    lines += [f"closed, but not the test's own: {n} -> {before[n]}" for n in sorted(before.keys() - after.keys())]
    lines += [
        f"replaced: {number} -> {before[number]} is now {after[number]}"
        for number in sorted(before.keys() & after.keys())
        if before[number] != after[number]
    ]
    return lines


def _end_children():
    """Kills and collects whatever children there are, and says which they were."""
    lines = []
    for task in Path("/proc/self/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            lines.append(f"child left behind: {pid} {command}")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return lines


@pytest.fixture(autouse=True)
def nothing_left():
    """Around every test: the same descriptors open before and after, and no child process that stays."""
    before = _listing()  # settled: by this fixture, after the test before
    yield
    wrong = _differences(before, _settled_listing())
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        pass
    else:
        wrong += _end_children() or ["child left behind"]
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


@pytest.fixture
def open_descriptors():
    """open_descriptors(): the numbers that are open, in this process or a forked one.

    Asks for each number in turn: it needs no descriptor of its own, and no /proc, which an ordinary user's process
    may not read once it has changed user.
    """

    def numbers():
        found = set()
        for number in range(2048):
            with contextlib.suppress(OSError):
                fcntl.fcntl(number, fcntl.F_GETFD)
                found.add(number)
        return found

    return numbers


@pytest.fixture(scope="session")
def ordinary_python():
    """(interpreter, options): how subprocess runs Python with capmarshal as an ordinary user.

    Where this interpreter is in a directory that only root may enter, another one of the same version does, with this
    one's packages.  Skips where there is neither.
    """
    if os.getuid() != 0:
        return sys.executable, {"env": dict(os.environ)}
    packages = {str(Path(capmarshal.__file__).parents[1]), str(Path(msgspec.__file__).parents[1])}
    packages.add(str(Path(_cffi_backend.__file__).parent))
    others = shutil.which(f"python3.{sys.version_info.minor}", path=os.defpath)
    tries = [(sys.executable, dict(os.environ))]
    tries += [(others, {**os.environ, "PYTHONPATH": os.pathsep.join(sorted(packages))})] if others else []
    reason = ""
    for interpreter, environment in tries:
        options = {"env": environment, "user": _NOBODY, "group": _NOBODY, "extra_groups": []}
        try:
            subprocess.run(
                [interpreter, "-P", "-c", "import capmarshal"], check=True, capture_output=True, cwd="/", **options
            )
        except (OSError, subprocess.CalledProcessError) as error:
            reason = f"user {_NOBODY} cannot run {interpreter}: {error}"
        else:
            return interpreter, options
    pytest.skip(reason)


@pytest.fixture
def freed_memory_is_given_back():
    """For tests that measure memory: skips where the allocator keeps what is freed, to find uses of it."""
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("AddressSanitizer keeps what is freed")


@pytest.fixture
def until():
    """until(condition): returns once condition() is true; fails after a generous while."""

    def wait(condition, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{condition} did not become true in {seconds} s"
            time.sleep(0.002)  # between two looks at it; the deadline is above

    return wait


@pytest.fixture
def make_pair():
    """make_pair(kind): a pair of AF_UNIX sockets, closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(kind=socket.SOCK_SEQPACKET):
            return tuple(stack.enter_context(end) for end in socket.socketpair(socket.AF_UNIX, kind))

        yield make


@pytest.fixture(params=["SEQPACKET", "DGRAM"])
def pair(request, make_pair):
    """A pair of sockets that keep records, of each kind."""
    return make_pair(getattr(socket, f"SOCK_{request.param}"))


@pytest.fixture
def seqpacket(make_pair):
    """A SEQPACKET pair."""
    return make_pair()


@pytest.fixture
def files():
    """files(count): that many descriptors of files that can be told apart, closed after the test."""
    opened = []

    def make(count):
        made = [os.memfd_create(f"test-{i}", os.MFD_CLOEXEC) for i in range(count)]
        opened.extend(made)
        return made

    yield make
    for number in opened:
        os.close(number)


@pytest.fixture
def identity():
    """identity(file): equal for two descriptors of the same file; memfds and pipes, not eventfds, have one."""

    def of(file):
        status = os.fstat(file if isinstance(file, int) else file.fileno())
        return status.st_dev, status.st_ino

    return of


# What the source of a peer's function finds imported.
_PEER = """\
import contextlib, gc, os, signal, socket, sys, threading
import capmarshal as cm
from capmarshal import Descriptor, Message
from capmarshal._kernel.errors import CallTimeout, Disconnected

# Ignored, where the tests run in a shell's background.
signal.signal(signal.SIGINT, signal.default_int_handler)

{function}
with contextlib.ExitStack() as _stack:
    {name}({arguments})
"""


class _Peer:
    """A Python process of its own, that runs one function."""

    def __init__(self, function, *arguments):
        inherited = [argument.fileno() for argument in arguments if isinstance(argument, socket.socket)]
        passed = [
            f"_stack.enter_context(socket.socket(fileno={a.fileno()}))" if isinstance(a, socket.socket) else repr(a)
            for a in arguments
        ]
        source = _PEER.format(
            function=textwrap.dedent(inspect.getsource(function)), name=function.__name__, arguments=", ".join(passed)
        )
        # -I: neither the environment nor the working directory decides what is imported.
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-W", "error", "-c", source],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.finished = False

    @property
    def pid(self):
        return self.process.pid

    def line(self):
        """The next line that the peer prints, once it comes."""
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, "the peer printed nothing"
        return self.process.stdout.readline().rstrip("\n")

    def asleep(self):
        """Whether the peer, a process of one thread, waits in a system call."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    def finish(self, *, code=0, stderr=""):
        """What the peer printed since; its exit code and its stderr are as said.

        Args:
            code: a negative one is the number of the signal that killed it.
            stderr: exactly this, or None: whatever it printed.
        """
        self.finished = True
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            pytest.fail(f"the peer did not finish; it printed:\n{out}\n{err}", pytrace=False)
        assert (self.process.returncode, err if stderr is not None else None) == (code, stderr), err
        return out

    def kill(self):
        """SIGKILL, and collects it."""
        self.finished = True
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


@pytest.fixture
def run_peer():
    """run_peer(function, *arguments): runs a function in a new Python process, a real second one.

    The function is passed as source, so it sees only its arguments and what ``_PEER`` imports.  Sockets among the
    arguments are inherited, the others must have a repr that Python reads.  A peer that a test does not finish() is
    finished after it: exit code 0, nothing on stderr.
    """
    peers = []

    def run(function, *arguments):
        peers.append(_Peer(function, *arguments))
        return peers[-1]

    yield run
    try:
        for peer in peers:
            if not peer.finished:
                peer.finish()
    finally:
        for peer in peers:
            if not peer.finished:
                peer.kill()


def _become_ordinary():
    """Drops root, in a child; nothing to do for who has none.

    A number of our own rather than "nobody": descriptors in flight are counted per user over the whole machine, and
    another test run's must not count here.
    """
    if os.getuid() != 0:
        return
    os.setgroups([])
    for user in (20_000 + os.getpid() % 30_000, 65_534):
        try:
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        except OSError:  # not mapped in this user namespace
            continue
        return
    raise AssertionError("cannot become an ordinary user")


class _Forked:
    """A forked child that runs one function."""

    def __init__(self, function, *, ordinary=False, table=None):
        self._result, write_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # CPython 3.12 warns of fork with threads about: of pytest-timeout, and of the reaper.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            os.close(self._result)
            code = 1
            try:
                if ordinary:
                    _become_ordinary()
                if table is not None:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (table, table))
                answer = (True, function())
                code = 0
            except BaseException:  # noqa: BLE001 - all of it is the parent's to report
                answer = (False, traceback.format_exc())
            finally:
                with contextlib.suppress(BaseException), os.fdopen(write_end, "wb") as out:
                    pickle.dump(answer, out)
                os._exit(code)
        os.close(write_end)

    def result(self):
        """What the function returned; fails with the child's traceback where it raised."""
        pidfd = os.pidfd_open(self.pid)
        try:
            # Read while it runs: its answer may be larger than a pipe.
            received, deadline = bytearray(), time.monotonic() + PATIENCE
            while True:
                ready, _, _ = select.select([self._result], [], [], max(deadline - time.monotonic(), 0))
                piece = os.read(self._result, 65536) if ready else b""
                if not piece:
                    break
                received += piece
            ended, _, _ = select.select([pidfd], [], [], max(deadline - time.monotonic(), 0))
        finally:
            os.close(pidfd)
            self.kill()
        if not ended:
            pytest.fail("the forked child did not end", pytrace=False)
        if not received:
            pytest.fail(f"the forked child said nothing; wait status {self.status:#x}", pytrace=False)
        good, answer = pickle.loads(received)
        if not good:
            pytest.fail(f"in the forked child:\n{answer}", pytrace=False)
        return answer

    def kill(self):
        """SIGKILL, if it still runs, and collects it."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            _, self.status = os.waitpid(self.pid, 0)
            self.pid = None
            os.close(self._result)


@pytest.fixture
def fork():
    """fork(function, ordinary=, table=): runs a function in a forked child; result() waits for what it returns.

    Args (of the returned function):
        ordinary: as an ordinary user: the kernel exempts root from the limit of descriptors in flight.  Forked, not
            executed, since another user may not be able to read this Python; so the function must not import.
        table: the size of its descriptor table, RLIMIT_NOFILE.
    """
    children = []

    def run(function, **options):
        children.append(_Forked(function, **options))
        return children[-1]

    yield run
    for child in children:
        child.kill()


@pytest.fixture
def lingering():
    """lingering(seconds): (number, peer): a TCP socket whose close() takes that long, or until peer has read it all.

    The number is the caller's to close; the peer is closed after the test.
    """
    peers = []

    def make(seconds):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sender = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
            peer, _ = listener.accept()
        peers.append(peer)
        peer.settimeout(PATIENCE)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.send(bytes(65536))
        # Blocking again: a non-blocking socket does not linger.
        sender.setblocking(True)
        return sender.detach(), peer

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture
def drain():
    """drain(socket): reads a stream to its end."""

    def read(stream):
        while stream.recv(1 << 20):
            pass

    return read
