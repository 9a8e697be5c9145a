"""``capmarshal call``: a call from a shell, whoever serves it; and its exit status."""

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import by_hand
import capmarshal as cm
import commands
import services
from capmarshal.__main__ import main
from capmarshal._describe.results import Writer
from capmarshal._describe.schemas import Types
from capmarshal._descriptors import reaper
from capmarshal._typed.describing import described
from desk import Desk, DeskServer
from patience import PATIENCE, until
from waiting_thread import process_receives


@pytest.fixture
def desk(place):
    """The path of a desk that this process serves, beside which a file lies."""
    (place.parent / "file").write_bytes(b"of a file")
    with services.serving(place, DeskServer()):
        yield place


CALLS = [
    # Text is itself, all else is JSON, and the result is.
    (["add", "a line"], "1"),
    (["add", '"5"', "3"], "3"),
    (["add", "5", "times=2"], "2"),
    (["add", "times=2", "line=line=x"], "2"),
    (["add", "x", "when=2026-01-02T03:04:05Z"], "2026"),
    # Whatever it looks like: each word behind the method is an argument.
    (["text_or", "--", '"--"'], '["--","--"]'),
    (["text_or", "--help", '"--output"'], '["--help","--output"]'),
    (["add", "--"], "1"),
    (["add", "--", "3"], "3"),
    (["add", "--help"], "1"),
    (["nothing"], ""),
    (["echo", "null"], "null"),
    (["echo", '{"a": [1, 2.5, "x", true]}'], '{"a":[1,2.5,"x",true]}'),
    (["echo", "-5"], "-5"),
    (["text_or", "null"], "[null,5]"),
    (["text_or", '"null"', "seven"], '["null","seven"]'),
    (["text_or", "nul", "7"], '["nul",7]'),
    # Bytes are base64, or of a file.
    (["digest", "@file", "aGk="], '"aGlvZiBhIGZpbGU="'),
    (["digest", "@file", "@file"], '"b2YgYSBmaWxlb2YgYSBmaWxl"'),
    (["digest", "file=@file"], '"b2YgYSBmaWxl"'),
    (["save", "@>new", "text"], "4"),
    (["size", "@file"], "9"),
    (["point", '{"x": 1}'], '{"x":2,"y":2.0,"raw":"cmVk"}'),
    (["point", '{"x": 1, "raw": "aGk="}', "blue"], '{"x":2,"y":2.0,"raw":"aGlibHVl"}'),
    (["files", '["@file", "@./file"]'], '["of a file","of a file"]'),
    (["files", "[]", '{"name": "n", "file": "@file"}'], '["n","of a file"]'),
    (["files", "[]", '{"name": "n"}'], "[]"),
    (["keyed", '{"1": "aGk="}'], '{"2":"aGk="}'),
    (["post", '{"type": "letter", "text": "aGk="}'], '"hi"'),
    (["post", '{"type": "parcel", "file": "@file"}'], '"of a file"'),
    (["tree", '{"value": 1, "below": [{"value": 2}]}'], '{"value":1,"below":[{"value":2,"below":[]}]}'),
    (["other", "@service"], None),
    (["any_other", "@service"], '"service"'),
    (["any_other"], '"none"'),
    # A stream is a line an item, both ways.
    (["count", "2"], '{"x":0,"y":2.0,"raw":""}\n{"x":1,"y":2.0,"raw":""}'),
    (["upper", "@lines"], '"1"\n"2"'),
    (["total", "@lines"], "3"),
    # What a terminal obeys is escaped, and the same text to whoever reads JSON.
    (["escapes"], r'"\u001b[31m \u009b5m \u202e \u2066 end"'),
]


