"""Processes, as /proc has them: what they are called, which sockets they have open, and what their epoll sets watch."""

from __future__ import annotations

import errno
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from capmarshal._descriptors.moving import opened
from capmarshal._kernel.errors import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_SOCKET, _EPOLL = re.compile(r"socket:\[(\d+)\]"), "anon_inode:[eventpoll]"
_WATCHED = re.compile(r"^tfd:.* ino:([0-9a-f]+)", re.MULTILINE)
_FLAGS_OF_IT = re.compile(r"^flags:\s*([0-7]+)", re.MULTILINE)
_TRAVELLING = re.compile(r"^scm_fds:\s*(\d+)", re.MULTILINE)
# Of a command line, which may be as long as memory; and of the words that are shown.
_READ, _SHOWN = 4096, 48
# Python, and its options that take a word: letters, which may stand together and have their word at once, and others.
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*[a-z]*(?:-dbg)?")
_ENDING, _WITH_A_WORD = "cm", "WX"
_LONG_WITH_A_WORD = ("--check-hash-based-pycs", "--jit")
# What begins a confined or limited process, and has two words of its own before the program's.
_LAUNCHER, _OF_LAUNCHER = "capmarshal/_child/launcher.py", 2
# proc_pid_stat(5): PF_KTHREAD (linux/sched.h), and where the fields behind the name begin.
_KERNEL_THREAD = 0x200000
_STATE, _PARENT, _FLAGS, _USER_TICKS, _SYSTEM_TICKS = 0, 1, 6, 11, 12
_STOPPED = "Tt"


@dataclass(frozen=True, slots=True)
class Process:
    """One process that can be looked into.

    Attributes:
        pid: in this process's PID namespace.
        name: for people: its program, and of an interpreter what that runs; whoever runs it has chosen it.
        parent: the process that it is a child of.
        user: whose it is.
        state: a letter, proc_pid_stat(5).
        network: its network namespace.
        sockets: inode -> the numbers under which it is open.
        watched: the inodes of the sockets in each of its epoll sets.
    """

    pid: int
    name: str
    parent: int
    user: int
    state: str
    network: int
    sockets: dict[int, list[int]] = field(default_factory=dict)
    watched: list[frozenset[int]] = field(default_factory=list)

    @property
    def stopped(self) -> bool:
        """Whether it was stopped by a signal, or by a debugger."""
        return self.state in _STOPPED


@dataclass(frozen=True, slots=True)
class Closed:
    """One that cannot be looked into.

    Attributes:
        pid: likewise.
        user: whose it is.
    """

    pid: int
    user: int


def processes() -> tuple[dict[int, Process], list[Closed]]:
    """Those that are there and can be looked into, and the others; without threads of the kernel's.

    What ends meanwhile is in neither.

    Raises:
        OSError: there is no /proc.
    """
    if not (_PROC / "self").exists():
        raise OSError(errno.ENOENT, "no proc(5) is mounted at /proc, which would tell of processes")
    seen, closed = {}, []
    for pid in sorted(int(path.name) for path in _PROC.iterdir() if path.name.isdigit()):
        try:
            with _folder(pid) as folder:
                try:
                    seen[pid] = _process(pid, folder)
                except PermissionError:
                    if not int(_status(folder)[_FLAGS]) & _KERNEL_THREAD:
                        closed.append(Closed(pid, os.fstat(folder).st_uid))
        # It ended: no entry, or no process behind an entry that is open.
        except (FileNotFoundError, ProcessLookupError):
            continue
    return seen, closed


def sockets_of(pid: int) -> dict[int, list[int]]:
    """The inodes of its sockets -> the numbers under which they are open.

    Raises:
        OSError: there is no such process, it has ended, or it is another user's.
    """
    with _folder(pid) as folder:
        return _opened(folder)[0]


def processor_time(pid: int) -> int:
    """How much it has had, in ticks of the clock that proc_pid_stat(5) names; 0 of one that has ended."""
    with suppress(OSError), _folder(pid) as folder:
        status = _status(folder)
        return int(status[_USER_TICKS]) + int(status[_SYSTEM_TICKS])
    return 0


def travelling_to(pid: int, number: int) -> int | None:
    """How many descriptors wait in a socket's queue to be received; None where the kernel does not tell.

    Args:
        pid: a process.
        number: a descriptor of its, a socket.
    """
    with suppress(OSError), _folder(pid) as folder:
        found = _TRAVELLING.search(_text(f"fdinfo/{number}", folder))
        return int(found[1]) if found else None
    return None


