"""Grants: whose object, for whom, and for how long (`_server/grants`, `_server/grant`, `_server/caller`)."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import socket

import pytest

import by_hand
import capmarshal as cm
import left_behind
from by_hand import Work
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._capabilities.space import space
from capmarshal._protocol import faults, wire
from capmarshal._protocol.wire import combined
from patience import BEGINS, PATIENCE, until


class Files(Work):
    @cm.method
    def who(self) -> tuple[int, int, int, str]: ...

    @cm.method
    def is_me(self, other: Files) -> bool: ...

    @cm.method
    def pass_on(self, what: cm.Capability) -> cm.Capability: ...

    @cm.method
    def by_way_of(self, other: Files) -> list[str]: ...


class FilesServer(by_hand.AwaitingWorker, Files):
    def who(self):
        caller = cm.caller()
        return caller.pid, caller.uid, caller.gid, caller.label

    def is_me(self, other):
        return other is self

    def pass_on(self, what):
        return what

    def unheard(self): ...

    def heard(self, target): ...

    async def never(self, what):
        raise AssertionError(what)

    def by_way_of(self, other):
        return [cm.caller().label, other.who()[3], cm.caller().label]


@pytest.fixture
def target():
    return FilesServer()


def through(door_of, badge_from):
    """A capability of one door and the badge of another's."""
    return space.capability(open_door_of(door_of), badge_of(badge_from))


def test_a_badge_works_through_its_own_door_only(entrypoint, target):
    """Of another grant, of the entrypoint's own door, and the other way round: also where the object is the same."""
    root = entrypoint.manage(target)
    one, other = entrypoint.grant(target), entrypoint.grant(target)
    for door in (root, one, other):
        for badge in (root, one, other):
            work = through(door, badge)
            if door is badge:
                assert work.cast(Work).double(4) == 8
                continue
            near = by_hand.knock(work)
            with near:
                near.send(by_hand.call(work))
                assert by_hand.failure(near) == faults.Code.STALE


def test_what_a_badge_is_kept_under_is_not_told_by_two_of_them():
    """The secret is what is not known: nobody finds it by what he holds, of one door or of two."""
    badge, secret = os.urandom(16), os.urandom(16)
    assert combined(combined(badge, secret), secret) == badge
    assert combined(badge, secret) not in (badge, secret)
    assert combined(badge, bytes(16)) == badge


@pytest.mark.parametrize("limit", [None, PATIENCE])
def test_calls_of_every_kind(entrypoint, target, memfd, limit):
    """Data, descriptors in order and beside capabilities, arguments and results in parts: as by any capability."""
    granted = entrypoint.grant(target)
    work = granted.cast(Files)
    with cm.timeout(limit) if limit else contextlib.nullcontext():
        assert work.double(4) == 8
        assert work.size(bytes(1 << 20)) == len(work.blob(1 << 20)) == 1 << 20
        assert work.count([memfd]) == 1
        work.echo(memfd).close()
        assert work.take(granted) == "files"
        assert work.maybe([granted, None]) == [0]
        for pipe in work.pipes(300):
            pipe.close()
        assert work.pass_on(granted) is granted
    target.held.clear()


def test_only_some_methods(entrypoint, target):
    """Others are refused by name; a record by hand is no way around that."""
    granted = entrypoint.grant(target, only=(Files.double, Files.who))
    work = granted.cast(Files)
    assert work.double(4) == 8
    with pytest.raises(cm.UnknownMethod, match=r"size\(\) is not among what this grant lets call of FilesServer"):
        work.size(b"")
    with pytest.raises(cm.UnknownMethod, match=r"size\(\) is not among"):
        work.size(bytes(1 << 20))
    with by_hand.knock(granted) as near:
        near.send(by_hand.call(granted, b"blob"))
        assert by_hand.failure(near) == faults.Code.UNKNOWN_METHOD
    assert target.calls == 1


@pytest.mark.parametrize(
    ("only", "error", "words"),
    [
        ([], ValueError, "nothing can be called"),
        ([len], TypeError, "only: <built-in function len> is not a remote method of FilesServer"),
        (
            ["double"],
            TypeError,
            r"'double' is not a remote method .*; each is .*, as only=\(Work.double,\)",
        ),
        ([by_hand.Register.enter], TypeError, r"is not a remote method of FilesServer; .* as only=\(\w+\.\w+,\)"),
        ([FilesServer().double], TypeError, r"is not a remote method of .*, as only=\(Work.double,\)"),
        ("double", TypeError, r"only is some methods, as only=\(Work.double,\), not 'double'"),
        (Files.double, TypeError, r"only is some methods, as only=\(Work.double,\), not <function"),
        (3, TypeError, r"only is some methods, as only=\(\w+\.\w+,\), not 3"),
    ],
)
def test_only_what_can_be_called(entrypoint, target, only, error, words):
    with pytest.raises(error, match=words):
        entrypoint.grant(target, only=only)


