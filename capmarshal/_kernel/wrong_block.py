"""``with`` where ``async with`` is due, or the other way round: the error says what is to be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable


def refused(words: str) -> tuple[Callable[..., NoReturn], Callable[..., NoReturn]]:
    """What stands for entering and leaving a block that a class has not; Python asks for both before it enters.

    To be assigned where type checkers do not look: those tell of it by themselves, and would believe that it can be.

    Args:
        words: what is wrong, and what to do.
    """

    def refuse(*_arguments: object) -> NoReturn:
        raise TypeError(words)

    return refuse, refuse
