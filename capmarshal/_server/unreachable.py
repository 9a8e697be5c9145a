"""That nobody can call the object of a grant any more, in any process: it is noticed, and said."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from capmarshal._server.streams import Streaming, end_failed, end_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._server.clients import Channel
    from capmarshal._server.dispatch import Ask, Asked, Dispatcher
    from capmarshal._server.grant import Grant
    from capmarshal._server.journal import Journal
    from capmarshal._server.timers import Timers

_TOLD = "unreachable, of "


class Unreachable:
    """Notices which grants of one server nobody can call by any more, and says so; in the loop's thread.

    Args:
        timers: of its loop.
        dispatcher: runs what is told that nobody can reach an object any more.
        journal: of the entrypoint.
        is_over: whether a grant has ended in another way, or the server is to end.
        end: ends one, but for what it knows of its object.
        forget: has it know nothing more.

    Attributes:
        ask: has that awaited which is told, where an event loop serves.
    """

    def __init__(
        self,
        timers: Timers,
        dispatcher: Dispatcher,
        journal: Journal,
        *,
        is_over: Callable[[Grant], bool],
        end: Callable[[Grant], None],
        forget: Callable[[Grant], None],
    ) -> None:
        self._timers = timers
        self._dispatcher = dispatcher
        self._journal = journal
        self._is_over, self._end, self._forget = is_over, end, forget
        # Those of which it is being told, in an event loop, that nobody can reach the object.
        self._telling: dict[Grant, Asked | None] = {}
        self.ask: Ask | None = None

    def door_shut(self, grant: Grant) -> None:
        """Nobody can knock at the door of a grant any more."""
        grant.shut = True
        self._look(grant)

    def channel_ends(self, channel: Channel) -> None:
        """A channel has ended, or a call that ran beside others, whose channel had ended before."""
        # A method that runs on may call it by what has come: where it is told to end, it takes its time.
        if channel.grant is not None and channel.handler is None:
            channel.grant.channels.discard(channel)
            self._look(channel.grant)

    def _look(self, grant: Grant) -> None:
        if grant.shut and not grant.channels:
            # When the channel has ended.
            self._timers.after(0, partial(self._end_unreachable, grant))

    def _end_unreachable(self, grant: Grant) -> None:
        """Nobody can call the object by a grant any more: ends it, and says so."""
        if self._is_over(grant) or grant in self._telling:
            return
        closed = False
        try:
            self._end(grant)
            closed = True
            if grant.unreachable is not None:
                self._run(grant)
        except BaseException as error:
            if grant.unreachable is not None or not closed:
                # A signal handler's, which came before.
                self._look(grant)
                raise
            self._failed(grant, error)
            if not isinstance(error, Exception) and self._dispatcher.calls.ends_service(error):
                raise
        finally:
            if grant.unreachable is None and closed and grant not in self._telling:
                self._forget(grant)

    def _run(self, grant: Grant) -> None:
        # What is told to a stream is told by its server, and takes no time.
        target: object = grant.target
        if self.ask is None or isinstance(target, Streaming):
            what = end_of(target) if isinstance(target, Streaming) else f"{_TOLD}{grant!r},"
            self._dispatcher.run_beside(what, partial(_tell, grant))
            return
        # Until that has ended, it is counted for whom it was, if it is counted: nobody has more of them run than that.
        self._telling[grant] = None
        try:
            asking = self.ask(partial(_tell, grant), partial(self._told, grant), "unreachable")
        except BaseException:
            self._telling.pop(grant, None)
            raise
        # It may have ended when this returns; what has ended is not kept.
        if grant in self._telling:
            self._telling[grant] = asking

    def _told(self, grant: Grant, _given: object, failure: BaseException | None) -> None:
        """It was told, in a task, that nobody can reach an object."""
        self._telling.pop(grant, None)
        if failure is not None:
            self._failed(grant, failure)
        self._forget(grant)

    def _failed(self, grant: Grant, error: BaseException) -> None:
        target: object = grant.target
        if isinstance(target, Streaming):
            end_failed(self._journal, target, error)
            return
        words = "what was to be called when nobody can reach %r failed"
        self._journal.error(None, "unreachable", words, grant, exc_info=error)

    def in_progress(self) -> str:
        """What is told in tasks that nobody can reach an object, for people; empty: nothing is."""
        told = tuple(self._telling)
        more = f" and {len(told) - 1} others" if len(told) > 1 else ""
        return f"{_TOLD}{told[0]!r}{more}" if told else ""

    def end_telling(self) -> None:
        """Has nothing told any more in tasks; what has not begun is told when it is served again."""
        for grant in tuple(self._telling):
            asking = self._telling.pop(grant)
            if asking is not None:
                asking.cancel()
            if grant.unreachable is not None:
                self._look(grant)
                continue
            self._forget(grant)

    def in_child(self) -> None:
        """Tells nothing in a forked child."""
        self._telling.clear()


def _tell(grant: Grant) -> object:
    """Says that nobody can reach an object; gives what is to be awaited for that, if anything is."""
    # No call between these two: what Ctrl-C keeps from beginning is told later, and what has begun is not told again.
    tell, grant.unreachable = grant.unreachable, None
    return tell(grant.target) if tell is not None and grant.target is not None else None
