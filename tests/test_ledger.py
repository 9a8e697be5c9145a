"""Who has how much: the accounts, against plain sums."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capmarshal._server.ledger import Ledger, Ranking, Resource
from capmarshal._server.shares import Bounds

CHANGES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(-20, 20)), max_size=300)


@given(changes=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 50)), max_size=400))
def test_the_top_of_a_ranking_has_most(changes):
    """However often amounts change, and without keeping more than a few entries that are outdated."""
    ranking, plain = Ranking(), Counter()
    for member, amount in changes:
        ranking.change(member, amount - plain[member])
        plain[member] = amount
        top = ranking.top()
        assert ranking.of(top) == max(plain.values())
    assert len(ranking) == len(plain)
    assert len(ranking._heap) <= 2 * len(plain) + 65


def test_nobody_is_top_of_an_empty_ranking():
    """Also when everybody has given back what they had."""
    ranking = Ranking()
    ranking.change("one", 3)
    ranking.change("one", -3)
    assert ranking.top() is None
    assert "one" not in ranking


@given(changes=CHANGES)
def test_the_ledger_agrees_with_plain_sums(changes):
    """Over all, of each user and of each peer; and whoever gives way is the heaviest of the heaviest."""
    ledger, plain = Ledger(), Counter()
    for user, number, by in changes:
        peer = (user, number)
        change = max(by, -plain[peer])
        plain[peer] += change
        ledger.change(user, peer, Resource.CHANNELS, change)
    of_users = Counter()
    for (user, number), amount in plain.items():
        of_users[user] += amount
        assert ledger.of_peer(user, (user, number), Resource.CHANNELS) == amount
    assert ledger.total[Resource.CHANNELS] == sum(plain.values())
    for user, amount in of_users.items():
        assert ledger.of_user(user, Resource.CHANNELS) == amount
    most = ledger.most(Resource.CHANNELS)
    if most is None:
        assert not any(plain.values())
    else:
        assert of_users[most[0]] == max(of_users.values())
        assert plain[most] == max(amount for peer, amount in plain.items() if peer[0] == most[0])


@pytest.mark.parametrize(
    ("have", "who", "share"),
    [
        ({}, ("a", 1), 75),
        ({("a", 1): 60}, ("a", 1), 75),
        ({("a", 1): 60}, ("a", 2), 37),
        ({("a", 1): 60}, ("b", 1), 50),
        ({("a", 1): 60, ("a", 2): 1, ("b", 1): 1}, ("a", 3), 16),
        ({("a", 1): 60, ("a", 2): 1, ("b", 1): 1}, ("b", 1), 50),
    ],
)
def test_the_fair_share_is_dealt_to_users_first(have, who, share):
    """A user does not get more by having more processes."""
    ledger = Ledger()
    for (user, number), amount in have.items():
        ledger.change(user, (user, number), Resource.CHANNELS, amount)
    assert ledger.fair_share(who[0], who, Resource.CHANNELS, Bounds(1, 75, 100)) == share
