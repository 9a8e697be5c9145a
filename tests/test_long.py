"""Payloads that end in a long bytes: the same as MessagePack's, without a copy of it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

import capmarshal as cm
from capmarshal._typed import long as _long
from capmarshal._typed.codec import encode_data
from patience import PATIENCE, until

LEAST = _long._LONG
SIZES = [0, 1, LEAST - 1, LEAST, LEAST + 1, 3 << 20]


class Store(cm.Interface):
    @cm.method
    def same(self, data: bytes) -> bytes: ...

    @cm.method
    def second(self, number: int, data: bytes, *, word: str = "") -> tuple[int, bytes, str]: ...

    @cm.method
    def make(self, size: int) -> bytes: ...

    @cm.method
    def viewed(self, data: memoryview) -> memoryview: ...

    @cm.method
    def kept(self) -> bytes: ...

    @cm.method
    def no_bytes(self, data: str) -> None: ...

    @cm.method
    def wrong(self) -> str: ...

    @cm.method
    def inline(self, size: int) -> bool: ...


class StoreServer(Store):
    def __init__(self):
        self.view = memoryview(b"")

    def same(self, data):
        return data

    def second(self, number, data, *, word=""):
        return number, data, word

    def make(self, size):
        return bytes(range(256)) * (size >> 8) + b"x" * (size & 255)

    def viewed(self, data):
        self.view = data
        return data

    def kept(self):
        return bytes(self.view)

    def no_bytes(self, data): ...

    def wrong(self):
        return b"x" * LEAST

    def inline(self, size):
        data = self.make(size)
        return self.me.same(data) == data


@pytest.fixture
def server():
    return StoreServer()


@pytest.fixture
def lines(caplog):
    """Has calls logged, and returns the lines."""
    caplog.set_level(logging.DEBUG, "capmarshal")
    return lambda: [each.getMessage() for each in caplog.records if each.levelno == logging.DEBUG]


@pytest.fixture
def store(server):
    with cm.Entrypoint("store") as entrypoint, cm.timeout(PATIENCE):
        server.me = entrypoint.manage(server).cast(Store)
        yield server.me
        # pytest holds proxies longer than the descriptors are counted.
        cm.capability(server.me).close()


def pattern(size: int) -> bytes:
    """Bytes of which no two stretches that are cut out are alike."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


def in_one(payload):
    return payload if isinstance(payload, bytes) else payload.joined()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "given", [(), (1, "word"), (b"\xc4\x00",), ({"a": [b"", None]}, 2.5), tuple(range(20))], ids=repr
)
def test_arguments_are_what_msgpack_makes_of_them(given, size):
    """Byte for byte, whatever stands before the long one."""
    given = (*given, b"x" * size)
    payload = _long.encode_arguments(given)
    assert in_one(payload) == msgspec.msgpack.encode(given)
    assert isinstance(payload, _long.Long) == (size >= LEAST)
    assert len(payload) == len(in_one(payload))


@pytest.mark.parametrize("size", SIZES)
def test_a_result_is_what_msgpack_makes_of_it(size):
    """Byte for byte."""
    payload = _long.encode_result(b"x" * size)
    assert in_one(payload) == msgspec.msgpack.encode(b"x" * size)
    assert isinstance(payload, _long.Long) == (size >= LEAST)


def test_the_long_value_itself_is_sent():
    """The same object: that is what it is for."""
    data = b"x" * LEAST
    for payload in (_long.encode_arguments((1, data)), _long.encode_result(data)):
        assert isinstance(payload, _long.Long)
        assert payload.end is data


@pytest.mark.parametrize(
    "given",
    [(), (b"x" * LEAST, 1), {"": (1,), "data": b"x" * LEAST}, (bytearray(LEAST),), ([b"x" * LEAST],), ("x" * LEAST,)],
    ids=["nothing", "not last", "by name", "no bytes", "within another", "text"],
)
def test_what_does_not_end_in_long_bytes_is_in_one(given):
    """What may change, or is not the last."""
    assert _long.encode_arguments(given) == msgspec.msgpack.encode(given)


def test_methods_without_bytes_pay_nothing_for_it():
    """They encode as ever."""
    assert _long.encoders_for([int, str], tuple[bytes, int]) == (encode_data, encode_data)
    assert _long.encoders_for([int, bytes], bytes) == (_long.encode_arguments, _long.encode_result)


def test_what_msgpack_cannot_encode_is_refused_as_ever(store):
    """With the name of the argument, also before a long one."""
    with pytest.raises(cm.ArgumentError, match="argument `number`"):
        store.second(object(), b"x" * LEAST)


@pytest.mark.parametrize("size", SIZES)
def test_it_arrives_whole(store, size):
    """As an argument, alone and after others, and as a result."""
    data = pattern(size)
    assert store.same(data) == data
    assert store.second(7, data) == (7, data, "")
    assert store.second(7, data, word="by name") == (7, data, "by name")
    assert len(store.make(size)) == size


def test_a_call_of_the_own_thread_takes_it(store):
    """It goes through no channel."""
    assert store.inline(LEAST)


def test_it_is_checked_like_any_other(store):
    """What the annotation does not say is refused by whoever receives it."""
    with pytest.raises(cm.ArgumentError):
        store.no_bytes(b"x" * LEAST)
    with pytest.raises(cm.ArgumentError):
        store.wrong()
    assert store.same(b"") == b""


def test_a_view_of_an_argument_or_a_result_does_not_change_with_the_next(store):
    """It is of memory that nobody else is given as long as it is there, and cannot be written to."""
    first, second = b"a" * (1 << 20), b"b" * (1 << 20)
    view: Any = store.viewed(first)
    for _ in range(4):
        assert store.same(second) == second
    assert view.readonly
    assert view == first
    assert store.kept() == first


def test_the_log_of_calls_counts_all_of_it(lines, store):
    """At both sides: of a call in parts and its result, and of the result of a small call."""
    store.same(b"x" * LEAST)
    store.make(LEAST)
    head, result = 1, 5 + LEAST
    until(lambda: len(lines()) == 4)
    assert any(f"bytes: {head + result} out, {result} in" in line for line in lines())
    assert any(f"bytes: {head + result} in, {result} out" in line for line in lines())
    assert any(f"bytes: 6 out, {result} in" in line for line in lines())
    assert any(f"bytes: 6 in, {result} out" in line for line in lines())
