"""Capability: the right to call one object; and the objects that stand for one in arguments and results.

What completion offers on these is the programming interface.  The package itself asks :func:`badge_of`,
:func:`door_of` and :func:`capability_behind`.
"""

from __future__ import annotations

import abc
import operator
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from capmarshal._capabilities.door import home_of
from capmarshal._capabilities.identity import label_in
from capmarshal._capabilities.parametrised import interface_behind, parametrised
from capmarshal._descriptors.descriptor import OnlyPolled
from capmarshal._descriptors.new_process import refuse_unless_created
from capmarshal._descriptors.private import lock
from capmarshal._kernel import call_log
from capmarshal._kernel.deadline import check_proxy_timeout
from capmarshal._kernel.errors import ArgumentError, Closed
from capmarshal._protocol.wire import SIGNAL_BADGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._capabilities.door import Door

T = TypeVar("T")

# What a capability is known by: what its door is, and its badge.
Key: TypeAlias = tuple[int, bytes]


# Of the names by which a capability is called, so many are remembered, of so many bytes.
_NAMES_MAX, _NAME_SIZE = 1_000, 256

# What no capability adds to: most are held, and not called.
_NONE_CALLED: dict[bytes, bytes] = {}


class Way:
    """What each call of a capability asks for, apart from it: what has a __getattr__ is slow with all its attributes.

    Attributes:
        door: the capability's; None once that is closed.
        wire_keys: by a method's name, what a CALL of it has before its payload: of those that were called.
    """

    __slots__ = ("door", "wire_keys")

    def __init__(self, door: Door) -> None:
        self.door: Door | None = door
        self.wire_keys = _NONE_CALLED


