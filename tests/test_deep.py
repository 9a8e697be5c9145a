"""Deep grants: what methods hand out through one belongs to it, and ends with it (`_server/deep`, `result_grants`)."""

from __future__ import annotations

import gc
import logging
import os
import weakref
from collections.abc import Iterator

import pytest

import by_hand
import capmarshal as cm
import left_behind
import matrix
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._capabilities.space import space
from capmarshal._protocol import faults, wire
from patience import until

# The payload of a call whose one argument is the first entry of the table, or "a".
FIRST, A = b"\x91\x00", b"\x91\xa1a"


class Folder(cm.Interface):
    @cm.method
    def open(self, name: str) -> Folder: ...

    @cm.method
    def many(self, count: int) -> list[Folder]: ...

    @cm.method
    def any(self, name: str) -> cm.Capability | None: ...

    @cm.method
    def mixed(self, name: str) -> tuple[cm.Descriptor, Folder, str]: ...

    @cm.method
    def walk(self) -> Iterator[str]: ...

    @cm.method
    def name(self) -> str: ...

    @cm.method
    def label(self) -> str: ...

    @cm.method
    def itself(self) -> Folder: ...

    @cm.method
    def is_me(self, other: Folder) -> bool: ...

    @cm.method
    def pass_on(self, what: cm.Capability) -> cm.Capability: ...

    @cm.method
    def open_within(self, folder: cm.Capability) -> tuple[str, str]: ...

    @cm.method
    def is_over(self) -> str: ...

    @cm.method
    def block(self, started: cm.Descriptor, go: cm.Descriptor) -> Folder: ...


class FolderServer(Folder):
    def __init__(self, name="root"):
        self.its_name = name
        self.made = {}
        self.given = None

    def open(self, name):
        return self.made.setdefault(name, FolderServer(name))

    def many(self, count):
        return [self.open(str(i)) for i in range(count)]

    def any(self, name):
        return self.given

    def mixed(self, name):
        return cm.Descriptor(os.dup(0)), self.open(name), name

    def walk(self):
        yield from self.made

    def name(self):
        return self.its_name

    def label(self):
        return cm.caller().label

    def itself(self):
        return self

    def is_me(self, other):
        return other is self

    def pass_on(self, what):
        return what

    def open_within(self, folder):
        self.opened = folder.cast(Folder).open("inner")
        return self.opened.label(), cm.capability(self.opened).label

    def is_over(self):
        opened, self.opened = self.opened, None
        try:
            return opened.name()
        except cm.Revoked as error:
            return str(error)

    def block(self, started, go):
        by_hand.AwaitingWorker.block(by_hand.AwaitingWorker(), started, go)
        return self.open("late")


@pytest.fixture
def target():
    return FolderServer()


@pytest.fixture
def granted(entrypoint, target):
    return entrypoint.grant(target, label="plugin", deep=True)


def kept(entrypoint):
    """How many objects can be called."""
    return len(entrypoint._objects._by_badge)


def test_what_is_handed_out_is_of_the_same_door(granted, entrypoint):
    """Whatever depth it comes from: its caller has the grant's label, and all goes as by any capability."""
    root = granted.cast(Folder)
    file = root.open("a").open("b")
    assert (file.name(), file.label()) == ("b", "plugin")
    assert open_door_of(cm.capability(file)) is open_door_of(granted)
    descriptor, other, name = root.mixed("c")
    with descriptor:
        assert (other.name(), name) == ("c", "c")
    assert root.any("") is None
    assert kept(entrypoint) == 4


def test_an_object_has_one_badge(granted, entrypoint):
    """It is the same capability each time; the root has its own."""
    root = granted.cast(Folder)
    assert cm.capability(root.open("a")) is cm.capability(root.open("a"))
    assert cm.capability(root.itself()) is granted
    assert cm.capability(root.open("a").itself()) is cm.capability(root.open("a"))
    assert kept(entrypoint) == 2


def test_in_another_process(granted, fork):
    """It costs no descriptor there, and none here."""
    root = granted.cast(Folder)

    def many():
        doors = space.doors()
        folders = root.many(100)
        assert {open_door_of(cm.capability(folder)) for folder in folders} == {open_door_of(granted)}
        assert space.doors() == doors
        return [folder.name() for folder in folders[::50]]

    assert fork(many).result() == ["0", "50"]