@pytest.mark.parametrize(
    ("words", "shown"), CALLS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_call_gives_its_result(desk, capfd, monkeypatch, words, shown):
    """In JSON, on one line; of each kind of argument and result."""
    monkeypatch.chdir(desk.parent)
    (desk.parent / "lines").write_text("1\n2\n")
    if words[0] == "other":
        assert commands.here(capfd, "call", desk, "add", "of the other")[0] == 0
        shown = '"of the other"'
    status, out, err = commands.here(capfd, "call", desk, *words)
    assert (status, out, err) == (0, shown and f"{shown}\n", "")
    if words[0] == "save":
        assert (desk.parent / "new").read_text() == "text"


WRONG = [
    (["nope"], "there is no method nope; there is kept, add"),
    (["add"], "line missing; the method is add(line: str, times: int = 1"),
    (["add", "a", "1", "b"], "b is one argument too many"),
    (["add", "a", "line=b"], "line is given twice"),
    (["add", "line=a", "line=b"], "line is given twice"),
    (["add", "a", "x"], "times: int is due, in JSON, not x;"),
    (["add", "a", "1.5"], "times: int is due, in JSON, not 1.5: Expected `int`, got `float`"),
    (["add", "a", "when=today"], "Invalid RFC3339 encoded datetime"),
    (["point", '{"y": 1}'], "missing required field `x`"),
    (["point", '{"x": 1, "z": 1}'], "unknown field `z`"),
    (["point", '{"x": 1}', "green"], "colour: Colour ('blue' | 'red') is due, itself, without quotes, not green: Inv"),
    (["point", '{"x": 1}', "green"], "Invalid enum value 'green'"),
    (["digest"], "file missing"),
    (["digest", "salt=aGk="], "file missing"),
    (["digest", "plain"], "file: @FILE is due, not plain"),
    (["digest", "@"], "file: @FILE is due, not @"),
    (["digest", "@missing"], "No such file or directory: 'missing'"),
    (["digest", "@."], "file: @. is a directory, and a file is due; the method is digest(file: io.BufferedReader, /"),
    (["digest", "@file", "@."], "salt: @. is a directory, and a file is due"),
    (["upper", "@."], "lines: @. is a directory, and a file is due"),
    (["digest", "@file", "***"], "salt: bytes is due"),
    (["files", '["file"]'], "files: @FILE is due, not file"),
    (["digest", "@>file"], "file: nothing is written to: @FILE is due, not @>file"),
    (["save", "@file", "x"], "file: @>FILE is due, which is made, or emptied, not @file"),
    (["save", "@>missing/file", "x"], "No such file or directory: 'missing/file'"),
    (["files", "[1]"], "files: @FILE is due within list[Descriptor]"),
    (["family", "@file"], "@file is no socket"),
    (["family", "@/dev/fd/999999"], "Bad file descriptor"),
    (["signal", "@file"], "signal() cannot be called from a shell: signal is a Signal"),
    (["count", "--timeout"], "to: int is due"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_what_cannot_be_called_so(desk, capfd, monkeypatch, words, said):
    """Exit status 2, and one line that says what is due."""
    monkeypatch.chdir(desk.parent)
    status, out, err = commands.here(capfd, "call", desk, *words)
    assert (status, out) == (2, "")
    assert said in err
    # No service has one emptied that nobody said is to be.
    assert (desk.parent / "file").read_bytes() == b"of a file"
    assert err.startswith("capmarshal: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["files", '["@>kept"]', '{"name": 1}'], []),
        (["files", '["@>kept", "@missing"]'], []),
        (["save", "@>kept", "text"], ["--output", "missing/file"]),
    ],
    ids=["value", "file", "output"],
)
def test_nothing_is_emptied_for_a_call_that_is_not_made(desk, capfd, monkeypatch, words, options):
    """Whichever of its words is wrong."""
    monkeypatch.chdir(desk.parent)
    kept = desk.parent / "kept"
    kept.write_bytes(b"kept")
    status, out, _ = commands.here(capfd, "call", *options, desk, *words)
    assert (status, out, kept.read_bytes()) == (2, "", b"kept")
    # And is, for one that is.
    assert commands.here(capfd, "call", desk, "save", "@>kept", "x")[:2] == (0, "1\n")
    assert kept.read_bytes() == b"x"


def test_a_method_is_all_that_is_required(capsys):
    """It may have no arguments."""
    with pytest.raises(SystemExit, match="2"):
        main(["call", "path"])
    assert "error: the following arguments are required: METHOD\n" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["file", "missing"])
def test_another_service_that_is_not_there(desk, capfd, monkeypatch, name):
    """It is as if the one that is called were not."""
    monkeypatch.chdir(desk.parent)
    assert commands.here(capfd, "call", desk, "other", f"@{name}")[0] == 3
    assert commands.here(capfd, "describe", name)[0] == 3


def test_a_descriptor_is_written_to_where_that_is_said(desk, capfd, quiet_log):
    """It is open for that alone."""
    new = desk.parent / "new"
    status, _, err = commands.here(capfd, "call", desk, "files", f'["@>{new}"]')
    assert (status, "Bad file descriptor" in err) == (1, True)
    assert new.read_bytes() == b""


def test_a_line_that_is_no_item(place):
    """The method is told of it, and whoever typed it is."""
    lines = place.parent / "lines"
    lines.write_text("1\nx\n")
    with commands.desk_served(place):
        status, out, err = commands.run("call", place, "total", f"@{lines}")
    assert (status, out, err) == (2, "", "capmarshal: numbers: int is due, in JSON, not x\n")


def test_a_line_that_is_no_text(place):
    """It is said of which parameter."""
    with commands.desk_served(place), by_hand.pipe() as (reader, writer):
        writer.write(b"\xff\n")
        writer.close()
        said = commands.run("call", place, "upper", "@-", stdin=reader)
    assert said == (2, "", "capmarshal: lines: a line of @- is not UTF-8\n")


def test_a_path_need_not_be_text(desk, capfd):
    """And text has to be."""
    file = os.fsdecode(bytes(desk.parent) + b"/odd \xff")
    with open(file, "wb") as written:
        written.write(b"odd")
    assert commands.here(capfd, "call", desk, "digest", f"@{file}") == (0, '"b2Rk"\n', "")
    status, _, err = commands.here(capfd, "call", desk, "add", "odd \udcff")
    assert (status, err.partition(";")[0]) == (2, "capmarshal: line: odd \\udcff is not UTF-8")
    assert commands.here(capfd, "call", desk, "echo", "[\udcff]")[0] == 2


def test_what_a_method_raises(desk, capfd):
    """Declared or not, it is the class and the words, on one line, and nothing in it that a terminal obeys."""
    assert commands.here(capfd, "call", desk, "add", "declared") == (1, "", "capmarshal: KeyError: 'declared'\n")
    said = "capmarshal: RuntimeError: two\\nlines, \\x1b[31mred\n"
    assert commands.here(capfd, "call", desk, "add", "undeclared") == (1, "", said)


def test_what_no_shell_can_keep_is_named(desk, capfd):
    """A capability, and a descriptor: what is known of it, and what helps."""
    status, out, err = commands.here(capfd, "call", desk, "again")
    assert (status, json.loads(out)) == (0, {"capability": "service"})
    assert "no shell can keep a capability" in err
    status, out, err = commands.here(capfd, "call", desk, "opened")
    assert (status, json.loads(out)) == (0, {"descriptor": "a memfd open for both ways"})
    assert "--output FILE has what can be read from it" in err
    status, out, err = commands.here(capfd, "call", desk, "attached")
    assert (status, json.loads(out)["file"]) == (0, {"descriptor": "a memfd open for both ways"})


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["opened"], b"of a file"),
        (["space"], b"of a space"),
        (["digest", "@file"], b"of a file"),
        (["escapes"], "\x1b[31m \x9b5m \u202e \u2066 end".encode()),
        (["upper", "@file"], b"OF A FILE"),
        (["echo", "[1]"], b"[1]\n"),
    ],
)
def test_output_has_it_as_it_is(desk, capfd, monkeypatch, words, written):
    """In a file, whose content it replaces."""
    monkeypatch.chdir(desk.parent)
    output = desk.parent / "output"
    output.write_bytes(b"something longer than what is written")
    assert commands.here(capfd, "call", "--output", output, desk, *words) == (0, "", "")
    assert output.read_bytes() == written


