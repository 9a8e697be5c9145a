"""How an entrypoint is entered and left: within a bound, at one Ctrl-C, by a signal at any instruction, in a fork."""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import types

import pytest

import by_hand
import capmarshal as cm
from capmarshal import _entrypoint
from capmarshal._descriptors import private as _private
from capmarshal._protocol import wire
from capmarshal._server import letting_go as _letting_go
from capmarshal._server import service as _service
from capmarshal._server import session as _session
from capmarshal._server import starting as _starting

PATIENCE = by_hand.PATIENCE


def threads_of(label):
    return [thread for thread in threading.enumerate() if thread.name == f"capmarshal {label}"]


@contextlib.contextmanager
def calling_block(capability):
    """A thread's call of block(), which has begun; it ends with the block."""
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        calling = by_hand.Concurrent(capability.cast(by_hand.Work).block, began, going)
        assert started.read(1) == b"."
        yield calling
        go.close()


# Within a bound.


def test_leaving_waits_for_the_call_in_progress_and_answers_it():
    """As long as the bound says, which is five seconds unless it is said."""
    assert cm.Entrypoint.__init__.__kwdefaults__["close_timeout"] == 5.0
    with cm.Entrypoint("left", close_timeout=PATIENCE) as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())
        with calling_block(capability) as calling:
            leaving = by_hand.Concurrent(entrypoint.__exit__, None, None, None)
            leaving.join(0.1)
            assert leaving.is_alive()
        assert calling.outcome() == 1
        leaving.outcome()
    capability.close()


def test_leaving_does_not_wait_longer_than_the_bound(caplog):
    """The log names the call, its client finds the entrypoint gone, and what the call still returns is dropped."""
    with contextlib.ExitStack() as stack:
        with cm.Entrypoint("left", close_timeout=0.2) as entrypoint:
            capability = entrypoint.manage(by_hand.Worker())
            calling = stack.enter_context(calling_block(capability))
        (left,) = caplog.messages
        # How long that took is the machine's to say.
        words = r"left: Work\.block has not ended in [\d.]+ s and is left behind: its caller gets no answer"
        assert re.fullmatch(words, left)
        with pytest.raises(cm.Disconnected) as caught:
            calling.outcome()
        assert caught.value.ran == "maybe"
        with pytest.raises(cm.Disconnected), cm.timeout(PATIENCE):
            capability.cast(by_hand.Work).double(1)
        (serving,) = threads_of("left")
    serving.join(PATIENCE)
    assert not serving.is_alive()
    capability.close()


@pytest.mark.parametrize("bound", ["close_timeout", "timeout", "timeout that has passed"])
def test_a_short_bound_does_not_call_a_call_long_that_is_none(caplog, bound):
    """When nothing is in progress, leaving joins the thread and says nothing."""
    limit = 0.001 if bound == "timeout" else 0 if bound == "timeout that has passed" else PATIENCE
    for _ in range(20):
        with cm.timeout(limit), cm.Entrypoint("quick", close_timeout=0 if bound == "close_timeout" else 5):
            pass
        assert not threads_of("quick")
    assert caplog.messages == []


def test_there_may_be_no_bound():
    """As close() has it."""
    with cm.Entrypoint("unbounded", close_timeout=float("inf")) as entrypoint, cm.timeout(PATIENCE):
        assert entrypoint.manage(by_hand.Worker()).cast(by_hand.Work).double(1) == 2
    entrypoint = cm.Entrypoint("unbounded", close_timeout=float("inf"))
    entrypoint.close()


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_bound_is_a_number_of_seconds(seconds):
    """0 or more."""
    with pytest.raises(ValueError, match="close_timeout"):
        cm.Entrypoint("x", close_timeout=seconds)


def test_leaving_from_within_a_call_does_not_wait_for_itself():
    """The call is answered, and the service ends after it."""

    class Leaving(by_hand.Worker):
        def double(self, value):
            entrypoint.__exit__(None, None, None)
            return 2 * value

    with cm.Entrypoint("self") as entrypoint, cm.timeout(PATIENCE):
        assert entrypoint.manage(Leaving()).cast(by_hand.Work).double(1) == 2
    assert not threads_of("self")


