"""What entrypoints have in common, however they serve: a door, objects behind it, and what listens."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from capmarshal._capabilities.capability import Capability, Proxy, badge_of, open_door_of
from capmarshal._capabilities.signal_capability import Signal, make_signal_door
from capmarshal._capabilities.signal_end import SignalEnd
from capmarshal._capabilities.space import capability_of, space
from capmarshal._descriptors import private, reaper
from capmarshal._descriptors.process import process
from capmarshal._kernel.errors import Closed
from capmarshal._kernel.numbers import check_whole
from capmarshal._server.callbacks import refuse_async, refuse_misfit
from capmarshal._server.deep import Deep
from capmarshal._server.grant_methods import methods_in
from capmarshal._server.journal import Journal
from capmarshal._server.listener import Listener, giving
from capmarshal._server.new_door import check_label, make_door
from capmarshal._server.objects import Objects
from capmarshal._server.service import Service
from capmarshal._server.signal_handlers import SignalHandler
from capmarshal._typed.interface import check_manageable, check_object

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from capmarshal._descriptors.private import Private
    from capmarshal._descriptors.socket_paths import StrOrBytesPath
    from capmarshal._server.dispatch import Dispatcher
    from capmarshal._server.listener import ForClient
    from capmarshal._server.loop import Server
    from capmarshal._typed.colour import Colour
    from capmarshal._typed.interface import Interface

# Of one deep grant.
OBJECTS = 65_536
# What those are told who held a grant of an object, unless more is said.
DISSOLVED = "the object was dissolved"

S = TypeVar("S", bound=Service)
T = TypeVar("T", bound="Interface")


class AnyEntrypoint(Generic[S]):
    """Serves objects, of one colour.

    Args:
        label: for people.
        close_timeout: seconds that leaving its block may take.
        make_dispatcher: what checks its records and has its calls run.
        make_server: what serves its door, which it takes unless it raises.
        kind: of service.
    """

    if TYPE_CHECKING:
        # Of the interfaces that are served.
        _colour: Colour

    # Until it is made.  Annotated for type checkers alone: at run time the class says that it is capmarshal's, where
    # there is no Service.
    if TYPE_CHECKING:
        _service: S | None = None
    else:
        _service = None

    def __init__(
        self,
        label: str,
        close_timeout: float,
        make_dispatcher: Callable[[Objects, Journal], Dispatcher],
        make_server: Callable[[Private, Dispatcher, Objects, Journal, Colour], Server],
        kind: type[S],
    ) -> None:
        # While a thread can be had, and before any descriptor of a stranger's comes.
        reaper.prepare()
        self.label = label
        self._close_timeout = close_timeout
        self._objects = Objects()
        self._journal = Journal(label)
        self._dispatcher = make_dispatcher(self._objects, self._journal)
        server_end, self._door = make_door(label, self._dispatcher)
        try:
            server = make_server(server_end, self._dispatcher, self._objects, self._journal, self._colour)
        except BaseException:
            space.remove_home(self._door.key)
            server_end.close()
            raise
        self._service = kind(label, self._door, self._objects, self._dispatcher.calls, server, self._journal)
        with private.lock:
            process.entrypoints.add(self._service)

    def _made(self) -> S:
        """What serves it.

        Raises:
            Closed: it could not be made.
        """
        if self._service is None:
            raise Closed("this entrypoint was never made")
        return self._service

    @property
    def name(self) -> str:
        """What ``getpeername`` tells of its door to everybody who holds it."""
        return self._door.name

    @property
    def closed(self) -> bool:
        """Whether it was closed, or this process is a child of the one that made it."""
        return self._service is None or self._service.closed

    def manage(self, target: Interface) -> Capability:
        """Gives an object a capability, so that it can be called by whoever is handed that.

        The object is kept until it is dissolved or the entrypoint closed.  Managing it again gives the same capability.

        Raises:
            TypeError: no object of a class derived from an :class:`Interface`.
            InterfaceError: its interface is declared in a way that cannot work, or has another colour than is served.
            ValueError: another entrypoint manages it.
            Closed: the entrypoint is closed.
        """
        check_manageable(target, self._colour)
        with private.lock:
            self._made().check_open()
            door, badge = space.managed.get(id(target), (self._door, b""))
            if door is not self._door:
                raise ValueError(f"this {type(target).__qualname__} is managed by another entrypoint, {door.name!r}")
            if not badge:
                badge = self._objects.add(target)
                space.managed[id(target)] = (door, badge)
            if self._made().closed:
                # Meanwhile, by a signal handler or another thread, which may have come too early for this one.
                self._objects.discard(badge)
                space.managed.pop(id(target), None)
                self._made().check_open()
            return space.capability(door, badge)

    def grant(
        self,
        target: T,
        *,
        label: str | None = None,
        only: Iterable[Callable[..., Any]] | None = None,
        unreachable: Callable[[T], object] | None = None,
        deep: bool = False,
        objects: int | None = None,
    ) -> Capability:
        """Gives an object a capability of its own, for one recipient, which can be taken back.

        It has a door of its own, so what one recipient does to that touches no other, and the kernel says by whose
        grant a call comes: see :func:`caller`.  The object is kept as long as anybody, in any process, can call it by
        this grant, the capability that is returned included, until it is revoked, or the entrypoint closed.

        It takes two descriptors of this process, and one in each other that holds it.

        Args:
            target: the object; it need not be managed, and may be granted any number of times.
            label: what this process calls the recipient: part of the door's name, and what :func:`caller` says.  As an
                entrypoint's, which is what it is unless it is said.
            only: the methods that can be called by it, as ``(Files.read, Files.stat)``, or their twins; None: all.
            unreachable: called with the object, once, in the serving thread, when nobody can call it by this grant any
                more: all who held the capability have gone or given it up, and none is on its way to anybody.  Not when
                it is revoked.  Of a :class:`capmarshal.aio.Entrypoint` it may be ``async def``; either is called in a
                task of its own, for which leaving the entrypoint waits as for a call, and of which as many run at a
                time as there is to tell: a method that grants to whoever asks bounds that.
            deep: what its methods, and those of what they return, return of this entrypoint's objects belongs to the
                grant: it is called through its door, and ends with it.  All of their methods can be called, whatever
                ``only`` says.  What another entrypoint serves they cannot return.
            objects: how many may belong to a deep one at most; None: 65,536.  With one more, the call fails
                (:class:`TooLarge`).

        Returns:
            The capability, to be handed to the recipient.

        Raises:
            TypeError: no object of a class derived from an :class:`Interface`; ``only`` are no methods of it; or
                ``objects`` is said of one that is not deep.
            ValueError: no such label, or no method at all, or no such number.
            InterfaceError: its interface is declared in a way that cannot work, or has another colour than is served.
            TableFull: no room for the two descriptors.
            Closed: the entrypoint is closed.
        """
        check_manageable(target, self._colour)
        label = self.label if label is None else label
        check_label(label)
        names = None if only is None else methods_in(only, target)
        if unreachable is not None:
            if not callable(unreachable):
                raise TypeError(f"unreachable is called with the object, and {unreachable!r} cannot be")
            refuse_async(unreachable, "unreachable", self._colour)
            refuse_misfit(unreachable, 1, "unreachable is called with the object")
        if objects is not None:
            check_whole(objects, f"objects is a whole number, 1 or more, not {objects!r}", 1)
            if not deep:
                raise TypeError("objects is how many may belong to a deep grant: say deep=True, or leave it out")
        service = self._made()
        service.check_open()
        made_deep = Deep(objects or OBJECTS) if deep else None
        told: Any = unreachable
        granted = service.grants.make(label, target, names, told, deep=made_deep)
        if granted is None:
            service.check_open()
            raise Closed(f"the entrypoint {self.label!r} is closed")
        return granted

    def revoke(self, granted: Capability | Interface, reason: str = "") -> None:
        """Takes a grant back, everywhere and at once: calls by it raise :class:`Revoked`, in every process.

        Calls in progress are answered.  Does nothing where it is over already.

        Args:
            granted: what :meth:`grant` returned, or a proxy of it.  Or the object: then all its grants, of which this
                process need hold no capability.
            reason: for those who held it: part of their error's text, of which 1,000 bytes are kept.

        Raises:
            ValueError: it is no grant of this entrypoint.
            TypeError: none of these, or the reason is no text.
            Closed: the capability was closed.
        """
        _check_reason(reason)
        if not isinstance(granted, Capability | Proxy):
            check_object(granted, "revoked, or what grant() returned, or a proxy of that")
            grants = self._made().grants
            for grant in grants.of(granted):
                grants.revoke(grant, reason)
            return
        capability = capability_of(granted)
        door = open_door_of(capability)
        grants = self._made().grants
        found = grants.at(door.key)
        if found is not None and badge_of(capability) != found.badge:
            words = "belongs to a deep grant, and ends with it: revoke that, or dissolve(...) the object"
            raise ValueError(f"{granted!r} {words}")
        if found is not None:
            grants.revoke(found, reason)
        elif door is self._door:
            raise ValueError("a capability of manage() is no grant: dissolve(...) ends it, for all who hold it")
        elif not grants.opened(door) and not door.hung_up:
            raise ValueError(f"{granted!r} is no grant of {self!r}")

    def on_signal(self, handler: Callable[[], object]) -> Signal:
        """Has something called, between calls, when a signal has come: a :class:`Signal` for others to send.

        However many come, it runs once for those that came before it runs; what it raises is in the log.  It is kept
        until the entrypoint is closed, or nobody, in any process, holds the signal any more, which takes one descriptor
        of this process, and one in each that holds it.  Who may be trusted less than another gets one of its own: see
        :class:`SignalReceiver`.

        Args:
            handler: called without arguments, in the serving thread.  Of a :class:`capmarshal.aio.Entrypoint` it may be
                ``async def``; either is called in a task of its own, one at a time, which is cancelled when service
                ends.

        Returns:
            The signal, to be handed to whoever may send it: only what is returned keeps it.

        Raises:
            TypeError: it cannot be called; or it is async, and this no :class:`capmarshal.aio.Entrypoint`.
            TableFull: no room for the two descriptors.
            Closed: the entrypoint is closed.
        """
        if not callable(handler):
            raise TypeError(f"what on_signal() takes is called when a signal has come, and {handler!r} cannot be")
        refuse_async(handler, "the handler of a signal", self._colour)
        refuse_misfit(handler, 0, "the handler of a signal is called without arguments")
        service = self._made()
        service.check_open()
        end, made = make_signal_door()
        signal_end = SignalEnd(end)
        if not service.signal_handlers.add(SignalHandler(handler, signal_end)):
            signal_end.close()
            service.check_open()
            raise Closed(f"the entrypoint {self.label!r} is closed")
        return made.cast(Signal)

    def _take_out(self, target: Interface, reason: str) -> None:
        """Has no call of an object begin any more, whichever way it comes; waits for none.

        Raises:
            TypeError: no such object, or the reason is no text.
        """
        check_object(target, "dissolved")
        _check_reason(reason)
        self._made().grants.dissolve(target, reason)
        with private.lock:
            door, badge = space.managed.get(id(target), (None, b""))
            if door is self._door:
                self._objects.remove(badge)
                # Last, so that it can be done again after Ctrl-C; a signal handler that closes may have come first.
                space.managed.pop(id(target), None)

    def listen(
        self,
        where: StrOrBytesPath | socket.socket,
        target: Interface | Capability | None = None,
        *,
        for_client: ForClient | None = None,
        mode: int = 0o600,
    ) -> None:
        """Hands a capability over to each process that connects by :func:`connect`, until the entrypoint is closed.

        Nobody answers before it is served; who connects waits.

        Args:
            where: the path of a socket to be made, whose file goes when the entrypoint is closed; the one beside it,
                ``<path>.lock``, stays.  Or one that listens, as :func:`activated` gives: AF_UNIX, SEQPACKET; taken.
            target: what everybody gets: a capability, a proxy, or an object, which is managed here from now on.
            for_client: or says what a :class:`Caller` gets: one of these, if managed, or None: it is not let in.  It
                runs in the serving thread; who is connecting when it raises is not let in either, and the log says why;
                where it raises :class:`Disconnected`, they may try again.
            mode: of the file: who may write to it may connect.  0o600, the same user, unless it is said.

        Raises:
            TypeError, ValueError: there is no listening there, or one of ``target`` and ``for_client`` is to be given.
            KernelError: a process listens there, which is named; what is there is no socket; or bind(2) fails.
            TableFull: no room in the descriptor table.
            Closed: the entrypoint is closed.
        """
        self._made().check_open()
        self._made().listen(Listener(where, mode, giving(target, for_client, self.manage, self._colour)))

    def __del__(self) -> None:
        service = self._service
        if service is None or sys is None or service.released:
            # Where there is no sys, the names of this module are gone: at the very end of the interpreter.
            return
        if sys.is_finalizing() and service.served:
            # Its thread has been stopped wherever it was, with whatever locks it held; the kernel closes the rest.
            return
        try:
            if not service.closed:
                self._warn_of_leak()
        finally:
            # Also where warnings are errors.
            service.close_at_once()

    def _warn_of_leak(self) -> None:
        """Says that it was thrown away by those who should have closed it."""
        warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=3, source=self)

    def __reduce__(self) -> str:
        # What copy.copy() asks, too: one that goes ends the service.
        raise TypeError("an Entrypoint is neither copied nor pickled: what goes to another process is a capability")

    def __repr__(self) -> str:
        return f"<Entrypoint {self.label!r}{' closed' if self.closed else ''}>"


def abandon(entrypoint: AnyEntrypoint[Any], target: Interface) -> None:
    """Ends all grants of an object, of which its holders are told no more than that its server has gone.

    For objects that stand for others, elsewhere, which are lost.

    Raises:
        TypeError: it is no object.
        Closed: the entrypoint was never made.
    """
    check_object(target, "abandoned")
    grants = entrypoint._made().grants  # noqa: SLF001 - of this module's own class
    for grant in grants.of(target):
        grants.revoke(grant, "", silent=True)


def _check_reason(reason: str) -> None:
    if not isinstance(reason, str):
        raise TypeError(f"a reason is text, not {reason!r}")
