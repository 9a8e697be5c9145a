"""``capmarshal describe``: what it shows of a service, whoever that is, and its exit status."""

import json
import os
import struct
import subprocess

import msgspec
import pytest

import by_hand
import capmarshal as cm
import commands
import services
from capmarshal._describe.arguments import Arguments, BadArgument
from capmarshal._describe.asking import MOST
from capmarshal._describe.candidates import _of_method as completed
from capmarshal._describe.schemas import CannotBeCalled, shown
from capmarshal._describe.words import lines_of, signature
from capmarshal._protocol import wire
from capmarshal._typed.describing import described
from capmarshal._typed.description import Description
from desk import Desk, DeskServer
from patience import PATIENCE

SHOWN = """\
interface Box
    Keeps one thing.

    kept() -> str
        What was added last.

interface Desk
    Where things are left.

    And taken.

    add(line: str, times: int = 1, *, when: datetime | None = None) -> int
        Adds a line; how many there are.

        Not twice.
        raises KeyError, OSError

    nothing() -> None
"""
RECORD = """
record Point
    A place.
    x: int
    y: float = 2.0
    raw: bytes = b''

Colour = 'blue' | 'red'
"""


@pytest.mark.parametrize("kind", ["blocking", "awaitable"])
def test_it_shows_what_a_service_offers(place, kind):
    """Of both colours, through real processes."""
    with commands.desk_served(place, kind):
        status, out, err = commands.run("describe", place)
    assert (status, err) == (0, "")
    if kind == "blocking":
        assert out.startswith(SHOWN)
        assert RECORD in out
        assert "digest(file: io.BufferedReader, /, salt: bytes = b'') -> bytes" in out
        assert "upper(lines: Iterator[str]) -> Iterator[str]" in out
    else:
        assert out.startswith("interface AwaitedDesk\n    The same, awaited.\n")
        assert "double(value: int) -> int\n        Twice as much.\n" in out


def test_it_is_json_for_programs(place, capfd):
    """The description as it came."""
    with services.serving(place, DeskServer()):
        status, out, _ = commands.here(capfd, "describe", "--json", place)
    assert status == 0
    said = json.loads(out)
    assert said == json.loads(msgspec.json.encode(of_class(DeskServer)))
    assert said["methods"][1]["parameters"][0] == {"name": "line", "schema": {"type": "string"}}


def of_class(cls):
    return msgspec.msgpack.decode(described(cls, None), type=Description)


def test_a_grant_shows_what_it_lets_call(place, capfd):
    with cm.Entrypoint("service") as entrypoint:
        entrypoint.listen(place, entrypoint.grant(DeskServer(), label="one", only=(Desk.nothing,)))
        assert commands.here(capfd, "describe", place) == (
            0,
            "interface Desk\n    Where things are left.\n\n    And taken.\n\n    nothing() -> None\n",
            "",
        )


def test_a_service_that_says_nothing(place, capfd):
    """It is plain why."""
    with cm.Entrypoint("silent", describe=False) as entrypoint:
        entrypoint.listen(place, DeskServer())
        status, out, err = commands.here(capfd, "describe", place)
    assert (status, out) == (1, "")
    assert err == f"capmarshal: {place}: entrypoint 'silent' does not say what can be called (describe=False)\n"


def test_one_that_forwards_and_says_nothing(place, capfd):
    """By a grant that lets some of it be called only; it is not told to be old."""

    class Passing(cm.Forwarder):
        def forward(self, call):
            raise RuntimeError("nobody calls")

    with cm.Entrypoint("service") as entrypoint:
        entrypoint.listen(place, entrypoint.grant(Passing(), label="some", only=(Desk.nothing,)))
        status, out, err = commands.here(capfd, "describe", place)
    assert (status, out) == (1, "")
    said = "what forwards calls, and by this grant some only (only=...), does not say which"
    assert err == f"capmarshal: {place}: {said}\n"


