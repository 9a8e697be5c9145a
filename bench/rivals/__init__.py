"""The peers that capmarshal is compared with, each used as its own documentation recommends.

One module a peer, all doing the same work: ``add(a, b)``, and where the peer can a descriptor, from one process to a
server in another over a local transport.  __main__.py beside this file runs a server.
"""

from __future__ import annotations

# In the order in which they are listed: by hand, then the standard library, then what others made.
NAMES = ("by_hand", "connection", "managers", "rpyc_unix", "pyro", "zeromq", "dbus", "jeepney_blocking", "capnproto")
