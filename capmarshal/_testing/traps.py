"""Has a process die or stall in the middle of a method: when Python enters it, in the thread that does."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import CodeType, FrameType

SIGNALS: Final = {"die": signal.SIGKILL, "stall": signal.SIGSTOP}


class Traps:
    """Those that are set; each acts once.

    They are seen by threads that begin later: :func:`threading.setprofile`.
    """

    def __init__(self) -> None:
        self._set: dict[CodeType, signal.Signals] = {}
        threading.setprofile(self._look)

    def _look(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and self._set and (number := self._set.pop(frame.f_code, None)) is not None:
            # Of this thread, which so goes no further; another one would do for the process, a moment later.
            signal.pthread_kill(threading.get_ident(), number)

    def set(self, cls: type, name: str, deed: str) -> None:
        """Sets one.

        Args:
            cls: of the object.
            name: of its method.
            deed: one of :data:`SIGNALS`.

        Raises:
            LookupError: it has no such method, or one that is no function of Python's.
        """
        code = getattr(getattr(cls, name, None), "__code__", None)
        if code is None:
            raise LookupError(f"{cls.__qualname__} has no method {name!r} that is a function of Python's")
        self._set[code] = SIGNALS[deed]

    def clear(self) -> None:
        """Takes them all away."""
        self._set.clear()
