"""The file by which a listening socket is found: made where nobody listens, and removed again when that ends.

Between looking whether somebody answers there and listening oneself nobody else may do the same, or both would find the
other's socket stale, since one that is bound and does not listen yet refuses connections as a dead one does.  So all of
it is done under a lock on a file beside it, which stays: whoever removed that could have two hold it at a time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from capmarshal._descriptors import private, reaper
from capmarshal._descriptors.socket_paths import (
    address_to_bind,
    address_to_connect,
    change_mode,
    credentials_of,
    words_for,
)
from capmarshal._kernel.deadline import ahead, in_force
from capmarshal._kernel.errors import KernelError, check, error_for
from capmarshal._kernel.native import lib
from capmarshal._kernel.waiting import Backoff, drive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capmarshal._descriptors.private import Private

# Seconds.  Whoever else holds the lock is about to listen, or to find out that it can't.
_LOCK_PATIENCE = 5.0
# Connections that may wait to be accepted; above that, whoever connects waits (listen(2)).
BACKLOG = 128

_LOCK_MODE = 0o600


@contextlib.contextmanager
def _failing_in_words(doing: str) -> Iterator[None]:
    """What Python says of a system call, as one of the package's errors."""
    try:
        yield
    except OSError as error:
        if isinstance(error, KernelError) or error.errno is None:
            raise
        raise error_for(error.errno, doing) from None


@contextlib.contextmanager
def _locked(path: bytes) -> Iterator[None]:
    """Holds the lock beside a path.

    Raises:
        KernelError: it can't be had.
    """
    beside = path + b".lock"
    # Whatever a stranger has put there, as a FIFO: opening it waits for nobody.
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    doing = f"listening at {words_for(path)}: opening {words_for(beside)}"
    with contextlib.closing(private.make_file(beside, flags, _LOCK_MODE, doing)) as lock:
        backoff = Backoff(min(in_force(), ahead(_LOCK_PATIENCE)))
        while True:
            with _failing_in_words(f"locking {words_for(beside)}"), contextlib.suppress(BlockingIOError):
                fcntl.flock(lock.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if not drive(backoff.wait(-1, 0)):
                raise KernelError(
                    errno.EADDRINUSE, f"{words_for(beside)} is locked: another process is about to listen there"
                )
        yield


def _is_stale(path: bytes) -> bool:
    """Whether nobody answers at a socket's path; False if it is gone meanwhile.

    Raises:
        KernelError: somebody listens there, or it can't be told.
    """
    taken = f"listening at {words_for(path)}"
    with reaper.closing(private.make_socket(taken)) as probe:
        os.set_blocking(probe.number, False)
        with address_to_connect(path) as address:
            result = lib.lx_connect(probe.number, address, len(address))
        if result == 0:
            who = credentials_of(probe.number)
            raise KernelError(errno.EADDRINUSE, f"{taken}: process {who.pid} (user {who.uid}) listens there already")
    if result == -errno.EAGAIN:
        raise KernelError(errno.EADDRINUSE, f"{taken}: somebody listens there already, and is busy")
    if result == -errno.EPROTOTYPE:
        raise KernelError(errno.EADDRINUSE, f"{taken}: somebody has a socket of another kind there")
    if result not in (-errno.ECONNREFUSED, -errno.ENOENT):
        check(result, f"{taken}: trying whether somebody does already")
    return result == -errno.ECONNREFUSED


def _socket_is_there(path: bytes) -> bool:
    """Whether there is a socket's file; False if there is nothing.

    Raises:
        KernelError: something else is there, or it can't be told.
    """
    doing = f"listening at {words_for(path)}"
    with _failing_in_words(doing), contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise KernelError(errno.EEXIST, f"{doing}: what is there is no socket, and stays")
        return True
    return False


def _make_room(path: bytes) -> None:
    """Removes a socket's file that nobody answers at, and nothing else.

    Raises:
        KernelError: somebody does, or something else is there.
    """
    if _socket_is_there(path) and _is_stale(path):
        with _failing_in_words(f"removing the stale socket {words_for(path)}"), contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - pathlib is slow to import


class SocketFile:
    """The file of a socket that listens.

    Args:
        path: of it, absolute.

    Attributes:
        path: likewise.
        identity: device and inode; None while there is none.
    """

    __slots__ = ("identity", "path")

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.identity: tuple[int, int] | None = None

    def listen(self, listener: Private, mode: int) -> None:
        """Makes the file, and has the socket listen; at no time may anybody connect whom the mode keeps out.

        Args:
            listener: a socket that is bound to nothing.
            mode: permissions of the file: who may write to it may connect.

        Raises:
            KernelError, ValueError, TableFull: it can't be; what was made is gone.
        """
        doing = f"listening at {words_for(self.path)}"
        # Before there is a lock: where it can't be, no file stays beside somebody else's.
        _socket_is_there(self.path)
        with _locked(self.path):
            _make_room(self.path)
            try:
                # What bind(2) gives the file, less the umask (unix_bind_bsd() in net/unix/af_unix.c).
                os.fchmod(listener.number, mode)
                with address_to_bind(self.path) as address:
                    check(lib.lx_bind(listener.number, address, len(address)), doing)
                with _failing_in_words(doing):
                    made = os.lstat(self.path)
                    self.identity = made.st_dev, made.st_ino
                    if stat.S_IMODE(made.st_mode) != mode:
                        change_mode(self.path, mode)
                check(lib.lx_listen(listener.number, BACKLOG), doing)
            except BaseException:
                self.remove()
                raise

    def remove(self) -> None:
        """Removes the file, unless another stands there by now.

        Before the socket is closed: until then its inode, and so what it is known by, is nobody else's.
        """
        identity, self.identity = self.identity, None
        if identity is None:
            return
        with contextlib.suppress(OSError):
            there = os.lstat(self.path)
            if (there.st_dev, there.st_ino) == identity:
                os.unlink(self.path)  # noqa: PTH108 - pathlib is slow to import
