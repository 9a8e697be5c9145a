"""The log: one line a second for each peer and kind, and the number of those left out; memory that does not grow."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace

import pytest

import by_hand
import capmarshal as cm
from capmarshal._server import journal as _journal
from capmarshal._server import tracebacks
from capmarshal._server.clients import Peer, User
from capmarshal._server.journal import Journal
from capmarshal._server.shares import Shares

SECOND = 1_000_000_000


@pytest.fixture
def clock(monkeypatch):
    """The journal's clock, which stands still until a test moves it."""
    now = SimpleNamespace(ns=10 * SECOND)
    monkeypatch.setattr(_journal, "monotonic_ns", lambda: now.ns)
    return now


def peer(pid, uid=1000):
    return Peer(pid, User(uid), Shares(cm.Limits(), 1, 1))


def test_one_line_a_second_and_the_next_says_how_many_were_left_out(clock, caplog):
    """5,000 within a second are one line; the first of the next second has their number, the one after it has none."""
    journal = Journal("digest")
    for number in range(5000):
        journal.warning(peer(7), "raised", "call %d raised", number)
    assert caplog.messages == ["digest: process 7 (user 1000): call 0 raised"]
    for _ in range(2):
        clock.ns += SECOND
        journal.warning(peer(7), "raised", "again")
    assert caplog.messages[1:] == [
        "digest: process 7 (user 1000): again (and 4999 such lines were left out)",
        "digest: process 7 (user 1000): again",
    ]


def test_peers_and_kinds_do_not_hide_each_other(clock, caplog):
    """Another process, another user, another kind and nobody in particular each have a line of their own."""
    journal = Journal("x")
    for _ in range(3):
        journal.warning(peer(1), "a", "one")
        journal.warning(peer(2), "a", "two")
        journal.warning(peer(1, 0), "a", "three")
        journal.error(peer(1), "b", "four")
        journal.critical(None, "a", "five")
    assert caplog.messages == [
        "x: process 1 (user 1000): one",
        "x: process 2 (user 1000): two",
        "x: process 1 (user 0): three",
        "x: process 1 (user 1000): four",
        "x: five",
    ]
    assert [record.levelno for record in caplog.records[2:]] == [logging.WARNING, logging.ERROR, logging.CRITICAL]


def test_ten_thousand_processes_of_a_user_cost_bounded_lines_and_memory(clock, caplog):
    """A process that forks for each line is no way around it; what was left out is said by whoever comes next."""
    journal = Journal("x")
    for pid in range(10_000):
        journal.warning(peer(pid), "knock", "in vain")
    assert len(caplog.messages) == len(journal._told) == _journal.MAY.user
    clock.ns += SECOND
    caplog.clear()
    journal.warning(peer(20_000), "knock", "in vain")
    assert caplog.messages == []
    journal.warning(peer(20_000, 0), "knock", "in vain")
    left_out = 10_001 - _journal.MAY.user
    assert caplog.messages == [f"x: process 20000 (user 0): in vain (and {left_out} other lines were left out)"]
    clock.ns += 10 * SECOND
    journal.warning(peer(20_000), "knock", "in vain")
    assert caplog.messages[1:] == ["x: process 20000 (user 1000): in vain"]


def test_users_without_number_cost_bounded_lines_and_a_service_has_its_own(clock, caplog):
    """As in a user namespace; whoever comes in the next ten seconds is written about."""
    journal = Journal("x")
    for uid in range(10_000):
        journal.warning(peer(uid, uid), "knock", "in vain")
    assert len(caplog.messages) == _journal.MAY.whole
    journal.error(None, "shut", "the door was shut")
    left_out = 10_000 - _journal.MAY.whole
    assert caplog.messages[-1] == f"x: the door was shut (and {left_out} other lines were left out)"


