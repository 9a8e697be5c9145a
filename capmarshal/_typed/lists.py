"""Lists of descriptors: the way to hand over many, without the call of a hook for each.

Where an annotation, or a member of a fixed tuple of annotations, is exactly ``list[Descriptor]``, the list is made
indices in one step before msgspec sees it, and descriptors in one step after it.  Anywhere else the hooks do the same.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._descriptors.descriptor import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable


def is_list(annotation: Any) -> bool:
    """Whether it is exactly ``list[Descriptor]``."""
    return typing.get_origin(annotation) is list and typing.get_args(annotation) == (Descriptor,)


class Lists:
    """Where in values of ``annotation`` there are lists of descriptors; false if nowhere.

    Attributes:
        stand_in: the annotation with lists of indices in their place.
    """

    __slots__ = ("_members", "_whole", "stand_in")

    def __init__(self, annotation: Any) -> None:
        self._whole = is_list(annotation)
        members = typing.get_args(annotation) if typing.get_origin(annotation) is tuple else ()
        self._members = tuple(place for place, member in enumerate(members) if is_list(member))
        self.stand_in = annotation
        if self._whole:
            self.stand_in = list[int]
        elif self._members:
            self.stand_in = tuple[tuple(list[int] if is_list(member) else member for member in members)]  # type: ignore[misc]  # made at run time

    def __bool__(self) -> bool:
        return self._whole or bool(self._members)

    def sent(self, value: Any, indices_of: Callable[[list[Any]], list[Any]]) -> Any:
        """``value`` with each list as ``indices_of`` has it."""
        if self._whole:
            return indices_of(value) if type(value) is list else value
        if type(value) is not tuple:
            return value
        members = list(value)
        for place in self._members:
            if place < len(members) and type(members[place]) is list:
                members[place] = indices_of(members[place])
        return members

    def received(self, value: Any, made_of: Callable[[list[int]], list[Descriptor]]) -> Any:
        """What was decoded, with each list as ``made_of`` has it.

        Raises:
            ValidationError: what ``made_of`` raises, with the place that it gives within this value.
        """
        if self._whole:
            return made_of(value)
        members = list(value)
        for place in self._members:
            try:
                members[place] = made_of(members[place])
            except msgspec.ValidationError as error:
                raise msgspec.ValidationError(str(error).replace("`$", f"`$[{place}]", 1)) from error
        return tuple(members)
