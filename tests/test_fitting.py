"""What is passed where something else is due: refused before anything is sent, with the way out."""

import dataclasses
import io
import os
import pathlib
import re

import pytest

import capmarshal as cm
from capmarshal._typed.fitting import check_data
from patience import PATIENCE


class Thing(cm.Interface):
    @cm.method
    def name(self) -> str: ...


class ThingServer(Thing):
    def name(self) -> str:
        return "thing"


class Taker(cm.Interface):
    @cm.method
    def data(self, number: int, words: list[str]) -> None: ...
    @cm.method
    def read(self, file: io.BufferedReader, offset: int = 0, *, other: cm.Descriptor | None = None) -> bytes: ...
    @cm.method
    def hold(self, thing: Thing, also: cm.Capability | None = None) -> str: ...
    @cm.method
    def mixed(self, file: cm.Descriptor, all: dict[str, cm.Descriptor], number: int) -> None: ...
    @cm.method
    def give(self, what: str) -> cm.Descriptor: ...
    @cm.method
    def count(self, what: str) -> int: ...


class TakerServer(Taker):
    def data(self, number, words):
        pass

    def read(self, file, offset=0, *, other=None):
        file.seek(offset)
        return file.read()

    def hold(self, thing, also=None):
        return thing.name()

    def mixed(self, file, all, number):
        pass

    def give(self, what):
        return {"int": 5, "str": "/etc/passwd", "bytes io": io.BytesIO()}[what]

    def count(self, what):
        return open(os.devnull, "rb")


@pytest.fixture
def taker():
    with cm.Entrypoint("taker") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(TakerServer()).cast(Taker)
        yield proxy
        cm.capability(proxy).close()


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with open(tmp_path / "file", "rb") as opened:
        yield opened


def test_what_is_due_is_taken(taker, file):
    """Each thing in its place, None where that may be."""
    assert taker.read(file, 4) == b"456789"
    assert taker.read(file, other=None) == b"0123456789"
    file.seek(0)
    with cm.Descriptor.dup_of(file) as other:
        assert taker.read(file, offset=9, other=other) == b"9"
    with cm.Entrypoint("thing") as entrypoint:
        thing = ThingServer()
        capability = entrypoint.manage(thing)
        for one in (thing, capability, capability.cast(Thing)):
            assert taker.hold(one) == taker.hold(one, one) == taker.hold(one, None) == "thing"


class Pending:
    """What gives a result when it is awaited."""

    def __await__(self):
        yield


