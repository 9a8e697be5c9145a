"""Gives calls more than anybody wants to have."""

from host_api import Host

import capmarshal as cm

store, log = cm.parent().cast(Host).store(), cm.parent().cast(Host).log()
much = "x" * (20 << 20)
try:
    store.put(much, much)
    log.write("HARM: it was taken")
except PermissionError:
    log.write("HARM: it was decoded")
except cm.TooLarge:
    log.write("refused: 40 MiB")
