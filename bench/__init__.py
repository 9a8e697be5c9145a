"""What capmarshal costs: ``python -m bench`` in a checkout lists the benchmarks.

What is measured is the *installed* capmarshal, never the checkout: ``python -m`` puts the checkout first on the path,
and importing this package takes it off again.
"""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

if sys.path and Path(sys.path[0]).resolve() == CHECKOUT:
    del sys.path[0]
