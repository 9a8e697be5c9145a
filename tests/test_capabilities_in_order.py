"""Capabilities in order: as arguments beside data and descriptors, held already or not, and what is none."""

from __future__ import annotations

import io
import os
import socket

import msgspec
import pytest

import by_hand
import capmarshal as cm
import doors_by_hand
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._descriptors import reaper
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code
from capmarshal._typed.method import methods_of

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE = by_hand.PATIENCE
NO_BADGE = _wire.NO_BADGE
BADGE = b"b" * 16


class Thing(cm.Interface):
    @cm.method
    def name(self) -> str: ...


class ThingServer(Thing):
    def name(self):
        return "thing"


class Desk(cm.Interface):
    """Takes capabilities, in many ways."""

    @cm.method
    def take(self, thing: cm.Capability) -> int: ...

    @cm.method
    def typed(self, thing: Thing) -> str: ...

    @cm.method
    def two(self, first: cm.Capability, second: cm.Capability) -> int: ...

    @cm.method
    def beside(self, text: str, thing: Thing, file: cm.Descriptor, reader: io.BufferedReader) -> str: ...

    @cm.method
    def perhaps(self, thing: cm.Capability | None) -> int: ...

    @cm.method
    def many(self, thing: cm.Capability, files: list[cm.Descriptor]) -> int: ...

    @cm.method
    def default(self, thing: cm.Capability, value: int = 3) -> int: ...


class DeskServer(Desk):
    def __init__(self):
        self.held = []

    def take(self, thing):
        self.held.append(thing)
        return len(self.held)

    def typed(self, thing):
        self.held.append(thing)
        return type(thing).__mro__[1].__name__

    def two(self, first, second):
        self.held += [first, second]
        return len({first, second})

    def beside(self, text, thing, file, reader):
        self.held.append(thing)
        return text + os.pread(file.fileno(), 64, 0).decode() + reader.read().decode()

    def perhaps(self, thing):
        return 0 if thing is None else 1

    def many(self, thing, files):
        return len(files)

    def default(self, thing, value=3):
        return value


@pytest.fixture
def desk():
    """desk(): a proxy of it, its server and its entrypoint."""
    server = DeskServer()
    held = [server, cm.Entrypoint("desk")]
    with held[1], cm.timeout(PATIENCE):
        held.insert(0, held[1].manage(server).cast(Desk))
        yield lambda: held
        server.held.clear()
    # pytest holds what a fixture gave until after the descriptors are counted.
    held.clear()


@pytest.fixture
def make_door():
    """make_door(): the client end of another process's door."""
    ends = []

    def make():
        ends.extend(doors_by_hand.pair())
        return ends[-1]

    yield make
    for end in ends:
        end.close()


def _file(text):
    number = os.memfd_create("in order")
    os.pwrite(number, text, 0)
    return cm.Descriptor(number)


def _settled(open_descriptors):
    """What is open when the reaper, which closes what may block, has what it needs itself."""
    near, far = socket.socketpair()
    with near:
        reaper.close([cm.Descriptor(far.detach())])
        assert reaper.wait(PATIENCE)
    return open_descriptors()


def _send(near, proxy, method, payload, entries, sockets):
    capability = cm.capability(proxy)
    record = by_hand.call(
        capability,
        method=method,
        payload=msgspec.msgpack.encode(payload) if isinstance(payload, list) else payload,
        entries=entries,
        descriptors=len(sockets),
    )
    by_hand.send(near, record, [each.fileno() for each in sockets])


def _begin(near, proxy, door, *, held):
    """Has the knock answered for, by a call: whoever counts has the channel's other end open from here on.

    Args:
        door: is sent with it, and so is ``held`` from here on, if it is to be.
    """
    if held:
        _send(near, proxy, b"take", [0], [(0, BADGE)], [door])
    else:
        _send(near, proxy, b"perhaps", [None], [], [])
    by_hand.answer(near)


def test_which_methods_may_have_them_in_order():
    """Told by the annotations alone; whatever else is, goes by a table."""
    methods = methods_of(Desk)
    in_order = {name for name, method in methods.items() if method.arguments_in_order is not None}
    assert in_order == {b"take", b"typed", b"two", b"beside", b"perhaps", b"many", b"default"}


