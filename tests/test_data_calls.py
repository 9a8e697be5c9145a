"""Calls whose arguments and result are data alone take a shorter way: nothing but their cost may differ."""

from __future__ import annotations

import functools
import io
import itertools
import os
import random
import socket
import tempfile
import threading
import time
import types
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import awaiting
import by_hand
import capmarshal as cm
from capmarshal._descriptors.inbox import Inbox
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.native import FOREVER, NULL, ffi, lib
from capmarshal._protocol import wire as _wire
from capmarshal._server.dispatch import Dispatcher
from capmarshal._server.journal import Journal
from capmarshal._server.objects import Objects
from capmarshal._typed.method import methods_of

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE = by_hand.PATIENCE


class Data(cm.Interface):
    """Every method but the last has data alone in its declaration."""

    @cm.method
    def echo(self, value: Any) -> Any: ...
    @cm.method
    def blob(self, size: int) -> bytes: ...
    @cm.method
    @cm.raises(KeyError)
    def fail(self, how: str) -> int: ...
    @cm.method
    def left(self) -> float | None: ...
    @cm.method
    def overstay(self, seconds: float) -> float | None: ...
    @cm.method
    def keep(self) -> int: ...
    @cm.method
    def hand_out(self) -> Any: ...
    @cm.method
    def named(self, first: int, *, second: int) -> int: ...
    @cm.method
    def block(self, started: int, go: int) -> int: ...
    @cm.method
    def file(self, file: cm.Descriptor | None) -> cm.Descriptor | None: ...


class DataServer(Data):
    """Serves it."""

    def __init__(self):
        self.made = []

    def echo(self, value):
        return value

    def blob(self, size):
        return bytes(size)

    def fail(self, how):
        if how == "declared":
            raise KeyError("declared")
        raise ValueError("not declared")

    def left(self):
        deadline = _deadline.current.get()
        return None if deadline == FOREVER else (deadline - time.monotonic_ns()) / 1e9

    def overstay(self, seconds):
        cm.timeout(seconds).__enter__()
        return self.left()

    def keep(self):
        return len([cm.keep(io.FileIO(0, closefd=False)) for _ in range(2)])

    def hand_out(self):
        self.made.append(cm.Descriptor(os.memfd_create("handed out")))
        return [self.made[-1]]

    def named(self, first, *, second):
        return 10 * first + second

    def block(self, started, go):
        os.write(started, b".")
        return len(os.read(go, 1)) if awaiting.readable(go, PATIENCE) else 0

    def file(self, file):
        return file


@pytest.fixture
def server():
    return DataServer()


@pytest.fixture
def served(server):
    """served(): the entrypoint that manages the server."""
    held = [cm.Entrypoint("data")]
    with held[0]:
        yield lambda: held[0]
    # pytest holds what a fixture gave until after the descriptors are counted.
    held.clear()


@pytest.fixture
def data(served, server):
    """A proxy of the server, whose methods have been called once: the second call takes the short way."""
    proxy = served().manage(server).cast(Data)
    proxy.echo(1)
    proxy.blob(1)
    proxy.left()
    yield proxy
    cm.capability(proxy).close()


def test_what_is_data_alone_is_known_by_the_declaration():
    """A descriptor that may be missing still makes a method one that is not data alone."""
    methods = methods_of(Data)
    assert {name for name, method in methods.items() if not method.arguments_are_data} == {b"file"}
    assert methods[b"named"].arguments_are_data
    assert not methods[b"file"].arguments_are_data
    assert not methods[b"file"].result_is_data


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_any_data_comes_back_as_it_was_sent(value):
    """First and second call of a method are made in different ways, and say the same."""
    with cm.Entrypoint("data") as entrypoint:
        proxy = entrypoint.manage(DataServer()).cast(Data)
        assert proxy.echo(value) == value
        assert proxy.echo(value) == value


