"""``capmarshal.aio``: what importing it needs."""

import subprocess
import sys

import pytest

from capmarshal import aio
from loops import LOOPS, each_loop
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
    assert (ended.stdout, ended.stderr) == ("capmarshal.aio needs anyio: pip install 'anyio>=4.7'\n", "")


@pytest.mark.parametrize("name", aio.__all__)
def test_what_is_public_says_where_it_is_to_be_had(name):
    """As the names of capmarshal itself."""
    assert getattr(aio, name).__module__ == "capmarshal.aio"
    assert getattr(aio, name).__doc__


IN_A_SANDBOX = """
import sys
import anyio
import capmarshal as cm
from capmarshal import aio

class Adder(cm.Interface):
    @cm.method
    def add(self, a: int, b: int) -> int: ...

class AsyncAdder(cm.Interface):
    add = cm.awaitable(Adder.add)

class AdderServer(AsyncAdder):
    async def add(self, a, b):
        return a + b

async def main():
    before = {*sys.modules}
    async with aio.Entrypoint("adder") as entrypoint:
        with cm.timeout(30):
            capability = entrypoint.manage(AdderServer())
            assert await capability.cast(AsyncAdder, timeout=20).add(1, 2) == 3
            process = await aio.spawn(["true"], parent=capability)
            assert await process.wait() == 0
    print(*{*sys.modules} - before)

anyio.run(main, **%r)
"""


@each_loop
def test_what_is_imported_is_all_that_is_needed(loop):
    """Whoever serves, calls and spawns may be in a sandbox by then, where no file can be opened."""
    program = IN_A_SANDBOX % LOOPS[loop]
    ended = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", program], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (ended.stdout, ended.stderr) == ("\n", "")


def test_what_is_the_same_in_event_loops_is_looked_for_in_the_package():
    """And what is nowhere is not promised."""
    with pytest.raises(AttributeError, match=r"attribute 'timeout': that is capmarshal\.timeout, also in event loops$"):
        _ = aio.timeout
    with pytest.raises(AttributeError, match=r"^module 'capmarshal.aio' has no attribute 'Server'$"):
        _ = aio.Server
