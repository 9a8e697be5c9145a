"""Signals in the middle of calls: Ctrl-C ends what it should, loses nothing, and the next call gets its own answer."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import reaper as _reaper
from waiting_thread import waits_in

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE = by_hand.PATIENCE


class Trap:
    """A handler that raises KeyboardInterrupt once each time that it is set, so never where nobody is ready for it."""

    def __init__(self):
        self.set = False
        self.sprung = 0

    def __call__(self, _number, _frame):
        if self.set:
            self.set = False
            self.sprung += 1
            raise KeyboardInterrupt


def _within(function):
    """Whether the code that runs was called by it, directly or not."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


class Slow(cm.Interface):
    @cm.method
    def work(self, name: int, started: cm.Descriptor, go: cm.Descriptor) -> tuple[int, list[cm.Descriptor]]:
        """Descriptors, and whose they are."""


class SlowServer(Slow):
    def work(self, name, started, go):
        os.write(started.fileno(), b".")
        select.select([go.fileno()], [], [], PATIENCE)
        return name, [cm.Descriptor(number) for _ in range(4) for number in os.pipe()]


def abandoned(proxy, name, end):
    """Calls, and has ``end()`` called once the method has begun; then the method may go on."""
    done = threading.Event()
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):

        def interrupt():
            assert started.read(1) == b"."
            # Again if it came just before the system call that waits: that would be handled after it.
            while not done.is_set():
                end()
                done.wait(0.1)

        other = by_hand.Concurrent(interrupt)
        try:
            return proxy.work(name, began, going)
        finally:
            done.set()
            go.close()
            other.outcome()


@pytest.mark.parametrize("how", ["Ctrl-C", "timeout"])
def test_the_call_after_an_abandoned_one_gets_its_own_answer(handler, open_descriptors, until, how):
    """The late answer is recognised, and its descriptors are closed."""
    with cm.Entrypoint("slow") as entrypoint:
        capability = entrypoint.manage(SlowServer())
        proxy = capability.cast(Slow)
        with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
            go.close()
            for file in proxy.work(0, began, going)[1]:
                file.close()
            assert started.read(1) == b"."
        before = open_descriptors()
        trap = Trap()
        handler(signal.SIGINT, trap)
        for round_ in range(5):
            if how == "Ctrl-C":
                trap.set = True
                with pytest.raises(KeyboardInterrupt):
                    abandoned(proxy, 100 + round_, lambda: os.kill(os.getpid(), signal.SIGINT))
            else:
                with pytest.raises(cm.CallTimeout) as caught, cm.timeout(0.5):
                    abandoned(proxy, 100 + round_, lambda: None)
                assert caught.value.ran == "maybe"
            with by_hand.pipe() as (_started, began), by_hand.pipe() as (going, go), cm.timeout(PATIENCE):
                go.close()
                name, files = proxy.work(round_, began, going)
            assert (name, len(files)) == (round_, 8)
            for file in files:
                os.fstat(file.fileno())
                file.close()
            # The same channel was used again: no other was made.
            assert len(open_door_of(capability).idle) == 1
        until(lambda: open_descriptors() <= before)


class Interrupts(cm.Interface):
    @cm.method
    def interrupt(self, pid: int, go: cm.Descriptor) -> bool:
        """Whether it was interrupted before it was answered."""

    @cm.method
    def all_were_told(self) -> bool: ...


class InterruptsServer(Interrupts):
    def __init__(self):
        self.told = []

    def interrupt(self, pid, go):
        os.kill(pid, signal.SIGINT)
        self.told.append(bool(select.select([go], [], [], PATIENCE)[0]))
        return self.told[-1]

    def all_were_told(self):
        return all(self.told)


