"""Objects that go by themselves: a method returns what nobody manages (`_server/result_grants`, `grants_counted`)."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import weakref

import pytest

import by_hand
import capmarshal as cm
import full_table
import left_behind
import matrix
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import reaper
from capmarshal._server import grants_counted
from capmarshal._server.clients import Peer, User
from capmarshal._server.grants_counted import GrantsCounted
from capmarshal._server.shares import Shares
from interrupting import Interrupting
from patience import PATIENCE, until
from plugin import Plugin


class File(cm.Interface):
    @cm.method
    def name(self) -> str: ...

    @cm.method
    def opened_by(self) -> str: ...


@dataclasses.dataclass
class Found:
    """What is found, in a result."""

    where: str
    file: File
    others: dict[str, File]


class Folder(cm.Interface):
    @cm.method
    def open(self, name: str) -> File: ...

    @cm.method
    def find(self, name: str) -> File | None: ...

    @cm.method
    def twice(self, name: str) -> list[File]: ...

    @cm.method
    def several(self, names: list[str]) -> Found: ...

    @cm.method
    def any(self, name: str) -> cm.Capability: ...

    @cm.method
    def wrong(self, what: str) -> list[File]: ...

    @cm.method
    def itself(self) -> list[Folder]: ...

    @cm.method
    def leave(self, room: int) -> int: ...

    @cm.method
    def within(self, other: Folder) -> str: ...

    @cm.method
    def block(self, started: cm.Descriptor, go: cm.Descriptor) -> File: ...

    @cm.method
    def block_itself(self, started: cm.Descriptor, go: cm.Descriptor) -> Folder: ...


class FileServer(File):
    def __init__(self, name):
        self._name = name

    def name(self):
        return self._name

    def opened_by(self):
        return cm.caller().label


class Awaited(cm.Interface):
    @cm.method
    async def name(self) -> str: ...


class AwaitedServer(Awaited):
    async def name(self):
        return ""


class Misfit(File):
    def name(self, more):
        return more

    def opened_by(self):
        return ""


class FolderServer(Folder):
    def __init__(self):
        self.made = []
        self.taken = []

    def make(self, name):
        file = FileServer(name)
        self.made.append(weakref.ref(file))
        return file

    def open(self, name):
        return self.make(name)

    def find(self, name):
        return self.make(name) if name else None

    def twice(self, name):
        return [self.make(name)] * 2

    def several(self, names):
        return Found("here", self.make(names[0]), {name: self.make(name) for name in names[1:]})

    def any(self, name):
        return self.make(name)

    def wrong(self, what):
        return [self.make("good"), {"awaited": AwaitedServer(), "misfit": Misfit(), "int": 3}[what]]

    def itself(self):
        return [self, self]

    def block_itself(self, started, go):
        by_hand.AwaitingWorker.block(by_hand.AwaitingWorker(), started, go)
        return self

    def leave(self, room):
        """Leaves room for so many descriptors, -1: for all; how many objects are alive."""
        for number in self.taken:
            os.close(number)
        assert reaper.wait(PATIENCE)
        self.taken = full_table.fill(room) if room >= 0 else []
        return self.alive()

    def within(self, other):
        file = other.open("inner")
        return f"{file.name()} {file.opened_by()}"

    def block(self, started, go):
        by_hand.AwaitingWorker.block(by_hand.AwaitingWorker(), started, go)
        return self.make("late")

    def alive(self):
        return sum(one() is not None for one in self.made)


@pytest.fixture
def target():
    return FolderServer()


def grants(entrypoint):
    """How many the server has."""
    return len(entrypoint._service.grants._in_force)


def test_wherever_an_interface_is_due(entrypoint, target):
    """Alone, or none, in a list, in a dataclass and in a dict; as a capability: each is called, and goes."""
    folder = entrypoint.manage(target).cast(Folder)
    assert folder.find("") is None
    found = folder.several(["a", "b", "c"])
    files = [folder.open("d"), folder.find("e"), folder.any("f").cast(File), found.file, *found.others.values()]
    assert [file.name() for file in files] == ["d", "e", "f", "a", "b", "c"]
    assert target.alive() == grants(entrypoint) == 6
    del files, found
    gc.collect()
    until(lambda: not grants(entrypoint))
    assert not target.alive()
    assert len(entrypoint._objects._remembered) == 1


def test_in_another_process(entrypoint, target, fork):
    """The server keeps no client end: when the one there is closed, or its process killed, the object goes."""
    folder = entrypoint.manage(target).cast(Folder)
    with by_hand.pipe() as (called, calling), by_hand.pipe() as (ended, end):

        def hold():
            end.close()
            file = folder.open("a")
            assert file.name() == "a"
            calling.write(b".")
            by_hand.at_end(ended)

        holder = fork(hold)
        assert called.read(1) == b"."
        assert target.alive() == 1
        holder.kill()
        until(lambda: not target.alive())
    assert not grants(entrypoint)


def test_what_one_costs_its_server(entrypoint, target, fork):
    """One descriptor, and a second as long as it is called by a kept channel."""
    folder = entrypoint.manage(target).cast(Folder)

    def hold(step):
        assert folder.find("") is None
        step()
        file = folder.open("a")
        step()
        assert file.name() == "a"
        step()

    plugin = Plugin(fork, hold)
    before = len(left_behind.open_numbers())
    for more in (1, 2):
        plugin.go_on()
        # The client's end, which left with the answer, is closed behind it.
        until(lambda more=more: len(left_behind.open_numbers()) == before + more)
    plugin.result()


def test_one_that_is_twice_in_a_result_is_one(entrypoint, target):
    """And comes as one."""
    folder = entrypoint.manage(target).cast(Folder)
    one, other = folder.twice("a")
    assert one == other
    assert grants(entrypoint) == 1
    again = folder.open("a")
    assert again != one
    assert grants(entrypoint) == 2


def test_one_that_is_managed_stays_so(entrypoint, target):
    """Or is granted: what is managed has its capability, and a grant is one of several."""
    managed = FileServer("managed")
    known = entrypoint.manage(managed)
    target.make = lambda _name: managed
    assert entrypoint.manage(target).cast(Folder).any("") is known
    assert not grants(entrypoint)


@pytest.mark.parametrize("managed", [True, False])
def test_a_grant_returns_the_object_itself_as_that_grant(entrypoint, target, managed):
    """Returned through a grant it is that grant: no more can be called of it, and it is revoked with that."""
    if managed:
        entrypoint.manage(target)
    granted = entrypoint.grant(target, only=(Folder.itself, Folder.block_itself))
    one, other = granted.cast(Folder).itself()
    assert cm.capability(one) is cm.capability(other) is granted
    with pytest.raises(cm.UnknownMethod, match="only"):
        one.find("")
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        blocking = by_hand.Concurrent(one.block_itself, began, going)
        assert started.read(1) == b"."
        entrypoint.revoke(granted, "over")
        go.close()
        late = blocking.outcome()
    for folder in (one, late):
        with pytest.raises(cm.Revoked, match="over"):
            folder.itself()
    assert not grants(entrypoint)


def test_what_manage_gave_returns_the_object_itself_as_that(entrypoint, target):
    """By the capability by which it was called, and not by a grant of its own."""
    known = entrypoint.manage(target)
    assert [cm.capability(folder) for folder in known.cast(Folder).itself()] == [known] * 2


def test_it_has_the_label_by_which_its_maker_was_called(entrypoint, target):
    """The caller's grant's, or the entrypoint's."""
    root, granted = entrypoint.manage(target), entrypoint.grant(target, label="plugin 3")
    assert root.cast(Folder).open("a").opened_by() == "files"
    file = granted.cast(Folder).open("a")
    assert file.opened_by() == "plugin 3"
    # It has a door of its own: to be taken back is its grant's affair.
    entrypoint.revoke(granted)
    assert file.name() == "a"


