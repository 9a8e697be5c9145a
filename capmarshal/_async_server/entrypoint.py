"""Entrypoint: serves objects whose methods are awaited, many calls at a time, in an event loop."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from capmarshal._async_server.awaited_call import current
from capmarshal._async_server.block import Block
from capmarshal._async_server.call_ends import wait_for_ends
from capmarshal._async_server.serving import AwaitedService, AwaitingDispatcher
from capmarshal._kernel import deadline as _deadline
from capmarshal._kernel.errors import CallTimeout
from capmarshal._kernel.numbers import check_whole
from capmarshal._kernel.wrong_block import refused
from capmarshal._protocol.wire import BADGE_SIZE
from capmarshal._server.awaited_loop import AwaitedServer
from capmarshal._server.entrypoint import DISSOLVED, AnyEntrypoint
from capmarshal._server.limits import Limits
from capmarshal._server.options import CLOSE_TIMEOUT, MAX_BYTES, MAX_DESCRIPTORS, check_options

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self, TypeAlias

    from capmarshal._capabilities.capability import Capability, Delegable
    from capmarshal._descriptors.socket_paths import StrOrBytesPath
    from capmarshal._server.caller import Caller
    from capmarshal._server.listener import ForClient
    from capmarshal._server.session import Session
    from capmarshal._typed.interface import Interface

    AwaitedForClient: TypeAlias = Callable[[Caller], Awaitable[Capability | Delegable | None]]

CONCURRENCY = 100


def _make_block(service: AwaitedService, session: Session) -> Block:
    if not service.is_asyncios:
        return Block(service, session)
    # Where it is used, it is imported already.
    from capmarshal._async_server.asyncio_block import AsyncioBlock

    return AsyncioBlock(service, session)


class Entrypoint(AnyEntrypoint[AwaitedService]):
    """Serves objects of awaitable interfaces, in an event loop: runs the calls that anybody makes who may.

    As an asynchronous context manager it serves in tasks of its own; :meth:`serve_forever` serves in the calling one.
    Each call is a task.  It is cancelled when its caller gives it up, goes, or has set a deadline that has passed; what
    its method raises ends its call only.  Calls that come before anybody serves wait.

    Leaving the ``async with`` block finishes and answers the calls that run, for as long as ``close_timeout`` says;
    those that have not ended then are named in the log and cancelled.  Where the block is cancelled, they are at once.

    Args:
        label: for people: part of the door's name, of errors and logs.  1 to 64 bytes, printable, without a slash.

        concurrency: how many calls may run at a time, dealt out by process; all others wait.  Those that this process
            makes itself are not counted.  One process, and one user, has the part of them that ``limits`` says: with 1,
            2, 4, 10 or 100, a process alone has up to 1, 1, 2, 6 or 57 running, and a third as soon as others want
            theirs.  Long polls fill that, and keep out what would end them: see ``Limits.process_share``.  Who waits
            for an item of a stream does not.

        max_bytes: of the arguments of one call, and of its result.  Arguments are decoded in the loop: it bounds how
            long one call stops that, half a minute where it is not set; see docs/async.md.
        max_descriptors: likewise.
        close_timeout: seconds for which leaving the block waits for calls, and :class:`timeout` if that is less.

        limits: what its clients may cost it: each process, each user, and all together.
        describe: whether it says, to whoever may call an object, which methods there are, with their parameters and
            docstrings: what ``capmarshal describe`` and ``capmarshal call`` ask for.

    Raises:
        ValueError: no such label, time, maximum or number of calls.
        TypeError: something else than that.
        TableFull: no room for the four descriptors that it takes.
    """

    _colour = "awaitable"

    def __init__(
        self,
        label: str,
        *,
        concurrency: int = CONCURRENCY,
        max_bytes: int = MAX_BYTES,
        max_descriptors: int = MAX_DESCRIPTORS,
        close_timeout: float = CLOSE_TIMEOUT,
        limits: Limits = Limits(),  # noqa: B008 - it cannot change
        describe: bool = True,
    ) -> None:
        check_options(label, max_bytes, max_descriptors, close_timeout, limits, describe)
        check_whole(concurrency, f"concurrency is a whole number of calls, 1 or more, not {concurrency!r}", 1)
        make_server = partial(
            AwaitedServer,
            max_bytes=max_bytes,
            max_descriptors=max_descriptors,
            limits=limits,
            concurrency=concurrency,
        )
        self._block: Block | None = None
        super().__init__(label, close_timeout, AwaitingDispatcher, make_server, AwaitedService)
        self._objects.described = describe

    def listen(
        self,
        where: StrOrBytesPath | socket.socket,
        target: Interface | Capability | None = None,
        *,
        for_client: ForClient | AwaitedForClient | None = None,
        mode: int = 0o600,
    ) -> None:
        """Hands a capability over to each process that connects by :func:`connect`, until the entrypoint is closed.

        Nobody answers before it is served; who connects waits.

        Args:
            where: the path of a socket to be made, whose file goes when the entrypoint is closed; the one beside it,
                ``<path>.lock``, stays.  Or one that listens, as :func:`activated` gives: AF_UNIX, SEQPACKET; taken.
            target: what everybody gets: a capability, a proxy, or an object, which is managed here from now on.
            for_client: or says what a :class:`Caller` gets: one of these, if managed, or None: it is not let in.  May
                be ``async def``; either is called in a task of its own, which is cancelled if the client goes.  Who is
                connecting when it raises is not let in either, and the log says why; where it raises
                :class:`Disconnected`, they may try again.
            mode: of the file: who may write to it may connect.  0o600, the same user, unless it is said.

        Raises:
            TypeError, ValueError: there is no listening there, or one of ``target`` and ``for_client`` is to be given.
            KernelError: a process listens there, which is named; what is there is no socket; or bind(2) fails.
            TableFull: no room in the descriptor table.
            Closed: the entrypoint is closed.
        """
        # What is awaited is found when it is called.
        super().listen(where, target, for_client=for_client, mode=mode)  # type: ignore[arg-type]

    async def dissolve(self, target: Interface, reason: str = DISSOLVED) -> None:
        """Ends all that leads to an object: from here on, calls of it are refused.

        What :meth:`manage` gave is stale then (:class:`StaleCapability`), and so is what deep grants have handed out;
        its grants are revoked (:class:`Revoked`).  Waits for calls of the object that are in progress, by whichever of
        these they have come, except for the one that it is awaited in.

        Does nothing for an object that this entrypoint neither manages nor has granted.

        Args:
            target: the object.
            reason: for those who held a grant of it, as :meth:`revoke` has it; others are told none.

        Raises:
            TypeError: no such object, but a proxy or a capability of one, say; or the reason is no text.
            CallTimeout: such a call is still running when :class:`timeout` says; it is dissolved all the same.
        """
        self._take_out(target, reason)
        within = current.get()
        # A task that a method has started may go on when that has ended.
        own = within.key if within is not None and within.is_of(self._dispatcher.calls) and within.runs else b""

        def over() -> bool:
            return self._objects.calls_of(target) <= self._objects.was_of(own[:BADGE_SIZE], target)

        if over():
            return
        with anyio.move_on_after(_deadline.remaining()):
            await wait_for_ends(self._objects, over)
        if not over():
            words = "dissolved, but a call of the object has not ended before"
            raise CallTimeout(f"{words} {_deadline.origin()}", ran="maybe")

    async def serve_forever(self) -> None:
        """Serves in the calling task until :meth:`close` is called, or the task is cancelled.

        Whatever a method raises ends its call only, but for what signals bring in the main thread:
        :class:`KeyboardInterrupt`, and the :class:`SystemExit` of a signal handler, are raised here.  So ended, or
        cancelled, it may serve on afterwards: the file of a socket stays until it is closed.

        Raises:
            Closed: the entrypoint is closed.
            RuntimeError: somebody serves it already.
        """
        service = self._made()
        await service.serve_session(service.claim())

    def close(self) -> None:
        """Tells service to end, and returns at once: calls that run are finished and answered, others find it gone.

        Also from within a call, from a signal handler and from another thread.  Does nothing the second time.
        """
        if self._service is not None:
            # What is on its way is bounded: its client may never read it.
            self._service.tell_to_end(_deadline.ahead(self._close_timeout))

    async def aclose(self, timeout: float | None = None) -> None:
        """Ends service as :meth:`close` does, and waits for that.

        From within a call it returns at once, and service ends after those that run.  Does nothing the second time.

        Args:
            timeout: seconds to wait for them; None leaves it to :class:`timeout`.

        Raises:
            CallTimeout: some still run; service ends when they have.
            RuntimeError: it is served in another event loop, which does not run.
        """
        if self._service is None:
            return
        deadline = _deadline.after(timeout)
        # What is on its way when nobody waits is bounded all the same: its client may never read it.
        send_until = _deadline.ahead(self._close_timeout) if timeout is None else deadline
        if not await self._service.finish(deadline, send_until):
            running, when = self._service.in_progress() or "its loop", _deadline.words_for(timeout, deadline)
            raise CallTimeout(f"{self!r} is closed, but {running} has not ended {when}", ran="maybe")

    if not TYPE_CHECKING:
        __enter__, __exit__ = refused(
            "a capmarshal.aio.Entrypoint is served by an event loop, and entered by `async with`, not by `with`; what "
            "a thread serves is a capmarshal.Entrypoint"
        )

    async def __aenter__(self) -> Self:
        """Has it served by a task, until it is left or closed.

        Raises:
            Closed: it is closed.
            RuntimeError: somebody serves it already.
        """
        service = self._made()
        session = service.claim()
        try:
            self._block = _make_block(service, session)
            await self._block.enter()
        except BaseException:
            service.end(session)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        block, self._block = self._block, None
        return await block.leave(error, self._close_timeout) if block is not None else None
