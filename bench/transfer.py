"""What handing something over costs: time against bytes, and against descriptors, beside Python's own modules and C.

Each round measures every contender once with every amount, one after the other, so that what else the machine does
meets them all alike; a ratio is taken within its round.  README.md beside this file says how to read the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import resource
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import chart
import measuring
import peers
from measuring import Cores, Spread, at_least
from transfer_server import DESCRIPTORS_MAX, INLINE_MAX, Sink

import capmarshal as cm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    # (amount, how often, where) -> microseconds for one
    Measure = Callable[[int, int, Cores], float]

_INLINE, _DATASPACE, _CAPMARSHAL = "capmarshal, inline", "capmarshal, Dataspace", "capmarshal"
_SEND_FDS, _CONNECTION, _DUP_FD = "socket.send_fds", "multiprocessing.Connection", "multiprocessing.reduction.DupFd"
_C = "C"
# The same in both charts; no chart has two of one colour.
_COLOURS = {_INLINE: 0, _CAPMARSHAL: 0, _DATASPACE: 1, _SEND_FDS: 2, _CONNECTION: 3, _DUP_FD: 3, _C: 4}
_KIB, _GIB = 1 << 10, 1 << 30

# 64 B to 1 GiB.  Every fourth power of two, so that 1 KiB is among them.
_SIZES = [1 << power for power in range(6, 31, 2)]
_COUNTS = [0, 1, 4, 16, 64, 253, 1024, DESCRIPTORS_MAX]
_QUICK_SIZES, _QUICK_COUNTS = [64, _KIB, 256 * _KIB], [0, 1, 300]
# DupFd fetches each one over a connection of its own: a thousand would take as long as all the rest.
_DUPS_MAX = 256

# In one measurement: at most so many hand-overs, and so many bytes or descriptors.
_REPEATS, _BYTES, _DESCRIPTORS = 100, 16 << 20, 4096
# What the process needs in its table beside what it hands over.
_TABLE_SPARE = 256


class Contender(NamedTuple):
    """Somebody who hands over; with the largest amount that he is asked for, and why no larger one."""

    name: str
    measure: Measure
    largest: int
    why: str = ""


class Row(NamedTuple):
    """One contender with one amount at one place; the ratio is to C in the same round, if C was measured."""

    task: str
    contender: str
    cores: Cores
    amount: int
    microseconds: list[float]
    ratios: list[float]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "task": self.task,
            "contender": self.contender,
            "client_core": self.cores.client,
            "server_core": self.cores.server,
            "amount": self.amount,
            "microseconds": measuring.figures(self.microseconds),
            "ratio": measuring.figures(self.ratios) if self.ratios else None,
        }


class Goods:
    """What is handed over: made once, and lent to every contender.

    Args:
        size: of the largest dataspace, in bytes.
        inline: the most bytes that are handed over by value.
        count: the most descriptors.
    """

    def __init__(self, sizes: Sequence[int], inline: int, count: int) -> None:
        # A pattern whose period is no power of two: the last byte of each size is another one.
        pattern = bytes(range(251))
        self.data = memoryview(bytearray(pattern) * (inline // len(pattern) + 1))
        self._dataspaces = {size: self._make_dataspace(size) for size in sizes}
        # A file each, as somebody would have who hands over so many.
        self.descriptors = [cm.Descriptor(os.memfd_create("transfer", os.MFD_CLOEXEC)) for _ in range(count)]
        self.numbers = [descriptor.fileno() for descriptor in self.descriptors]

    def _make_dataspace(self, size: int) -> cm.Dataspace:
        made = cm.Dataspace.create(size)
        step = len(self.data)
        for start in range(0, size, step):
            made.write(self.data[: min(step, size - start)], start)
        made.seal()
        return made

    def dataspace(self, size: int) -> cm.Dataspace:
        """The one of that size."""
        return self._dataspaces[size]

    def close(self) -> None:
        """Closes all of it."""
        for dataspace in self._dataspaces.values():
            dataspace.close()
        for descriptor in self.descriptors:
            descriptor.close()


def _repeats(contender: str, task: str, amount: int) -> int:
    """How often one measurement hands over: so often that each takes some milliseconds at least."""
    if contender == _DATASPACE:
        return _REPEATS
    enough = _BYTES if task == "bytes" else _DESCRIPTORS
    return max(1, min(_REPEATS, enough // max(amount, 1)))


def _often(
    hand_over: Callable[[], tuple[int, int]], expected: tuple[int, int], repeats: int, settle: Callable[[], None]
) -> float:
    """Microseconds for one, with the closing of all that arrived; each answer is checked."""
    for times in (repeats // 10 + 1, repeats):
        begin = time.perf_counter_ns()
        for _ in range(times):
            if hand_over() != expected:
                raise SystemExit("something else arrived than was sent")
        settle()
    return (time.perf_counter_ns() - begin) / repeats / 1000


def _nothing_to_settle() -> None:
    """The peers close before they answer."""


class Capmarshal:
    """Hands over by calls of a :class:`Sink`."""

    def __init__(self, sink: Sink, goods: Goods) -> None:
        self._sink = sink
        self._goods = goods

    def inline(self, size: int, repeats: int, cores: Cores) -> float:
        """Bytes by value."""
        take, data = self._begin(cores).take_bytes, self._goods.data[:size]
        # Any buffer may stand where bytes are due.
        return _often(lambda: take(data), peers.look_at_bytes(data), repeats, self._sink.settle)  # type: ignore[arg-type]

    def dataspace(self, size: int, repeats: int, cores: Cores) -> float:
        """Bytes as a dataspace, of which the other side reads the last one."""
        take, data = self._begin(cores).take_dataspace, self._goods.dataspace(size)
        with data.view() as view:
            expected = peers.look_at_bytes(view)
        return _often(lambda: take(data), expected, repeats, self._sink.settle)

    def descriptors(self, count: int, repeats: int, cores: Cores) -> float:
        """Descriptors."""
        take, descriptors = self._begin(cores).take_descriptors, self._goods.descriptors[:count]
        expected = peers.look_at_descriptors(self._goods.numbers[:count])
        return _often(lambda: take(descriptors), expected, repeats, self._sink.settle)

    def _begin(self, cores: Cores) -> Sink:
        _place(self._sink, cores)
        return self._sink


def _place(sink: Sink, cores: Cores) -> None:
    sink.run_on(cores.server)
    measuring.run_on(cores.client)


class PythonPeer:
    """Hands over by one of :mod:`peers`, to a thread of the same server."""

    def __init__(self, name: str, sink: Sink, goods: Goods) -> None:
        self._sink = sink
        self._goods = goods
        near, far = socket.socketpair()
        with far:
            sink.serve_peer(name, far, bytes(multiprocessing.current_process().authkey))
        self._peer: peers.Peer = peers.PEERS[name](near)

    def bytes(self, size: int, repeats: int, cores: Cores) -> float:
        """Bytes by value."""
        _place(self._sink, cores)
        data = self._goods.data[:size]
        return _often(lambda: self._peer.hand_bytes(data), peers.look_at_bytes(data), repeats, _nothing_to_settle)

    def descriptors(self, count: int, repeats: int, cores: Cores) -> float:
        """Descriptors."""
        _place(self._sink, cores)
        numbers = self._goods.numbers[:count]
        expected = peers.look_at_descriptors(numbers)
        return _often(lambda: self._peer.hand_descriptors(numbers), expected, repeats, _nothing_to_settle)

    def close(self) -> None:
        """Ends it."""
        self._peer.close()


def _measure_c(program: Path, task: str) -> Measure:
    def measure(amount: int, repeats: int, cores: Cores) -> float:
        arguments = (amount, repeats, cores.client, cores.server)
        return float(measuring.run(str(program), task, *map(str, arguments))) / 1000

    return measure


@contextlib.contextmanager
def contenders(sizes: Sequence[int], counts: Sequence[int]) -> Iterator[dict[str, list[Contender]]]:
    """By task, all who are to be measured; C is the last of each."""
    with contextlib.ExitStack() as stack:
        program = measuring.compile_c("transfer.c", stack.enter_context(tempfile.TemporaryDirectory()))
        sink = stack.enter_context(measuring.served("transfer_server.py")).cast(Sink)
        inline = min(max(sizes), INLINE_MAX)
        goods = Goods(sizes, inline, max(counts))
        stack.callback(goods.close)
        capmarshal = Capmarshal(sink, goods)

        def peer(name: str) -> PythonPeer:
            made = PythonPeer(name, sink, goods)
            stack.callback(made.close)
            return made

        send_fds = peer(_SEND_FDS)
        copied = f"copying more than {_bytes(INLINE_MAX)} is not measured"
        yield {
            "bytes": [
                Contender(_INLINE, capmarshal.inline, INLINE_MAX, copied),
                Contender(_DATASPACE, capmarshal.dataspace, _GIB),
                Contender(_SEND_FDS, send_fds.bytes, INLINE_MAX, copied),
                Contender(_CONNECTION, peer(_CONNECTION).bytes, INLINE_MAX, copied),
                Contender(_DUP_FD, _never, -1, "hands over no bytes"),
                Contender(_C, _measure_c(program, "bytes"), INLINE_MAX, copied),
            ],
            "descriptors": [
                Contender(_CAPMARSHAL, capmarshal.descriptors, DESCRIPTORS_MAX),
                Contender(_SEND_FDS, send_fds.descriptors, DESCRIPTORS_MAX),
                Contender(_CONNECTION, _never, -1, "hands over no descriptors but by DupFd"),
                Contender(
                    _DUP_FD,
                    peer(_DUP_FD).descriptors,
                    _DUPS_MAX,
                    f"too slow for more than {_DUPS_MAX}",
                ),
                Contender(_C, _measure_c(program, "descriptors"), DESCRIPTORS_MAX),
            ],
        }


def _never(amount: int, repeats: int, cores: Cores) -> float:
    """What a contender cannot do is never asked for."""
    raise AssertionError(amount, repeats, cores)


def measure(task: str, of: list[Contender], amounts: Sequence[int], rounds: int, cores: Cores) -> Iterator[Row]:
    """Every contender with every amount, once per round."""
    times: dict[tuple[int, str], list[float]] = {}
    for _, amount, contender in itertools.product(range(rounds), amounts, of):
        if amount <= contender.largest:
            taken = contender.measure(amount, _repeats(contender.name, task, amount), cores)
            times.setdefault((amount, contender.name), []).append(taken)
    for (amount, name), own in times.items():
        base = times.get((amount, _C))
        yield Row(task, name, cores, amount, own, [a / b for a, b in zip(own, base, strict=True)] if base else [])


def room_in_table(count: int) -> int:
    """Makes room for so many descriptors twice, here and in the processes to come; for how many there is.

    What the receiver closes late is the second time.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + _TABLE_SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return count if soft == resource.RLIM_INFINITY else min(count, (soft - _TABLE_SPARE) // 2)


def _bytes(size: int) -> str:
    """In the largest unit that it is a multiple of."""
    for unit in ("B", "KiB", "MiB"):
        if size < _KIB or size % _KIB:
            return f"{size} {unit}"
        size //= _KIB
    return f"{size} GiB"


def _amount(task: str, amount: int) -> str:
    return _bytes(amount) if task == "bytes" else f"{amount:,}"


def _time(microseconds: float) -> str:
    for unit in ("us", "ms"):
        # Else three digits would round it to 1e+03.
        if microseconds < 999.5:
            return f"{microseconds:.3g} {unit}"
        microseconds /= 1000
    return f"{microseconds:.3g} s"


def _spread(values: Sequence[float], in_words: Callable[[float], str]) -> str:
    lower, median, upper = map(in_words, Spread.of(values))
    return f"{median:>8}  ({lower} - {upper})"


def print_tables(rows: list[Row]) -> None:
    """A table for each task and place."""
    width = max(len(row.contender) for row in rows)
    for (task, cores), of_table in itertools.groupby(rows, lambda row: (row.task, row.cores)):
        print(f"\n{f'{task}, {cores}':{width + 4}}  {'time':30}  times C")
        for amount, of_amount in itertools.groupby(of_table, lambda row: row.amount):
            print(f"  {_amount(task, amount)}")
            for row in of_amount:
                time_taken = _spread(row.microseconds, _time)
                ratio = _spread(row.ratios, "{:.3g}".format) if row.ratios else "-"
                print(f"    {row.contender:{width}}  {time_taken:30}  {ratio}")


def measure_ratio(dataspace: Measure, largest: int, rounds: int, cores: Cores) -> list[float]:
    """What the largest dataspace costs against that of 1 KiB, one right after the other, round by round."""
    return [dataspace(largest, _REPEATS, cores) / dataspace(_KIB, _REPEATS, cores) for _ in range(rounds)]


def draw(rows: list[Row], task: str, amounts: Sequence[int], conditions: dict[str, str | int], cores: Cores) -> str:
    """The chart of one task at one place."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if (row.task, row.cores) == (task, cores):
            lines.setdefault(row.contender, []).append((row.amount, statistics.median(row.microseconds)))
    if task == "bytes":
        title, ticks = "Handing over bytes", [amount for amount in amounts if amount.bit_length() % 4 == 3]
    else:
        title, ticks = "Handing over descriptors", list(amounts)
    place = "both processes on one core" if cores.client == cores.server else "a core for each process"
    return chart.line_chart(
        f"{title}: time until the receiver has answered",
        f"{conditions['kernel']}, {conditions['python']}, {conditions['cpu']}, {place}; medians",
        {amount: _amount(task, amount) for amount in ticks},
        _time,
        lines,
        _COLOURS,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What handing over bytes and descriptors costs.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="draw transfer-bytes.svg and transfer-descriptors.svg")
    parser.add_argument(
        "--rounds", type=at_least(2), metavar="N", default=9, help="how often each is measured (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="only small amounts: whether it works, not how fast")
    return parser.parse_args()


def main() -> None:
    """Measures, and reports."""
    options = _options()
    sizes, counts = (_QUICK_SIZES, _QUICK_COUNTS) if options.quick else (_SIZES, _COUNTS)
    room = room_in_table(max(counts))
    skipped = [count for count in counts if count > room]
    amounts = {"bytes": sizes, "descriptors": [count for count in counts if count <= room]}
    conditions = measuring.machine()
    places = measuring.places()
    print(measuring.in_words(conditions))
    print(f"{options.rounds} rounds; median (lower - upper quartile)", flush=True)
    rows: list[Row] = []
    ratios: dict[Cores, list[float]] = {}
    with contenders(sizes, amounts["descriptors"]) as by_task:
        for task, cores in itertools.product(by_task, places):
            rows += measure(task, by_task[task], amounts[task], options.rounds, cores)
        dataspace = next(contender.measure for contender in by_task["bytes"] if contender.name == _DATASPACE)
        for cores in places:
            ratios[cores] = measure_ratio(dataspace, max(sizes), options.rounds, cores)
        missing = [
            f"{task}: {contender.name}: {contender.why}"
            for task, of in by_task.items()
            for contender in of
            if contender.largest < max(amounts[task])
        ]

    print_tables(rows)
    print("\nnot measured")
    for line in missing:
        print(f"  {line}")
    if skipped:
        print(f"  descriptors: {skipped}: the hard limit of open files (ulimit -Hn) is too low")
    if len(places) == 1:
        print("  two cores: skipped, since this process may use only one")
    print(f"\n{_DATASPACE}: {_bytes(max(sizes))} against 1 KiB, ratio")
    for cores, values in ratios.items():
        print(f"  {cores!s:24}  {Spread.of(values)}")
    if options.json:
        report = {
            "machine": conditions,
            "settings": {"rounds": options.rounds, "quick": options.quick},
            "rows": [row.to_json() for row in rows],
            "dataspace_ratio": [
                {"client_core": cores.client, "server_core": cores.server, **measuring.figures(values)}
                for cores, values in ratios.items()
            ],
            "not_measured": missing,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.svg:
        options.svg.mkdir(parents=True, exist_ok=True)
        for task in amounts:
            picture = draw(rows, task, amounts[task], conditions, places[0])
            Path(options.svg, f"transfer-{task}.svg").write_text(picture)


if __name__ == "__main__":
    main()