def test_output_stays_where_a_call_fails(desk, capfd):
    """What was there is there."""
    output = desk.parent / "output"
    output.write_bytes(b"before")
    assert commands.here(capfd, "call", "--output", output, desk, "add", "declared")[0] == 1
    assert output.read_bytes() == b"before"
    assert commands.here(capfd, "call", "--output", desk.parent / "no" / "file", desk, "opened")[0] == 2


class Failing(cm.Interface):
    @cm.method
    @cm.raises(KeyError)
    def nothing_comes(self) -> Iterator[str]: ...

    @cm.method
    @cm.raises(KeyError)
    def one_comes(self) -> Iterator[str]: ...

    @cm.method
    def none_comes(self) -> Iterator[str]: ...

    @cm.method
    def empty(self) -> bytes: ...

    @cm.method
    def directory(self) -> cm.Descriptor: ...

    @cm.method
    def to_write_to(self) -> cm.Descriptor: ...

    @cm.method
    def listener(self) -> cm.Descriptor: ...

    @cm.method
    def no_json(self) -> Any: ...


class FailingServer(Failing):
    def nothing_comes(self):
        yield from {}["nothing"]

    def one_comes(self):
        yield "one"
        yield from {}["nothing"]

    def none_comes(self):
        yield from ()

    def empty(self):
        return b""

    def directory(self):
        return cm.Descriptor(os.open("/", os.O_RDONLY))

    def to_write_to(self):
        return cm.Descriptor(os.open(os.devnull, os.O_WRONLY))

    def listener(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            # Nobody connects: what is asked for is to be read at once.
            listener.setblocking(False)
            with socket.create_connection(listener.getsockname()):
                return cm.Descriptor(listener.detach())

    def no_json(self):
        return {None: 1}


@pytest.mark.parametrize("method", ["nothing_comes", "directory", "to_write_to", "listener", "no_json"])
def test_output_stays_until_something_is_to_be_written(place, capfd, method):
    """Whatever fails, the call, the first item, reading what has come, or JSON."""
    output = place.parent / "output"
    output.write_bytes(b"before")
    with services.serving(place, FailingServer()):
        status, _, err = commands.here(capfd, "call", "--output", output, place, method)
    assert (status, err.count("\n")) == (1, 1)
    assert output.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("method", "status", "left"), [("one_comes", 1, b"one"), ("none_comes", 0, b""), ("empty", 0, b"")]
)
def test_output_has_nothing_of_what_was_there(place, capfd, method, status, left):
    """Once something is to be written, or all is there, and is nothing."""
    output = place.parent / "output"
    output.write_bytes(b"before, and more")
    with services.serving(place, FailingServer()):
        assert commands.here(capfd, "call", "--output", output, place, method)[0] == status
    assert output.read_bytes() == left


