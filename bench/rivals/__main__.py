"""Serves one peer: ``python -m bench.rivals NAME DIRECTORY``, until its standard input ends."""

from __future__ import annotations

import sys

from bench import rivals

if __name__ == "__main__":
    rivals.serve(*sys.argv[1:])
