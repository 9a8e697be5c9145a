"""Objects that answer any method: what they are given, what becomes of what they raise, and what strangers may send."""

from __future__ import annotations

import gc
import io
import logging
import threading
from functools import partial

import msgspec
import pytest

import by_hand
import capmarshal as cm
import loops
from capmarshal import aio
from capmarshal._describe.asking import description_of
from capmarshal._kernel import call_log
from capmarshal._protocol import wire
from capmarshal._protocol.faults import Code
from forwarding import AsyncPassing, Desk, DeskServer, Passing, Wrong
from patience import PATIENCE

pytestmark = pytest.mark.usefixtures("quiet_log")


class Shelf(cm.Interface):
    @cm.method
    @cm.raises(Wrong, KeyError, cm.Disconnected)
    def find(self, word: str) -> str: ...

    @cm.method
    def put(self, file: cm.Descriptor) -> None: ...

    @cm.method
    def total(self, file: io.BufferedReader, number: int) -> int: ...

    @cm.method
    def next_to(self, shelf: Shelf) -> str: ...


class AsyncShelf(cm.Interface):
    find = cm.awaitable(Shelf.find)


class Books(Shelf):
    def find(self, word):
        if word == "wrong":
            raise Wrong(word, 1)
        if word == "missing" or word.startswith("lost"):
            raise KeyError(word)
        return word.upper()

    def put(self, file):
        self.file = cm.keep(file)

    def total(self, file, number):
        return len(file.read()) + number

    def next_to(self, shelf):
        return shelf.find("next")


class By(cm.Forwarder):
    """Forwards by a function."""

    def __init__(self, function):
        self._function = function

    def forward(self, call):
        return self._function(call)


def _serving(target, label="forwarder"):
    return by_hand.serving(target, label)


def test_what_it_is_given():
    """A name, a payload that nobody has decoded, and what stands in the table, in the order of the payload's."""
    given = []

    def forward(call):
        given.append((call, cm.remaining(), cm.caller().pid))
        return cm.UntypedResult(msgspec.msgpack.encode("found"))

    with _serving(By(forward)) as capability, cm.timeout(PATIENCE), cm.SignalReceiver() as receiver:
        shelf = capability.cast(Shelf)
        assert shelf.find("word") == "found"
        ((call, left, _),) = given
        assert (call.method, call.payload, call.table) == ("find", b"\x91\xa4word", ())
        assert 0 < left <= PATIENCE
        assert repr(call) == "<UntypedCall of 'find', 6 bytes, 0 in its table>"
        with by_hand.temporary() as file, cm.Dataspace.from_buffer(memoryview(b"12").cast("H")) as data:
            table = [file, data, shelf, receiver.signal, capability]
            result = cm.forward(cm.UntypedCall("any", b"whatever", table), to=capability)
            # None of it is decoded, nor is an answer.
            assert repr(result) == "<UntypedResult, 6 bytes, 0 in its table>"
        call = given[-1][0]
        assert call.payload == b"whatever"
        kinds = [cm.Descriptor, cm.Dataspace, cm.Capability, cm.Signal, cm.Capability]
        assert [type(thing) for thing in call.table[:3] + call.table[4:]] == kinds[:3] + kinds[4:]
        assert issubclass(type(call.table[3]), cm.Signal)
        # The call's: closed when it ended.
        assert call.table[0].closed
        assert call.table[1].closed
        given.clear()


def test_what_it_keeps_and_what_it_gives():
    """Ownership is that of any method: what is returned goes out and is closed, what is kept stays."""
    kept = []

    def forward(call):
        if call.method == "keep":
            kept.append(cm.keep(call.table[0]))
            return cm.UntypedResult(b"\xc0")
        with by_hand.temporary() as more:
            return cm.UntypedResult(b"\x92\x00\x01", [*call.table, cm.keep(more)])

    with _serving(By(forward)) as capability, by_hand.temporary(b"data") as file:
        cm.forward(cm.UntypedCall("keep", b"\x91\x00", [file]), to=capability)
        assert not kept[0].closed
        kept.pop().close()
        with pytest.raises(cm.RemoteError, match="closed"):
            # What was closed before it was sent is no result.
            cm.forward(cm.UntypedCall("give", b"\x91\x00", [file]), to=capability)