def test_standard_output_is_not_cut(desk):
    """Where it is a file that others write to as well, as in a script."""
    output = desk.parent / "output"
    with output.open("wb") as file:
        file.write(b"before ")
        file.flush()
        command = [*commands.COMMAND, "call", "--output", "-", str(desk), "opened"]
        subprocess.run(command, stdout=file, check=True, timeout=PATIENCE)
    assert output.read_bytes() == b"before of a file"


def test_an_awaitable_service_is_called_alike(place):
    """And through real processes."""
    with commands.desk_served(place, "awaitable"):
        assert commands.run("call", place, "double", "4") == (0, "8\n", "")
        assert commands.run("call", place, "add", "a line") == (1, "", "capmarshal: KeyError: 'a line'\n")
        lines = subprocess.run(
            [*commands.COMMAND, "call", str(place), "upper", "@-"], input=b"a\nb\n", capture_output=True, check=True
        )
        assert lines.stdout == b'"A"\n"B"\n'


def test_standard_input_is_an_argument(place):
    """A file, a pipe, and a socket; what is open already is one by its number."""
    ours, theirs = socket.socketpair()
    with commands.desk_served(place), ours, theirs:
        piped = subprocess.run(
            [*commands.COMMAND, "call", str(place), "digest", "@-"], input=b"piped", capture_output=True, check=True
        )
        assert piped.stdout == b'"cGlwZWQ="\n'
        assert commands.run("call", place, "family", "@-", stdin=theirs) == (0, '"AF_UNIX"\n', "")
        number = theirs.fileno()
        said = commands.run("call", place, "family", f"@/dev/fd/{number}", pass_fds=[number])
        assert said == (0, '"AF_UNIX"\n', "")
        assert commands.run("call", place, "save", "@-", "to the pipe") == (0, "to the pipe11\n", "")


