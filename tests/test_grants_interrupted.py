"""Ctrl-C, or a fork, between any two steps of granting, of revoking and of telling that an object is unreachable."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import warnings
from pathlib import Path

import by_hand
import capmarshal as cm
from by_hand import Work
from capmarshal._capabilities.space import space
from capmarshal._testing import leaks
from interrupting import Interrupting, serve_interrupted
from patience import PATIENCE, until

PACKAGE = Path(cm.__file__).parent
GRANTS = [
    *(
        PACKAGE / f"_server/{name}.py"
        for name in (
            "entrypoint",
            "grants",
            "grant",
            "deep",
            "unreachable",
            "grant_doors",
            "result_grants",
            "objects",
            "new_door",
        )
    ),
    *(PACKAGE / f"_capabilities/{name}.py" for name in ("space", "capability")),
    *(PACKAGE / f"_descriptors/{name}.py" for name in ("private", "moving")),
    PACKAGE / "_server/hanging_up.py",
]
HANDING_OUT = [
    *(PACKAGE / f"_server/{name}.py" for name in ("calls", "answer", "ownership", "grants_counted")),
    PACKAGE / "_typed/outgoing.py",
    *GRANTS,
]
SERVER = [
    *(
        PACKAGE / f"_server/{name}.py"
        for name in ("grants", "unreachable", "grant_doors", "doorkeeper", "knocks", "endings", "channels", "slots")
    ),
    *(PACKAGE / f"_server/{name}.py" for name in ("watch", "timers", "turns", "loop", "dispatch", "objects")),
    PACKAGE / "_capabilities/space.py",
]


class Folder(cm.Interface):
    """Whose methods hand out what nobody manages."""

    @cm.method
    def open(self, name: str) -> Folder: ...

    @cm.method
    def double(self, value: int) -> int: ...


class FolderServer(Folder):
    def __init__(self):
        self.made = {}

    def open(self, name):
        return self.made.setdefault(name, FolderServer())

    def double(self, value):
        return 2 * value


def remembered(entrypoint):
    """How much an entrypoint and the capability space know of grants and their doors."""
    grants, objects = entrypoint._service.grants, entrypoint._objects
    tables = (
        grants._in_force,
        grants._revoked,
        grants._new,
        grants._own_doors._doorkeepers,
        objects._by_badge,
        objects._only,
    )
    return [len(table) for table in (*tables, space._own, space._server_cookies)]


def swept(prepare, act, after):
    """Does something, interrupted at one place after the other, before what is prepared and after; how many these are.

    Nothing is remembered of it in the end, and nothing stays open.
    """
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore", ResourceWarning)
    # What is raised where a generator is let go is told to this, and pytest's keeps it, and the frames that it was in.
    sys.unraisablehook = lambda _: None
    with cm.Entrypoint("swept") as entrypoint:
        root = entrypoint.manage(by_hand.Worker()).cast(Work)

        def once(at):
            prepared = prepare(entrypoint)
            interrupting = Interrupting(at, KeyboardInterrupt, GRANTS)
            with contextlib.suppress(KeyboardInterrupt), interrupting:
                act(entrypoint, prepared)
            after(entrypoint, prepared, interrupting.where)
            return interrupting.where

        def is_as_it_was():
            gc.collect()
            # It comes round.
            return root.double(1) == 2 and remembered(entrypoint) == before

        once(1 << 30)
        root.double(1)
        until(lambda: not entrypoint._service.grants._in_force and not entrypoint._service.grants._revoked)
        before, at = remembered(entrypoint), 0
        open_before = leaks.settled(3)
        while where := once(at):
            at += 1
            with contextlib.suppress(AssertionError):
                until(is_as_it_was, PATIENCE / 3)
            assert remembered(entrypoint) == before, where
        until(is_as_it_was)
        assert leaks.left(open_before) == []
    return at


def test_ctrl_c_between_two_steps_of_granting(fork):
    """What was not returned has never been."""

    def act(entrypoint, _):
        entrypoint.grant(by_hand.Worker(), only=(Work.double,))

    assert fork(lambda: swept(lambda _: None, act, lambda *_: None)).result() > 50


def test_ctrl_c_between_two_steps_of_revoking(fork):
    """It is revoked, or can be revoked still: whether there is a channel or not."""

    def prepare(used):
        def grant(entrypoint):
            granted = entrypoint.grant(by_hand.Worker())
            assert not used or granted.cast(Work).double(1) == 2
            return [granted]

        return grant

    def act(entrypoint, prepared):
        entrypoint.revoke(prepared[0], "over")

    def after(entrypoint, prepared, where):
        granted = prepared.pop()
        # Does nothing where it is over.
        entrypoint.revoke(granted, "over")
        try:
            granted.cast(Work).double(1)
        except cm.Revoked as error:
            assert str(error).endswith("over"), where
            return
        raise AssertionError(where)

    for used in (False, True):
        assert fork(lambda used=used: swept(prepare(used), act, after)).result() > 20

    def grant_deep(entrypoint):
        granted = entrypoint.grant(FolderServer(), deep=True)
        return [granted, granted.cast(Folder).open("a").open("b")]

    def after_deep(entrypoint, prepared, where):
        file = prepared.pop()
        after(entrypoint, prepared, where)
        try:
            file.double(1)
        except cm.Revoked:
            return
        raise AssertionError(where)

    assert fork(lambda: swept(grant_deep, act, after_deep)).result() > 20


class _ForkedError(BaseException):
    """Is raised in the child."""


class _Forking(Interrupting):
    """Forks at the n-th place, and raises in the child.

    Attributes:
        pid: of the child; 0 in that, and where there is none.
    """

    def __init__(self, at):
        super().__init__(at, _ForkedError, GRANTS)
        self.pid = 0

    def _note(self, frame, event, argument):
        try:
            super()._note(frame, event, argument)
        except _ForkedError:
            self.pid = os.fork()
            if not self.pid:
                raise


def test_a_fork_between_two_steps_of_granting(fork):
    """The child keeps nothing of what was being made, and so nobody from being told that nobody can reach it."""

    def grant(entrypoint, root, at):
        told, is_child, forking = [], False, _Forking(at)
        with by_hand.pipe() as (is_let_go, let_go), by_hand.pipe() as (goes, go):
            try:
                with forking:
                    entrypoint.grant(by_hand.Worker(), unreachable=told.append)
            except _ForkedError:
                is_child = True
            if is_child:
                # What was raised is let go of, and what that refers to.
                try:
                    go.close()
                    gc.collect()
                    let_go.write(bytes([root.double(4)]))
                    by_hand.at_end(goes)
                finally:
                    os._exit(0)
            if forking.pid:
                assert is_let_go.read(1) == b"\x08", forking.where
            gc.collect()
            with contextlib.suppress(AssertionError):
                until(lambda: told, PATIENCE / 3)
            assert told, forking.where
            go.close()
        if forking.pid:
            os.waitpid(forking.pid, 0)
        return forking.pid

    def sweep():
        logging.disable(logging.CRITICAL)
        at = 0
        with cm.Entrypoint("swept") as entrypoint:
            root = entrypoint.manage(by_hand.Worker()).cast(Work)
            while grant(entrypoint, root, at):
                at += 1
        return at

    assert fork(sweep).result() > 30


def test_ctrl_c_between_two_steps_of_telling(fork):
    """In serve_forever(): it is told once, wherever it was interrupted, and the object is let go."""

    def serve(at):
        told = []
        entrypoint = cm.Entrypoint("swept")
        root = entrypoint.manage(by_hand.Worker()).cast(Work)
        granted = [entrypoint.grant(by_hand.Worker(), unreachable=told.append)]

        def use():
            try:
                with contextlib.suppress(cm.Disconnected):
                    granted[0].cast(Work).double(1)
                granted.clear()
                gc.collect()
                with contextlib.suppress(AssertionError):
                    until(lambda: told, PATIENCE / 3)
                # It comes round, and would tell it again.
                for _ in range(3):
                    with contextlib.suppress(cm.Disconnected):
                        root.double(1)
                return len(told), remembered(entrypoint)[:4]
            finally:
                entrypoint.close()

        client = by_hand.Concurrent(use)
        where = serve_interrupted(entrypoint, at, SERVER)
        assert client.outcome() == (1, [0, 0, 0, 0]), where
        return where

    def sweep():
        logging.disable(logging.CRITICAL)
        at = 0
        while serve(at):
            at += 1
        return at

    assert fork(sweep).result() > 50


def test_ctrl_c_between_two_steps_of_handing_out(fork):
    """In serve_forever(): nothing is left of it, what is handed out later is there, and all of it can be revoked."""

    def calling(call):
        """Calls again, where a call was the one that was interrupted, or its channel ended for that with all others."""
        for _ in range(3):
            with contextlib.suppress(cm.RemoteError, cm.Disconnected, cm.StaleCapability):
                return call()
        return call()

    def use(entrypoint, granted, root):
        try:
            folder = granted.cast(Folder)
            for _ in range(2):
                assert calling(lambda: folder.open("a").double(1)) == 2
            entrypoint.revoke(granted)

            def is_as_it_was():
                # It comes round.
                return calling(lambda: root.double(1)) == 2 and remembered(entrypoint)[:5] == [0, 0, 0, 0, 1]

            with contextlib.suppress(AssertionError):
                until(is_as_it_was, PATIENCE / 3)
            return remembered(entrypoint)[:5]
        finally:
            entrypoint.close()

    def serve(at, deep):
        entrypoint = cm.Entrypoint("swept")
        root = entrypoint.manage(by_hand.Worker()).cast(Work)
        client = by_hand.Concurrent(use, entrypoint, entrypoint.grant(FolderServer(), deep=deep), root)
        where = serve_interrupted(entrypoint, at, HANDING_OUT)
        assert client.outcome() == [0, 0, 0, 0, 1], where
        return where

    def sweep(deep):
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore", ResourceWarning)
        at = 0
        while serve(at, deep):
            at += 1
        return at

    for deep in (False, True):
        assert fork(lambda deep=deep: sweep(deep)).result() > 50
