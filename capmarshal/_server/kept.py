"""What a method keeps: every file, socket, descriptor and stream in what it was given, and all that these stand on."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import Capability, Delegable
from capmarshal._descriptors.layers import layers_of
from capmarshal._descriptors.shared_buffer import SharedBuffer, parts_of
from capmarshal._typed.async_stream import AsyncStream
from capmarshal._typed.flushing import drop_pending
from capmarshal._typed.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

_BUFFERS = (io.BufferedReader, io.BufferedWriter, io.BufferedRandom)


def all_in(thing: object) -> list[Any]:
    """The files, sockets, descriptors and streams in a thing, each with all its layers.

    Looked through is what arguments come in: lists, tuples, sets, the values of dicts, and the fields of dataclasses,
    attrs classes and Structs.

    Raises:
        TypeError: it is something, and there is none in it.
    """
    found: list[Any] = []
    waiting, seen = [thing], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (Capability, Delegable)):
            # It stays for as long as it is referred to.  A capability has a fileno() to be polled only.
            continue
        if isinstance(one, SharedBuffer):
            memory, lease, *_ = parts_of(one)
            found += (memory, lease)
        elif isinstance(one, (Stream, AsyncStream)):
            found.append(one)
        elif hasattr(one, "fileno"):
            found += layers_of(one)
        else:
            waiting += _members(one)
    # Of nothing there is nothing to keep, as an optional argument or a list may be.
    nothing = thing is None or (isinstance(thing, (list, tuple, set, frozenset, dict)) and not thing)
    if not found and not nothing:
        if isinstance(thing, (Capability, Delegable)):
            words = "lasts for as long as it is referred to: keep it as it is"
        else:
            words = "has none that the call would close"
        raise TypeError(
            "keep() is for files, sockets, descriptors and streams, and for what has some in it; "
            f"a `{type(thing).__qualname__}` {words}"
        )
    return found


def _members(thing: Any) -> list[Any]:
    if isinstance(thing, (list, tuple, set, frozenset)):
        return list(thing)
    if isinstance(thing, dict):
        return list(thing.values())
    kind = type(thing)
    names = [*getattr(kind, "__dataclass_fields__", ()), *getattr(kind, "__struct_fields__", ())]
    names += [attribute.name for attribute in getattr(kind, "__attrs_attrs__", ())]
    return [getattr(thing, name, None) for name in names]


def let_go(file: Any, ids: set[int], *, fails: bool) -> Sequence[LetGo]:
    """Takes a file off what it stands on, which was kept alone: it would close that when it goes.

    Args:
        file: that was not kept itself.
        ids: of what was.
        fails: the call has no result: what is in the file's buffer is dropped.

    Returns:
        What does so when it is closed, where something may still be written, which can block.
    """
    layers = layers_of(file)
    kept = next(place for place, layer in enumerate(layers) if id(layer) in ids)
    above = layers[:kept]
    # A socket is not closed by the files that are made of it; and a class of the method's own is its own concern.
    if not all(isinstance(layer, (io.TextIOWrapper, *_BUFFERS)) for layer in above):
        return ()
    letting_go = LetGo(above, drops=fails and not isinstance(layers[kept], _BUFFERS))
    if all(isinstance(layer, io.BufferedReader) for layer in above):
        letting_go.close()
        return ()
    return (letting_go,)


class LetGo:
    """Files, from the top, that stand on something that is not to be closed with them.

    Args:
        layers: the files.
        drops: what is in their buffers is dropped, and else written.
    """

    def __init__(self, layers: Sequence[Any], *, drops: bool) -> None:
        self._layers = layers
        self._drops = drops

    def fileno(self) -> int:
        """The descriptor of what they stand on, borrowed."""
        number: int = self._layers[0].fileno()
        return number

    def close(self) -> None:
        """Detaches them; what cannot be written is dropped."""
        # ValueError: what they stand on is closed by now, and so nothing is left that they could close.
        with contextlib.suppress(ValueError):
            if self._drops:
                drop_pending(self._layers[0])
            for layer in self._layers:
                try:
                    layer.detach()
                except OSError:
                    drop_pending(layer)
                    layer.detach()
