"""The capability space of a process: who is who, and nothing held twice.

A door is known by the cookie of its client end, a capability by that and its badge.  Both tables are weak: a door's one
descriptor is closed when no capability refers to it any more.

A filter may refuse to tell cookies, from the start or later, and to one thread alone.  So doors are found by their
inodes, too, from when a cookie was refused, and compared.  Where the kernel can't compare, what comes is none of those
that are held: it is a door of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from capmarshal._capabilities.capability import Capability, Key, Proxy, capability_behind, door_of
from capmarshal._capabilities.door import Door, home_of
from capmarshal._capabilities.homecoming import here
from capmarshal._descriptors.moving import move_above_standard
from capmarshal._descriptors.private import lock
from capmarshal._descriptors.process import process
from capmarshal._kernel.errors import ArgumentError, StaleCapability
from capmarshal._kernel.native import lib
from capmarshal._protocol.wire import NO_SECRET

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.door import DoorSender, Home
    from capmarshal._descriptors.descriptor import Descriptor
    from capmarshal._descriptors.private import Private

T = TypeVar("T")

# What a socket is known by, the same in every process; 0 where a filter refuses to tell, and for what is no socket.
# Looked up once: an attribute of cffi's costs as much as a call without one.
cookie_of: Callable[[int], int] = lib.cm_cookie
# How many there are.
_COOKIES = 1 << 64


# No underscore: names that have one are gone first when the interpreter ends, and finalizers may still call then.
class Reference(weakref.ref[T]):
    """A weak reference that knows the key under which it is kept."""

    __slots__ = ("key",)

    key: Any


class OwnDoor(NamedTuple):
    """A door of one of this process's own entrypoints.

    Attributes:
        end: the server's end.
        cookie: of that.
        home: the entrypoint, weakly.
        secret: of the door, see :func:`capmarshal._protocol.wire.combined`.
    """

    end: Private
    cookie: int
    home: weakref.ref[Home]
    secret: bytes


class Space:
    """This process's capability space.

    Looking up and inserting is one step under the lock that a fork takes too.
    """

    def __init__(self) -> None:
        # The doors of this process's own entrypoints, by key; also those of which this process holds no client end.
        self._own: dict[int, OwnDoor] = {}
        # The cookies of their server ends; 0 is one of them from when one was refused.
        self._server_cookies: set[int] = set()
        # id of a managed object -> where it is managed; its entrypoint keeps the object alive.
        self.managed: dict[int, tuple[Door, bytes]] = {}
        # By key: the cookie, or where it was refused a number that is none.  And, once one was, by the negative inode.
        self._doors: dict[int, Reference[Door]] = {}
        self._no_cookies = itertools.count(_COOKIES)
        self._compares = False
        self._capabilities: dict[Key, Reference[Capability]] = {}
        # Ids of those that the process managed which this one was forked from: its entrypoints keep them, here too.
        self.managed_by_parent: frozenset[int] = frozenset()
        # Of the files at which entrypoints of this process listen, by device and inode: which entrypoint.
        self.listening: dict[tuple[int, int], weakref.ref[Home]] = {}
        # References whose object has died.  A callback may run anywhere, so it only takes note; and none of ours, in
        # which what a signal handler raises would be swallowed.
        self._died: deque[Reference[Any]] = deque()

    def capability(self, door: Door, badge: bytes) -> Capability:
        """The one capability for this door and badge."""
        key = (door.key, badge)
        with lock:
            self._bury()
            reference = self._capabilities.get(key)
            known = reference() if reference is not None else None
            if known is None or known.closed:
                known = Capability(door, badge)
                self._capabilities[key] = self._reference(known, key)
            return known

    def held(self, number: int, cookie: int, badge: bytes) -> Capability | None:
        """The capability for a received client end, borrowed, of a door that is held, and a badge; None for any other.

        None also for one of our own, for an object that we do not manage (any more).

        Args:
            number: of the client end.
            cookie: what it says, see :data:`cookie_of`.
            badge: that came with it.
        """
        # What is found needs no lock.
        reference = self._doors.get(cookie)
        door = reference() if reference is not None else None
        if door is None:
            if cookie and not self._compares:
                return None
            door = self._compared(number)
            if door is None:
                return None
            cookie = door.key
        home = door.home() if door.home is not None else None
        if home is not None and home.object_behind(door.kept_under(badge)) is None:
            return None
        found = self._capabilities.get((cookie, badge))
        known = found() if found is not None else None
        return known if known is not None and door_of(known) is not None else self.capability(door, badge)

    def receive_door(self, descriptor: Descriptor, sender: DoorSender | None) -> Door:
        """The one door for a received client end.

        Args:
            descriptor: taken, on success: it becomes the door's, or is closed if the door is held already.
            sender: who sent it, if it is to be counted.

        Raises:
            ArgumentError: it is no client end of a door.  The caller still owns the descriptor then.
            TableFull: it has a number of the standard streams', and there is no other.  Likewise.
        """
        move_above_standard(descriptor)
        number = descriptor.fileno()
        cookie = cookie_of(number)
        with lock:
            known = self._door(number, cookie)
            if known is not None:
                # The very socket that we hold, so this close is not its last, and cannot block.
                descriptor.close()
                return known
            return self._new_door(descriptor, number, cookie, sender)

    def receive_new(
        self, descriptor: Descriptor, cookie: int, badge: bytes, sender: DoorSender | None
    ) -> Capability | None:
        """The capability for a received client end of a door that is not held, and a badge; None where it is held.

        None also for one of our own: what comes home may be the object itself.

        Args:
            descriptor: as :meth:`receive_door` has it.
            cookie: what it says.
            badge: that came with it.
            sender: as there.

        Raises:
            ArgumentError, TableFull: likewise.
        """
        move_above_standard(descriptor)
        number = descriptor.fileno()
        with lock:
            if cookie in self._own or self._door(number, cookie) is not None:
                return None
            door = self._new_door(descriptor, number, cookie, sender)
            made = Capability(door, badge)
            self._capabilities[door.key, badge] = self._reference(made, (door.key, badge))
            return made

    def _new_door(self, descriptor: Descriptor, number: int, cookie: int, sender: DoorSender | None) -> Door:
        """As :meth:`receive_door`, of one that is not held, with what it says; the caller holds the lock."""
        is_door = lib.cm_is_door(number)
        if not is_door:
            raise ArgumentError("a capability came with a descriptor that is no AF_UNIX SEQPACKET socket")
        # Of another process's doors it cannot be told which end this is: any holder may bind() the client's, too.
        if self._is_server_end(number, cookie):
            raise ArgumentError("a capability came with the server's end of a door of our own")
        if is_door < 0:
            raise ArgumentError("a capability came with a socket that is connected to nothing")
        own = self._own.get(cookie)
        if own is not None:
            home = own.home()
            return self._add_door(Door(descriptor, cookie, home, secret=own.secret))
        refusal = sender.door_refusal() if sender is not None else ""
        if refusal:
            raise ArgumentError(refusal)
        return self._add_door(Door(descriptor, cookie or next(self._no_cookies), sender=sender))

    def receive(self, door: Door, badge: bytes) -> Capability:
        """The capability for a received badge.

        Raises:
            StaleCapability: one of our own, for an object that we do not manage (any more).
        """
        home = home_of(door)
        if home is not None and home.object_behind(door.kept_under(badge)) is None:
            raise StaleCapability(
                "a capability came home to the process that serves it, but the object that it stood for is not there"
            )
        return self.capability(door, badge)

    def _add_door(self, door: Door) -> Door:
        """Enters a new door; the caller holds the lock."""
        self._bury()
        self._doors[door.key] = self._reference(door, door.key)
        if self._compares:
            self._enter_by_inode(door)
        return door

    def add_home(
        self,
        client_end: Descriptor,
        server_end: Private,
        home: Home,
        *,
        secret: bytes = NO_SECRET,
    ) -> Door:
        """Enters a door of an entrypoint of this process; the caller holds the lock.

        Args:
            client_end: taken.
            server_end: borrowed.
            home: the entrypoint; borrowed.
            secret: of the door.
        """
        key = cookie_of(client_end.fileno()) or next(self._no_cookies)
        cookie = cookie_of(server_end.number)
        try:
            self._own[key] = OwnDoor(server_end, cookie, weakref.ref(home), secret)
            self._server_cookies.add(cookie)
            return self._add_door(Door(client_end, key, home, secret=secret))
        except BaseException:
            self.remove_home(key)
            raise

    def is_own_door(self, number: int) -> bool:
        """Whether a socket is the client end of a door of this process's own entrypoints."""
        cookie = cookie_of(number)
        door = self._door(number, cookie)
        return cookie in self._own or (door is not None and door.key in self._own)

    def _is_server_end(self, number: int, cookie: int) -> bool:
        """Whether a socket is the server's end of one."""
        if cookie and 0 not in self._server_cookies:
            return cookie in self._server_cookies
        return any(
            cookie == own.cookie if cookie and own.cookie else lib.cm_is_same(own.end.number, number)
            for own in self._own.values()
        )

    def remove_home(self, key: int) -> None:
        """Forgets a door of an entrypoint: its capabilities are as any other's from here on.

        Args:
            key: of the door.
        """
        reference = self._doors.get(key)
        door = reference() if reference is not None else None
        if door is not None:
            door.home = None
        own = self._own.get(key)
        if own is not None and own.cookie:
            self._server_cookies.discard(own.cookie)
        # Last: as long as it is there, it can be forgotten again.
        self._own.pop(key, None)

    def listener_at(self, path: bytes) -> Home | None:
        """The entrypoint of this process that listens at a path, if one does."""
        if not self.listening:
            return None
        with contextlib.suppress(OSError):
            file = os.stat(path)  # noqa: PTH116 - pathlib is slow to import
            found = self.listening.get((file.st_dev, file.st_ino))
            return found() if found is not None else None
        return None

    def doors(self) -> list[Door]:
        """The doors that are held at the moment."""
        with lock:
            references = tuple(reference for key, reference in self._doors.items() if key > 0)
        return [door for reference in references if (door := reference()) is not None]

    def _door(self, number: int, cookie: int) -> Door | None:
        """The door that is held of a socket; ``cookie`` is what it says, 0 where that is refused."""
        reference = self._doors.get(cookie)
        door = reference() if reference is not None else None
        return self._compared(number) if door is None and (not cookie or self._compares) else door

    def _compared(self, number: int) -> Door | None:
        """The same of a socket that is found by its inode; None where the kernel does not say that it is that one."""
        inode = lib.cm_socket_inode(number)
        if not inode:
            return None
        if not self._compares:
            with lock:
                for held in self.doors():
                    self._enter_by_inode(held)
                self._compares = True
        reference = self._doors.get(-inode)
        door = reference() if reference is not None else None
        return door if door is not None and lib.cm_is_same(door.number, number) else None

    def _enter_by_inode(self, door: Door) -> None:
        """Has a door found by its inode, unless another one has the same; the caller holds the lock."""
        key = -lib.cm_socket_inode(door.number)
        known = self._doors.get(key)
        if key and (known is None or known() is None):
            self._doors[key] = self._reference(door, key)

    def _reference(self, thing: T, key: int | Key) -> Reference[T]:
        reference = Reference(thing, self._died.append)
        reference.key = key
        return reference

    def _bury(self) -> None:
        while self._died:
            reference = self._died.popleft()
            key = reference.key
            table: dict[Any, Any] = self._doors if isinstance(key, int) else self._capabilities
            # Not if the same key has come to life again meanwhile.
            if table.get(key) is reference:
                del table[key]

    def give_way(self) -> None:
        """Closes the channels that no call uses, of all doors: there is no room, and another call makes a new one."""
        for door in self.doors():
            with contextlib.suppress(IndexError):
                while True:
                    door.idle.pop().drop()

    def in_child(self) -> None:
        """In a forked child: the entrypoints are the parent's, and so are the channels.  Doors stay."""
        self._own.clear()
        self._server_cookies.clear()
        self.listening.clear()
        self.managed_by_parent |= self.managed.keys()
        self.managed.clear()
        for door in self.doors():
            door.home = None
            door.idle.clear()


space = Space()
process.space = space


def capability_of(thing: Any) -> Capability:
    """The capability that a proxy or a managed object stands for, or that it is.

    Of an object that came home with the call that runs here it is that by which it came.

    Raises:
        TypeError: a server's object that no entrypoint manages.
    """
    # By its type: a mock says that it is one.
    kind = type(thing)
    if issubclass(kind, Capability):
        return thing  # type: ignore[no-any-return]  # it is one
    if issubclass(kind, Proxy):
        return capability_behind(thing)
    came_home = here.get()
    way = came_home.way_of(thing) if came_home is not None else None
    if way is None:
        way = space.managed.get(id(thing))
    if way is None:
        words = f"{type(thing).__name__} object is not managed: Entrypoint.manage() gives it a capability"
        if id(thing) in space.managed_by_parent:
            words = (
                f"{type(thing).__name__} object is not managed here, in a fork of the process that managed it: use a "
                "capability from before the fork, or manage it by an entrypoint that this process makes"
            )
        raise TypeError(words)
    return space.capability(*way)
