"""Capability, door and capability space: who is who, and nothing held twice.

A door is known by the cookie of its client end (``SO_COOKIE``): the kernel's own identity of a socket, equal in
every process, never reused while the machine is up, and nobody can choose it.  The name that ``getpeername`` gives is
for people.  The space has two tables, cookie -> door and (cookie, badge) -> capability, both weak: a door's one
descriptor is closed when no capability refers to it any more.
"""

from __future__ import annotations

import abc
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from capmarshal._descriptors import private as _private
from capmarshal._kernel.errors import ArgumentError, Closed, StaleCapability
from capmarshal._kernel.native import NOW, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.descriptor import Descriptor
    from capmarshal._descriptors.private import Private
    from capmarshal._protocol.wire import Entry, Fail, Reply

T = TypeVar("T")

Key: TypeAlias = tuple[int, bytes]

NAME_PREFIX = "capmarshal/"
# getsockname(2) of an abstract or path name may report up to 111 bytes.
_ADDRESS_ROOM = 128
_FAMILY_SIZE = 2

# So that one peer cannot fill this process's table with doors of its making, kept alive by what it sent.
DOORS_PER_PEER = 256


class Home(Protocol):
    """What the space knows of an entrypoint of this process: where its own capabilities come home to."""

    def object_behind(self, badge: bytes) -> object | None:
        """The managed object that the badge selects, if any."""
        ...

    def serves_this_thread(self) -> bool:
        """Whether the current thread is the one that runs its calls."""
        ...

    def call_inline(
        self, badge: bytes, method: bytes, payload: bytes, entries: list[Entry], numbers: list[int]
    ) -> tuple[Reply | Fail, list[Descriptor]]:
        """Runs a call here and now; borrows ``numbers``, and the caller owns the answer's descriptors."""
        ...


class Peer:
    """Somebody who sends capabilities here: the doors that came from it and are still held are counted."""

    __slots__ = ("__weakref__", "doors", "pid", "uid")

    def __init__(self, pid: int, uid: int) -> None:
        self.pid = pid
        self.uid = uid
        self.doors: weakref.WeakSet[Door] = weakref.WeakSet()


def _address(call: Callable[[int, Any, Any], int], number: int) -> bytes | None:
    """A socket's own or its peer's name, without the family: empty if it has none, None if it has no peer."""
    room = ffi.new("char[]", _ADDRESS_ROOM)
    length = ffi.new("unsigned int *", _ADDRESS_ROOM)
    if call(number, room, length) < 0:
        return None
    return bytes(ffi.buffer(room, min(length[0], _ADDRESS_ROOM)))[_FAMILY_SIZE:]


def peer_name(number: int) -> str:
    """What ``getpeername`` says of a door's client end, as text; empty for a nameless door."""
    address = _address(lib.lx_getpeername, number) or b""
    return address.removeprefix(b"\0").decode("utf-8", "backslashreplace")


def cookies_of(numbers: list[int]) -> list[int]:
    """The cookie of each AF_UNIX SEQPACKET socket, 0 for any other descriptor."""
    cookies = ffi.new("uint64_t[]", len(numbers))
    lib.cm_identify(numbers, len(numbers), cookies)
    return ffi.unpack(cookies, len(numbers)) if numbers else []


class Door:
    """The client end of an entrypoint's socket pair, as this process holds it: one descriptor.

    Args:
        number: taken.
        cookie: of the socket.

    Attributes:
        number: the descriptor, open as long as this object lives: whoever uses it holds the door.
        idle: channels through this door that no call uses at the moment.
        peer: who brought it, if that is counted: known as long as the door is held.
    """

    __slots__ = ("__weakref__", "cookie", "idle", "name", "number", "peer")

    def __init__(self, number: int, cookie: int) -> None:
        self.number = number
        self.cookie = cookie
        self.idle: list[Any] = []
        self.peer: Peer | None = None
        self.name = peer_name(number)

    @property
    def hung_up(self) -> bool:
        """Whether the server's end is closed: it polls HUP.  The shared socket's error is left for others to see."""
        return lib.cm_wait(self.number, 0, NOW) > 0

    def __del__(self) -> None:
        lib.lx_close(self.number)


