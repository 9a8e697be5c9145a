"""Serves one peer: ``python -m bench.rivals NAME DIRECTORY``, until its standard input ends."""

import sys

from bench import rivals

if __name__ == "__main__":
    rivals.serve(*sys.argv[1:])
