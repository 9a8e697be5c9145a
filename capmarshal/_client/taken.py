"""Which iterators calls have taken: one that is passed again, as in a retry, gives what is left, and says nothing.

They are known as long as somebody else has them; what has no weak references, as ``iter([...])``, is not known.
"""

from __future__ import annotations

import weakref
from typing import Any

# By id(): which it is, and the method whose call has taken it.  Two threads may take the same one: setdefault() is one
# step.
_taken: dict[int, tuple[weakref.ref[Any], str]] = {}


def take(iterator: Any, where: str) -> str:
    """Takes one for a call.

    Args:
        iterator: it.
        where: the method.

    Returns:
        Which method's call has taken it before; empty: none has.
    """
    key = id(iterator)

    # Also while the interpreter ends, when this module has no names any more.
    def forget(gone: weakref.ref[Any], taken: dict[int, tuple[weakref.ref[Any], str]] = _taken) -> None:
        known = taken.get(key)
        if known is not None and known[0] is gone:
            taken.pop(key, None)

    try:
        mine = (weakref.ref(iterator, forget), where)
    except TypeError:
        return ""
    known = _taken.setdefault(key, mine)
    return "" if known is mine else known[1]
