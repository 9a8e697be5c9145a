"""What a program's own signal handler raises between any two steps of the thread that serves: it is not lost.

As ``test_signals_between_steps.py`` does with Ctrl-C, this goes from one place to the next.
"""

from __future__ import annotations

import gc
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors import reaper
from interrupting import Interrupting
from patience import PATIENCE

PACKAGE = Path(cm.__file__).parent
# How an entrypoint is entered and left is swept in test_service.py.  What a log's handlers raise is not to end a call.
ELSEWHERE = ("service", "session", "letting_go", "journal")
FILES = [path for name in ("_server", "_typed") for path in (PACKAGE / name).glob("*.py") if path.stem not in ELSEWHERE]
FILES += [PACKAGE / "_descriptors" / name for name in ("inbox.py", "descriptor.py")]


class Stop(Exception):
    """What a program's own handler of SIGALRM raises, say."""


def _causes(error):
    while error is not None:
        yield type(error)
        error = error.__cause__ or error.__context__


class Record(msgspec.Struct):
    value: int

    def __post_init__(self):
        if self.value < 0:
            raise RuntimeError("not of this class")


class Odd(cm.Interface):
    @cm.method
    def take(self, record: Record) -> int: ...
    @cm.method
    def give(self) -> Any: ...
    @cm.method
    def read(self, file: io.BufferedReader) -> bytes: ...
    @cm.method
    def read_all(self, first: cm.Descriptor, second: io.BufferedReader, third: io.BufferedReader) -> int: ...


class OddServer(Odd):
    def take(self, record):
        return record.value

    def give(self):
        return [object()]

    def read(self, file):
        return file.read()

    def read_all(self, first, second, third):
        return len(second.read() + third.read())


CALLS = {
    "data": lambda proxies, file: proxies[0].double(1),
    "refused": lambda proxies, file: proxies[0].double("x"),
    "descriptors": lambda proxies, file: proxies[0].echo(file).close(),
    "long": lambda proxies, file: proxies[0].blob(300_000),
    "record": lambda proxies, file: proxies[1].take(Record(1)),
    "reader": lambda proxies, file: proxies[1].read(file),
    "readers": lambda proxies, file: proxies[1].read_all(file, file, file),
    "unsendable": lambda proxies, file: proxies[1].give(),
}


def _serve_and_stop(at, kind):
    """Serves some calls; where Stop was raised, by what the service ended, and what clients were told."""
    entrypoint = cm.Entrypoint("swept")
    capabilities = entrypoint.manage(by_hand.Worker()), entrypoint.manage(OddServer())

    def call():
        proxies, said = [each.cast(of) for each, of in zip(capabilities, (by_hand.Work, Odd), strict=True)], []
        try:
            with by_hand.temporary() as file, cm.timeout(PATIENCE):
                for _ in range(3):
                    try:
                        CALLS[kind](proxies, file)
                    except (cm.Disconnected, cm.RemoteError, cm.ArgumentError) as error:
                        said.append(str(error))
        finally:
            entrypoint.close()
        return said

    interrupting, ended = Interrupting(at, Stop, FILES), None
    calling = by_hand.Concurrent(call)
    try:
        with interrupting:
            entrypoint.serve_forever()
    except Stop as error:
        ended = repr(error)
        entrypoint.close()
    said = calling.outcome()
    for capability in capabilities:
        capability.close()
    return interrupting.where, ended, said


class Hearing(logging.Handler):
    """Which classes of errors were logged; keeps none of them, nor what its traceback refers to."""

    def __init__(self):
        super().__init__()
        self.classes = []

    def emit(self, record):
        self.classes += _causes(record.exc_info[1]) if record.exc_info else ()


@pytest.mark.parametrize("kind", CALLS)
def test_what_a_signal_handler_raises_in_the_serving_thread_is_not_swallowed(kind):
    """It ends the service, or it is in the log, or whoever called is told of it; and nobody waits for an answer."""
    # Of an answer that Stop keeps from being sent.
    warnings.simplefilter("ignore", ResourceWarning)
    log, hearing, at = logging.getLogger("capmarshal"), Hearing(), 0
    before, log.propagate = log.propagate, False
    log.addHandler(hearing)
    try:
        while True:
            where, ended, said = _serve_and_stop(at, kind)
            if not where:
                break
            assert ended or Stop in hearing.classes or any("Stop" in words for words in said), (where, said)
            hearing.classes.clear()
            at += 1
    finally:
        log.removeHandler(hearing)
        log.propagate = before
    assert at > 500
    # Again: what is found to be garbage may close what others are found garbage for.
    for _ in range(3):
        gc.collect()
        assert reaper.wait(PATIENCE)
