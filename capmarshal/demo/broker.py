"""The broker: the parent of both, who hands the server's capability on to the client.

It lets neither child see Ctrl-C, but ends both when it does itself: so a terminal shows no traceback, whatever
they were waiting for.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import capmarshal as cm
from capmarshal.demo import holders
from capmarshal.demo.complaints import complain, show
from capmarshal.demo.interfaces import Digest, Registry, Services

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# -P: where the files are, there may also be a hashlib.py.
SERVER = (sys.executable, "-P", "-m", "capmarshal.demo.server")
CLIENT = (sys.executable, "-P", "-m", "capmarshal.demo.client")

# Seconds from the server's death until the broker takes note, if it had not announced itself.
_GLANCE = 0.05


class RegistryServer(Registry):
    """What the digest server holds.

    Attributes:
        announced: the service, when there is one.
    """

    def __init__(self) -> None:
        self.announced: SimpleQueue[Digest] = SimpleQueue()

    def announce(self, digest: Digest) -> None:
        """See :meth:`Registry.announce`."""
        self.announced.put(digest)


class ServicesServer(Services):
    """What the client holds.

    Args:
        digest: the service to hand on.
        processes: name -> process ID, of those whose descriptors are to be shown at the end.

    Attributes:
        processes: as given.
    """

    def __init__(self, digest: Digest, processes: dict[str, int]) -> None:
        self._digest = digest
        self.processes = processes

    def digest(self) -> Digest:
        """See :meth:`Services.digest`."""
        return self._digest

    def done(self) -> None:
        """See :meth:`Services.done`."""
        if self.processes:
            held = {"broker": cm.capability(self), "digest": cm.capability(self._digest)}
            show(holders.table(self.processes, held))


@contextlib.contextmanager
def _child(command: Sequence[str], parent: cm.Capability, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A child process that ends with the block at the latest."""
    with contextlib.ExitStack() as end:
        # The child inherits the mask: before it has installed a handler, it would answer Ctrl-C with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = cm.spawn(command, parent=parent, **options)
            end.callback(process.wait)
            # Neither child has anything that would need a farewell.
            end.callback(process.kill)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield process


def _inherited(files: Sequence[str]) -> list[int]:
    """The descriptors that are named among the files, as a shell's ``<(command)`` is, and that this process inherited.

    Its own are not inheritable.
    """
    named = [re.fullmatch(r"/(?:dev|proc/self)/fd/([0-9]{1,9})", name) for name in files]
    numbers = {int(match[1]) for match in named if match is not None}
    found = []
    for number in sorted(numbers):
        with contextlib.suppress(OSError):
            if os.get_inheritable(number):
                found.append(number)
    return found


def _outcome(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"


def _announced(registry: RegistryServer, running: subprocess.Popen[Any]) -> Digest | None:
    """The service that the registry is given; None where the process that is to give it has ended before."""
    # A queue, not an event: what Ctrl-C raises while that is waited for becomes an error of the lock within.
    # Not `while CONDITION`: what Ctrl-C raises at the jump back is in no `with` under CPython 3.13.0.
    while True:
        with contextlib.suppress(Empty):
            return registry.announced.get(timeout=_GLANCE)
        # It may have announced itself just before it died; then its client will find out.
        if running.poll() is not None and registry.announced.empty():
            return None


def run(files: Sequence[str], *, verbose: bool = False, server: Sequence[str] = SERVER) -> int:
    """Prints the checksums of the files, as ``sha256sum`` does.

    Args:
        files: their names; ``-`` is standard input.
        verbose: show, at the end, who holds which entrypoint under how many descriptors.
        server: the command that is to announce a ``Digest``.

    Returns:
        0, or 1 if a file could not be read or a child has died.
    """
    with contextlib.ExitStack() as stack:
        entrypoint = stack.enter_context(cm.Entrypoint("broker"))
        registry = RegistryServer()
        offer = entrypoint.manage(registry)
        running = stack.enter_context(_child(server, offer, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        digest = _announced(registry, running)
        if digest is None:
            complain(f"the digest server ended before it was ready: {_outcome(running.wait())}")
            return 1
        services = ServicesServer(digest, {})
        client = stack.enter_context(_child((*CLIENT, *files), entrypoint.manage(services), pass_fds=_inherited(files)))
        if verbose:
            services.processes |= {"broker": os.getpid(), "digest server": running.pid, "client": client.pid}
        status = client.wait()
        if status < 0:
            complain(f"the client was ended: {_outcome(status)}")
        return min(abs(status), 1)
