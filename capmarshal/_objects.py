"""The objects that an entrypoint manages, by badge, and which of them is being called."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING

from capmarshal import _deadline
from capmarshal._errors import CallTimeout
from capmarshal._lx import FOREVER
from capmarshal._wire import BADGE_SIZE, NO_BADGE

if TYPE_CHECKING:
    from capmarshal._interface import Interface


class Objects:
    """A table that any thread may change while one thread runs calls."""

    def __init__(self) -> None:
        self._by_badge: dict[bytes, Interface] = {}
        # The badges of calls in progress: more than one where a call of the serving thread ran another inline.
        self._running: list[bytes] = []
        self._runner: int | None = None
        self.forget_threads()

    def forget_threads(self) -> None:
        """In a forked child: whoever held the lock does not exist here."""
        # Taken by itself, not by the condition, whose own __enter__ Ctrl-C can interrupt once it is taken.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    def add(self, target: Interface) -> bytes:
        """Enters an object; its badge."""
        badge = secrets.token_bytes(BADGE_SIZE)
        while badge == NO_BADGE:
            badge = secrets.token_bytes(BADGE_SIZE)
        self._by_badge[badge] = target
        return badge

    def get(self, badge: bytes) -> Interface | None:
        """The object, if it is there."""
        return self._by_badge.get(badge)

    def begin(self, badge: bytes) -> Interface | None:
        """The object to call, from here to :meth:`end` in progress; None if there is none."""
        with self._lock:
            target = self._by_badge.get(badge)
            if target is not None:
                self._running.append(badge)
                self._runner = threading.get_ident()
            return target

    def end(self) -> None:
        """The call that began last is over."""
        with self._lock:
            self._running.pop()
            self._changed.notify_all()

    def end_all(self) -> None:
        """No call is in progress, whatever Ctrl-C kept from ending."""
        with self._lock:
            self._running.clear()
            self._changed.notify_all()

    def remove(self, badge: bytes) -> None:
        """Takes an object out, and waits for its calls in progress, unless this is one of them.

        Raises:
            CallTimeout: one is still running at the deadline; the object is out all the same.
        """
        deadline = _deadline.current.get()
        with self._lock:
            self._by_badge.pop(badge, None)
            while badge in self._running and self._runner != threading.get_ident():
                left = None if deadline == FOREVER else (deadline - time.monotonic_ns()) / 1e9
                if left is not None and left <= 0:
                    raise CallTimeout("dissolved, but a call of the object is still running", ran="maybe")
                self._changed.wait(left)

    def clear(self) -> list[Interface]:
        """Takes all objects out; which they were."""
        with self._lock:
            objects = list(self._by_badge.values())
            self._by_badge.clear()
            return objects