def test_what_is_held_is_the_same_object_and_costs_no_descriptor(desk, make_door, open_descriptors):
    """The first one is a new door; all that come after it are closed before the answer."""
    proxy, server, _ = desk()
    door = make_door()
    with by_hand.knock(cm.capability(proxy)) as near:
        counts = []
        for _ in range(4):
            _send(near, proxy, b"take", [0], [(0, BADGE)], [door])
            assert by_hand.answer(near)[0].payload
            counts.append(open_descriptors())
        assert all(each == counts[0] for each in counts)
        assert all(each is server.held[0] for each in server.held)
        _send(near, proxy, b"take", [0], [(0, b"c" * 16)], [door])
        by_hand.answer(near)
        assert server.held[-1] != server.held[0]
        assert open_door_of(server.held[-1]) is open_door_of(server.held[0])
        assert open_descriptors() == counts[0]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    ("payload", "badges", "answer"),
    [
        ([0, [1, 2]], [BADGE, NO_BADGE, NO_BADGE], b"\x02"),
        ([0, [2, 1]], [BADGE, NO_BADGE, NO_BADGE], b"\x02"),
        ([2, [0, 1]], [NO_BADGE, NO_BADGE, BADGE], b"\x02"),
        ([0, [1, 2]], [BADGE, NO_BADGE, BADGE], Code.ARGUMENT),
        ([0, [1, 2]], [NO_BADGE, NO_BADGE, NO_BADGE], Code.ARGUMENT),
        ([0, [1]], [BADGE, NO_BADGE, NO_BADGE], Code.ARGUMENT),
        ([0, [0, 1]], [BADGE, NO_BADGE, NO_BADGE], Code.ARGUMENT),
        ([None, [0, 1, 2]], [NO_BADGE, NO_BADGE, NO_BADGE], Code.ARGUMENT),
    ],
)
def test_a_list_beside_a_capability(desk, make_door, payload, badges, answer, held, open_descriptors, until):
    """Whose door is held or new, and which stands where it is due, or not; what nobody is given is closed."""
    proxy, server, _ = desk()
    door = make_door()
    with by_hand.knock(cm.capability(proxy)) as near:
        _begin(near, proxy, door, held=held)
        before = _settled(open_descriptors)
        for _ in range(2):
            _send(near, proxy, b"many", payload, list(enumerate(badges)), [door] * 3)
            came, _ = by_hand.answer(near)
            assert (came.code if isinstance(answer, Code) else came.payload) == answer
            until(lambda: open_descriptors() == before)
        assert len(server.held) == held


@pytest.mark.parametrize("held", [False, True])
def test_none_may_stand_for_a_capability_where_that_is_said(desk, make_door, held, open_descriptors, until):
    """And what came where None stands is refused."""
    proxy, server, _ = desk()
    door = make_door()
    with by_hand.knock(cm.capability(proxy)) as near:
        _begin(near, proxy, door, held=held)
        before = _settled(open_descriptors)
        for payload, entries, answer in (([0], [(0, BADGE)], b"\x01"), ([None], [], b"\x00")):
            _send(near, proxy, b"perhaps", payload, entries, [door] * len(entries))
            assert by_hand.answer(near)[0].payload == answer
            until(lambda: open_descriptors() == before)
        _send(near, proxy, b"perhaps", [None], [(0, BADGE)], [door])
        assert by_hand.failure(near) is Code.ARGUMENT
        until(lambda: open_descriptors() == before)
        assert len(server.held) == held


def test_what_comes_home_is_the_object_itself_or_a_proxy_of_it(desk):
    """Its own entrypoint's handler gets the object; that of another one in the process, a proxy."""
    proxy, server, entrypoint = desk()
    own, other = ThingServer(), ThingServer()
    with cm.Entrypoint("other") as elsewhere:
        capabilities = [entrypoint.manage(own), elsewhere.manage(other)]
        for _ in range(2):
            assert proxy.typed(own) == proxy.typed(capabilities[0].cast(Thing)) == "Thing"
            assert server.held[-2:] == [own, own]
            for passed in (other, capabilities[1].cast(Thing), capabilities[1]):
                proxy.typed(passed)
                assert server.held[-1] == capabilities[1].cast(Thing)
                assert server.held[-1].name() == "thing"
            for capability in capabilities:
                proxy.take(capability)
                assert server.held[-1] is capability
        server.held.clear()
        entrypoint.dissolve(own)
        with pytest.raises(cm.StaleCapability):
            proxy.take(capabilities[0])
        with pytest.raises(cm.StaleCapability):
            proxy.typed(capabilities[0])
        for each in capabilities:
            each.close()