@pytest.mark.parametrize("through", [1, 3])
def test_errors_arrive_as_they_were(through, caplog):
    """Through any number of forwarders, and only whose method has raised them writes of it."""
    with cm.Entrypoint("books") as books:
        capability = books.manage(Books())
        behind = [cm.Entrypoint(f"forwarder {number}") for number in range(through)]
        for entrypoint in behind:
            capability = entrypoint.manage(Passing(capability))
            entrypoint.__enter__()
        try:
            shelf = capability.cast(Shelf)
            with caplog.at_level(logging.ERROR, "capmarshal"):
                with pytest.raises(Wrong) as wrong:
                    shelf.find("wrong")
                assert (wrong.value.args, wrong.value.place) == (("wrong", 1), 1)
                with pytest.raises(KeyError) as missing:
                    shelf.find("missing")
                assert missing.value.args == ("missing",)
                with pytest.raises(cm.ArgumentError, match=r"Shelf.find, argument|Shelf.find"):
                    cm.forward(cm.UntypedCall("find", b"\x91\x05"), to=capability)
                with pytest.raises(cm.UnknownMethod, match="Books has no remote method 'sing'"):
                    cm.forward(cm.UntypedCall("sing", b"\x90"), to=capability)
            assert not caplog.records
        finally:
            for entrypoint in reversed(behind):
                entrypoint.close()


def test_a_caller_of_its_own_sees_what_was_raised():
    """As a RemoteError that says what it was, whether it is declared or not."""
    with _serving(Books()) as capability:
        with pytest.raises(cm.RemoteError) as raised:
            cm.forward(cm.UntypedCall("find", b"\x91\xa7missing"), to=capability)
        assert raised.value.type == "KeyError"
        assert cm.forward(cm.UntypedCall("find", b"\x91\xa4word"), to=capability).payload == b"\xa4WORD"


def _raising(error, declared):
    class Raising(cm.Forwarder):
        @cm.raises(*declared)
        def forward(self, call):
            raise error

    return Raising()


@pytest.mark.parametrize(
    ("make", "declared", "arrives"),
    [
        (partial(KeyError, "of its own"), (), cm.RemoteError),
        (partial(KeyError, "of its own"), (KeyError,), KeyError),
        # The caller's interface does not declare that.
        (partial(OSError, 5, "of its own"), (OSError,), cm.RemoteError),
        # Of a call that it has made by a proxy, perhaps: it says nothing of the one that is to be forwarded.
        (partial(cm.CallTimeout, "not this one", ran="no"), (), cm.RemoteError),
        (partial(cm.CallTimeout, "this one", ran="no"), (cm.CallTimeout,), cm.CallTimeout),
        (partial(cm.CallTimeout, "this one", ran="maybe"), (cm.Error,), cm.CallTimeout),
        (partial(cm.Disconnected, "this one", ran="maybe"), (cm.Disconnected,), cm.Disconnected),
        (partial(cm.Revoked, "this one"), (cm.Error,), cm.Revoked),
        (partial(cm.ArgumentError, "this one"), (cm.ArgumentError,), cm.ArgumentError),
        (partial(cm.UnknownMethod, "this one"), (cm.UnknownMethod,), cm.UnknownMethod),
        (partial(cm.StaleCapability, "this one"), (cm.Error,), cm.StaleCapability),
        (partial(cm.TooLarge, "this one"), (cm.Error,), cm.TooLarge),
        (partial(cm.TableFull, 24, "this one"), (cm.Error,), cm.TableFull),
        (partial(cm.TooManyInFlight, 109, "this one"), (cm.Error,), cm.TooManyInFlight),
        (partial(cm.DescriptorsLost, 24, "this one"), (cm.Error,), cm.DescriptorsLost),
        (partial(cm.ProtocolError, "this one"), (cm.Error,), cm.ProtocolError),
        # There is no such error of a call whose method has not run.
        (partial(cm.Revoked, "this one", ran="maybe"), (cm.Error,), cm.RemoteError),
    ],
    ids=repr,
)
def test_what_it_raises_itself(make, declared, arrives):
    """Arrives as itself where both declare it; what is said of calls where it does, and with whether that has run."""
    error = make()
    with _serving(_raising(error, declared)) as capability, pytest.raises(arrives) as raised:
        capability.cast(Shelf).find("word")
    assert type(raised.value) is arrives
    assert getattr(raised.value, "ran", "no") == (getattr(error, "ran", "no") if arrives is type(error) else "no")
    assert "of its own" in str(raised.value) or "this one" in str(raised.value)


