"""Descriptors in order: as arguments and as a result, beside data, and where they are not in order after all."""

from __future__ import annotations

import io
import os
from typing import get_type_hints

import msgspec
import pytest

import by_hand
import capmarshal as cm
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code
from capmarshal._typed.method import methods_of

PATIENCE = by_hand.PATIENCE
NO_BADGE = _wire.NO_BADGE


class Mixed(cm.Interface):
    """Descriptors and data, in many ways."""

    @cm.method
    def between(self, before: str, file: io.BufferedReader, after: list[int]) -> str: ...

    @cm.method
    def two(self, first: cm.Descriptor, second: io.BufferedReader) -> bytes: ...

    @cm.method
    def many(self, first: cm.Descriptor, files: list[cm.Descriptor], last: io.BufferedReader) -> list[bytes]: ...

    @cm.method
    def perhaps(self, file: cm.Descriptor | None, value: int = 3) -> int: ...

    @cm.method
    def default(self, file: cm.Descriptor, value: int = 3) -> int: ...

    @cm.method
    def named(self, file: cm.Descriptor, *, value: int) -> int: ...

    @cm.method
    def give(self, count: int) -> list[cm.Descriptor]: ...

    @cm.method
    def back(self, files: list[cm.Descriptor], order: list[int]) -> list[cm.Descriptor]: ...

    @cm.method
    def reader(self, file: cm.Descriptor) -> io.BufferedReader: ...


def _all_of(file):
    return os.pread(file.fileno(), 64, 0)


class MixedServer(Mixed):
    def between(self, before, file, after):
        return f"{before}{file.read().decode()}{after}"

    def two(self, first, second):
        return _all_of(first) + b"/" + second.read()

    def many(self, first, files, last):
        return [_all_of(first), *map(_all_of, files), last.read()]

    def perhaps(self, file, value=3):
        return value if file is None else value + len(_all_of(file))

    def default(self, file, value=3):
        return value + len(_all_of(file))

    def named(self, file, *, value):
        return value + len(_all_of(file))

    def give(self, count):
        return [_file(b"%d" % each).detached() for each in range(count)]

    def back(self, files, order):
        return [files[place] for place in order]

    def reader(self, file):
        return cm.Descriptor.dup_of(file).open()


class _File:
    """A file of the machine's own, with a text in it."""

    def __init__(self, text):
        self.file = os.memfd_create("in order")
        os.pwrite(self.file, text, 0)

    def detached(self):
        return cm.Descriptor(self.file)


_file = _File


@pytest.fixture
def served():
    """served(): an entrypoint."""
    held = [cm.Entrypoint("in order")]
    with held[0], cm.timeout(PATIENCE):
        yield lambda: held[0]
    # pytest holds what a fixture gave until after the descriptors are counted.
    held.clear()


@pytest.fixture
def mixed(served):
    """A proxy of the server."""
    proxy = served().manage(MixedServer()).cast(Mixed)
    yield proxy
    cm.capability(proxy).close()


@pytest.fixture
def lent():
    """lent(text): a descriptor of a file with that in it."""
    made = []

    def make(text):
        made.append(_file(text).detached())
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_which_methods_may_have_them_in_order():
    """Told by the annotations alone; whatever else is, goes by a table."""
    methods = methods_of(Mixed)
    assert {name for name, method in methods.items() if method.arguments_in_order is None} == {
        b"named",
        b"give",
    }
    assert {name for name, method in methods.items() if method.result_in_order is not None} == {
        b"give",
        b"back",
        b"reader",
    }
    assert get_type_hints(Mixed.give)["count"] is int


def test_each_arrives_where_it_was_passed(mixed, lent):
    """Beside data, in lists, as files; a reader where a descriptor is due, and the other way round."""
    for _ in range(2):
        with lent(b"text").dup().open() as file:
            assert mixed.between("<", file, [1, 2]) == "<text[1, 2]"
            file.seek(2)
            assert mixed.two(lent(b"first"), file) == b"first/xt"
            file.seek(0)
            assert mixed.two(file, lent(b"second")) == b"text/second"
            files = [lent(b"%d" % each) for each in range(5)]
            assert mixed.many(lent(b"a"), files, lent(b"z")) == [b"a", b"0", b"1", b"2", b"3", b"4", b"z"]
            assert mixed.many(lent(b"a"), [], lent(b"z")) == [b"a", b"z"]


def test_what_is_not_given_or_given_by_name_goes_by_a_table(mixed, lent):
    """It arrives all the same."""
    file = lent(b"12345")
    for _ in range(2):
        assert [mixed.perhaps(None), mixed.perhaps(file), mixed.perhaps(file, 1)] == [3, 8, 6]
        assert [mixed.default(file), mixed.default(file, 1), mixed.default(value=2, file=file)] == [8, 6, 7]
        assert mixed.named(file, value=1) == 6


def test_results_in_any_order(mixed, lent):
    """Arguments among them, all of them or some; the same one twice; none."""
    files = [lent(b"%d" % each) for each in range(4)]
    for order in ([0, 1, 2, 3], [3, 1], [2, 2], []):
        back = mixed.back(files, order)
        assert [_all_of(each) for each in back] == [b"%d" % place for place in order]
        for each in back:
            each.close()
    with mixed.reader(files[3]) as file:
        assert file.read() == b"3"


