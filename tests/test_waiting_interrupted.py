"""Ctrl-C while the main thread waits for another one: KeyboardInterrupt wherever it comes, and nothing else.

What the standard library has of this is Python code: an event that is waited for loses its lock then, and says so in an
error of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors import reaper
from capmarshal._kernel.deadline import in_force
from capmarshal._server import objects
from capmarshal._typed.flushing import flush_within
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


def _records():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _receive(stack, _folder):
    ends = [stack.enter_context(end) for end in _records()]
    return lambda: cm.Message.receive(ends[1])


def _send(stack, _folder):
    ends = [stack.enter_context(end) for end in _records()]
    message = cm.Message(bytes(1000))
    with contextlib.suppress(cm.CallTimeout):
        while True:
            message.send(ends[0], timeout=0)
    return lambda: message.send(ends[0])


def _signal(stack, _folder):
    return stack.enter_context(cm.SignalReceiver()).wait


def _gone(stack, _folder):
    entrypoint = stack.enter_context(contextlib.closing(cm.Entrypoint("unserved")))
    capability = stack.enter_context(contextlib.closing(entrypoint.manage(by_hand.Worker())))
    return lambda: cm.wait_gone(capability)


def _connect(stack, folder):
    """Where as many wait to be accepted as may."""
    listener, other = (stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for _ in range(2))
    place = str(folder / "busy")
    listener.bind(place)
    listener.listen(0)
    other.connect(place)
    return lambda: cm.connect(place)


def _buffer(stack, _folder):
    pool = stack.enter_context(cm.BufferPool(1, 8))
    stack.enter_context(contextlib.closing(pool.take()))
    return pool.take


def _flush(stack, _folder):
    """Of a file whose lock another thread keeps, as it flushes to a full pipe."""
    reader, writer = os.pipe()
    file = stack.enter_context(open(writer, "wb"))
    source = stack.enter_context(open(reader, "rb", buffering=0))
    size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    os.write(writer, bytes(size))
    file.write(b"pending")
    other = by_hand.Concurrent(file.flush)
    stack.callback(other.outcome)
    stack.callback(source.read, size)
    return lambda: flush_within(file, in_force())


def _dissolved(stack, _folder):
    table, target = objects.Objects(), cm.Interface()
    badge = table.add(target)
    table.running.append(badge + b"method")
    table.remove(badge)
    return lambda: table.wait_for_calls(target)


WAITS = (_receive, _send, _signal, _gone, _connect, _buffer, _dissolved)


# Without a deadline a flush is Python's own.
@pytest.mark.parametrize(
    ("begin", "seconds"),
    [*((begin, None) for begin in WAITS), *((begin, 2 * PATIENCE) for begin in (*WAITS, _flush))],
    ids=lambda of: of.__name__[1:] if callable(of) else None,
)
def test_ctrl_c_that_comes_just_before_a_wait_ends_it(handler, tmp_path, begin, seconds):
    """It interrupts no sleep, then: here because another thread takes it, in the midst of the wait."""
    with contextlib.ExitStack() as stack:
        wait = begin(stack, tmp_path)
        alarm = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
        alarm.start()
        with pytest.raises(KeyboardInterrupt), cm.timeout(seconds):
            wait()
        alarm.join()
