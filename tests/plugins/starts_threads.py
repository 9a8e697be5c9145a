"""Starts threads, until none is to be had."""

import threading

from host_api import Host

import capmarshal as cm

log = cm.parent().cast(Host).log()
enough = threading.Event()
started = []
try:
    while len(started) < 1000:
        started.append(threading.Thread(target=enough.wait))
        started[-1].start()
    log.write("HARM: a thousand threads")
except RuntimeError:
    del started[-1]
    log.write("refused: threads")
enough.set()
for thread in started:
    thread.join()