@pytest.mark.parametrize("size", [0, 1, 4096, 212_900, 212_943, 212_944, 212_960, 300_000, 1 << 20])
def test_results_of_any_size(data, size):
    """Around the largest record too, above which a result goes in parts; and the channel serves on after that."""
    assert data.blob(size) == bytes(size)
    assert data.echo(bytes(size)) == bytes(size)


def test_a_dissolved_object_is_called_no_more(data, served, server):
    """Also where its methods were called before; managed again, it is another object."""
    served().dissolve(server)
    with pytest.raises(cm.StaleCapability):
        data.echo(1)
    again = served().manage(server).cast(Data)
    assert again.echo(2) == 2
    with pytest.raises(cm.StaleCapability):
        data.echo(1)
    cm.capability(again).close()


def test_dissolving_waits_for_a_call_in_progress(data, served, server):
    """The call came the short way; the object is dissolved when it has ended, not before."""
    started, go = os.pipe(), os.pipe()
    with pytest.raises(cm.RemoteError):
        data.block(-1, -1)
    caller = by_hand.Concurrent(data.block, started[1], go[0])
    os.read(started[0], 1)
    with pytest.raises(cm.CallTimeout), cm.timeout(0.05):
        served().dissolve(server)
    dissolver = by_hand.Concurrent(served().dissolve, server)
    os.write(go[1], b".")
    assert caller.outcome() == 1
    dissolver.outcome()
    for number in (*started, *go):
        os.close(number)


def test_a_method_that_is_replaced_on_the_object_is_the_one_called(data, server):
    """As with any call in Python, the object decides, each time."""
    server.echo = lambda value: ["replaced", value]
    assert data.echo(1) == ["replaced", 1]
    del server.echo
    assert data.echo(1) == 1


def test_calls_of_several_objects_and_methods_in_any_order(served):
    """Each runs what it called, whatever was called before it, also through doors that lead to one object each."""
    servers = [DataServer() for _ in range(3)]
    proxies = [served().manage(server).cast(Data) for server in servers[:2]]
    proxies.append(served().grant(servers[2]).cast(Data))
    for index, server in enumerate(servers):
        server.echo = functools.partial(lambda index, value: [index, value], index)
        server.left = functools.partial(int, index)
    with tempfile.TemporaryFile(buffering=0) as file:
        called = random.Random(1).choices([*itertools.product(range(3), ["echo", "left", "file", "timed"])], k=300)
        for turn, (index, method) in enumerate(called):
            proxy = proxies[index]
            if method == "echo":
                assert proxy.echo(turn) == [index, turn]
            elif method == "left":
                assert proxy.left() == index
            elif method == "timed":
                with cm.timeout(PATIENCE):
                    assert proxy.echo(turn) == [index, turn]
            else:
                with cm.Descriptor.dup_of(file) as sent, proxy.file(sent) as same:
                    assert os.path.sameopenfile(same.fileno(), file.fileno())
    for proxy in proxies:
        cm.capability(proxy).close()


def test_errors_are_those_of_any_call(data):
    """Declared ones arrive as themselves, others as RemoteError; bad arguments and results are named."""
    sock, other = socket.socketpair()
    for _ in range(2):
        with pytest.raises(KeyError, match="declared"):
            data.fail("declared")
        with pytest.raises(cm.RemoteError, match="not declared"):
            data.fail("otherwise")
        with pytest.raises(cm.ArgumentError, match=r"Data.blob, arguments: Expected `int`, got `str` - at `size`"):
            data.blob("x")
        with pytest.raises(cm.ArgumentError, match=r"Data.echo, argument `value`"):
            data.echo(object())
        with pytest.raises(cm.ArgumentError, match=r"where .* is due"):
            data.echo(sock)
    sock.close()
    other.close()
    assert data.echo(1) == 1


