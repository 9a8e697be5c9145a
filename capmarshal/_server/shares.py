"""What each process, each user, and all together may have of a server: the limits, in numbers."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capmarshal._server.limits import Limits

# Of the soft RLIMIT_NOFILE.
_CHANNELS, _IN_FLIGHT, _DOORS, _CLOSING = 3 / 4, 3 / 4, 1 / 2, 1 / 4
# A server answers more than one of its largest calls at a time.
_CALLS_AT_ONCE = 4


def _of_table(share: float) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(int(soft * share), 1)


class Shares:
    """The limits of one entrypoint.

    Args:
        limits: as its author says it.
        max_bytes: of one call's or one result's record.
        max_descriptors: of one call or one result.

    Attributes:
        max_bytes: as given.
        unread_bytes: of answers that may wait for their readers.
        begun_bytes: of long calls that may be on their way in.
        begun_descriptors: of long calls that may be on their way in.
        closing: descriptors that may wait to be closed.
    """

    def __init__(self, limits: Limits, max_bytes: int, max_descriptors: int) -> None:
        self._limits = limits
        self.max_bytes = max_bytes
        self.unread_bytes = limits.unread_bytes or _CALLS_AT_ONCE * max_bytes
        self.begun_bytes = limits.begun_bytes or _CALLS_AT_ONCE * max_bytes
        self.begun_descriptors = limits.begun_descriptors or _CALLS_AT_ONCE * max_descriptors
        self.closing = limits.closing or _of_table(_CLOSING)

    # The size of the descriptor table may change at any time.

    @property
    def channels(self) -> int:
        """How many channels there may be."""
        return self._limits.channels or _of_table(_CHANNELS)

    @property
    def unread_descriptors(self) -> int:
        """How many descriptors may lie unread."""
        return self._limits.unread_descriptors or _of_table(_IN_FLIGHT)

    @property
    def doors(self) -> int:
        """How many doors that came from others may be held."""
        return self._limits.doors or _of_table(_DOORS)

    def of_user(self, most: int) -> int:
        """What one user may have of a maximum."""
        return max(int(most * self._limits.user_share), 1)

    def of_process(self, most: int) -> int:
        """What one process may have of a maximum."""
        return max(int(most * self._limits.process_share), 1)
