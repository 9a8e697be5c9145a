"""Serves one peer: ``python -m bench.peers NAME PATH``, until its standard input ends."""

import sys

from bench import peers
from bench.peers.client import end_with_input

if __name__ == "__main__":
    end_with_input()
    peers.serve(*sys.argv[1:])
