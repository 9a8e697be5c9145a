"""Serves one peer of this directory: ``python __main__.py NAME DIRECTORY``, until its standard input ends."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    name, directory = sys.argv[1:]
    # Last, so that nothing of the benchmarks is found in place of another module.
    sys.path.append(str(Path(__file__).parents[1]))
    # For the client, who moves this process from core to core.
    Path(directory, "pid").write_text(str(os.getpid()))
    importlib.import_module(f"rivals.{name}").serve(directory)