def test_an_older_service(place, capfd, monkeypatch):
    monkeypatch.setattr("capmarshal._server.call_arguments.DESCRIBE", b"never asked")
    with services.serving(place, DeskServer()):
        status, out, err = commands.here(capfd, "describe", place)
    assert (status, out) == (1, "")
    assert "it is not said what can be called: its capmarshal is older than that (" in err
    assert err.count("what can be called") == 1


def test_nobody_is_there(place, capfd):
    """A path of nobody's, of something else, of nothing; and a service that does not let this process in."""
    status, _, err = commands.here(capfd, "describe", place)
    assert status == 3
    assert err.startswith(f"capmarshal: connecting to '{place}': there is no such file")
    assert commands.here(capfd, "describe", place.parent)[0] == 3
    assert commands.here(capfd, "describe", "")[0] == 2
    with services.serving(place, for_client=lambda _: None):
        assert commands.here(capfd, "describe", place)[0] == 3


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "x"])
def test_a_time_to_wait_is_more_than_none(place, capfd, seconds):
    status, _, err = commands.here(capfd, "describe", "--timeout", seconds, place)
    assert status == 2
    assert f"'{seconds}' is no number of seconds, more than 0" in err


def test_nothing_that_a_terminal_obeys_is_shown(place, capfd):
    """Wherever a server says it; in JSON it is the same text all the same."""
    said = json.loads(msgspec.json.encode(of_class(DeskServer)))
    for words in (said["interfaces"][0], said["methods"][0], said["methods"][1]["parameters"][0]):
        words["name"] = commands.HOSTILE
    said["methods"][2] |= {
        "doc": f"{commands.HOSTILE}\n{commands.HOSTILE}",
        "raises": [commands.HOSTILE],
        "result": {"type": commands.HOSTILE},
    }
    said["methods"][3]["parameters"][0]["schema"] = {
        "title": commands.HOSTILE,
        "enum": [commands.HOSTILE],
        "format": commands.HOSTILE,
    }
    said["definitions"] = {
        commands.HOSTILE: {
            "title": commands.HOSTILE,
            "description": commands.HOSTILE,
            "properties": {commands.HOSTILE: {}},
        }
    }
    payload = msgspec.msgpack.encode(said)
    for words in ((), ("--json",)):
        with commands.hostile(place, payload):
            status, out, err = commands.here(capfd, "describe", *words, place)
        assert (status, err) == (0, "")
        assert all(line.isprintable() for line in out.splitlines()), ascii(out)
        if words:
            assert json.loads(out)["methods"][0]["name"] == commands.HOSTILE


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x80",
        b"\xc1",
        msgspec.msgpack.encode({"interfaces": 1, "methods": []}),
        msgspec.msgpack.encode({"interfaces": [], "methods": [{"name": "x"}]}),
        b"\x91" * 100_000,
        msgspec.msgpack.encode({"interfaces": [], "methods": [], "definitions": {}, "more": "x" * 2000}) + b"\x00",
    ],
)
def test_what_is_no_description(place, capfd, payload):
    """It is said in a line, whatever came."""
    with commands.hostile(place, payload):
        status, out, err = commands.here(capfd, "describe", place)
    assert (status, out) == (3, "")
    assert "cannot be understood" in err
    assert err.count("\n") == 1


ODD = [None, 3, "x", [3], {"x": 3}, [None], [{}], [], {}, True]
WORDS = [
    *("$ref", "anyOf", "enum", "type", "format", "contentEncoding", "items", "prefixItems", "minItems", "uniqueItems"),
    *("properties", "required", "additionalProperties", "discriminator", "description", "default", "title"),
    *("x-capmarshal", "x-capmarshal-keys"),
]