def test_a_call_that_has_come_when_the_entrypoint_is_closed_within_another_is_not_run(fork):
    """The one is answered; the other, of a process whose turn comes first, finds the server gone and was never read."""

    class Closing(by_hand.Worker):
        def double(self, value):
            os.write(tell.fileno(), b".")
            assert sent.read(1) == b"."
            entrypoint.close()
            return super().double(value)

    def call():
        with by_hand.knock(capability) as other:
            other.send(by_hand.call(capability, b"size", b"\x91\xc4\x00"))
            assert isinstance(by_hand.answer(other)[0], wire.Reply)
            os.write(say.fileno(), b".")
            assert told.read(1) == b"."
            other.send(by_hand.call(capability))
            os.write(say.fileno(), b".")
            with pytest.raises(ConnectionResetError):
                other.recv(1)

    worker = Closing()
    with by_hand.pipe() as (told, tell), by_hand.pipe() as (sent, say), cm.Entrypoint("self") as entrypoint:
        capability = entrypoint.manage(worker)
        child = fork(call)
        assert sent.read(1) == b"."
        with by_hand.knock(capability) as near:
            near.send(by_hand.call(capability))
            assert isinstance(by_hand.answer(near)[0], wire.Reply)
        child.result()
    assert worker.calls == 1


@pytest.mark.parametrize("how", ["left", "closed", "closed within a call"])
def test_no_thread_is_left(how):
    """An interpreter that ends must not meet one that is still starting, or still ending."""
    for _ in range(30):
        entrypoint = cm.Entrypoint("joined")
        entrypoint.__enter__()
        if how == "closed":
            entrypoint.close()
        else:
            if how == "closed within a call":
                entrypoint._service.close_at_once()
            entrypoint.__exit__(None, None, None)
        assert not threads_of("joined")


@pytest.mark.parametrize("which", ["the starting one", "the serving one"])
def test_a_thread_that_does_not_begin_is_no_hang(which, monkeypatch):
    """One that the kernel gave, and that finds no memory, dies before it says that it has; it may be tried again."""
    tried = threading.Event()
    entrypoint = cm.Entrypoint("not begun")
    with monkeypatch.context() as patch:
        patch.setattr(_starting, "_LOOKS", 2)
        if which == "the starting one":
            fake = types.SimpleNamespace(allocate_lock=_thread.allocate_lock, start_new_thread=lambda *_: 0)
            patch.setattr(_starting, "_thread", fake)
        else:
            # As it waits for a thread that has died.
            patch.setattr(threading.Thread, "start", lambda _: tried.wait(PATIENCE))
        try:
            with pytest.raises(cm.KernelError, match="'not begun': it has not begun"):
                entrypoint.__enter__()
        finally:
            tried.set()
    with entrypoint:
        assert entrypoint.manage(by_hand.Worker()).cast(by_hand.Work)


CTRL_C = """
import os, select, signal, sys, threading, time
import capmarshal as cm

signal.signal(signal.SIGINT, signal.default_int_handler)

class Work(cm.Interface):
    @cm.method
    def block(self) -> int: ...

class Worker(Work):
    def block(self):
        print("blocked", flush=True)
        threading.Event().wait(600)

def call():
    try:
        proxy.block()
    except cm.Disconnected:
        print("disconnected", flush=True)

with cm.Entrypoint("x", close_timeout=0.5) as entrypoint:
    proxy = entrypoint.manage(Worker()).cast(Work)
    calling = threading.Thread(target=call)
    calling.start()
    print("waiting", flush=True)
    # Not one long wait: a signal that comes just before a system call begins interrupts nothing.
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        pass
"""