def never_blocks(pid: int, number: int) -> bool:
    """Whether a descriptor of a process has O_NONBLOCK."""
    with suppress(OSError), _folder(pid) as folder:
        found = _FLAGS_OF_IT.search(_text(f"fdinfo/{number}", folder))
        return found is not None and bool(int(found[1], 8) & os.O_NONBLOCK)
    return False


@contextmanager
def _folder(pid: int) -> Iterator[int]:
    """Of one process: once it has ended, nothing is in it, whoever has the number then."""
    with opened(_PROC / str(pid), os.O_PATH | os.O_DIRECTORY) as number:
        yield number


def _process(pid: int, folder: int) -> Process:
    sockets, epolls = _opened(folder)
    watched = []
    for number in epolls:
        # Closed meanwhile.
        with suppress(FileNotFoundError):
            found = _WATCHED.findall(_text(f"fdinfo/{number}", folder))
            watched.append(frozenset(int(inode, 16) for inode in found).intersection(sockets))
    status = _status(folder)
    network = os.stat("ns/net", dir_fd=folder).st_ino
    parent = int(status[_PARENT])
    return Process(pid, _called(folder), parent, os.fstat(folder).st_uid, status[_STATE], network, sockets, watched)


def _opened(folder: int) -> tuple[dict[int, list[int]], list[int]]:
    """Its sockets, and the numbers of its epoll sets."""
    sockets: dict[int, list[int]] = {}
    epolls = []
    for name in os.listdir(f"/proc/self/fd/{folder}/fd"):  # noqa: PTH208 - of a number
        # Another thread of that process may have closed it meanwhile.
        with suppress(FileNotFoundError):
            what = os.readlink(f"fd/{name}", dir_fd=folder)
            if found := _SOCKET.fullmatch(what):
                sockets.setdefault(int(found[1]), []).append(int(name))
            elif what == _EPOLL:
                epolls.append(int(name))
    return sockets, epolls


def _read(path: str, folder: int, most: int = -1) -> bytes:
    # Of C alone: Ctrl-C comes between no two steps of that.
    opener = partial(os.open, dir_fd=folder)
    with open(path, "rb", buffering=0, opener=opener) as file:
        return file.read(most)


def _text(path: str, folder: int) -> str:
    return _read(path, folder).decode("utf-8", "backslashreplace")


def _status(folder: int) -> list[str]:
    """The fields from the state on: before it there is a name, in which anything may be."""
    return _text("stat", folder).rpartition(")")[2].split()


def _called(folder: int) -> str:
    # An empty word is one, too: which of them is an argument depends on how many there are.
    line = _read("cmdline", folder, _READ).rstrip(b"\0")
    words = [word.decode("utf-8", "backslashreplace") for word in line.split(b"\0")] if line else []
    name = " ".join(_program(words)) if words else _text("comm", folder).removesuffix("\n")
    return shortened(printable(name), _SHOWN)


def _program(words: list[str]) -> Iterator[str]:
    """The words that say what runs: arguments are nobody's business, and may be secrets."""
    if not words:
        return
    program = os.path.basename(words[0])  # noqa: PTH119 - it need not be a path
    yield program
    if not _PYTHON.fullmatch(program):
        return
    rest = iter(words[1:])
    for word in rest:
        if word == "--":
            word = next(rest, "")  # a script, whatever it begins with
        elif word.startswith("--"):
            if word in _LONG_WITH_A_WORD:
                next(rest, "")
            continue
        elif word.startswith("-") and word != "-":
            option, value = _last_option(word[1:])
            if option in _ENDING:
                yield f"-{option}"
                if option == "m":
                    yield value or next(rest, "")
                return
            if option in _WITH_A_WORD and not value:
                next(rest, "")
            continue
        if word.endswith(_LAUNCHER):
            yield from _program([*rest][_OF_LAUNCHER:])
        else:
            yield os.path.basename(word)  # noqa: PTH119 - likewise
        return


def _last_option(letters: str) -> tuple[str, str]:
    """Of options that stand together the one that takes a word, or the last; and what of its word stands there, too."""
    for place, letter in enumerate(letters):
        if letter in _ENDING + _WITH_A_WORD:
            return letter, letters[place + 1 :]
    return letters[-1], ""
