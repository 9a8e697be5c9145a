"""What can't go to another machine is named by its parameter, as far as the object there tells."""

import asyncio
import dataclasses
import io

import msgspec
import pytest

import capmarshal as cm
from capmarshal._bridge.staying import Stays, named
from patience import PATIENCE

STAYS = Stays("copy(), entry 0 of the table", "can't go to another machine: it stays")


@dataclasses.dataclass
class Letter:
    text: str
    below: list["Letter"]
    file: io.BufferedReader | None = None


class Desk(cm.Interface):
    @cm.method
    def copy(self, file: cm.Descriptor, to: cm.Capability, data: cm.Dataspace) -> int: ...

    @cm.method
    def post(self, letter: Letter, times: int, *, more: dict[str, cm.SharedBuffer] | None = None) -> int: ...

    @cm.method
    def ring(self, signal: cm.Signal, text: str) -> int: ...


class DeskServer(Desk):
    def copy(self, file, to, data):
        return 1

    def post(self, letter, times, *, more=None):
        return 1

    def ring(self, signal, text):
        return 1


def told(method, ask):
    error = asyncio.run(asyncio.wait_for(named(STAYS, method, ask), PATIENCE))
    assert type(error) is cm.ArgumentError
    return str(error)


@pytest.fixture
def asked():
    with cm.Entrypoint("desk") as entrypoint:
        desk = entrypoint.manage(DeskServer())

        async def ask(call):
            return await asyncio.to_thread(cm.forward, call, to=desk)

        yield ask


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("copy", "Desk.copy, argument `file`: can't go to another machine: it stays"),
        ("post", "Desk.post, argument `letter` or `more`: can't go to another machine: it stays"),
        # Nothing that it takes stays: what was passed is not what it takes.
        ("ring", str(STAYS)),
        ("nothing", str(STAYS)),
    ],
)
def test_the_parameters_that_it_may_be_are_named(asked, method, words):
    assert told(method, asked) == words


def hostile(answer):
    async def ask(_call):
        if isinstance(answer, Exception):
            raise answer
        return cm.UntypedResult(answer)

    return ask


@pytest.mark.parametrize(
    "answer",
    [
        cm.Disconnected("gone"),
        cm.UnknownMethod("describe=False"),
        RecursionError("deep"),
        b"",
        b"\x90",
        msgspec.msgpack.encode({"interfaces": [], "methods": [{"name": "copy"}]}),
    ],
)
def test_who_says_nothing_of_use_leaves_it_at_that(answer):
    assert told("copy", hostile(answer)) == str(STAYS)


def test_what_another_machine_says_is_short_and_moves_no_terminal():
    schema = {"$ref": "#/$defs/A"}
    parameters = [{"name": f"{number}\x1b[2J{'x' * 10_000}", "schema": schema} for number in range(1000)]
    method = {"name": "copy", "interface": "\x1b]0;", "result": {}, "parameters": parameters}
    said = {
        "interfaces": [],
        "methods": [method],
        "definitions": {"A": {"anyOf": [schema, {"x-capmarshal": "socket"}]}},
    }
    words = told("copy", hostile(msgspec.msgpack.encode(said)))
    assert words.startswith("\\x1b]0;.copy, argument `0\\x1b[2J")
    assert words.isprintable()
    assert len(words) < 2_000
