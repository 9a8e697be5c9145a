"""What an entrypoint writes into the log, where strangers decide how often there is something to write.

Whoever may call can fail, knock in vain or send nonsense as often as it likes.  So one peer gets one line of a kind
a second, and the next line says how many were left out; and no more is remembered than fits into one small table.
"""

from __future__ import annotations

import contextlib
import logging
from time import monotonic_ns
from typing import TYPE_CHECKING, TypeAlias

from capmarshal._kernel import call_log
from capmarshal._kernel.errors import printable

if TYPE_CHECKING:
    from collections.abc import Hashable

    from capmarshal._server.clients import Peer

    _Key: TypeAlias = tuple[int, int, Hashable]

log = logging.getLogger("capmarshal")

# Nanoseconds between two lines of one kind about one peer.
_PAUSE = 1_000_000_000
# Kinds of lines about peers that are remembered, and so the most lines that are written within one pause.
_REMEMBERED = 256
# Characters of an exception's own text.
_TEXT_MAX = 10_000
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
    """Writes an entrypoint's lines to the logger ``capmarshal``, one a second for each peer and kind.

    A peer is known by what its lines call it, process and user, and not by the object that stands for it: that may be
    made anew for each of a thousand knocks.  There is no lock: any thread and any signal handler may write, and a fork
    finds nothing held.  At worst a line is written twice, or left out without being counted.

    Args:
        label: of the entrypoint: what each line begins with.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._told: dict[_Key, _Told] = {}
        # Lines left out that no entry of the table can tell of any more.
        self._untold = 0
        self._swept_at = 0

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
        call_log.write(f"%s: %s{words}", self._label, _whom(peer) or "inline: ", *args)

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
        left_out = self._due((pid, uid, kind))
        if left_out is None:
            return
        more = f" (and {left_out} such lines were left out)" if left_out else ""
        whom = _whom(peer)
        # A filter or handler of the application's own may raise, which is not to end what is being logged.
        with contextlib.suppress(Exception):
            if any(len(_text(error)) > _TEXT_MAX for error in _chain(exc_info)):
                # A caller's words may be in it, and as many of them as a call can carry.
                more = f": {type(exc_info).__qualname__}: {printable(_text(exc_info)[:_TEXT_MAX])}... (cut short){more}"
                exc_info = None
            log.log(level, f"%s: %s{words}%s", self._label, whom, *args, more, exc_info=exc_info)

    def _due(self, key: _Key) -> int | None:
        """Whether a line is to be written: None if not, else how many were left out before it."""
        now = monotonic_ns()
        told = self._told.get(key)
        if told is None:
            if len(self._told) >= _REMEMBERED:
                self._sweep(now)
            # What is about nobody is the service's own, of a few kinds, and always has its place.
            if len(self._told) >= _REMEMBERED and key[:2] != _NOBODY:
                self._untold += 1
                return None
            self._told[key] = _Told(now)
            untold, self._untold = self._untold, 0
            return untold
        if now - told.at < _PAUSE:
            told.left_out += 1
            return None
        left_out, told.left_out, told.at = told.left_out, 0, now
        return left_out

    def _sweep(self, now: int) -> None:
        """Forgets whom nothing was written about for a while; not for each line of a flood of new peers."""
        if now - self._swept_at < _PAUSE:
            return
        self._swept_at = now
        for key, told in list(self._told.items()):
            if now - told.at >= _PAUSE:
                self._untold += told.left_out
                self._told.pop(key, None)


def _whom(peer: Peer | None) -> str:
    """How a line about a peer begins."""
    return "" if peer is None else f"{peer!r}: "


def _text(error: BaseException | None) -> str:
    """An exception's own text; empty where it has none, or raises when it is asked."""
    with contextlib.suppress(Exception):
        return str(error) if error is not None else ""
    return ""


def _chain(error: BaseException | None) -> list[BaseException]:
    """All that a traceback is written of: an error, and what it was raised from or after."""
    chain: list[BaseException] = []
    while error is not None and not any(known is error for known in chain):
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
