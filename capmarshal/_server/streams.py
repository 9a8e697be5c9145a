"""Streams, as who gives them has them: an object that gives the next items of an iteration, and lets it go at the end.

Who gives one is the server of a call whose result it is, or the client of one that it is an argument of.

What came with the call that began it is the stream's, and closed with it: a generator looks at its arguments when the
first item is wanted, which is after that call.
"""

from __future__ import annotations

import itertools
import operator
import time
from typing import TYPE_CHECKING, Any, NoReturn

from capmarshal._capabilities import homecoming
from capmarshal._descriptors import reaper
from capmarshal._kernel.errors import name_of, with_article
from capmarshal._kernel.native import DESCRIPTORS_MAX
from capmarshal._protocol.epitaph import revoked
from capmarshal._protocol.faults import Code, Failing
from capmarshal._server import ownership
from capmarshal._server.items import Items
from capmarshal._typed.untaken import close_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from capmarshal._capabilities.homecoming import CameHome
    from capmarshal._server.caller import Caller
    from capmarshal._server.items import Item, Streamed
    from capmarshal._server.journal import Journal
    from capmarshal._server.shares import Shares
    from capmarshal._typed.incoming import Owned

# Nanoseconds: an item that took longer is not waited for with others behind it.
_SLOW = 1_000_000
# What a batch has at most: items, their bytes, descriptors as of one record, and capabilities, each of which may cost
# the server a door as long as it can be reached.
_MOST, BYTES, _DESCRIPTORS, _CAPABILITIES = 1 << 16, 48 << 10, DESCRIPTORS_MAX, 16
# Bytes of an answer beside its items.
_HEAD = 512
_NOTHING: tuple[Sequence[Item], Sequence[Any]] = ((), ())
# What the log says of a stream whose iteration raises as it is closed before its last item.
END_FAILED = "%s: closing its stream, which nobody takes items of any more, raised"
# In the namespace of an interface by which items are pulled: the class that serves it.
_PRODUCER = "__capmarshal_producer__"


def class_for(declared: Streamed, base: type) -> type[Any]:
    """The class of what serves the streams of a declaration, derived from ``base``; made once."""
    pull: type = declared.result
    known: type | None = vars(pull).get(_PRODUCER)
    if known is None:
        namespace = {"__module__": base.__module__, "measures": Items(declared)}
        known = type(pull)(pull.__name__, (base, pull), namespace)
        setattr(pull, _PRODUCER, known)
    return known


class Batch:
    """Items that are sent together: no more than are wanted, nor than one answer may have.

    What cannot be sent, or not with others, is alone in one, so that those before it have been sent.

    Args:
        at_most: how many are wanted.
        max_bytes: of an answer.
        max_descriptors: of an answer.

    Attributes:
        items: as they are sent.
        full: there is to be no more in it.
    """

    __slots__ = ("_at", "_bytes", "_capabilities", "_descriptors", "_most", "_room", "full", "items")

    def __init__(self, at_most: int, max_bytes: int, max_descriptors: int) -> None:
        self.items: list[Any] = []
        self.full = False
        self._most = max(1, min(at_most, _MOST))
        self._room = (min(max_bytes - _HEAD, BYTES), min(max_descriptors, _DESCRIPTORS), _CAPABILITIES)
        self._bytes = self._descriptors = self._capabilities = 0
        self._at = time.monotonic_ns()

    def takes(self, item: Item) -> bool:
        """Adds one, unless it is to be in another one; whether it did.  None is added to one that is full."""
        sent, size, descriptors, capabilities, good = item
        self._bytes += size
        self._descriptors += descriptors
        self._capabilities += capabilities
        most, most_descriptors, most_capabilities = self._room
        too_much = self._bytes > most or self._descriptors > most_descriptors or self._capabilities > most_capabilities
        if too_much or not good:
            self.full = True
        if self.full and self.items:
            return False
        self.items.append(sent)
        before, self._at = self._at, time.monotonic_ns()
        # What is no data is sent before its maker goes on: he may close it behind the yield, or wait until it is given
        # back.
        if len(self.items) >= self._most or self._at - before > _SLOW or self._descriptors or self._capabilities:
            self.full = True
        return True


