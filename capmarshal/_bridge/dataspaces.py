"""A dataspace crosses a bridge as a copy: it is described, lent, and made anew where it arrives.

The copy is like the original: as many bytes, an array if that is one, and sealed if that is.  It is other memory, and
there is one more of it for each time that a dataspace crosses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capmarshal._bridge_link.messages import Described
from capmarshal._descriptors.array_layout import DIMENSIONS_MAX, ArrayLayout, bytes_of
from capmarshal._descriptors.dataspace import Dataspace, array_in
from capmarshal._descriptors.memory import make_memory
from capmarshal._kernel.errors import ArgumentError, TooLarge

from .fetching import CHUNK, Ask, Window, fetch, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._descriptors.descriptor import Descriptor


def described(dataspace: Dataspace) -> Described:
    """What is to be said of a dataspace."""
    layout = array_in(dataspace)
    if layout is None:
        return Described(dataspace.size, dataspace.sealed)
    return Described(dataspace.size, dataspace.sealed, layout.format, layout.shape)


def found_in(descriptor: Descriptor) -> Dataspace | None:
    """The dataspace that a descriptor is of, if that is one, for the caller to close; the descriptor is borrowed.

    One of bytes travels as any descriptor does, and only who receives it by its interface knows what it is to be.

    Raises:
        TableFull: no room for a descriptor.
    """
    own = descriptor.dup()
    try:
        return Dataspace.receive(own)
    except BaseException as error:
        own.close()
        if isinstance(error, ArgumentError):
            return None
        raise


async def copied(
    description: Described,
    ask: Ask,
    most: int,
    *,
    window: Window | None = None,
    chunk: int = CHUNK,
    give_up: Callable[[], bool] = never,
) -> Dataspace:
    """A dataspace like the described one, with what it contains, fetched by asks.

    What comes is written where it stays.  Memory is taken for what has come, and for nothing that was only announced.

    Args:
        description: by whoever has lent it, whom nobody trusts.
        ask: asks for some of its bytes, as fetch() has it.
        most: bytes that it may have.
        window: as there.
        chunk: as there.
        give_up: as there.

    Raises:
        ArgumentError: there is no such dataspace; nothing was asked for.
        TooLarge: it has more than ``most`` bytes; nothing was asked for.
        TableFull, KernelError: no room for a descriptor, or no memory.
        Exception: what fetching has raised; there is no dataspace then.
    """
    layout = _checked(description, most)
    made = make_memory(layout.size, "dataspace", at_once=False)
    copy = Dataspace(made, layout.size, sealed=False, layout=layout)
    try:
        await fetch(ask, layout.size, copy, window=window, chunk=chunk, give_up=give_up)
        if description.sealed:
            copy.seal()
    except BaseException:
        copy.close()
        raise
    return copy


def _checked(description: Described, most: int) -> ArrayLayout:
    """What array it is.

    Raises:
        ArgumentError, TooLarge: as from copied().
    """
    size, shape = description.size, description.shape
    if size < 0 or any(count < 0 for count in shape):
        raise ArgumentError("a dataspace came with a size, or a shape, that is less than nothing")
    if size > most:
        raise TooLarge(f"a dataspace came of {size:,} bytes, and {most:,} are taken of one at most")
    if description.format is None:
        if shape:
            raise ArgumentError("a dataspace came with the shape of an array, and no format of its items")
        return bytes_of(size)
    # Of what a stranger may have made long, nothing is shown.
    if len(shape) > DIMENSIONS_MAX or len(description.format) != 1:
        raise ArgumentError(
            f"a dataspace came as an array of {len(shape)} dimensions, with a format of {len(description.format)} "
            f"letters: {DIMENSIONS_MAX} at most, and one letter, are due"
        )
    layout = ArrayLayout(description.format, shape)
    layout.check(size)
    return layout
