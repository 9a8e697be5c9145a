"""What a method raises ends its call, whatever it is; signals end the service of the main thread."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import io
import logging
import os
import signal
import socket
import sys
import threading
from typing import Any

import pytest

import by_hand
import capmarshal as cm
from capmarshal._server import escapes as _escapes
from capmarshal._server.escapes import BySignal

PATIENCE = by_hand.PATIENCE


class Panic(BaseException):
    """As of a foreign library: no Exception."""


def _parse():
    with contextlib.redirect_stderr(io.StringIO()):
        argparse.ArgumentParser(exit_on_error=True).parse_args(["--no-such-option"])


def _throw(error):
    raise error


RAISED = {
    "SystemExit": _parse,
    "CancelledError": lambda: _throw(asyncio.CancelledError("cancelled")),
    "Failed": lambda: pytest.fail("in a method"),
    "GeneratorExit": lambda: _throw(GeneratorExit()),
    "Panic": lambda: _throw(Panic("called `unwrap()` on a `None` value")),
    "KeyboardInterrupt": lambda: _throw(KeyboardInterrupt()),
}

# What the classes below raise when they are used; None while a test prepares something.
_armed = None


def _spring():
    if _armed is not None:
        RAISED[_armed]()


@dataclasses.dataclass
class Trap:
    """Raises where it is decoded."""

    value: int = 0

    def __post_init__(self):
        _spring()


class Unspeakable(Exception):
    """Raises where it is put into words."""

    def __str__(self):
        _spring()
        return ""


class WithFileno:
    """Raises where it is asked for its descriptor."""

    def fileno(self):
        _spring()


class WithoutFileno:
    """Raises where it is asked whether it has a descriptor."""

    @property
    def fileno(self):
        _spring()


class Doomed:
    """Raises where it is deleted."""

    def __del__(self):
        _spring()


class Raising(cm.Interface):
    @cm.method
    def data(self) -> int: ...

    @cm.method
    def file(self, file: cm.Descriptor) -> int: ...

    @cm.method
    def decode(self, trap: Trap) -> int: ...

    @cm.method
    def decode_with_file(self, file: cm.Descriptor, trap: Trap) -> int: ...

    @cm.method
    def words(self) -> int: ...

    @cm.method
    def encode(self, how: str) -> Any: ...

    @cm.method
    def encode_file(self, how: str) -> cm.Descriptor: ...

    @cm.method
    def delete(self) -> int: ...

    @cm.method
    def inline(self, inner: cm.Capability) -> str: ...

    @cm.method
    def fine(self, value: int) -> int: ...


class RaisingServer(Raising):
    def data(self):
        _spring()

    def file(self, file):
        _spring()

    def decode(self, trap):
        raise AssertionError

    def decode_with_file(self, file, trap):
        raise AssertionError

    def words(self):
        raise Unspeakable

    def encode(self, how):
        return WithFileno() if how == "fileno" else WithoutFileno()

    encode_file = encode

    def delete(self):
        Doomed()
        return 1

    def inline(self, inner):
        try:
            inner.cast(Raising).data()
        except cm.RemoteError as error:
            return error.type
        return "nothing"

    def fine(self, value):
        return value


@pytest.fixture(autouse=True)
def quiet(caplog):
    """A log record that pytest keeps would keep what is in its traceback, and that is counted as a leak."""
    caplog.set_level(logging.CRITICAL, "capmarshal")


@contextlib.contextmanager
def armed(name):
    global _armed  # what the classes above raise, in whichever thread they are used
    _armed = name
    try:
        yield
    finally:
        _armed = None


@pytest.mark.parametrize("name", RAISED)
def test_whatever_a_method_raises_ends_its_call_only(name):
    """Of data alone, by the way of the first call and by that of all others, and with a descriptor."""
    with by_hand.serving(RaisingServer()) as capability, by_hand.temporary() as file, cm.timeout(PATIENCE):
        proxy = capability.cast(Raising)
        with armed(name):
            for _ in range(3):
                with pytest.raises(cm.RemoteError) as caught:
                    proxy.data()
                assert caught.value.type == name
                with pytest.raises(cm.RemoteError) as caught:
                    proxy.file(file)
                assert caught.value.type == name
        assert proxy.fine(1) == 1
    capability.close()


@pytest.mark.parametrize("name", RAISED)
def test_whatever_decoding_raises_ends_its_call_only(name):
    """A __post_init__ of the application's; the descriptor that came with it is closed."""
    with by_hand.serving(RaisingServer()) as capability, cm.timeout(PATIENCE):
        proxy = capability.cast(Raising)
        trap = Trap()
        for _ in range(3):
            with armed(name), pytest.raises(cm.RemoteError) as caught:
                proxy.decode(trap)
            assert caught.value.type == name
        with by_hand.pipe() as (reader, writer):
            with armed(name), pytest.raises(cm.RemoteError) as caught:
                proxy.decode_with_file(writer, trap)
            assert caught.value.type == name
            writer.close()
            by_hand.at_end(reader)
        assert proxy.fine(1) == 1
    capability.close()


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("method", ["encode", "encode_file"])
@pytest.mark.parametrize("how", ["fileno", "no fileno"])
def test_whatever_encoding_a_result_raises_ends_its_call_only(name, method, how):
    """A fileno() of the application's, and a property of that name."""
    with by_hand.serving(RaisingServer()) as capability, cm.timeout(PATIENCE):
        proxy = capability.cast(Raising)
        with armed(name):
            for _ in range(3):
                with pytest.raises(cm.RemoteError) as caught:
                    getattr(proxy, method)(how)
                assert caught.value.type == name
        assert proxy.fine(1) == 1
    capability.close()


