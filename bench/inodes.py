"""capmarshal's own part of the benchmark `peers`: the server that looks at descriptors, and its client."""

from __future__ import annotations

import os
import time

import capmarshal as cm
from bench import adder, serving


class Inodes(adder.Adder):
    """What is called."""

    @cm.method
    def inode(self, file: cm.Descriptor) -> int:
        """That of a file."""


class InodesServer(adder.AdderServer, Inodes):
    """Looks at files; the call closes them."""

    def inode(self, file: cm.Descriptor) -> int:
        """That of a file."""
        return os.fstat(file.fileno()).st_ino


def pass_often(inodes: Inodes, file: cm.Descriptor, calls: int) -> float:
    """Seconds for one call, after an untimed warm-up; each result is checked."""
    expected = os.fstat(file.fileno()).st_ino
    for times in (calls // 10 + 1, calls):
        begin = time.perf_counter_ns()
        for _ in range(times):
            if inodes.inode(file) != expected:
                raise SystemExit("another file came")
        inodes.settle()
        taken = time.perf_counter_ns() - begin
    return taken / calls / 1e9


if __name__ == "__main__":
    serving.serve(cm.Entrypoint("inodes"), InodesServer())