def test_a_call_that_a_method_makes_is_given_one(entrypoint, target):
    """Inline, in the serving thread."""
    folder = entrypoint.manage(target).cast(Folder)
    assert folder.within(folder) == "inner "
    until(lambda: not grants(entrypoint))


def test_one_that_comes_home_is_the_object_itself(entrypoint, target):
    """Its server has no proxy of what it made."""
    file = entrypoint.manage(target).cast(Folder).any("a")
    assert file.local is target.made[0]()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("awaited", "Folder.wrong, result: AwaitedServer"),
        ("misfit", r"Folder.wrong, result: Misfit.name wants `more`"),
        ("int", "Folder.wrong, result: "),
    ],
)
def test_what_cannot_be_served_fails_the_call(entrypoint, target, what, words, caplog):
    """Names the method; the good one beside it is let go."""
    # A traceback in the log refers to what was returned.
    caplog.set_level(logging.CRITICAL, "capmarshal")
    with pytest.raises(cm.RemoteError, match=words):
        entrypoint.manage(target).cast(Folder).wrong(what)
    until(lambda: not grants(entrypoint))
    assert not target.alive()


def test_an_argument_is_still_to_be_managed(entrypoint, target):
    """Only a result is granted by itself: who passes an object that has no capability is told so."""
    with pytest.raises(cm.ArgumentError, match="FolderServer object is not managed"):
        entrypoint.manage(target).cast(Folder).within(FolderServer())


