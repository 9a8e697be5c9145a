"""Counts words in what it is given, and remembers how often it has."""

from host_api import Host

import capmarshal as cm

host = cm.parent().cast(Host)
folder, store, log = host.folder(), host.store(), host.log()
runs = int(store.get("runs") or 0) + 1
store.put("runs", str(runs))
for name in folder.names():
    with folder.open(name) as file:
        log.write(f"run {runs}: {len(file.read().split())} words in {name}")