def test_an_error_that_is_let_through_later():
    """Is what it was, whatever came by the same channel since: short or long."""
    with _serving(Books()) as behind:

        def forward(call):
            errors = []
            for word in ("first " * 8_000, "second " * 8_000, "third", "fourth"):
                try:
                    cm.forward(cm.UntypedCall(call.method, msgspec.msgpack.encode(["lost " + word])), to=behind)
                except cm.RemoteError as error:
                    errors.append(error)
            raise errors[0 if call.payload == b"\x91\xa4long" else 2]

        with _serving(By(forward), "before it") as capability:
            shelf = capability.cast(Shelf)
            for word, expected in (("long", "first"), ("short", "third")):
                with pytest.raises(LookupError) as raised:
                    shelf.find(word)
                assert raised.value.args[0].startswith("lost " + expected)


def test_a_proxys_error_says_nothing_of_the_call_that_is_forwarded():
    """Who forwards may call others meanwhile: that such a call has not run says nothing of the forwarded one."""
    with cm.Entrypoint("gone") as gone:
        policy = gone.manage(Books()).cast(Shelf)

    def forward(call):
        policy.find("whether it may")
        return cm.UntypedResult(b"\xc0")

    with _serving(By(forward)) as capability, pytest.raises(cm.RemoteError) as raised:
        capability.cast(Shelf).next_to(capability.cast(Shelf))
    assert raised.value.type == "Disconnected"


@pytest.mark.parametrize("what", [None, b"\xc0", cm.UntypedCall("find", b"\x90")])
def test_what_is_no_result(what):
    """Is an error of the forwarder's, which says so."""
    with _serving(By(lambda call: what)) as capability, pytest.raises(cm.RemoteError) as raised:
        capability.cast(Shelf).find("word")
    assert raised.value.type == "TypeError"
    assert "where an UntypedResult is due" in raised.value.message


def test_what_cannot_be_sent():
    """Is refused by words that say which entry it is, and nothing is sent."""
    with _serving(Books()) as capability:
        with pytest.raises(cm.ArgumentError, match=r"^find\(\), entry 1 of the table: `object` objects cannot be sent"):
            cm.forward(cm.UntypedCall("find", b"", [capability, object()]), to=capability)
        with pytest.raises(TypeError, match="a payload is bytes, not 'words'"):
            cm.forward(cm.UntypedCall("find", "words"), to=capability)
        with pytest.raises(ValueError, match="a method's name of more than 65535 bytes"):
            cm.forward(cm.UntypedCall("x" * 65536, b""), to=capability)
        with pytest.raises(TypeError, match=r"capmarshal.capability\(\) gives a proxy's"):
            cm.forward(cm.UntypedCall("find", b""), to=capability.cast(Shelf))
        with pytest.raises(TypeError, match="what is forwarded is an UntypedCall, not a str"):
            cm.forward("find", to=capability)
        file = by_hand.temporary()
        number = cm.Descriptor.dup_of(file.fileno())
        file.close()
        number.close()
        with pytest.raises(cm.Closed):
            cm.forward(cm.UntypedCall("find", b"", [number]), to=capability)


