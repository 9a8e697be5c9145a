"""What an entrypoint says of its objects to whoever may call them: `_typed/describing`, and who is told what."""

import asyncio
import logging
import os

import msgspec
import pytest

import by_hand
import capmarshal as cm
from capmarshal import aio
from capmarshal._describe.asking import description_of
from capmarshal._protocol.faults import Code
from capmarshal._protocol.wire import DESCRIBE
from capmarshal._typed.describing import described
from capmarshal._typed.description import Description
from desk import AwaitedDesk, AwaitedDeskServer, Box, Desk, DeskServer


def told(capability):
    """What is said of an object, in time."""
    with cm.timeout(30):
        return description_of(capability)


def of_class(cls, only=None):
    """What would be said of an object of a class."""
    return msgspec.msgpack.decode(described(cls, only), type=Description)


def method_of(description, name):
    (found,) = [method for method in description.methods if method.name == name]
    return found


def test_it_says_names_parameters_defaults_errors_and_docstrings():
    """As the interface declares them, and not its server."""
    with by_hand.serving(DeskServer()) as capability:
        add = method_of(told(capability), "add")
    line, times, when = add.parameters
    assert (line.name, line.schema, line.optional, line.how) == ("line", {"type": "string"}, False, "either")
    assert (times.name, times.schema, times.optional, times.default) == ("times", {"type": "integer"}, True, 1)
    assert (when.name, when.optional, when.default, when.how) == ("when", True, None, "name")
    assert (add.result, add.raises, add.interface) == ({"type": "integer"}, ("KeyError", "OSError"), "Desk")
    assert add.doc.startswith("Adds a line; how many there are.")


def test_it_says_interfaces_with_what_they_inherit():
    """Each method is of the one that declares it; a type variable is what it stands for."""
    said = of_class(DeskServer)
    assert [(each.name, each.doc.splitlines()[0]) for each in said.interfaces] == [
        ("Box", "Keeps one thing."),
        ("Desk", "Where things are left."),
    ]
    kept = method_of(said, "kept")
    assert (kept.interface, kept.result) == ("Box", {"type": "string"})


def test_what_is_no_data_is_marked():
    """By its annotation; a capability by its interface, where that is known."""
    said = of_class(DeskServer)

    def first(name):
        return method_of(said, name).parameters[0].schema

    assert first("digest") == {"x-capmarshal": "io.BufferedReader"}
    assert first("save") == {"x-capmarshal": "io.BufferedWriter"}
    assert first("size") == {"x-capmarshal": "Dataspace"}
    assert first("family") == {"x-capmarshal": "socket.socket"}
    assert first("signal") == {"x-capmarshal": "Signal"}
    assert first("files") == {"type": "array", "items": {"x-capmarshal": "Descriptor"}}
    assert first("other") == {"x-capmarshal": "capability", "title": "Desk"}
    assert first("any_other") == {"anyOf": [{"x-capmarshal": "capability"}, {"type": "null"}]}
    assert said.definitions["Attached"]["properties"]["file"]["anyOf"][0] == {"x-capmarshal": "io.BufferedReader"}


def test_streams_are_said_by_their_items():
    """Of arguments and results; whether items are awaited is no matter of a caller's."""
    for cls in (DeskServer, AwaitedDeskServer):
        upper = method_of(of_class(cls), "upper")
        assert (upper.stream, upper.result) == (True, {"type": "string"})
        assert (upper.parameters[0].stream, upper.parameters[0].schema) == (True, {"type": "string"})


def test_keys_that_are_no_text_are_said():
    """JSON has none: a caller could not know."""
    (by_number,) = method_of(of_class(DeskServer), "keyed").parameters
    assert by_number.schema["x-capmarshal-keys"] == {"type": "integer"}


def test_a_default_that_is_no_data_is_not_said():
    class Opening(cm.Interface):
        @cm.method
        def open(self, file: cm.Descriptor | None = ..., name: bytes = b"hi", /) -> None: ...

    file, name = of_class(Opening).methods[0].parameters
    assert (file.optional, file.default, file.how) == (True, msgspec.UNSET, "position")
    assert name.default == "aGk="


def test_an_awaitable_service_says_as_much():
    """A twin has its original's parameters and docstring; to a caller the colour makes no difference."""

    async def serve():
        async with aio.Entrypoint("desk") as entrypoint:
            capability = entrypoint.manage(AwaitedDeskServer())
            return await asyncio.to_thread(told, capability)

    said = asyncio.run(serve())
    assert said == of_class(AwaitedDeskServer)
    add = method_of(said, "add")
    assert [each.name for each in add.parameters] == ["line", "times", "when"]
    assert (add.interface, add.raises) == (AwaitedDesk.__name__, ("KeyError", "OSError"))
    assert add.doc.startswith("Adds a line")


@pytest.mark.parametrize("deep", [False, True])
def test_a_grant_says_what_it_lets_call(entrypoint, deep):
    """And no more: neither other methods, nor the interfaces and types that only these have."""
    granted = entrypoint.grant(DeskServer(), label="one", only=(Desk.add, Desk.point), deep=deep)
    said = told(granted)
    assert [method.name for method in said.methods] == ["add", "point"]
    assert [interface.name for interface in said.interfaces] == ["Desk"]
    assert said.definitions.keys() == {"Point", "Colour"}