@pytest.mark.parametrize("name", RAISED)
def test_an_error_that_cannot_be_put_into_words_is_named(name):
    """The caller learns its class."""
    with by_hand.serving(RaisingServer()) as capability, cm.timeout(PATIENCE):
        proxy = capability.cast(Raising)
        with armed(name), pytest.raises(cm.RemoteError, match="cannot be had") as caught:
            proxy.words()
        assert caught.value.type == "Unspeakable"
        assert proxy.fine(1) == 1
    capability.close()


@pytest.mark.parametrize("name", RAISED)
def test_whatever_a_finalizer_raises_ends_nothing(name, monkeypatch):
    """Python reports it, and the call goes on."""
    reported = []
    monkeypatch.setattr("sys.unraisablehook", lambda error: reported.append(error.exc_type.__name__))
    with by_hand.serving(RaisingServer()) as capability, cm.timeout(PATIENCE):
        with armed(name):
            assert capability.cast(Raising).delete() == 1
        assert reported == [name]
    capability.close()


@pytest.mark.parametrize("name", RAISED)
def test_an_inline_call_ends_by_the_same_rule(name):
    """The method that made it gets what any caller gets."""
    with cm.Entrypoint("inline") as entrypoint, cm.timeout(PATIENCE):
        outer, inner = entrypoint.manage(RaisingServer()).cast(Raising), entrypoint.manage(RaisingServer())
        with armed(name):
            assert outer.inline(inner) == name
        assert outer.fine(1) == 1


def test_what_another_thread_throws_into_the_serving_one_does_not_end_it(until):
    """As libraries do that time functions out: a client waits no longer than its call, and the service goes on."""
    import ctypes

    with cm.Entrypoint("thrown") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(RaisingServer()).cast(Raising)
        assert proxy.fine(1) == 1
        (serving,) = (thread for thread in threading.enumerate() if thread.name == "capmarshal thrown")
        for number in range(20):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(serving.ident), ctypes.py_object(SystemExit))
            for value in range(3):
                # Whichever call it hits, that one alone ends.
                with contextlib.suppress(cm.RemoteError, cm.Disconnected):
                    assert proxy.fine(value) == value
            assert proxy.fine(number) == number
    assert not serving.is_alive()


# In serve_forever() of the main thread.


class Process(cm.Interface):
    @cm.method
    def signal(self, number: int) -> int: ...

    @cm.method
    def exit(self) -> int: ...

    @cm.method
    def fine(self, value: int) -> int: ...


class ProcessServer(Process):
    def signal(self, number):
        os.kill(os.getpid(), number)
        threading.Event().wait(PATIENCE)

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


def test_an_exit_passes_for_a_signals_only_with_the_handlers_own_code():
    """Not with code that is equal, nor with a handler of another kind; and no other error does."""

    def same():
        return [eval("lambda: exit(1)", {"exit": sys.exit}) for _ in range(2)]

    def caught(function):
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - what the test looks at
            return error

    installed, twin = same()
    assert installed.__code__ == twin.__code__
    before = signal.signal(signal.SIGUSR1, installed)
    try:
        by_signal = BySignal()
        assert by_signal(caught(installed))
        assert not by_signal(caught(twin))
        assert not by_signal(caught(lambda: _throw(GeneratorExit())))
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
            signal = fine = ProcessServer.fine

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
