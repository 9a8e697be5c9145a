"""Inside other people's sandboxes: what they deny is done without, as client and as server."""

import contextlib
import subprocess

import pytest

import capmarshal as cm
import sandboxed
from patience import PATIENCE
from refusing import DENIED_BY_AGENTS

# All of them, and each alone.
every_call = pytest.mark.parametrize(
    "calls", [DENIED_BY_AGENTS, *((call,) for call in DENIED_BY_AGENTS)], ids=["all", *DENIED_BY_AGENTS]
)


@contextlib.contextmanager
def _hub():
    with cm.Entrypoint("hub") as entrypoint:
        server = sandboxed.HubServer(entrypoint)
        yield entrypoint.manage(server)


def _run(command, capability, **options):
    """It says that all is done, and nothing else, in any stream."""
    child = cm.spawn(
        command,
        parent=capability,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        **options,
    )
    try:
        out, _ = child.communicate(timeout=PATIENCE)
    finally:
        child.kill()
        child.wait(PATIENCE)
    assert (out, child.returncode) == ("all done\n", 0)


@pytest.mark.parametrize("when", ["before", "after"])
@every_call
def test_what_is_denied_is_done_without(calls, when, ordinary_python):
    """The deny list of a well-known sandbox for coding agents, and each call of it alone."""
    python, options = ordinary_python
    with _hub() as capability:
        _run(sandboxed.command(python, when, calls), capability, **options)