@matrix.thread_of_its_own
def test_ten_thousand(granted, entrypoint, target):
    """One descriptor, at each side; and the next that is more than may be fails."""
    root = granted.cast(Folder)
    root.open("0")
    before = len(left_behind.open_numbers())
    folders = root.many(10_000)
    assert len(left_behind.open_numbers()) == before
    assert kept(entrypoint) == 10_001
    assert folders[9_999].name() == "9999"
    entrypoint.revoke(granted)
    assert kept(entrypoint) == 0


def test_as_many_as_may_be(entrypoint, target):
    """One more fails; those that are there can be had again, and others are not concerned."""
    granted = entrypoint.grant(target, label="plugin", deep=True, objects=3)
    root = granted.cast(Folder)
    assert len(root.many(3)) == 3
    words = r"Folder.open.* one object more than may go out through the grant 'plugin': 3 \(objects\)"
    with pytest.raises(cm.TooLarge, match=words):
        root.open("more")
    assert root.open("2").name() == "2"
    assert root.itself() == root
    assert entrypoint.grant(target, deep=True, objects=1).cast(Folder).open("a").name() == "a"
    with pytest.raises(ValueError, match="objects is a whole number"):
        entrypoint.grant(target, deep=True, objects=0)
    with pytest.raises(TypeError, match="objects is how many may belong to a deep grant"):
        entrypoint.grant(target, objects=3)


def test_by_default_65536(granted, entrypoint):
    """All of them in use, in an entrypoint's own table."""
    grant = entrypoint._service.grants.at(open_door_of(granted).key)
    grant.deep._by[0] = {-i: (None, b"") for i in range(1, 65_536)}
    root = granted.cast(Folder)
    root.open("a")
    with pytest.raises(cm.TooLarge, match="65536"):
        root.open("b")
    grant.deep._by.clear()


def test_all_of_it_is_revoked(granted, entrypoint, target, fork):
    """At once, for whoever has it; a managed object lives on where it is managed."""
    root, managed = granted.cast(Folder), FolderServer("managed")
    other = entrypoint.manage(managed).cast(Folder)
    target.made["managed"] = managed
    folders = [root.open("a").open("b"), root.open("managed")]
    assert [folder.name() for folder in folders] == ["b", "managed"]
    with by_hand.pipe() as (revoked, revoking):

        def outcome():
            revoking.close()
            by_hand.at_end(revoked)
            for folder in folders:
                with pytest.raises(cm.Revoked, match="misbehaved"):
                    folder.name()

        child = fork(outcome)
        entrypoint.revoke(granted, "misbehaved")
        revoking.close()
        child.result()
    for folder in folders:
        with pytest.raises(cm.Revoked, match="misbehaved"):
            folder.name()
        assert cm.capability(folder).local is None
    assert other.name() == "managed"
    # The managed one.
    assert kept(entrypoint) == 1
    target.made.clear()


def test_it_lives_as_long_as_the_grant(entrypoint, target):
    """Not as long as the capability of it, which may come again; and not longer."""
    unreachable = []
    granted = entrypoint.grant(target, deep=True, unreachable=unreachable.append)
    root = granted.cast(Folder)
    file = root.open("a")
    alive = weakref.ref(target.made.pop("a"))
    assert cm.capability(file).local is alive()
    del granted, root
    gc.collect()
    # It holds the door.
    assert file.name() == "a"
    assert not unreachable
    del file
    gc.collect()
    until(lambda: unreachable)
    until(lambda: alive() is None)
    assert kept(entrypoint) == 0


def test_a_call_in_progress_is_answered(granted, entrypoint):
    """By whoever revoked it: what it hands out is over already, and nothing is kept of that."""
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        blocking = by_hand.Concurrent(granted.cast(Folder).block, began, going)
        assert started.read(1) == b"."
        entrypoint.revoke(granted, "over")
        go.close()
        late = blocking.outcome()
    with pytest.raises(cm.Revoked, match="over"):
        late.name()
    assert kept(entrypoint) == 0


def test_calls_that_a_method_makes_through_it(granted, entrypoint, target):
    """In the serving thread, or in its loop: what they open belongs to the grant, and ends with it."""
    opener = entrypoint.manage(FolderServer("opener")).cast(Folder)
    assert opener.open_within(granted) == ("plugin", "plugin")
    assert len(entrypoint._service.grants._in_force) == 1
    entrypoint.revoke(granted, "over")
    assert opener.is_over().endswith("over")


def test_dissolve_waits_for_calls_through_it(granted, entrypoint, target):
    """Of what it has handed out."""
    file = granted.cast(Folder).open("a")
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        blocking = by_hand.Concurrent(file.block, began, going)
        assert started.read(1) == b"."
        dissolving = by_hand.Concurrent(entrypoint.dissolve, target.made["a"])
        dissolving.join(0.05)
        assert dissolving.is_alive()
        go.close()
        late = blocking.outcome()
    dissolving.outcome()
    assert late.name() == "late"
    with pytest.raises(cm.StaleCapability):
        file.name()


