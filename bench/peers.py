"""A typed call, and one that passes a descriptor, against what others offer for calls between processes."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial

import capmarshal as cm
from bench import CHECKOUT, places, processes, rivals, servers
from bench.charts import bar_chart
from bench.measuring import Report, Settings, Work, adding, against, checked, everywhere, measure, often
from bench.places import Cores
from bench.rivals.client import Client
from bench.servers import Works

TAKES = "40 s"
_CALLS, _QUICK_CALLS, _ROUNDS = 1000, 10, 11
_ADD, _PASS = "add(int, int)", "a descriptor, answered with its inode"
_CAPMARSHAL = "capmarshal"


@contextlib.contextmanager
def _connected(name: str) -> Iterator[tuple[Client, int]]:
    """A client of a peer, and the process of its server."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        server = subprocess.Popen(processes.command("rivals", name, directory), stdin=subprocess.PIPE, cwd=CHECKOUT)
        stack.callback(processes.end, server)
        client = rivals.connect(name, directory)
        stack.callback(client.close)
        yield client, server.pid


def run(settings: Settings) -> Report:
    """Measures both calls at each place."""
    calls = _QUICK_CALLS if settings.quick else _CALLS
    missing = {name: why for name, rival in rivals.RIVALS.items() if (why := rival.unavailable())}
    present = {name: rival for name, rival in rivals.RIVALS.items() if name not in missing}
    report = Report(notes=[f"{rivals.RIVALS[name].name}: {why}" for name, why in missing.items()])
    report.settings["loops"] = calls
    with contextlib.ExitStack() as stack:
        works = stack.enter_context(processes.served()).cast(Works)
        file = stack.enter_context(cm.Descriptor(os.memfd_create("bench", os.MFD_CLOEXEC)))
        connected = {rival.shown: stack.enter_context(_connected(name)) for name, rival in present.items()}
        clients = {shown: client for shown, (client, _) in connected.items()}
        adds = {_CAPMARSHAL: partial(often, adding(works.add), calls)}
        adds |= {shown: partial(client.add_often, calls) for shown, client in clients.items()}
        inode = checked(works.inode, (file,), os.fstat(file.fileno()).st_ino)
        passes = {_CAPMARSHAL: partial(often, inode, calls, works.settle)}
        passes |= {
            rival.shown: partial(clients[rival.shown].pass_often, file.fileno(), calls)
            for rival in present.values()
            if not rival.cannot
        }
        targets = {rival.shown: everywhere(rival.target) for rival in present.values()}
        cannot = {rival.shown: f"cannot: {rival.cannot}" for rival in present.values() if rival.cannot}

        def at(cores: Cores) -> Iterator[Work]:
            for _, server in connected.values():
                places.family_runs_on(server, cores.server)
            servers.place(works, cores)
            yield Work(_ADD, adds, against(_CAPMARSHAL, adds, targets))
            yield Work(_PASS, passes, against(_CAPMARSHAL, passes, {}), cannot)

        report.comparisons = measure(at, settings.rounds_or(_ROUNDS))
    report.pictures["peers.svg"] = bar_chart("Calls between two processes", report.comparisons)
    return report