def test_revocation_is_told_with_its_reason():
    """Of what it forwards to, as if nobody were in between."""
    with cm.Entrypoint("books") as books:
        granted = books.grant(Books(), label="reader")
        with _serving(Passing(granted)) as capability:
            shelf = capability.cast(Shelf)
            assert shelf.find("word") == "WORD"
            books.revoke(granted, "the lease has run out")
            with pytest.raises(cm.Revoked, match="the lease has run out") as revoked:
                shelf.find("word")
            assert revoked.value.ran == "no"


def test_a_grant_of_some_methods():
    """Of any interface's, for a forwarder knows none; and it is not said then what can be called."""
    with cm.Entrypoint("books") as books, cm.Entrypoint("forwarder") as entrypoint:
        forwarder = Passing(books.manage(Books()))
        granted = entrypoint.grant(forwarder, only=(Shelf.find,))
        assert granted.cast(Shelf).find("word") == "WORD"
        with (
            by_hand.temporary() as file,
            pytest.raises(cm.UnknownMethod, match=r"put\(\) is not among what this grant lets call"),
        ):
            granted.cast(Shelf).put(file)
        with pytest.raises(cm.UnknownMethod, match="does not say which"):
            description_of(granted)
        with pytest.raises(TypeError, match="is not a remote method"):
            entrypoint.grant(forwarder, only=(Books.__init__,))
        assert {each.name for each in description_of(entrypoint.grant(forwarder)).methods} > {"find", "put"}
    with cm.Entrypoint("books") as books, cm.Entrypoint("silent", describe=False) as entrypoint:
        capability = entrypoint.manage(Passing(books.manage(Books())))
        with pytest.raises(cm.UnknownMethod, match=r"describe=False"):
            description_of(capability)


def test_that_nobody_can_call_it_is_told():
    """And what it forwards to is held as long as it is there."""
    told, gone = threading.Event(), threading.Event()
    with cm.Entrypoint("books") as books, cm.Entrypoint("forwarder") as entrypoint:
        target = books.grant(Books(), unreachable=lambda _: gone.set())
        granted = entrypoint.grant(Passing(target), unreachable=lambda _: told.set())
        del target
        assert granted.cast(Shelf).find("word") == "WORD"
        del granted
        gc.collect()
        assert told.wait(PATIENCE)
        assert gone.wait(PATIENCE)


def test_a_membrane_is_revoked_with_all_that_came_through_it():
    """Where it is granted deep: objects, and streams that have begun."""

    class Before(Passing):
        def forward(self, call):
            result = super().forward(call)
            return cm.UntypedResult(result.payload, [Before(thing) for thing in result.table])

    with cm.Entrypoint("desk") as behind, cm.Entrypoint("membrane") as entrypoint:
        root = entrypoint.grant(Before(behind.manage(DeskServer())), deep=True)
        desk = root.cast(Desk)
        page, lines = desk.page("theirs"), desk.lines(1000)
        assert page.title() == "theirs"
        assert next(lines) == "0"
        entrypoint.revoke(root, "it reads too much")
        for call in (page.title, lambda: list(lines), lambda: desk.page("more")):
            with pytest.raises(cm.Revoked, match="it reads too much"):
                call()


def test_where_an_object_of_some_interface_is_due():
    """A forwarder that comes home to its own entrypoint is called as any other, for it is of no interface."""
    with cm.Entrypoint("books") as books:
        shelf = books.manage(Books()).cast(Shelf)
        other = books.manage(Passing(cm.capability(shelf))).cast(Shelf)
        assert shelf.next_to(other) == "NEXT"
        assert other.next_to(other) == "NEXT"