class Twins(cm.Interface):
    """Those of two methods' twins, which are the methods again, but for where they stand."""

    double = cm.blocking(cm.awaitable(Work.double))


class OthersDouble(cm.Interface):
    @cm.method
    def double(self, value: int) -> int: ...


class TwinsServer(Twins):
    def double(self, value):
        return 2 * value


def test_only_what_is_a_twin(entrypoint, target):
    """Of an object whose interface has the twin, the original says it, and the other way round; no namesake does."""

    class Awaited(cm.Interface):
        double = cm.awaitable(Work.double)

    twins = TwinsServer()
    for granted, only in ((twins, Work.double), (twins, Twins.double), (twins, Awaited.double), (target, Twins.double)):
        made = entrypoint.grant(granted, only=(only,))
        assert made.cast(Work).double(4) == 8
        with pytest.raises(cm.UnknownMethod):
            made.cast(Work).size(b"")
    with pytest.raises(TypeError, match=r"OthersDouble.double .* is not a remote method of TwinsServer"):
        entrypoint.grant(twins, only=(OthersDouble.double,))
    with pytest.raises(TypeError, match=r"TwinsServer.double .* is not a remote method of FilesServer"):
        entrypoint.grant(target, only=(TwinsServer.double,))


TAKES_NO_OBJECT = {
    "nothing": lambda: None,
    "two": lambda target, other: None,
    "one more, by name": lambda target, *, other: None,
    "none, bound": object.__new__(FilesServer).unheard,
}
TAKES_AN_OBJECT = {
    "one": lambda target: None,
    "more, that need not be": lambda target, other=1, *, by_name=2, **others: None,
    "any": lambda *all_of_them: None,
    "one, bound": object.__new__(FilesServer).heard,
    "what does not tell": functools.partial(lambda first, second: None, 1),
    "a builtin": print,
}


@pytest.mark.parametrize("takes", TAKES_NO_OBJECT)
def test_what_would_not_take_the_object_is_refused_at_once(entrypoint, target, takes):
    """And not when it is called, where the log alone would tell."""
    with pytest.raises(TypeError, match=r"^unreachable is called with the object, and <.*> takes other arguments$"):
        entrypoint.grant(target, unreachable=TAKES_NO_OBJECT[takes])


@pytest.mark.parametrize("takes", TAKES_AN_OBJECT)
def test_what_takes_the_object_is_not(entrypoint, target, takes):
    assert not entrypoint.grant(target, unreachable=TAKES_AN_OBJECT[takes]).gone


def test_what_is_no_grant(entrypoint, target):
    """Each is told what it is, and nothing has changed."""
    with pytest.raises(ValueError, match="a label is 1 to 64 bytes"):
        entrypoint.grant(target, label="")
    with pytest.raises(TypeError, match="unreachable is called with the object"):
        entrypoint.grant(target, unreachable=3)
    with pytest.raises(TypeError, match="unreachable is async, and what a"):
        entrypoint.grant(target, unreachable=target.never)
    with pytest.raises(TypeError):
        entrypoint.grant(object())
    root, granted = entrypoint.manage(target), entrypoint.grant(target)
    with pytest.raises(ValueError, match="a capability of manage"):
        entrypoint.revoke(root)
    with pytest.raises(TypeError, match="what grant"):
        entrypoint.revoke(3)
    with pytest.raises(TypeError, match="a reason is text"):
        entrypoint.revoke(granted, 3)
    with cm.Entrypoint("another") as another:
        with pytest.raises(ValueError, match="is no grant of <Entrypoint 'another'>"):
            another.revoke(granted)
        assert granted.cast(Work).double(1) == 2
    granted.close()
    with pytest.raises(cm.Closed):
        entrypoint.revoke(granted)


