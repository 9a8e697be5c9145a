"""A child process that holds nothing but the capability that its parent gave it.

The parent capability's descriptor is inherited; which number that is, and the badge, are written into a memfd that is
inherited beside it and recognised by its name.  So neither stands in an argument or an environment variable, which any
list of processes shows.  The child takes both when it imports capmarshal: it makes them CLOEXEC and closes the memfd,
so that nothing goes on to its own children.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import struct
from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import Capability, badge_of, open_door_of
from capmarshal._capabilities.identity import cookies_of, require_cookies
from capmarshal._capabilities.space import space
from capmarshal._descriptors import private
from capmarshal._descriptors.descriptor import Descriptor
from capmarshal._descriptors.moving import made
from capmarshal._kernel.errors import Error, NoParent
from capmarshal._kernel.native import lib
from capmarshal._protocol import wire

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

_MEMFD_NAME = "capmarshal-parent"
_DESCRIPTORS = "/proc/self/fd"
# What a link there says of it: memfd_create(2).
_LINK = f"/memfd:{_MEMFD_NAME} (deleted)"
_HANDOVER = struct.Struct(f"=16sBi{wire.BADGE_SIZE}s")
_MAGIC = b"capmarshal parent"[:16]
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL

# A Python interpreter needs some to start.
_LIMIT_MIN = 16

_parent: Capability | None = None


def _handover(door: int, badge: bytes) -> Descriptor:
    """The memfd that tells the child what it inherits; the caller owns it."""
    # Above the standard streams, as all that is made here: Popen's cannot overwrite it in the child.
    name = _MEMFD_NAME.encode()
    memfd = made(lambda place: lib.cm_make_memfd(place, name), "handing the parent capability over", Descriptor)
    try:
        os.pwrite(memfd.fileno(), _HANDOVER.pack(_MAGIC, wire.VERSION, door, badge), 0)
        fcntl.fcntl(memfd.fileno(), fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        memfd.close()
        raise
    return memfd


def _limit(descriptors: int, then: Callable[[], object] | None) -> Callable[[], object]:
    """What runs in the child before its exec: from there on it cannot raise the limit again.

    Raises:
        ValueError: more than this process may give, or too few to start with.
        TypeError: no whole number.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wrong = f"a descriptor limit is {_LIMIT_MIN} to {hard} (this process's hard one), not {descriptors!r}"
    if not isinstance(descriptors, int) or isinstance(descriptors, bool):
        raise TypeError(wrong)
    if not _LIMIT_MIN <= descriptors <= hard:
        raise ValueError(wrong)

    def before_exec() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        if then is not None:
            then()

    return before_exec


def spawn(
    args: Sequence[str | os.PathLike[str]] | str,
    *,
    parent: Capability,
    descriptor_limit: int | None = None,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Starts a child process that inherits one capability, which it gets from :func:`parent`.

    The child, and only the child, inherits the descriptor: it goes no further than its first exec.  It knows of nobody
    else, unless somebody tells it.

    Args:
        args: as for :class:`subprocess.Popen`.
        parent: the capability to give; borrowed.
        descriptor_limit: the child's hard RLIMIT_NOFILE, for one that is not to be trusted with more: it bounds what
            the child can have open, and its share of what its user may have in flight, which is counted over all of a
            user's processes (ETOOMANYREFS).  Unless it is privileged, the child cannot raise it.
        options: as for :class:`subprocess.Popen`.  ``close_fds`` must stay True.

    Returns:
        The process, to be waited for.

    Raises:
        ValueError: ``close_fds=False``, or a descriptor limit that cannot be given.
        TypeError: ``parent`` is no capability, or the limit no number.
        Closed: the capability is closed.
        OSError: as from :class:`subprocess.Popen`.
    """
    # Imported when used: 3 ms of every start otherwise, also of those that spawn nobody.
    import subprocess

    if not options.get("close_fds", True):
        raise ValueError("close_fds=False would hand everything down; name what the child needs in pass_fds")
    if not isinstance(parent, Capability):
        raise TypeError(f"parent must be a Capability, not {parent!r}; capability() gives that of a proxy or an object")
    if descriptor_limit is not None:
        options["preexec_fn"] = _limit(descriptor_limit, options.get("preexec_fn"))
    door = open_door_of(parent)
    with contextlib.ExitStack() as inherited:
        memfd = inherited.enter_context(_handover(door.number, badge_of(parent)))
        passed = (*options.pop("pass_fds", ()), door.number, memfd.fileno())
        return subprocess.Popen(args, pass_fds=passed, **options)  # noqa: S603 - what to run is the caller's to say


def parent() -> Capability:
    """The capability that this process was given when it was created; the same object each time.

    Raises:
        NoParent: it was given none: it was not started by :func:`spawn`.
        KernelError: this machine does not tell sockets apart (SO_COOKIE), so that it would not know it.
    """
    if _parent is None:
        with contextlib.ExitStack() as tried:
            ends = [tried.enter_context(contextlib.closing(end)) for end in private.make_pair("trying a socket")]
            require_cookies(ends[0].number)
        raise NoParent("this process inherited no capability: capmarshal.spawn() starts one that does")
    return _parent


def _take(memfd: Descriptor) -> Capability | None:
    """What a handover tells; None if it is not ours to read, or not for us."""
    with contextlib.suppress(OSError, struct.error, Error):
        if fcntl.fcntl(memfd.fileno(), fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            return None
        magic, version, number, badge = _HANDOVER.unpack(os.pread(memfd.fileno(), _HANDOVER.size + 1, 0))
        if magic != _MAGIC or version != wire.VERSION:
            return None
        if not cookies_of([number])[0]:
            # Whatever has that number, it is not ours to close.
            return None
        with Descriptor(number) as door:
            os.set_inheritable(number, False)
            return space.capability(space.receive_door(door, None), badge)
    return None


def _inherit() -> None:
    """Takes over what this process was given, once, when capmarshal is imported."""
    global _parent  # a process has one
    with contextlib.suppress(OSError):
        # Not by pathlib: this is done at every start, and importing that costs more than all of the rest here.
        for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - pathlib is slow to import
            with contextlib.suppress(OSError):
                # One that is not inheritable was made here: this process is about to spawn.
                link = os.readlink(f"{_DESCRIPTORS}/{name}")  # noqa: PTH115 - pathlib is slow to import
                if link == _LINK and os.get_inheritable(int(name)):
                    with Descriptor(int(name)) as memfd:
                        _parent = _take(memfd) or _parent


_inherit()
