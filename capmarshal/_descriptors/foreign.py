"""A raw file that is not touched when it is made.

FileIO begins with fstat(2), and a buffer on it with lseek(2).  A file of FUSE or NFS has its server asked for the one,
and the other waits for a lock of the open file's, which whoever reads from it keeps for as long as the server likes.
"""

from __future__ import annotations

import errno
import io
import os
import warnings
from typing import TYPE_CHECKING

from capmarshal._descriptors.moving import opened

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from capmarshal._descriptors.descriptor import Descriptor

# The first line is "pos:" and a number (proc_pid_fdinfo(5)).
_HEAD = 64
# No descriptor could be had to look.
_FULL = (errno.EMFILE, errno.ENFILE)


class ForeignFile(io.RawIOBase):
    """What :class:`io.FileIO` is, of a file that may be another machine's, or of a server that has stopped.

    Args:
        descriptor: taken, unless this raises.
        mode: "rb" or "wb".

    Raises:
        OSError: the descriptor table is full.
    """

    def __init__(self, descriptor: Descriptor, mode: str) -> None:
        super().__init__()
        self._number = -1
        self.mode = mode
        self._reads = mode == "rb"
        self.name = descriptor.fileno()
        # What a buffer asks first, before anybody reads.
        self._first: int | None = _position(self.name)
        self._number, descriptor._number = descriptor._number, -1  # noqa: SLF001 - as in `moving`, in one step

    def fileno(self) -> int:
        """The descriptor, borrowed."""
        if self._number < 0:
            raise ValueError("I/O operation on closed file")
        return self._number

    def readable(self) -> bool:
        """Whether it was opened for reading."""
        self.fileno()
        return self._reads

    def writable(self) -> bool:
        """Whether it was opened for writing."""
        self.fileno()
        return not self._reads

    def seekable(self) -> bool:
        """Whether it has a position."""
        number = self.fileno()
        try:
            os.lseek(number, 0, os.SEEK_CUR)
        except OSError:
            return False
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self.fileno())

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """As FileIO's: 0 at the end, None where the open file is non-blocking and has nothing."""
        number = self.fileno()
        if not self._reads:
            raise io.UnsupportedOperation("File not open for reading")
        try:
            return os.readv(number, [buffer])
        except BlockingIOError:
            return None

    def write(self, data: ReadableBuffer) -> int | None:
        """As FileIO's: None where the open file is non-blocking and has no room."""
        number = self.fileno()
        if self._reads:
            raise io.UnsupportedOperation("File not open for writing")
        try:
            return os.write(number, data)
        except BlockingIOError:
            return None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves the position, which all who have the open file share."""
        self._first = None
        return os.lseek(self.fileno(), offset, whence)

    def tell(self) -> int:
        """The position; the first time, as it was when this was made."""
        first, self._first = self._first, None
        return self.seek(0, os.SEEK_CUR) if first is None else first

    def truncate(self, size: int | None = None) -> int:
        """Cuts or lengthens the file, to the position unless a size is given."""
        if self._reads:
            raise io.UnsupportedOperation("File not open for writing")
        size = self.tell() if size is None else size
        os.ftruncate(self.fileno(), size)
        return size

    def close(self) -> None:
        """Closes it.  Does nothing the second time."""
        # -1 first, as in Descriptor.close().
        number, self._number = self._number, -1
        try:
            super().close()
        finally:
            if number >= 0:
                try:
                    os.close(number)
                except OSError as error:
                    # A file of FUSE whose server has ended: it is closed, and there is nobody to ask for more.
                    if error.errno != errno.ENOTCONN:
                        raise

    def _dealloc_warn(self, source: object) -> None:
        """What a buffer calls that nobody has closed."""
        if self._number >= 0:
            warnings.warn(f"unclosed file {source!r}", ResourceWarning, stacklevel=2, source=source)


def _position(number: int) -> int | None:
    """Where an open file is, told by the kernel without a lock; None where nothing can tell."""
    try:
        with opened(f"/proc/self/fdinfo/{number}", os.O_RDONLY) as info:
            return int(os.read(info, _HEAD).split()[1])
    except OSError as error:
        if error.errno in _FULL:
            raise
        return None
