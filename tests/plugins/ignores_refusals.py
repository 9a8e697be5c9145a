"""Goes on whatever it is told, and ends as if all were well."""

import contextlib

from host_api import Host

import capmarshal as cm

host = cm.parent().cast(Host)
for _ in range(10_000):
    with contextlib.suppress(PermissionError, cm.Revoked):
        host.log().write("once more")
