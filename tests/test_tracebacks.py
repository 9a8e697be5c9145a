"""What the log has of an error: its traceback where that is short, else as much of it as people read."""

from __future__ import annotations

import traceback

import pytest

from capmarshal._server import tracebacks
from capmarshal._server.journal import Journal

LONG = "x" * 100_000


def raised(error, cause=None):
    """An error that was raised here."""
    try:
        raise error from cause
    except BaseException as caught:  # noqa: BLE001 - to be looked at
        return caught


def test_a_short_one_is_logging_s_own_to_write():
    for error in (raised(KeyError("which")), raised(ValueError("x" * 2000), raised(KeyError(1))), KeyError("unraised")):
        assert tracebacks.cut(error) == ""


@pytest.mark.parametrize(
    "error",
    [
        ValueError(LONG),
        ValueError("\x1b[2J" * 50_000),
        ExceptionGroup("some", [ValueError(LONG), KeyError(1)]),
        ExceptionGroup("many", [ValueError("x" * 2000) for _ in range(1000)]),
    ],
)
def test_a_long_one_is_bounded_and_printable_and_says_where(error):
    """Also where its text is not long, but there are many."""
    words = tracebacks.cut(raised(error))
    assert len(words) < tracebacks.MOST + 100
    assert ", in raised" in words
    assert " characters left out) ..." in words
    assert all(line.isprintable() for line in words.splitlines())
    assert type(error).__name__ in words.splitlines()[-1]


def noted(error, note):
    error.add_note(note)
    return error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no\nroot: all is well"),
        ValueError("no\n\rroot: all is well"),
        noted(ValueError("no"), "root\nroot: all is well"),
        ExceptionGroup("some", [ValueError("no\nroot: all is well")]),
        ValueError("\n" * 3000 + "root: all is well"),
        ValueError("x" * 1400 + "\nroot: all is well" * 500),
    ],
    ids=["text", "terminal", "note", "group", "long", "many"],
)
@pytest.mark.parametrize("leads", [True, False])
def test_no_text_makes_a_line_that_looks_like_another_s(error, leads):
    """All its lines are there, and each but the first is marked."""
    words = tracebacks.cut(raised(RuntimeError("failed"), raised(error)) if leads else raised(error))
    assert "\n    | " in words
    for line in words.splitlines():
        assert line.isprintable()
        assert not line.startswith("root")
    assert "root: all is well" in words


def test_notes_are_there_too():
    words = tracebacks.cut(raised(noted(ValueError("first\nsecond"), "raised by the server")))
    assert words.endswith("\nValueError: first\n    | second\n    | raised by the server")


def test_the_end_of_a_text_is_kept():
    assert tracebacks.cut(raised(ValueError(LONG + " - at `$.x`"))).endswith("xxx - at `$.x`")


def test_all_that_led_to_it_is_there():
    """Oldest first, as Python has it; what is in a group, before that."""
    words = tracebacks.cut(raised(ExceptionGroup("some", [KeyError(LONG)]), raised(OSError("first"))))
    assert words.index("OSError: first\n(which led to the one below)") < words.index("KeyError: 'xxx")
    assert words.index("(in the group below)") < words.index("ExceptionGroup: some (1 sub-exception)")


def test_frames_without_number_leave_room_for_the_text():
    """As of functions that call each other until there is no more room."""

    def one(depth):
        return two(depth - 1)

    def two(depth):
        return one(depth - 1) if depth else 1 / 0

    try:
        one(300)
    except (ZeroDivisionError, RecursionError) as error:
        assert len("".join(traceback.format_exception(error))) > tracebacks.MOST
        words = tracebacks.cut(error)
    assert len(words) < tracebacks.MOST
    assert "in test_frames_without_number" in words
    assert words.splitlines()[-1].startswith(("ZeroDivisionError: ", "RecursionError: "))


def test_a_chain_that_has_no_end_has_one_here():
    first, second = ValueError(LONG), KeyError(LONG)
    first.__cause__, second.__cause__ = second, first
    assert len(tracebacks.cut(first)) < tracebacks.MOST


def test_an_error_whose_text_cannot_be_had_is_in_the_log_with_what_it_raised_instead(caplog):
    """As is what a signal handler raises while the log looks at an error."""

    class Mute(Exception):
        def __str__(self):
            raise ValueError("no words")

    Journal("mute").error(None, "kind", "it raised", exc_info=raised(Mute()))
    assert "ValueError: no words" in caplog.text
    assert "Mute: <exception str() failed>" in caplog.text
    caplog.clear()
