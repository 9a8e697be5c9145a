"""Numbers that people pass: whole ones, within bounds."""

from __future__ import annotations


def check_whole(number: object, wrong: str, least: int, most: int | None = None) -> None:
    """Refuses what is no whole number, or none within bounds; True and False are none.

    Args:
        number: that was passed.
        wrong: what is said of it then.
        least: that it may be.
        most: likewise; None: any.

    Raises:
        TypeError: it is something else than a whole number.
        ValueError: it is out of bounds.
    """
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(wrong)
    if number < least or (most is not None and number > most):
        raise ValueError(wrong)
