"""Ctrl-C while the main thread waits for another one: KeyboardInterrupt wherever it comes, and nothing else.

What the standard library has of this is Python code: an event that is waited for loses its lock then, and says so in an
error of its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading

import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors import reaper
from capmarshal._server import objects
from capmarshal.demo import broker
from interrupting import Interrupting
from patience import PATIENCE


def interrupted_everywhere(wait, *modules):
    """Calls ``wait`` until it is interrupted nowhere any more; how often it was."""
    files = [module.__file__ for module in (threading, *modules)]
    at = 0
    while True:
        interrupting = Interrupting(at, KeyboardInterrupt, files)
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            wait()
        if not interrupting.where:
            return at
        at += 1


def test_dissolving_an_object_whose_call_does_not_end():
    """And nobody waits for it afterwards."""
    table = objects.Objects()
    target = cm.Interface()
    badge = table.add(target)
    table.running.append(badge + b"method")

    def dissolve():
        with contextlib.suppress(cm.CallTimeout), cm.timeout(0.002):
            table.remove(badge)
            table.wait_for_calls(target)

    assert interrupted_everywhere(dissolve, objects) > 5
    assert not table.awaited
    assert table.calls_of(target) == 1


def test_what_is_dissolved_is_waited_for(until):
    """Until its last call has ended, and no longer."""
    table = objects.Objects()
    target = cm.Interface()
    badge = table.add(target)
    table.running += [badge + b"one", badge + b"two"]

    def end():
        until(lambda: table.awaited)
        for _ in range(2):
            table.running.pop()
            table.tell()

    ending = by_hand.Concurrent(end)
    table.remove(badge)
    with cm.timeout(PATIENCE):
        table.wait_for_calls(target)
    assert not table.running
    ending.outcome()


def test_waiting_for_the_reaper(slow):
    reaper.close([slow()])
    assert interrupted_everywhere(lambda: reaper.wait(0.002), reaper) > 5


def test_the_demos_broker_waiting_for_its_server(monkeypatch):
    monkeypatch.setattr(broker, "_GLANCE", 0.002)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait(PATIENCE)
        registry = broker.RegistryServer()
        assert interrupted_everywhere(lambda: broker._announced(registry, ended), broker) > 1


@pytest.mark.parametrize("announces", [True, False])
def test_a_server_that_ended_may_have_announced_itself_before(announces):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait(PATIENCE)
        registry = broker.RegistryServer()
        if announces:
            registry.announce(registry)
        assert broker._announced(registry, ended) is (registry if announces else None)