def test_a_caller_is_told_by_its_label_and_its_process(entrypoint, target, fork):
    """Each knock's: of two processes that hold the same grant, and of one that holds another."""
    root = entrypoint.manage(target).cast(Files)
    one, other = (entrypoint.grant(target, label=label).cast(Files) for label in ("plugin 1", "plugin 2"))
    own = os.getpid(), os.getuid(), os.getgid()
    assert (root.who(), one.who(), other.who()) == ((*own, ""), (*own, "plugin 1"), (*own, "plugin 2"))
    child = fork(lambda: (os.getpid(), one.who(), other.who()))
    pid, *said = child.result()
    assert said == [(pid, *own[1:], "plugin 1"), (pid, *own[1:], "plugin 2")]
    ordinary = fork(lambda: one.who()[1:3], ordinary=True)
    assert 0 not in ordinary.result()


def test_a_caller_of_a_call_within_a_call(entrypoint, target):
    """Of the inner one it is this process; after it the outer one's is told again."""
    granted = entrypoint.grant(target, label="plugin").cast(Files)
    inner = entrypoint.manage(target).cast(Files)
    assert granted.by_way_of(inner)[::2] == ["plugin", "plugin"]


def test_the_label_of_a_call_within_a_call(entrypoint, target):
    """Of the grant that it is made by: a restricted one, which is a proxy at home."""
    granted = entrypoint.grant(target, label="plugin").cast(Files)
    inner = entrypoint.grant(target, label="inner", only=(Files.who,)).cast(Files)
    assert granted.by_way_of(inner) == ["plugin", "inner", "plugin"]


def test_nobody_calls_here():
    with pytest.raises(RuntimeError, match=r"caller\(\) is for server methods"):
        cm.caller()


def test_a_revoked_grant(entrypoint, target):
    """Who has a channel, who has none, and who receives it later: all are told why, and the others go on."""
    root = entrypoint.manage(target).cast(Files)
    granted, other = entrypoint.grant(target, label="bad"), entrypoint.grant(target).cast(Files)
    work = granted.cast(Files)
    assert work.double(1) == 2
    entrypoint.revoke(granted, "misbehaved")
    for _ in range(2):
        with pytest.raises(cm.Revoked, match=r"Work.double, grant 'bad': revoked by the server: misbehaved$") as caught:
            work.double(1)
        assert caught.value.ran == "no"
    assert granted.gone
    assert granted.local is None
    entrypoint.revoke(granted, "again")
    with pytest.raises(cm.Revoked, match="misbehaved"):
        root.pass_on(granted).cast(Files).double(1)
    assert (root.double(1), other.double(1)) == (2, 2)


def heard(near):
    """What a client by hand hears of its call: the code of a FAIL, or "unread"."""
    try:
        record = by_hand.answer(near)[0]
    except ConnectionResetError:
        return "unread"
    return "unread" if record in (None, wire.Gone()) else record.code


def test_a_label_is_told_as_what_it_is(entrypoint, target):
    """In errors, and where one waits: a grant's, if it has one of its own."""
    granted, same = entrypoint.grant(target, label="plugin"), entrypoint.grant(target)
    for capability, whose in (
        (entrypoint.manage(target), "entrypoint 'files'"),
        (same, "entrypoint 'files'"),
        (granted, "grant 'plugin'"),
    ):
        assert capability.name.startswith(f"capmarshal/{capability.label}/")
        with pytest.raises(cm.UnknownMethod, match=f"Register.enter, {whose}: FilesServer has no"):
            capability.cast(by_hand.Register).enter(capability)
        with pytest.raises(cm.CallTimeout, match=rf"^{whose} has not gone"):
            cm.wait_gone(capability, 0)
    entrypoint.close()
    with pytest.raises(cm.Disconnected, match=r"Work.double, grant 'plugin': "):
        granted.cast(Work).double(1)


def test_whose_grant_it_is_that_nobody_serves(target):
    """The entrypoint's, by its own label."""
    entrypoint = cm.Entrypoint("files")
    work = entrypoint.grant(target, label="plugin").cast(Work)
    words = r"Work.double, grant 'plugin': .*; nobody serves entrypoint 'files', which"
    with pytest.raises(cm.CallTimeout, match=words), cm.timeout(BEGINS):
        work.double(1)
    entrypoint.close()


def test_a_label_is_never_taken_for_a_grants(target):
    """Whatever it is: what tells stands behind it."""
    with cm.Entrypoint("grant-") as entrypoint:
        root, granted = entrypoint.manage(target), entrypoint.grant(target, label="grant-grant")
        with pytest.raises(cm.CallTimeout, match=r"^entrypoint 'grant-' has"):
            cm.wait_gone(root, 0)
        with pytest.raises(cm.CallTimeout, match=r"^grant 'grant-grant' has"):
            cm.wait_gone(granted, 0)
        longest = "ä" * 32
        assert entrypoint.grant(target, label=longest).label == longest


