"""What remains to a method, and proxies that have a timeout for each of their calls."""

import contextlib
import math
import select
import socket

import pytest

import capmarshal as cm

PATIENCE = 30.0


class Told(cm.Interface):
    """Tells what remains to its server, or waits for a word."""

    @cm.method
    def remaining(self) -> float: ...
    @cm.method
    def remaining_to(self, other: "Told") -> float: ...
    @cm.method
    def wait(self, nothing: cm.Descriptor) -> None: ...


class ToldServer(Told):
    def remaining(self) -> float:
        return cm.remaining()

    def remaining_to(self, other: Told) -> float:
        return other.remaining()

    def wait(self, nothing: cm.Descriptor) -> None:
        assert select.select([nothing], [], [], PATIENCE)[0]


@contextlib.contextmanager
def _told():
    """The capabilities of objects in two entrypoints of their own."""
    with cm.Entrypoint("one") as one, cm.Entrypoint("two") as two:
        yield one.manage(ToldServer()), two.manage(ToldServer())


def test_remaining_in_a_method_is_what_its_caller_waits():
    """Over a channel, and inline."""
    with _told() as (one, other):
        asked = one.cast(Told)
        assert asked.remaining() == math.inf
        with cm.timeout(100):
            assert 99 < asked.remaining() <= 100
            assert 99 < asked.remaining_to(asked) <= 100
            assert 99 < asked.remaining_to(other.cast(Told)) <= 100


def test_a_proxy_may_have_a_timeout_for_each_of_its_calls():
    """Each call has the whole of it, and nothing is left in force when it returns."""
    with _told() as (one, other):
        bounded = one.cast(Told, timeout=100)
        for _ in range(2):
            assert 99 < bounded.remaining() <= 100
            assert cm.remaining() == math.inf
        assert 99 < bounded.remaining_to(other.cast(Told)) <= 100


def test_of_a_proxys_timeout_and_a_block_the_earlier_holds():
    """Whichever it is."""
    with _told() as (one, _):
        with cm.timeout(50):
            assert 49 < one.cast(Told, timeout=100).remaining() <= 50
        with cm.timeout(100):
            assert 49 < one.cast(Told, timeout=50).remaining() <= 50


def test_proxies_of_one_capability_are_equal_whatever_their_timeout():
    """A timeout is this program's, no part of what it holds; two proxies may have two."""
    with _told() as (one, _):
        plain, slow, quick = one.cast(Told), one.cast(Told, timeout=100), one.cast(Told, timeout=50)
        assert plain == slow == quick
        assert len({plain, slow, quick}) == 1
        assert 49 < quick.remaining() <= 50
        assert 99 < slow.remaining() <= 100
        assert plain.remaining() == math.inf
        assert type(slow) is type(quick)
        assert isinstance(slow, Told)


def test_a_proxy_with_a_timeout_that_is_passed_on_is_the_capability():
    """Whoever is given it has no timeout but the caller's."""
    with _told() as (one, other):
        assert other.cast(Told).remaining_to(one.cast(Told, timeout=0.001)) == math.inf
        assert cm.capability(one.cast(Told, timeout=1)) is one


def test_a_call_that_outlasts_its_proxys_timeout_ends():
    """As in a block."""
    with _told() as (one, _):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            with pytest.raises(cm.CallTimeout) as caught:
                one.cast(Told, timeout=0.02).wait(theirs)
            # On a busy machine it had not begun.
            assert caught.value.ran in ("maybe", "no")
            ours.send(b"go")


@pytest.mark.parametrize("seconds", [0, 0.0, -1, math.nan])
def test_what_is_no_timeout_of_a_proxy_is_refused_at_once(seconds):
    """0 too: no call could be made."""
    with _told() as (one, _), pytest.raises(ValueError, match="a number of seconds"):
        one.cast(Told, timeout=seconds)


def test_what_is_no_number_is_no_timeout_of_a_proxy():
    """True would be a second; None is none."""
    with _told() as (one, _):
        for seconds in ("1", True):
            with pytest.raises(TypeError, match="a number of seconds"):
                one.cast(Told, timeout=seconds)
        assert type(one.cast(Told, timeout=None)) is type(one.cast(Told))