@pytest.mark.parametrize("seconds", [None, 2 * PATIENCE])
def test_ctrl_c_just_when_the_call_is_sent(fork, seconds):
    """Its server runs before its client sleeps, where both have one processor: so the signal interrupts no sleep."""
    cpus = os.sched_getaffinity(0)
    with cm.Entrypoint("interrupts") as entrypoint:
        proxy = entrypoint.manage(InterruptsServer()).cast(Interrupts)

        def calls():
            os.sched_setaffinity(0, {min(cpus)})
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for _ in range(10):
                going, go = os.pipe()
                with contextlib.suppress(KeyboardInterrupt), cm.timeout(seconds):
                    proxy.interrupt(os.getpid(), cm.Descriptor(going))
                os.close(go)
                if not proxy.all_were_told():
                    return False
            return True

        def all_run_on(these):
            for thread in Path("/proc/self/task").iterdir():
                # Those that close what was received come and go.
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), these)

        try:
            all_run_on({min(cpus)})
            assert fork(calls).result()
        finally:
            all_run_on(cpus)
        cm.capability(proxy).close()


def test_ctrl_c_in_a_call_that_waits_for_the_door(handler):
    """Nobody serves yet: Ctrl-C ends the wait, and the call is answered when it is made again."""
    entrypoint = cm.Entrypoint("unserved")
    capability = entrypoint.manage(by_hand.Worker())
    proxy = capability.cast(by_hand.Work)
    alarm = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    alarm.start()
    with pytest.raises(KeyboardInterrupt):
        proxy.double(1)
    alarm.join()
    with entrypoint, cm.timeout(PATIENCE):
        assert proxy.double(3) == 6
    capability.close()


def test_ctrl_c_that_interrupts_no_sleep(handler):
    """As one that comes between Python's last look and the sleep; here another thread takes it meanwhile."""
    entrypoint = cm.Entrypoint("unserved")
    capability = entrypoint.manage(by_hand.Worker())
    proxy = capability.cast(by_hand.Work)
    for seconds in (None, 2 * PATIENCE):
        alarm = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
        alarm.start()
        with pytest.raises(KeyboardInterrupt), cm.timeout(seconds):
            proxy.double(1)
        alarm.join()
    entrypoint.close()
    capability.close()


def test_a_signal_handler_that_calls_in_the_middle_of_a_call(handler):
    """A call of its own on the same capability, while the outer one waits, encodes or decodes: both are answered."""
    with by_hand.serving() as capability:
        proxy = capability.cast(by_hand.Work)
        inner, deep = [], []

        def call(_number, _frame):
            # Itself interrupted by the next one, now and then; where the machine is slow, not without end.
            if len(deep) == 3:
                return
            deep.append(None)
            number = len(inner)
            with by_hand.temporary() as file:
                inner.append(proxy.double(number) == 2 * number and proxy.count([file]) == 1)
            deep.pop()

        handler(signal.SIGALRM, call)
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        try:
            deadline = time.monotonic() + PATIENCE
            number = 0
            with by_hand.temporary() as file:
                while len(inner) < 100:
                    assert time.monotonic() < deadline
                    assert proxy.double(number) == 2 * number
                    assert proxy.count([file]) == 1
                    number += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert all(inner)


def test_a_handler_that_returns_does_not_disturb_a_waiting_call(handler):
    """EINTR is nobody's error: the call is sent once, and waits on."""
    with by_hand.serving(worker := by_hand.Worker()) as capability, by_hand.pipe() as (started, began):
        with by_hand.pipe() as (going, go):
            seen = []
            handler(signal.SIGUSR1, lambda number, _frame: seen.append(number))

            def disturb():
                assert started.read(1) == b"."
                deadline = time.monotonic() + PATIENCE
                pause = threading.Event()
                # One that arrives just before the system call that waits is handled with the next one.
                while len(seen) < 20 and time.monotonic() < deadline:
                    os.kill(os.getpid(), signal.SIGUSR1)
                    pause.wait(0.002)
                go.close()

            disturbing = by_hand.Concurrent(disturb)
            assert capability.cast(by_hand.Work).block(began, going) == 1
            disturbing.outcome()
        assert worker.calls == 1


class Interrupting(cm.Interface):
    @cm.method
    def interrupt(self) -> int: ...

    @cm.method
    def double(self, value: int) -> int: ...