@pytest.mark.parametrize("word", WORDS)
def test_a_schema_that_is_none(capfd, monkeypatch, word):
    """Each of its words may be anything: it is shown, or cannot be understood; called, or cannot be."""
    kinds = [{}, {"type": "array"}, {"type": "object"}, {"type": "object", "properties": {"f": {}, "g": 3}}]
    for kind in (*kinds, {"type": "string"}, {"anyOf": [{"$ref": "#/$defs/T"}]}):
        for odd in ODD:
            schema = kind | {word: odd}
            method = {
                "name": "add",
                "interface": "I",
                "parameters": [{"name": "p", "schema": schema}],
                "result": schema,
            }
            said = {"interfaces": [{"name": "I"}], "methods": [method], "definitions": {"T": schema}}
            made = msgspec.convert(said, Description)
            monkeypatch.setattr("capmarshal._describe.running.connect", lambda _: None)
            monkeypatch.setattr("capmarshal._describe.running.description_of", lambda _, made=made: made)
            status, out, err = commands.here(capfd, "describe", "path")
            understood = status == 0 and not err and out
            assert understood or (status == 3 and not out and "cannot be understood" in err), (schema, err)
            assert signature(made.methods[0], made.definitions).startswith("add(p: ")
            assert all(isinstance(each, str) for each in completed(made.methods[0], made.definitions, [], ""))
            try:
                Arguments(made.methods[0], made.definitions, ["1"]).make()
            except (BadArgument, CannotBeCalled) as error:
                assert str(error)


def test_a_type_of_no_values_is_shown():
    assert shown({"enum": []}, {}) == shown({"anyOf": []}, {}) == "Never"


@pytest.mark.parametrize(
    ("values", "inline", "defined"),
    [
        (["a", 1], "'a' | 1", "'a' | 1"),
        (["x" * 100, "y" * 100], f"'{'x' * 100}' | '{'y' * 100}'", f"'{'x' * 100}' | '{'y' * 100}'"),
        ([*range(1000)], "58 | ... (941 more)", "184 | ... (815 more)"),
        (["x" * 500], "... (1 more)", "... (1 more)"),
    ],
    ids=["few", "long", "many", "too long"],
)
def test_values_are_listed_whole(values, inline, defined):
    """As many as people read, and how many more there are; more of them where they have a line of their own."""
    said = shown({"enum": values}, {})
    assert said.endswith(inline)
    assert len(said) <= 300
    method = {"name": "add", "interface": "I", "parameters": [], "result": {}}
    made = {"interfaces": [], "methods": [method], "definitions": {"T": {"title": "Kind", "enum": values}}}
    *_, line = lines_of(msgspec.convert(made, Description))
    assert line.startswith("Kind = ")
    assert line.endswith(defined)


def test_more_than_people_read_is_refused(place, capfd):
    with services.serving(place, Talkative()):
        status, out, err = commands.here(capfd, "describe", place)
    assert (status, out) == (3, "")
    assert "bytes, and may have 1048576" in err


def test_more_than_people_read_is_refused_before_it_comes(place, capfd):
    """As soon as its size is announced: nothing of it is kept in memory, or waited for."""

    def announced(number):
        return by_hand.reply(number, struct.pack("=QI", MOST + 1, 0), kind=wire.BEGIN)

    with commands.hostile(place, announced):
        status, out, err = commands.here(capfd, "describe", place)
    assert (status, out) == (3, "")
    assert err == f"capmarshal: what the entrypoint says of its object has {MOST + 1} bytes, and may have {MOST}\n"


class Talking(cm.Interface):
    @cm.method
    def talk(self) -> None: ...


Talking.talk.__doc__ = "x" * (1 << 20)


class Talkative(Talking):
    def talk(self):
        pass


def test_a_service_that_never_answers_is_not_waited_for(place, capfd):
    """It is a server that nobody serves: what it hands over is there, and no call is answered."""
    with by_hand.Impostor() as impostor, services.serving(place, impostor.capability):
        status, out, _ = commands.here(capfd, "describe", "--timeout", "0.05", place)
    assert (status, out) == (3, "")


def test_a_reader_that_has_gone_is_no_error(place):
    """As of any command whose output is cut: no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    with services.serving(place, DeskServer()), open(writing, "wb") as output:
        with subprocess.Popen(
            [*commands.COMMAND, "describe", str(place)], stdout=output, stderr=subprocess.PIPE
        ) as process:
            _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, b"")


def test_lines_are_of_a_description_alone():
    """Of an object without methods there is nothing to show."""
    assert list(lines_of(Description((), ()))) == []
