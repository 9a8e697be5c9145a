"""Keeps all that it can."""

from host_api import Host

import capmarshal as cm

store = cm.parent().cast(Host).store()
for number in range(1000):
    store.put(f"key {number}", "x" * 10_000)
