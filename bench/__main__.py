"""``python -m bench``: lists the benchmarks, or runs some."""

import argparse
import importlib
import sys
from pathlib import Path

from bench import counting, figures
from bench.measuring import Benchmark, Report
from bench.processes import places

# By module of this package, whose functions they are.
_BENCHMARKS = {
    "calls": ["call", "descriptors", "capability", "polling"],
    "awaited": ["awaited", "items"],
    "peers": ["peers"],
    "bridge": ["bridge"],
    "payloads": ["transfer", "arrays"],
    "upkeep": ["crowd", "memory", "imports", "inspect"],
}
_MODULES = {name: module for module, names in _BENCHMARKS.items() for name in names}


def _benchmark(name: str) -> Benchmark:
    found: Benchmark = getattr(importlib.import_module(f"bench.{_MODULES[name]}"), name)
    return found


def _list() -> None:
    print("python -m bench NAME... | all   (--help: options)\n")
    for name in _MODULES:
        print(f"  {name:12} {_benchmark(name).takes:>7}  {_benchmark(name).words}")
    print("\npython -m bench.neighbours [NAME=PYTHON ...]: what an honest client pays for its neighbour (5 min)")


def _rounds(text: str) -> int:
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError("two rounds at least: a spread needs as many")
    return value


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="What capmarshal costs.  Without a name: lists the benchmarks."
    )
    parser.add_argument("names", nargs="*", choices=[*_MODULES, "all", []], metavar="NAME", help="which, or all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add all figures to a pyperf suite")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="draw the charts of those that have one")
    parser.add_argument("--rounds", type=_rounds, default=0, metavar="N", help="measure each so often")
    parser.add_argument("--count", action="store_true", help="count instructions of call and descriptors instead")
    parser.add_argument("--quick", action="store_true", help="tiny counts: whether it works, not how fast")
    return parser.parse_args()


def main() -> None:
    options = _parse()
    if not options.names:
        _list()
        return
    names = list(_MODULES) if "all" in options.names else list(dict.fromkeys(options.names))
    print(figures.conditions_in_words())
    if options.count:
        counting.show(counting.count(names, quick=options.quick))
        return
    print("median (lower - upper quartile) over the rounds; ratios are taken within a round")
    if options.quick:
        print("--quick: these figures say only that it works")
    if len(places()) == 1:
        print("two cores: skipped, since this process may use only one")
    for name in names:
        sys.stdout.flush()
        report = Report(options.quick)
        _benchmark(name).measure(report, options.rounds)
        figures.show(name, report)
        # After each: what is done is kept, whatever happens to the next.
        if options.json:
            figures.keep(name, report, options.json)
        if options.svg:
            options.svg.mkdir(parents=True, exist_ok=True)
            for file, picture in report.pictures.items():
                Path(options.svg, file).write_text(picture)


if __name__ == "__main__":
    main()
