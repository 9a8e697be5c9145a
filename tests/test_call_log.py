"""The log of calls: one line at each side, for who asked before; who, what, how long and how it ended, and no more."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pytest

import by_hand
import capmarshal as cm
import matrix
from capmarshal._capabilities.capability import open_door_of
from capmarshal._capabilities.space import space
from patience import PATIENCE, until

SECRET = "a word that is nobody's business"


class Shop(cm.Interface):
    @cm.method
    def price(self, of: str) -> str: ...

    @cm.method
    def store(self, what: list[cm.Descriptor]) -> cm.Descriptor: ...

    @cm.method
    @cm.raises(KeyError)
    def lose(self, what: str) -> None: ...

    @cm.method
    def fail(self, what: str) -> None: ...

    @cm.method
    def price_inline(self) -> str: ...


class ShopServer(Shop):
    def price(self, of):
        return f"much for {of}"

    def store(self, what):
        return what[0]

    def lose(self, what):
        raise KeyError(what)

    def fail(self, what):
        raise ValueError(what)

    def price_inline(self):
        return self.me.price(SECRET)


@pytest.fixture
def lines(caplog):
    """Has calls logged, and returns the lines of level DEBUG: times, sizes and process as T, N and P."""
    caplog.set_level(logging.DEBUG, "capmarshal")

    def written(count):
        until(lambda: sum(each.levelno == logging.DEBUG for each in caplog.records) >= count)
        debug = [each.getMessage() for each in caplog.records if each.levelno == logging.DEBUG]
        caplog.clear()
        assert not any(SECRET in line for line in debug)
        shown = [re.sub(r"in \d+\.\d{3} ms", "in T", line) for line in debug]
        shown = [re.sub(r"\d+ (in|out), \d+ (in|out);", r"N \1, N \2;", line) for line in shown]
        return sorted(line.replace(f"process {os.getpid()} (user {os.getuid()})", "P") for line in shown)

    return written


CALLED = "called Shop.{}, entrypoint 'shop': {} in T; bytes: N out, N in; descriptors: {} out, {} in"
RAN = "shop: P: ran Shop.{}: {} in T; bytes: N in, N out; descriptors: {} in, {} out"


def test_a_line_at_each_side(lines):
    """Of data, with descriptors, and however it ends; neither arguments, nor results, nor the words of an error."""
    with by_hand.serving(ShopServer(), "shop") as capability, by_hand.temporary() as file, cm.timeout(PATIENCE):
        shop = capability.cast(Shop)
        assert SECRET in shop.price(SECRET)
        assert lines(2) == [CALLED.format("price", "ok", 0, 0), RAN.format("price", "ok", 0, 0)]
        # Now on the shorter way of calls that were made before.
        shop.price(SECRET)
        assert lines(2) == [CALLED.format("price", "ok", 0, 0), RAN.format("price", "ok", 0, 0)]
        shop.store([file, file]).close()
        assert lines(2) == [CALLED.format("store", "ok", 2, 1), RAN.format("store", "ok", 2, 1)]
        for _ in range(2):
            with pytest.raises(KeyError):
                shop.lose(SECRET)
            assert lines(2) == [CALLED.format("lose", "KeyError", 0, 0), RAN.format("lose", "KeyError", 0, 0)]
        with pytest.raises(cm.RemoteError):
            shop.fail(SECRET)
        assert lines(2) == [CALLED.format("fail", "RemoteError", 0, 0), RAN.format("fail", "ValueError", 0, 0)]
        with pytest.raises(cm.StaleCapability):
            space.capability(open_door_of(capability), b"x" * 16).cast(Shop).price(SECRET)
        assert lines(2) == [
            CALLED.format("price", "StaleCapability", 0, 0),
            RAN.replace("Shop.{}", "b'price'").format("StaleCapability", 0, 0),
        ]
        with pytest.raises(cm.ArgumentError):
            shop.price(object())
        assert lines(1) == ["called Shop.price, entrypoint 'shop': ArgumentError in T; through no channel"]
        capability.close()


def test_the_sizes_are_those_of_the_payloads(caplog):
    """What was sent by one side came to the other."""
    caplog.set_level(logging.DEBUG, "capmarshal")
    with by_hand.serving(ShopServer(), "shop") as capability, cm.timeout(PATIENCE):
        capability.cast(Shop).price("tea")
        until(lambda: len(caplog.messages) == 2)
        called, ran = sorted(caplog.messages)
        assert "bytes: 5 out, 13 in;" in called
        assert "bytes: 5 in, 13 out;" in ran
        capability.close()


@matrix.runs_inline
def test_a_call_inline_is_a_line_of_each_kind_too(lines):
    """It goes through no channel, and is nobody else's."""
    server = ShopServer()
    with by_hand.serving(server, "shop") as capability, cm.timeout(PATIENCE):
        server.me = capability.cast(Shop)
        server.me.price_inline()
        assert lines(4) == [
            "called Shop.price, entrypoint 'shop': ok in T; through no channel",
            CALLED.format("price_inline", "ok", 0, 0),
            RAN.format("price_inline", "ok", 0, 0),
            RAN.replace("P: ", "inline: ").format("price", "ok", 0, 0),
        ]
        del server.me
        capability.close()


