"""Who owns what when a call ends: the call, what its method has kept, or the answer.

The call owns its arguments and its results.  An argument whose number is among the results' is a result, whatever
object carries it: ``return file.raw``, or a file made of a :class:`Descriptor` without closing it.  Were it closed as
an argument, before the answer leaves, its number would name nothing by then, or something else.  Which of the two
objects closes it, :mod:`capmarshal._server.shared_numbers` says.
"""

from __future__ import annotations

import io
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from capmarshal._descriptors.descriptor import numbers_of
from capmarshal._descriptors.layers import layers_of, raw_of
from capmarshal._kernel.errors import ArgumentError
from capmarshal._server.answer import Answer
from capmarshal._server.kept import all_in, let_go
from capmarshal._server.shared_numbers import closed_once, closers_in, number_of_known
from capmarshal._typed.async_stream import end_with_call
from capmarshal._typed.flushing import flush_without_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capmarshal._descriptors.closing import ClosableFile
    from capmarshal._server.caller import Caller
    from capmarshal._typed.incoming import Owned
    from capmarshal._typed.outgoing import Outgoing

T = TypeVar("T")


class InProgress:
    """Calls in progress: one that a client made, and those that it made inline in turn.

    Args:
        caller: asked who makes the innermost; None: nobody does.
        running: the badges of these calls, which others add and remove; True: there are some until :meth:`end`.
        within: those within which these are, where it is what makes the items of a stream that runs.

    Attributes:
        kept: what their methods have kept, layer by layer; a call that ends removes what was kept in it.
    """

    __slots__ = ("_running", "caller", "kept", "within")

    def __init__(
        self,
        caller: Callable[[], Caller] | None,
        running: Sequence[bytes] | bool = True,
        within: InProgress | None = None,
    ) -> None:
        self._running = running
        self.caller = caller
        self.within = within
        self.kept: list[Any] = []

    @property
    def goes_on(self) -> bool:
        """Whether there is any: contexts refer to this that were copied while there was."""
        return bool(self._running)

    def end(self) -> None:
        """There is none any more."""
        self._running = False


# The calls in progress here, where an entrypoint is served: a context variable, for each task of an event loop may run
# one, all of them in one thread.
current: ContextVar[InProgress | None] = ContextVar("capmarshal.calls", default=None)


def keep(thing: T) -> T:
    """In a server's method: takes descriptors out of the call's ownership, so that they stay open when the call ends.

    In a generator, at any step of it, out of the stream's.

    Args:
        thing: a file, socket or :class:`Descriptor`, an argument or what will be the result; a file made of one
            (``io.TextIOWrapper(file)``, ``sock.makefile()``); an argument that is a stream; or a list, tuple, set,
            dict, dataclass and so on of such.  Yours from here on, with what is in its buffer.

    Returns:
        ``thing``.

    Raises:
        RuntimeError: not called from within a server's method.
        TypeError: there is no descriptor in it.
    """
    calls = current.get()
    if calls is None or not calls.goes_on:
        raise RuntimeError("keep() is for server methods: only a call has descriptors to take out of it")
    calls.kept += all_in(thing)
    return thing


def caller() -> Caller:
    """Who makes the call that runs here; in a generator, who has made the one that began the stream.

    Returns:
        The process that knocked.  What is asked of one whose channel has ended meanwhile is answered as well.

    Raises:
        RuntimeError: not called from within a server's method, or a task that it has started.
    """
    calls = current.get()
    if calls is None or not calls.goes_on or calls.caller is None:
        raise RuntimeError("caller() is for server methods: nobody calls here")
    return calls.caller()


def write_out(incoming: Owned, kept: Sequence[object]) -> None:
    """Writes what a method has left in the buffers of its arguments: it is written when the caller has its answer.

    A pipe or socket that has no room for it is not waited for: nobody may ever read there.  What the method has kept
    is its own to flush, and another thread may be waiting in it.

    Raises:
        CallTimeout, OSError, ValueError: something could not be written.
    """
    ids = set(map(id, kept))
    for writer in incoming.writers:
        if id(writer) not in ids and not _detached(writer) and not writer.closed:
            flush_without_waiting(writer)


def succeeded(call_id: int, data: bytes, incoming: Owned, outgoing: Outgoing, kept: Sequence[object]) -> Answer:
    """The answer to a call whose method has returned.

    Args:
        call_id: of the call.
        data: the record.
        incoming: the call's arguments.
        outgoing: its results.
        kept: what its method has kept of both.

    Raises:
        ArgumentError: two files of the results would both close one number, and neither can be told not to.
    """
    end_streams(incoming, kept)
    if not (incoming.produced or outgoing.numbers):
        return Answer(call_id, data)
    arguments, results, slots = _divided(_arguments(incoming), outgoing, kept)
    return Answer(call_id, data, outgoing.numbers, arguments, results, slots, outgoing.doors)