class InterruptingServer(Interrupting):
    def interrupt(self):
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(PATIENCE)
        return 1

    def double(self, value):
        return 2 * value


def test_ctrl_c_in_serve_forever_in_a_method(handler):
    """The caller gets an error, serve_forever() raises, and can be called again."""
    entrypoint = cm.Entrypoint("interrupted")
    capability = entrypoint.manage(InterruptingServer())

    def call():
        proxy = capability.cast(Interrupting)
        with cm.timeout(PATIENCE):
            with pytest.raises(cm.RemoteError, match="KeyboardInterrupt"):
                proxy.interrupt()
            doubled = proxy.double(4)
            entrypoint.close()
            return doubled

    calling = by_hand.Concurrent(call)
    with pytest.raises(KeyboardInterrupt):
        entrypoint.serve_forever()
    entrypoint.serve_forever()
    assert calling.outcome() == 8
    capability.close()


def test_ctrl_c_in_serve_forever_between_calls(handler):
    """It raises, and whoever calls it again serves the calls that came meanwhile."""
    entrypoint = cm.Entrypoint("idle")
    capability = entrypoint.manage(by_hand.Worker())
    for round_ in range(3):
        alarm = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        alarm.start()
        with pytest.raises(KeyboardInterrupt):
            entrypoint.serve_forever()
        alarm.join()
        with cm.timeout(PATIENCE):
            calling = by_hand.Concurrent(capability.cast(by_hand.Work).double, round_)
    closing = by_hand.Concurrent(lambda: (calling.outcome(), entrypoint.close()))
    entrypoint.serve_forever()
    assert closing.outcome()[0] == 4
    capability.close()


def interrupted_while_serving(entrypoint, kill):
    """Serves until ``kill()``, called by another thread when service has begun, has it interrupted."""
    capability = entrypoint.manage(by_hand.Worker())

    def call():
        with cm.timeout(PATIENCE):
            capability.cast(by_hand.Work).double(1)
        kill()

    calling = by_hand.Concurrent(call)
    with pytest.raises(KeyboardInterrupt):
        entrypoint.serve_forever()
    calling.outcome()
    entrypoint.close()
    capability.close()


def test_a_signal_that_interrupts_no_wait_wakes_the_loop(handler, open_descriptors, until):
    """As one does that comes just before the wait begins: here another thread gets it, which does not wait at all."""
    before, main = open_descriptors(), threading.main_thread()
    entrypoint = cm.Entrypoint("idle")
    ours = open_descriptors() - before

    def kill():
        until(lambda: any(waits_in(main, number) for number in ours))
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    interrupted_while_serving(entrypoint, kill)


def test_whoever_was_told_of_signals_before_is_told_of_those_that_came_while_serving(handler, make_pair):
    """As an event loop is, of asyncio or another, in whose thread serve_forever() was called."""
    reader, writer = make_pair()
    reader.settimeout(PATIENCE)
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno())
    try:
        interrupted_while_serving(cm.Entrypoint("within"), lambda: os.kill(os.getpid(), signal.SIGINT))
        assert reader.recv(16) == bytes([signal.SIGINT])
    finally:
        assert signal.set_wakeup_fd(before) == writer.fileno()


def test_a_method_may_have_signals_told_to_another(handler, make_pair):
    """What it has set with set_wakeup_fd() stays when service ends."""
    _reader, writer = make_pair()
    writer.setblocking(False)
    entrypoint = cm.Entrypoint("loop within")

    class Setting(by_hand.Worker):
        def double(self, value):
            signal.set_wakeup_fd(writer.fileno())
            entrypoint.close()
            return 2 * value

    capability = entrypoint.manage(Setting())
    before = signal.set_wakeup_fd(-1)
    try:
        calling = by_hand.Concurrent(capability.cast(by_hand.Work).double, 2)
        entrypoint.serve_forever()
        assert calling.outcome() == 4
    finally:
        assert signal.set_wakeup_fd(before) == writer.fileno()
    capability.close()


