"""A listening socket of a server, and what it hands over to whoever connects."""

from __future__ import annotations

import contextlib
import os
import socket
import types
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from capmarshal._capabilities.capability import Capability, Proxy
from capmarshal._descriptors import private, reaper
from capmarshal._descriptors.descriptor import in_one_step
from capmarshal._descriptors.private import Private
from capmarshal._descriptors.socket_paths import checked_path, words_for
from capmarshal._kernel.errors import Closed, check
from capmarshal._kernel.native import lib
from capmarshal._kernel.numbers import check_whole
from capmarshal._server.callbacks import refuse_async, refuse_misfit
from capmarshal._server.socket_file import SocketFile
from capmarshal._typed.interface import capability

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.capability import Delegable
    from capmarshal._descriptors.socket_paths import StrOrBytesPath
    from capmarshal._server.caller import Caller
    from capmarshal._server.watch import Watch
    from capmarshal._typed.colour import Colour
    from capmarshal._typed.interface import Interface

_MODE_MAX = 0o777


# What is handed over to a client; None: it is not let in.
ForClient: TypeAlias = "Callable[[Caller], Capability | Delegable | None]"


def giving(
    target: Interface | Capability | None,
    for_client: ForClient | None,
    manage: Callable[[Interface], Capability],
    colour: Colour,
) -> Capability | ForClient:
    """What everybody gets who connects, or what says that.

    Args:
        target: as :meth:`Entrypoint.listen` has it.
        for_client: likewise.
        manage: gives an object a capability.
        colour: of the interfaces that are served.

    Returns:
        A capability for all, or ``for_client``, as a :class:`Listener` takes them.

    Raises:
        TypeError: not one of the two is given, or one is not what it is to be.
        InterfaceError, ValueError, Closed: the target cannot be managed.
    """
    if (target is None) == (for_client is None):
        raise TypeError("listen(path, target) gives everybody the same, listen(path, for_client=...) each its own")
    if for_client is not None:
        if not callable(for_client):
            raise TypeError(f"for_client is called with a Caller, and {for_client!r} cannot be")
        refuse_async(for_client, "for_client", colour)
        refuse_misfit(for_client, 1, "for_client is called with a Caller")
        return for_client
    if isinstance(target, Capability):
        return target
    if issubclass(type(target), Proxy):
        return capability(target)  # type: ignore[arg-type]  # one of the two is given
    if isinstance(target, types.FunctionType | types.MethodType):
        raise TypeError(f"{target!r} cannot be handed over: what says what each client gets is for_client=...")
    return manage(target)  # type: ignore[arg-type]  # likewise, and checked there


def _check_asking(number: int) -> None:
    """Refuses to listen where it could not be asked who has connected.

    Raises:
        KernelError: a filter does not let it be asked, or it is no socket.
    """
    check(lib.cm_socket_option(number, socket.SO_TYPE), "listening", "getsockopt(2), which tells who connects")


def _check_listening(number: int) -> None:
    """Refuses what is no socket to listen at.

    Raises:
        TypeError: it is another kind of socket.
        ValueError: it does not listen.
        Closed: it is closed.
        KernelError: nobody may ask.
    """
    if number < 0:
        raise Closed("the socket to listen at is closed")
    _check_asking(number)
    family, kind = (lib.cm_socket_option(number, option) for option in (socket.SO_DOMAIN, socket.SO_TYPE))
    if family != socket.AF_UNIX or kind != socket.SOCK_SEQPACKET:
        raise TypeError(
            "a service listens at a socket of AF_UNIX, SOCK_SEQPACKET (ListenSequentialPacket= of systemd), not at one "
            f"of family {family} and type {kind}"
        )
    if not lib.cm_socket_option(number, socket.SO_ACCEPTCONN):
        raise ValueError("the socket does not listen: with systemd, Accept= is to be no")


def _taken(listening: socket.socket) -> Private:
    """A listening socket that somebody else has made, taken also if this fails.

    Raises:
        TypeError, ValueError, Closed: it is none.
    """
    taken = Private(-1)
    with private.lock:
        # Not by its own detach(), which is a function of Python's: Ctrl-C raises where that ends, too.
        in_one_step(map(setattr, (taken,), ("number",), iter(partial(socket.SocketType.detach, listening), None)))
    try:
        _check_listening(taken.number)
        os.set_inheritable(taken.number, False)
    except BaseException:
        taken.close()
        raise
    return taken


def _place_of(listening: socket.socket) -> tuple[int, int] | None:
    """Device and inode of the file that somebody else has made for a socket, as far as it can be told."""
    with contextlib.suppress(OSError):
        path = listening.getsockname()
        if isinstance(path, str) and os.path.isabs(path):  # noqa: PTH117 - pathlib is slow to import
            file = os.stat(path)  # noqa: PTH116 - likewise
            return file.st_dev, file.st_ino
    return None


class Listener:
    """A socket that listens, and its file, if that is of this process's making.

    Args:
        where: the path of the file, or a socket that listens, which is taken, also if this fails.
        mode: of the file.
        gives: what is handed over to everybody; or says what, by client.

    Attributes:
        socket: that listens.
        gives: as given.
        place: device and inode of its file, as far as it can be told.
        watch: whether connections are taken, in the loop; set by who does.

    Raises:
        TypeError, ValueError, Closed: it is neither.
        KernelError, TableFull: one cannot listen there.
    """

    __slots__ = ("__weakref__", "_file", "gives", "place", "socket", "watch", "where")
    watch: Watch

    def __init__(self, where: StrOrBytesPath | socket.socket, mode: int, gives: Capability | ForClient) -> None:
        self.gives = gives
        self._file: SocketFile | None = None
        if isinstance(where, socket.socket):
            self.place = _place_of(where)
            self.socket = _taken(where)
            self.where = f"socket {self.socket.number}"
        else:
            path = os.path.abspath(checked_path(where))  # noqa: PTH100 - pathlib is slow to import
            # As it is written, where it is a number: 600 is 0o1130.
            given = oct(mode) if isinstance(mode, int) else repr(mode)
            check_whole(mode, f"a mode is permissions, 0 to 0o777, as 0o600, not {given}", 0, _MODE_MAX)
            self.where = words_for(path)
            self.socket = private.make_socket(f"listening at {self.where}")
            self._file = SocketFile(path)
            try:
                _check_asking(self.socket.number)
                self._file.listen(self.socket, mode)
            except BaseException:
                self.socket.close()
                raise
            self.place = self._file.identity
        # A connection may be gone, or another process's, when it is to be accepted.
        os.set_blocking(self.socket.number, False)

    def remove_file(self) -> None:
        """Removes its file, so that nobody finds it any more; does nothing the second time."""
        file, self._file = self._file, None
        if file is not None:
            file.remove()

    def close(self) -> None:
        """Listens no more, here; from any thread, and does nothing the second time."""
        self.remove_file()
        # Whoever takes a connection holds the lock, too: its number is not to be another's meanwhile.
        with private.lock:
            closed = Private(-1)
            closed.number, self.socket.number = self.socket.number, -1
        # Not shut down: others may hold it, as systemd does, and hand it to the next server.  And who has connected may
        # have sent what takes long to close.
        reaper.close([closed])

    def __repr__(self) -> str:
        return f"<Listener at {self.where}>"