def test_a_revoked_grant_in_several_processes(entrypoint, target, fork):
    """At once: one with an idle channel, one that has never called, and one whose call waits in a queue."""
    # What keeps the server busy keeps an event loop from running, too.
    granted, root = entrypoint.grant(target), entrypoint.manage(by_hand.Worker())
    work = granted.cast(Files)
    with by_hand.pipe() as (called, calling), by_hand.pipe() as (revoked, revoking):

        def outcome():
            revoking.close()
            by_hand.at_end(revoked)
            with pytest.raises(cm.Revoked) as caught:
                work.double(1)
            return str(caught.value).rpartition(": ")[2]

        def idle():
            assert work.double(1) == 2
            calling.write(b".")
            return outcome()

        first, second = fork(idle), fork(outcome)
        assert called.read(1) == b"."
        with by_hand.knock(granted) as near:
            with by_hand.busy(root):
                near.send(by_hand.call(granted))
                entrypoint.revoke(granted, "over")
                revoking.close()
                # It has no channel yet, and the server is busy.
                assert second.result() == "over"
            assert first.result() == "over"
            assert heard(near) in ("unread", faults.Code.REVOKED)
    # The first.
    assert target.calls == 1


def test_a_call_in_progress_is_answered(entrypoint, target):
    """By whoever revoked it: the next one is told, by the channel that carried the call, too."""
    granted = entrypoint.grant(target)
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        blocking = by_hand.Concurrent(granted.cast(Work).block, began, going)
        assert started.read(1) == b"."
        entrypoint.revoke(granted, "over")
        go.close()
        assert blocking.outcome() == 1
    with pytest.raises(cm.Revoked, match="over"):
        granted.cast(Work).double(1)
    until(lambda: not entrypoint._service.grants._revoked)


def test_the_next_call_on_such_a_channel_is_told_by_its_answer(entrypoint, target):
    """Where the channel has not ended yet: a server whose methods run beside each other has come round before."""
    granted = entrypoint.grant(target)
    with by_hand.knock(granted) as near, by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        record = by_hand.call(granted, b"block", b"\x92\x00\x01", [(0, bytes(16)), (1, bytes(16))], 2)
        by_hand.send(near, record, [began.fileno(), going.fileno()])
        going.close()
        assert started.read(1) == b"."
        entrypoint.revoke(granted, "over")
        go.close()
        assert by_hand.answer(near)[0].id == 1
        # A server that runs one method at a time comes round to the end of the channel with its answer.
        with contextlib.suppress(BrokenPipeError):
            near.send(by_hand.call(granted, id=2))
        if heard(near) == faults.Code.REVOKED:
            assert heard(near) == "unread"
        until(lambda: not entrypoint._service.grants._revoked)


def test_who_eats_the_epitaph_leaves_the_others_disconnected(entrypoint, target):
    """And not waiting."""
    granted = entrypoint.grant(target)
    entrypoint.revoke(granted, "over")
    with socket.socket(fileno=os.dup(open_door_of(granted).number)) as door:
        assert b"over" in door.recv(2000)
    with pytest.raises(cm.Disconnected) as caught:
        granted.cast(Work).double(1)
    assert caught.value.ran == "no"


def test_an_epitaph_beside_knocks_that_nobody_read(target):
    """The kernel says first that they were not read (ECONNRESET)."""
    with cm.Entrypoint("files") as entrypoint:
        granted = entrypoint.grant(target)
        with by_hand.busy(entrypoint.manage(by_hand.Worker())):
            channels = [by_hand.knock(granted) for _ in range(3)]
            entrypoint.revoke(granted, "over")
        until(lambda: not entrypoint._service.grants._revoked)
        assert open_door_of(granted).epitaph() == "over"
        with pytest.raises(cm.Revoked, match="over"):
            granted.cast(Work).double(1)
        for near in channels:
            with near:
                assert heard(near) == "unread"


def test_a_reason_is_shown_as_any_words_of_a_peer(entrypoint, target):
    granted = entrypoint.grant(target)
    entrypoint.revoke(granted, "\x1b[31m" + "ä" * 5000)
    with pytest.raises(cm.Revoked) as caught:
        granted.cast(Work).double(1)
    assert "\x1b" not in str(caught.value)
    assert 400 < len(str(caught.value)) < 1200


