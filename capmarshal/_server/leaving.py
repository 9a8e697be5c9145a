"""What leaves with a reply: descriptors that C closes before it is sent, and those that it sends and then closes.

So a call that is done when its method returns costs its answer no crossing of its own.  Whatever is more than that - a
descriptor that may block when it is closed, a result that is more than a descriptor - is an answer
(:mod:`capmarshal._server.answers`).
"""

from __future__ import annotations

from io import BufferedReader, FileIO
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors import reaper
from capmarshal._descriptors.closing import closes_now, closes_own_reader
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._descriptors.mounts import mounts
from capmarshal._descriptors.process import process
from capmarshal._kernel.native import DESCRIPTORS_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._kernel.native import CData
    from capmarshal._server.channels import Channels
    from capmarshal._typed.in_order import Results
    from capmarshal._typed.incoming import Owned

_NONE: list[Any] = []
_PLAIN = {Descriptor}


class Leaving:
    """The descriptors that leave with the next reply of one server.

    Args:
        turn: the ``struct cm_turn``.
        channels: whom replies go to.
    """

    def __init__(self, turn: CData, channels: Channels) -> None:
        self._turn = turn
        self._channels = channels
        self._most = min(channels.shares.max_descriptors, DESCRIPTORS_MAX)
        self._arguments = DescriptorList.with_room(DESCRIPTORS_MAX)
        self._results = DescriptorList.with_room(DESCRIPTORS_MAX)
        turn.arguments, turn.results = self._arguments.struct, self._results.struct
        # C looks into it, and nobody else may keep it by then.
        self._mounts = turn.mounts = mounts.struct
        # C does not hold the interpreter while it closes them: a child that is forked then closes what is left.
        process.lists[id(self._arguments)] = self._arguments
        process.lists[id(self._results)] = self._results

    def take(self, owned: Owned, returned: Results) -> bool:
        """Takes what a call owns, if all of it can leave with the reply; whether that is so.

        Args:
            owned: what was made of its arguments.
            returned: its results.
        """
        if owned.streams:
            return False
        arguments, (results, numbers) = owned.produced, returned
        if not results and len(arguments) == 1 and type(arguments[0]) is BufferedReader:
            # What is handed over most, by itself.
            return _closed(arguments[0], owned)
        if results:
            if len(results) > self._most:
                return False
            if arguments == results:
                # What was sent is returned.
                arguments = _NONE
            elif arguments:
                same = set(map(id, results))
                arguments = [file for file in arguments if id(file) not in same]
                if not _are_apart(arguments, owned, numbers):
                    return False
        if arguments:
            if len(arguments) > DESCRIPTORS_MAX:
                return False
            descriptors = arguments
            if not _PLAIN.issuperset(map(type, arguments)):
                descriptors = []
                for file in arguments:
                    if type(file) is Descriptor:
                        descriptors.append(file)
                    elif type(file) is not BufferedReader or not _closed(file, owned):
                        return False
        # Last: what is counted here leaves.
        if results and not self._may_send(len(results)):
            return False
        if arguments and descriptors:
            self._arguments.take_each(descriptors)
        if results:
            self._results.take_each(results, numbers)
        if self._mounts is not mounts.struct:
            self._mounts = self._turn.mounts = mounts.struct
        return True

    def _may_send(self, count: int) -> bool:
        """Whether so many results may be sent now; counts them as unread."""
        channel = self._channels.get(self._turn.slot)
        return channel is not None and self._channels.unread.send(channel, count)

    def steal(self) -> tuple[DescriptorList, DescriptorList]:
        """Moves out what has not left, arguments and results: the caller owns them."""
        return self._arguments.steal_rest(), self._steal_results()

    def steal_results(self) -> DescriptorList:
        """Moves out the results that were sent, and not closed."""
        return self._results.steal_rest()

    def _steal_results(self) -> DescriptorList:
        count = len(self._results)
        channel = self._channels.get(self._turn.taken)
        if count and channel is not None:
            self._channels.unread.not_sent(channel, count)
        return self._results.steal_rest()

    def drop(self) -> None:
        """Closes what has not left, where it is not to."""
        if self._turn.arguments.count or self._turn.results.count:
            reaper.close(self.steal())

    def close_here(self) -> None:
        """Closes it in a forked child, whose parent has the same open, so that no close is the last."""
        self._arguments.close()
        self._results.close()

    def end(self) -> None:
        """Ends with the server."""
        process.lists.pop(id(self._arguments), None)
        process.lists.pop(id(self._results), None)


def _are_apart(arguments: Sequence[Any], owned: Owned, numbers: Sequence[int]) -> bool:
    """Whether no argument has the number of a result: asked of what C closes, and of files that only read."""
    for file in arguments:
        # A method may have detached a file from the raw one.
        owner = owned.raws[id(file)] if type(file) is BufferedReader else file
        if owner is file and type(file) is not Descriptor:
            return False
        if not owner.closed and owner.fileno() in numbers:
            return False
    return True


def _closed(file: BufferedReader, owned: Owned) -> bool:
    """Closes a file that was made of an argument, where that is done on the spot."""
    # A method may have detached the two.
    raw = owned.raws[id(file)]
    if raw.closed:
        return True
    number = raw.fileno()
    # Of all that comes, a raw file of io's is made of own readers, pipes and sockets only.
    if not (type(raw) is FileIO and closes_own_reader(number)) and not closes_now(number):
        return False
    try:  # noqa: SIM105 - contextlib.suppress() costs as much as the close
        # Not the buffer's own, which would wait for whoever reads from it.
        raw.close()
    except OSError:
        pass
    return True