def test_a_deadline_reaches_the_method_and_ends_with_its_call(data):
    """Also where a method leaves a block of its own open: the next call has its own time."""
    with cm.timeout(100):
        assert 90 < data.left() <= 100
        assert 0 < data.overstay(5) <= 5
        assert 90 < data.left() <= 100
    assert 0 < data.overstay(5) <= 5
    assert data.left() is None


def test_between_calls_nothing_of_the_last_one_is_left():
    """A signal handler of the serving thread has no deadline of a client's, and no call to keep anything from."""
    objects, server = Objects(), DataServer()
    calls = Dispatcher(objects, Journal("data")).calls
    badge = objects.add(server)

    def run():
        limit = time.monotonic_ns() + 10**12
        payload = msgspec.msgpack.encode((5.0,))
        assert 0 < msgspec.msgpack.decode(calls.run(None, badge + b"overstay", payload, limit)) <= 5
        assert _deadline.current.get() == FOREVER
        with pytest.raises(RuntimeError, match="only a call has descriptors"):
            cm.keep(server)

    calls.serve(run)


def test_dissolving_is_told_of_a_call_that_found_nobody():
    """It was entered among those in progress, and is taken out again, while another thread waits for that."""
    objects, looked_up, go = Objects(), threading.Event(), threading.Event()
    target = DataServer()
    badge = objects.add(target)

    class Slow(dict):
        def get(self, *arguments):
            looked_up.set()
            assert go.wait(PATIENCE)
            return super().get(*arguments)

    objects._by_badge = Slow(objects._by_badge)
    run = Dispatcher(objects, Journal("data")).calls.run
    calling = by_hand.Concurrent(run, types.SimpleNamespace(id=1, slot=0), badge + b"echo", b"\x91\x01", FOREVER)
    assert looked_up.wait(PATIENCE)

    def dissolve():
        objects.remove(badge)
        objects.wait_for_calls(target)

    removing = by_hand.Concurrent(dissolve)
    while not objects.awaited:
        os.sched_yield()
    go.set()
    assert b"object is not there" in calling.outcome().data
    removing.outcome()


def test_keep_is_allowed_where_the_call_has_nothing(data):
    """What it is told of is forgotten with the call."""
    assert [data.keep(), data.keep()] == [2, 2]


def test_what_is_no_data_after_all_is_refused_and_closed(data, server):
    """A descriptor where the declaration says anything: the server's own error, and the call has closed it."""
    for _ in range(2):
        with pytest.raises(cm.RemoteError, match=r"Data\.hand_out, result: .* where typing\.Any is due|Any is due"):
            data.hand_out()
    assert data.echo(1) == 1
    assert [made.closed for made in server.made] == [True, True]


def test_nothing_where_a_descriptor_may_be(data):
    """No table travels, and the method is not one of data alone all the same."""
    assert [data.file(None), data.file(None)] == [None, None]


