"""``capmarshal.aio``: what importing it needs."""

import subprocess
import sys

from patience import PATIENCE

WITHOUT_ANYIO = """
import sys
sys.modules["anyio"] = None
try:
    import capmarshal.aio
except ImportError as error:
    print(error)
"""


def test_without_anyio_it_says_what_to_install():
    """And not which module of somebody else's is missing."""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_ANYIO], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (ended.stdout, ended.stderr) == ("capmarshal.aio needs anyio: pip install 'capmarshal[async]'\n", "")
