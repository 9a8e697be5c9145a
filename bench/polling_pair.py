"""A client process of the benchmark `polling`: told on its standard input what to measure, it answers with seconds."""

from __future__ import annotations

import sys

from bench import serving
from bench.adder import Adder, add_often
from bench.places import Cores

if __name__ == "__main__":
    with serving.served("adder") as served:
        adder = served.cast(Adder)
        for line in sys.stdin:
            calls, client, server = map(int, line.split())
            serving.place(adder, Cores(client, server))
            print(add_often(adder.add, calls), flush=True)
