"""What capmarshal's predecessors got wrong in calls and capabilities, each in a test that bears the flaw's name.

The flaws of their messages are in ``test_genode_flaws.py``.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading

import pytest

import awaiting
import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import badge_of, key_of, open_door_of
from capmarshal._capabilities.space import space
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE = by_hand.PATIENCE


def test_the_registry_never_shrank():
    """The 101st entrypoint failed: here 300 come and go, called by others, and nothing is left of them."""
    tables = (space.managed, space._own, space._doors, space._capabilities)
    with by_hand.serving() as stays:
        proxy = stays.cast(by_hand.Work)
        with cm.timeout(PATIENCE):
            assert proxy.double(1) == 2
            space._bury()
            before = [len(table) for table in tables]
            for number in range(300):
                with by_hand.serving() as passing:
                    assert passing.cast(by_hand.Work).double(number) == 2 * number
                    proxy.maybe([passing])
                del passing
            awaiting.collect()
            space._bury()
            assert [len(table) for table in tables] == before


def test_look_up_and_insertion_were_two_steps():
    """A race "gave a client the wrong capability": threads that receive the same one at once get the same object."""
    rounds, count = 50, 8
    with by_hand.serving() as capability:
        for _ in range(rounds):
            end, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with end, client:
                start = threading.Barrier(count)

                def receive(client=client, start=start):
                    descriptor = cm.Descriptor.dup_of(client)
                    start.wait(PATIENCE)
                    return space.capability(space.receive_door(descriptor, None), b"b" * 16)

                got = [thread.outcome() for thread in [by_hand.Concurrent(receive) for _ in range(count)]]
                assert all(one is got[0] for one in got)
                assert open_door_of(got[0]).number != client.fileno()
                assert got[0] != capability


def test_threads_that_receive_the_same_capability_get_the_same_object():
    """The same through calls: one object and one descriptor, however many bring it."""

    class Source(cm.Interface):
        @cm.method
        def get(self) -> cm.Capability: ...

    with by_hand.Impostor() as impostor, cm.Entrypoint("source") as entrypoint, cm.timeout(PATIENCE):

        class SourceServer(Source):
            def get(self):
                return impostor.capability

        proxy = entrypoint.manage(SourceServer()).cast(Source)

        def receive():
            with cm.timeout(PATIENCE):
                return [proxy.get() for _ in range(50)]

        for thread in [by_hand.Concurrent(receive) for _ in range(4)]:
            assert all(one is impostor.capability for one in thread.outcome())
        del thread


def test_the_first_to_register_a_name_won():
    """Names are for people: two doors of one name are two doors, and nobody is taken for another."""
    with by_hand.serving(label="name") as ours:
        name = ours.name
        pretender, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with pretender, client, contextlib.ExitStack() as stack:
            # The kernel gives a name to one socket at a time; this one gets it as soon as it is free.
            with pytest.raises(OSError, match="in use"):
                pretender.bind(f"\0{name}")
            worker = by_hand.Worker()
            with by_hand.serving(worker) as receiver, by_hand.knock(receiver) as near:
                stack.callback(worker.held.clear)
                record = by_hand.call(receiver, b"take", b"\x91\x00", [(0, badge_of(ours))], 1)
                by_hand.send(near, record, [client.fileno()])
                by_hand.answer(near)
                (held,) = worker.held
                assert held != ours
                assert key_of(held) != key_of(ours)
                assert ours.local is not None
                assert held.local is None
                del held
                worker.held.clear()


def test_a_name_used_again_is_not_taken_for_its_old_owner():
    """The name of a server that is gone, bound again by somebody else, leads nobody to that one."""
    worker = by_hand.Worker()
    with by_hand.serving(worker, label="mine") as receiver, cm.timeout(PATIENCE):
        with cm.Entrypoint("old") as entrypoint:
            old = entrypoint.manage(by_hand.Worker())
            name = old.name
        pretender, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with pretender, client, by_hand.knock(receiver) as near:
            # The last of the old server's end is closed a moment later.
            bound = threading.Event()
            for _ in range(1000):
                with contextlib.suppress(OSError):
                    pretender.bind(f"\0{name}")
                    break
                bound.wait(0.01)
            by_hand.send(near, by_hand.call(receiver, b"take", b"\x91\x00", [(0, badge_of(old))], 1), [client.fileno()])
            by_hand.answer(near)
            (held,) = worker.held
            assert (held.name, held == old) == (name, False)
            with pytest.raises(cm.Disconnected):
                old.cast(by_hand.Work).double(1)
            del held
            worker.held.clear()
        old.close()


def test_a_blocking_reply_to_a_socket_of_the_clients_choice():
    """Any client could stall a server: here one that takes no answer costs the others nothing."""
    with by_hand.serving() as capability, by_hand.knock(capability) as near:
        near.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(by_hand.call(capability, b"blob", b"\x91\xce\x00\x01\x86\xa0"))
        with cm.timeout(PATIENCE):
            assert capability.cast(by_hand.Work).double(1) == 2


def test_object_ids_could_be_forged():
    """The test cap_integrity stayed red: here a badge is 128 random bits, and its neighbours are nobody's."""
    with cm.Entrypoint("integrity") as entrypoint:
        workers = [by_hand.Worker() for _ in range(20)]
        badges = [badge_of(entrypoint.manage(worker)) for worker in workers]
        capability = entrypoint.manage(workers[0])
        assert len(set(badges)) == 20
        with by_hand.knock(capability) as near:
            for badge in badges:
                number = int.from_bytes(badge, "little")
                for forged in (number + 1, number - 1, number ^ (1 << 127), number >> 1):
                    near.send(by_hand.call(capability, badge=(forged % (1 << 128)).to_bytes(16, "little")))
                    assert by_hand.failure(near) is Code.STALE
        assert sum(worker.calls for worker in workers) == 0


