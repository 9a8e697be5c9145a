"""The objects that an entrypoint manages, by badge, and which of them is being called."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.errors import CallTimeout
from capmarshal._kernel.waiting import AT_A_TIME
from capmarshal._protocol.wire import BADGE_SIZE, DESCRIBE, NO_BADGE
from capmarshal._typed.forwarder import forwarding_method
from capmarshal._typed.method import methods_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._typed.interface import Interface
    from capmarshal._typed.long import Payload
    from capmarshal._typed.method import Method

    Decode: TypeAlias = Callable[[bytes | memoryview], Any]
    Encode: TypeAlias = Callable[[Any], Payload]


# What a call is run by, decided once: an object and its method; how a payload becomes arguments, and how a result does
# one, each None where there may be more than data; and the class of results that need no look, if there is one.
Known: TypeAlias = "tuple[Interface, Method, Decode | None, Encode | None, type | None]"


# Of the names by which an object is called that forwards them, so many are remembered, of so many bytes.
_NAMES_MAX, _NAME_SIZE = 256, 256


def make_badge() -> bytes:
    """One that nobody guesses."""
    badge = os.urandom(BADGE_SIZE)
    while badge == NO_BADGE:
        badge = os.urandom(BADGE_SIZE)
    return badge


class Waiter(Protocol):
    """Whoever waits for the end of a call."""

    def release(self) -> None:
        """Has it look again; RuntimeError, if it has not looked since."""


class Objects:
    """A table that any thread may change while one thread runs calls.

    Whoever runs a call enters it among those that are running before looking its object up, and whoever takes an
    object out does so before looking who is running: one of the two sees the other, without a lock.

    Wherever a badge is spoken of here, it is that of an object of the entrypoint's own door; of another door's, what it
    gives with that door's secret: :func:`capmarshal._protocol.wire.combined`.

    Attributes:
        lock: held while the table is changed.
        known: what can be called, by badge and method's name: what was.
        running: the badges of calls in progress, with the method's name behind them: more than one where a call of the
            serving thread ran another inline.
        beside: what of the application's the serving thread runs that is no call; empty: nothing.
        awaited: of each who waits for the end of a call, the lock, say, that is released when there is one.
        described: whether it is said what can be called, to whoever may call it.
    """

    def __init__(self) -> None:
        self.described = True
        self._by_badge: dict[bytes, Interface] = {}
        # The names of the methods that can be called, where these are not all.
        self._only: dict[bytes, frozenset[bytes]] = {}
        # Of those that were taken out while a call of them was in progress, by badge: the id, for the call keeps it.
        self._over: dict[bytes, int] = {}
        self.known: dict[bytes, Known] = {}
        # Which keys of it an object has, by badge.
        self._remembered: dict[bytes, list[bytes]] = {}
        # Grows and shrinks in each call, for which a list would be allocated anew.
        self.running: deque[bytes] = deque()
        self.beside = ""
        self.forget_threads()

    def forget_threads(self) -> None:
        """In a forked child: whoever held the lock does not exist here."""
        self.lock = threading.RLock()
        self.awaited: list[Waiter] = []

    def add(self, target: Interface) -> bytes:
        """Enters an object of the entrypoint's own door, and gives it a badge, which it returns."""
        badge = make_badge()
        self.enter(badge, target)
        return badge

    def enter(self, badge: bytes, target: Interface, only: frozenset[bytes] | None = None) -> None:
        """Enters an object under a badge of :func:`make_badge`.

        Args:
            badge: of the object.
            target: the object.
            only: the names of the methods that can be called; None: all.
        """
        # First: what Ctrl-C leaves is not there, and none of which all can be called.
        if only is not None:
            self._only[badge] = only
        self._by_badge[badge] = target

    def get(self, badge: bytes) -> Interface | None:
        """The object that a badge selects, if there is one."""
        return self._by_badge.get(badge)

    def find(self, key: bytes) -> Known | None:
        """What a call of this badge and name is run by, which is known from here on; None where there is none."""
        badge, name = key[:BADGE_SIZE], key[BADGE_SIZE:]
        target = self._by_badge.get(badge)
        if target is None or self.withholds(badge, name):
            return None
        method, remembered = methods_of(type(target)).get(name), True
        if method is None:
            method = self._forwarding(target, name)
            # Whoever calls it chooses the name.
            remembered = len(name) <= _NAME_SIZE and len(self._remembered.get(badge, ())) < _NAMES_MAX
        if method is None:
            return None
        decode = method.decode_data_arguments if method.arguments_are_data else None
        encode = method.encode_data_result if method.result_is_data else None
        known = target, method, decode, encode, method.plain_result
        with self.lock:
            if remembered and badge in self._by_badge and key not in self.known:
                self._remembered.setdefault(badge, []).append(key)
                self.known[key] = known
        return known

    def _forwarding(self, target: Interface, name: bytes) -> Method | None:
        """What an object has for a name that none of its own methods has, if it forwards."""
        if name == DESCRIBE and not self.described:
            return None
        return forwarding_method(type(target), name)

    def only_of(self, badge: bytes) -> frozenset[bytes] | None:
        """The names of the methods that can be called through its door; None: all."""
        return self._only.get(badge)

    def is_restricted(self, badge: bytes) -> bool:
        """Whether some of an object's methods only can be called through its door."""
        return badge in self._only

    def withholds(self, badge: bytes, name: bytes) -> bool:
        """Whether an object's method is none of those that can be called through its door."""
        only = self._only.get(badge)
        return only is not None and name not in only

    def tell(self) -> None:
        """Has those who wait for the end of a call look again whether it has come."""
        for told in tuple(self.awaited):
            # Released already: whoever waits by it has not looked since.
            with contextlib.suppress(RuntimeError):
                told.release()

    def end_all(self) -> None:
        """Forgets all calls in progress: Ctrl-C may have kept some from ending, and none goes on."""
        with self.lock:
            self.running.clear()
            self.tell()

    def in_progress(self) -> str:
        """What runs now, a method, the innermost where one has called another inline; empty if nothing does."""
        try:
            key = self.running[-1]
        except IndexError:
            return self.beside
        found = self.known.get(key) or self.find(key)
        return found[1].where if found is not None else "a method of an object that was dissolved"

    def end(self, key: bytes) -> None:
        """A call has ended that ran beside others."""
        # Which of several with that key makes no difference; none, if all were forgotten.
        try:  # noqa: SIM105 - contextlib.suppress() costs more than all of it
            self.running.remove(key)
        except ValueError:
            pass
        if self.awaited:
            self.tell()

    def running_badges(self) -> list[bytes]:
        """Those of the calls in progress."""
        # Copied in one step: others may change it.
        return [key[:BADGE_SIZE] for key in self.running.copy()]

    def remove(self, badge: bytes) -> None:
        """Takes an object out; its calls in progress go on: see :meth:`wait_for_calls`."""
        with self.lock:
            # First, so that it can be done again after Ctrl-C.
            if badge in self._by_badge:
                self._over[badge] = id(self._by_badge[badge])
            self._by_badge.pop(badge, None)
            self._only.pop(badge, None)
            for key in self._remembered.pop(badge, ()):
                self.known.pop(key, None)
            self._forget_over()

    def _forget_over(self) -> None:
        """Forgets what was taken out and is called no more."""
        if self._over:
            running = frozenset(self.running_badges())
            # No comprehension, whose jump back is in no `with` under CPython 3.12 and 3.13.
            self._over = dict(filter(lambda each: each[0] in running, self._over.items()))

    def calls_of(self, target: Interface) -> int:
        """How many calls are in progress of an object that was taken out, by whichever badge they came."""
        return [self._over.get(badge) for badge in self.running_badges()].count(id(target))

    def was_of(self, badge: bytes, target: Interface) -> bool:
        """Whether the call in progress of this badge is one of them."""
        return self._over.get(badge) == id(target)

    def wait_for_calls(self, target: Interface) -> None:
        """Waits for these: not from within one of them.

        Raises:
            CallTimeout: one is still running at the deadline.
        """
        deadline = _deadline.in_force()
        # No condition variable: what Ctrl-C raises while one is waited for leaves its lock to somebody else.
        told = threading.Lock()
        try:
            self.awaited.append(told)
            # Not `while CONDITION`: what Ctrl-C raises at the jump back is in no `try` under CPython 3.13.0.
            while True:
                told.acquire(blocking=False)
                if not self.calls_of(target):
                    break
                left = _deadline.seconds_until(deadline)
                if left <= 0:
                    when = f"before {_deadline.origin()}"
                    raise CallTimeout(f"dissolved, but a call of the object has not ended {when}", ran="maybe")
                told.acquire(timeout=min(left, AT_A_TIME))
        finally:
            with contextlib.suppress(ValueError):
                self.awaited.remove(told)

    def discard(self, badge: bytes) -> None:
        """Takes an object out that nobody has called yet."""
        with self.lock:
            self._by_badge.pop(badge, None)
            self._only.pop(badge, None)

    def clear(self, forget: Callable[[Interface], object]) -> None:
        """Takes all objects out; has ``forget`` called with each before, so that it can be done again after Ctrl-C."""
        with self.lock:
            for target in tuple(self._by_badge.values()):
                forget(target)
            self._by_badge.clear()
            self._only.clear()
            self._remembered.clear()
            self.known.clear()
            self._forget_over()
