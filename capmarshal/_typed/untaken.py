"""Items of a stream that nobody takes: what is in them is closed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from capmarshal._descriptors import reaper
from capmarshal._descriptors.layers import layers_of
from capmarshal._typed.codec import encode
from capmarshal._typed.table import Search, is_file

if TYPE_CHECKING:
    from collections.abc import Iterable

# What nothing can be in that is to be closed.
_PLAIN = frozenset((int, str, bytes, float, bool, type(None)))


def close_items(items: Iterable[Any], kept: Iterable[object] = ()) -> None:
    """Closes every file, socket and descriptor in items, but for what was kept of these."""
    search = Search()
    for item in items:
        if type(item) not in _PLAIN:
            # Whatever of it is none that can be sent.
            with contextlib.suppress(Exception):
                encode(item, search)
    ids = set(map(id, kept))
    files = [file for file in search.found if is_file(file) and ids.isdisjoint(map(id, layers_of(file)))]
    if files:
        reaper.close(files)