def test_kinds_without_number_cost_bounded_lines_and_hide_no_other_process(clock, caplog):
    """One process that makes methods raise whatever they can; its next line says both counts."""
    journal = Journal("x")
    for kind in range(1000):
        journal.warning(peer(7), kind, "raised")
    assert len(caplog.messages) == _journal.MAY.process
    journal.warning(peer(8), 0, "raised")
    assert caplog.messages[-1] == "x: process 8 (user 1000): raised (and 980 other lines were left out)"
    journal.warning(peer(7), 0, "raised")
    journal.warning(peer(7), 1000, "raised")
    clock.ns += 10 * SECOND
    journal.warning(peer(7), 0, "raised")
    words = "x: process 7 (user 1000): raised (and 1 such lines and 1 other lines were left out)"
    assert caplog.messages[-1] == words


def test_what_is_remembered_does_not_grow(clock, caplog):
    """However many processes there are in time."""
    journal = Journal("x")
    for pid in range(2000):
        journal.warning(peer(pid, pid % 100), "knock", "in vain")
        clock.ns += SECOND
    assert len(journal._told) <= _journal._REMEMBERED
    assert len(journal._lines) <= 2 * 10 + 1


def test_an_error_comes_with_its_traceback(clock, caplog):
    """As of logging's own exc_info."""
    try:
        raise KeyError("which")
    except KeyError as error:
        Journal("x").error(None, "raised", "%s raised", "Work.fail", exc_info=error)
    assert caplog.messages == ["x: Work.fail raised"]
    assert "KeyError: 'which'" in caplog.text
    # A record that pytest keeps would keep what is in the traceback.
    caplog.clear()


def test_the_words_of_a_caller_do_not_fill_the_log(clock, caplog):
    """An exception's own text may be as long as a call: it is cut, in a traceback that says where as ever."""
    try:
        raise ValueError("x" * 1_000_000 + "the end")
    except ValueError as error:
        Journal("x").error(None, "raised", "Work.fail raised", exc_info=error)
    (message,) = caplog.messages
    assert message.startswith("x: Work.fail raised\nTraceback (most recent call last):\n")
    assert "in test_the_words_of_a_caller_do_not_fill_the_log" in message
    assert message.endswith("the end")
    assert len(message) < tracebacks.TEXT_MAX + 500
    assert caplog.records[0].exc_info is None
    caplog.clear()


def test_what_a_handler_of_the_log_raises_ends_nothing(clock, monkeypatch):
    """A broken filter of the application's costs the line, and no more."""

    def broken(_record):
        raise RuntimeError("a filter's own")

    log = logging.getLogger("capmarshal")
    log.addFilter(broken)
    try:
        Journal("x").error(None, "raised", "words")
    finally:
        log.removeFilter(broken)


def test_lines_below_the_loggers_level_are_neither_written_nor_counted(clock, caplog):
    """So that switching the log on later does not begin with a number."""
    journal = Journal("x")
    caplog.set_level(logging.CRITICAL, "capmarshal")
    journal.error(None, "raised", "silent")
    caplog.set_level(logging.WARNING, "capmarshal")
    journal.error(None, "raised", "heard")
    assert caplog.messages == ["x: heard"]


class Failing(cm.Interface):
    @cm.method
    def fail(self) -> None: ...

    @cm.method
    def fail_with(self, file: cm.Descriptor) -> None: ...


class FailingServer(Failing):
    def fail(self):
        raise ValueError

    def fail_with(self, file):
        raise KeyError


def test_two_thousand_calls_that_raise_are_a_line_for_each_method(clock, caplog):
    """Of data alone and with descriptors: each caller gets its error, and the log has the first of each kind."""
    whom = f"process {os.getpid()} (user {os.getuid()})"
    with by_hand.serving(FailingServer(), "x") as capability, by_hand.temporary() as file, cm.timeout(by_hand.PATIENCE):
        proxy = capability.cast(Failing)
        for _ in range(1000):
            with pytest.raises(cm.RemoteError):
                proxy.fail()
            with pytest.raises(cm.RemoteError):
                proxy.fail_with(file)
        assert caplog.messages == [f"x: {whom}: Failing.fail raised", f"x: {whom}: Failing.fail_with raised"]
        clock.ns += SECOND
        with pytest.raises(cm.RemoteError):
            proxy.fail()
        assert caplog.messages[2:] == [f"x: {whom}: Failing.fail raised (and 999 such lines were left out)"]
        # Records that pytest keeps would keep what is in their tracebacks.
        caplog.clear()
    capability.close()
