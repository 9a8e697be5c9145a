"""Serves one peer: ``python -m bench.peers NAME PATH``, until its standard input ends."""

import os
import sys
import threading

from bench import peers, processes

if __name__ == "__main__":
    threading.Thread(target=peers.serve, args=sys.argv[1:], daemon=True).start()
    processes.await_end()
    # Whatever the thread does then.
    os._exit(0)
