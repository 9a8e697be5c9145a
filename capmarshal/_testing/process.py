"""The process of a :class:`capmarshal.testing.Peer`: serves one object, and does what it is told over its socket."""

from __future__ import annotations

import contextlib
import pickle
import resource
import signal
import socket
import threading
import traceback
from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.handover import send_capability
from capmarshal._entrypoint import Entrypoint
from capmarshal._testing import loading, orders
from capmarshal._testing.leaks import open_descriptors
from capmarshal._testing.pairs import LABEL
from capmarshal._testing.small_table import SmallTable
from capmarshal._testing.traps import Traps
from capmarshal._typed.colour import colour_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capmarshal._capabilities.capability import Capability

# Bytes of what makes the object, pickled.
_ROOM = 1 << 18
# Seconds.
_CLOSE_TIMEOUT = 0.5


def main(number: int) -> None:
    """What the process does, until the other end of its socket is closed.

    Args:
        number: of the socket, taken.
    """
    # Ctrl-C at the terminal of both is for the other one, which ends this.
    signal.signal(signal.SIGINT, lambda *_: None)
    with socket.socket(fileno=number) as control, contextlib.ExitStack() as stack:
        try:
            told = orders.hear(control)
            if told is None:
                return
            loading.load(told["module"], told["file"])
            make, arguments = pickle.loads(control.recv(_ROOM))  # noqa: S301 - of the process that has started this one
            target = make(*arguments)
            if told["descriptors"] is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (told["descriptors"],) * 2)
            traps = Traps()
            capability = stack.enter_context(_served(target))
        except Exception:  # noqa: BLE001 - whatever it is, it is the other process's to raise
            orders.tell(control, error=traceback.format_exc())
            return
        orders.tell(control)
        send_capability(control, capability)
        _obey(control, type(target), traps)


def _served(target: Any) -> contextlib.AbstractContextManager[Capability]:
    return _in_loop(target) if colour_of(type(target)) == "awaitable" else _in_thread(target)


@contextlib.contextmanager
def _in_thread(target: Any) -> Iterator[Capability]:
    with Entrypoint(LABEL, close_timeout=_CLOSE_TIMEOUT) as entrypoint:
        yield entrypoint.manage(target)


@contextlib.contextmanager
def _in_loop(target: Any) -> Iterator[Capability]:
    """By an event loop of asyncio's, in a thread of its own."""
    # Imported when used: it needs anyio.
    import asyncio

    from capmarshal import aio

    entrypoint = aio.Entrypoint(LABEL, close_timeout=_CLOSE_TIMEOUT)
    capability = entrypoint.manage(target)
    thread = threading.Thread(target=lambda: asyncio.run(entrypoint.serve_forever()), daemon=True)
    thread.start()
    try:
        yield capability
    finally:
        entrypoint.close()
        thread.join(_CLOSE_TIMEOUT)


def _obey(control: socket.socket, cls: type, traps: Traps) -> None:
    table = SmallTable()
    while (told := orders.hear(control)) is not None:
        answer: dict[str, Any] = {}
        try:
            match told["do"]:
                case "shrink":
                    table.shrink(told["room"])
                case "go on":
                    traps.clear()
                    table.restore()
                case "list":
                    answer["open"] = sorted(open_descriptors().items())
                case deed:
                    traps.set(cls, told["during"], deed)
        except Exception as error:  # noqa: BLE001 - as in main()
            answer["error"] = str(error)
        orders.tell(control, **answer)
