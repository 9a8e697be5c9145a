"""What a confined process may have, as people say it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from capmarshal._kernel.numbers import check_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

# What may be missing, and what it then does not do.
PARTS: Final = {
    "landlock": "its files are those that its user may open",
    "scopes": "a datagram socket that it is given sends to whoever has an abstract name, and it signals by one",
    "seccomp": "it makes any system call: starts processes, connects, and signals who has the same user",
    "threads": "how many threads it has is bounded by what its user may have",
}

# Python and this package map so much before they run anything.
_MEMORY_MIN = 64 << 20
# A Python interpreter needs some to start.
DESCRIPTORS_MIN: Final = 16
# Programs need a dozen or two.  What it may do to others grows with the square: each file may be watched by each set at
# each number, all of it in flight, and who makes that ready goes through all.
_DESCRIPTORS = 64
# The kernel has limits of 63 bits; and of processor time it counts nanoseconds, in 64.
_MOST, _CPU_MOST = (1 << 63) - 1, 1_000_000_000


def _has_bytes(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _paths(name: str, given: Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Absolute ones: the process may be somewhere else."""
    wrong = f"{name} takes some paths, as in {name}=[path], not {given!r}"
    if isinstance(given, str | bytes | os.PathLike):
        raise TypeError(wrong)
    try:
        paths = [os.fspath(path) for path in given]
    except TypeError:
        raise TypeError(wrong) from None
    if not all(isinstance(path, str) for path in paths):
        raise TypeError(wrong)
    for path in paths:
        if not path or "\0" in path or not _has_bytes(path):
            raise ValueError(f"{name}: {path!r} is no path")
    return tuple(os.path.abspath(path) for path in paths)  # noqa: PTH100 - of str, and no link is followed


def _number(name: str, number: int | None, unit: str, least: int, most: int = _MOST) -> int | None:
    if number is not None:
        check_whole(number, f"{name} is a whole number of {unit}, {least} or more, or None; not {number!r}", least)
        check_whole(number, f"{name} is {most} at most, or None, not {number!r}", least, most)
    return number


def _parts(given: Iterable[str]) -> tuple[str, ...]:
    known = ", ".join(map(repr, PARTS))
    wrong = f"missing takes names of parts, as in missing=['threads'], of {known}; not {given!r}"
    if isinstance(given, str | bytes):
        raise TypeError(wrong)
    try:
        parts = tuple(given)
    except TypeError:
        raise TypeError(wrong) from None
    for part in parts:
        if part not in (*PARTS,):
            raise ValueError(f"missing: there is no part {part!r}, but {known}")
    return parts


class Confinement:
    """What a process may have that runs code which nobody trusts; it is bound so for good.

    It computes, in threads too, uses the descriptors and capabilities that it holds and is given, and passes them on.
    It reads what is installed with Python, and makes memfds, pipes and pairs of sockets.  All else is refused, as a
    PermissionError: other files, sockets, processes, signals, other processes' limits, programs, namespaces.  It sees
    names and metadata of paths.

    Args:
        read: paths; it reads files beneath them, and lists directories.  A file that is spawned finds modules in
            directories that are named here.
        write: paths of files, or of directories beneath which it also writes, makes, renames and removes files and
            directories, but no symbolic links.  Where there is none, it opens nothing for writing, ``/dev/null``
            neither, and takes no locks; else it does so of what it reads, too.
        memory: bytes that it maps at most, and that each file and memfd of its has at most.  How many of these there
            are, nothing bounds but a cgroup: a memfd needs no descriptor to live.
        cpu: seconds of processor time, of all its threads; then SIGXCPU ends it.
        threads: how many it has at most, counted by themselves in a user namespace of its own (Linux 5.14): it sees
            all users but its own as nobody.  Not for root.
        descriptors: how many it has open at most, and as many again in flight.  With the square of that grows what a
            hostile one may take of its user's epoll watches, and of the time of whoever answers it.
        missing: names of parts that are done without where the kernel or the system lacks them: ``"landlock"``,
            ``"scopes"`` (of Landlock's, Linux 6.12), ``"seccomp"`` (libseccomp included), ``"threads"``.

    Raises:
        TypeError, ValueError: it is not what it should be.
    """

    __slots__ = ("cpu", "descriptors", "memory", "missing", "read", "threads", "write")

    def __init__(
        self,
        *,
        read: Iterable[str | os.PathLike[str]] = (),
        write: Iterable[str | os.PathLike[str]] = (),
        memory: int | None = None,
        cpu: int | None = None,
        threads: int | None = None,
        descriptors: int = _DESCRIPTORS,
        missing: Iterable[str] = (),
    ) -> None:
        self.read: tuple[str, ...] = _paths("read", read)
        self.write: tuple[str, ...] = _paths("write", write)
        self.memory: int | None = _number("memory", memory, "bytes", _MEMORY_MIN)
        self.cpu: int | None = _number("cpu", cpu, "seconds", 1, _CPU_MOST)
        self.threads: int | None = _number("threads", threads, "threads", 1)
        wrong = f"descriptors is a whole number, {DESCRIPTORS_MIN} or more, not {descriptors!r}"
        check_whole(descriptors, wrong, DESCRIPTORS_MIN)
        check_whole(descriptors, f"descriptors is {_MOST} at most, not {descriptors!r}", DESCRIPTORS_MIN, _MOST)
        self.descriptors: int = descriptors
        self.missing: tuple[str, ...] = _parts(missing)

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in data_of(self).items() if value not in (None, []))
        return f"Confinement({told})"


def data_of(confinement: Confinement) -> dict[str, Any]:
    """One as that of which JSON is made."""
    values = ((name, getattr(confinement, name)) for name in sorted(Confinement.__slots__))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values}
