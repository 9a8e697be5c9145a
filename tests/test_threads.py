"""Many threads: on one capability, and around the end of an object or an entrypoint."""

from __future__ import annotations

import gc
import os
import threading
import warnings
import weakref

import pytest

import by_hand
import capmarshal as cm

PATIENCE = by_hand.PATIENCE


class Pairs(cm.Interface):
    @cm.method
    def pair(self, number: int, file: cm.Descriptor) -> tuple[int, cm.Descriptor]: ...


class PairsServer(Pairs):
    def pair(self, number, file):
        assert int(os.pread(file.fileno(), 20, 0)) == number
        answer = by_hand.temporary(b"%d" % (2 * number))
        return 2 * number, answer


def test_sixteen_threads_on_one_capability():
    """Each of 3,200 calls gets its own answer with its own descriptor."""
    with cm.Entrypoint("pairs") as entrypoint:
        proxy = entrypoint.manage(PairsServer()).cast(Pairs)

        def call(thread):
            for number in range(thread * 1000, thread * 1000 + 200):
                with by_hand.temporary(b"%d" % number) as file, cm.timeout(PATIENCE):
                    doubled, answer = proxy.pair(number, file)
                    with answer:
                        assert doubled == 2 * number
                        assert int(os.pread(answer.fileno(), 20, 0)) == doubled

        for thread in [by_hand.Concurrent(call, number) for number in range(16)]:
            thread.outcome()


def test_dissolve_waits_for_the_call_in_progress():
    """When it returns, no call of the object runs, and none begins."""
    worker = by_hand.AwaitingWorker()
    with cm.Entrypoint("dissolving") as entrypoint:
        capability = entrypoint.manage(worker)
        with by_hand.busy(capability):
            dissolving = by_hand.Concurrent(entrypoint.dissolve, worker)
            dissolving.join(0.05)
            assert dissolving.is_alive()
        dissolving.outcome()
        with pytest.raises(cm.StaleCapability), cm.timeout(PATIENCE):
            capability.cast(by_hand.Work).double(1)
        entrypoint.dissolve(worker)


def test_dissolve_gives_up_at_the_deadline():
    """The object is dissolved all the same."""
    worker = by_hand.AwaitingWorker()
    with cm.Entrypoint("dissolving") as entrypoint:
        capability = entrypoint.manage(worker)
        with by_hand.busy(capability):
            with pytest.raises(cm.CallTimeout), cm.timeout(0.05):
                entrypoint.dissolve(worker)
            assert capability.local is None
        with pytest.raises(cm.StaleCapability), cm.timeout(PATIENCE):
            capability.cast(by_hand.Work).double(1)


class Ending(cm.Interface):
    @cm.method
    def end(self, how: str) -> str: ...


class EndingServer(Ending):
    def __init__(self, entrypoint):
        self.entrypoint = weakref.proxy(entrypoint)

    def end(self, how):
        if how == "dissolve":
            self.entrypoint.dissolve(self)
        else:
            self.entrypoint.close()
        return how


def test_an_object_may_dissolve_itself():
    """From within a call dissolve() does not wait for that call, which is answered."""
    with cm.Entrypoint("self") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(EndingServer(entrypoint)).cast(Ending)
        assert proxy.end("dissolve") == "dissolve"
        with pytest.raises(cm.StaleCapability):
            proxy.end("dissolve")


def test_a_method_may_close_its_entrypoint():
    """From within a call close() returns at once; the call is answered, and service ends after it."""
    with cm.Entrypoint("self") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(EndingServer(entrypoint)).cast(Ending)
        assert proxy.end("close") == "close"
        with pytest.raises(cm.Disconnected) as caught:
            proxy.end("close")
        assert caught.value.ran == "no"
        assert entrypoint.closed
        entrypoint.close()