class Run(ownership.InProgress):
    """What makes a stream's items, or cleans up behind them, while it runs.

    Args:
        caller: asked who has begun the stream; None: nobody has.
        came_home: with the call that began it.
    """

    __slots__ = ("_came_home", "_came_home_before")

    def __init__(self, caller: Callable[[], Caller] | None, came_home: CameHome | None) -> None:
        super().__init__(caller, within=ownership.current.get())
        self._came_home, self._came_home_before = came_home, homecoming.here.get()

    def begin(self) -> None:
        """Has it find, in this context, whose stream it is, and what has come home with the call that began that."""
        ownership.current.set(self)
        homecoming.here.set(self._came_home)

    def end(self) -> None:
        """Puts back what :meth:`begin` has replaced; nothing is in progress any more."""
        homecoming.here.set(self._came_home_before)
        ownership.current.set(self.within)
        # Contexts that were copied meanwhile refer to this.
        self._came_home = self._came_home_before = None
        super().end()


class Streaming:
    """What both kinds of streams have: what came with the call that began them.

    Args:
        declared: what it is declared as.
        owned: of the arguments of the call that has begun it; taken.
        kept: what the method has kept of these.
        shares: what one answer may have.
        caller: of the method; None: it is of none.

    Attributes:
        where: interface and method, for people.
        measures: its items.
        failure: what the iteration has raised, behind items that are to be sent before.
        revoked: it has ended though somebody has it.
        came_home: with the call that began it: the items that are among that go out as it came.
        target: the object whose method has begun it; None: it is of none.
    """

    measures: Items

    def __init__(
        self, declared: Streamed, owned: Owned, kept: Sequence[object], shares: Shares, caller: Caller | None
    ) -> None:
        self.where = declared.where
        self._began_by = None if caller is None else lambda: caller
        self._shares = shares
        self._owned: Owned | None = ownership.without_kept(owned, kept)
        self.came_home = homecoming.copy_of(owned.came_home)
        # What contexts refer to, which may outlive the stream.
        self._known_here = owned.came_home
        self.target: object = None
        self.failure: BaseException | None = None
        self.revoked = False

    def batch(self, at_most: int) -> Batch:
        """Room for the next items."""
        return Batch(at_most, self._shares.max_bytes, self._shares.max_descriptors)

    def end(self) -> None:
        """Ends the iteration: nobody wants more of it.  Does nothing the second time."""
        raise NotImplementedError

    def revoke(self) -> None:
        """Ends it though somebody has it, who is told so."""
        self.revoked = True
        self.end()

    def run(self) -> Run:
        """What makes the items, or cleans up, is to be in this; its end is :meth:`end_run`."""
        return Run(self._began_by, self._known_here)

    def leave(self, mine: Run) -> list[object]:
        """Leaves it what it has kept by now, of what came with the call, and gives that."""
        kept, mine.kept = mine.kept, []
        if self._owned is not None and kept:
            self._owned = ownership.without_kept(self._owned, kept)
        return kept

    def end_run(self, mine: Run) -> list[object]:
        """Ends a run, however far it has begun, as :meth:`leave`."""
        mine.end()
        return self.leave(mine)

    def write_out(self) -> None:
        """Writes what the iteration, which is at its end, has left in the buffers of what came with the call.

        Raises:
            CallTimeout, OSError, ValueError: something could not be written.
        """
        if self._owned is not None and self._owned.writers:
            ownership.write_out(self._owned, ())

    def let_go(self) -> None:
        """Closes what came with the call, once nothing more is made.  Does nothing the second time."""
        if self._known_here is not None:
            self._known_here.clear()
        owned, self._owned = self._owned, None
        if owned is None:
            return
        ownership.end_streams(owned, ())
        if owned.produced:
            reaper.close(ownership.unwritten(owned))


def end_of(stream: Streaming) -> str:
    """What its end is, for people."""
    return f"{stream.where}, the end of its stream,"


def end_failed(journal: Journal, stream: Streaming, error: BaseException) -> None:
    """Says in the log that its end has not gone well, of which nobody else is told."""
    journal.error(None, f"{stream.where}, end", END_FAILED, stream.where, exc_info=error)


def raise_out_of(stream: Streaming) -> NoReturn:
    """Raises the failure of a stream, which has none then."""
    failure, stream.failure = stream.failure, None
    assert failure is not None  # noqa: S101 - asked for before
    try:
        raise failure
    finally:
        # It knows this frame, and would be known to it.
        del failure


def taken_away() -> Failing:
    """What is said to who takes items of a stream that was revoked meanwhile."""
    return Failing(Code.REVOKED, revoked(""))


# What is done when nobody can pull from one any more, and the one method that it has for others.
END, PULLED = operator.methodcaller("end"), frozenset({b"next"})


