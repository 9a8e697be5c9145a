"""Which files are on a file system of this machine's own, and that it is noticed when mounts change."""

import ctypes
import os
import select
from pathlib import Path

import pytest

from capmarshal import Descriptor
from capmarshal._descriptors import mountinfo, reaper
from capmarshal._descriptors import mounts as _mounts
from capmarshal._descriptors.mountinfo import is_local
from capmarshal._descriptors.mounts import Mounts, mounts
from capmarshal._kernel.native import lib
from patience import PATIENCE
from slow_closing import has_seals

CLONE_NEWNS, CLONE_NEWUSER, MS_PRIVATE, MS_REC = 0x20000, 0x10000000, 1 << 18, 1 << 14


def closing(path, known):
    with Descriptor(os.open(path, os.O_RDONLY)) as file:
        return lib.cm_closing(file.fileno(), known.struct)


@pytest.mark.parametrize(
    ("line", "local"),
    [
        (b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext4 /dev/root rw,errors=continue", True),
        (b"36 35 0:39 / /mnt rw - tmpfs tmpfs rw", True),
        (b"36 35 0:39 / /mnt rw shared:1 master:2 propagate_from:3 - overlay overlay rw,lowerdir=/a", True),
        (b"36 35 0:39 / /mnt\\040-\\040ext4 rw - fuse.sshfs host: rw", False),
        (b"36 35 0:39 / /mnt rw - nfs4 server:/ rw", False),
        (b"36 35 0:39 / /mnt rw - cifs //server/x rw", False),
        (b"36 35 0:39 / /mnt rw - 9p root rw", False),
        (b"36 35 0:39 / /mnt rw - fuseblk /dev/sda rw", False),
        (b"36 35 0:39 / /proc rw - proc proc rw", False),
        (b"36 35 0:39 / /mnt rw", False),
        (b"", False),
    ],
)
def test_what_is_local_is_told_by_the_type(line, local):
    """Which stands behind a lone hyphen; what is not known as local may ask a server."""
    assert is_local(line) == local


def test_a_file_here_is_local_and_one_of_proc_is_not(tmp_path):
    """As the kernel has it."""
    known = Mounts()
    known.open()
    (tmp_path / "file").touch()
    assert closing(tmp_path / "file", known) == lib.CM_CLOSES_FILE
    assert closing("/proc/self/status", known) == lib.CM_MAY_BLOCK
    known._mountinfo.close()


def test_what_was_asked_about_before_changes_nothing(tmp_path):
    """Neither for a memfd after a file, nor for a file after a memfd, nor for one without a name after either."""
    known, path = Mounts(), tmp_path / "file"
    known.open()
    path.touch()
    with Descriptor(os.memfd_create("sealed")) as memfd, Descriptor(os.open(path, os.O_RDONLY)) as file:
        unnamed = Descriptor(os.open(path, os.O_RDONLY))
        frees = lib.CM_CLOSES_FILE if has_seals(path) else lib.CM_FREES_FILE
        with unnamed:
            with Descriptor(os.open("/proc/self/status", os.O_RDONLY)) as of_proc:
                for _ in range(2):
                    asked = [lib.cm_closing(each.fileno(), known.struct) for each in (file, file, memfd, memfd, file)]
                    assert asked == [lib.CM_CLOSES_FILE] * 5
                    assert lib.cm_closing(of_proc.fileno(), known.struct) == lib.CM_MAY_BLOCK
            path.unlink()
            for before in (memfd, unnamed, memfd, memfd):
                lib.cm_closing(before.fileno(), known.struct)
                assert lib.cm_closing(unnamed.fileno(), known.struct) == frees
    known._mountinfo.close()


@pytest.mark.skipif(has_seals(os.__file__), reason="the standard library is on tmpfs, which tells of itself")
def test_without_proc_every_file_may_block(monkeypatch):
    """Nothing is known, and all works by the reaper."""
    monkeypatch.setattr(_mounts, "_PATH", b"/nonexistent")
    known = Mounts()
    known.open()
    assert known.struct.mountinfo == -1
    assert closing(os.__file__, known) == lib.CM_MAY_BLOCK


def test_what_cannot_be_opened_is_not_tried_at_every_close(monkeypatch):
    """But again after a while: the table may have been full."""
    monkeypatch.setattr(_mounts, "_PATH", b"/nonexistent")
    known = Mounts()
    known.open()
    monkeypatch.undo()
    known.open()
    assert known.struct.mountinfo == -1
    known._again_at = 0.0
    known.open()
    assert known.struct.mountinfo >= 3
    known._mountinfo.close()


def libc_call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def unshare_mounts():
    """Has this process see mounts of its own; an ordinary user may, in a user namespace of its own."""
    users = {"uid_map": os.getuid(), "gid_map": os.getgid()}
    try:
        libc_call("unshare", CLONE_NEWNS)
    except PermissionError:
        libc_call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
        # user_namespaces(7): without it, no group is mapped by an ordinary user.
        Path("/proc/self/setgroups").write_text("deny")
        for name, number in users.items():
            Path(f"/proc/self/{name}").write_text(f"{number} {number} 1")


def in_own_namespace(fork, function):
    """What a function gives in a child that leaves the mounts of others alone; skips where none may be made."""

    def child():
        try:
            unshare_mounts()
            libc_call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        except OSError as error:
            return str(error), None
        return "", function()

    why, result = fork(child).result()
    if why:
        pytest.skip(f"no mount namespace of its own: {why}")
    return result


def test_a_file_of_a_new_mount_is_known_as_soon_as_there_is_one(fork, tmp_path):
    """And that of one that is gone no more: the list is made anew when the kernel says that mounts changed."""
    where = os.fsencode(tmp_path)

    def child():
        known = Mounts()
        known.open()
        libc_call("mount", b"none", where, b"ramfs", 0, None)
        (tmp_path / "file").touch()
        stale = closing(tmp_path / "file", known)
        # Whoever asks next is told too, though poll(2) tells it once.
        poll = select.poll()
        poll.register(known.struct.mountinfo, select.POLLPRI)
        told_once = poll.poll(0) == [], closing(tmp_path / "file", known) == stale
        known.read()
        local = closing(tmp_path / "file", known)
        with Descriptor(os.open(tmp_path / "file", os.O_RDONLY)) as file:
            # Detached: open still, and on nothing that is mounted.
            libc_call("umount2", where, 2)
            assert lib.cm_closing(file.fileno(), known.struct) == stale
            known.read()
            gone = lib.cm_closing(file.fileno(), known.struct)
        return stale, told_once, local == lib.CM_CLOSES_FILE, gone

    assert in_own_namespace(fork, child) == (-116, (True, True), True, lib.CM_MAY_BLOCK)


def test_the_reaper_makes_the_list_anew(fork, tmp_path):
    """A file of a new mount is closed on the spot."""
    where = os.fsencode(tmp_path)

    def child():
        # This namespace's, not that of the parent.
        mounts._mountinfo.close()
        mounts.open()
        libc_call("mount", b"none", where, b"ramfs", 0, None)
        (tmp_path / "file").touch()
        numbers = [os.open(tmp_path / "file", os.O_RDONLY) for _ in range(3)]
        closed = reaper.close([Descriptor(number) for number in numbers[:2]]), reaper.close([os.fdopen(numbers[2])])
        libc_call("umount2", where, 2)
        return closed, reaper.wait(PATIENCE)

    assert in_own_namespace(fork, child) == ((True, True), True)


def test_a_child_asks_for_itself(fork, tmp_path):
    """What poll(2) has told is kept with the open file: a child that shared its parent's would take it away."""
    mounts.open()
    (tmp_path / "file").touch()
    parents = mounts.struct.mountinfo

    def child():
        ours = mounts.struct.mountinfo
        return ours >= 3, closing(tmp_path / "file", mounts), os.path.sameopenfile(ours, parents)

    opened, how, _ = fork(child).result()
    assert (opened, how) == (True, lib.CM_CLOSES_FILE)


def _unique_mounts():
    known = Mounts()
    known.keep(known.for_good())
    if not known.struct.count:
        pytest.skip("this kernel has no unique IDs of mounts (Linux 6.8)")
    return known


def test_what_is_known_for_good_is_known_without_mountinfo(tmp_path):
    """By IDs that no other mount ever has; what is not local is not."""
    known = _unique_mounts()
    (tmp_path / "file").touch()
    assert closing(tmp_path / "file", known) == lib.CM_CLOSES_FILE
    assert closing("/proc/self/status", known) == lib.CM_MAY_BLOCK
    known.open()
    assert (known._mountinfo.number, known.struct.unique) == (-1, 1)


def test_a_mount_that_comes_later_is_not_known_for_good(fork, tmp_path):
    """Not either where it has the place, and the number, of one that was there."""

    def numbers(place):
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        return [line.split()[0] for line in lines if line.split()[4] == os.fsencode(place)]

    def child():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_PRIVATE | MS_REC, None):
            return None
        place = os.fsencode(tmp_path)
        if libc.mount(b"none", place, b"tmpfs", 0, None):
            return None
        known = _unique_mounts()
        first = closing(tmp_path, known), numbers(place)
        assert libc.umount2(place, 0) == 0
        assert libc.mount(b"none", place, b"ramfs", 0, None) == 0
        return first, (closing(tmp_path, known), numbers(place))

    _unique_mounts()
    told = fork(child).result()
    if told is None:
        pytest.skip("nothing is mounted here")
    (before, first), (after, second) = told
    assert first == second
    assert (before, after) == (lib.CM_CLOSES_FILE, lib.CM_MAY_BLOCK)