def test_a_grant_is_called_by_what_it_lets_call(place, capfd):
    """Nothing else is there; and once it is revoked, nothing is."""
    with cm.Entrypoint("service") as entrypoint:
        granted = entrypoint.grant(DeskServer(), label="one", only=(Desk.nothing,))
        entrypoint.listen(place, granted)
        assert commands.here(capfd, "call", place, "nothing") == (0, "", "")
        status, _, err = commands.here(capfd, "call", place, "add", "x")
        assert (status, err) == (2, "capmarshal: there is no method add; there is nothing\n")
        entrypoint.revoke(granted, "enough")
        status, _, err = commands.here(capfd, "call", place, "nothing")
        assert status == 3
        assert "enough" in err


def test_nobody_is_there(place, capfd):
    status, out, err = commands.here(capfd, "call", place, "add", "x")
    assert (status, out) == (3, "")
    assert "there is no such file" in err
    with cm.Entrypoint("silent", describe=False) as entrypoint:
        entrypoint.listen(place, DeskServer())
        assert commands.here(capfd, "call", place, "add", "x")[0] == 1


@contextlib.contextmanager
def never(place, *options):
    """A call of a stream that gives no item, which has begun, and the process of its service."""
    command = [*commands.COMMAND, "call", *options, str(place), "never", "@-"]
    with commands.desk_served(place) as service:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "began\n"
            yield process, service


def test_a_service_that_goes_in_the_middle(place):
    """Of a stream that is waited for without a limit: its end is told at once."""
    with never(place) as (process, service):
        service.kill()
        assert process.wait(PATIENCE) == 3
        err = process.stderr.read()
    assert err.startswith("capmarshal: ")
    assert err.count("\n") == 1


def test_ctrl_c_ends_it(place):
    """Without a traceback, with the status that shells know."""
    with never(place) as (process, _):
        until(lambda: process_receives(process.pid))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == ""


def test_a_timeout_holds_for_each_item(place):
    """Where it is given."""
    with never(place, "--timeout", "0.5") as (process, _):
        assert process.wait(PATIENCE) == 3
        err = process.stderr.read()
    # So long as it was: on a busy machine it is a little longer.
    assert re.search(r"no answer in \d+\.\d+ s \(the deadline of --timeout 0\.5\)", err), err
    assert err.count("\n") == 1


class Slow(cm.Interface):
    @cm.method
    def wait(self) -> None: ...


class SlowServer(Slow):
    def __init__(self):
        self.may_end = threading.Event()

    def wait(self):
        assert self.may_end.wait(PATIENCE)


def test_whose_time_is_up_is_said_as_it_was_given(place, capfd):
    """As the option: whoever typed it knows of no cast(), and of no cm.timeout()."""
    server = SlowServer()
    with services.serving(place, server):
        try:
            status, _, err = commands.here(capfd, "call", "--timeout", "0.05", place, "wait")
        finally:
            server.may_end.set()
    assert status == 3
    assert "(the deadline of --timeout 0.05); the call may have run" in err


