"""Memory for long records: made real by the kernel only as far as bytes come, and used again where it is small.

To have fresh memory made real, page by page, takes longer than to receive into it.  But what is real already, or
becomes so in one huge page, is not to be had for the announcement of a few bytes, which is what its sender is charged
for.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
from collections import deque
from typing import TYPE_CHECKING

from capmarshal._kernel.errors import error_for
from capmarshal._kernel.lifetime import when_gone
from capmarshal._kernel.native import ffi

if TYPE_CHECKING:
    from capmarshal._kernel.native import CData

# Room is kept in sizes of which each is twice the one before: nobody is given more than twice what he announced.  In
# the largest a record of a MiB fits with its head, and it is one huge page.
_KEPT_SIZES = tuple(1 << power for power in range(18, 22))
_HUGE_PAGE = _KEPT_SIZES[-1]
# Of each; the oldest goes where there are more.
_idle: dict[int, deque[mmap.mmap]] = {kept: deque(maxlen=2) for kept in _KEPT_SIZES}


def room_for(size: int) -> CData:
    """Room for so many bytes, which it never shares with another record.

    Returns:
        ``char[]``; the room is used again when nothing refers to that, or views it, any more.

    Raises:
        KernelError: the process may have no more memory.
    """
    kept = 1 << (size - 1).bit_length() if size else 0
    idle = _idle.get(kept)
    if idle is None:
        return ffi.from_buffer("char[]", _mapped(max(size, 1)))
    try:
        mapping = idle.pop()
    except IndexError:
        mapping = _mapped(kept)
    room = ffi.from_buffer("char[]", mapping)
    when_gone(room, idle.append, mapping)
    return room


def _mapped(size: int) -> mmap.mmap:
    try:
        # Not shared: a forked child has a copy.
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise error_for(error.errno or errno.ENOMEM, "making room for a long record") from None
    if size >= _HUGE_PAGE:
        with contextlib.suppress(OSError):
            # A kernel without huge pages refuses.
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping
