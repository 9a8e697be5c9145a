"""What an entrypoint writes into the log, where strangers decide how often there is something to write.

Whoever may call can fail, knock in vain or send nonsense as often as it likes.  So one peer gets one line of a kind
a second, and the next line says how many were left out.  And since a process that forks is another peer, and kinds are
many, lines of all kinds are bounded besides: for a process, for its user, and over all.  No more is remembered than
fits into one small table.
"""

from __future__ import annotations

import contextlib
import logging
from time import monotonic_ns
from typing import TYPE_CHECKING, TypeAlias

from capmarshal._kernel import call_log
from capmarshal._server import tracebacks
from capmarshal._server.shares import Bounds

if TYPE_CHECKING:
    from collections.abc import Hashable

    from capmarshal._server.clients import Peer

    _Key: TypeAlias = tuple[int, int, Hashable]

log = logging.getLogger("capmarshal")

# Nanoseconds between two lines of one kind about one peer.
_PAUSE = 1_000_000_000
# Lines of all kinds in so many nanoseconds: about one process, about those of one user, and about all of them.
MAY = Bounds(20, 40, 60)
_WHILE = 10_000_000_000
# Kinds of lines about peers that are remembered, unless more were written within one pause.
_REMEMBERED = 256
# Stands for the peer of a line that is about nobody in particular.
_NOBODY = (-1, -1)


class _Told:
    """What was last written of one kind about one peer.

    Attributes:
        at: when; CLOCK_MONOTONIC, nanoseconds.
        left_out: lines that have not been written since.
    """

    __slots__ = ("at", "left_out")

    def __init__(self, at: int) -> None:
        self.at = at
        self.left_out = 0


class Journal:
    """Writes an entrypoint's lines to the logger ``capmarshal``, few: one a second for each peer and kind.

    A peer is known by what its lines call it, process and user, and not by the object that stands for it: that may be
    made anew for each of a thousand knocks.  There is no lock: any thread and any signal handler may write, and a fork
    finds nothing held.  At worst a line is written twice, or left out without being counted.

    Args:
        label: of the entrypoint: what each line begins with.

    Attributes:
        label: as given.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._told: dict[_Key, _Told] = {}
        # Lines left out that no entry of the table can tell of.
        self._untold = 0
        # Of this while: since when, and how many lines of a peer, a user and all.
        self._since = 0
        self._lines: dict[tuple[int, int] | int | None, int] = {}

    def warning(self, peer: Peer | None, kind: Hashable, words: str, *args: object) -> None:
        """Writes that a peer did what it should not, unless one of the kind was written a moment ago.

        Args:
            peer: whom the line is about, and counted for; None for nobody in particular.
            kind: which lines are the same in that one a second is enough; never a stranger's own words.
            words: as of :meth:`logging.Logger.warning`.
            args: likewise.
        """
        self._write(logging.WARNING, peer, kind, words, args, None)

    def error(
        self, peer: Peer | None, kind: Hashable, words: str, *args: object, exc_info: BaseException | None = None
    ) -> None:
        """Writes what went wrong in the application, with the error's traceback; otherwise as :meth:`warning`."""
        self._write(logging.ERROR, peer, kind, words, args, exc_info)

    def critical(
        self, peer: Peer | None, kind: Hashable, words: str, *args: object, exc_info: BaseException | None = None
    ) -> None:
        """Writes what went wrong in capmarshal itself, with the error's traceback; otherwise as :meth:`warning`."""
        self._write(logging.CRITICAL, peer, kind, words, args, exc_info)

    def call(self, peer: Peer | None, words: str, *args: object) -> None:
        """Writes about one call, and about each: who had calls logged wants all of them.

        Args:
            peer: whose it was; None for one that a method made inline.
            words: as of :meth:`logging.Logger.debug`.
            args: likewise.
        """
        call_log.write(f"%s: %s{words}", self.label, _whom(peer) or "inline: ", *args)

    def _write(
        self,
        level: int,
        peer: Peer | None,
        kind: Hashable,
        words: str,
        args: tuple[object, ...],
        exc_info: BaseException | None,
    ) -> None:
        if not log.isEnabledFor(level):
            return
        pid, uid = (peer.pid, peer.uid) if peer is not None else _NOBODY
        more = self._due((pid, uid, kind))
        if more is None:
            return
        whom = _whom(peer)
        try:
            cut = tracebacks.cut(exc_info) if exc_info is not None else ""
        except Exception as error:  # noqa: BLE001 - a signal handler's, or of the error's own __str__: it is in the log
            if error.__context__ is None and error is not exc_info:
                error.__context__ = exc_info
            cut, exc_info = "", error
        if cut:
            # A caller's words may be in it, and as many of them as a call can carry.
            more, exc_info = f"{more}\n{cut}", None
        # A filter or handler of the application's own may raise, which is not to end what is being logged.
        with contextlib.suppress(Exception):
            log.log(level, f"%s: %s{words}%s", self.label, whom, *args, more, exc_info=exc_info)

    def _due(self, key: _Key) -> str | None:
        """Whether a line is to be written: None if not, else in words how many were left out before it."""
        now = monotonic_ns()
        told = self._told.get(key)
        if told is not None and now - told.at < _PAUSE:
            told.left_out += 1
            return None
        # What is about nobody is the service's own, of a few kinds, and always written.
        if key[:2] != _NOBODY and not self._may(now, key[:2]):
            if told is not None:
                told.left_out += 1
            else:
                self._untold += 1
            return None
        left_out, others = told.left_out if told is not None else 0, self._untold
        if told is not None:
            told.left_out, told.at = 0, now
        else:
            if len(self._told) >= _REMEMBERED:
                self._sweep(now)
                others = self._untold
            self._told[key] = _Told(now)
        self._untold = 0
        counts = [f"{left_out} such lines"] if left_out else []
        counts += [f"{others} other lines"] if others else []
        return f" (and {' and '.join(counts)} were left out)" if counts else ""

    def _may(self, now: int, peer: tuple[int, int]) -> bool:
        """Whether one more line may be about a peer; counts it."""
        if now - self._since >= _WHILE:
            # Another one: a thread may be in the middle of this.
            self._since, self._lines = now, {}
        lines, whose = self._lines, (peer, peer[1], None)
        if not MAY.admit(1, *[lines.get(one, 0) for one in whose]):
            return False
        for one in whose:
            lines[one] = lines.get(one, 0) + 1
        return True

    def _sweep(self, now: int) -> None:
        """Forgets whom nothing was written about for a while."""
        for key, told in list(self._told.items()):
            if now - told.at >= _PAUSE:
                self._untold += told.left_out
                self._told.pop(key, None)


def _whom(peer: Peer | None) -> str:
    """How a line about a peer begins."""
    return "" if peer is None else f"{peer!r}: "
