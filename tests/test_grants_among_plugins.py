"""Plugins are processes of their own, each with a grant: what one does to another, and to their server."""

from __future__ import annotations

import array
import gc
import os
import socket
import struct

import msgspec
import pytest

import by_hand
import capmarshal as cm
import left_behind
import matrix
from by_hand import Work
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._capabilities.space import space
from capmarshal._protocol import faults, wire
from patience import PATIENCE, until
from plugin import Plugin


class Folder(Work):
    @cm.method
    def open(self, name: str) -> Folder: ...

    @cm.method
    def many(self, count: int) -> list[Folder]: ...

    @cm.method
    def name(self) -> str: ...

    @cm.method
    def who(self) -> tuple[int, int, int]: ...


class FolderServer(by_hand.AwaitingWorker, Folder):
    def __init__(self, name="root"):
        super().__init__()
        self.its_name = name

    def open(self, name):
        return FolderServer(name)

    def many(self, count):
        return [FolderServer(str(i)) for i in range(count)]

    def name(self):
        return self.its_name

    def who(self):
        caller = cm.caller()
        return caller.pid, caller.uid, caller.gid


@pytest.fixture
def entrypoint(request):
    with cm.Entrypoint("files") as made:
        yield made
    # pytest still holds it when the descriptors are counted.
    request.node.funcargs.pop("entrypoint")


def end_of(call, words=""):
    """How a call ends that is to fail."""
    try:
        with cm.timeout(PATIENCE):
            return call()
    except cm.Error as error:
        return type(error).__name__, getattr(error, "ran", ""), words in str(error)


def test_one_that_knows_the_badge_of_another(entrypoint, fork):
    """Through its own door it is stale: by hand, in a call, and as an argument, whoever's it is."""
    granted, other, root = (make(FolderServer()) for make in (entrypoint.grant, entrypoint.grant, entrypoint.manage))

    def misuse():
        said = []
        for badge in (other, root):
            forged = space.capability(open_door_of(granted), badge_of(badge))
            with by_hand.knock(forged) as near:
                near.send(by_hand.call(forged))
                said.append(by_hand.failure(near))
            said.append(end_of(lambda forged=forged: forged.cast(Work).double(1))[0])
            said.append(end_of(lambda forged=forged: granted.cast(Work).take(forged))[0])
        return said, granted.cast(Work).double(1)

    assert fork(misuse).result() == ([faults.Code.STALE, "StaleCapability", "StaleCapability"] * 2, 2)
    assert [each.cast(Work).double(1) for each in (other, root)] == [2, 2]


@pytest.mark.parametrize("door", ["its own", "another grant's", "the entrypoint's"])
def test_one_that_knocks_with_a_door_and_lives_on(entrypoint, fork, door):
    """No channel is kept alive by that: the grant is over when its holder has dropped it."""
    told, other = [], entrypoint.grant(FolderServer())
    granted = [entrypoint.grant(FolderServer(), unreachable=told.append)]
    doors = {"its own": granted[0], "another grant's": other, "the entrypoint's": entrypoint.manage(FolderServer())}
    number = open_door_of(doors.pop(door)).number
    doors.clear()

    def knock(step):
        for _ in range(3):
            by_hand.at_door(granted[0], wire.KNOCK_RECORD, [number])
        assert granted[0].cast(Work).double(1) == 2
        granted.clear()
        gc.collect()
        step()

    plugin = Plugin(fork, knock)
    granted.clear()
    gc.collect()
    until(lambda: told)
    assert other.cast(Work).double(1) == 2
    plugin.result()


def test_one_that_knocks_at_two_doors_with_the_ends_of_one_pair(entrypoint, fork):
    """Its channels keep each other, through two grants: both are over when it has ended."""
    told = []
    granted = [entrypoint.grant(FolderServer(), unreachable=told.append) for _ in range(2)]

    def knock(step):
        for each, end in zip(granted, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET), strict=True):
            by_hand.at_door(each, wire.KNOCK_RECORD, [end.fileno()])
        assert [each.cast(Work).double(1) for each in granted] == [2, 2]
        step()

    plugin = Plugin(fork, knock)
    granted.clear()
    gc.collect()
    assert entrypoint.manage(FolderServer()).cast(Work).double(1) == 2
    assert not told
    plugin.kill()
    until(lambda: len(told) == 2)


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_one_that_shuts_its_door(entrypoint, fork, how):
    """It shuts out who shares its grant and has not called before: nobody else notices, now or later."""
    told = []
    shut, other = (entrypoint.grant(FolderServer(name), unreachable=told.append) for name in ("shut", "other"))
    root = entrypoint.manage(FolderServer()).cast(Work)

    def has_called(granted):
        def run(step):
            work = granted.cast(Work)
            assert work.double(1) == 2
            step()
            return work.double(1), work.size(bytes(1 << 20))

        return run

    def has_not_called(granted):
        def run(step):
            step()
            return end_of(lambda: granted.cast(Work).double(1))

        return run

    plugins = [Plugin(fork, what(granted)) for granted in (shut, other) for what in (has_called, has_not_called)]

    def do():
        with socket.socket(fileno=os.dup(open_door_of(shut).number)) as door:
            door.shutdown(how)

    fork(do).result()
    assert [root.double(1) for _ in range(3)] == [2] * 3
    assert not told
    fellow, late_fellow, third, fourth = plugins
    assert late_fellow.result() == ("Disconnected", "no", True)
    assert (third.result(), fourth.result()) == ((2, 1 << 20), 2)
    assert not told
    assert fellow.result() == (2, 1 << 20)
    # Nobody can knock any more, and nobody has a channel; the other grant is held by this process.
    until(lambda: told)
    assert [root.double(1), other.cast(Work).double(1)] == [2, 2]
    assert [what.name() for what in told] == ["shut"]


