"""What docs/async.md shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from patience import PATIENCE

PAGE = (Path(__file__).parents[1] / "docs" / "async.md").read_text(encoding="utf-8")
HOST, PLUGIN, AWAITING_PLUGIN = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

LOOPS = {
    "anyio": "sys.exit(anyio.run(main))",
    "asyncio": "import asyncio; sys.exit(asyncio.run(main()))",
    "uvloop": "import uvloop; sys.exit(uvloop.run(main()))",
    "trio": "import trio; sys.exit(trio.run(main))",
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("plugin", "printed"),
    [(PLUGIN, ["door"]), (AWAITING_PLUGIN, ["cellar", "door", "window"])],
    ids=["blocking", "awaiting"],
)
def test_the_host_serves_its_plugin(tmp_path, loop, plugin, printed):
    """In each event loop, a plugin of either colour; and the host ends as its plugin does."""
    host = re.sub(r"sys\.exit\(anyio\.run\(main\)\).*", LOOPS[loop], HOST)
    assert LOOPS[loop] in host
    (tmp_path / "host.py").write_text(host, encoding="utf-8")
    (tmp_path / "plugin.py").write_text(plugin, encoding="utf-8")
    command = [sys.executable, "-W", "error", "host.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    assert sorted(done.stdout.splitlines()) == [f"{name} is there" for name in printed]