def failed(call_id: int, data: bytes, incoming: Owned, outgoing: Outgoing, kept: Sequence[object]) -> Answer:
    """The answer to a call that has no result, of what :func:`succeeded` takes: all that it owned is an argument."""
    end_streams(incoming, kept)
    owned = [*_arguments(incoming), *(file for file in outgoing.files if file is not None)]
    if kept or outgoing.files:
        # No class of the method's own is asked for its number.
        numbered = [(file, number_of_known(file)) for file in owned]
        left, _ = closed_once(_without(numbered, set(map(id, kept)), fails=True), closers_in(kept))
        owned = [file for file, _ in left]
    return Answer(call_id, data, arguments=[_unwritten(file) for file in owned])


def without_kept(owned: Owned, kept: Sequence[object]) -> Owned:
    """What a call owned, without what was kept of it; the same object."""
    if kept:
        ids = set(map(id, kept))
        owned.produced = [file for file in owned.produced if not _is_kept(file, ids)]
        owned.writers = [writer for writer in owned.writers if not _is_kept(writer, ids)]
        owned.streams = [stream for stream in owned.streams if id(stream) not in ids]
    return owned


def end_streams(owned: Owned, kept: Sequence[object]) -> None:
    """Closes the streams that are a call's arguments, but for those that were kept; that waits for nobody."""
    for stream in without_kept(owned, kept).streams if owned.streams else ():
        end_with_call(stream)


def unwritten(owned: Owned) -> Sequence[ClosableFile]:
    """What a call owned, to be closed without writing what is left in buffers."""
    return [_unwritten(file) for file in _arguments(owned)]


def _arguments(incoming: Owned) -> Sequence[ClosableFile]:
    """The arguments of a call, wherever their descriptors have moved: what a method detaches is the call's still."""
    if not incoming.raws:
        return incoming.produced
    return [incoming.raws[id(file)] if _detached(file) else file for file in incoming.produced]


def _detached(file: Any) -> bool:
    """Whether it is a buffer that stands on nothing any more."""
    return isinstance(file, (io.BufferedReader, io.BufferedWriter)) and raw_of(file) is None


def _divided(
    arguments: Sequence[ClosableFile], outgoing: Outgoing, kept: Sequence[object]
) -> tuple[Sequence[ClosableFile], list[ClosableFile], list[int]]:
    """The arguments that are arguments only, all else that has a number that is sent, and the slots of what is kept."""
    # A door's client end has a number, and no file that is the call's.
    results = [file for file in outgoing.files if file is not None]
    if not results and not kept:
        return arguments, results, []
    same = set(map(id, results))
    rest = [file for file in arguments if id(file) not in same]
    # Of Descriptors, the commonest, in one step.
    own, sent = numbers_of(rest) or list(map(number_of_known, rest)), set(outgoing.numbers)
    if not kept and len(sent.union(own)) == len(outgoing.numbers) + len(own):
        return rest, results, []
    keepers, ids = closers_in(kept), set(map(id, kept))
    returned = [
        (slot, file, number)
        for slot, (file, number) in enumerate(zip(outgoing.files, outgoing.numbers, strict=True))
        if file is not None
    ]
    slots = [slot for slot, file, number in returned if number in keepers or _is_kept(file, ids)]
    owned = [*zip(rest, own, strict=True), *((file, number) for _, file, number in returned)]
    left, clash = closed_once(_without(owned, ids, fails=False), keepers)
    if clash:
        raise ArgumentError(
            "a file in the result was made of the number of another file, and both would close it: return or keep that "
            "file itself, or make this one with closefd=False"
        )
    return (
        [file for file, number in left if number not in sent],
        [file for file, number in left if number in sent],
        slots,
    )


def _is_kept(file: object, ids: set[int]) -> bool:
    return not ids.isdisjoint(map(id, layers_of(file)))


def _without(
    owned: Sequence[tuple[ClosableFile, int]], ids: set[int], *, fails: bool
) -> Sequence[tuple[ClosableFile, int]]:
    """Those files of which nothing was kept, and what lets go of what was, which has no number to close."""
    if not ids:
        return owned
    rest: list[tuple[ClosableFile, int]] = []
    for file, number in owned:
        if not _is_kept(file, ids):
            rest.append((file, number))
        elif id(file) not in ids:
            rest += [(one, -1) for one in let_go(file, ids, fails=fails)]
    return rest


def _unwritten(file: ClosableFile) -> ClosableFile:
    return _Unwritten(file) if isinstance(file, io.BufferedWriter) else file


class _Unwritten:
    """A file of a failed call: its buffer is dropped, since a pipe that nobody reads would block for ever."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self._file = file

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        # The file counts as closed then, and flushes no more.
        self._file.raw.close()
