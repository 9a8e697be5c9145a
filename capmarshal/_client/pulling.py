"""Calls for the items of a stream: what comes is held against what who takes them may have, before it is decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._client import knocking
from capmarshal._descriptors import reaper
from capmarshal._descriptors.inbox import Inbox, give_back
from capmarshal._kernel.errors import TooLarge
from capmarshal._protocol.answer_bound import in_force, of_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._capabilities.door import Door
    from capmarshal._client.channel import Answer, Entries
    from capmarshal._descriptors.descriptor_list import DescriptorList
    from capmarshal._protocol.answer_bound import AnswerBound
    from capmarshal._typed.long import Payload


def check(answer: Answer, bound: AnswerBound, door: Door) -> Answer:
    """An answer that came through a door, if it is not more than is taken.

    Raises:
        TooLarge: it is, and is closed.
    """
    came: Inbox | DescriptorList | None
    if isinstance(answer, bytes):
        size, descriptors, came = len(answer), 0, None
    elif isinstance(answer[1], Inbox):
        size, descriptors, came = len(answer[0]), answer[1].struct.count, answer[1]
    else:
        size, descriptors, came = len(answer[0].payload), len(answer[1]), answer[1]
    refusal = bound.too_large(size, descriptors)
    if not refusal:
        return answer
    if isinstance(came, Inbox):
        reaper.close([came.steal()], door.closing)
        give_back(came)
    elif came is not None:
        reaper.close([came], door.closing)
    raise TooLarge(refusal)


def exchange(door: Door, key: bytes, payload: Payload, entries: Entries, numbers: Sequence[int]) -> Answer:
    """As :func:`capmarshal._client.knocking.exchange`, within the bound of the items that are taken here.

    Raises:
        TooLarge: the answer is more.
    """
    bound = of_items.get()
    if bound is None:
        return knocking.exchange(door, key, payload, entries, numbers)
    try:
        in_force.set(bound)
        answer = knocking.exchange(door, key, payload, entries, numbers)
    finally:
        in_force.set(None)
    return check(answer, bound, door)
