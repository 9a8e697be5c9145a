"""Ctrl-C where an entrypoint is entered and left: nothing is served after the block, and nothing else is blamed."""

from __future__ import annotations

import contextlib
import gc
import threading
import warnings
import weakref
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
from interrupting import Interrupting
from patience import PATIENCE, until

PACKAGE = Path(cm.__file__).parent
# Where handlers run, Python's own Event and Thread.start() among it.
ENDS = [
    PACKAGE / "_entrypoint.py",
    *(PACKAGE / "_server" / f"{name}.py" for name in ("service", "session", "starting", "letting_go")),
    threading.__file__,
    contextlib.__file__,
]


def _serving(label):
    return [thread for thread in threading.enumerate() if thread.name == f"capmarshal {label}"]


def _with(entrypoint):
    with entrypoint:
        pass


def _on_a_stack(entrypoint):
    with contextlib.ExitStack() as stack:
        stack.enter_context(entrypoint)


@pytest.mark.parametrize("block", [_with, _on_a_stack])
def test_ctrl_c_anywhere_ends_service_with_the_block(block, caplog):
    """As soon as nobody refers to the entrypoint: its clients find it gone, its thread ends, and the log is empty."""
    warnings.simplefilter("ignore", ResourceWarning)
    at = 0
    while True:
        entrypoint = cm.Entrypoint("interrupted")
        capability = entrypoint.manage(by_hand.Worker())
        reference = weakref.ref(entrypoint)
        interrupting = Interrupting(at, KeyboardInterrupt, ENDS)
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            block(entrypoint)
        del entrypoint
        # ExitStack's frame refers to the exception, which refers to it.
        gc.collect()
        assert reference() is None, interrupting.where
        # By the thread, if that has begun.
        cm.wait_gone(capability, PATIENCE)
        until(lambda: not _serving("interrupted"))
        capability.close()
        if not interrupting.where:
            break
        at += 1
    assert at > 30
    assert caplog.messages == []


def test_after_ctrl_c_in_its_block_one_that_is_referred_to_is_closed_or_can_be_entered():
    """But for the one moment before the first line of its end: then it is still served, and can be left."""
    at, served = 0, set()
    while True:
        entrypoint = cm.Entrypoint("referred to")
        proxy = entrypoint.manage(by_hand.Worker()).cast(by_hand.Work)
        interrupting = Interrupting(at, KeyboardInterrupt, ENDS)
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            _with(entrypoint)
        if not entrypoint.closed:
            if _serving("referred to"):
                served.add(interrupting.where)
            else:
                entrypoint.__enter__()
            with cm.timeout(PATIENCE):
                assert proxy.double(1) == 2
            entrypoint.__exit__(None, None, None)
        until(lambda: not _serving("referred to"))
        if not interrupting.where:
            break
        at += 1
    assert len(served) <= 1


def test_one_that_is_entered_by_hand_goes_on_while_it_is_referred_to():
    """Whatever the collector does; when it is forgotten, it is closed, and says so."""
    entrypoint = cm.Entrypoint("by hand").__enter__()
    proxy = entrypoint.manage(by_hand.Worker()).cast(by_hand.Work)
    gc.collect()
    with cm.timeout(PATIENCE):
        assert proxy.double(1) == 2
        with pytest.warns(ResourceWarning, match="unclosed <Entrypoint 'by hand'>"):
            del entrypoint
        with pytest.raises(cm.Disconnected):
            proxy.double(1)
    until(lambda: not _serving("by hand"))


@pytest.mark.parametrize("words", ["release unlocked lock", "of a handler"])
def test_what_a_signal_handler_raises_is_not_blamed_on_a_limit(words):
    """Wherever it comes while the thread is started: it is raised as it is."""
    at = 0
    while True:
        entrypoint = cm.Entrypoint("blamed")
        interrupting = Interrupting(at, lambda: RuntimeError(words), ENDS)
        try:
            with interrupting:
                entrypoint.__enter__()
        except RuntimeError as error:
            assert str(error) == words, interrupting.where
        entrypoint.close()
        until(lambda: not _serving("blamed"))
        if not interrupting.where:
            break
        at += 1
    assert at > 10


def test_a_door_that_the_server_has_shut_itself_is_blamed_on_nobody(caplog):
    """As Ctrl-C has it shut while a call is in progress."""
    entrypoint = cm.Entrypoint("shut")
    server = entrypoint._service._server
    server._running = True
    server.stop(0)
    server.close()
    server._doorkeeper.open()
    server._running = False
    entrypoint.close()
    assert caplog.messages == []


def test_entering_what_another_thread_serves_does_not_let_its_thread_go():
    """It is refused, and leaving waits for the thread that serves as ever."""
    with cm.Entrypoint("twice") as entrypoint:
        with pytest.raises(RuntimeError, match="served already"):
            entrypoint.__enter__()
        (thread,) = _serving("twice")
        assert entrypoint._service._thread is thread
    assert not thread.is_alive()
