"""What every test gets: nothing leaks, no child stays behind; and fixtures over what support/ has."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import resource
import signal
import socket
import sys

import pytest
import uvloop
from hypothesis import HealthCheck, settings

import by_hand
import capmarshal as cm
import confined
import hosts
import left_behind
import loops
import matrix
import patience
import services
import side_by_side
from capmarshal import testing
from capmarshal._descriptors import reaper
from capmarshal._testing import leaks
from forked_child import ForkedChild
from lingering_socket import make_lingering
from ordinary_user import find_ordinary_python
from peer_process import Peer
from served import Hostile
from slow_closing import Slow

# Descriptors that a test process may have open: calls with a thousand of them, made and served in one process.
TABLE = 4096

# How long an example takes, or is made, says how busy the machine is.  --hypothesis-profile chooses another one.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser):
    """The colours of the run, its part of the files, and what hosts are parted."""
    matrix.add_options(parser)
    side_by_side.add_options(parser)
    hosts.add_options(parser)


def pytest_ignore_collect(collection_path, config):
    """A run may have a part of the files."""
    return side_by_side.ignore(collection_path, config)


def pytest_collection_modifyitems(config, items):
    """In other colours than blocking, not all tests have a meaning; and parted hosts may be those of one kind."""
    matrix.select(config, items)
    side_by_side.select(config, items)
    hosts.leave_out(config, items)


def pytest_configure(config):
    """Has signals and limits be as in a terminal, wherever the tests are started from.

    A shell that starts something in the background has it ignore Ctrl-C, and so would all programs that a test starts.
    The descriptor table is made as large as the tests need: the soft limit of most machines is 1,024.
    """
    for number in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < TABLE:
        pytest.exit(f"the tests need a hard RLIMIT_NOFILE of {TABLE} descriptors; here it is {hard}", returncode=2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, TABLE), hard))
    matrix.configure(config)
    # The first of a process makes a pipe for signals, which libuv keeps for as long as the process lives.
    uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def nothing_left(request, caplog):
    """Around every test: the same descriptors open before and after, and no child process that stays.

    As the fixture of capmarshal.testing.plugin, which is not asked for by each of thousands of tests.
    """
    leaks.forget_last_error()
    # What is there now is no garbage of the test to come, and need not be looked at before it, or after.
    gc.freeze()
    try:
        with testing.no_leaks():
            yield
            # What other fixtures gave the test, pytest keeps still; and what was logged, with errors and their frames.
            (request.node.funcargs or {}).clear()
            leaks.forget_errors(caplog.get_records("call"))
    except testing.Leaked as leaked:
        pytest.fail(str(leaked), pytrace=False)


@pytest.fixture
def open_descriptors():
    """open_descriptors(): the numbers that are open, in this process or a forked one."""
    return left_behind.open_numbers


@pytest.fixture(scope="session")
def ordinary_python():
    """(interpreter, options): how subprocess runs Python with capmarshal as an ordinary user; skips where it can't."""
    return find_ordinary_python()


@pytest.fixture(scope="session")
def confinable():
    """For tests that confine: skips where a part of it is missing, as on an older kernel, or without libseccomp."""
    confined.skip_without("landlock", "scopes", "seccomp")


@pytest.fixture(scope="session", params=["ordinary", "root"])
def python(request):
    """(interpreter, options): how subprocess runs Python with capmarshal, as an ordinary user, and as root."""
    if request.param == "ordinary":
        return find_ordinary_python()
    if os.getuid() != 0:
        pytest.skip("only root is root")
    return sys.executable, {"env": dict(os.environ)}


@pytest.fixture
def freed_memory_is_given_back():
    """For tests that measure memory: skips where the allocator keeps what is freed, to find uses of it."""
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("AddressSanitizer keeps what is freed")


@pytest.fixture
def until():
    """until(condition): returns once condition() is true; fails after a generous while."""
    return patience.until


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
def memfd(files):
    """A Descriptor of a file of its own."""
    with cm.Descriptor.dup_of(files(1)[0]) as descriptor:
        yield descriptor