def test_a_revocation_in_three_processes_at_once(entrypoint, fork, seqpacket):
    """Of a deep grant: a call in progress is answered; all else is told, idle, new, derived, and what comes later."""
    granted = entrypoint.grant(FolderServer(), deep=True)
    root = granted.cast(Folder)
    derived = root.open("a").open("b")
    near, far = seqpacket
    cm.send_capability(near, cm.capability(derived))

    def ends(*more):
        calls = [lambda: root.double(1), lambda: root.open("c"), derived.name, lambda: derived.size(bytes(1 << 20))]
        return [end_of(call, "misbehaved") for call in (*calls, *more)]

    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):

        def in_progress(step):
            step()
            return root.block(began, going), ends()

        def idle(step):
            assert (root.double(1), derived.name()) == (2, "b")
            step()
            return ends()

        def new(step):
            step()
            return ends(lambda: cm.receive_capability(far, PATIENCE).cast(Folder).name())

        first, second, third = (Plugin(fork, what) for what in (in_progress, idle, new))
        answered = by_hand.Concurrent(first.result)
        assert started.read(1) == b"."
        entrypoint.revoke(granted, "misbehaved")
        revoked = [("Revoked", "no", True)]
        # It has no channel: also while the server does something else.
        assert third.result() == revoked * 5
        go.write(b".")
        assert answered.outcome() == (1, revoked * 4)
        assert second.result() == revoked * 4
    assert ends() == revoked * 4
    until(lambda: not entrypoint._service.grants._revoked)


@matrix.thread_of_its_own
def test_ten_thousand_objects_of_a_deep_grant(entrypoint, fork):
    """One descriptor at each side, whoever has them."""
    root = entrypoint.grant(FolderServer(), deep=True).cast(Folder)

    def hold(step):
        assert root.name() == "root"
        before = len(left_behind.open_numbers())
        step()
        folders = root.many(10_000)
        assert len(left_behind.open_numbers()) == before
        step()
        return [folders[at].name() for at in (0, 5_000, 9_999)]

    plugin = Plugin(fork, hold)
    before = len(left_behind.open_numbers())
    plugin.go_on()
    assert len(left_behind.open_numbers()) == before
    assert plugin.result() == ["0", "5000", "9999"]


def test_one_that_knocks_for_another(entrypoint, fork, make_pair):
    """Who calls is who has knocked, whoever speaks on the channel then."""
    granted, (ours, theirs) = entrypoint.grant(FolderServer()), make_pair()

    def middleman(step):
        _, numbers, _, _ = socket.recv_fds(theirs, 1, 1)
        by_hand.at_door(granted, wire.KNOCK_RECORD, numbers)
        step()
        return os.getpid()

    def call():
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(ours, [b"."], [far.fileno()])
        far.close()
        near.settimeout(PATIENCE)
        near.send(by_hand.call(granted, b"who", b"\x90"))
        pid, *_ = msgspec.msgpack.decode(by_hand.answer(near)[0].payload)
        return os.getpid(), pid

    calling = by_hand.Concurrent(fork(call).result)
    plugin = Plugin(fork, middleman)
    caller, said = calling.outcome()
    assert plugin.result() == said != caller


def knock_as(granted, pid, uid, gid):
    """Knocks with these credentials, and asks who has."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far, socket.socket(fileno=os.dup(open_door_of(granted).number)) as door:
        door.sendmsg(
            [wire.KNOCK_RECORD],
            [
                (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("3i", pid, uid, gid)),
                (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [far.fileno()])),
            ],
        )
        far.close()
        near.settimeout(PATIENCE)
        near.send(by_hand.call(granted, b"who", b"\x90"))
        return msgspec.msgpack.decode(by_hand.answer(near)[0].payload)


def test_one_that_says_that_it_is_another(entrypoint, fork):
    """The kernel does not let it: it stays who it is."""
    granted = entrypoint.grant(FolderServer())

    def pretend():
        own = os.getpid(), os.getuid(), os.getgid()
        for other in ((1, *own[1:]), (own[0], 0, own[2]), (*own[:2], 0)):
            with pytest.raises(PermissionError):
                knock_as(granted, *other)
        return list(own) == knock_as(granted, *own)

    assert fork(pretend, ordinary=True).result()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can")
def test_root_may_say_that_it_is_another(entrypoint, fork):
    """As the page says: for logs, and not for authority."""
    granted = entrypoint.grant(FolderServer())
    assert fork(lambda: knock_as(granted, 1, 12345, 54321)).result() == [1, 12345, 54321]
    assert granted.cast(Work).double(1) == 2