def test_only_holds_for_the_root(entrypoint, target):
    """What it returns is whole, but for itself, whichever way that comes."""
    granted = entrypoint.grant(target, deep=True, only=(Folder.open, Folder.itself, Folder.pass_on))
    root = granted.cast(Folder)
    assert root.open("a").name() == "a"
    with pytest.raises(cm.UnknownMethod, match="only"):
        root.itself().name()
    assert root.pass_on(granted) is granted


def test_what_comes_home(entrypoint, target):
    """The object itself; of a restricted root a proxy still."""
    plain = entrypoint.manage(target).cast(Folder)
    for only in (None, (Folder.open,)):
        root = entrypoint.grant(target, deep=True, only=only).cast(Folder)
        file = root.open("a")
        assert file.is_me(file)
        assert cm.capability(file).local is target.made["a"]
        assert plain.is_me(root) == (only is None)
        assert plain.pass_on(cm.capability(file)) is cm.capability(file)


def test_what_the_entrypoint_serves_otherwise(granted, entrypoint, target):
    """Managed, and as a capability or a proxy, also of another grant: it is of this door from here on."""
    managed = FolderServer("managed")
    other = entrypoint.grant(FolderServer("other"))
    root = granted.cast(Folder)
    for target.given, name in (
        (managed, "managed"),
        (entrypoint.manage(managed), "managed"),
        (entrypoint.manage(managed).cast(Folder), "managed"),
        (other, "other"),
        (granted, "root"),
    ):
        given = root.any("")
        assert given.cast(Folder).name() == name
        assert open_door_of(given) is open_door_of(granted)
    assert root.pass_on(cm.capability(root.open("a"))) is cm.capability(root.open("a"))
    entrypoint.revoke(granted)
    assert other.cast(Folder).name() == "other"
    target.given = None


def test_what_it_hands_out_by_another_grant_ends_with_that_one(granted, entrypoint, target):
    """A holder of both has a method give it the other's capability: it has no way to the object that outlives that."""
    root, page = granted.cast(Folder), FolderServer("page")
    other = entrypoint.grant(page, label="other")
    echo, again = root.pass_on(other), root.pass_on(other)
    assert echo is again
    assert open_door_of(echo) is open_door_of(granted)
    target.given = page
    mine = root.any("")
    assert mine is not echo
    assert [one.cast(Folder).name() for one in (echo, mine)] == ["page"] * 2
    entrypoint.revoke(other, "over")
    with pytest.raises(cm.StaleCapability):
        echo.cast(Folder).name()
    # What the method gives of its own goes on; and of what is over comes what is over.
    assert mine.cast(Folder).name() == "page"
    target.given = other
    with pytest.raises(cm.StaleCapability):
        root.any("").cast(Folder).name()
    assert kept(entrypoint) == 2
    target.given = None
    entrypoint.dissolve(page)
    assert kept(entrypoint) == 1


def test_a_grant_that_a_method_makes_for_what_it_returns(granted, entrypoint, target):
    """It is not kept, so that nobody can reach the object by it; by this one it can be reached."""
    gone = []
    target.given = entrypoint.grant(FolderServer("other"), unreachable=gone.append)
    given = granted.cast(Folder).any("")
    target.given = None
    gc.collect()
    until(lambda: gone)
    assert given.cast(Folder).name() == "other"
    gone.clear()


def test_others_do_not_remember_a_deep_grant_that_is_over(granted, entrypoint):
    """Nor it them."""
    other = entrypoint.grant(FolderServer("other"))
    its_grant, grant = (entrypoint._service.grants.at(open_door_of(one).key) for one in (other, granted))
    granted.cast(Folder).pass_on(other)
    assert its_grant.passed_on == {grant}
    entrypoint.revoke(granted)
    assert not its_grant.passed_on
    assert other.cast(Folder).name() == "other"


