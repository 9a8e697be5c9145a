"""What each process, each user, and all together may have of a server: the limits, in numbers."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, NamedTuple

from capmarshal._protocol.parts import RESULT_BYTES_MAX, RESULT_DESCRIPTORS_MAX

if TYPE_CHECKING:
    from capmarshal._server.limits import Limits

# Of the soft RLIMIT_NOFILE.
_CHANNELS, _IN_FLIGHT, _DOORS, _GRANTS, _CLOSING, _IN_CALLS = 3 / 4, 3 / 4, 1 / 2, 1 / 4, 1 / 4, 1 / 4
# A server answers more than one of its largest calls at a time.
_CALLS_AT_ONCE = 4
# Of the calls that may run beside others, what is kept for who has less than its share.
_KEPT_FREE = 1 / 4
# Capabilities that were handed over and are not taken yet: at most, and of the soft RLIMIT_NOFILE; and a user's part.
_HANDOVERS_MOST, _HANDOVERS, _HANDOVERS_OF_USER = 256, 1 / 4, 1 / 4


def _of_table(share: float) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(int(soft * share), 1)


def spared(places: int) -> int:
    """Of places for calls, how many who has its share may go on to take: at least one is kept for who has less."""
    return places - max(int(places * _KEPT_FREE), 1)


class Bounds(NamedTuple):
    """How much of something one process may have, the processes of one user, and all together."""

    process: int
    user: int
    whole: int

    def admit(self, amount: int, process: int, user: int, whole: int) -> bool:
        """Whether those that have so much may have an amount more; who has nothing may have any amount."""
        return (
            (not process or process + amount <= self.process)
            and (not user or user + amount <= self.user)
            and (not whole or whole + amount <= self.whole)
        )


def _too_large(what: str, size: int, descriptors: int, max_bytes: int, max_descriptors: int) -> str:
    if size > max_bytes:
        return f"{what} of {size} bytes; the entrypoint's maximum is {max_bytes} (max_bytes)"
    if descriptors > max_descriptors:
        return f"{what} with {descriptors} descriptors; the entrypoint's maximum is {max_descriptors} (max_descriptors)"
    return ""


class Shares:
    """The limits of one entrypoint.

    Args:
        limits: as its author says it.
        max_bytes: of one call's or one result's record.
        max_descriptors: of one call or one result.

    Attributes:
        max_bytes: as given.
        max_descriptors: as given.
        result_bytes: of one result's record.
        result_descriptors: of one result.
        unread_bytes: of answers that may wait for their readers; one of any size always may.
        begun_bytes: of long calls that may be on their way in; likewise.
        begun_descriptors: of long calls that may be on their way in; likewise.
        closing: descriptors that may wait to be closed.
    """

    def __init__(self, limits: Limits, max_bytes: int, max_descriptors: int) -> None:
        self._limits = limits
        # By what there is, and the least.
        self._known: dict[tuple[int, int], Bounds] = {}
        self.max_bytes = max_bytes
        self.max_descriptors = max_descriptors
        self.result_bytes, self.result_descriptors = max_bytes, max_descriptors
        self._gives_items = False
        self.unread_bytes = self.bounds(limits.unread_bytes or _CALLS_AT_ONCE * max_bytes, max_bytes)
        self.begun_bytes = self.bounds(limits.begun_bytes or _CALLS_AT_ONCE * max_bytes, max_bytes)
        self.begun_descriptors = self.bounds(
            limits.begun_descriptors or _CALLS_AT_ONCE * max_descriptors, max_descriptors
        )
        self.closing = self.bounds(limits.closing or _of_table(_CLOSING))

    def bounds(self, whole: int, least: int = 1) -> Bounds:
        """How much each may have of what is so much in all; a process, and a user, at least so much."""
        known = self._known.get((whole, least))
        if known is None:
            limits = self._limits
            process, user = int(whole * limits.process_share), int(whole * limits.user_share)
            known = self._known[whole, least] = Bounds(max(process, least), max(user, least), whole)
        return known

    # The size of the descriptor table may change at any time.

    @property
    def channels(self) -> Bounds:
        """How many channels there may be."""
        return self.bounds(self._limits.channels or _of_table(_CHANNELS))

    @property
    def places(self) -> Bounds:
        """How many channels there may be, together with what waits to be closed: no fewer where channels may be few."""
        return self.bounds(max(self._limits.channels or 0, _of_table(_CHANNELS)))

    @property
    def unread_descriptors(self) -> Bounds:
        """How many descriptors may lie unread."""
        return self.bounds(self._limits.unread_descriptors or _of_table(_IN_FLIGHT))

    @property
    def in_calls(self) -> Bounds:
        """How many descriptors calls may have that run beside others; one by itself may have any number."""
        return self.bounds(_of_table(_IN_CALLS))

    @property
    def doors(self) -> Bounds:
        """How many doors that came from others may be held."""
        return self.bounds(self._limits.doors or _of_table(_DOORS))

    @property
    def grants(self) -> Bounds:
        """How many objects may be reached that went out in results by themselves."""
        return self.bounds(self._limits.grants or _of_table(_GRANTS))

    def give_items(self) -> None:
        """Has results be as large as anybody takes them: they are items, which whoever takes them bounds."""
        self._gives_items = True
        self.result_bytes, self.result_descriptors = RESULT_BYTES_MAX, RESULT_DESCRIPTORS_MAX

    def arguments_too_large(self, size: int, descriptors: int) -> str:
        """Why arguments are more than the entrypoint takes; empty if they are not."""
        return _too_large("arguments", size, descriptors, self.max_bytes, self.max_descriptors)

    def result_too_large(self, size: int, descriptors: int) -> str:
        """Why a result is more than the entrypoint sends; empty if it is not."""
        most, most_descriptors = self.result_bytes, self.result_descriptors
        if not self._gives_items:
            return _too_large("a result", size, descriptors, most, most_descriptors)
        if size <= most and descriptors <= most_descriptors:
            return ""
        return f"{size} bytes and {descriptors} descriptors; an item has {most} and {most_descriptors} at most"

    @property
    def handovers(self) -> Bounds:
        """How many capabilities may wait to be taken by whoever has connected."""
        whole = min(_of_table(_HANDOVERS), _HANDOVERS_MOST)
        of_user = max(int(whole * _HANDOVERS_OF_USER), 1)
        return Bounds(of_user, of_user, whole)
