"""What docs/async.md shows works as it stands there."""

import functools
import re
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import capmarshal as cm
from capmarshal import aio
from loops import each_loop, run
from patience import PATIENCE, until
from services import failure

PAGE = (Path(__file__).parents[1] / "docs" / "async.md").read_text(encoding="utf-8")
HOST, PLUGIN, AWAITING_PLUGIN, CALLBACK, SERVICE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

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


SUBSCRIBER = """
import sys
import capmarshal as cm
from events import Events, Listener

class Mine(Listener):
    def told(self, what):
        print(what)

with cm.Entrypoint("plugin") as ep, cm.timeout(30):
    cm.parent().cast(Events).subscribe(ep.manage(Mine()).cast(Listener))
"""


@each_loop
def test_a_host_awaits_what_a_blocking_plugin_hands_in(loop, tmp_path):
    """The methods that the page has declared by hand; and the twin that stands in their place is refused."""
    (tmp_path / "events.py").write_text(CALLBACK, encoding="utf-8")
    scope = {"__name__": "events"}
    exec(CALLBACK, scope)
    twin = type("Twin", (cm.Interface,), {"subscribe": cm.awaitable(scope["Events"].subscribe)})
    wrong = type("Server", (twin,), {"subscribe": scope["EventsServer"].subscribe})

    async def main():
        async with aio.Entrypoint("host") as entrypoint:
            with pytest.raises(cm.InterfaceError, match=r"calls of Listener block"):
                entrypoint.manage(wrong())
            command = [sys.executable, "-W", "error", "-c", SUBSCRIBER]
            parent = entrypoint.manage(scope["EventsServer"]())
            plugin = await aio.spawn(command, parent=parent, cwd=tmp_path, stdout=subprocess.PIPE)
            async with plugin:
                with anyio.fail_after(PATIENCE):
                    printed = b"".join([part async for part in plugin.stdout])
                    return await plugin.wait(), printed

    assert run(loop, main) == (0, b"welcome\n")


CLIENT = """
import capmarshal as cm

class Greeter(cm.Interface):
    @cm.method
    def greet(self, name: str) -> str: ...

print(cm.connect("greeter.sock", timeout=10).cast(Greeter, timeout=10).greet("world"))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_serves_until_a_signal_comes(tmp_path, number):
    """It ends well, and its socket's file goes."""
    (tmp_path / "service.py").write_text(SERVICE, encoding="utf-8")
    # Ignored, where the tests run in a shell's background.
    as_by_hand = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-W", "error", "service.py"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, preexec_fn=as_by_hand) as running:
        try:
            until(lambda: failure(tmp_path / "greeter.sock")[0] != "Disconnected")
            client = [sys.executable, "-W", "error", "-c", CLIENT]
            done = subprocess.run(client, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert (done.stdout, done.stderr) == ("Hello, world\n", "")
            running.send_signal(number)
            assert (running.wait(PATIENCE), running.stderr.read()) == (0, b"")
        finally:
            running.kill()
    assert not (tmp_path / "greeter.sock").exists()
