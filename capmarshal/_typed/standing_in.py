"""Another function in the place of a method of a file's, for one thread and a while.

Files of Python's call the methods of what they stand on, and take no timeout; so it is there that one is put in.  The
same file may be in use by other threads, also for the same: each has its own function, all else is passed on to the
method itself, and whoever is last takes away what was put there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from capmarshal._descriptors.process import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NOTHING: Final = object()


class _StandIn:
    """Stands in the place of ``owner.name``.

    Attributes:
        by_thread: what is called instead, by the thread that wants that.
    """

    def __init__(self, owner: Any, name: str) -> None:
        self._own, self._name = vars(owner), name
        self._method = getattr(owner, name)
        # Of the application's, if there is any.
        self._before = self._own.get(name, _NOTHING)
        self.by_thread: dict[int, Callable[..., Any]] = {}
        self._own[name] = self

    def __call__(self, *arguments: Any) -> Any:
        return self.by_thread.get(threading.get_ident(), self._method)(*arguments)

    def remove(self) -> None:
        """Puts back what was there, unless somebody has put something else there in the meantime."""
        if self._own.get(self._name) is not self:
            return
        if self._before is _NOTHING:
            del self._own[self._name]
        else:
            self._own[self._name] = self._before


# By the owner's id and the name.  Each keeps its owner alive.  Under the lock that is held across forks.
_all: dict[tuple[int, str], _StandIn] = {}


@contextlib.contextmanager
def standing_in(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Has this thread's calls of ``owner.name`` go to ``function``, within a ``with`` block."""
    key, thread = (id(owner), name), threading.get_ident()
    outer: Any = _NOTHING
    try:
        with process.lock:
            mine = _all.get(key) or _all.setdefault(key, _StandIn(owner, name))
            # Of a call that this one interrupts: signal handlers may use the file too.
            outer = mine.by_thread.get(thread, _NOTHING)
            mine.by_thread[thread] = function
        yield
    finally:
        with process.lock:
            _leave(key, thread, outer)


def _leave(key: tuple[int, str], thread: int, outer: Any) -> None:
    mine = _all.get(key)
    if mine is None:  # Ctrl-C came before there was one
        return
    if outer is _NOTHING:
        mine.by_thread.pop(thread, None)
    else:
        mine.by_thread[thread] = outer
    if not mine.by_thread:
        del _all[key]
        mine.remove()


def _in_child() -> None:
    """The other threads do not exist here, and theirs may be the next one's number."""
    here = threading.get_ident()
    for key, one in list(_all.items()):
        for thread in [thread for thread in one.by_thread if thread != here]:
            _leave(key, thread, _NOTHING)


os.register_at_fork(after_in_child=_in_child)
