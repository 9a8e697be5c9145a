"""Handing over bytes (64 B to 1 GiB) and descriptors (0 to 4,096), beside Python's own modules and C."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import capmarshal as cm
from bench import c_program, contenders, processes
from bench.charts import line_chart
from bench.contenders import look_at_descriptors
from bench.figures import in_words
from bench.measuring import Goal, Report, Work, checked, often
from bench.processes import Cores
from bench.server import DESCRIPTORS_MAX, INLINE_MAX, by_hand, served

TAKES, ROUNDS = "150 s", 9
_KIB, _MIB = 1 << 10, 1 << 20

# 64 B to 1 GiB.  Every fourth power of two, so that 1 KiB is among them.
_AMOUNTS = {
    "bytes": [1 << power for power in range(6, 31, 2)],
    "descriptors": [0, 1, 4, 16, 64, 253, 1024, DESCRIPTORS_MAX],
}
_QUICK_AMOUNTS = {"bytes": [64, _KIB, 256 * _KIB, _MIB], "descriptors": [0, 1, 300]}
# In one measurement: at most so many hand-overs, and so many bytes or descriptors.
_REPEATS, _ENOUGH = 100, {"bytes": 16 << 20, "descriptors": 4096}

_INLINE, _DATASPACE, _CAPMARSHAL = "capmarshal, inline", "capmarshal, Dataspace", "capmarshal"
_SEND_FDS, _CONNECTION, _DUP_FD = "socket.send_fds", "multiprocessing.Connection", "multiprocessing.reduction.DupFd"
_C = "C"
# DupFd fetches each one over a connection of its own: a thousand would take as long as all the rest.
_DUPS_MAX = 256
# Who hands over no more than this, and why.
_COPIES = INLINE_MAX, f"copying more than {in_words(INLINE_MAX, 'byte')} is not measured"
_MOST = {("bytes", name): _COPIES for name in (_INLINE, _SEND_FDS, _CONNECTION, _C)} | {
    ("bytes", _DUP_FD): (-1, "hands over no bytes"),
    ("descriptors", _CONNECTION): (-1, "hands over no descriptors but by DupFd"),
    ("descriptors", _DUP_FD): (_DUPS_MAX, f"too slow for more than {_DUPS_MAX}"),
}
# Of bytes by value against Connection.send_bytes.
_TARGETS = {_MIB: 1.0, 16 * _MIB: 1.0}

# What is handed over by value is a pattern, whose period is no power of two: the last byte of each size is another one.
_PATTERN = bytes(range(251))


def _dataspace(data: memoryview, size: int) -> cm.Dataspace:
    made = cm.Dataspace.create(size)
    for start in range(0, size, len(data)):
        made.write(data[: min(len(data), size - start)], start)
    made.seal()
    return made


def _amount(task: str, amount: int) -> str:
    return in_words(amount, "byte") if task == "bytes" else f"{amount:,}"


def _at(cores: Cores, amounts: Mapping[str, Sequence[int]]) -> Iterator[Work]:
    """Both tasks at one place."""
    with contextlib.ExitStack() as stack:
        works = stack.enter_context(served(cores))
        stream = stack.enter_context(by_hand(works, contenders.Stream)).hand_over
        connection = stack.enter_context(by_hand(works, contenders.ConnectionBytes)).hand_over
        dup_fds = stack.enter_context(by_hand(works, contenders.ConnectionObjects)).hand_descriptors
        # All of them hand over the same, which is made once: bytes; and a file each, as somebody would have.
        sizes = amounts["bytes"]
        data = memoryview(_PATTERN * (min(max(sizes), INLINE_MAX) // len(_PATTERN) + 1))
        dataspaces = {size: stack.enter_context(contextlib.closing(_dataspace(data, size))) for size in sizes}
        made = (os.memfd_create("transfer") for _ in range(max(amounts["descriptors"])))
        files = [stack.enter_context(cm.Descriptor(number)) for number in made]
        numbers = [file.fileno() for file in files]
        # By task and name, whoever hands over in Python: how, and what of so many.
        ways: dict[tuple[str, str], tuple[Callable[..., object], Callable[[int], object]]] = {
            ("bytes", _INLINE): (works.take_bytes, lambda size: data[:size]),
            ("bytes", _DATASPACE): (works.take_dataspace, lambda size: dataspaces[size]),
            ("bytes", _SEND_FDS): (stream, lambda size: data[:size]),
            ("bytes", _CONNECTION): (connection, lambda size: data[:size]),
            ("descriptors", _CAPMARSHAL): (works.take_descriptors, lambda count: files[:count]),
            ("descriptors", _SEND_FDS): (partial(stream, b""), lambda count: numbers[:count]),
            ("descriptors", _DUP_FD): (dup_fds, lambda count: numbers[:count]),
        }

        def timed(task: str, name: str, amount: int) -> Callable[[], float]:
            # So often that it takes some milliseconds at least.
            repeats = _REPEATS if name == _DATASPACE else max(1, min(_REPEATS, _ENOUGH[task] // max(amount, 1)))
            if name == _C:
                load = (amount, 0) if task == "bytes" else (0, amount)
                return partial(c_program.hand_over, *load, repeats, cores)
            take, lend = ways[task, name]
            last = (amount - 1) % len(_PATTERN)
            arrived = (amount, last) if task == "bytes" else look_at_descriptors(numbers[:amount])
            # The peers close before they answer.
            settle = partial(works.use, "settle") if name.startswith(_CAPMARSHAL) else None
            return partial(often, checked(take, (lend(amount),), arrived), repeats, settle)

        for task, amount in ((task, amount) for task, of_task in amounts.items() for amount in of_task):
            everybody = [*(name for of, name in ways if of == task), _C]
            able = [name for name in everybody if amount <= _MOST.get((task, name), (amount, ""))[0]]
            goals = [Goal(name, _C) for name in able if name != _C]
            if task == "bytes" and amount in _TARGETS:
                goals.append(Goal(_INLINE, _CONNECTION, _TARGETS[amount]))
            contending = {name: timed(task, name, amount) for name in able}
            yield Work(cores.named(f"{task}, {_amount(task, amount)}"), cores, contending, goals)
        pair = [(f"{_DATASPACE}, {_amount('bytes', size)}", size) for size in (max(sizes), _KIB)]
        contending = {name: timed("bytes", _DATASPACE, size) for name, size in pair}
        yield Work(cores.named("the largest Dataspace"), cores, contending, [Goal(pair[0][0], pair[1][0])])


def run(report: Report) -> Iterator[Work]:
    amounts = _QUICK_AMOUNTS if report.quick else _AMOUNTS
    # Twice: what the receiver closes late is the second time.
    processes.make_room(2 * max(amounts["descriptors"]))
    limits = [(f"{task}: {name}: {why}", most < max(amounts[task])) for (task, name), (most, why) in _MOST.items()]
    report.notes += [words for words, reached in limits if reached]
    for cores in processes.places():
        yield from _at(cores, amounts)
    # The first ones are on one core.
    measured = iter(report.works)
    for task, of_task in amounts.items():
        report.pictures[f"transfer-{task}.svg"] = line_chart(
            f"Handing over {task}, on one core: time until the receiver has answered",
            {size: _amount(task, size) for size in of_task if task != "bytes" or size.bit_length() % 4 == 3},
            {amount: next(measured).figures for amount in of_task},
        )
