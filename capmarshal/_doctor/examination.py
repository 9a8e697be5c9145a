"""All of it, in the order in which people read it."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

from capmarshal._doctor import (
    calling,
    closing,
    confinement,
    identity,
    limits,
    neighbours,
    place,
    python,
    services,
    trying,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capmarshal._doctor.finding import Finding
    from capmarshal._doctor.probe import Probe


def probes() -> tuple[Probe, ...]:
    """What is tried."""
    return (
        *place.PROBES,
        *python.PROBES,
        *python.extras(),
        *calling.PROBES,
        *identity.PROBES,
        *closing.PROBES,
        *services.PROBES,
        *confinement.PROBES,
        *limits.PROBES,
        *neighbours.PROBES,
    )


def examined() -> Iterator[Finding]:
    """What was found, one after the other."""
    # Now: where a table is all but full, nothing can be imported any more.
    with contextlib.suppress(ImportError):
        import capmarshal._child.seccomp  # noqa: F401 - see above
    # A process that was started with it ignored, as by some supervisors, can't wait for those that it makes.
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        for probe in probes():
            yield trying.attempt(probe)
    finally:
        signal.signal(signal.SIGCHLD, before)
