"""Serves one peer: ``python -m bench.rivals NAME DIRECTORY``, until its standard input ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench import rivals

if __name__ == "__main__":
    name, directory = sys.argv[1:]
    # For the client, who moves this process from core to core.
    Path(directory, "pid").write_text(str(os.getpid()))
    rivals.load(name).serve(directory)