@pytest.mark.parametrize("count", [0, 1, 253, 254, 600])
def test_as_many_as_there_are(mixed, count):
    """In one record and in parts."""
    for _ in range(2):
        given = mixed.give(count)
        assert [_all_of(each) for each in given] == [b"%d" % each for each in range(count)]
        back = mixed.back(given, [*range(count)][::-1])
        assert [_all_of(each) for each in back] == [b"%d" % each for each in range(count)][::-1]
        for each in [*given, *back]:
            each.close()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda proxy, file: proxy.two(1, file),
        lambda proxy, file: proxy.two(file, "path"),
        lambda proxy, file: proxy.between(file, file, [1]),
        lambda proxy, file: proxy.between("", file, [file]),
        lambda proxy, file: proxy.many(file, [1], file),
        lambda proxy, file: proxy.many(file, file, file),
    ],
)
def test_what_does_not_fit_is_refused_by_name_before_anything_is_sent(mixed, lent, wrong):
    """As everywhere: the error names the parameter."""
    with pytest.raises(cm.ArgumentError, match=r"argument `(first|second|before|after|files)`"):
        wrong(mixed, lent(b""))


PLAIN = [(0, NO_BADGE), (1, NO_BADGE)]


@pytest.mark.parametrize(
    ("method", "payload", "entries"),
    [
        (b"two", [1, 0], PLAIN),
        (b"two", [1, 0], PLAIN[::-1]),
        (b"two", [0, 1], PLAIN[::-1]),
    ],
    ids=["indices", "both", "table"],
)
def test_another_order_is_the_senders_own(served, lent, method, payload, entries):
    """A peer may have its table, or its indices, in any order: each is what it says."""
    capability = served().manage(MixedServer())
    with by_hand.knock(capability) as near:
        files = [lent(b"0"), lent(b"1")]
        record = by_hand.call(
            capability, method=method, payload=msgspec.msgpack.encode(payload), entries=entries, descriptors=2
        )
        by_hand.send(near, record, [each.fileno() for each in files])
        reply, _ = by_hand.answer(near)
        first, second = (entries[index][0] for index in payload)
        assert msgspec.msgpack.decode(reply.payload) == b"%d/%d" % (first, second)
    capability.close()


@pytest.mark.parametrize(
    "payload",
    [
        b"\x92\x00\x00",
        b"\x92\x00\x02",
        b"\x92\x00\xff",
        b"\x92\x00\xc3",
        b"\x92\x00\xca\x3f\x80\x00\x00",
        b"\x91\x00",
        b"\x93\x00\x01\x02",
        b"\x92\x00",
        b"\x92\x00\x01\x00",
        b"",
        b"\x00",
    ],
    ids=["twice", "past the end", "-1", "True", "1.0", "too few", "too many", "cut", "more", "empty", "no array"],
)
def test_indices_that_are_not_theirs_are_a_bad_argument(served, payload):
    """Both descriptors are closed, and the channel lives."""
    capability = served().manage(MixedServer())
    with by_hand.knock(capability) as near, by_hand.pipe() as (reader, writer):
        record = by_hand.call(capability, method=b"two", payload=payload, entries=PLAIN, descriptors=2)
        by_hand.send(near, record, [writer.fileno()] * 2)
        assert by_hand.failure(near) is Code.ARGUMENT
        writer.close()
        by_hand.at_end(reader)
    capability.close()


@pytest.mark.parametrize("name", [b"two", b"no such method", b"between"])
def test_what_came_for_nobody_is_closed(served, name):
    """An object that is gone, a method that is none, another one's arguments."""
    target = MixedServer()
    capability = served().manage(target)
    with by_hand.knock(capability) as near:
        for gone in (False, True):
            with by_hand.pipe() as (reader, writer):
                payload = b"\x92\x00\x00"
                record = by_hand.call(capability, method=name, payload=payload, entries=PLAIN, descriptors=2)
                by_hand.send(near, record, [writer.fileno()] * 2)
                expected = Code.UNKNOWN_METHOD if name == b"no such method" else Code.ARGUMENT
                assert by_hand.failure(near) is (Code.STALE if gone else expected)
                writer.close()
                by_hand.at_end(reader)
            if not gone:
                served().dissolve(target)
    capability.close()


@pytest.mark.parametrize("kind", ["pipe", "directory", "write only", "neither"])
def test_a_reader_of_what_is_no_file_of_ours(mixed, lent, tmp_path, kind):
    """A pipe is read from; what is not to be read is refused by name, and closed."""
    with by_hand.pipe() as (reader, writer):
        if kind == "pipe":
            writer.write(b"piped")
            writer.close()
            assert mixed.two(lent(b"first"), reader) == b"first/piped"
            return
        # The access mode 3 is for ioctl(2) alone.
        flags = {"directory": os.O_DIRECTORY, "write only": os.O_WRONLY | os.O_TMPFILE, "neither": os.O_ACCMODE}[kind]
        with cm.Descriptor(os.open(os.devnull if kind == "neither" else tmp_path, flags)) as wrong:
            for _ in range(2):
                with pytest.raises(cm.ArgumentError, match=r"a file .*due.*`second`"):
                    mixed.two(lent(b"first"), wrong)
