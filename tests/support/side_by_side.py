"""Many runs of pytest, twice as many beside each other as there are processors, for root; ``make test`` is these.

Most of what a test does is to wait for another process, so a run needs less than half a processor.  A run has a part of
the test files (``--part=1/4``), or those that are named, in the colours of a pair (client:server, see ``matrix``).
Parts are small, so that none is left to run alone in the end, and the longest runs: they come first.

    python tests/support/side_by_side.py --parts=12 -- -k name
    python tests/support/side_by_side.py --pair=asyncio:trio --pair=trio:trio tests/test_death.py -- -k name
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import shlex
import subprocess
import sys
import typing
from pathlib import Path

# pytest's, where none of a run's tests was selected.
_NO_TESTS = 5
# Where it begins to say what failed; and lines of a failed run that are printed again at the end.
_REPORT = re.compile("=+ (FAILURES|ERRORS) =+$")
_REPORTED = 150


def add_options(parser):
    """--part: which of the files a run has."""
    parser.addoption("--part", default="1/1", help="the part of the test files that is run: 2/4 is the second of four")


def ignore(collection_path, config):
    """Whether a file is not even read: it is another part's, and was not named."""
    named = config.args_source is config.ArgsSource.ARGS
    return True if not named and not _is_mine(collection_path, config) else None


def select(config, items):
    """Leaves out the files that are another part's, whatever order the tests are in."""
    if _part(config)[1] > 1 and (seed := config.getoption("randomly_seed", None)) is not None:
        # pytest -q has no header, which would say it.
        run = shlex.join([*config.invocation_params.args, f"--randomly-seed={seed}"])
        config.get_terminal_writer().line(f"this run again: {run}")
    mine = {path: _is_mine(path, config) for path in {item.path for item in items}}
    config.hook.pytest_deselected(items=[item for item in items if not mine[item.path]])
    items[:] = [item for item in items if mine[item.path]]


def _part(config):
    """Which one, of how many."""
    return tuple(map(int, config.getoption("part").split("/")))


def _is_mine(path, config):
    part, parts = _part(config)
    files = sorted(path.parent.glob("test_*.py"))
    # What is none, such as a directory, is everybody's.
    return path not in files or files.index(path) % parts == part - 1


def main():
    """Starts the runs, prints each line of theirs with the run's name, and says which failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=0, help="the suite in so many parts, client and server blocking")
    parser.add_argument("--pair", action="append", default=[], help="colours of client and server: a run for each pair")
    parser.add_argument("files", nargs="*", help="test files of the runs in pairs of colours; none: all")
    own = sys.argv[1:]
    ours, theirs = (own[: own.index("--")], own[own.index("--") + 1 :]) if "--" in own else (own, [])
    options = parser.parse_args(ours)
    runs = {f"{part}/{options.parts}": [f"--part={part}/{options.parts}"] for part in range(1, options.parts + 1)}
    for pair in options.pair:
        client, server = pair.split(":")
        runs[pair] = [f"--client={client}", f"--server={server}", *options.files]
    # The kernel counts what is in flight by user, root excepted, and some tests fill that: it is one's alone then.
    beside = 2 * len(os.sched_getaffinity(0)) if os.getuid() == 0 else 1
    with concurrent.futures.ThreadPoolExecutor(beside) as threads:
        ended = dict(zip(runs, threads.map(_run, runs, [[*run, *theirs] for run in runs.values()]), strict=True))
    failed = {name: run for name, run in ended.items() if run.status not in (0, _NO_TESTS)}
    for name, run in failed.items():
        # Again: what has failed stands far above what the others printed, and a log may keep its end alone.
        print(f"\n{name} failed: {' '.join(runs[name])}", *run.reported[-_REPORTED:], sep="\n")
    statuses = ", ".join(f"{name} (status {run.status})" for name, run in failed.items())
    print(f"{len(runs)} runs;", f"failed: {statuses}" if failed else "all passed")
    return 1 if failed else 0


class _Ended(typing.NamedTuple):
    """A run that is over: its status, and the lines from where it began to report failures, or all."""

    status: int
    reported: list[str]


def _run(name, arguments):
    """Runs pytest, prints what it prints, and returns how it ended."""
    # Not python -m pytest, which would have the checkout on the path, and test that.
    command = [Path(sys.executable).with_name("pytest"), "-q", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as run:
        reported, reports = [], False
        for line in run.stdout:
            if not reports and _REPORT.match(line):
                reported, reports = [], True
            reported.append(line.rstrip())
            # One write: another run's line may come beside it.
            sys.stdout.write(f"{name:>17} | {line}")
            sys.stdout.flush()
    return _Ended(run.returncode, reported)


if __name__ == "__main__":
    sys.exit(main())
