"""A child of the demo does not outlive the broker, however that ended, nor whatever the child waits for."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING

from capmarshal._capabilities.capability import open_door_of

if TYPE_CHECKING:
    import capmarshal as cm


def end_with(parent: cm.Capability) -> None:
    """Has this process end as soon as the entrypoint behind ``parent`` does."""
    threading.Thread(target=_watch, args=(parent,), name="lifeline", daemon=True).start()


def _watch(parent: cm.Capability) -> None:
    door = open_door_of(parent)
    poll = select.poll()
    # Nothing to wait for but the hang-up, which is always reported (poll(2)).
    poll.register(door.number, 0)
    poll.poll()
    # Not by an exception: the main thread may be waiting for a file that nobody will ever write.
    os._exit(1)