class Capability(OnlyPolled):
    """The right to call one object, and to pass that right on.

    Made by :meth:`Entrypoint.manage` and :meth:`Entrypoint.grant`, inherited by :func:`parent` or as an argument of
    ``multiprocessing.Process``, or received: in a call, by :func:`connect` or by :func:`receive_capability`.  The same
    capability is the same object, however often it is received, and all capabilities of an entrypoint share one
    descriptor; each grant has its own.
    """

    __slots__ = ("__weakref__", "_badge", "_key", "_name", "_way")

    def __init__(self, door: Door, badge: bytes) -> None:
        self._way = Way(door)
        # The secret that selects the object.  Never to be shown whole.
        self._badge = badge
        self._key: Key = (door.key, badge)
        # Once it is closed.
        self._name = ""

    @property
    def name(self) -> str:
        """What ``getpeername`` says of its door: ``capmarshal/<label>/<random>``.  For people; it proves nothing.

        Where the label is a grant's own, and not its entrypoint's, the random part begins with ``grant-``.
        """
        door = self._way.door
        return door.name if door is not None else self._name

    @property
    def label(self) -> str:
        """What its server called the entrypoint, or the grant; empty for a nameless door."""
        return label_in(self.name)

    @property
    def local(self) -> object | None:
        """The object behind it, if this process manages it; else, and once the capability is closed, None."""
        door = self._way.door
        home = home_of(door) if door is not None else None
        return home.object_behind(door.kept_under(self._badge)) if home and door else None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._way.door is None

    @property
    def gone(self) -> bool:
        """Whether its server has ended, in whatever way, closed the entrypoint or revoked the grant: for ever.

        Nothing is sent.
        A server that only does not answer is not gone.  Some other holder may have shut the door (shutdown(2)): it is
        gone then for all who hold it.

        Raises:
            Closed: the capability is closed.
        """
        return open_door_of(self).hung_up

    def fileno(self) -> int:
        """A descriptor that polls POLLHUP when the server is :attr:`gone`; for selectors, and an event loop's readers.

        Borrowed: all capabilities of its door share it, and it is closed with the last.  Only poll it: reading,
        writing or changing its options would disturb whoever else holds the door.

        Raises:
            Closed: the capability is closed.
        """
        return open_door_of(self).number

    def cast(self, interface: Callable[..., T], *, timeout: float | None = None) -> T:
        """A proxy: an object of ``interface`` whose methods are calls of the object behind this capability.

        Nothing is sent.  Whether the object has these methods shows at the first call.  Calls of what is declared as
        ``async def`` are awaited.

        Args:
            interface: a class derived from :class:`Interface`.
            timeout: seconds that each call of this proxy may take, more than 0, as if it stood in a block of
                :class:`timeout` of its own: an earlier deadline holds all the same.  It is no part of the capability:
                whoever is given the proxy has another.

        Raises:
            InterfaceError: the interface cannot work as it is declared.
            ImportError: its calls are awaited, which needs anyio.
            Closed: the capability is closed.
            TypeError: not an :class:`Interface`, or no number.
            ArgumentError: a TypeError: a :class:`Signal` is cast to that, and nothing else is.
            ValueError: no time to wait.
        """
        cls: Any = getattr(interface, "__origin__", interface)
        if not (isinstance(cls, type) and issubclass(cls, Delegable)):
            raise TypeError(f"a capability is cast to an Interface, not to {interface!r}")
        if issubclass(cls, Proxy):
            raise TypeError(f"a capability is cast to an Interface, not to {cls!r}, which is the class of its proxies")
        if not suits(cls, self._badge):
            if self._badge == SIGNAL_BADGE:
                raise ArgumentError(f"{self!r} is a cm.Signal, and not {cls.__qualname__}")
            raise ArgumentError(f"{self!r} leads to an object, which is called, and is no cm.Signal")
        if cls is not interface:
            cls = parametrised(interface)
        open_door_of(self)
        if timeout is not None:
            check_proxy_timeout(timeout)
        made: T = object.__new__(_proxy_class_of(cls, timeout is not None, call_log.wanted()))
        # At once: added one by one, they share their keys with others, where CPython 3.11 takes long to find one.
        made.__dict__.update(_capability=self, _way=self._way)
        if timeout is not None:
            made.__dict__[_TIMEOUT] = timeout
        return made

    def close(self) -> None:
        """Gives the capability up; whoever else in this process uses this object loses it too.

        The door's descriptor and channels are closed with the last capability of that door.  Never needed for order:
        an unreferenced capability goes by itself.
        """
        self._name, self._way.door = self.name, None

    if not TYPE_CHECKING:
        # To a type checker it would say that a capability has every attribute.
        def __getattr__(self, name: str) -> object:
            words = f"{type(self).__name__!r} object has no attribute {name!r}"
            if not name.startswith("_"):
                words += ": it is a proxy that has methods, and cast(...) makes one, of an Interface"
            raise AttributeError(words, name=name, obj=self)

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Capability) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        state = " closed" if self.closed else ""
        return f"<Capability {self.label or 'nameless'} {self._badge[:2].hex()}…{state}>"

    def __reduce__(self) -> str:
        # What copy.copy() asks, too; pickled for a process that is being created it is as `pickling` says.
        refuse_unless_created("a capability is neither copied nor pickled: use the same object in this process")
        raise TypeError(
            "only a Capability itself is handed to a process that is created, and not what is derived from it"
        )


# A mark of the one class whose proxies send signals.
SIGNALS = "__capmarshal_signals__"


def suits(kind: type[Any], badge: bytes) -> bool:
    """Whether what is due is an interface of signals where the badge is theirs, and only there; or any capability."""
    return (badge == SIGNAL_BADGE) is (SIGNALS in kind.__dict__) or kind is Capability


# The secret that selects the capability's object.
badge_of: Callable[[Capability], bytes] = operator.attrgetter("_badge")


