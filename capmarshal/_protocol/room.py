"""Memory for long records: made real by the kernel only as far as bytes come, and used again where it is small.

To have fresh memory made real, page by page, takes longer than to receive into it.
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

# The room that is kept: in one size, in which a record of a MiB fits with its head, and which is one huge page.
_KEPT_BYTES = 2 << 20
# The oldest goes where there are more.
_idle: deque[mmap.mmap] = deque(maxlen=2)


def room_for(size: int) -> CData:
    """Room for so many bytes, which it never shares with another record.

    Returns:
        ``char[]``; the room is used again when nothing refers to that, or views it, any more.

    Raises:
        KernelError: the process may have no more memory.
    """
    if size > _KEPT_BYTES:
        return ffi.from_buffer("char[]", _mapped(size))
    try:
        mapping = _idle.pop()
    except IndexError:
        mapping = _mapped(_KEPT_BYTES)
    room = ffi.from_buffer("char[]", mapping)
    when_gone(room, _idle.append, mapping)
    return room


def _mapped(size: int) -> mmap.mmap:
    try:
        # Not shared: a forked child has a copy.
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise error_for(error.errno or errno.ENOMEM, "making room for a long record") from None
    with contextlib.suppress(OSError):
        # A kernel without huge pages refuses.
        mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping
