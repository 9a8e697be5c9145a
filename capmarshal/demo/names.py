"""File names as ``sha256sum`` (GNU coreutils 9) prints them."""

from __future__ import annotations

import os
import re

_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}

# What needs no quotes in a message: nothing that a shell or the reader of "NAME: what happened" could take amiss.
_PLAIN = re.compile(r"[^\s:!\"#$&'()*;<=>?\[\\\]^`{|}~]+")
_SHORT = {"\a": "\\a", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\v": "\\v", "\f": "\\f", "\r": "\\r"}


def line(checksum: str, name: str) -> bytes:
    """A line of output, such that names with line ends in them cannot be mistaken for other lines."""
    raw = os.fsencode(name)
    escaped = re.sub(rb"[\\\n\r]", lambda match: _ESCAPES[match[0]], raw)
    return b"%s%s  %s\n" % (b"\\" if escaped != raw else b"", checksum.encode(), escaped)


def quoted(name: str) -> str:
    """A name within a message, such that it neither hides what it is nor controls the terminal."""
    if _PLAIN.fullmatch(name) and name.isprintable():
        return name
    parts = []
    for part in re.split(r"([^ -~]+|')", name):
        if part == "'":
            parts.append("\\'")
        elif part.isprintable():
            parts.append(f"'{part}'" if part else "")
        else:
            parts.append(f"$'{''.join(map(_escaped, part))}'")
    if not parts[0]:
        parts[0] = "''"
    return "".join(parts)


def _escaped(character: str) -> str:
    return _SHORT.get(character) or "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