def test_two_of_one_door_share_it_and_two_of_two_do_not(desk):
    """Also the same one twice."""
    proxy, server, entrypoint = desk()
    with cm.Entrypoint("other") as elsewhere:
        things = [ThingServer() for _ in range(3)]
        first, second, third = entrypoint.manage(things[0]), entrypoint.manage(things[1]), elsewhere.manage(things[2])
        for pair in ((first, second), (first, third), (third, first)):
            assert proxy.two(*pair) == 2
            assert server.held[-2:] == [*pair]
        assert proxy.two(first, first) == 1
        server.held.clear()
        for each in (first, second, third):
            each.close()


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    ("payload", "entries"),
    [
        ([0, 1], [(0, BADGE), (1, b"c" * 16)]),
        ([1, 0], [(0, BADGE), (1, b"c" * 16)]),
        ([0, 1], [(1, BADGE), (0, b"c" * 16)]),
        ([0, 1], [(0, BADGE), (0, b"c" * 16)]),
        ([1, 0], [(1, BADGE), (1, b"c" * 16)]),
    ],
    ids=["in order", "indices", "table", "shared", "shared, and the other for nothing"],
)
@pytest.mark.parametrize("same", [False, True])
def test_a_table_says_which_badge_goes_with_which_door(
    desk, make_door, payload, entries, held, same, open_descriptors, until
):
    """However its sender has it; the same socket may come twice."""
    proxy, server, _ = desk()
    doors = [make_door()] * 2 if same else [make_door(), make_door()]
    with by_hand.knock(cm.capability(proxy)) as near:
        if held:
            for each in doors:
                _send(near, proxy, b"take", [0], [(0, b"d" * 16)], [each])
                by_hand.answer(near)
        before = open_descriptors()
        _send(near, proxy, b"two", payload, entries, doors)
        assert by_hand.answer(near)[0].payload == b"\x02"
        for index, capability in zip(payload, server.held[-2:], strict=True):
            slot, badge = entries[index]
            assert badge_of(capability) == badge
            assert open_door_of(capability).key == doors_by_hand.cookie_of(doors[slot])
        if held:
            # What no line is of may be closed a little later.
            until(lambda: open_descriptors() == before)


def test_beside_data_and_descriptors(desk):
    """In the places of their parameters; a reader as a descriptor, and the other way round."""
    proxy, server, entrypoint = desk()
    thing = ThingServer()
    capability = entrypoint.manage(thing)
    for _ in range(3):
        with _file(b"file") as file, _file(b"reader").open() as reader:
            assert proxy.beside("text ", thing, file, reader) == "text filereader"
            reader.seek(0)
            assert proxy.beside("text ", capability, reader, file) == "text readerfile"
        assert proxy.default(capability) == proxy.default(thing=capability) == 3
        assert proxy.default(capability, 4) == proxy.default(value=4, thing=capability) == 4
        assert [proxy.perhaps(None), proxy.perhaps(capability)] == [0, 1]
        with _file(b"") as file:
            assert proxy.many(capability, [file] * 3) == 3
    server.held.clear()
    capability.close()


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("take", lambda capability, file: (file,)),
        ("take", lambda capability, file: (0,)),
        ("take", lambda capability, file: (None,)),
        ("typed", lambda capability, file: (ThingServer(),)),
        ("two", lambda capability, file: (capability, 1)),
        ("beside", lambda capability, file: ("", file, capability, file)),
        ("beside", lambda capability, file: (capability, capability, file, file)),
        ("beside", lambda capability, file: ("", capability, file, 3)),
    ],
)
def test_what_does_not_fit_is_refused_by_name_before_anything_is_sent(desk, method, wrong):
    """As everywhere: the error names the parameter."""
    proxy, server, entrypoint = desk()
    capability = entrypoint.manage(ThingServer())
    with _file(b"") as file, pytest.raises(cm.ArgumentError, match=r"argument `(thing|second|text|file|reader)`"):
        getattr(proxy, method)(*wrong(capability, file))
    assert not server.held
    capability.close()
    with pytest.raises(cm.Closed):
        proxy.take(capability)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    "payload",
    [b"\x92\x00\x00", b"\x92\x00\x02", b"\x92\x00\xff", b"\x92\x00\xc3", b"\x91\x00", b"\x93\x00\x01\x02", b"\x92\x00"],
    ids=["twice", "past the end", "-1", "True", "too few", "too many", "cut"],
)
def test_indices_that_are_not_theirs_are_a_bad_argument(desk, make_door, payload, held, open_descriptors, until):
    """What came is closed, and the channel lives."""
    proxy, server, _ = desk()
    doors = [make_door(), make_door()]
    with by_hand.knock(cm.capability(proxy)) as near:
        if held:
            for each in doors:
                _send(near, proxy, b"take", [0], [(0, BADGE)], [each])
                by_hand.answer(near)
        before = open_descriptors()
        for _ in range(2):
            _send(near, proxy, b"two", payload, [(0, BADGE), (1, BADGE)], doors)
            assert by_hand.failure(near) is Code.ARGUMENT
        assert len(server.held) == (2 if held else 0)
        if held:
            until(lambda: open_descriptors() == before)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", ["file", "TCP", "plain", "unconnected"])