def test_an_answer_that_nobody_wants_leaves_nothing(entrypoint, target):
    """Its client is gone before it is made, or has not received it: nothing is left."""
    granted = entrypoint.manage(target)
    near = by_hand.knock(granted)
    with near, by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        entries = [(0, bytes(16)), (1, bytes(16))]
        by_hand.send(
            near, by_hand.call(granted, b"block", b"\x92\x00\x01", entries, 2), [began.fileno(), going.fileno()]
        )
        assert started.read(1) == b"."
        near.close()
        go.close()
    with by_hand.knock(granted) as near:
        near.send(by_hand.call(granted, b"open", b"\x91\xa1a"))
        until(lambda: target.made and target.made[-1]() is not None and grants(entrypoint))
    until(lambda: not grants(entrypoint))
    assert not target.alive()


def test_a_table_that_is_full(fork):
    """The call fails at its client, which is told whose table it is; nothing is left of it, and others go on."""
    with by_hand.server_process(fork, FolderServer, table=64) as (_server, capability):
        folder = capability.cast(Folder)
        for room in (0, 1):
            folder.leave(room)
            kept, words = [], r"Folder.open.* at the server, making a door: descriptor table full"
            with pytest.raises(cm.TableFull, match=words):
                # More than one where a channel of before has ended meanwhile.
                kept.extend(folder.open("a") for _ in range(3))
            assert folder.find("") is None
            assert folder.leave(-1) == len(kept)
        assert folder.open("b").name() == "b"


def test_as_many_as_a_process_may_have(target, fork, caplog):
    """One more fails, is in the log, and others are not concerned; what is let go makes room."""
    limits = cm.Limits(grants=30)
    with cm.Entrypoint("files", limits=limits) as entrypoint:
        folder = entrypoint.manage(target).cast(Folder)

        def hoard():
            kept = []
            with pytest.raises(cm.TooLarge, match=r"10 objects that went to process \d+ .*\(limits.grants\)"):
                kept.extend(folder.open("a") for _ in range(30))
            assert len(kept) == 10
            kept.pop()
            gc.collect()
            until_it_goes(lambda: kept.append(folder.open("b")))
            return len(kept)

        assert fork(hoard).result() == 10
        # This process's own are its own affair.
        own = [folder.open("c") for _ in range(40)]
        assert fork(lambda: folder.open("d").name()).result() == "d"
        assert "a result was not sent: 10 objects" in caplog.text
        del own
        gc.collect()
        until(lambda: not grants(entrypoint))
        handed = entrypoint._service.grants.counted
        assert (handed._to, handed._of) == ({}, {})


