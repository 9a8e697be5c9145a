"""Calls for as long as it is let."""

from host_api import Host

import capmarshal as cm

store, log = cm.parent().cast(Host).store(), cm.parent().cast(Host).log()
log.write("begins")
for number in range(1_000_000):
    store.get(str(number))