def test_what_is_no_door_is_refused_beside_one_that_is_held(desk, make_door, kind, first, open_descriptors, until):
    """Whichever stands first; neither is kept, and the held one stays what it is."""
    proxy, server, _ = desk()
    door = make_door()
    strange = {
        "file": lambda: os.fdopen(os.memfd_create("strange"), "rb"),
        "TCP": socket.socket,
        "plain": make_door,
        "unconnected": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET),
    }[kind]()
    with strange, by_hand.knock(cm.capability(proxy)) as near:
        _send(near, proxy, b"take", [0], [(0, BADGE)], [door])
        by_hand.answer(near)
        before = open_descriptors()
        for _ in range(2):
            badges = [BADGE, NO_BADGE if kind == "plain" else BADGE]
            order = [1, 0] if first else [0, 1]
            sent = [(door, strange)[each] for each in order]
            _send(near, proxy, b"two", [0, 1], [(at, badges[each]) for at, each in enumerate(order)], sent)
            assert by_hand.failure(near) is Code.ARGUMENT
        assert len(server.held) == 1
        until(lambda: open_descriptors() == before)
        _send(near, proxy, b"take", [0], [(0, BADGE)], [door])
        by_hand.answer(near)
        assert server.held[0] is server.held[1]


def test_a_forged_badge_is_stale_and_a_copied_one_is_no_object_of_ours(desk, make_door):
    """A door of our own with a badge that nobody has; a door of somebody else's with one of ours."""
    proxy, server, entrypoint = desk()
    capability = cm.capability(proxy)
    thing = entrypoint.manage(ThingServer())
    door = socket.socket(fileno=os.dup(open_door_of(capability).number))
    with door, by_hand.knock(capability) as near:
        for method in (b"take", b"typed"):
            _send(near, proxy, method, [0], [(0, BADGE)], [door])
            assert by_hand.failure(near) is Code.STALE
        foreign = make_door()
        for _ in range(2):
            _send(near, proxy, b"typed", [0], [(0, badge_of(thing))], [foreign])
            by_hand.answer(near)
            assert cm.capability(server.held[-1]) != thing
            assert cm.capability(server.held[-1]).local is None
    thing.close()


def test_new_doors_are_bounded_and_what_is_refused_is_closed(make_door, open_descriptors, until):
    """Those that are held already still come in."""
    server = DeskServer()
    with cm.Entrypoint("few", limits=cm.Limits(doors=4)) as entrypoint:
        capability = entrypoint.manage(server)
        proxy = capability.cast(Desk)
        with by_hand.knock(capability) as near:
            _send(near, proxy, b"perhaps", [None], [], [])
            assert by_hand.answer(near)[0].payload == b"\x00"
            doors = [make_door() for _ in range(6)]
            refused = []
            for door in doors:
                before = open_descriptors()
                _send(near, proxy, b"take", [0], [(0, BADGE)], [door])
                answer, _ = by_hand.answer(near)
                if getattr(answer, "code", None) is Code.ARGUMENT:
                    assert "limits.doors" in answer.message
                    refused.append(door)
                    until(lambda before=before: open_descriptors() == before)
                else:
                    assert len(open_descriptors()) == len(before) + 1
            assert 0 < len(server.held) <= 4
            assert len(refused) == len(doors) - len(server.held)
            _send(near, proxy, b"take", [0], [(0, BADGE)], [doors[0]])
            assert by_hand.answer(near)[0].payload
            assert server.held[-1] is server.held[0]
        server.held.clear()
        capability.close()
