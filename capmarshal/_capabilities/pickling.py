"""Doors and capabilities, pickled for a process that multiprocessing creates.

Of the capabilities of a door, it inherits the door once: within what is pickled at a time, one object stays one.
"""

from __future__ import annotations

import copyreg
from typing import Any

from capmarshal._capabilities.capability import Capability, badge_of, open_door_of
from capmarshal._capabilities.door import Door
from capmarshal._capabilities.space import space
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.new_process import being_created, hand_down, inherited


def _reduced_door(door: Door) -> tuple[Any, ...]:
    return _door, (hand_down(door.number),)


def _door(handed_down: Any) -> Door:
    # Closes it, if it is not taken.
    with Descriptor(inherited(handed_down)) as descriptor:
        return space.receive_door(descriptor, None)


def _reduced(capability: Capability) -> str | tuple[Any, ...]:
    if being_created() is None:
        # Says why not.
        return capability.__reduce__()
    return _capability, (open_door_of(capability), badge_of(capability))


def _capability(door: Door, badge: bytes) -> Capability:
    return space.receive(door, badge)


def enable() -> None:
    """Has pickle know both."""
    copyreg.pickle(Door, _reduced_door)
    copyreg.pickle(Capability, _reduced)
