"""Numbers that people pass: whole ones, within bounds, and seconds.  True and False are neither."""

from __future__ import annotations

from typing import Any


def check_whole(number: object, wrong: str, least: int, most: int | None = None) -> None:
    """Refuses what is no whole number, or none within bounds.

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


def check_seconds(seconds: Any, wrong: str) -> None:
    """Refuses what is no time to wait.

    Args:
        seconds: that were passed.
        wrong: what is said of them then.

    Raises:
        TypeError: no number.
        ValueError: negative, or NaN.
    """
    try:
        is_time = seconds >= 0
    except TypeError:
        raise TypeError(wrong) from None
    # As of a parameter that is a switch elsewhere: it would be one second, or none.
    if isinstance(seconds, bool):
        raise TypeError(wrong)
    if not is_time:
        raise ValueError(wrong)
