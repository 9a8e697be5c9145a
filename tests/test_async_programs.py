"""What docs/async.md shows works as it stands there."""

import functools
import inspect
import re
import signal
import socket
import subprocess
import sys

import anyio
import pytest

import capmarshal as cm
from capmarshal import aio
from documents import fenced, read
from loops import each_loop, run
from patience import PATIENCE, until
from services import failure

PAGE = read("docs/async.md")
HOST, PLUGIN, AWAITING_PLUGIN, CALLBACK, SERVICE, AWAITING_CLIENT = fenced(PAGE)

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
            for program, names in ((CLIENT, ["world"]), (AWAITING_CLIENT, ["Ada", "Barbara", "Grace"])):
                client = [sys.executable, "-W", "error", "-c", program]
                done = subprocess.run(client, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
                assert done.stderr == ""
                assert sorted(done.stdout.splitlines()) == [f"Hello, {name}" for name in names]
            running.send_signal(number)
            assert (running.wait(PATIENCE), running.stderr.read()) == (0, b"")
        finally:
            running.kill()
    assert not (tmp_path / "greeter.sock").exists()


ROWS = re.findall(r"^\| `([a-z_A-Z.]+)\(.*?\)`.*? \| (`await .*?`) \|$", PAGE, re.MULTILINE)


@each_loop
@pytest.mark.parametrize(("blocking", "awaited"), ROWS, ids=[blocking for blocking, _ in ROWS])
def test_what_blocks_is_awaited_so(loop, blocking, awaited):
    """As the table says, each to what it is for."""

    class Hello(cm.Interface):
        @cm.method
        def hello(self) -> None: ...

    class Target(Hello):
        def hello(self):
            pass

    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right, cm.Entrypoint("table") as entrypoint, cm.BufferPool(1, 100) as pool:
        target = Target()
        cap, message = entrypoint.manage(target), cm.Message(b"hello")
        names = {"anyio": anyio, "cm": cm, "sock": right, "cap": cap, "message": message, "pool": pool}
        names |= {"entrypoint": entrypoint, "target": target}
        *first, last = re.findall("`(.*?)`", awaited)
        body = "".join(f"    {line}\n" for line in [*first, f"return {last}"])
        exec(f"async def row():\n{body}", names)

        async def other_side():
            await anyio.lowlevel.checkpoint()
            if blocking == "cm.receive_capability":
                cm.send_capability(left, cap, 0)
            elif blocking == "cm.Message.receive":
                message.send(left, 0)

        async def main():
            async with anyio.create_task_group() as group:
                group.start_soon(other_side)
                return await names["row"]()

        given = run(loop, main)
        match blocking:
            case "cm.receive_capability":
                assert given is cap
            case "cm.Message.receive":
                assert given.data == b"hello"
            case "cm.send_capability":
                assert cm.receive_capability(left, 0) is cap
            case "message.send":
                assert cm.Message.receive(left, 0).data == b"hello"
            case "pool.take":
                given.close()
            case "entrypoint.dissolve":
                with pytest.raises(cm.StaleCapability):
                    cap.cast(Hello, timeout=PATIENCE).hello()
            case "entrypoint.close":
                assert entrypoint.closed
        names.clear()


def test_the_table_has_whatever_takes_a_timeout():
    """Of what the package has."""
    assert len(ROWS) == 7
    functions = [(name, getattr(cm, name)) for name in cm.__all__ if inspect.isfunction(getattr(cm, name))]
    waiting = [name for name, function in functions if "timeout" in inspect.signature(function).parameters]
    assert "connect" in waiting
    for name in waiting:
        assert f"| `cm.{name}" in PAGE, name
