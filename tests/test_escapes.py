"""What a method raises ends its call, whatever it is."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import io
import threading
from typing import Any

import pytest

import by_hand
import capmarshal as cm
import matrix

pytestmark = pytest.mark.usefixtures("quiet_log")

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


@matrix.thread_of_its_own
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
