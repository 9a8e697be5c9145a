"""What the lines of ``/proc/self/mountinfo`` say: proc(5)."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING

from capmarshal._descriptors.moving import opened
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is not named here may ask somebody.
_LOCAL = frozenset(
    b"bcachefs btrfs erofs ext2 ext3 ext4 f2fs hugetlbfs iso9660 overlay ramfs squashfs tmpfs xfs zfs".split()
)
# Those beneath which there are mounts, and who walks through them asks nobody either.
_WALKED = _LOCAL.union(
    b"binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs mqueue proc pstore securityfs".split(),
    b"selinuxfs sysfs tracefs".split(),
)

# include/uapi/linux/stat.h, fcntl.h: of statx(2), and where the ID of a mount is in its answer.
_ID, _UNIQUE_ID, _SIZE, _AT_ID = 0x1000, 0x4000, 256, 0x90
_OF_DESCRIPTOR, _DONT_ASK = 0x1000, 0x4000


def _type_in(line: bytes) -> bytes:
    """Of the file system: it follows a lone hyphen."""
    return line.partition(b" - ")[2].split(b" ", 1)[0]


def is_local(line: bytes) -> bool:
    """Whether it is about a file system of this machine's own."""
    return _type_in(line) in _LOCAL


def id_in(line: bytes) -> int:
    """That of the mount, which goes to another one when it is unmounted."""
    return int(line.split(b" ", 1)[0])


def _directory_in(line: bytes) -> bytes:
    """Where it is mounted, with a slash at the end: a space in that, and the like, stands as an octal number."""
    place = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), line.split(b" ", 5)[4])
    return place.rstrip(b"/") + b"/"


def _id_of(number: int, which: int) -> int | None:
    """The ID of the mount that a file is on, of either kind; None where there is none of it."""
    status = ffi.new("char[]", _SIZE)
    if lib.lx_statx(number, b"", _OF_DESCRIPTOR | _DONT_ASK, which, status) < 0:
        return None
    told = ffi.buffer(status)[:]
    answered = int.from_bytes(told[:4], sys.byteorder) & which
    return int.from_bytes(told[_AT_ID : _AT_ID + 8], sys.byteorder) if answered else None


def _unique_id(line: bytes) -> int | None:
    """Of the mount, which no other ever has; None where it can't be told."""
    # While it is open, the mount is the same; what is mounted over it has another.
    with contextlib.suppress(OSError), opened(_directory_in(line), os.O_PATH) as number:
        return _id_of(number, _UNIQUE_ID) if _id_of(number, _ID) == id_in(line) else None
    return None


def unique_ids(lines: list[bytes]) -> Iterator[int]:
    """Unique IDs of the mounts of local file systems, of as many as can be asked for (Linux 6.8).

    Not of what is beneath others: on the way there, somebody might be asked.
    """
    others = tuple(_directory_in(line) for line in lines if _type_in(line) not in _WALKED)
    for line in filter(is_local, lines):
        if not _directory_in(line).startswith(others) and (unique := _unique_id(line)) is not None:
            yield unique
