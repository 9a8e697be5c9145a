"""What one other bridge may cost this one: parts of its descriptor table, so that others have room beside it."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

# Of the longest arguments and results, so many may be here at a time: of each link those that come, and those that are
# kept for the other; of all links together those that processes of this machine have not read yet.  Were these fewer,
# who has more calls in flight than that would lose some of what has come.
AT_A_TIME = 16

# Entries of the table of one call, or result: as many as an entrypoint takes, unless it is told otherwise.
TABLE_MOST = 1_024

# Calls that have ended, and of which the other has not said that it has heard it: it says so of some hundred at once.
ENDED_MOST = 10_000


@dataclass(frozen=True)
class LinkLimits:
    """Of one link.

    Attributes:
        exports: capabilities that the other is told of; they cost what this bridge holds anyway, or memory alone.
        imports: objects of the other's that are held here, of two descriptors each.
        signals: of the other's, likewise.
        calls: of the other's that run, of a descriptor each.
        bytes: of a call's arguments, and of a result.
        dataspace: bytes of one that is copied.
        descriptors: of all links together, for what others have of this machine's, and this one of theirs.
    """

    exports: int
    imports: int
    signals: int
    calls: int
    bytes: int
    dataspace: int
    descriptors: int

    @classmethod
    def of_this_process(cls, max_bytes: int, max_dataspace: int) -> Self:
        """As its descriptor table is now (RLIMIT_NOFILE): half of that for one link at most."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        table = 1 << 20 if soft == resource.RLIM_INFINITY else soft
        return cls(
            exports=100_000,
            imports=table // 5,
            signals=max(table // 50, 4),
            calls=max(min(table // 20, 10_000), 4),
            bytes=max_bytes,
            dataspace=max_dataspace,
            descriptors=table * 4 // 5,
        )

    @property
    def bytes_at_a_time(self) -> int:
        """Of arguments and results together."""
        return AT_A_TIME * self.bytes