def test_a_reader_that_has_gone_ends_a_stream(desk):
    """As in `| head -1`: no traceback."""
    command = [*commands.COMMAND, "call", str(desk), "count", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b'{"x":0,"y":2.0,"raw":""}\n'
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""


def test_a_standard_output_that_is_closed(desk):
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *commands.COMMAND, "call", str(desk), "nothing"],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"capmarshal: standard output is closed\n")


def description(**changed):
    """What a hostile server says of its one method, add()."""
    method = {"name": "add", "interface": "I", "parameters": [], "result": {}} | changed
    return msgspec.msgpack.encode({"interfaces": [], "methods": [method], "definitions": {}})


def parameter(name, **more):
    return {"name": name, "schema": {}} | more


@pytest.mark.parametrize(
    "changed",
    [
        {"parameters": [parameter("a, b=abort()")]},
        {"parameters": [parameter("class")]},
        {"parameters": [parameter("x"), parameter("x")]},
        {"parameters": [parameter("self")]},
        {"parameters": [parameter("_capmarshal_invoke")]},
        {"parameters": [parameter("__debug__")]},
        {"parameters": [parameter("x", optional=True), parameter("y")]},
        {"parameters": [parameter("x", how="name"), parameter("y", how="position")]},
        {"parameters": [parameter("\N{LATIN SMALL LIGATURE FI}"), parameter("fi")]},
        {"parameters": [parameter("x" * 100_000 + " ")]},
        {"parameters": [parameter(f"p{place}") for place in range(2000)]},
        {"parameters": [parameter("x", schema={"x-capmarshal": "Future"})]},
        {"result": {"x-capmarshal": "Future"}},
        {"result": {"anyOf": [{"x-capmarshal": "Descriptor"}, {"type": "string"}]}},
    ],
)
def test_a_server_that_describes_what_cannot_be(place, capfd, changed):
    """A line says so, whatever it has written; nothing of it is run."""
    names = [each["name"] for each in changed.get("parameters", [])]
    words = [f"{name}=1" for name in names if name.isidentifier()] if len(names) < 100 else ["1"] * len(names)
    with commands.hostile(place, description(**changed)):
        status, out, err = commands.here(capfd, "call", "--timeout", "0.3", place, "add", *words)
    assert (status, out) in ((2, ""), (3, ""))
    assert err.count("\n") == 1
    assert len(err) < 2000


@pytest.mark.parametrize(
    "name", ["__class__", "__init__", "_capmarshal", "cast", "_way", "mro", commands.HOSTILE, "a.b", ""]
)
def test_a_server_that_calls_its_method_something_odd(place, capfd, name):
    """It is refused, or called by that name, and nothing else is."""
    with commands.hostile(place, description(name=name)):
        status, out, err = commands.here(capfd, "call", "--timeout", "0.3", place, name)
    assert (status, out) in ((2, ""), (3, ""))
    assert err.count("\n") == 1


def test_a_server_whose_result_is_not_what_it_has_said(place, capfd):
    """What comes in the place of a descriptor, say."""

    class Lying(cm.Interface):
        @cm.method
        def opened(self) -> int: ...

    class Liar(Lying):
        def opened(self):
            return 5

    said = described(Liar, None).replace(
        b"\xa6result\x81\xa4type\xa7integer", b"\xa6result\x81\xacx-capmarshal\xaaDescriptor"
    )
    assert b"Descriptor" in said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capmarshal._typed.describing.described", lambda *_: said)
        with services.serving(place, Liar()):
            status, out, err = commands.here(capfd, "call", place, "opened")
    assert (status, out) == (1, "")
    assert "result" in err