def test_before_it_is_served(target):
    """Granted and revoked before anybody serves; what is left is served from then on."""
    entrypoint = cm.Entrypoint("files")
    kept, over = entrypoint.grant(target), entrypoint.grant(target)
    entrypoint.revoke(over)
    with pytest.raises(cm.Revoked, match=r"revoked by the server$"):
        over.cast(Work).double(1)
    with entrypoint:
        assert kept.cast(Work).double(1) == 2
    with pytest.raises(cm.Disconnected):
        kept.cast(Work).double(1)
    with pytest.raises(cm.Closed):
        entrypoint.grant(target)


def test_the_end_of_an_entrypoint_is_no_revocation(target, fork):
    with cm.Entrypoint("files") as entrypoint:
        granted = entrypoint.grant(target)
        assert granted.cast(Work).double(1) == 2
    with pytest.raises(cm.Disconnected):
        granted.cast(Work).double(1)


def test_what_was_handed_over_stays_so(entrypoint, target, memfd):
    """An open file is the recipient's own, whatever becomes of the grant that it came through."""
    granted = entrypoint.grant(target)
    os.pwrite(memfd.fileno(), b"handed over", 0)
    with granted.cast(Work).echo(memfd) as file:
        entrypoint.revoke(granted)
        with pytest.raises(cm.Revoked):
            granted.cast(Work).echo(memfd)
        assert os.pread(file.fileno(), 100, 0) == b"handed over"


def test_what_a_grant_costs(entrypoint, target, fork, make_pair):
    """Two descriptors of the server's, one where it is handed over; and of each process that holds it one."""
    (ours, theirs), root = make_pair(), entrypoint.manage(target).cast(Work)
    assert root.double(1) == 2

    def hold():
        before = len(left_behind.open_numbers())
        granted = [cm.receive_capability(theirs, PATIENCE) for _ in range(2)]
        return granted[0] is granted[1], len(left_behind.open_numbers()) - before

    before = len(left_behind.open_numbers())
    granted = [entrypoint.grant(target)]
    assert len(left_behind.open_numbers()) == before + 2
    for _ in range(2):
        cm.send_capability(ours, granted[0])
    granted.clear()
    gc.collect()
    assert len(left_behind.open_numbers()) == before + 1
    assert fork(hold).result() == (True, 1)


def test_from_any_thread_and_within_a_method(entrypoint):
    """Granted and revoked, also the very one that the call came by: it is answered."""

    class GrantingServer(FilesServer):
        def pass_on(self, what):
            granted = entrypoint.grant(self, label="new")
            entrypoint.revoke(what, "within")
            return granted

    target = GrantingServer()
    granted = by_hand.Concurrent(entrypoint.grant, target).outcome()
    other = granted.cast(Files).pass_on(granted)
    with pytest.raises(cm.Revoked, match="within"):
        granted.cast(Files).who()
    assert other.cast(Files).who()[3] == "new"
    by_hand.Concurrent(entrypoint.revoke, other, "elsewhere").outcome()
    with pytest.raises(cm.Revoked, match="elsewhere"):
        other.cast(Files).who()


def test_all_grants_of_an_object(entrypoint, target):
    """By the object: who holds none of their capabilities can be told of their ends, and revoke them before."""
    root, other = entrypoint.manage(target), entrypoint.grant(FilesServer())
    granted = [entrypoint.grant(target) for _ in range(3)]
    entrypoint.revoke(target, "over")
    for each in granted:
        with pytest.raises(cm.Revoked, match="over"):
            each.cast(Work).double(1)
    assert root.cast(Work).double(1) == other.cast(Work).double(1) == 2
    entrypoint.revoke(target)


def test_an_object_that_is_dissolved_has_no_grants(entrypoint, target):
    entrypoint.manage(target)
    granted, other = entrypoint.grant(target), entrypoint.grant(FilesServer())
    entrypoint.dissolve(target)
    with pytest.raises(cm.Revoked, match="the object was dissolved"):
        granted.cast(Work).double(1)
    assert other.cast(Work).double(1) == 2


def test_an_object_that_is_dissolved_with_a_reason(entrypoint, target):
    """Its grants' holders are told, as by revoke(): of text, and of nothing else."""
    granted = entrypoint.grant(target)
    with pytest.raises(TypeError, match="a reason is text, not 3"):
        entrypoint.dissolve(target, 3)
    assert granted.cast(Work).double(1) == 2
    entrypoint.dissolve(target, "the session is over")
    with pytest.raises(cm.Revoked, match="by the server: the session is over"):
        granted.cast(Work).double(1)