def test_what_a_hostile_holder_brings(granted, entrypoint, target, quiet_log):
    """Restricted, foreign or gone: no method that passes on what it is given makes more of it."""
    root = granted.cast(Folder)
    restricted = entrypoint.grant(FolderServer(), label="restricted", only=(Folder.name,))
    with pytest.raises(cm.RemoteError, match=r"Folder.pass_on, result: a capability of the grant 'restricted', which"):
        root.pass_on(restricted)
    with cm.Entrypoint("another") as another:
        foreign = another.manage(FolderServer())
        with pytest.raises(
            cm.RemoteError, match=r"Folder.pass_on, result: a capability of 'another', which is none of"
        ):
            root.pass_on(foreign)
        target.given = foreign.local
        with pytest.raises(cm.RemoteError, match=r"Folder.any, result: a capability of 'another'"):
            root.any("")
        target.given = None
    with cm.SignalReceiver() as receiver:
        target.given = cm.capability(receiver.signal)
        with pytest.raises(cm.RemoteError, match="result: a signal, which has a door of its own"):
            root.any("")
        target.given = None
    gone = entrypoint.manage(FolderServer("gone"))
    entrypoint.dissolve(gone.local)
    with pytest.raises(cm.StaleCapability):
        root.pass_on(gone)
    assert kept(entrypoint) == 2


def test_what_another_process_serves_is_refused(granted, fork, quiet_log):
    """Passed on by a method to which it was given."""
    root = granted.cast(Folder)
    with by_hand.server_process(fork) as (_server, foreign):
        with pytest.raises(cm.RemoteError, match="'elsewhere', which is none of this entrypoint's"):
            root.pass_on(foreign)


@matrix.streams_are_awaited
def test_a_stream_is_refused(granted):
    """It would have a door of its own, which is not revoked with the grant."""
    with by_hand.knock(granted) as near:
        near.send(by_hand.call(granted, b"walk", b"\x90"))
        fault, _ = by_hand.answer(near)
        assert fault.code == faults.Code.UNSENDABLE
        assert "it is a stream" in fault.message
        near.send(by_hand.call(granted, b"name", b"\x90"))
        assert isinstance(by_hand.answer(near)[0], wire.Reply)


def test_the_log_says_whose_fault_it_was(granted, entrypoint, caplog):
    with cm.Entrypoint("another") as another, pytest.raises(cm.RemoteError):
        granted.cast(Folder).pass_on(another.manage(FolderServer()))
    assert [record for record in caplog.records if record.levelno == logging.ERROR]
    # Its traceback refers to the entrypoint.
    caplog.clear()


def test_through_another_door_it_is_stale(granted, entrypoint, target):
    """The root door, and another deep grant's of the same object."""
    badge = badge_of(cm.capability(granted.cast(Folder).open("a")))
    others = entrypoint.manage(target), entrypoint.grant(target, deep=True)
    others[1].cast(Folder).open("a")
    for other in others:
        forged = space.capability(open_door_of(other), badge)
        with by_hand.knock(forged) as near:
            near.send(by_hand.call(forged, b"name", b"\x90"))
            assert by_hand.failure(near) == faults.Code.STALE


@pytest.mark.parametrize("badge", [bytes(16), b"b" * 16])
def test_this_door_in_a_call_is_malformed(granted, badge):
    """Alone, beside another, and behind a descriptor; and answered: the channel goes on."""
    with by_hand.knock(granted) as near, by_hand.pipe() as (reader, _):
        line = (wire.THIS_DOOR, badge)
        for entries, numbers in (
            ([line], []),
            ([line] * 2, []),
            ([(0, bytes(16)), line], [reader.fileno()]),
            ([line], [reader.fileno()]),
        ):
            by_hand.send(near, by_hand.call(granted, b"pass_on", FIRST, entries, len(numbers)), numbers)
            assert by_hand.failure(near) == faults.Code.MALFORMED
        near.send(by_hand.call(granted, b"open", A))
        reply, numbers = by_hand.answer(near)
        assert not numbers
        assert [entry.slot for entry in reply.entries] == [wire.THIS_DOOR]


def test_a_name_that_is_no_plain_grants(entrypoint, target):
    """Without deep, nothing is of this door."""
    granted = entrypoint.grant(target)
    with by_hand.knock(granted) as near:
        near.send(by_hand.call(granted, b"open", A))
        reply, numbers = by_hand.answer(near)
        assert [entry.slot for entry in reply.entries] == [0]
        for number in numbers:
            os.close(number)


def test_a_capability_that_belongs_to_it_is_not_revoked_alone(granted, entrypoint):
    """To dissolve its object ends it."""
    file = granted.cast(Folder).open("a")
    with pytest.raises(ValueError, match="belongs to a deep grant"):
        entrypoint.revoke(file)
    entrypoint.dissolve(cm.capability(file).local)
    with pytest.raises(cm.StaleCapability):
        file.name()
    assert granted.cast(Folder).name() == "root"
    assert kept(entrypoint) == 1
