"""What may stand where somebody types on a command line: commands, options, files, and what a service says.

A service is a stranger here, too, and what is offered is typed for whoever presses a key: names and plain words, and
nothing else, are taken of it.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from capmarshal._capabilities.connecting import connect
from capmarshal._describe.asking import description_of
from capmarshal._describe.remote import is_name
from capmarshal._describe.schemas import referred
from capmarshal._kernel.deadline import timeout as time_limit
from capmarshal._kernel.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capmarshal._describe.schemas import Definitions, Schema
    from capmarshal._typed.description import Description, MethodDescription

# Seconds for a service to say what it has: somebody waits with a finger on a key.
_PATIENCE = 1.0
_PLAIN = re.compile(r"[\w.+-]+")
_NAMED = re.compile(r"(\w+)=(.*)", re.DOTALL)
# Of one directory, or one service.
_MOST = 1000


def paths(word: str, *, sockets_only: bool = False) -> list[str]:
    """Files whose path begins like that, directories with a slash behind them."""
    directory, _, start = word.rpartition("/")
    before = f"{directory}/" if "/" in word else ""
    found = []
    try:
        with os.scandir(before or ".") as entries:
            for entry in entries:
                hidden = entry.name.startswith(".") and not start.startswith(".")
                if entry.name.startswith(start) and not hidden and entry.name.isprintable():
                    if entry.is_dir():
                        found.append(f"{before}{entry.name}/")
                    elif not sockets_only or stat.S_ISSOCK(entry.stat().st_mode):
                        found.append(before + entry.name)
    except OSError:
        return []
    return sorted(found)[:_MOST]


def methods(path: str, word: str) -> list[str]:
    """The methods of a service whose names begin like that."""
    described = _asked(path)
    if described is None:
        return []
    names = (method.name for method in described.methods)
    return sorted(name for name in names if name.startswith(word) and is_name(name))[:_MOST]


def arguments(path: str, name: str, before: Sequence[str], word: str) -> list[str]:
    """What may begin like that as an argument of a method of a service.

    Args:
        path: of its socket.
        name: of the method.
        before: the arguments that are there already.
        word: what has been typed of the next.
    """
    if word.startswith("@"):
        return [f"@{each}" for each in paths(word[1:])]
    described = _asked(path)
    method = next((each for each in described.methods if each.name == name), None) if described else None
    if described is None or method is None:
        return []
    return [each for each in _of_method(method, described.definitions, before, word) if each.startswith(word)][:_MOST]


def _of_method(method: MethodDescription, definitions: Definitions, before: Sequence[str], word: str) -> Iterator[str]:
    parameters = {each.name: each for each in method.parameters if is_name(each.name)}
    named = [found[1] for each in before if (found := _NAMED.fullmatch(each)) and found[1] in parameters]
    typed = _NAMED.fullmatch(word)
    if typed is not None and typed[1] in parameters:
        if typed[2].startswith("@"):
            yield from (f"{typed[1]}=@{each}" for each in paths(typed[2][1:]))
        yield from (f"{typed[1]}={value}" for value in _values(parameters[typed[1]].schema, definitions))
        return
    places = [each for each in method.parameters if each.how != "name"]
    place = len(before) - len(named)
    if place < len(places):
        yield from _values(places[place].schema, definitions)
    given = {*named, *(each.name for each in places[:place])}
    yield from (f"{each}=" for each in parameters if each not in given)


def _values(schema: Schema, definitions: Definitions) -> Iterator[str]:
    """The values of a type that has a few."""
    said = referred(schema, definitions)
    if said.get("type") == "boolean":
        yield from ("false", "true")
    values = said.get("enum")
    for value in values if isinstance(values, list) else ():
        if isinstance(value, (str, int)) and _PLAIN.fullmatch(str(value)):
            yield str(value)


def _asked(path: str) -> Description | None:
    """What a service says; None where it says nothing in time."""
    try:
        with time_limit(_PATIENCE):
            return description_of(connect(path))
    except (Error, ValueError):
        return None
