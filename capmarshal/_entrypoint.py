"""Entrypoint: serves objects, one call at a time, to any number of clients."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.errors import CallTimeout
from capmarshal._kernel.wrong_block import refused
from capmarshal._server.dispatch import Dispatcher
from capmarshal._server.entrypoint import DISSOLVED, AnyEntrypoint
from capmarshal._server.limits import Limits
from capmarshal._server.loop import Server
from capmarshal._server.options import CLOSE_TIMEOUT, MAX_BYTES, MAX_DESCRIPTORS, check_options
from capmarshal._server.service import Service

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from capmarshal._typed.interface import Interface


class Entrypoint(AnyEntrypoint[Service]):
    """Serves objects: runs the calls that anybody who holds their capabilities makes, one at a time.

    As a context manager it has a thread of its own; :meth:`serve_forever` serves in the calling thread instead.  Its
    objects, and only they, are called in that thread, so they need no locks among themselves.  Calls that come before
    anybody serves wait.

    Leaving the ``with`` block finishes and answers the call in progress, and sends what is on its way, for as long as
    ``close_timeout`` says.  A call that has not ended then is named in the log and left behind: clients find the
    entrypoint gone, and what the call still returns is dropped.

    Args:
        label: for people: part of the door's name, of errors and logs.  1 to 64 bytes, printable, without a slash.

        max_bytes: of the arguments of one call, and of its result; of an item of a stream that is an argument.
        max_descriptors: likewise.
        close_timeout: seconds that leaving the ``with`` block may take, and :class:`timeout` if that is less.

        limits: what its clients may cost it: each process, each user, and all together.
        describe: whether it says, to whoever may call an object, which methods there are, with their parameters and
            docstrings: what ``capmarshal describe`` and ``capmarshal call`` ask for.

    Raises:
        ValueError: no such label, time or maximum.
        TypeError: something else than that.
        TableFull: no room for the four descriptors that it takes.
    """

    _colour = "blocking"

    def __init__(
        self,
        label: str,
        *,
        max_bytes: int = MAX_BYTES,
        max_descriptors: int = MAX_DESCRIPTORS,
        close_timeout: float = CLOSE_TIMEOUT,
        limits: Limits = Limits(),  # noqa: B008 - it cannot change
        describe: bool = True,
    ) -> None:
        check_options(label, max_bytes, max_descriptors, close_timeout, limits, describe)
        make_server = partial(Server, max_bytes=max_bytes, max_descriptors=max_descriptors, limits=limits)
        super().__init__(label, close_timeout, Dispatcher, make_server, Service)
        self._objects.described = describe

    def dissolve(self, target: Interface, reason: str = DISSOLVED) -> None:
        """Ends all that leads to an object: from here on, calls of it are refused.

        What :meth:`manage` gave is stale then (:class:`StaleCapability`), and so is what deep grants have handed out;
        its grants are revoked (:class:`Revoked`).  Waits for calls of the object that are in progress, by whichever of
        these they have come, except from within a call.

        Does nothing for an object that this entrypoint neither manages nor has granted.

        Args:
            target: the object.
            reason: for those who held a grant of it, as :meth:`revoke` has it; others are told none.

        Raises:
            TypeError: no such object, but a proxy or a capability of one, say; or the reason is no text.
            CallTimeout: such a call is still running when :class:`timeout` says; it is dissolved all the same.
        """
        self._take_out(target, reason)
        if not self._dispatcher.serves_this_thread():
            self._objects.wait_for_calls(target)

    def serve_forever(self) -> None:
        """Serves in the calling thread until :meth:`close` is called, from another thread or from within a call.

        Whatever a method raises ends its call only.  In the main thread, signals end the service: Ctrl-C raises
        :class:`KeyboardInterrupt` here, between calls or in one, and a signal handler that calls ``sys.exit()`` raises
        :class:`SystemExit`.  The call in hand is cut off by that: its caller gets the signal's exception as a
        :class:`RemoteError`.  The entrypoint can serve on afterwards.

        Raises:
            Closed: the entrypoint is closed.
            RuntimeError: somebody serves it already.
        """
        self._made().serve()

    def close(self, timeout: float | None = None) -> None:
        """Ends service: the call in progress is finished and answered, all others find the server gone.

        From within a call it returns at once, and service ends after that call; likewise from a signal handler that
        interrupts what the call in progress may need.  Does nothing the second time.

        Args:
            timeout: seconds to wait for the call in progress; None leaves it to :class:`timeout`.

        Raises:
            CallTimeout: it is still running; service ends when it does.
        """
        if self._service is None:
            return
        deadline = _deadline.after(timeout)
        # What is on its way when nobody waits is bounded all the same: its client may never read it.
        send_until = _deadline.ahead(self._close_timeout) if timeout is None else deadline
        if not self._service.close(deadline, send_until):
            running, when = self._objects.in_progress() or "its loop", _deadline.words_for(timeout, deadline)
            raise CallTimeout(f"{self!r} is closed, but {running} has not ended {when}", ran="maybe")

    if not TYPE_CHECKING:
        __aenter__, __aexit__ = refused(
            "a capmarshal.Entrypoint is served by a thread, and entered by `with`, without `async`; what an event loop "
            "serves is a capmarshal.aio.Entrypoint, which is entered by `async with`"
        )

    def __enter__(self) -> Self:
        """Has it served by a thread of its own, until it is left, closed or forgotten.

        Raises:
            Closed: it is closed.
            RuntimeError: somebody serves it already, or gevent has replaced threads.
            KernelError: there are as many threads as there may be; nothing has changed.
        """
        self._made().start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._made().leave(self._close_timeout)
        except BaseException:
            # Ctrl-C, perhaps before anything was done.
            if self._service is not None:
                self._service.close_at_once()
            raise