def make_wire_key(capability: Capability, size: bytes, name: bytes) -> bytes:
    """What a CALL of a method has, which mostly is remembered: see :func:`capmarshal._protocol.wire.unpack_key`.

    Args:
        capability: to the object that is called.
        size: of the name, as the CALL has it.
        name: of the method.
    """
    key = size + badge_of(capability) + name
    way = capability._way  # noqa: SLF001 - nobody else writes to it
    if way.wire_keys is _NONE_CALLED:
        way.wire_keys = {}
    # Who forwards calls is given the names, and by strangers.
    if len(way.wire_keys) < _NAMES_MAX and len(name) <= _NAME_SIZE:
        way.wire_keys[name] = key
    return key


# What the capability is known by in this process.
key_of: Callable[[Capability], Key] = operator.attrgetter("_key")

# The capability's door; None once the capability is closed.
door_of: Callable[[Capability], Door | None] = operator.attrgetter("_way.door")


def open_door_of(capability: Capability) -> Door:
    """The capability's door.

    Raises:
        Closed: the capability was given up.
    """
    door = door_of(capability)
    if door is None:
        raise Closed(f"{capability!r} was closed")
    return door


class Delegable(abc.ABC):  # noqa: B024 - abstract by what its only subclass, Interface, adds
    """What stands for a capability in arguments and results: a proxy or a managed object."""

    __slots__ = ()


class Proxy:
    """Mixed into every class of proxies: a proxy compares and hashes by the capability that it calls."""

    _capability: Capability
    _way: Way

    def __eq__(self, other: object) -> bool:
        return self._capability == other._capability if isinstance(other, Proxy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._capability)

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} proxy of {self._capability!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # What copy.copy() asks, too.
        refuse_unless_created("a proxy is neither copied nor pickled: use the same object in this process")
        interface = interface_behind(type(self).__bases__[1])
        return _cast, (self._capability, interface, self.__dict__.get(_TIMEOUT))


def _cast(capability: Capability, interface: Any, timeout: float | None) -> Any:
    return capability.cast(interface, timeout=timeout)


# The capability that a proxy calls.
capability_behind: Callable[[Proxy], Capability] = operator.attrgetter("_capability")

# What a proxy with a timeout has besides: the seconds.
_TIMEOUT = "__capmarshal_timeout__"
timeout_of: Callable[[Proxy], float] = operator.attrgetter(_TIMEOUT)


def has_timeout(proxy: Proxy) -> bool:
    """Whether a proxy has a timeout of its own."""
    return _TIMEOUT in proxy.__dict__


# An interface's classes of proxies stand in its namespace, so that they go with it: without a timeout and with one, and
# the same of those whose calls are logged, so that a call need not ask which its proxy is.
PROXY_CLASSES = tuple(f"__capmarshal_{kind}proxy_class__" for kind in ("", "timed_", "logged_", "timed_and_logged_"))


def _no_proxies(interface: type[Any], timed: bool, logged: bool) -> type[Any]:
    raise NotImplementedError(f"{interface.__qualname__}: nothing that makes calls is imported")


_make_proxy_class: Callable[[type[Any], bool, bool], type[Any]] = _no_proxies


def make_proxies_by(make_class: Callable[[type[Any], bool, bool], type[Any]]) -> None:
    """Has :meth:`Capability.cast` use ``make_class``, which makes an interface's class of proxies.

    The client gives it before there is an interface: what makes calls stands above what is called.
    """
    global _make_proxy_class  # set once, see above
    _make_proxy_class = make_class


def can_be_cast(kind: type[Any]) -> bool:
    """Whether a capability surely is, or can be cast to, what is due: an interface whose class of proxies was made."""
    return kind is Capability or PROXY_CLASSES[2 * call_log.wanted()] in vars(kind)


def _proxy_class_of(interface: type[Any], timed: bool, logged: bool) -> type[Any]:
    """An interface's class of proxies, made when it is first asked for."""
    place = PROXY_CLASSES[timed + 2 * logged]
    known: type[Any] | None = interface.__dict__.get(place)
    if known is None:
        made = _make_proxy_class(interface, timed, logged)
        with lock:
            # Another thread may have been faster.
            known = interface.__dict__.get(place)
            if known is None:
                known = made
                setattr(interface, place, known)
    return known