class Capability:
    """The right to call one object, and to pass that right on.

    Made by :meth:`Entrypoint.manage`, inherited by :func:`parent`, or received in a call.  The same capability is the
    same object, however often it is received, and all capabilities of an entrypoint share one descriptor.
    """

    __slots__ = ("__weakref__", "_cookie", "_door", "_name", "badge")

    def __init__(self, door: Door, badge: bytes) -> None:
        self._door: Door | None = door
        # The secret that selects the object.  Never to be shown whole.
        self.badge = badge
        self._cookie = door.cookie
        self._name = door.name

    @property
    def name(self) -> str:
        """What ``getpeername`` says of its door: ``capmarshal/<label>/<random>``.  For people; it proves nothing."""
        return self._name

    @property
    def label(self) -> str:
        """What its server called the entrypoint; empty for a nameless door."""
        return self._name.removeprefix(NAME_PREFIX).rpartition("/")[0]

    @property
    def local(self) -> object | None:
        """The object behind it, if this process manages it; else None."""
        home = space.homes.get(self._cookie)
        return home.object_behind(self.badge) if home is not None else None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._door is None

    def cast(self, interface: Callable[..., T]) -> T:
        """A proxy: an object of ``interface`` whose methods are calls of the object behind this capability.

        Nothing is sent.  Whether the object has these methods shows at the first call.

        Raises:
            InterfaceError: the interface cannot work as it is declared.
            Closed: the capability is closed.
            TypeError: not a :class:`Interface`.
        """
        if not (isinstance(interface, type) and issubclass(interface, Delegable)):
            raise TypeError(f"a capability is cast to an Interface, not to {interface!r}")
        self.door()
        made: T = interface.of_capability(self)
        return made

    def close(self) -> None:
        """Gives the capability up; whoever else in this process uses this object loses it too.

        The door's descriptor and channels are closed with the last capability of that door.  Never needed for order:
        an unreferenced capability goes by itself.
        """
        self._door = None

    def door(self) -> Door:
        """The door.

        Raises:
            Closed: it was given up.
        """
        door = self._door
        if door is None:
            raise Closed(f"{self!r} was closed")
        return door

    @property
    def key(self) -> Key:
        """What it is known by."""
        return (self._cookie, self.badge)

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Capability) else NotImplemented

    def __hash__(self) -> int:
        return hash((self._cookie, self.badge))

    def __repr__(self) -> str:
        state = " closed" if self.closed else ""
        return f"<Capability {self.label or 'nameless'} {self.badge[:2].hex()}…{state}>"

    def __reduce__(self) -> str:
        raise TypeError("a capability cannot be pickled: pass it as an argument of a call")


class Delegable(abc.ABC):  # noqa: B024 - abstract by what its only subclass, Interface, adds
    """What stands for a capability in arguments and results: a proxy or a managed object."""

    __slots__ = ()

    @classmethod
    def of_capability(cls, capability: Capability) -> Any:
        """A proxy of this class."""
        raise NotImplementedError

    def as_capability(self) -> Capability:
        """The capability that this object stands for.

        Raises:
            TypeError: a server's object that no entrypoint manages.
        """
        managed = space.managed.get(id(self))
        if managed is None:
            raise TypeError(f"{type(self).__name__} object is not managed: Entrypoint.manage() gives it a capability")
        door, badge = managed
        return space.capability(door, badge)