class Producer(Streaming):
    """Serves one stream in a thread.

    Args:
        declared: what it is declared as.
        result: what is iterated over.
        owned: of the arguments of the call that has begun it; taken, unless this raises.
        kept: what the method has kept of these.
        shares: what one answer may have.
        caller: of the method; None: it is of none.
        ends_service: whether what the iteration raises is to end the service, and not the stream.

    Raises:
        Failing: nothing can iterate over the result.
    """

    def __init__(
        self,
        declared: Streamed,
        result: Any,
        owned: Owned,
        kept: Sequence[object],
        shares: Shares,
        caller: Caller | None,
        ends_service: Callable[[BaseException], bool],
    ) -> None:
        try:
            self._iterator: Iterator[Any] | None = iter(result)
        except TypeError:
            raise no_stream(result, "iterate over") from None
        super().__init__(declared, owned, kept, shares, caller)
        self._ends_service = ends_service
        # It iterates at the moment; is at its end; and was told to end, by somebody who does not take items.
        self._runs = self._over = self._told = False
        # What came and is in no batch yet, and what was kept of it.
        self._left: tuple[Sequence[Item], Sequence[Any]] = _NOTHING

    @property
    def runs(self) -> bool:
        """Whether it makes items just now."""
        return self._runs

    def next(self, at_most: int) -> tuple[list[Any], bool]:
        """Gives so many of the next items at most, and whether these are the last.

        Raises:
            Failing: the stream was taken away; or an item is not what the interface says.
            RuntimeError: what makes the items takes some itself.
            BaseException: what the iteration, or its end, has raised, once the items before it are taken.
        """
        if self._runs:
            raise RuntimeError(f"{self.where}: what makes the items of a stream takes some of that stream")
        if self.failure is not None:
            raise_out_of(self)
        if self._told:
            raise taken_away()
        if self._iterator is None:
            return [], True
        batch, kept = self.batch(at_most), list[object]()
        mine = self.run()
        # No step before, at whose end Ctrl-C could leave what has begun.
        try:
            self._runs = True
            mine.begin()
            self._fill(batch, self._iterator, kept, mine)
        except BaseException as error:
            self._over = True
            if not batch.items:
                raise
            if not isinstance(error, Exception) and self._ends_service(error):
                close_items(batch.items, kept)
                raise
            # They were made before; it is raised in their stead the next time.
            self.failure = error
        finally:
            kept += self.end_run(mine)
            self._runs = False
            if mine.within is not None:
                # Of what is sent, too, the call that sends it is not to close any.
                mine.within.kept += kept
            if self._over or self._told:
                self._end_after(batch)
        return batch.items, self._over and self.failure is None

    def _fill(self, batch: Batch, iterator: Iterator[Any], kept: list[object], mine: Run) -> None:
        """Fills a batch; what was kept of the items in it is added to ``kept``."""
        (items, kept_before), self._left = self._left, _NOTHING
        mine.kept += kept_before
        for item in itertools.chain(items, map(self.measures.measured, iterator)):
            kept_of_it = self.leave(mine) if mine.kept else ()
            if not batch.takes(item):
                # With what was kept of it: that is a matter of the call which sends it.
                self._left = [item], kept_of_it
                return
            kept += kept_of_it
            if batch.full:
                return
        self._over = True
        kept += self.leave(mine)
        self.write_out()

    def _end_after(self, batch: Batch) -> None:
        """Ends the iteration as a batch has been made, whose items are sent whatever that raises."""
        try:
            self._close()
        except BaseException as error:
            if not batch.items or (not isinstance(error, Exception) and self._ends_service(error)):
                raise
            self.failure = self.failure or error

    def end(self) -> None:
        """Closes the iteration, if it is a generator.  Does nothing the second time."""
        self._told = True
        if not self._runs:
            # Else within itself; when it has given its next item.
            self.failure = None
            self._close()

    def _close(self) -> None:
        mine = self.run()
        try:
            mine.begin()
            iterator, self._iterator = self._iterator, None
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
        finally:
            (items, kept_before), self._left = self._left, _NOTHING
            kept = [*kept_before, *self.end_run(mine)]
            close_items((item[0] for item in items), kept)
            self.let_go()


def no_stream(result: Any, what: str) -> Failing:
    """Says that a result is nothing that one can iterate over."""
    words = f"{with_article(name_of(type(result)))} is nothing to {what}, as the interface says; yield the items"
    return Failing(Code.UNSENDABLE, words)