def test_as_many_as_a_process_may_have_by_connecting(target, fork, place, caplog):
    """A grant for each client that connects is bounded as what calls give: one process fills no table."""
    limits = cm.Limits(grants=30)
    with cm.Entrypoint("files", limits=limits) as entrypoint:
        entrypoint.listen(place, for_client=lambda _: entrypoint.grant(target))

        def hoard():
            kept = []
            with pytest.raises(cm.Refused, match=r"10 objects that went to process \d+"):
                kept.extend(cm.connect(place, PATIENCE) for _ in range(30))
            assert all(each.cast(Folder).find("") is None for each in kept)
            return len(kept)

        assert fork(hoard).result() == 10
        assert fork(lambda: cm.connect(place, PATIENCE).cast(Folder).open("d").name()).result() == "d"
        assert "a client was not let in: 10 objects" in caplog.text
        until(lambda: not grants(entrypoint))


def until_it_goes(deed):
    """Has something done as soon as there is room for it."""

    def done():
        try:
            deed()
        except cm.TooLarge:
            return False
        return True

    until(done)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")
def test_as_many_as_a_user_and_all_may_have(target, fork):
    """However many processes of the user there are; and whoever else comes when there are as many as there may be."""
    limits = cm.Limits(grants=4, process_share=1 / 4, user_share=3 / 4)
    with cm.Entrypoint("files", limits=limits) as entrypoint, contextlib.ExitStack() as held:
        folder = entrypoint.manage(target).cast(Folder)

        def hold(**whose):
            """A process that holds one, until the block ends."""
            opened, opening = os.pipe()
            ended, end = os.pipe()
            for number in (opened, ended, end):
                held.callback(os.close, number)

            def run():
                os.close(end)
                file = folder.open("a")
                os.write(opening, file.name().encode())
                os.close(opening)
                by_hand.at_end(os.fdopen(ended, "rb", closefd=False))

            child = fork(run, **whose)
            os.close(opening)
            assert os.read(opened, 1) == b"a", child.result()
            held.callback(child.kill)

        def refused():
            with pytest.raises(cm.TooLarge) as caught:
                folder.open("a")
            return str(caught.value).partition("may be: ")[2]

        for _ in range(3):
            hold()
        words = "by themselves can be reached still (limits.grants)"
        assert fork(refused).result() == f"3 objects that went to user {os.getuid()} {words}"
        hold(ordinary=True)
        assert fork(refused, ordinary=True).result() == f"4 objects that went {words}"


def test_ctrl_c_between_two_steps_of_counting():
    """What is over is counted no more, however far it was."""
    shares, at = Shares(cm.Limits(), 1000, 10), 0
    while True:
        # Process 1 is another one than this.
        handed, grant, peer = GrantsCounted(shares), object(), Peer(1, User(0), shares)
        interrupting = Interrupting(at, KeyboardInterrupt, [grants_counted.__file__])
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            handed.add(grant, peer)
            handed.remove(grant)
        handed.remove(grant)
        assert (handed._to, handed._of) == ({}, {}), interrupting.where
        if not interrupting.where:
            break
        at += 1
    assert at > 10


def test_of_an_entrypoint_that_ends(target):
    """What was handed out ends with it, and the object is let go."""
    with cm.Entrypoint("files") as entrypoint:
        file = entrypoint.manage(target).cast(Folder).open("a")
        number = open_door_of(cm.capability(file)).number
        assert os.fstat(number)
    with pytest.raises(cm.Disconnected):
        file.name()
    assert not target.alive()


@matrix.trio_keeps_results
@pytest.mark.parametrize("ends", ["well", "badly"])
def test_the_garbage_collector_is_not_needed(entrypoint, target, ends, caplog):
    """It counts objects, and not the descriptors that these hold; a program may have turned it off."""
    # A traceback in the log refers to what was returned.
    caplog.set_level(logging.CRITICAL, "capmarshal")
    folder = entrypoint.manage(target).cast(Folder)
    gc.disable()
    try:
        if ends == "well":
            assert folder.open("a").name() == "a"
        else:
            with pytest.raises(cm.RemoteError):
                folder.wrong("int")
        until(lambda: not target.alive())
    finally:
        gc.enable()
