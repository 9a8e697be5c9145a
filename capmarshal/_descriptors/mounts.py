"""Which files cannot block when they are closed: those on a file system of this machine's own.

FUSE, NFS and CIFS ask a server at every close.  A file's mount is told by statx(2) without asking anybody, and
``/proc/self/mountinfo`` says what is mounted there.  By the mount and not by the device: overlayfs gives its files
devices that stand nowhere, and a number that an unmounted file system had goes to the next.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import TYPE_CHECKING

from capmarshal._descriptors.mountinfo import id_in, is_local, unique_ids
from capmarshal._descriptors.private import Private, make_reader
from capmarshal._descriptors.process import process
from capmarshal._kernel.native import NOW, ffi, lib

if TYPE_CHECKING:
    from capmarshal._kernel.native import CData

_PATH = b"/proc/self/mountinfo"
_CHUNK = 1 << 16

# Seconds between two tries to open it.
_PAUSE = 1.0


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

    def _made_of(self, ids: list[int], *, unique: bool = False) -> CData:
        known = {"mountinfo": self._mountinfo.number, "unique": unique, "count": len(ids), "ids": ids}
        return ffi.new("struct cm_mounts *", known)

    def open(self) -> None:
        """Opens mountinfo and reads it, unless it is open, or could not be opened a moment ago."""
        if self.struct.unique:
            return
        now = time.monotonic()
        if self._mountinfo.number < 0 and now >= self._again_at:
            try:
                self._mountinfo = make_reader(_PATH)
            except OSError:
                self._again_at = now + _PAUSE
            self.read()

    def _lines(self) -> list[bytes]:
        number, text = self._mountinfo.number, b""
        with contextlib.suppress(OSError):
            if number >= 0:
                while chunk := os.pread(number, _CHUNK, len(text)):
                    text += chunk
        return text.splitlines()

    def read(self) -> None:
        """Makes the list anew."""
        local = filter(is_local, self._lines())
        self.struct = self._made_of(sorted(map(id_in, local)))

    def for_good(self) -> list[int]:
        """Those that there are, as :meth:`keep` takes them; none where the kernel has no unique IDs (Linux 6.8)."""
        self.open()
        if (number := self._mountinfo.number) < 0:
            return []
        # What has changed before is in what is read now.
        lib.cm_wait(number, select.POLLPRI, NOW)
        made = sorted(unique_ids(self._lines()))
        changed = lib.cm_wait(number, select.POLLPRI, NOW) & select.POLLPRI
        # Others learn of that here, who were to ask.
        self.struct.stale = 1
        return [] if changed else made

    def keep(self, made: list[int]) -> None:
        """Knows those, and no others, from now on: mountinfo is closed, which says what is mounted, and from where.

        Args:
            made: what :meth:`for_good` has returned, while that could be asked.
        """
        closed, self._mountinfo = self._mountinfo, Private(-1)
        self.struct = self._made_of(made, unique=True)
        closed.close()

    def in_child(self) -> None:
        """Opens another one: what poll(2) has told is kept with the open file, which the parent asks too."""
        self._again_at = 0.0
        if self.struct.mountinfo >= 0:
            self.open()


mounts = Mounts()
process.mounts = mounts