def test_an_invalid_capability_consumed_the_next_ones_slot():
    """None among capabilities takes no place: each arrives where it was put."""
    with by_hand.serving() as one, by_hand.serving(label="two") as two, cm.timeout(PATIENCE):
        proxy = one.cast(by_hand.Work)
        assert proxy.maybe([None, one, None, two, two, None, one]) == [1, 3, 4, 6]
        assert proxy.maybe([None] * 10) == []
        assert proxy.maybe([]) == []

        class Pick(cm.Interface):
            @cm.method
            def pick(self, what: list[cm.Capability | None], which: int) -> cm.Capability | None: ...

        class Picker(Pick):
            def pick(self, what, which):
                return what[which]

        with cm.Entrypoint("picker") as entrypoint:
            picker = entrypoint.manage(Picker()).cast(Pick)
            sent = [None, one, None, two, one, None]
            assert [picker.pick(sent, which) for which in range(6)] == sent


def test_both_reply_ends_leaked_on_errors(open_descriptors, until):
    """Calls that fail in every way leave no channel behind that the next could not use."""
    with by_hand.serving() as capability, cm.timeout(PATIENCE), by_hand.temporary() as file:
        proxy = capability.cast(by_hand.Work)
        proxy.echo(file).close()
        before = open_descriptors()
        for _ in range(20):
            with pytest.raises(cm.ArgumentError):
                proxy.double("no number")
            with pytest.raises(cm.ArgumentError):
                proxy.count([file, "no file"])
            with pytest.raises(cm.RemoteError):
                proxy.blob(-1)
            with pytest.raises(cm.TooLarge):
                proxy.size(bytes(68_000_000))
            with pytest.raises(cm.CallTimeout), cm.timeout(0):
                proxy.double(1)
        until(lambda: open_descriptors() <= before)
    for _ in range(20):
        # A door that is shut: neither end of the channel that was made for the knock stays.
        with pytest.raises(cm.Disconnected):
            proxy.double(1)
        assert not open_door_of(capability).idle
    until(lambda: open_descriptors() < before)


