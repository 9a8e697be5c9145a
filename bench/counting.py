"""The instructions of one call, client and server apart, as callgrind counts them: without a clock, whoever else runs.

They are those of the processes, not of the kernel.  Each of the two runs under a callgrind of its own, which begins a
new count whenever its process calls a function of the C library that nothing else here calls.  A work is done a few
times and many times: the difference, divided, is that of one call, and what is needed once is not in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench import serving

if TYPE_CHECKING:
    from collections.abc import Sequence

CAPMARSHAL = "capmarshal"
_INSTALL = "--count needs valgrind (Debian, Ubuntu: apt install valgrind; Fedora: dnf install valgrind)"
# os.getloadavg() is this one, of the C library.
_MARK = "getloadavg"


def mark() -> None:
    """Ends one count of this process, and begins another."""
    os.getloadavg()


class Count(NamedTuple):
    """Instructions of one call."""

    client: float
    server: float


def under_callgrind(directory: str, name: str) -> list[str]:
    """What comes before a command, for its counts to be written there."""
    out = str(Path(directory, name))
    return ["valgrind", "-q", "--tool=callgrind", f"--dump-before={_MARK}", f"--callgrind-out-file={out}"]


def _totals(directory: str, name: str) -> list[int]:
    """What was counted from mark to mark."""
    found: list[int] = []
    while (file := Path(directory, f"{name}.{len(found) + 1}")).exists():
        lines = file.read_text().splitlines()
        found.append(next(int(line.split()[1]) for line in lines if line.startswith("totals:")))
    return found


def count(names: Sequence[str], *, quick: bool) -> dict[str, dict[str, Count]]:
    """By kind of work and contender, of the benchmarks of these names."""
    if shutil.which("valgrind") is None:
        raise SystemExit(_INSTALL)
    with tempfile.TemporaryDirectory() as directory:
        program = serving.command("counted", directory, "quick" if quick else "usual", *names)
        command = [*under_callgrind(directory, "client"), *program]
        # So that two runs count the same: neither the order of sets nor who is woken first is left to chance.
        environment = os.environ | {"PYTHONHASHSEED": "0", "CAPMARSHAL_POLL": "0"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise SystemExit(f"the client under callgrind ended with status {done.returncode}")
        client, server = (_totals(directory, name) for name in ("client", "server"))
    found: dict[str, dict[str, Count]] = {}
    for index, (kind, contender, few, many) in enumerate(json.loads(done.stdout)):
        once = [(side[3 * index + 2] - side[3 * index + 1]) / (many - few) for side in (client, server)]
        found.setdefault(kind, {})[contender] = Count(*once)
    return found


def print_counts(found: dict[str, dict[str, Count]]) -> None:
    """A table of each kind of work."""
    print(f"\n{'instructions of one call, without the kernel':54}{'client':>10}{'server':>10}{'both':>10}")
    for kind, counts in found.items():
        print(f"\n{kind}")
        for contender, figures in counts.items():
            print(f"  {contender:52}" + "".join(f"{figure:10,.0f}" for figure in (*figures, sum(figures))))
        own = counts[CAPMARSHAL]
        for contender, figures in counts.items():
            if contender != CAPMARSHAL:
                ratios = (a / b for a, b in zip((*own, sum(own)), (*figures, sum(figures)), strict=True))
                print(f"  {f'{CAPMARSHAL} / {contender}':52}" + "".join(f"{ratio:10.2f}" for ratio in ratios))
