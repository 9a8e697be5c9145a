"""What the documents show of ``capmarshal inspect``, made by running it: run as a program, this draws docs/inspect.svg.

Five processes: a gateway, which starts the others, a holder of keys and a log, which announce themselves to it, and two
plugins, which are given both.  The log is stopped, and what the plugins write there waits.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PICTURE = DOCS / "inspect.svg"

PROGRAMS = {
    "services.py": """
        import capmarshal as cm

        class Keys(cm.Interface):
            @cm.method
            def sign(self, line: str) -> bytes: ...

        class Log(cm.Interface):
            @cm.method
            def write(self, line: str) -> None: ...

        class Registry(cm.Interface):
            @cm.method
            def announce(self, service: cm.Capability) -> None: ...

        class Services(cm.Interface):
            @cm.method
            def keys(self) -> Keys: ...
            @cm.method
            def log(self) -> Log: ...
    """,
    "keys.py": """
        import capmarshal as cm, sys
        from services import Keys, Registry

        class KeysServer(Keys):
            def sign(self, line):
                return line.encode()

        with cm.Entrypoint("keys") as entrypoint:
            cm.parent().cast(Registry).announce(entrypoint.manage(KeysServer()))
            sys.stdin.read()
    """,
    "log.py": """
        import capmarshal as cm, sys
        from services import Log, Registry

        class LogServer(Log):
            def write(self, line):
                pass

        with cm.Entrypoint("log") as entrypoint:
            cm.parent().cast(Registry).announce(entrypoint.manage(LogServer()))
            sys.stdin.read()
    """,
    "plugin.py": """
        import capmarshal as cm, sys
        from services import Services

        services = cm.parent().cast(Services)
        keys, log = services.keys(), services.log()
        keys.sign("line")
        log.write("ready")
        print("ready", flush=True)
        sys.stdin.readline()
        log.write("working")
    """,
    "gateway.py": """
        import capmarshal as cm, contextlib, json, os, queue, signal, subprocess, sys
        from services import Keys, Log, Registry, Services

        class RegistryServer(Registry):
            def __init__(self):
                self.announced = queue.SimpleQueue()
            def announce(self, service):
                self.announced.put(service)

        class ServicesServer(Services):
            def __init__(self, keys, log):
                self.both = keys, log
            def keys(self):
                return self.both[0]
            def log(self):
                return self.both[1]

        def start(program, parent):
            streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            child = stack.enter_context(cm.spawn([sys.executable, program], parent=parent, **streams))
            stack.callback(child.kill)
            return child

        def inspect(*options):
            command = [sys.executable, "-P", "-m", "capmarshal", "inspect", str(os.getpid()), *options]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        with contextlib.ExitStack() as stack:
            gateway = stack.enter_context(cm.Entrypoint("gateway"))
            registry, services = RegistryServer(), []
            for program in ("keys.py", "log.py"):
                last = start(program, gateway.grant(registry, label=program[:-3]))
                services.append(registry.announced.get(timeout=30))
            both = ServicesServer(services[0].cast(Keys), services[1].cast(Log))
            plugins = [start("plugin.py", gateway.grant(both, label=f"plugin {number}")) for number in (1, 2)]
            for plugin in plugins:
                assert plugin.stdout.readline() == "ready\\n"
            os.kill(last.pid, signal.SIGSTOP)
            # Until it has stopped, it may yet answer.
            os.waitid(os.P_PID, last.pid, os.WSTOPPED | os.WNOWAIT)
            for plugin in plugins:
                print(file=plugin.stdin, flush=True)
            while "2 calls STUCK" not in inspect():
                pass
            print(json.dumps({form: inspect(*options) for form, options in json.loads(sys.argv[1]).items()}))
    """,
}


def inspected(**forms):
    """What the command prints with the options of each form, of those five processes."""
    with tempfile.TemporaryDirectory() as directory:
        for name, source in PROGRAMS.items():
            Path(directory, name).write_text(textwrap.dedent(source), encoding="utf-8")
        command = [sys.executable, "gateway.py", json.dumps(forms)]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


if __name__ == "__main__":
    shown = inspected(table=[], svg=["--svg"])
    PICTURE.write_text(shown["svg"], encoding="utf-8")
    print(shown["table"])
