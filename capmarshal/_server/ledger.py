"""Who has how much of what is bounded: counted for each peer, for each user, and over all."""

from __future__ import annotations

import heapq
import itertools
from enum import IntEnum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from capmarshal._server.shares import Bounds

M = TypeVar("M")
U = TypeVar("U")
P = TypeVar("P")

# Outdated entries of a ranking that are carried along, beside as many as there are members.
_SLACK = 64


class Resource(IntEnum):
    """What is counted."""

    CHANNELS = 0
    UNREAD_BYTES = 1
    BEGUN_BYTES = 2
    BEGUN_DESCRIPTORS = 3


class Ranking(Generic[M]):
    """Who has most, of members whose amounts change all the time.

    A heap: each change adds an entry, and those that are outdated are passed over.  So no question looks at all.
    """

    __slots__ = ("_amounts", "_heap", "_numbers")

    def __init__(self) -> None:
        self._amounts: dict[M, int] = {}
        self._numbers = itertools.count()
        self._heap: list[tuple[int, int, M]] = []

    def __len__(self) -> int:
        """How many have any."""
        return len(self._amounts)

    def __contains__(self, member: M) -> bool:
        """Whether it has any."""
        return member in self._amounts

    def of(self, member: M) -> int:
        """What a member has."""
        return self._amounts.get(member, 0)

    def change(self, member: M, by: int) -> None:
        """Gives a member more, or less."""
        amount = self._amounts.get(member, 0) + by
        if amount:
            self._amounts[member] = amount
            heapq.heappush(self._heap, (-amount, next(self._numbers), member))
        else:
            self._amounts.pop(member, None)
        if len(self._heap) > 2 * len(self._amounts) + _SLACK:
            self._heap = [(-amount, next(self._numbers), member) for member, amount in self._amounts.items()]
            heapq.heapify(self._heap)

    def top(self) -> M | None:
        """Who has most; None if nobody has any."""
        while self._heap:
            amount, _, member = self._heap[0]
            if self._amounts.get(member) == -amount:
                return member
            heapq.heappop(self._heap)
        return None


class Ledger(Generic[U, P]):
    """The accounts of peers and of their users."""

    def __init__(self) -> None:
        self.total = [0] * len(Resource)
        self._users: list[Ranking[U]] = [Ranking() for _ in Resource]
        self._peers: dict[U, list[Ranking[P]]] = {}

    def change(self, user: U, peer: P, what: Resource, by: int) -> None:
        """Books an amount for a peer, and so for its user and over all."""
        if not by:
            return
        self.total[what] += by
        self._users[what].change(user, by)
        of_user = self._peers.get(user)
        if of_user is None:
            of_user = self._peers[user] = [Ranking() for _ in Resource]
        of_user[what].change(peer, by)
        if by < 0 and not any(map(len, of_user)):
            del self._peers[user]

    def of_user(self, user: U, what: Resource) -> int:
        """What the peers of a user have together."""
        return self._users[what].of(user)

    def of_peer(self, user: U, peer: P, what: Resource) -> int:
        """What one peer has."""
        of_user = self._peers.get(user)
        return of_user[what].of(peer) if of_user is not None else 0

    def most(self, what: Resource, user: U | None = None) -> P | None:
        """The peer with most of the user with most, or of the given one; None if nobody has any."""
        if user is None:
            user = self._users[what].top()
        of_user = self._peers.get(user) if user is not None else None
        return of_user[what].top() if of_user is not None else None

    def fair_share(self, user: U, peer: P, what: Resource, may: Bounds) -> int:
        """What a peer would have if the whole were dealt out evenly: to users, and each user's part to its peers.

        Counted are those that have any, and the one that asks.

        Args:
            user: that asks.
            peer: of that user.
            what: is dealt out.
            may: how much there is, and how much of that one user may have.
        """
        users = self._users[what]
        part = min(may.whole // (len(users) + (user not in users)), may.user)
        ranking: Ranking[P] = self._peers[user][what] if user in self._peers else Ranking()
        return max(part // (len(ranking) + (peer not in ranking)), 1)