@given(
    st.binary(min_size=16, max_size=16),
    st.binary(max_size=300),
    st.binary(max_size=300),
    st.none() | st.integers(1, 10**9),
)
def test_c_makes_the_record_that_the_documentation_draws(badge, method, body, seconds):
    """A CALL from C is what pack_call() packs, but for the times, and the CPU that it came from."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        far.send(_wire.pack_reply(1, [], 0, b"answer"))
        caller, inbox = ffi.new("struct cm_caller *", {"room": 4096}), ffi.new("struct cm_inbox *")
        room = ffi.new("char[]", 4096)
        inbox.data, inbox.capacity = room, 4096
        now = time.monotonic_ns()
        deadline = FOREVER if seconds is None else now + seconds * 10**9
        key = by_hand.key(badge, method)
        arguments = (near.fileno(), caller, key, body, len(body), NULL, inbox, deadline)
        assert lib.cm_call(*arguments) == lib.CM_HEAD + len(b"answer")
        assert bytes(ffi.buffer(room, inbox.size))[lib.CM_HEAD :] == b"answer"
        made = far.recv(4096)
    call = _wire.unpack(made)
    assert call.sent_at == 0 if seconds is None else now <= call.sent_at <= time.monotonic_ns()
    assert call.time_left == (_wire.NO_LIMIT if seconds is None else deadline - call.sent_at)
    expected = _wire.pack_call(1, badge, call.time_left, call.sent_at, method, [], 0, body)
    assert made[:6] + bytes(2) + made[8:] == expected
    assert made[lib.CM_CALL_KEY :] == badge + method + body


@pytest.mark.parametrize(
    ("slots", "begins"),
    [((), 0), ((0, 1), lib.CM_IN_ORDER_SIZE), ((1, 0), lib.CM_WHOLE_SIZE)],
)
def test_an_answer_is_told_by_its_size(slots, begins):
    """Data alone, and with descriptors: in their order, or in another."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        record = _wire.pack_reply(1, [_wire.Entry(slot, bytes(16)) for slot in slots], len(slots), b"answer")
        socket.send_fds(far, [record], [far.fileno() for _ in slots])
        caller, inbox = ffi.new("struct cm_caller *", {"room": 4096}), Inbox(4096)
        key = by_hand.key(bytes(16), b"m")
        told = lib.cm_call(near.fileno(), caller, key, b"", 0, NULL, inbox.struct, FOREVER)
        inbox.steal().close()
    assert told == begins + len(record)


@pytest.mark.parametrize(
    "record",
    [
        _wire.pack_reply(2, [], 0, b"other call"),
        _wire.pack_fail(1, b"failed"),
        _wire.pack_reply(1, [_wire.Entry(0, bytes(16))], 1, b"table"),
        _wire.pack_reply(1, [], 0, b"")[:15],
        bytes([_wire.VERSION + 1]) + _wire.pack_reply(1, [], 0, b"")[1:],
    ],
)
def test_only_a_plain_answer_to_the_call_is_taken_for_one(record):
    """Anything else is left to Python, which looks at all of it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        far.send(record)
        caller, inbox = ffi.new("struct cm_caller *", {"room": 4096}), ffi.new("struct cm_inbox *")
        room = ffi.new("char[]", 4096)
        inbox.data, inbox.capacity = room, 4096
        key = by_hand.key(bytes(16), b"m")
        arguments = (near.fileno(), caller, key, b"", 0, NULL, inbox, FOREVER)
        assert lib.cm_call(*arguments) == 1


@pytest.mark.parametrize(
    "changed",
    [{"version": _wire.VERSION + 1}, {"count": 1}, {"descriptors": 1}, {"length": 60_000}, {"left": 1}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_call_by_hand_that_is_not_quite_one_is_answered_with_an_error(data, changed):
    """C leaves it to Python, which says what is wrong; a proper one on the same channel is answered after it."""
    capability = cm.capability(data)
    with by_hand.knock(capability) as near:
        for _ in range(2):
            near.send(by_hand.call(capability, b"echo", b"\x91\x07"))
            proper, _ = by_hand.answer(near)
            assert bytes(proper.payload) == b"\x07"
            near.send(by_hand.call(capability, b"echo", b"\x91\x07", **changed))
            assert by_hand.failure(near)


def test_many_threads_call_at_once(data):
    """Each gets its own answers."""

    def call(start):
        return [data.echo(value) for value in range(start, start + 200)]

    callers = [by_hand.Concurrent(call, start) for start in range(0, 4000, 500)]
    assert [caller.outcome() for caller in callers] == [list(range(s, s + 200)) for s in range(0, 4000, 500)]


def test_a_name_that_no_record_has_room_for_is_refused():
    """Its length has two bytes in a CALL."""

    def declared(self) -> None: ...

    make = type(cm.Interface)
    assert methods_of(make("Long", (cm.Interface,), {"m" * 65_535: cm.method(declared)}))
    with pytest.raises(cm.InterfaceError, match="more than 65535 bytes"):
        methods_of(make("TooLong", (cm.Interface,), {"m" * 65_536: cm.method(declared)}))
