"""Ctrl-C between any two steps of listening, handing over and connecting: nobody waits, and nothing stays open."""

from __future__ import annotations

import contextlib
import logging
import warnings
from pathlib import Path

import by_hand
import capmarshal as cm
from capmarshal._descriptors import reaper
from capmarshal._testing import leaks
from interrupting import Interrupting, serve_interrupted
from patience import PATIENCE

PACKAGE = Path(cm.__file__).parent
SERVER = [
    PACKAGE / "_server" / f"{name}.py" for name in ("listening", "listener", "watch", "handovers", "slots", "closings")
]
LISTEN = [
    *(PACKAGE / f"_server/{name}.py" for name in ("listener", "socket_file", "listening", "loop", "service")),
    *(PACKAGE / f"_descriptors/{name}.py" for name in ("socket_paths", "private")),
]
CONNECT = [
    *(PACKAGE / f"_capabilities/{name}.py" for name in ("connecting", "handover", "space")),
    *(PACKAGE / f"_descriptors/{name}.py" for name in ("socket_paths", "private", "moving", "inbox")),
]
# Connections of one try.
CONNECTIONS = 3


def _swept(run):
    """Runs something interrupted at one place after the other; where it was, and what that has left open."""
    logging.disable(logging.CRITICAL)
    # What Ctrl-C keeps from being returned is found unclosed, and pytest would keep what says so.
    warnings.simplefilter("ignore", ResourceWarning)
    run(1 << 30)
    before, at = leaks.settled(3), 0
    while where := run(at):
        at += 1
        wrong = leaks.left(before)
        assert wrong == [], where
    return at


def _connect_some(entrypoint, place):
    """Connects, whatever becomes of one connection, and closes the entrypoint; how many brought a capability."""
    brought = 0
    try:
        for _ in range(CONNECTIONS):
            # The rest finds an end, and nobody waits until the deadline.
            with contextlib.suppress(cm.Disconnected, cm.Refused):
                brought += cm.connect(place, PATIENCE / 3).cast(by_hand.Work).double(4) == 8
    finally:
        entrypoint.close()
    return brought


def test_ctrl_c_between_two_steps_of_handing_over(fork, place):
    """In serve_forever(): at most one who connects is sent away, and the next gets what is due."""

    def serve(at):
        entrypoint = cm.Entrypoint("swept")
        capability = entrypoint.manage(by_hand.Worker())
        entrypoint.listen(place, for_client=lambda _caller: capability)
        client = by_hand.Concurrent(_connect_some, entrypoint, place)
        where = serve_interrupted(entrypoint, at, SERVER)
        assert client.outcome() >= CONNECTIONS - 1, where
        capability.close()
        assert len(entrypoint._service._server._listening._handovers) == 0
        assert not place.exists(), where
        return where

    assert fork(lambda: _swept(serve)).result() > 50


def test_ctrl_c_between_two_steps_of_listening(fork, place):
    """Nothing is left but a file at which nobody answers, and the next replaces that."""

    def listen(at):
        interrupting = Interrupting(at, KeyboardInterrupt, LISTEN)
        with cm.Entrypoint("swept") as entrypoint:
            worker = by_hand.Worker()
            with contextlib.suppress(KeyboardInterrupt), interrupting:
                entrypoint.listen(place, worker)
        # A socket that nobody was given is closed by the reaper, as all that strangers may have sent something to.
        assert reaper.wait(PATIENCE)
        with cm.Entrypoint("next") as entrypoint:
            entrypoint.listen(place, by_hand.Worker(), mode=0o640)
            cm.connect(place, PATIENCE).close()
        assert not place.exists(), interrupting.where
        return interrupting.where

    assert fork(lambda: _swept(listen)).result() > 50


def test_ctrl_c_between_two_steps_of_connecting(fork, place):
    """What was handed over is closed, and the next connection brings it."""

    def sweep():
        with cm.Entrypoint("swept") as entrypoint:
            entrypoint.listen(place, by_hand.Worker())
            # In another process, where it is no capability that has come home.
            return fork(lambda: _swept(connect)).result()

    def connect(at):
        interrupting = Interrupting(at, KeyboardInterrupt, CONNECT)
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            cm.connect(place, PATIENCE).close()
        capability = cm.connect(place, PATIENCE)
        capability.close()
        return interrupting.where

    assert fork(sweep).result() > 50