@pytest.mark.parametrize("by", ["grant", "deep grant", "revoked grant"])
def test_dissolve_waits_for_calls_by_grants(entrypoint, target, by):
    """When it returns, no call of the object runs, and none begins: as where it is managed."""
    granted = entrypoint.grant(target, deep=by == "deep grant")
    with by_hand.busy(granted):
        if by == "revoked grant":
            entrypoint.revoke(granted)
        with pytest.raises(cm.CallTimeout, match="dissolved, but a call of the object has not ended"), cm.timeout(0.02):
            entrypoint.dissolve(target)
        with pytest.raises(cm.Revoked):
            granted.cast(Work).double(1)
        dissolving = by_hand.Concurrent(entrypoint.dissolve, target)
        dissolving.join(0.05)
        assert dissolving.is_alive()
    dissolving.outcome()
    assert target.calls == 1


def test_dissolve_waits_for_no_other_object(entrypoint, target):
    """Also one of the same class, and of the same grants' recipient."""
    other = FilesServer()
    granted = entrypoint.grant(other)
    with by_hand.busy(entrypoint.grant(target)):
        entrypoint.dissolve(other)
    with pytest.raises(cm.Revoked):
        granted.cast(Work).double(1)


def test_what_comes_home(entrypoint, target, caplog):
    """A whole grant is the object itself; a restricted one is a proxy, which lets call no more than before."""
    root = entrypoint.manage(target).cast(Files)
    whole, part = entrypoint.grant(target), entrypoint.grant(target, only=(Files.who,))
    assert root.is_me(whole.cast(Files))
    assert not root.is_me(part.cast(Files))
    assert whole.local is part.local is target
    more = entrypoint.grant(target, only=(Files.double,)).cast(Files)
    with pytest.raises(cm.RemoteError, match=r"UnknownMethod.*who\(\) is not among what this grant lets call"):
        root.by_way_of(more)
    # Its traceback refers to the entrypoint.
    caplog.clear()


def test_what_comes_home_when_this_process_does_not_hold_it_any_more(entrypoint, target, fork):
    """The server keeps no client end: it knows its door by the cookie."""
    root = entrypoint.manage(target).cast(Files)
    granted = [entrypoint.grant(target)]
    with by_hand.pipe() as (dropped, drop):

        def come_home():
            drop.close()
            by_hand.at_end(dropped)
            return root.is_me(granted[0].cast(Files))

        child = fork(come_home)
        granted.clear()
        gc.collect()
        drop.close()
        assert child.result()


def test_a_thousand_grants(entrypoint, target):
    """Each with its own door, and each gone when it is dropped."""
    gone = []
    granted = [entrypoint.grant(target, label=f"{i}", unreachable=gone.append) for i in range(1000)]
    assert [each.cast(Files).who()[3] for each in granted[::100]] == [str(i) for i in range(0, 1000, 100)]
    for each in granted[:500]:
        entrypoint.revoke(each)
    del each
    granted.clear()
    until(lambda: len(gone) == 500)
    assert not entrypoint._service.grants._in_force


def test_a_table_that_is_full(fork):
    """Nothing is left of a grant that finds no room, and others go on."""

    def in_child():
        with cm.Entrypoint("files") as entrypoint:
            target, granted = FilesServer(), []
            with pytest.raises(cm.TableFull):
                granted.extend(entrypoint.grant(target) for _ in range(64))
            objects = entrypoint._objects
            assert len(objects._by_badge) == len(granted)
            last = granted.pop()
            # All others: how many these are depends on what this process has open, and the call needs room.
            granted.clear()
            return last.cast(Work).double(1)

    assert fork(in_child, table=64).result() == 2


def test_a_forked_child_has_none_of_it(entrypoint, target, fork, open_descriptors):
    """Neither server ends nor grants; it calls by the capability as others do."""
    granted = entrypoint.grant(target)
    assert granted.cast(Files).double(1) == 2

    def in_child():
        with pytest.raises(cm.Closed):
            entrypoint.grant(target)
        pid = granted.cast(Files).who()[0]
        return pid == os.getpid(), granted.local

    assert fork(in_child).result() == (True, None)
    assert granted.cast(Files).double(1) == 2