def test_one_ctrl_c_suffices():
    """To leave an entrypoint whose method waits for something that does not come, and the program with it."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", CTRL_C],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert {process.stdout.readline(), process.stdout.readline()} == {"blocked\n", "waiting\n"}
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == "disconnected\n"
            assert process.wait(PATIENCE) == -signal.SIGINT
            words = process.stderr.read()
            assert re.search(r"x: Work\.block has not ended in \d+\.\d s", words)
            assert words.endswith("KeyboardInterrupt\n")
        finally:
            process.kill()


def test_ctrl_c_while_leaving_leaves_at_once():
    """It is raised, the client finds the entrypoint gone, and nobody waits for the rest of the bound."""
    trap = []

    def handler(*_):
        if trap:
            trap.clear()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with contextlib.ExitStack() as stack:
            entrypoint = cm.Entrypoint("left", close_timeout=10 * PATIENCE).__enter__()
            capability = entrypoint.manage(by_hand.Worker())
            calling = stack.enter_context(calling_block(capability))
            trap.append(True)
            signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
            with pytest.raises(KeyboardInterrupt):
                entrypoint.__exit__(None, None, None)
            signal.setitimer(signal.ITIMER_REAL, 0)
            with pytest.raises(cm.Disconnected):
                calling.outcome()
            (serving,) = threads_of("left")
        serving.join(PATIENCE)
        assert not serving.is_alive()
        capability.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Entering.


def test_entering_twice_is_refused_and_the_service_goes_on():
    """Also while serve_forever() serves."""
    with cm.Entrypoint("twice") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(by_hand.Worker()).cast(by_hand.Work)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="served already"):
                entrypoint.__enter__()
            with pytest.raises(RuntimeError, match="served already"):
                entrypoint.serve_forever()
            assert proxy.double(1) == 2
        assert len(threads_of("twice")) == 1
    with pytest.raises(cm.Closed):
        entrypoint.__enter__()


def test_entering_where_no_thread_can_start_names_the_limit(fork):
    """The entrypoint is what it was, and is entered when there is room."""

    def enter():
        entrypoint = cm.Entrypoint("threadless")
        _, hard = limits = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
        errors = []
        for _ in range(2):
            try:
                entrypoint.__enter__()
            except cm.KernelError as error:
                errors.append((error.errno, str(error)))
        resource.setrlimit(resource.RLIMIT_NPROC, limits)
        with entrypoint, cm.timeout(PATIENCE):
            return errors, entrypoint.manage(by_hand.Worker()).cast(by_hand.Work).double(1)

    errors, doubled = fork(enter, ordinary=True).result()
    assert doubled == 2
    assert len(errors) == 2
    for number, words in errors:
        assert number == 11
        assert "'threadless'" in words
        assert "RLIMIT_NPROC" in words
        assert "pids.max" in words


def test_entering_under_gevent_is_refused(monkeypatch):
    """Where its marker says that threads are greenlets; where it is merely imported, all is as ever."""
    monkey = types.ModuleType("gevent.monkey")
    patched = {"socket"}
    monkey.is_module_patched = lambda name: name in patched
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    with cm.Entrypoint("blue") as entrypoint, cm.timeout(PATIENCE):
        assert entrypoint.manage(by_hand.Worker()).cast(by_hand.Work).double(1) == 2
    patched.add("threading")
    entrypoint = cm.Entrypoint("green")
    with pytest.raises(RuntimeError, match=r"gevent.*patch_all"):
        entrypoint.__enter__()
    assert not entrypoint.closed
    entrypoint.close()


def test_entering_under_the_real_gevent_is_refused():
    """As far as it is installed."""
    finished = subprocess.run(
        [sys.executable, "-P", "-c", "import gevent.monkey"], check=False, capture_output=True, timeout=PATIENCE
    )
    if finished.returncode:
        pytest.skip("gevent is not installed")
    script = """
from gevent import monkey
monkey.patch_all()
import capmarshal as cm
try:
    cm.Entrypoint("green").__enter__()
except RuntimeError as error:
    print("gevent" in str(error))
