"""The table of an entrypoint's objects; and that nothing of an entrypoint grows with the calls that it has served."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

import by_hand
import capmarshal as cm
import matrix
from capmarshal._capabilities.capability import badge_of
from capmarshal._capabilities.space import space
from capmarshal._descriptors import reaper
from capmarshal._descriptors.process import process
from capmarshal._server.objects import Objects
from capmarshal._typed.method import methods_of

PATIENCE = by_hand.PATIENCE

# Bytes: far below what one more entry for each of a thousand calls would take.
ALLOWED = 40_000


class Inner(cm.Interface):
    @cm.method
    def data(self, value: int) -> int: ...

    @cm.method
    def fail(self) -> int: ...

    @cm.method
    def inline(self, what: cm.Capability, times: int) -> int: ...

    @cm.method
    def keep(self, file: cm.Descriptor) -> None: ...


class InnerServer(Inner):
    def data(self, value):
        return value

    def fail(self):
        raise ValueError

    def inline(self, what, times):
        proxy = what.cast(Inner)
        return sum(proxy.data(1) for _ in range(times))

    def keep(self, file):
        cm.keep(file).close()


def test_what_is_remembered_of_an_object_is_its_methods_not_its_calls():
    """However often it is called; and nothing once the object is gone."""
    objects = Objects()
    target = InnerServer()
    badge = objects.add(target)
    method = methods_of(InnerServer)[b"data"]
    for _ in range(1000):
        decode, encode = method.decode_data_arguments, method.encode_data_result
        known = target, method, decode, encode, method.plain_result
        assert objects.find(badge + b"data") == known
        assert objects.find(badge + b"no such") is None
    assert objects.known == {badge + b"data": known}
    assert objects._remembered == {badge: [badge + b"data"]}
    objects.remove(badge)
    assert objects.find(badge + b"data") is None
    assert objects.known == objects._remembered == {}


def test_the_call_in_progress_is_named():
    """The innermost one, by its interface; what a stranger calls a method is not repeated."""
    objects = Objects()
    badge = objects.add(InnerServer())
    assert objects.in_progress() == ""
    objects.running.append(badge + b"inline")
    assert objects.in_progress() == "Inner.inline"
    objects.running.append(badge + b"data")
    assert objects.in_progress() == "Inner.data"
    objects.running.append(badge + b"no such method")
    assert "no such" not in objects.in_progress()
    objects.running.clear()
    assert objects.in_progress() == ""


def test_what_was_taken_out_is_forgotten_with_its_calls():
    """Also by who takes all out, as the last thing that is done; not before they have ended."""
    objects = Objects()
    target = InnerServer()
    badge = objects.add(target)
    objects.running.append(badge + b"data")
    objects.remove(badge)
    objects.clear(lambda _: None)
    assert objects.calls_of(target) == 1
    objects.end(badge + b"data")
    objects.clear(lambda _: None)
    assert objects._over == {}


def _settle():
    gc.collect()
    assert reaper.wait(PATIENCE)


def _growth(run):
    """Bytes that are allocated after it has run, and were not before: of what it allocated, what stays."""
    run()
    gc.collect()
    tracemalloc.start()
    try:
        run()
        _settle()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(3):
            run()
        _settle()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


@matrix.trio_keeps_deadlines
@pytest.mark.parametrize("kind", ["data", "inline", "bad payload", "raises", "kept", "no such method", "stale"])
def test_no_kind_of_call_leaves_anything_behind(kind, quiet_log):
    """What the entrypoint holds after thousands of them is what it held after some."""
    with cm.Entrypoint("served") as entrypoint, by_hand.temporary() as file:
        capability = entrypoint.manage(InnerServer())
        proxy = capability.cast(Inner)
        with by_hand.knock(capability) as near:

            def raw(**changed):
                near.send(by_hand.call(capability, **changed))
                by_hand.failure(near)

            def call():
                if kind == "data":
                    proxy.data(1)
                elif kind == "raises":
                    with pytest.raises(cm.RemoteError):
                        proxy.fail()
                elif kind == "kept":
                    proxy.keep(file)
                elif kind == "bad payload":
                    raw(method=b"data", payload=b"\x91\xa1x")
                elif kind == "no such method":
                    raw(method=b"nothing")
                elif kind == "stale":
                    raw(method=b"data", badge=bytes(15) + b"x")

            def run():
                for _ in range(400):
                    # Each has its time: on a busy machine, all of them take long.
                    with cm.timeout(PATIENCE):
                        call()
                if kind == "inline":
                    with cm.timeout(PATIENCE):
                        assert proxy.inline(capability, 400) == 400

            assert _growth(run) < ALLOWED
        assert badge_of(capability) in entrypoint._objects._by_badge
    capability.close()


def test_entrypoints_that_are_gone_leave_nothing_behind():
    """Made, entered, called, closed; or forgotten."""
    capability = None

    def run():
        nonlocal capability
        for _ in range(60):
            with cm.Entrypoint("passing") as entrypoint, cm.timeout(PATIENCE):
                capability = entrypoint.manage(InnerServer())
                assert capability.cast(Inner).data(1) == 1
            capability.close()

    managed = len(space.managed)
    # An entrypoint's room for records, of 200,000 bytes, may just have been made, or not be given back yet; not two.
    assert _growth(run) < 400_000 + ALLOWED
    gc.collect()
    # Of 300 entrypoints and as many channels; those that the reaper is closing just now are there still.
    assert len(process.privates) < 50
    assert len(space.managed) == managed
    assert len([service for service in process.entrypoints if service._label == "passing"]) <= 1


def test_knocks_that_are_none_leave_nothing_behind(quiet_log):
    """A thousand records of one byte through a door."""
    with by_hand.serving() as capability, cm.timeout(PATIENCE):
        proxy = capability.cast(by_hand.Work)

        def run():
            for _ in range(20):
                for _ in range(20):
                    by_hand.at_door(capability, b"x")
                # Whoever serves has read them when this is answered.
                assert proxy.double(1) == 2

        assert _growth(run) < ALLOWED
    capability.close()


def test_a_stale_capability_says_whose_call_it_was():
    """Of an object that was dissolved, called, passed as an argument, and returned."""

    class Passing(cm.Interface):
        @cm.method
        def take(self, work: by_hand.Work) -> None: ...
        @cm.method
        def give(self) -> by_hand.Work: ...

    class PassingServer(Passing):
        def take(self, work):
            pass

        def give(self):
            return self.held

    worker, passing = by_hand.Worker(), PassingServer()
    with cm.Entrypoint("home") as entrypoint, cm.Entrypoint("other") as other, cm.timeout(by_hand.PATIENCE):
        work = entrypoint.manage(worker).cast(by_hand.Work)
        passing.held = work
        home, away = (each.manage(PassingServer()).cast(Passing) for each in (entrypoint, other))
        away_server = cm.capability(away).local
        away_server.held = work
        entrypoint.dissolve(worker)
        for call, words in (
            (lambda: work.double(1), "Work.double, entrypoint 'home': the capability's object is not there"),
            (lambda: home.take(work), "Passing.take, entrypoint 'home': arguments: a capability came home"),
            (away.give, "Passing.give, result: a capability came home"),
        ):
            with pytest.raises(cm.StaleCapability) as caught:
                call()
            assert words in str(caught.value)
        away_server.held = passing.held = None
