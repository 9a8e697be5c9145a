"""What a file of Python's stands on: a text file on a buffer, that on a raw file, and that perhaps on a socket."""

from __future__ import annotations

import io
import socket
from typing import Any

from capmarshal._descriptors.foreign import ForeignFile

# Where a file keeps what is underneath: the wrappers of tempfile, a text file, a buffer, what socket.makefile() makes.
# Those with an underscore are private to their classes, which offer nothing else.
_BELOW = ("file", "_file", "buffer", "raw", "_sock")

# Of the commonest it is known which, and need not be tried.
_KNOWN: dict[type, tuple[str, ...]] = {
    io.TextIOWrapper: ("buffer",),
    io.BufferedReader: ("raw",),
    io.BufferedWriter: ("raw",),
    io.BufferedRandom: ("raw",),
    io.FileIO: (),
    ForeignFile: (),
    socket.SocketIO: ("_sock",),
    socket.socket: (),
}

# A file on a file on a file...: no more than that, in case one stands on itself.
_DEEPEST = 8


def raw_of(file: Any) -> Any:
    """The raw file that a text file or a buffer stands on; None where a buffer is detached from it, or there is none.

    Raises:
        ValueError: a text file that is detached from its buffer.
    """
    return getattr(getattr(file, "buffer", file), "raw", None)


def layers_of(file: Any) -> list[Any]:
    """A file and all that it stands on, from the top; of what has been detached, or is no file, itself alone."""
    layers = [file]
    while len(layers) < _DEEPEST:
        below = _below(layers[-1])
        if below is None:
            break
        layers.append(below)
    return layers


def _below(file: Any) -> Any:
    for name in _KNOWN.get(type(file), _BELOW):
        try:
            below = getattr(file, name, None)
        except Exception:  # noqa: BLE001 - ValueError where it is detached, and anything where a class of the user's is asked
            return None
        if isinstance(below, (io.IOBase, socket.socket)):
            return below
    return None
