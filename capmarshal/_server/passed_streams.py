"""Streams that are arguments, served by who makes the call: an entrypoint for each, with a thread of its own.

Not one thread for all: what iterates may take from a stream that pulls from another one of this process, as in
``a.grep(line.upper() for line in b.grep(lines()))``, and would wait for itself.

What those have in common with it that an event loop serves stands here, too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from capmarshal._capabilities.homecoming import to_go_on
from capmarshal._capabilities.space import capability_of
from capmarshal._server.dispatch import Dispatcher
from capmarshal._server.entrypoint import AnyEntrypoint
from capmarshal._server.escapes import nothing
from capmarshal._server.limits import Limits
from capmarshal._server.loop import Server
from capmarshal._server.new_door import LABEL_MAX
from capmarshal._server.options import CLOSE_TIMEOUT, MAX_BYTES, MAX_DESCRIPTORS
from capmarshal._server.passed_service import PassedService
from capmarshal._server.service import Service
from capmarshal._server.streams import PULLED, Producer, class_for
from capmarshal._typed.incoming import Owned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from capmarshal._capabilities.capability import Capability
    from capmarshal._server.calls import Calls
    from capmarshal._server.items import Streamed
    from capmarshal._server.journal import Journal
    from capmarshal._server.objects import Objects

# What the holders of one may cost who gives it, who may give many.  They call one method, whose argument is a number:
# so channels are for threads that take from one stream at a time, and no more of a call is kept than any may bring.
_LIMITS = Limits(
    channels=32,
    begun_bytes=MAX_BYTES,
    begun_descriptors=MAX_DESCRIPTORS,
    doors=16,
    closing=16,
    user_share=1,
    process_share=1,
)
_OPTIONS: dict[str, Any] = {"max_bytes": MAX_BYTES, "max_descriptors": MAX_DESCRIPTORS, "limits": _LIMITS}

S = TypeVar("S", bound=Service)


def _label_for(declared: Streamed) -> str:
    """What the entrypoint of a stream is called."""
    _, _, interface = declared.where.rpartition("<locals>.")
    return f"stream of {interface}".encode()[:LABEL_MAX].decode(errors="ignore")


def _give_items(calls: Calls) -> None:
    """Has the items of a stream that is an argument be what arguments are.

    What nobody manages is refused among them: it would be served for as long as the stream is, and whoever has taken it
    out may have it for longer.  How large they may be is a matter of whoever takes them.
    """
    calls.served.shares.give_items()
    calls.serve_for(calls.served._replace(hand_out=lambda target, *_: capability_of(target)))


class PassedStream(AnyEntrypoint[S]):
    """The entrypoint of one stream, of one colour, which serves until nobody can pull from it.

    Args:
        declared: what it is declared as.
        make_dispatcher: as :class:`AnyEntrypoint` takes it.
        make_server: likewise, with options by name.
        kind: of service.

    Raises:
        TableFull: no room for its descriptors.
    """

    def __init__(
        self,
        declared: Streamed,
        make_dispatcher: Callable[[Objects, Journal], Dispatcher],
        make_server: Callable[..., Server],
        kind: type[S],
    ) -> None:
        super().__init__(_label_for(declared), CLOSE_TIMEOUT, make_dispatcher, partial(make_server, **_OPTIONS), kind)
        self._declared = declared

    def begin(self, iterator: Any) -> Capability:
        """Serves it, and returns what it is pulled from, which nobody else keeps.

        Raises:
            TableFull, KernelError, RuntimeError: no room for its descriptors; nobody can be had who serves it.
        """
        service = self._made()
        _give_items(self._dispatcher.calls)
        owned = Owned()
        owned.came_home = to_go_on()
        made = service.grants.make(self.label, self._producer_of(iterator, owned), PULLED, self._gone)
        assert made is not None  # noqa: S101 - it is not closed
        self._start()
        return made

    def _producer_of(self, iterator: Any, owned: Owned) -> Any:
        """What gives its items.

        Args:
            iterator: what makes them.
            owned: what is the stream's own.
        """
        raise NotImplementedError

    def _start(self) -> None:
        """Has it served, by whoever serves one of its colour."""
        raise NotImplementedError

    def _gone(self, producer: Any) -> None:
        """Nobody can pull from it any more."""
        try:
            producer.end()
        finally:
            self._made().close_at_once()

    def end(self) -> None:
        """Ends it, whoever can: what iterates is told to."""
        self._made().close_at_once()


def serve_by(passed: PassedStream[Any], iterator: Any) -> tuple[Capability, Callable[[], None]]:
    """Serves a stream for as long as anybody can pull from it.

    Args:
        passed: the entrypoint of it alone; taken, also if this fails.
        iterator: likewise.

    Returns:
        What it is pulled from, which nobody else keeps; and what ends it before that.

    Raises:
        TableFull, KernelError, RuntimeError: as what begins to serve raises it.
    """
    try:
        return passed.begin(iterator), passed.end
    except BaseException:
        passed.end()
        raise


class _Passed(PassedStream[PassedService]):
    """One that a thread serves."""

    _colour = "blocking"

    def __init__(self, declared: Streamed) -> None:
        super().__init__(declared, Dispatcher, Server, PassedService)

    def _producer_of(self, iterator: Iterator[Any], owned: Owned) -> Any:
        declared, shares = self._declared, self._dispatcher.calls.served.shares
        producer = class_for(declared, Producer)(declared, iterator, owned, (), shares, None, nothing)
        self._made().producer = producer
        return producer

    def _start(self) -> None:
        self._made().start()

    def end(self) -> None:
        """Ends it, whoever can, at once; what iterates is closed as soon as it does not run."""
        service = self._made()
        # What makes the next item may wait for long, and who takes it would wait with it.
        service.abandon(service.runs)


def serve(declared: Streamed, iterator: Iterator[Any]) -> tuple[Capability, Callable[[], None]]:
    """Serves a stream in a thread, as :func:`serve_by`.

    Args:
        declared: what it is declared as.
        iterator: taken, also if this fails.

    Raises:
        TableFull, KernelError: no room for its descriptors; no thread can be had.
        RuntimeError: gevent has replaced threads.
    """
    return serve_by(_Passed(declared), iterator)
