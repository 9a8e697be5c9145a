"""A body of a bridge is taken once, within the exporter's lease."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from capmarshal._bridge_link.replays import Once
from capmarshal._bridge_link.sealing import Label, NotGenuine

LEASE, OTHER = bytes(16), bytes(15) + b"\x01"


def label(call=0, expires=10, kind=2, part=0, lease=LEASE):
    """That of a call."""
    return Label(kind, call.to_bytes(16, "little"), lease, part, True, expires)


REFUSED = {
    "of another lease: the exporter has been started again since": label(lease=OTHER),
    "came after it had expired": label(expires=5),
    "would expire after the exporter's lease": label(expires=21),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_may_not_be_taken_is_refused_and_not_remembered(words):
    """And says why."""
    once = Once(LEASE, ends=20)
    with pytest.raises(NotGenuine, match=re.escape(words)):
        once.take(REFUSED[words], now=5)
    assert not len(once)


def test_what_comes_again_is_refused():
    """In another part, or as another kind, it is another body."""
    once = Once(LEASE, ends=20)
    for each in (label(), label(part=1), label(kind=3), label(call=1)):
        once.take(each, now=5)
        with pytest.raises(NotGenuine, match="a body came a second time"):
            once.take(each, now=5)


def test_what_comes_again_with_another_time_is_refused():
    """Whoever has the token could seal it so: a call runs once all the same."""
    once = Once(LEASE, ends=20)
    once.take(label(expires=10), now=5)
    with pytest.raises(NotGenuine, match="a body came a second time"):
        once.take(label(expires=15), now=5)


def test_a_lease_that_is_renewed_takes_what_lasts_longer():
    """And is never made shorter by it: of two keepalives the later one may come first."""
    once = Once(LEASE, ends=20)
    once.renew(30)
    once.renew(25)
    once.take(label(expires=30), now=5)


def test_a_clock_that_goes_back_has_nothing_taken_again():
    """What was forgotten, since it had expired, stays so."""
    once = Once(LEASE, ends=20)
    once.take(label(call=0, expires=10), now=5)
    once.take(label(call=1, expires=15), now=12)
    with pytest.raises(NotGenuine, match="came after it had expired"):
        once.take(label(call=0, expires=10), now=5)


def test_what_is_remembered_is_bounded_and_more_is_refused():
    """Not forgotten, or it could come again; and taken when there is room."""
    once = Once(LEASE, ends=20, most=2)
    once.take(label(0, expires=10), now=0)
    once.take(label(1, expires=15), now=0)
    with pytest.raises(NotGenuine, match="2 bodies have come that may come again"):
        once.take(label(2, expires=15), now=0)
    once.take(label(2, expires=15), now=10)
    assert len(once) == 2


def test_a_lease_of_another_length_is_refused():
    """No body has such a one."""
    with pytest.raises(ValueError, match="a lease's ID has 16 bytes"):
        Once(b"", ends=1)


class Lives(RuleBasedStateMachine):
    """Against a model that remembers all that was ever taken."""

    @initialize(most=st.integers(1, 8))
    def begin(self, most):
        """A lease."""
        self.once, self.most = Once(LEASE, ends=20, most=most), most
        self.now, self.ends, self.taken = 0, 20, {}

    @rule(by=st.integers(0, 10))
    def pass_time(self, by):
        """The exporter's clock goes on."""
        self.now += by

    @rule(by=st.integers(0, 20))
    def renew(self, by):
        """A keepalive has come."""
        self.ends = max(self.ends, self.now + by)
        self.once.renew(self.now + by)

    @rule(call=st.integers(0, 6), left=st.integers(-3, 25))
    def come(self, call, left):
        """A body comes: the first time, again, late, or for too long."""
        each = label(call, expires=max(self.now + left, 0))
        alive = sum(expires > self.now for expires in self.taken.values())
        wanted = self.now < each.expires <= self.ends and self.taken.get(call, 0) <= self.now and alive < self.most
        try:
            self.once.take(each, self.now)
        except NotGenuine:
            assert not wanted
        else:
            assert wanted
            self.taken[call] = each.expires
        assert len(self.once) <= self.most


TestLives = Lives.TestCase


@given(st.lists(st.integers(0, 5), max_size=40))
def test_nothing_is_taken_twice(calls):
    """In whatever order the engine brings them."""
    once, taken = Once(LEASE, ends=20), []
    for call in calls:
        try:
            once.take(label(call), now=0)
        except NotGenuine:
            continue
        taken.append(call)
    assert sorted(taken) == sorted(set(calls))
