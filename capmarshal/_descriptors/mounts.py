"""Which files cannot block when they are closed: those on a file system of this machine's own.

FUSE, NFS and CIFS ask a server at every close.  A file's mount is told by statx(2) without asking anybody, and
``/proc/self/mountinfo`` says what is mounted there.  By the mount and not by the device: overlayfs gives its files
devices that stand nowhere, and a number that an unmounted file system had goes to the next.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from capmarshal._descriptors.private import Private, make_reader
from capmarshal._descriptors.process import process
from capmarshal._kernel.native import ffi

if TYPE_CHECKING:
    from capmarshal._kernel.native import CData

_PATH = b"/proc/self/mountinfo"
_CHUNK = 1 << 16

# Seconds between two tries to open it.
_PAUSE = 1.0

# What is not named here may ask somebody.
_LOCAL = frozenset(
    b"bcachefs btrfs erofs ext2 ext3 ext4 f2fs hugetlbfs iso9660 overlay ramfs squashfs tmpfs xfs zfs".split()
)


def _is_local(line: bytes) -> bool:
    """Whether a line of mountinfo is about such a file system: its type follows a lone hyphen (proc(5))."""
    return line.partition(b" - ")[2].split(b" ", 1)[0] in _LOCAL


class Mounts:
    """The mounts of this process, as a ``struct cm_mounts`` that is replaced when they change.

    It keeps mountinfo open, which poll(2) reports when that is so.  Where that cannot be had nothing is known, and
    every file may block.

    Attributes:
        struct: for C to look into; whoever does keeps a reference of its own.
    """

    def __init__(self) -> None:
        self._mountinfo = Private(-1)
        # When to try again to open what could not be opened.
        self._again_at = 0.0
        self.struct = self._made_of([])

    def _made_of(self, ids: list[int]) -> CData:
        return ffi.new("struct cm_mounts *", {"mountinfo": self._mountinfo.number, "count": len(ids), "ids": ids})

    def open(self) -> None:
        """Opens mountinfo and reads it, unless it is open, or could not be opened a moment ago."""
        now = time.monotonic()
        if self._mountinfo.number < 0 and now >= self._again_at:
            try:
                self._mountinfo = make_reader(_PATH)
            except OSError:
                self._again_at = now + _PAUSE
            self.read()

    def read(self) -> None:
        """Makes the list anew."""
        number, text = self._mountinfo.number, b""
        with contextlib.suppress(OSError):
            if number >= 0:
                while chunk := os.pread(number, _CHUNK, len(text)):
                    text += chunk
        local = filter(_is_local, text.splitlines())
        self.struct = self._made_of(sorted(int(line.split(b" ", 1)[0]) for line in local))

    def in_child(self) -> None:
        """Opens another one: what poll(2) has told is kept with the open file, which the parent asks too."""
        self._again_at = 0.0
        if self.struct.mountinfo >= 0:
            self.open()


mounts = Mounts()
process.mounts = mounts