@pytest.fixture
def identity():
    """identity(file): equal for two descriptors of the same file; memfds and pipes, not eventfds, have one."""

    def of(file):
        status = os.fstat(file if isinstance(file, int) else file.fileno())
        return status.st_dev, status.st_ino

    return of


@pytest.fixture
def run_peer():
    """run_peer(function, *arguments): runs a function in a new Python process, a real second one.

    The function is passed as source, so it sees only its arguments and what ``peer_process`` imports for it.  Sockets
    among the arguments are inherited, the others must have a repr that Python reads.  A peer that a test does not
    finish() is finished after it: exit code 0, nothing on stderr.
    """
    peers = []

    def run(function, *arguments):
        peers.append(Peer(function, *arguments))
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
        children.append(ForkedChild(function, **options))
        return children[-1]

    yield run
    for child in children:
        child.kill()


@pytest.fixture
def lingering():
    """lingering(seconds): (number, peer): a TCP socket whose close() takes that long, or until peer has read it all.

    The number is the caller's to close; the peer is closed after the test.
    """
    with contextlib.ExitStack() as peers:

        def make(seconds):
            number, peer = make_lingering(seconds)
            peers.enter_context(peer)
            return number, peer

        yield make


@pytest.fixture
def drain():
    """drain(socket): reads a stream to its end."""

    def read(stream):
        while stream.recv(1 << 20):
            pass

    return read


@pytest.fixture
def quiet_log(caplog):
    """What a log record keeps would be counted as a leak: only the gravest are made."""
    caplog.set_level(logging.CRITICAL, "capmarshal")


@pytest.fixture
def forgotten_log(caplog):
    """What a test may look at, and is not counted as a leak: errors that were logged know the frames they came from."""
    yield
    caplog.get_records("call").clear()


@pytest.fixture(params=loops.LOOPS)
def run(request):
    """run(function, *arguments): what a coroutine function returns, in an event loop of each kind."""
    return functools.partial(loops.run, request.param)


@pytest.fixture
def worker():
    """What :func:`capability` stands for."""
    return by_hand.Worker()


@pytest.fixture
def capability(worker):
    """Of an entrypoint of this process, which serves whatever a test did to it: another client's call is answered."""
    with by_hand.serving(worker) as made:
        yield made
        with cm.timeout(patience.PATIENCE):
            assert made.cast(by_hand.Work).double(4) == 8
        worker.held.clear()


@pytest.fixture
def entrypoint():
    """One that is called files, and serves nothing yet."""
    with cm.Entrypoint("files") as made:
        yield made


@pytest.fixture
def near(capability):
    """A channel to it, made by hand."""
    with by_hand.knock(capability) as channel:
        yield channel


@pytest.fixture
def impostor():
    """A server that speaks by hand."""
    with by_hand.Impostor() as made:
        yield made


@pytest.fixture
def writer():
    """A pipe: both ends, and whether anybody else still holds the writing one."""
    with by_hand.pipe() as (reader, made):
        yield made
        made.close()
        by_hand.at_end(reader)


@pytest.fixture
def place():
    """A path for a socket, in a directory that other users may enter."""
    with services.directory() as made:
        yield made / "service"


@pytest.fixture
def hostile(fork):
    """hostile(act, ...): a process that has done the first act already, and does the others when it is told to."""
    with contextlib.ExitStack() as stack:

        def make(*acts):
            made = Hostile(fork, *acts)
            stack.callback(made.close)
            made.act()
            return made

        yield make


@pytest.fixture
def slow():
    """slow(): something whose close() blocks until the test ends, or lets it."""
    made = []

    def make(*args):
        made.append(Slow(*args))
        return made[-1]

    yield make
    for each in made:
        each.may_end.set()
    assert reaper.wait(patience.PATIENCE)


@pytest.fixture
def handler():
    """handler(number, function): until the end of the test."""
    before = {}

    def install(number, function):
        before.setdefault(number, signal.signal(number, function))

    install(signal.SIGINT, signal.default_int_handler)
    yield install
    # What is on its way comes to nothing first: a timer that a test was kept from disarming would end the tests.
    for number in before:
        signal.signal(number, lambda _number, _frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, function in before.items():
        signal.signal(number, function)
