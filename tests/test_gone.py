"""Who is told that a server is gone, without a call: however it went, whatever became of the capability meanwhile."""

from __future__ import annotations

import logging
import os
import select
import selectors
import signal
import sys

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import open_door_of
from patience import PATIENCE, until


def polled(capability):
    """What poll() says of it at once."""
    poll = select.poll()
    poll.register(capability, 0)
    return sum(events for _, events in poll.poll(0))


def test_a_server_that_is_killed(fork):
    """Who waits for it wakes, and who asks is told; before that it was there."""
    with by_hand.server_process(fork) as (process, capability):
        assert not capability.gone
        assert polled(capability) == 0
        waiting = by_hand.Concurrent(cm.wait_gone, capability, PATIENCE)
        process.kill()
        assert waiting.outcome() is None
        assert capability.gone
        assert polled(capability) & select.POLLHUP
        cm.wait_gone(capability, timeout=0)


def test_one_that_does_nothing_is_not_gone(fork):
    """A stopped process may go on."""
    with by_hand.server_process(fork) as (process, capability):
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        try:
            assert not capability.gone
            with pytest.raises(cm.CallTimeout) as caught:
                cm.wait_gone(capability, timeout=0.01)
            assert str(caught.value) == "entrypoint 'elsewhere' has not gone in 0.01 s"
        finally:
            os.kill(process.pid, signal.SIGCONT)


def test_a_server_that_closes_its_entrypoint():
    """Of this process: a local capability has a door like any other."""
    with cm.Entrypoint("here") as entrypoint:
        worker = by_hand.Worker()
        capability = entrypoint.manage(worker)
        proxy = capability.cast(by_hand.Work)
        waiting = [by_hand.Concurrent(cm.wait_gone, what, PATIENCE) for what in (capability, proxy)]
        assert not capability.gone
        with pytest.raises(cm.CallTimeout, match="has not gone before the deadline of cm"), cm.timeout(0.01):
            cm.wait_gone(worker)
    for each in waiting:
        each.outcome()
    assert capability.gone
    with pytest.raises(TypeError, match="is not managed"):
        cm.wait_gone(worker)


def test_a_selector_tells_of_many():
    """Which of them, by the capability that was registered: its hang-up is readable too."""
    with selectors.DefaultSelector() as selector, cm.Entrypoint("stays") as stays, cm.Entrypoint("goes") as goes:
        kept, lost = (each.manage(by_hand.Worker()) for each in (stays, goes))
        for capability in (kept, lost):
            selector.register(capability, selectors.EVENT_READ)
        assert selector.select(0) == []
        goes.close(PATIENCE)
        assert [key.fileobj for key, _ in selector.select(PATIENCE)] == [lost]


def test_a_capability_that_is_closed_meanwhile(open_descriptors):
    """Its waiter holds the door: no other file can come to its number.  Nobody else can wait for it any more."""
    before = open_descriptors()
    with by_hand.Impostor() as impostor:
        capability = impostor.capability
        number, held = capability.fileno(), [open_door_of(capability)]
        holders = sys.getrefcount(held[0])
        waiting = by_hand.Concurrent(cm.wait_gone, capability, PATIENCE)
        until(lambda: sys.getrefcount(held[0]) > holders)
        capability.close()
        held.clear()
        os.fstat(number)
        with pytest.raises(cm.Closed):
            cm.wait_gone(capability)
        with pytest.raises(cm.Closed):
            _ = capability.gone
        with pytest.raises(cm.Closed):
            capability.fileno()
    waiting.outcome()
    # The reaper closes the door.
    until(lambda: open_descriptors() == before)


def test_a_forked_child_waits_for_its_parents_server(fork):
    """Its copy of the door is as good as its parent's; the server's end it does not have."""
    with by_hand.pipe() as (begun, began), cm.Entrypoint("parent's") as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())

        def wait():
            before = capability.gone
            began.write(b".")
            cm.wait_gone(capability, PATIENCE)
            return before, capability.gone

        child = fork(wait)
        assert begun.read(1) == b"."
        entrypoint.close(PATIENCE)
        assert child.result() == (False, True)


def test_ctrl_c_ends_the_wait(run_peer):
    """The first one."""

    def wait():
        entrypoint = cm.Entrypoint("stays")

        class Thing(cm.Interface):
            pass

        capability = entrypoint.manage(Thing())
        print("waiting", flush=True)
        try:
            cm.wait_gone(capability)
        except KeyboardInterrupt:
            print("interrupted")
        entrypoint.close()

    peer = run_peer(wait)
    assert peer.line() == "waiting"
    until(peer.asleep)
    os.kill(peer.pid, signal.SIGINT)
    assert peer.finish() == "interrupted\n"


def test_a_holder_that_shuts_the_door_shuts_it_for_all():
    """What is left of the door leads nowhere: as good as gone; nothing is read from the shared socket's error."""
    with by_hand.Impostor() as impostor:
        impostor.end.shutdown(2)
        assert impostor.capability.gone


@pytest.mark.parametrize("what", [3, "digest", None])
def test_what_has_no_server_is_refused(what):
    """A capability, a proxy or a managed object."""
    with pytest.raises(TypeError, match="a capability, a proxy or a managed object"):
        cm.wait_gone(what)


def test_a_capability_is_no_descriptor_though_it_has_a_number():
    """Where a descriptor is due, it is refused as before: it stays a capability in calls."""
    with by_hand.serving() as capability, cm.timeout(PATIENCE):
        with pytest.raises(cm.ArgumentError, match=r"a capmarshal\.Capability where capmarshal\.Descriptor is due"):
            capability.cast(by_hand.Work).echo(capability)
        capability.close()


def test_a_capability_is_no_descriptor_of_a_message_nor_a_socket_for_one():
    """What arrived would be the door's end without the badge, and what is sent through a door is no knock."""
    with by_hand.serving() as capability:
        for misuse in (
            lambda: cm.Message(b"x", [capability]),
            lambda: cm.Message(b"x").send(capability),
            lambda: cm.Message.receive(capability),
            lambda: cm.Descriptor.dup_of(capability),
        ):
            with pytest.raises(TypeError, match="`Capability` is no descriptor, and has one to be polled only"):
                misuse()
        capability.close()


class Holding(cm.Interface):
    @cm.method
    def hold(self, what: cm.Capability, file: cm.Descriptor) -> None: ...


class Holder(Holding):
    """Keeps what the test says."""

    def hold(self, what, file):
        self.kept = cm.keep(self.wanted(what, file))


def test_a_capability_is_nothing_to_keep(caplog):
    """keep() says so, for nothing would be kept that the call closes; beside a file, it is data."""
    caplog.set_level(logging.CRITICAL, "capmarshal")
    holder = Holder()
    with by_hand.serving(holder) as capability, cm.timeout(PATIENCE), by_hand.temporary(b"file") as file:
        proxy = capability.cast(Holding)
        for holder.wanted in (
            lambda what, file: what,
            lambda what, file: [what],
            lambda what, file: what.cast(Holding),
        ):
            with pytest.raises(
                cm.RemoteError, match=r"TypeError: keep\(\) is for files, sockets, descriptors and streams"
            ):
                proxy.hold(capability, file)
        holder.wanted = lambda what, file: [what, file]
        proxy.hold(capability, file)
        with holder.kept[1] as kept:
            assert os.pread(kept.fileno(), 10, 0) == b"file"
        vars(holder).clear()
        capability.close()