def test_types_are_made_of_what_is_given(place, capfd, monkeypatch):
    """A server may describe thousands of parameters, of a large type each: none of them is looked at."""
    record = {"type": "object", "properties": {f"field{place}": {"type": "integer"} for place in range(900)}}
    others = [parameter(f"p{place}", schema={"$ref": "#/$defs/Record"}, optional=True) for place in range(1000)]
    method = {"name": "add", "interface": "I", "parameters": [parameter("x"), *others], "result": {}}
    said = msgspec.msgpack.encode({"interfaces": [], "methods": [method], "definitions": {"Record": record}})
    made = []
    make = Types.make
    monkeypatch.setattr(Types, "make", lambda types, schema: made.append(schema) or make(types, schema))
    with commands.hostile(place, said):
        status, out, err = commands.here(capfd, "call", "--timeout", "0.3", place, "add", "1", "p7={}")
    assert (status, out, err.count("\n")) == (3, "", 1)
    # By what makes arguments, and by what makes the interface, whose result is the fifth.
    assert len(made) == 5


def lingering(listener):
    """An end of TCP that has bytes which nobody reads, and lingers over them for an hour; and its other end."""
    end = socket.create_connection(listener.getsockname())
    other = listener.accept()[0]
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    end.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            end.send(bytes(1 << 20))
    return end, other


@pytest.mark.parametrize("within", [False, True])
def test_a_socket_that_lingers_keeps_nobody(within):
    """It is the kernel's to close, whatever its sender has set."""
    with open(os.devnull, "wb") as nowhere, socket.create_server(("127.0.0.1", 0)) as listener:
        end, other = lingering(listener)
        result = [cm.Descriptor(end.detach())] if within else end
        with other:
            writing = by_hand.Concurrent(Writer(nowhere.fileno(), raw=False).write, result)
            writing.outcome()
            assert reaper.behind()
        assert reaper.wait(PATIENCE)


class Silent(cm.Interface):
    @cm.method
    def end(self) -> cm.Descriptor: ...


class SilentServer(Silent):
    """Gives what can be read, in which nothing is, and no end."""

    def __init__(self):
        self.others = []

    def end(self):
        reading, writing = os.pipe()
        self.others.append(cm.Descriptor(writing))
        return cm.Descriptor(reading)


def test_a_timeout_holds_for_what_is_read(place, capfd):
    """From a descriptor that has come, where it is given; what was there stays."""
    output = place.parent / "output"
    output.write_bytes(b"before")
    server = SilentServer()
    with services.serving(place, server):
        status, _, err = commands.here(capfd, "call", "--timeout", "0.3", "--output", output, place, "end")
    for other in server.others:
        other.close()
    assert (status, err) == (3, "capmarshal: no more of what the descriptor leads to in 0.3 s\n")
    assert output.read_bytes() == b"before"


class Wide(cm.Interface):
    @cm.method
    def truths(self) -> dict[Any, int]: ...

    @cm.method
    def numbers(self) -> dict[Any, float]: ...

    @cm.method
    def keys(self) -> dict[bytes, int]: ...


class WideServer(Wide):
    def truths(self):
        return {True: 1}

    def numbers(self):
        return {1: 1.0, "1": float("nan")}

    def keys(self):
        return {b"\xff": 1}


def test_what_json_has_no_words_for(place, capfd):
    """It is said, and not half of it."""
    with services.serving(place, WideServer()):
        status, out, err = commands.here(capfd, "call", place, "keys")
    assert status in (0, 1)
    assert (out == "") is (status == 1)
    assert err.count("\n") == status


def test_keys_that_json_has_no_words_for(place, capfd):
    """Numbers become text, and what is no number null, as the guide says; a key that can be none is named."""
    with services.serving(place, WideServer()):
        assert commands.here(capfd, "call", place, "numbers") == (0, '{"1":1.0,"1":null}\n', "")
        status, out, err = commands.here(capfd, "call", place, "truths")
    assert (status, out) == (1, "")
    assert err == "capmarshal: the result has no words in JSON: a bool as a key\n"


def test_help_says_what_an_exit_status_means(capfd):
    status, out, _ = commands.here(capfd, "call", "--help")
    assert status == 0
    assert "Exit status: 0; 1 if the method raised an error" in out
