"""Which word may stand at the end of a command line: what `capmarshal completion` asks for each time."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FILES = frozenset({"FILE"})
_SERVICES = frozenset({"PATH"})
_METHODS = frozenset({"METHOD"})

_ASSIGNED = re.compile(r"\w+=")
# What bash would take for more than itself.
_TAKEN = re.compile(r"[^\w./=@:,+%-]")


def candidates(parsers: Mapping[str, argparse.ArgumentParser], words: Sequence[str]) -> list[str]:
    """What may stand in the place of the last word, each beginning like that.

    Args:
        parsers: the parser of each command.
        words: behind ``capmarshal``; the last may be empty.
    """
    *before, word = words
    if not before:
        return _beginning(word, [*parsers, "--help", "--version"])
    parser = parsers.get(before[0])
    if parser is None:
        return []
    options: Mapping[str, Any] = parser._option_string_actions  # noqa: SLF001 - argparse has no other way
    positionals: list[Any] = parser._get_positional_actions()  # noqa: SLF001 - likewise
    given: list[str] = []
    rest = iter(before[1:])
    for each in rest:
        if each in (parts := _parsers_at(positionals, len(given))):
            # A part of the command, with options and positionals of its own.
            return candidates(parts, [each, *rest, word])
        # What stands behind the last positional that takes all is no option.
        if each in options and not _takes_rest(positionals, len(given)):
            if options[each].nargs is None and next(rest, None) is None:
                return _of(options[each].metavar, options[each].choices, word, given)
        else:
            given.append(each)
    if word.startswith("-") and not _takes_rest(positionals, len(given)):
        return _beginning(word, [option for option in options if option.startswith("--")])
    if not positionals:
        return []
    place = positionals[min(len(given), len(positionals) - 1)]
    if len(given) >= len(positionals) and place.nargs is None:
        return []
    behind = place.nargs == argparse.PARSER and len(given) >= len(positionals)
    return _of("ARGUMENT" if behind else place.metavar, place.choices, word, given)


def _takes_rest(positionals: Sequence[Any], count: int) -> bool:
    return bool(positionals) and positionals[-1].nargs == argparse.PARSER and count >= len(positionals)


def _parsers_at(positionals: Sequence[Any], count: int) -> Mapping[str, argparse.ArgumentParser]:
    """The parsers of a command's parts, where one of them is due."""
    place = positionals[count] if count < len(positionals) else None
    if isinstance(place, argparse._SubParsersAction):  # noqa: SLF001 - argparse has no other name for it
        return place.choices
    return {}


def _of(metavar: str | None, choices: Any, word: str, given: Sequence[str]) -> list[str]:
    # Imported when used: most of what is typed needs no service.
    from capmarshal._describe import candidates as described

    if choices is not None:
        return _beginning(word, list(choices))
    if metavar in _FILES | _SERVICES:
        found = described.paths(word, sockets_only=metavar in _SERVICES)
        # As it is, it would be an option.
        return [f"./{each}" if each.startswith("-") else each for each in found]
    if metavar in _METHODS:
        return described.methods(given[0], word)
    if metavar == "ARGUMENT" and len(given) > 1:
        return described.arguments(given[0], given[1], given[2:], word)
    return []


def _beginning(word: str, names: Sequence[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(word))


def words_in(line: str) -> tuple[list[str], str]:
    """The words of a command line as bash would take them, and the last as it was typed: one may be open."""
    words: list[str] = [""]
    typed, quote, escaped, within = "", "", False, False
    for character in line:
        typed += character
        if escaped:
            words[-1] += character
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = within = True
        elif quote:
            if character == quote:
                quote = ""
            else:
                words[-1] += character
        elif character in "'\"":
            quote, within = character, True
        elif character.isspace():
            typed = ""
            if words[-1] or within:
                words.append("")
            within = False
        else:
            words[-1] += character
    while len(words) > 1 and _ASSIGNED.match(words[0]):
        # A variable of its environment.
        del words[0]
    return words, typed


def for_bash(found: Sequence[str], typed: str, breaks: str) -> list[str]:
    """What bash is to insert: quoted, and only from the last of the characters on at which it breaks words.

    Args:
        found: the candidates.
        typed: the last word, as it was typed.
        breaks: COMP_WORDBREAKS.
    """
    cut, quote = _break_in(typed, breaks)
    if quote:
        # It quotes by itself, from there on; within double quotes it takes some for more than themselves still.
        return [each[cut:] for each in found if not set(each[cut:]) & {quote, *"$`\\!"}]
    return [_TAKEN.sub(lambda taken: f"\\{taken[0]}", each[cut:]) for each in found]


def _break_in(typed: str, breaks: str) -> tuple[int, str]:
    """How many characters stand before what bash replaces of a word, but for what quotes them; and the open quote."""
    cut, count, opened, quote, escaped = 0, 0, 0, "", False
    for character in typed:
        if escaped:
            count, escaped = count + 1, False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            if character == quote:
                quote = ""
            else:
                count += 1
        elif character in "'\"":
            quote, opened = character, count
        else:
            count += 1
            if character in breaks and character in "=:@,":
                # An @ is left to what completes, rl_special_prefixes of readline(3).
                cut = count - (character == "@")
    return opened if quote else cut, quote
