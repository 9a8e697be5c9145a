"""The contenders of the benchmark `transfer`: who hands what over, and how much at most."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from typing import TYPE_CHECKING, NamedTuple

from bench import c_programs, handover, serving, tables
from bench.goods import Goods
from bench.sink import DESCRIPTORS_MAX, INLINE_MAX, Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bench.places import Cores

    # (amount, how often, where) -> seconds for one
    Measure = Callable[[int, int, Cores], float]

INLINE, DATASPACE, CAPMARSHAL = "capmarshal, inline", "capmarshal, Dataspace", "capmarshal"
SEND_FDS, CONNECTION, DUP_FD = "socket.send_fds", "multiprocessing.Connection", "multiprocessing.reduction.DupFd"
C = "C"
_GIB = 1 << 30

# DupFd fetches each one over a connection of its own: a thousand would take as long as all the rest.
_DUPS_MAX = 256


class Contender(NamedTuple):
    """Somebody who hands over; with the largest amount that he is asked for, and why no larger one.

    Attributes:
        measure: None where he cannot at all.
    """

    name: str
    measure: Measure | None
    largest: int
    why: str = ""


def _often(
    hand_over: Callable[[], tuple[int, int]], expected: tuple[int, int], repeats: int, settle: Callable[[], None]
) -> float:
    """Seconds for one, with the closing of all that arrived; each answer is checked."""
    for times in (repeats // 10 + 1, repeats):
        begin = time.perf_counter_ns()
        for _ in range(times):
            if hand_over() != expected:
                raise SystemExit("something else arrived than was sent")
        settle()
    return (time.perf_counter_ns() - begin) / repeats / 1e9


def _nothing_to_settle() -> None:
    """The peers close before they answer."""


class _Capmarshal:
    """Hands over by calls of a :class:`Sink`."""

    def __init__(self, sink: Sink, goods: Goods) -> None:
        self._sink = sink
        self._goods = goods

    def inline(self, size: int, repeats: int, cores: Cores) -> float:
        """Bytes by value."""
        take, data = self._begin(cores).take_bytes, self._goods.data[:size]
        seen = handover.look_at_bytes(data)
        return _often(lambda: take(data), seen, repeats, self._sink.settle)  # type: ignore[arg-type]  # any buffer may be

    def dataspace(self, size: int, repeats: int, cores: Cores) -> float:
        """Bytes as a dataspace, of which the other side reads the last one."""
        take, data = self._begin(cores).take_dataspace, self._goods.dataspace(size)
        with data.view() as view:
            expected = handover.look_at_bytes(view)
        return _often(lambda: take(data), expected, repeats, self._sink.settle)

    def descriptors(self, count: int, repeats: int, cores: Cores) -> float:
        """Descriptors."""
        take, descriptors = self._begin(cores).take_descriptors, self._goods.descriptors[:count]
        expected = handover.look_at_descriptors(self._goods.numbers[:count])
        return _often(lambda: take(descriptors), expected, repeats, self._sink.settle)

    def _begin(self, cores: Cores) -> Sink:
        serving.place(self._sink, cores)
        return self._sink


class _PythonPeer:
    """Hands over by one of :mod:`handover`, to a thread of the same server."""

    def __init__(self, peer: handover.Peer, sink: Sink, goods: Goods) -> None:
        self._peer = peer
        self._sink = sink
        self._goods = goods

    def bytes(self, size: int, repeats: int, cores: Cores) -> float:
        """Bytes by value."""
        serving.place(self._sink, cores)
        data = self._goods.data[:size]
        return _often(lambda: self._peer.hand_bytes(data), handover.look_at_bytes(data), repeats, _nothing_to_settle)

    def descriptors(self, count: int, repeats: int, cores: Cores) -> float:
        """Descriptors."""
        serving.place(self._sink, cores)
        numbers = self._goods.numbers[:count]
        expected = handover.look_at_descriptors(numbers)
        return _often(lambda: self._peer.hand_descriptors(numbers), expected, repeats, _nothing_to_settle)


def _measure_c(program: Path, task: str) -> Measure:
    def measure(amount: int, repeats: int, cores: Cores) -> float:
        arguments = (amount, repeats, cores.client, cores.server)
        return float(c_programs.run(program, task, *map(str, arguments))) / 1e9

    return measure


@contextlib.contextmanager
def contenders(sizes: Sequence[int], counts: Sequence[int]) -> Iterator[dict[str, list[Contender]]]:
    """By task, all who are to be measured; C is the last of each."""
    with contextlib.ExitStack() as stack:
        program = stack.enter_context(c_programs.compiled("transfer"))
        sink = stack.enter_context(serving.served("sink")).cast(Sink)
        sink.share_password(bytes(multiprocessing.current_process().authkey))
        goods = Goods(sizes, min(max(sizes), INLINE_MAX), max(counts))
        stack.callback(goods.close)
        capmarshal = _Capmarshal(sink, goods)

        def peer(name: str) -> _PythonPeer:
            made = handover.PEERS[name](stack.enter_context(serving.served_by_hand(sink, name)))
            stack.callback(made.close)
            return _PythonPeer(made, sink, goods)

        send_fds = peer(SEND_FDS)
        copied = f"copying more than {tables.size(INLINE_MAX)} is not measured"
        yield {
            "bytes": [
                Contender(INLINE, capmarshal.inline, INLINE_MAX, copied),
                Contender(DATASPACE, capmarshal.dataspace, _GIB),
                Contender(SEND_FDS, send_fds.bytes, INLINE_MAX, copied),
                Contender(CONNECTION, peer(CONNECTION).bytes, INLINE_MAX, copied),
                Contender(DUP_FD, None, -1, "hands over no bytes"),
                Contender(C, _measure_c(program, "bytes"), INLINE_MAX, copied),
            ],
            "descriptors": [
                Contender(CAPMARSHAL, capmarshal.descriptors, DESCRIPTORS_MAX),
                Contender(SEND_FDS, send_fds.descriptors, DESCRIPTORS_MAX),
                Contender(CONNECTION, None, -1, "hands over no descriptors but by DupFd"),
                Contender(DUP_FD, peer(DUP_FD).descriptors, _DUPS_MAX, f"too slow for more than {_DUPS_MAX}"),
                Contender(C, _measure_c(program, "descriptors"), DESCRIPTORS_MAX),
            ],
        }
