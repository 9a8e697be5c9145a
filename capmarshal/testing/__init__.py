"""For tests of what you serve and call: a server and a proxy of it, servers that fail, and nothing left open.

Needs no test framework; ``pytest_plugins = ["capmarshal.testing.plugin"]`` has a fixture for pytest.  docs/testing.md
has examples.
"""

from capmarshal._testing.leaks import Leaked, no_leaks, open_descriptors
from capmarshal._testing.pairs import Pair, pair
from capmarshal._testing.peer import Peer, served_in_process

__all__ = ["Leaked", "Pair", "Peer", "no_leaks", "open_descriptors", "pair", "served_in_process"]

for _name in __all__:
    # Where it is to be had, not where it is written.
    globals()[_name].__module__ = __name__
del _name