def test_methods_of_its_own():
    """What a class declares beside is not forwarded."""

    class Counting(cm.Interface):
        @cm.method
        def count(self) -> int: ...

    class Counted(Passing, Counting):
        calls = 0

        def forward(self, call):
            self.calls += 1
            return super().forward(call)

        def count(self):
            return self.calls

    with cm.Entrypoint("books") as books, _serving(Counted(books.manage(Books()))) as capability:
        capability.cast(Shelf).find("word")
        assert capability.cast(Counting).count() == 1


def test_each_entrypoint_serves_its_colour():
    """And says which that is."""
    with _serving(Books()) as capability:
        with cm.Entrypoint("blocking") as entrypoint, pytest.raises(cm.InterfaceError, match="is async def, where"):
            entrypoint.manage(AsyncPassing(capability))

        async def serve():
            async with aio.Entrypoint("awaited") as entrypoint:
                with pytest.raises(cm.InterfaceError, match="is def, where"):
                    entrypoint.manage(Passing(capability))

        loops.run("asyncio", serve)


def test_a_circle_ends_by_its_deadline():
    """Of two threads, of which each waits for the other, and of loops, where calls would go round for ever."""
    with cm.Entrypoint("one") as one, cm.Entrypoint("other") as other:
        forwarder = Passing(None)
        first = one.manage(forwarder)
        forwarder.to = other.manage(Passing(first))
        with cm.timeout(0.2), pytest.raises(cm.CallTimeout):
            first.cast(Shelf).find("word")

    async def circle():
        async with aio.Entrypoint("one") as one, aio.Entrypoint("other") as other:
            forwarder = AsyncPassing(None)
            first = one.manage(forwarder)
            forwarder.to = other.manage(AsyncPassing(first))
            with cm.timeout(0.2), pytest.raises(cm.CallTimeout):
                await first.cast(AsyncShelf).find("word")
            # Nothing of it is left.
            forwarder.to = one.manage(AsyncPassing(elsewhere))
            assert await first.cast(AsyncShelf).find("word") == "WORD"

    with by_hand.serving(Books()) as elsewhere:
        for loop in loops.LOOPS:
            loops.run(loop, circle)


@pytest.fixture
def behind():
    """What forwards to some books, and a channel to it."""
    with cm.Entrypoint("books") as books, cm.Entrypoint("forwarder") as entrypoint:
        capability = entrypoint.manage(Passing(books.manage(Books())))
        near = by_hand.knock(capability)
        yield capability, near, entrypoint
        near.close()


@pytest.mark.parametrize(
    ("payload", "entries", "descriptors"),
    [
        (b"", (), 0),
        (b"\xc1", (), 0),
        (b"\xdd\xff\xff\xff\xff", (), 0),
        (b"\x91" * 100_000, (), 0),
        # An index of none, here and where there is no table; and what nothing refers to.
        (b"\x92\x05\x00", [(0, wire.NO_BADGE)], 1),
        (b"\x92\x00\x05", [(0, wire.NO_BADGE), (1, wire.NO_BADGE)], 2),
        (b"\x92\x00\x05", (), 0),
    ],
)
def test_what_it_does_not_decode_the_other_refuses(behind, payload, entries, descriptors):
    """By the words of the other; and the channel goes on."""
    capability, near, _ = behind
    with by_hand.temporary() as file:
        record = by_hand.call(capability, b"total", payload, entries, descriptors)
        by_hand.send(near, record, [file.fileno()] * descriptors)
    fault, came = by_hand.answer(near)
    assert fault.code is Code.ARGUMENT
    assert "Shelf.total" in fault.message
    assert not came
    assert capability.cast(Shelf).find("word") == "WORD"


def test_what_it_refuses_itself(behind):
    """What says that it is a capability or a dataspace, and is none; and a name that is no text."""
    capability, near, _ = behind
    with by_hand.temporary() as file:
        by_hand.send(near, by_hand.call(capability, b"find", b"\x91\x00", [(0, b"b" * 16)], 1), [file.fileno()])
        fault, _ = by_hand.answer(near)
        assert fault.code is Code.ARGUMENT
        assert "entry 0 of the table" in fault.message
    near.send(by_hand.call(capability, b"\xff\xfe", b"\x90"))
    fault, _ = by_hand.answer(near)
    assert fault.code is Code.UNKNOWN_METHOD
    near.send(by_hand.call(capability, b"", b"\x90"))
    assert by_hand.answer(near)[0].code is Code.UNKNOWN_METHOD


