"""The only importer of the compiled extension.

What the C functions do, return and own is said in the headers in ``csrc/``; no code is repeated here, so a
call from Python costs one crossing and nothing else.  ``lib`` has the functions, ``ffi`` makes the memory
that they are given.  Every function drops the GIL while it runs.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, TypeAlias

try:
    from capmarshal._kernel._extension import ffi, lib
except ModuleNotFoundError as missing:
    if missing.name != "capmarshal._kernel._extension":
        raise
    raise ImportError(
        "capmarshal is imported from where its C part was not compiled, as from a checkout, which comes before what is "
        "installed where Python is started in it with -c or -m: start it with -P, or elsewhere"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    # cffi's own type for memory has none of the attributes that the C struct in it has.
    CData: TypeAlias = Any
    # An array of C ints: one made by ffi.new(), or any sequence, which cffi copies.
    Ints: TypeAlias = CData | Sequence[int]

__all__ = [
    "DESCRIPTORS_MAX",
    "FOREVER",
    "NOW",
    "NULL",
    "TIMED_OUT",
    "TOLD_DATA",
    "TOLD_IN_ORDER",
    "TOLD_WHOLE",
    "UNLIMITED",
    "ffi",
    "lib",
]

NULL = ffi.NULL

# A deadline is a reading of CLOCK_MONOTONIC in nanoseconds (time.monotonic_ns()), or one of these two.
NOW = lib.CM_NOW
FOREVER = lib.CM_FOREVER
# The second one, for cm_call() and cm_reply_wait().
UNLIMITED = lib.CM_UNLIMITED

# What cm_wait() and its kin say where nothing happened in time: by a deadline, and at once.
TIMED_OUT: Final = (-errno.ETIMEDOUT, -errno.EAGAIN)

# What cm_call(), cm_answer() and cm_reply_wait() say (csrc/cm_event.h): below 0 an errno, then an event, and from each
# of these on the size of a record of which there is no more to be told: as it is, or with this number added to it.
TOLD_DATA: Final = lib.CM_HEAD  # as it is
TOLD_IN_ORDER: Final = lib.CM_IN_ORDER_SIZE
TOLD_WHOLE: Final = lib.CM_WHOLE_SIZE

# SCM_MAX_FD of the kernel: no record carries more descriptors.
DESCRIPTORS_MAX = lib.CM_DESCRIPTORS