"""
    finished = subprocess.run([sys.executable, "-P", "-c", script], timeout=PATIENCE, capture_output=True, text=True)
    assert finished.stdout == "True\n", finished.stderr


# By a signal at any instruction.


class Sweep:
    """Runs operations with an action in the middle, at one instruction after the other of the modules that end service.

    What a signal handler does, it does between two instructions of the main thread; fewer than these.
    """

    CODE = tuple(module.__file__ for module in (_entrypoint, _service, _session, _starting, _letting_go))

    def __init__(self, at, action):
        self._left, self._action = at, action
        self.acted = False

    def _trace(self, frame, event, _argument):
        if frame.f_code.co_filename not in self.CODE:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.acted:
            self._left -= 1
            if self._left < 0:
                self.acted = True
                self._action()
        return self._trace

    def __enter__(self):
        # Python 3.12 tells of instructions only if a frame has asked for them before tracing begins.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_):
        sys.settrace(None)


class Busy(by_hand.Worker):
    """Needs the space's lock and the table's in its calls, as dissolving in another thread does."""

    def __init__(self, entrypoint):
        super().__init__()
        self.entrypoint = entrypoint
        self.called = threading.Event()

    def double(self, value):
        self.called.set()
        other = by_hand.Worker()
        with contextlib.suppress(cm.Closed):
            self.entrypoint.manage(other)
            self.entrypoint.dissolve(other)
        return 2 * value


def _enter_and_leave(entrypoint, _busy):
    with contextlib.suppress(cm.Closed):
        with entrypoint:
            pass


def _enter_and_close(entrypoint, _busy):
    with contextlib.suppress(cm.Closed):
        entrypoint.__enter__()
    entrypoint.close()
    # Waits for what a signal handler began, where close() does not.
    entrypoint.__exit__(None, None, None)


def _serve(entrypoint, busy):
    def close():
        # Not before it is served, or there would be little to interrupt.
        while not (busy.called.wait(0.01) or entrypoint.closed):
            pass
        entrypoint.close()

    closing = threading.Thread(target=close)
    closing.start()
    with contextlib.suppress(cm.Closed):
        entrypoint.serve_forever()
    closing.join()


def _manage(entrypoint, _busy=None):
    workers = [by_hand.Worker() for _ in range(2)]
    with contextlib.suppress(cm.Closed):
        with entrypoint:
            for worker in workers:
                entrypoint.manage(worker)
                entrypoint.dissolve(worker)
            entrypoint.manage(workers[0])


OPERATIONS = {operation.__name__: operation for operation in (_enter_and_leave, _enter_and_close, _serve, _manage)}


@contextlib.contextmanager
def _called_all_the_time(entrypoint):
    """Another thread calls a method that wants the locks, until the entrypoint is gone."""
    busy = Busy(entrypoint)
    capability = entrypoint.manage(busy)

    def call():
        proxy = capability.cast(by_hand.Work)
        with contextlib.suppress(cm.Disconnected, cm.StaleCapability), cm.timeout(PATIENCE):
            while True:
                proxy.double(1)

    calling = by_hand.Concurrent(call)
    yield busy
    calling.outcome()
    capability.close()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_signal_handler_closes_at_any_instruction(fork, operation):
    """Nothing waits for itself, and the entrypoint is closed afterwards, with all that it held let go."""

    def sweep():
        logging.disable(logging.CRITICAL)
        at, stride = 0, 1 if operation == "_enter_and_leave" else 3
        while True:
            entrypoint = cm.Entrypoint("swept")
            with _called_all_the_time(entrypoint) as busy, Sweep(at, entrypoint.close) as swept:
                OPERATIONS[operation](entrypoint, busy)
            assert entrypoint.closed
            # Not while its lock was held, perhaps, but by whoever held it.
            assert entrypoint._service.released
            assert not threads_of("swept")
            if not swept.acted:
                return at
            at += stride

    assert fork(sweep).result() > 50


@pytest.mark.parametrize("operation", OPERATIONS)
def test_sigterm_closes_at_any_moment(fork, operation):
    """A real signal, at 300 moments, while another thread calls."""

    def sweep():
        logging.disable(logging.CRITICAL)
        signalled = 0
        for round_ in range(300):
            entrypoint = cm.Entrypoint("signalled")
            seen = []

            def close(*_, seen=seen, entrypoint=entrypoint):
                seen.append(True)
                entrypoint.close()

            signal.signal(signal.SIGALRM, close)
            with _called_all_the_time(entrypoint) as busy:
                signal.setitimer(signal.ITIMER_REAL, 20e-6 * (1 + round_ % 100))
                OPERATIONS[operation](entrypoint, busy)
                signal.setitimer(signal.ITIMER_REAL, 0)
                entrypoint.close()
            signalled += len(seen)
            assert entrypoint._service.released
        return signalled

    assert fork(sweep).result() > 20


def test_a_fork_at_any_instruction_leaves_a_child_that_works(fork):
    """The entrypoint is closed in the child, whatever its parent was about to do, and a new one serves there."""

    def sweep():
        logging.disable(logging.CRITICAL)
        at = forks = 0

        def child():
            assert entrypoint.closed
            entrypoint.close()
            with pytest.raises(cm.Closed):
                entrypoint.manage(by_hand.Worker())
            with cm.Entrypoint("child") as own, cm.timeout(PATIENCE):
                assert own.manage(by_hand.Worker()).cast(by_hand.Work).double(2) == 4

        def forked():
            if _session.owned(_private.lock):
                # No other thread can fork then; and a signal handler's child would hold it for ever.
                return
            pid = os.fork()
            if pid == 0:
                sys.settrace(None)
                code = 1
                with contextlib.suppress(BaseException):
                    child()
                    code = 0
                os._exit(code)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        while True:
            codes = []
            entrypoint = cm.Entrypoint("forking")
            with Sweep(at, forked) as swept:
                _manage(entrypoint)
                entrypoint.close()
            if not swept.acted:
                return forks
            assert codes in ([0], [])
            forks += len(codes)
            at += 7

    assert fork(sweep).result() > 20


def test_managing_while_another_thread_closes_leaves_nothing_behind():
    """An object is managed before, and let go, or refused after; its id means nothing any more."""
    from capmarshal._capabilities.space import space

    before = dict(space.managed)
    for _ in range(200):
        with cm.Entrypoint("racing") as entrypoint:
            workers = [by_hand.Worker() for _ in range(20)]
            closing = by_hand.Concurrent(entrypoint.close)
            with contextlib.suppress(cm.Closed):
                for worker in workers:
                    entrypoint.manage(worker)
            closing.outcome()
    assert space.managed == before