class Space:
    """This process's capability space.

    Looking up and inserting is one step under the lock that a fork takes too.
    """

    def __init__(self) -> None:
        self.homes: dict[int, Home] = {}
        # cookie of an own door -> cookie of its server end
        self._server_ends: dict[int, int] = {}
        # id of a managed object -> where it is managed; its entrypoint keeps the object alive.
        self.managed: dict[int, tuple[Door, bytes]] = {}
        self._doors: dict[int, weakref.ref[Door]] = {}
        self._capabilities: dict[Key, weakref.ref[Capability]] = {}
        # Keys whose object has died.  A weak reference's callback may run anywhere, so it only takes note.
        self._died: deque[int | Key] = deque()

    def capability(self, door: Door, badge: bytes) -> Capability:
        """The one capability for this door and badge."""
        key = (door.cookie, badge)
        with _private.lock:
            self._bury()
            reference = self._capabilities.get(key)
            known = reference() if reference is not None else None
            if known is None or known.closed:
                known = Capability(door, badge)
                self._capabilities[key] = weakref.ref(known, self._note(key))
            return known

    def receive_door(self, descriptor: Descriptor, peer: Peer | None) -> Door:
        """The one door for a received client end.

        Args:
            descriptor: taken, on success: it becomes the door's, or is closed if the door is held already.
            peer: who sent it, if it is to be counted.

        Raises:
            ArgumentError: it is no client end of a door.  The caller still owns the descriptor then.
        """
        number = descriptor.fileno()
        cookie = lib.cm_cookie(number)
        with _private.lock:
            known = self._door(cookie)
            if known is not None:
                # The very socket that we hold, so this close is not its last, and cannot block.
                descriptor.close()
                return known
            if cookies_of([number]) != [cookie] or cookie == 0:
                raise ArgumentError("a capability came with a descriptor that is no AF_UNIX SEQPACKET socket")
            # Of another process's doors it cannot be told which end this is: any holder may bind() the client's, too.
            if cookie in self._server_ends.values():
                raise ArgumentError("a capability came with the server's end of a door of our own")
            if _address(lib.lx_getpeername, number) is None:
                raise ArgumentError("a capability came with a socket that is connected to nothing")
            if peer is not None and len(peer.doors) >= DOORS_PER_PEER:
                raise ArgumentError(f"{DOORS_PER_PEER} doors that came from process {peer.pid} are held already")
            door = self.add_door(number, cookie)
            descriptor.detach()
            if peer is not None:
                door.peer = peer
                peer.doors.add(door)
            return door

    def receive(self, door: Door, badge: bytes) -> Capability:
        """The capability for a received badge.

        Raises:
            StaleCapability: one of our own, for an object that we do not manage (any more).
        """
        home = self.homes.get(door.cookie)
        if home is not None and home.object_behind(badge) is None:
            raise StaleCapability("a capability of our own came home, but the object it stood for is not there")
        return self.capability(door, badge)

    def add_door(self, number: int, cookie: int) -> Door:
        """Enters a new door, which takes ``number``; the caller holds the lock."""
        self._bury()
        door = Door(number, cookie)
        self._doors[cookie] = weakref.ref(door, self._note(cookie))
        return door

    def add_home(self, client_end: int, server_end: Private, home: Home) -> Door:
        """Enters an entrypoint of this process; takes ``client_end``, and the caller holds the lock."""
        cookie, server_cookie = cookies_of([client_end, server_end.number])
        self.homes[cookie] = home
        self._server_ends[cookie] = server_cookie
        return self.add_door(client_end, cookie)

    def remove_home(self, door: Door) -> None:
        """Forgets an entrypoint: its capabilities are as any other's from here on."""
        self.homes.pop(door.cookie, None)
        self._server_ends.pop(door.cookie, None)

    def doors(self) -> list[Door]:
        """The doors that are held at the moment."""
        with _private.lock:
            return [door for reference in self._doors.values() if (door := reference()) is not None]

    def _door(self, cookie: int) -> Door | None:
        reference = self._doors.get(cookie)
        return reference() if reference is not None else None

    def _note(self, key: int | Key) -> Callable[[object], None]:
        died = self._died
        return lambda _reference: died.append(key)

    def _bury(self) -> None:
        while self._died:
            key = self._died.popleft()
            table: dict[Any, weakref.ref[Any]] = self._doors if isinstance(key, int) else self._capabilities
            reference = table.get(key)
            # Not if the same key has come to life again meanwhile.
            if reference is not None and reference() is None:
                del table[key]

    def forget_parents_own(self) -> None:
        """In a forked child: the entrypoints are the parent's, and so are the channels.  Doors stay."""
        self.homes.clear()
        self._server_ends.clear()
        self.managed.clear()
        for door in self.doors():
            door.idle.clear()


space = Space()
_private.run_in_child(space.forget_parents_own)