def test_foreign_capabilities_were_never_deduplicated(until):
    """Each receipt was a descriptor: here a hundred of them are one object and one descriptor."""
    worker = by_hand.Worker()
    with by_hand.serving(worker) as receiver, by_hand.Impostor() as impostor, cm.timeout(PATIENCE):
        end, foreign = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with end, by_hand.knock(receiver) as near:
            for _ in range(100):
                record = by_hand.call(receiver, b"take", b"\x91\x00", [(0, b"f" * 16)], 1)
                by_hand.send(near, record, [foreign.fileno()])
                by_hand.answer(near)
            assert len({id(one) for one in worker.held}) == 1
            # Ours, and the one that the receiver holds.
            until(lambda: _copies_of(foreign) == 2)
            for number in range(100):
                badge = b"%016d" % number
                by_hand.send(near, by_hand.call(receiver, b"take", b"\x91\x00", [(0, badge)], 1), [foreign.fileno()])
                by_hand.answer(near)
            assert len({id(one) for one in worker.held}) == 101
            until(lambda: _copies_of(foreign) == 2)
            foreign.close()
        assert impostor.capability not in worker.held
        worker.held.clear()


def _copies_of(sock):
    count = 0
    for number in range(4096):
        with contextlib.suppress(OSError):
            count += os.path.samestat(os.fstat(number), os.fstat(sock.fileno()))
    return count


def test_the_count_of_badges_was_never_compared_with_the_count_of_descriptors():
    """More badges than descriptors, or fewer: the former is refused, the latter closes what nobody named."""
    with by_hand.serving() as capability, by_hand.knock(capability) as near, by_hand.pipe() as (reader, writer):
        door = open_door_of(capability).number
        for entries, announced, sent in [
            ([(0, b"a" * 16), (1, b"b" * 16)], 1, [door]),
            ([(0, b"a" * 16), (1, b"b" * 16)], 2, [door]),
            ([(0, b"a" * 16)], 1, [door, writer.fileno()]),
            ([(0, b"a" * 16)], 0, []),
        ]:
            by_hand.send(near, by_hand.call(capability, b"maybe", b"\x91\x91\x00", entries, announced), sent)
            assert by_hand.failure(near) is Code.MALFORMED
        record = by_hand.call(capability, b"maybe", b"\x91\x90", [], 1)
        by_hand.send(near, record, [writer.fileno()])
        assert bytes(by_hand.answer(near)[0].payload) == b"\x90"
        writer.close()
        by_hand.at_end(reader)


@pytest.mark.parametrize(
    "failure", ["no door", "dead door", "no method", "no object", "bad argument", "bad result", "raises", "no time"]
)
def test_most_failures_ended_in_sleeping_for_ever(failure):
    """Here each is an exception, at once, that says what happened."""

    class Work(by_hand.Work):
        @cm.method
        def unknown(self) -> int: ...

    class Worker(by_hand.Worker):
        def blob(self, size):
            return object() if size else "no bytes"

    def call():
        with contextlib.ExitStack() as stack:
            worker = Worker()
            entrypoint = stack.enter_context(cm.Entrypoint("failing"))
            capability = entrypoint.manage(worker)
            proxy = capability.cast(Work)
            if failure == "no door":
                capability.close()
            elif failure == "dead door":
                entrypoint.close()
            elif failure == "no object":
                entrypoint.dissolve(worker)
            elif failure == "no method":
                proxy.unknown()
            elif failure == "bad argument":
                proxy.double("x")
            elif failure == "bad result":
                proxy.blob(0)
            elif failure == "raises":
                proxy.blob(1)
            elif failure == "no time":
                stack.enter_context(cm.timeout(0))
            proxy.double(1)

    with pytest.raises(cm.Error):
        by_hand.Concurrent(call).outcome()


def test_a_list_of_many_sessions_needs_one_descriptor():
    """Eight capabilities and a reply socket made nine: here a thousand capabilities of one door need one descriptor."""
    with cm.Entrypoint("sessions") as entrypoint, by_hand.serving() as receiver, cm.timeout(PATIENCE):
        sessions = [entrypoint.manage(by_hand.Worker()) for _ in range(1000)]
        proxy = receiver.cast(by_hand.Work)
        assert proxy.maybe(sessions) == list(range(1000))
        with by_hand.knock(receiver) as near:
            door = array.array("i", [open_door_of(sessions[0]).number])
            entries = [(0, badge_of(session)) for session in sessions[:100]]
            payload = b"\x91\xdc\x00\x64" + bytes(range(100))
            by_hand.send(near, by_hand.call(receiver, b"maybe", payload, entries, 1), door)
            assert isinstance(by_hand.answer(near)[0], _wire.Reply)