def test_names_that_strangers_choose_are_not_remembered(behind):
    """But for some, and short ones: neither by who forwards them, nor for what they are forwarded to."""
    capability, near, entrypoint = behind
    for number in range(1500):
        near.send(by_hand.call(capability, b"name %d" % number, b"\x90"))
        assert by_hand.answer(near)[0].code is Code.UNKNOWN_METHOD
    near.send(by_hand.call(capability, b"x" * 60_000, b"\x90"))
    fault, _ = by_hand.answer(near)
    assert fault.code is Code.UNKNOWN_METHOD
    assert len(fault.message) < 1000
    known = entrypoint._objects.known
    assert len(known) <= 256
    assert max(map(len, known)) < 300
    to = capability.local.to
    assert len(to._way.wire_keys) <= 1000
    assert max(map(len, to._way.wire_keys)) < 300
    assert capability.cast(Shelf).find("word") == "WORD"


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93\x00\xa0\x91", b"\x93\x63\xa0\xc0"])
def test_a_server_whose_error_cannot_be_read(payload):
    """Is a server that breaks the protocol, to who forwards, and so to its caller."""
    with by_hand.Impostor() as impostor, _serving(Passing(impostor.capability)) as capability:
        calling = by_hand.Concurrent(capability.cast(Shelf).find, "word")
        with impostor.accept() as far:
            far.send(wire.pack_fail(wire.unpack(far.recv(1 << 16)).id, payload))
            with pytest.raises(cm.ProtocolError, match="the server's error cannot be read"):
                calling.outcome()


def test_a_server_that_answers_what_it_likes():
    """A table with nothing in it that could be received is that server's error; all else is for who decodes it."""
    with by_hand.Impostor() as impostor, _serving(Passing(impostor.capability)) as capability:
        calling = by_hand.Concurrent(capability.cast(Shelf).find, "word")
        with impostor.accept() as far, by_hand.temporary() as file:
            wire.unpack(far.recv(1 << 16))
            by_hand.send(far, by_hand.reply(1, b"\x00", [(0, b"b" * 16)], 1), [file.fileno()])
            with pytest.raises(cm.ArgumentError, match=r"find\(\), result, entry 0 of the table"):
                calling.outcome()
            calling = by_hand.Concurrent(capability.cast(Shelf).find, "word")
            far.recv(1 << 16)
            by_hand.send(far, by_hand.reply(2, b"\x00", [(0, wire.NO_BADGE)], 1), [file.fileno()])
            with pytest.raises(cm.ArgumentError, match=r"Shelf.find, result: Expected `str`, got `int`"):
                calling.outcome()


@pytest.mark.parametrize("forwards", [Passing, AsyncPassing])
def test_calls_are_logged(monkeypatch, caplog, forwards):
    """By their names, at both sides of who forwards."""
    caplog.set_level(logging.DEBUG, "capmarshal")
    monkeypatch.setattr(call_log, "_wanted", True, raising=False)

    async def forward(capability):
        async with aio.Entrypoint("forwarder") as entrypoint:
            await entrypoint.manage(AsyncPassing(capability)).cast(AsyncShelf).find("word")

    with _serving(Books(), "books") as capability:
        if forwards is AsyncPassing:
            loops.run("asyncio", forward, capability)
        else:
            with _serving(Passing(capability)) as forwarder:
                forwarder.cast(Shelf).find("word")
    lines = [record.getMessage() for record in caplog.records]
    assert any("called find(), entrypoint 'books': ok" in line for line in lines)
    assert any(f"ran {forwards.__name__}.forward, find(): ok" in line for line in lines)
