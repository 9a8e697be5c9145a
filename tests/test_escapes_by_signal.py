"""What signals bring ends the service of the main thread; what a method raises there does not."""

from __future__ import annotations

import functools
import os
import signal
import socket
import sys
import threading
import weakref

import pytest

import by_hand
import capmarshal as cm
from capmarshal._server import escapes as _escapes
from capmarshal._server.escapes import BySignal

PATIENCE = by_hand.PATIENCE

pytestmark = pytest.mark.usefixtures("quiet_log")


class Process(cm.Interface):
    @cm.method
    def signal(self, number: int) -> int: ...

    @cm.method
    def finalize(self, number: int) -> int: ...

    @cm.method
    def forget(self, number: int) -> int: ...

    @cm.method
    def exit(self) -> int: ...

    @cm.method
    def fine(self, value: int) -> int: ...


class Target:
    pass


class Signalling:
    """Goes, and brings a signal by that."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


class ProcessServer(Process):
    def signal(self, number):
        os.kill(os.getpid(), number)
        threading.Event().wait(PATIENCE)

    def finalize(self, number):
        Signalling(number)
        return 8

    def forget(self, number):
        target = Target()
        watched = weakref.ref(target, lambda _: signal.raise_signal(number))
        del target
        return 8 if watched() is None else 9

    def exit(self):
        sys.exit(3)

    def fine(self, value):
        return value


def leave(*_):
    sys.exit(4)


class Leaver:
    def __call__(self, *_):
        leave()

    def leave(self, *_):
        leave()


def leave_once(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(4)


HANDLERS = {
    "function": leave,
    "lambda": lambda *_: sys.exit(4),
    "partial": functools.partial(leave, 1),
    "partial of a partial of a method": functools.partial(functools.partial(Leaver().leave, 1), 2),
    "method": Leaver().leave,
    "callable": Leaver(),
    "partial of a callable": functools.partial(Leaver()),
    "takes itself out": leave_once,
}


def _served_in_main_thread(calls, ends_with):
    """Serves here while another thread calls; what ended the service, and what the other thread saw."""
    entrypoint = cm.Entrypoint("main")
    capability = entrypoint.manage(ProcessServer())

    def call():
        proxy, seen = capability.cast(Process), []
        with cm.timeout(PATIENCE):
            for name, *arguments in calls:
                try:
                    seen.append(getattr(proxy, name)(*arguments))
                except cm.RemoteError as error:
                    seen.append(error.type)
        return seen

    calling = by_hand.Concurrent(call)
    with pytest.raises(ends_with) as caught:
        entrypoint.serve_forever()
    closing = by_hand.Concurrent(lambda: (calling.join(PATIENCE), entrypoint.close()))
    entrypoint.serve_forever()
    closing.outcome()
    capability.close()
    return caught.value, calling.outcome()


@pytest.mark.parametrize("how", HANDLERS)
def test_an_exit_that_a_signal_brought_ends_the_service_of_the_main_thread(handler, how):
    """Whatever the handler is, and the method's caller is told; an exit of a method's own does not end it."""
    handler(signal.SIGTERM, HANDLERS[how])
    error, seen = _served_in_main_thread(
        [("fine", 1), ("exit",), ("exit",), ("signal", signal.SIGTERM), ("exit",), ("fine", 2)], SystemExit
    )
    assert error.code == 4
    assert seen == [1, "SystemExit", "SystemExit", "SystemExit", "SystemExit", 2]


def test_ctrl_c_in_a_method_ends_the_service_of_the_main_thread(handler):
    """And the method's caller is told."""
    _, seen = _served_in_main_thread([("exit",), ("signal", signal.SIGINT), ("fine", 2)], KeyboardInterrupt)
    assert seen == ["SystemExit", "KeyboardInterrupt", 2]


@pytest.mark.parametrize("when", ["finalize", "forget"])
@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_in_a_finalizer_is_not_lost(handler, monkeypatch, when, number, error):
    """Or in what is told that an object has gone: Python drops what is raised there, and reports it."""
    handler(signal.SIGTERM, leave)
    reported = []
    report = reported.append
    monkeypatch.setattr("sys.unraisablehook", report)
    _, seen = _served_in_main_thread([("fine", 1), (when, number), ("fine", 2)], error)
    assert seen == [1, 8, 2]
    assert reported == []
    assert sys.unraisablehook is report


def test_an_exit_passes_for_a_signals_only_with_the_handlers_own_code():
    """Not with code that is equal, nor with a handler of another kind; and no other error does."""

    def same():
        return [eval("lambda: exit(1)", {"exit": sys.exit}) for _ in range(2)]

    def caught(function):
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - what the test looks at
            return error

    def ended():
        raise GeneratorExit

    installed, twin = same()
    assert installed.__code__ == twin.__code__
    before = signal.signal(signal.SIGUSR1, installed)
    try:
        by_signal = BySignal()
        assert by_signal(caught(installed))
        assert not by_signal(caught(twin))
        assert not by_signal(caught(ended))
        assert by_signal(KeyboardInterrupt())
        # Written in C: there is no code to know it by.
        signal.signal(signal.SIGUSR1, print)
        assert by_signal(caught(installed))
        assert not BySignal()(caught(installed))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_in_a_forked_child_everything_ends_the_service(fork):
    """sys.exit() of a child that a method forked is the child's own; its parent answers the call."""
    assert _escapes.everything(SystemExit())

    def serve():
        entrypoint = cm.Entrypoint("forking")
        here, there = socket.socketpair()

        class Forker(Process):
            signal = fine = finalize = forget = ProcessServer.fine

            def exit(self):
                child = os.fork()
                if child == 0:
                    sys.exit(7)
                _, status = os.waitpid(child, 0)
                return os.waitstatus_to_exitcode(status)

        capability = entrypoint.manage(Forker())

        def call():
            with cm.timeout(PATIENCE):
                code = capability.cast(Process).exit()
            entrypoint.close()
            return code

        calling = by_hand.Concurrent(call)
        try:
            entrypoint.serve_forever()
        except SystemExit as error:
            os._exit(error.code)
        here.close()
        there.close()
        return calling.outcome()

    assert fork(serve).result() == 7


def test_ctrl_c_is_known_in_a_group_of_errors():
    """Of the tasks that a method has run, one is interrupted; and what else they raise ends the call only."""
    nested = BaseExceptionGroup("tasks", [ValueError(), BaseExceptionGroup("more", [KeyboardInterrupt()])])
    assert BySignal()(nested)
    assert not BySignal()(BaseExceptionGroup("tasks", [ValueError(), SystemExit(1)]))
