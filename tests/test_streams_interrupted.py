"""Ctrl-C between two steps of taking items, and of revoking a grant through which streams were begun."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import capmarshal as cm
from capmarshal._capabilities import homecoming
from capmarshal._capabilities.homecoming import CameHome
from capmarshal._server import ownership
from capmarshal._server.escapes import nothing
from capmarshal._server.limits import Limits
from capmarshal._server.shares import Shares
from capmarshal._server.streams import Producer, class_for
from capmarshal._typed.incoming import Owned
from capmarshal._typed.method import methods_of
from interrupting import Interrupting
from patience import until

PACKAGE = Path(cm.__file__).parent
TAKING = [PACKAGE / "_typed/stream.py", PACKAGE / "_typed/untaken.py"]
REVOKING = [
    *(PACKAGE / f"_server/{name}.py" for name in ("entrypoint", "grants", "grant", "grants_counted", "hanging_up"))
]
COUNT = 40


class Source(cm.Interface):
    @cm.method
    def count(self, upto: int) -> Iterator[int]: ...


class SourceServer(Source):
    def __init__(self):
        self.begun = self.closed = 0

    def count(self, upto):
        self.begun += 1
        try:
            yield from range(upto)
        finally:
            self.closed += 1


def test_ctrl_c_between_two_steps_of_taking_items(fork):
    """What comes then is behind what has come, but for one on its way to its taker; the generator is closed."""

    def swept():
        target, at = SourceServer(), 0
        with cm.Entrypoint("source") as entrypoint:
            proxy = entrypoint.manage(target).cast(Source)
            while True:
                stream, taken = proxy.count(COUNT), []
                interrupting = Interrupting(at, KeyboardInterrupt, TAKING)
                with contextlib.suppress(KeyboardInterrupt), interrupting:
                    for number in stream:
                        taken.append(number)  # noqa: PERF402
                rest = []
                # Closed: it was interrupted in a call.
                with contextlib.suppress(cm.Closed):
                    rest += stream
                if rest:
                    missing = set(range(COUNT)) - {*taken, *rest}
                    assert len(missing) <= 1, interrupting.where
                assert taken + rest == sorted({*taken, *rest}), interrupting.where
                del stream
                gc.collect()
                until(lambda: target.closed == target.begun)
                if not interrupting.where:
                    assert taken == list(range(COUNT))
                    return at
                at += 1

    assert fork(swept).result() > COUNT


def test_ctrl_c_between_two_steps_of_revoking_what_has_streams(fork):
    """They are revoked with it, then or when it is revoked again."""

    def swept():
        target, at = SourceServer(), 0
        with cm.Entrypoint("source") as entrypoint:
            while True:
                granted = entrypoint.grant(target)
                streams = [granted.cast(Source).count(1 << 40) for _ in range(2)]
                assert [next(stream) for stream in streams] == [0, 0]
                interrupting = Interrupting(at, KeyboardInterrupt, REVOKING)
                with contextlib.suppress(KeyboardInterrupt), interrupting:
                    entrypoint.revoke(granted, "over")
                entrypoint.revoke(granted, "over")
                until(lambda: target.closed == target.begun)
                for stream in streams:
                    try:
                        list(stream)
                    except cm.Revoked:
                        continue
                    raise AssertionError(interrupting.where)
                grants = entrypoint._service.grants
                until(lambda grants=grants: not (grants._in_force or grants._revoked or grants._cut_short))
                if not interrupting.where:
                    return at
                at += 1

    assert fork(swept).result() > 20


@pytest.mark.parametrize("what", ["items", "the end"])
def test_ctrl_c_before_what_makes_items_goes_on(what):
    """Nothing of the stream is in progress any more then, nor does what came with its call come home there."""
    declared, went_on = methods_of(Source)[b"count"], []
    # What Ctrl-C has left of another test is not this stream's.
    before = ownership.current.get(), homecoming.here.get()

    def given():
        try:
            yield 0
            went_on.append("items")
            yield 1
        finally:
            went_on.append("the end")

    for at in count():
        owned = Owned()
        owned.came_home = CameHome()
        made = class_for(declared, Producer)(
            declared, given(), owned, (), Shares(Limits(), 1 << 20, 100), None, nothing
        )
        made.next(1)
        interrupting = Interrupting(at, KeyboardInterrupt, [PACKAGE / "_server/streams.py"])
        with contextlib.suppress(KeyboardInterrupt), interrupting:
            made.end() if what == "the end" else made.next(1)
        if what in went_on:
            break
        assert ownership.current.get() is before[0], interrupting.where
        assert homecoming.here.get() is before[1], interrupting.where
        made.end()
        assert went_on.pop() == "the end"
    assert at > 3