def test_manage_and_dissolve_again():
    """The same capability while it is managed, another after; one entrypoint at a time."""
    worker = by_hand.Worker()
    with cm.Entrypoint("one") as one, cm.Entrypoint("two") as two:
        capability = one.manage(worker)
        assert one.manage(worker) is capability
        with pytest.raises(ValueError, match="managed by another entrypoint"):
            two.manage(worker)
        two.dissolve(worker)
        assert capability.local is worker
        one.dissolve(worker)
        one.dissolve(worker)
        assert two.manage(worker) != capability


def test_close_gives_up_at_the_deadline_and_service_ends_later(until, open_descriptors):
    """close(timeout) while a method blocks: CallTimeout; the call is answered, and then the clients find it gone."""
    before = open_descriptors()
    with cm.Entrypoint("slow") as entrypoint:
        capability = entrypoint.manage(by_hand.AwaitingWorker())
        with by_hand.busy(capability):
            with pytest.raises(cm.CallTimeout):
                entrypoint.close(0.05)
            entrypoint.close()
            with pytest.raises(cm.Closed):
                entrypoint.manage(by_hand.AwaitingWorker())
        with pytest.raises(cm.Disconnected), cm.timeout(PATIENCE):
            capability.cast(by_hand.Work).double(1)
    capability.close()
    del entrypoint
    until(lambda: open_descriptors() <= before)


@pytest.mark.parametrize("round_", range(5))
def test_close_while_eight_threads_call(round_):
    """Each call ends with its result or with Disconnected; nobody waits for ever."""
    with cm.Entrypoint("ending") as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())
        going = threading.Barrier(9)

        def call():
            proxy = capability.cast(by_hand.Work)
            number = 0
            assert proxy.double(1) == 2
            going.wait(PATIENCE)
            try:
                while True:
                    with cm.timeout(PATIENCE), by_hand.temporary() as file:
                        assert proxy.double(number) == 2 * number
                        proxy.echo(file).close()
                    number += 1
            except cm.Disconnected:
                return number

        threads = [by_hand.Concurrent(call) for _ in range(8)]
        going.wait(PATIENCE)
        closing = [by_hand.Concurrent(entrypoint.close) for _ in range(2)]
        for thread in (*threads, *closing):
            thread.outcome()
    capability.close()


def _collect(forget):
    forget()
    gc.collect()


def test_a_forgotten_entrypoint_warns_and_lets_go():
    """It is closed by garbage collection, says so, and its clients find it gone."""
    capability = None

    def forget():
        nonlocal capability
        entrypoint = cm.Entrypoint("forgotten")
        capability = entrypoint.manage(by_hand.Worker())

    with pytest.warns(ResourceWarning, match="unclosed <Entrypoint 'forgotten'>"):
        _collect(forget)
    with pytest.raises(cm.Disconnected), cm.timeout(PATIENCE):
        capability.cast(by_hand.Work).double(1)


def test_a_forgotten_entrypoint_lets_go_also_where_warnings_are_errors():
    """The warning that becomes an error does not keep it open."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        unraisable = []
        patch.setattr("sys.unraisablehook", lambda error: unraisable.append(str(error.exc_value)))
        warnings.simplefilter("error")
        entrypoint = cm.Entrypoint("forgotten")
        capability = entrypoint.manage(by_hand.Worker())
        del entrypoint
        gc.collect()
        assert unraisable == ["unclosed <Entrypoint 'forgotten'>"]
    with pytest.raises(cm.Disconnected), cm.timeout(PATIENCE):
        capability.cast(by_hand.Work).double(1)


def test_one_thread_serves_at_a_time():
    """serve_forever() while another thread serves is an error, and so after close()."""
    with cm.Entrypoint("served") as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())
        with cm.timeout(PATIENCE):
            assert capability.cast(by_hand.Work).double(1) == 2
        with pytest.raises(RuntimeError, match="served already"):
            entrypoint.serve_forever()
    with pytest.raises(cm.Closed):
        entrypoint.serve_forever()