def test_a_child_of_a_method_writes_no_signals_into_what_its_parent_reads(fork, handler):
    """It is told of none, as it serves nobody."""
    entrypoint = cm.Entrypoint("forking")

    class Forking(by_hand.Worker):
        def double(self, value):
            child = fork(lambda: signal.set_wakeup_fd(-1))
            value += child.result()
            entrypoint.close()
            return value

    capability = entrypoint.manage(Forking())
    calling = by_hand.Concurrent(capability.cast(by_hand.Work).double, 2)
    entrypoint.serve_forever()
    assert calling.outcome() == 1
    capability.close()


def test_ctrl_c_at_any_moment_of_serving_loses_no_call(fork, open_descriptors, until):
    """A server that is interrupted all the time: each call has a result or an error, and nobody waits for ever."""

    class Stubborn(by_hand.Worker):
        pass

    registrar = by_hand.Registrar()
    with cm.Entrypoint("registrar") as entrypoint, by_hand.pipe() as (going, go):
        register = entrypoint.manage(registrar).cast(by_hand.Register)

        def serve():
            go.close()
            trap = Trap()
            signal.signal(signal.SIGINT, trap)
            # What a signal handler raises in a __del__ is lost, as Python documents: the next one counts.
            sys.unraisablehook = lambda _lost: setattr(trap, "set", _within(cm.Entrypoint.serve_forever))
            logging.disable(logging.CRITICAL)
            served = cm.Entrypoint("stubborn")
            register.enter(served.manage(Stubborn()))
            before = len(open_descriptors())

            def end():
                going.read(1)
                served.close()

            ending = by_hand.Concurrent(end)
            ended = False
            while not ended:
                # Also between two times of serving, and when it is over: the trap may still be set.
                with contextlib.suppress(KeyboardInterrupt):
                    while not served.closed:
                        with contextlib.suppress(KeyboardInterrupt, cm.Closed):
                            trap.set = True
                            served.serve_forever()
                    trap.set = False
                    ended = True
            ending.outcome()
            assert _reaper.wait(PATIENCE)
            return trap.sprung, len(open_descriptors()) - before

        child = fork(serve)
        assert registrar.arrived.wait(PATIENCE)
        capability, registrar.what = registrar.what, None
        stop = threading.Event()

        def disturb():
            while not stop.is_set():
                os.kill(child.pid, signal.SIGINT)
                stop.wait(0.001)

        disturbing = by_hand.Concurrent(disturb)
        answered = failed = 0
        proxy = capability.cast(by_hand.Work)
        began = time.monotonic()
        try:
            with by_hand.temporary() as file:
                while time.monotonic() - began < 3:
                    try:
                        with cm.timeout(10):
                            assert proxy.double(answered) == 2 * answered
                            assert proxy.count([file, file]) == 1
                            proxy.echo(file).close()
                        answered += 1
                    except (cm.RemoteError, cm.Disconnected):
                        failed += 1
        finally:
            stop.set()
            disturbing.outcome()
            go.close()
        interrupted, leaked = child.result()
        assert interrupted > 10
        assert answered > 10
        # Python has no way to make a descriptor and its owner in one step: one in a thousand may be lost.
        assert leaked <= interrupted // 50


def test_ctrl_c_at_any_moment_of_calling_leaks_nothing(handler, open_descriptors, until):
    """A client that is interrupted all the time: the next call works, and the descriptors are what they were."""
    with by_hand.serving() as capability, by_hand.temporary() as file:
        proxy = capability.cast(by_hand.Work)
        proxy.echo(file).close()
        before = open_descriptors()
        trap = Trap()
        deadline = time.monotonic() + PATIENCE
        handler(signal.SIGALRM, trap)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0013)
        try:
            while trap.sprung < 200:
                with contextlib.suppress(KeyboardInterrupt):
                    trap.set = True
                    while time.monotonic() < deadline:
                        proxy.double(1)
                        proxy.count([file])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        with cm.timeout(PATIENCE):
            assert proxy.double(5) == 10
        open_door_of(capability).idle.clear()
        until(lambda: open_descriptors() <= before)
