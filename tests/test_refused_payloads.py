"""What is refused is decoded no more often than it takes to say why: whoever sends it stops a server, or a client."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
from typing import Any

import msgspec
import pytest

import capmarshal as cm
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._typed.codec import LONG
from capmarshal._typed.incoming import Incoming
from capmarshal._typed.method import Method
from patience import PATIENCE

FEW, MANY = 3, LONG // 8


@dataclasses.dataclass
class Counted:
    """A class of the application's: how many of it were made says how often a payload was decoded."""

    error: str = ""
    made = 0

    def __post_init__(self):
        Counted.made += 1
        if self.error:
            raise {"ValueError": ValueError, "KeyError": KeyError}[self.error]("no")


class Loose(cm.Interface):
    """What the sender believes."""

    @cm.method
    def take(self, many: list[Any]) -> int: ...
    @cm.method
    def named(self, *, many: list[Any]) -> int: ...
    @cm.method
    def some(self, many: list[Any], other: int = 0) -> int: ...
    @cm.method
    def filed(self, file: io.BufferedReader, many: list[Any]) -> int: ...
    @cm.method
    def give(self, many: list[Any]) -> list[Any]: ...
    @cm.method
    def open(self, before: bytes, path: str) -> None: ...


class Strict(cm.Interface):
    """What the receiver takes."""

    @cm.method
    def take(self, many: list[Counted]) -> int: ...
    @cm.method
    def named(self, *, many: list[Counted]) -> int: ...
    @cm.method
    def some(self, many: list[Counted], other: int = 0) -> int: ...
    @cm.method
    def filed(self, file: io.BufferedReader, many: list[Counted]) -> int: ...
    @cm.method
    def give(self, many: list[Any]) -> list[Counted]: ...
    @cm.method
    @cm.raises(OSError)
    def open(self, before: bytes, path: str) -> None: ...


class Server:
    def take(self, many):
        return len(many)

    def named(self, *, many):
        return len(many)

    def some(self, many, other=0):
        return len(many)

    def filed(self, file, many):
        return len(many)

    def give(self, many):
        return many

    def open(self, before, path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


class StrictServer(Server, Strict):
    pass


class LooseServer(Server, Loose):
    pass


@contextlib.contextmanager
def serving(server, interface):
    """A proxy of an interface, whatever its server's own is."""
    with cm.Entrypoint("counting") as entrypoint, cm.timeout(PATIENCE):
        Counted.made = 0
        yield entrypoint.manage(server).cast(interface)


GOOD, BAD = {"error": ""}, {"error": 1}


def good(count):
    return [GOOD] * count


CALLS = {
    "by position": lambda proxy, many: proxy.take(many),
    "by name": lambda proxy, many: proxy.named(many=many),
    "with a default": lambda proxy, many: proxy.some(many),
}


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("how", CALLS)
def test_what_has_the_wrong_type_is_decoded_once(how, count):
    """Of any size: the error of the first decoding names the parameter, the place and the type."""
    with serving(StrictServer(), Loose) as proxy:
        with pytest.raises(cm.ArgumentError, match=rf"Expected `str`, got `int` - at `many\[{count}\].error`$"):
            CALLS[how](proxy, [*good(count), BAD])
        assert Counted.made == count


@pytest.mark.parametrize("error", ["ValueError", "KeyError"])
@pytest.mark.parametrize(("count", "most"), [(FEW, 2), (MANY, 1)])
@pytest.mark.parametrize("how", CALLS)
def test_what_a_class_of_the_application_refuses_is_decoded_twice_at_most_and_once_where_it_is_long(
    how, count, most, error, caplog
):
    """A signal handler may have raised it; and the error says what it was, as ever."""
    words = {"ValueError": rf"no - at `many\[{count}\]`$", "KeyError": "KeyError"}
    with serving(StrictServer(), Loose) as proxy:
        with pytest.raises(cm.ArgumentError, match=words[error]):
            CALLS[how](proxy, [*good(count), {"error": error}])
        assert Counted.made <= most * (count + 1)
    # Records that pytest keeps would keep what is in their tracebacks.
    caplog.clear()


@pytest.mark.parametrize("last", [GOOD, BAD])
@pytest.mark.parametrize(("count", "most"), [(FEW, 2), (MANY, 1)])
def test_what_comes_beside_a_descriptor_is_decoded_twice_at_most_and_once_where_it_is_long(count, most, last, tmp_path):
    """Good or not."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    with serving(StrictServer(), Loose) as proxy, path.open("rb") as file:
        expected = pytest.raises(cm.ArgumentError, match=rf"at `many\[{count}\].error`$") if last == BAD else None
        with expected or contextlib.nullcontext():
            assert proxy.filed(file, [*good(count), last]) == count + 1
        assert Counted.made <= most * (count + 1)


@pytest.mark.parametrize("count", [FEW, MANY])
def test_a_result_of_the_wrong_type_is_decoded_once(count):
    """So no server stops the event loop of a client for longer than its good answers do."""
    with serving(LooseServer(), Strict) as proxy:
        with pytest.raises(cm.ArgumentError, match=rf"Expected `str`, got `int` - at `\$\[{count}\].error`") as caught:
            proxy.give([*good(count), BAD])
        assert Counted.made == count
        assert "the server returned it, where the interface here says something else" in caught.value.__notes__


@pytest.mark.parametrize(("count", "most"), [(FEW, 2), (MANY, 1)])
def test_a_result_that_a_class_of_the_application_refuses_is_decoded_twice_at_most_and_once_where_it_is_long(
    count, most
):
    with serving(LooseServer(), Strict) as proxy:
        with pytest.raises(cm.ArgumentError, match=rf"no - at `\$\[{count}\]`"):
            proxy.give([*good(count), {"error": "ValueError"}])
        assert Counted.made <= most * (count + 1)


def test_names_without_number_are_not_made_objects():
    """They are counted first: a method that takes nothing costs no more than it does."""
    method = Method(Strict, "named", Strict.named)
    for count in (10, 1_000_000):
        names: dict[str, Any] = {f"{number:06}": None for number in range(count)}
        words = f"{count} came by name, and the server knows 1" if count > 10 else "knows no parameter '000000'"
        with pytest.raises(cm.ArgumentError, match=words):
            method.decode_arguments(msgspec.msgpack.encode(names), Incoming([], DescriptorList()))


@pytest.mark.parametrize("size", [0, LONG])
def test_a_path_that_comes_late_in_a_long_call_is_not_looked_for(size):
    """The error is as ever, but for the path: to learn whether that is the caller's, no long payload is read again."""
    with serving(StrictServer(), Strict) as proxy, pytest.raises(FileNotFoundError) as caught:
        proxy.open(bytes(size), "no-such-file")
    assert caught.value.filename == (None if size else "no-such-file")
