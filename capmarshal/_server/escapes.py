"""Which of the things that a method raises end the service, and not its call alone.

An entrypoint's own thread ends by none of them.  In ``serve_forever()`` of the main thread there are signals: Ctrl-C
ends it, and so does a handler that exits, as is usual for SIGTERM, though it may have interrupted a method.  Such a
``SystemExit`` is told from that of a parser of options by its traceback, which passes the handler's code.
"""

from __future__ import annotations

import functools
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType


def nothing(_error: BaseException) -> bool:
    """Says of whatever a method raised that it ends its call only."""
    return False


def everything(_error: BaseException) -> bool:
    """Says of whatever a method raised that it ends the service: in a forked child, whose parent answers the call."""
    return True


def _code_of(handler: Any) -> CodeType | None:
    """What runs when a signal's handler is called; None if that is not written in Python."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if not hasattr(handler, "__code__") and not hasattr(handler, "__func__"):
        # Its class's, which is what a call runs.
        handler = getattr(type(handler), "__call__", None)  # noqa: B004 - wanted for itself
    code: CodeType | None = getattr(getattr(handler, "__func__", handler), "__code__", None)
    return code


def _installed() -> Iterator[CodeType]:
    """The code of each signal handler that is installed now."""
    for number in signal.valid_signals():
        code = _code_of(signal.getsignal(number))
        if code is not None:
            yield code


class BySignal:
    """Says of what a method raised whether a signal brought it.

    A handler that takes itself out before it exits is known all the same, if it was installed when service began.
    """

    def __init__(self) -> None:
        self._at_first = list(_installed())

    def __call__(self, error: BaseException) -> bool:
        if isinstance(error, KeyboardInterrupt):
            return True
        if isinstance(error, BaseExceptionGroup):
            # Of tasks that the method has run.
            return any(map(self, error.exceptions))
        if not isinstance(error, SystemExit):
            return False
        # By identity: two handlers with the same text are equal, and so may be a handler and something else.
        handlers = set(map(id, [*self._at_first, *_installed()]))
        traceback = error.__traceback__
        while traceback is not None:
            if id(traceback.tb_frame.f_code) in handlers:
                return True
            traceback = traceback.tb_next
        return False
