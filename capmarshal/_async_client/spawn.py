"""A child process that holds nothing but the capability that its parent gave it, awaited in an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from capmarshal._async_client.process import Process
from capmarshal._async_client.waiting import awaited
from capmarshal._child import spawn as _child

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anyio.abc import Process as AnyProcess

    from capmarshal._capabilities.capability import Capability
    from capmarshal._child.confinement import Confinement

# Options of subprocess.Popen's that would make files of text of its pipes, or buffer them.
_OF_FILES = ("bufsize", "encoding", "errors", "text", "universal_newlines")


async def spawn(
    args: Sequence[str | os.PathLike[str]] | str,
    *,
    parent: Capability,
    parent_as_stdin: bool = False,
    descriptor_limit: int | None = None,
    confine: Confinement | None = None,
    **options: Any,
) -> AnyProcess:
    """Starts a child process that inherits one capability, as :func:`capmarshal.spawn` does, to be awaited.

    In all event loops the child has what the options name, and nothing else.  It is started at once, or, where this is
    cancelled, not at all.

    Args:
        args: as for :class:`subprocess.Popen`.
        parent: the capability to give; borrowed.
        parent_as_stdin: the socket in which it waits is the child's standard input.
        descriptor_limit: the child's hard RLIMIT_NOFILE.
        confine: what the child may have, which then is a Python file.
        options: as for :class:`subprocess.Popen`, but for those of text and buffers: a stream that is ``PIPE`` is
            awaited, and of bytes.

    Returns:
        The process: ``await process.wait()`` gives its status.

    Raises:
        TypeError, ValueError, NotConfined, Closed, TableFull, TooManyInFlight, OSError: as :func:`capmarshal.spawn`.
    """
    for option in _OF_FILES:
        if option in options:
            raise TypeError(f"{option} is not for a process that is awaited: its streams are of bytes, unbuffered")
    await anyio.lowlevel.checkpoint()
    # Not in another thread, which cancellation would leave alone with the child.
    started = await awaited(
        _child.starting(
            args,
            parent=parent,
            parent_as_stdin=parent_as_stdin,
            descriptor_limit=descriptor_limit,
            confine=confine,
            options={"bufsize": 0, **options},
        )
    )
    return Process(started)