A_FILE = "where io.BufferedReader is due: "
WRONG = {
    "int for a file": (lambda p, f: p.read(5), "file", f"an int {A_FILE}.*Descriptor.dup_of"),
    "str for a file": (lambda p, f: p.read("/etc/passwd"), "file", rf"a str {A_FILE}.*open\(path, \"rb\"\)"),
    "path": (lambda p, f: p.read(pathlib.Path("/x")), "file", f".*{A_FILE}open it"),
    "None": (lambda p, f: p.read(None), "file", rf"None {A_FILE}where .* annotated io\.BufferedReader \| None$"),
    "swapped": (lambda p, f: p.read(0, f), "file", f"an int {A_FILE}"),
    "file for an int": (lambda p, f: p.read(f, f), "offset", "an io.BufferedReader where int is due"),
    "by name": (lambda p, f: p.read(f, other=7), "other", "an int where capmarshal.Descriptor is due"),
    "file for data": (lambda p, f: p.data(f, []), "number", "an io.BufferedReader where int is due"),
    "file in data": (lambda p, f: p.data(1, [f]), "words", r".*within what is data, where list\[str\] is due"),
    "object for data": (lambda p, f: p.data(object(), []), "number", "`object` objects cannot be sent"),
    "forgotten await": (
        lambda p, f: p.data(Pending(), []),
        "number",
        r".*Pending` objects .*: await it for what it gives",
    ),
    "forgotten await of a file": (
        lambda p, f: p.read(Pending()),
        "file",
        rf".*Pending {A_FILE}await it for what it gives",
    ),
    "int for an interface": (lambda p, f: p.hold(3), "thing", "an int where .*Thing is due: pass a proxy"),
    "file for an interface": (lambda p, f: p.hold(f), "thing", "an io.BufferedReader where .*Thing is due"),
    "unmanaged": (lambda p, f: p.hold(ThingServer()), "thing", ".*not managed.*manage"),
    "class": (lambda p, f: p.hold(ThingServer), "thing", "the class .*ThingServer where .*Thing is due"),
    "None for an interface": (
        lambda p, f: p.hold(None),
        "thing",
        r"None where .* annotated .*Thing \| None$",
    ),
    "proxy for a file": (lambda p, f: p.read(p), "file", f"a proxy of .*Taker {A_FILE}"),
    "capability for a file": (lambda p, f: p.read(cm.capability(p)), "file", f"a capmarshal.Capability {A_FILE}"),
    "beside a mixed one": (lambda p, f: p.mixed(f, {}, f), "number", "an io.BufferedReader where int is due"),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_not_due_is_refused_before_anything_is_sent(taker, file, how):
    """With method and parameter, and the way out; and the next call works."""
    call, parameter, words = WRONG[how]
    with pytest.raises(cm.ArgumentError, match=rf"^Taker\.\w+, argument `{parameter}`: {words}"):
        call(taker, file)
    assert taker.read(file) == b"0123456789"


@pytest.mark.parametrize("thing", [1, "x", None], ids=repr)
def test_what_stands_for_no_capability(thing):
    """Said with its article, and what to pass."""
    words = {1: "an int", "x": "a str", None: "a NoneType"}[thing]
    with pytest.raises(TypeError, match=f"^{words} stands for no capability: pass a proxy, or an object that an entry"):
        cm.capability(thing)


@dataclasses.dataclass
class Job:
    number: int
    file: cm.Descriptor


class Placed(cm.Interface):
    @cm.method
    def pair(self, pair: tuple[int, cm.Descriptor]) -> int: ...
    @cm.method
    def record(self, job: Job) -> int: ...
    @cm.method
    def some(self, things: list[Thing], files: list[cm.Descriptor | None] = []) -> int: ...  # noqa: B006
    @cm.method
    def by_file(self, names: dict[cm.Descriptor, int]) -> int: ...
    @cm.method
    def give(self, what: str) -> tuple[int, cm.Descriptor]: ...


class PlacedServer(Placed):
    def pair(self, pair):
        return pair[0]

    def record(self, job):
        return job.number

    def some(self, things, files=()):
        return len(things) + len(files)

    def by_file(self, names):
        return sum(names.values())

    def give(self, what):
        file = cm.Descriptor(os.memfd_create("given"))
        return {"right": (7, file), "swapped": (file, 0)}[what]


@pytest.fixture
def placed():
    with cm.Entrypoint("placed") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(PlacedServer()).cast(Placed)
        yield proxy
        cm.capability(proxy).close()


def test_what_is_due_within_other_things_is_taken(placed, file):
    """In tuples, records, lists and as keys."""
    with cm.Descriptor.dup_of(file) as one, cm.Descriptor.dup_of(file) as other:
        assert placed.pair((7, one)) == placed.record(Job(7, one)) == 7
        assert placed.some([], [one, None, other]) == 3
        assert placed.by_file({one: 1, other: 2}) == 3
        number, given = placed.give("right")
        given.close()
        assert number == 7


A_THING = "a file, socket or capability"
MISPLACED = {
    "tuple": (lambda p, f: p.pair((f, 0)), f"`pair`: Expected `int`, got {A_THING} - at `pair\\[0\\]`"),
    "record": (lambda p, f: p.record(Job(f, 0)), f"`job`: Expected `int`, got {A_THING} - at `job.number`"),
    "path": (lambda p, f: p.pair((0, "/x")), f"`pair`: Expected {A_THING}, got `str` - at `pair\\[1\\]`"),
    "list": (lambda p, f: p.some([5]), f"`things`: Expected {A_THING}, got `int` - at `things\\[0\\]`"),
    "alone": (lambda p, f: p.some([], f), f"`files`: Expected `array`, got {A_THING}$"),
    "object": (lambda p, f: p.some([object()]), "`things`: `object` objects cannot be sent"),
    "second": (
        lambda p, f: p.some([], [f, 0]),
        f"`files`: Expected {A_THING}, or None, got `int` - at `files\\[1\\]`$",
    ),
}


@pytest.mark.parametrize("how", MISPLACED)
def test_what_is_not_due_within_other_things_is_refused_by_its_place(placed, file, how):
    """Before anything is sent: in a payload it would be an int among ints."""
    call, words = MISPLACED[how]
    with pytest.raises(cm.ArgumentError, match=rf"^Placed\.\w+, argument {words}"):
        call(placed, file)
    assert placed.some([]) == 0


def test_a_result_with_things_in_each_others_places_is_the_servers_error(placed, quiet_log):
    """And what it owned is closed."""
    with pytest.raises(cm.RemoteError, match=rf"Placed\.give, result: Expected `int`, got {A_THING}"):
        placed.give("swapped")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("int", "an int where capmarshal.Descriptor is due"),
        ("str", "a str where capmarshal.Descriptor is due"),
        ("bytes io", "has no descriptor"),
    ],
)
def test_results_are_checked_by_their_sender_too(taker, what, words, quiet_log):
    """It is the server's own error, which its caller hears of."""
    with pytest.raises(cm.RemoteError, match=rf"Taker\.give, result: .*{re.escape(words)}"):
        taker.give(what)
    with pytest.raises(cm.RemoteError, match=r"Taker\.count, result: an io.BufferedReader where int is due"):
        taker.count(what)


def test_a_file_within_what_is_data_is_refused_untouched(tmp_path):
    """It is not flushed for that: a result is looked at in the thread that serves others, and a flush may block."""
    with open(tmp_path / "file", "wb") as file:
        file.write(b"pending")
        for value in (file, [file], {"a": (file,)}):
            with pytest.raises(TypeError, match=r"where list\[int\] is due"):
                check_data(value, list[int])
        assert (tmp_path / "file").read_bytes() == b""