def test_what_changes_while_it_is_made_is_not_known_for_good(monkeypatch):
    """A number may be of another mount already."""
    changes = iter([0, select.POLLPRI])

    class _Changing:
        def __getattr__(self, name):
            return getattr(lib, name)

        def cm_wait(self, number, events, deadline):
            return next(changes)

    known = Mounts()
    monkeypatch.setattr(_mounts, "lib", _Changing())
    assert known.for_good() == []
    assert known.struct.stale == 1
    known._mountinfo.close()


@pytest.mark.parametrize(
    ("lines", "asked"),
    [
        ([b"1 0 8:1 / / rw - ext4 a rw", b"2 1 0:5 / /a rw - tmpfs b rw"], [b"/", b"/a/"]),
        ([b"1 0 8:1 / / rw - ext4 a rw", b"2 1 0:5 / /a\\040b rw - tmpfs b rw"], [b"/", b"/a b/"]),
        ([b"1 0 8:1 / / rw - nfs a rw", b"2 1 0:5 / /a rw - tmpfs b rw"], []),
        (
            [b"1 0 8:1 / /a rw - fuse.x a rw", b"2 1 0:5 / /a/b rw - ext4 b rw", b"3 1 0:5 / /ab rw - xfs c rw"],
            [b"/ab/"],
        ),
        ([b"1 0 8:1 / /dev rw - devtmpfs a rw", b"2 1 0:5 / /dev/shm rw - tmpfs b rw"], [b"/dev/shm/"]),
    ],
)
def test_nobody_is_asked_on_the_way_to_a_mount(monkeypatch, lines, asked):
    """What is beneath another machine's file system is passed over."""
    opened = []

    def refuse(path, flags):
        opened.append(path)
        raise FileNotFoundError

    monkeypatch.setattr(mountinfo, "opened", refuse)
    assert list(mountinfo.unique_ids(lines)) == []
    assert opened == asked