def test_what_a_deep_grant_hands_out_says_all(entrypoint):
    """``only`` restricts the object that is granted."""
    granted = entrypoint.grant(DeskServer(), label="one", only=(Desk.again,), deep=True)
    assert [method.name for method in told(granted).methods] == ["again"]
    again = cm.capability(granted.cast(Desk).again())
    assert told(again) == of_class(DeskServer)


def test_a_revoked_grant_says_nothing(entrypoint):
    granted = entrypoint.grant(DeskServer(), label="one")
    told(granted)
    entrypoint.revoke(granted, "no more")
    with pytest.raises(cm.Revoked, match="no more"):
        told(granted)


def test_a_dissolved_object_says_nothing(entrypoint):
    server = DeskServer()
    capability = entrypoint.manage(server)
    entrypoint.dissolve(server)
    with pytest.raises(cm.StaleCapability):
        told(capability)


@pytest.mark.parametrize("make", [cm.Entrypoint, aio.Entrypoint])
def test_an_entrypoint_that_does_not_describe(make):
    """It says so, in both colours; calls are made as ever."""

    def ask(capability):
        with pytest.raises(cm.UnknownMethod, match=r"'desk' does not say what can be called \(describe=False\)"):
            told(capability)

    async def serve():
        async with make("desk", describe=False) as entrypoint:
            await asyncio.to_thread(ask, entrypoint.manage(AwaitedDeskServer()))

    if make is aio.Entrypoint:
        asyncio.run(serve())
        return
    with make("desk", describe=False) as entrypoint:
        capability = entrypoint.manage(DeskServer())
        ask(capability)
        assert capability.cast(Desk).add("a line") == 1


def test_whether_it_describes_is_true_or_false():
    for make in (cm.Entrypoint, aio.Entrypoint):
        with pytest.raises(TypeError, match="describe is True or False, not 'no'"):
            make("desk", describe="no")


def test_an_older_server_says_that_there_is_no_such_method(monkeypatch):
    """Whoever asks is told what that means."""
    monkeypatch.setattr("capmarshal._server.call_arguments.DESCRIBE", b"never asked")
    with by_hand.serving(DeskServer()) as capability:
        with pytest.raises(cm.UnknownMethod, match=r"its capmarshal is older than that .* has no remote method"):
            told(capability)
        assert capability.cast(Desk).add("a line") == 1


def test_no_interface_can_have_a_method_of_that_name():
    """So it takes none away."""
    made = type(cm.Interface)("Odd", (cm.Interface,), {DESCRIBE.decode(): cm.method(lambda self: None)})
    with pytest.raises(cm.InterfaceError, match="cannot be written in a call"):
        of_class(made)


def test_what_comes_with_the_question_is_closed(capability, near, writer):
    """Whatever it is: a stranger asks."""
    by_hand.send(near, by_hand.call(capability, DESCRIBE, b"\x90", [(0, bytes(16))], 1), [writer.fileno()])
    reply, descriptors = by_hand.answer(near)
    assert not descriptors
    said = msgspec.msgpack.decode(reply.payload, type=Description)
    assert "double" in [method.name for method in said.methods]
    assert by_hand.lives(near, capability)


def test_a_guessed_badge_is_told_nothing(capability, near):
    near.send(by_hand.call(capability, DESCRIBE, b"\x90", badge=os.urandom(16)))
    assert by_hand.failure(near) == Code.STALE


def test_a_signal_has_no_methods(entrypoint):
    signal = entrypoint.on_signal(lambda: None)
    with pytest.raises(cm.UnknownMethod, match="is a signal, which has no methods"):
        told(cm.capability(signal))


def test_an_object_that_cannot_be_described_ends_no_service(monkeypatch, caplog):
    """Its class is the application's, and may do anything; the log says what it did."""

    def fail(*_):
        raise ZeroDivisionError("by the class")

    with by_hand.serving() as capability:
        monkeypatch.setattr("capmarshal._typed.describing.described", fail)
        with pytest.raises(cm.UnknownMethod, match="saying what can be called of Worker failed: its log says how"):
            told(capability)
        assert capability.cast(by_hand.Work).double(4) == 8
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "saying what can be called of Worker" in record.getMessage()
    caplog.clear()
    caplog.get_records("call").clear()


def test_what_has_no_schema_keeps_nothing_else_from_being_said(monkeypatch):
    """A type that msgspec has no words for is data of any kind."""
    real = msgspec.json.schema_components

    def partly(types, **options):
        if int in types:
            raise TypeError("no words")
        return real(types, **options)

    monkeypatch.setattr(msgspec.json, "schema_components", partly)

    class Adding(cm.Interface):
        @cm.method
        def add(self, x: int, y: str) -> str: ...

    (add,) = of_class(Adding).methods
    assert [each.schema for each in add.parameters] == [{}, {"type": "string"}]


def test_it_is_made_once():
    """Of a class, and of the methods that are granted of it; whoever asks again costs little."""

    class Once(Box[int]):
        def kept(self):
            return 1

    assert described(Once, None) is described(Once, None)
    assert described(Once, frozenset([b"kept"])) is described(Once, frozenset([b"kept"]))
    for number in range(100):
        described(Once, frozenset([b"%d" % number]))
    assert len(vars(Once)["__capmarshal_described__"]) == 64