def test_what_was_made_before_logs_no_calls(caplog):
    """Whether calls are logged is asked where a proxy is cast and an entrypoint is made."""
    with by_hand.serving(ShopServer(), "shop") as capability, cm.timeout(PATIENCE):
        before = capability.cast(Shop)
        caplog.set_level(logging.DEBUG, "capmarshal")
        before.price(SECRET)
        assert caplog.messages == []
        capability.cast(Shop).price(SECRET)
        assert [line.partition(",")[0] for line in caplog.messages] == ["called Shop.price"]
        caplog.set_level(logging.INFO, "capmarshal")
        capability.cast(Shop).price(SECRET)
        assert len(caplog.messages) == 1
        capability.close()


def test_a_call_that_ends_without_an_answer(lines, fork):
    """By its deadline, with a proxy's timeout; and by the end of its server."""
    with by_hand.server_process(fork) as (process, capability), by_hand.pipe() as (_, began):
        with by_hand.pipe() as (going, _go):
            lines(1)
            with pytest.raises(cm.CallTimeout):
                capability.cast(by_hand.Work, timeout=0.1).block(began, going)
            (line,) = lines(1)
            assert line.startswith("called Work.block, entrypoint 'elsewhere': CallTimeout in T; bytes: N out")
            process.kill()
            with pytest.raises(cm.Disconnected):
                capability.cast(by_hand.Work).double(1)
            (line,) = lines(1)
            assert line.startswith("called Work.double, entrypoint 'elsewhere': Disconnected in T; bytes: N out")


class _Calling(logging.Handler):
    """Sends the log elsewhere by a call, which would be logged, too."""

    def __init__(self, proxy):
        super().__init__()
        self.proxy, self.calls = proxy, 0

    def emit(self, record):
        self.calls += 1
        self.proxy.price(record.getMessage())


@matrix.calls_within_calls
def test_a_handler_that_makes_calls_writes_no_lines_about_them(caplog, fork):
    """To a server elsewhere, that keeps the log: one line is one call of it, and not the next line."""
    with by_hand.server_process(fork, ShopServer) as (_, capability), cm.timeout(PATIENCE):
        caplog.set_level(logging.DEBUG, "capmarshal")
        handler = _Calling(capability.cast(Shop))
        log = logging.getLogger("capmarshal")
        log.addHandler(handler)
        try:
            handler.proxy.price("tea")
        finally:
            log.removeHandler(handler)
        assert handler.calls == 1
        handler.proxy = None


PROGRAM = """
import sys, logging
import capmarshal as cm
{configure}
class Thing(cm.Interface):
    @cm.method
    def use(self) -> int: ...

class ThingServer(Thing):
    def use(self) -> int:
        return 1

with cm.Entrypoint("thing") as entrypoint, cm.timeout(30):
    entrypoint.manage(ThingServer()).cast(Thing).use()
"""


def _stderr(configure, **environment):
    program = [sys.executable, "-P", "-W", "error", "-c", PROGRAM.format(configure=configure)]
    done = subprocess.run(
        program, env=os.environ | environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return done.stderr.splitlines()


def test_the_environment_switches_it_on():
    """To standard error, with time and process, in a program that does nothing about its log."""
    lines = _stderr("", CAPMARSHAL_LOG="debug")
    assert len(lines) == 2
    for line in lines:
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \d+ capmarshal: (called|thing: process)", line)
    assert _stderr("", CAPMARSHAL_LOG="") == []


@pytest.mark.parametrize("value", ["DEBUG", "Debug"])
def test_the_environments_word_may_be_in_capitals(value):
    """As levels of logging are written."""
    assert len(_stderr("", CAPMARSHAL_LOG=value)) == 2


@pytest.mark.parametrize("value", ["1", "info", "foo"])
def test_another_word_is_warned_of(value):
    """Once, when the package is imported; and calls are not logged."""
    program = [sys.executable, "-P", "-c", PROGRAM.format(configure="")]
    done = subprocess.run(
        program,
        env=os.environ | {"CAPMARSHAL_LOG": value},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    warnings = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert len(warnings) == 1
    words = f"RuntimeWarning: CAPMARSHAL_LOG={value} does nothing: CAPMARSHAL_LOG=debug has calls logged"
    assert warnings[0].endswith(words)
    assert "called" not in done.stderr


def test_a_program_that_has_a_log_has_these_lines_in_it():
    """Once, and nowhere else."""
    lines = _stderr("logging.basicConfig(format='mine %(levelname)s %(message)s')", CAPMARSHAL_LOG="debug")
    assert len(lines) == 2
    assert all(line.startswith("mine DEBUG ") for line in lines)


def test_a_level_switches_it_on():
    """As of any package that logs."""
    assert len(_stderr("logging.basicConfig(level=logging.DEBUG)")) == 2
    assert _stderr("logging.basicConfig(level=logging.INFO)") == []
