"""The system calls that a confined process may make: all else is refused.

What remains is to compute, in threads too, to use descriptors that it has, to pass them on, and to open files, of which
Landlock says which.  It makes no process and no socket but pairs, reaches no other process, and changes nothing
that it shares with others: limits, priorities, the mode and times of files, who gets a socket's signals.
"""

from __future__ import annotations

import fcntl
import os
import socket
import termios
from typing import Final, NamedTuple

_LOW = 0xFFFFFFFF
_ALL = 0xFFFFFFFFFFFFFFFF


class If(NamedTuple):
    """That an argument, of which bits are looked at, has a value.

    Attributes:
        argument: which, from 0.
        value: as said.
        mask: the bits.
    """

    argument: int
    value: int
    mask: int = _ALL


# Those that are allowed whatever their arguments are, in words that name them on all architectures.
_BY_KIND = (
    # Memory.
    "brk munmap mremap mprotect madvise msync mincore membarrier mseal get_mempolicy",
    # Threads, and what the C library does for them.
    "futex futex_wait futex_wake futex_waitv futex_requeue set_robust_list rseq set_tid_address gettid sched_yield",
    "sched_getaffinity getcpu exit exit_group restart_syscall",
    # Signals, of its own.
    "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause alarm",
    "setitimer getitimer",
    # Time.
    "clock_gettime clock_getres clock_nanosleep gettimeofday nanosleep time times timerfd_create timerfd_settime",
    "timerfd_gettime",
    # Who and where it is.
    "getpid getppid getpgid getpgrp getsid getuid geteuid getgid getegid getresuid getresgid getgroups getpriority",
    "getrlimit getrusage sysinfo uname umask getcwd chdir fchdir getrandom wait4 waitid",
    # Reading and writing what it has open.
    "read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek close dup dup2 dup3 pipe pipe2",
    "eventfd eventfd2 ftruncate fallocate fsync fdatasync fadvise64 sendfile copy_file_range getdents getdents64",
    # What files and paths are like, which Landlock does not hide.
    "stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat",
    # Extended attributes may be anything: those of files that it has open.
    "fgetxattr flistxattr",
    # Waiting.
    "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2",
    # Sockets that it has.
    "sendmsg recvfrom recvmsg accept accept4 getsockopt getsockname getpeername",
)
ANY: Final = frozenset(name for names in _BY_KIND for name in names.split())

# Of directories that it may write in: Landlock looks at each but the last, by which others wait, at what is read too.
WRITING: Final = frozenset(
    ("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "flock")
)
# Landlock looks at it from its third version on.
TRUNCATING: Final = frozenset({"truncate"})

# What says that all is well, and does nothing: how large the queue of a socket is to be, which others may share, is but
# a hint.  Trio gives it of the pair that wakes its loop.
IGNORED: Final = tuple(
    ("setsockopt", (If(1, socket.SOL_SOCKET, _LOW), If(2, option, _LOW)))
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF)
)

# What callers have another way for, where the kernel is too old to have it: the arguments lie in memory, where a filter
# can't look.
UNKNOWN: Final = ("clone3", "openat2")

# include/uapi/linux/sched.h: what the C libraries make threads with, all of them.  A thread with a table of
# descriptors, or a directory, of its own is none of theirs; musl's has CLONE_DETACHED besides, which means nothing.
_THREAD = 0x003D0F00
_DETACHED = 0x00400000

# include/uapi/linux/fs.h, memfd.h, close_range.h, prctl.h, asm/prctl.h.
_FIOCLEX, _FIONCLEX = 0x5451, 0x5450
_TCGETS2 = 0x802C542A
_MAP_HUGETLB = 0x40000
_MEMFD_PLAIN = 0x1 | 0x2 | 0x8 | 0x10
_CLOSE_RANGE_UNSHARE = 2
_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA = 15, 16, 0x53564D41
_ARCH_GET_XCOMP_SUPP, _ARCH_GET_XCOMP_PERM, _ARCH_REQ_XCOMP_PERM = 0x1021, 0x1022, 0x1023
_F_DUPFD_QUERY, _F_GET_RW_HINT = 1027, 1035
_F_OFD_GETLK, _F_OFD_SETLK, _F_OFD_SETLKW = 36, 37, 38
_SET_ID_BITS = 0o6000

_FCNTL_COMMANDS = (
    fcntl.F_DUPFD,
    fcntl.F_DUPFD_CLOEXEC,
    fcntl.F_GETFD,
    fcntl.F_SETFD,
    fcntl.F_GETFL,
    fcntl.F_GETLK,
    _F_OFD_GETLK,
    fcntl.F_ADD_SEALS,
    fcntl.F_GET_SEALS,
    fcntl.F_GETPIPE_SZ,
    _F_DUPFD_QUERY,
    _F_GET_RW_HINT,
)
# Who may write takes locks, as sqlite does; else it would be on others' files, who would wait.
_LOCKS = (fcntl.F_SETLK, fcntl.F_SETLKW, _F_OFD_SETLK, _F_OFD_SETLKW)
_IOCTLS = (
    termios.TCGETS,
    _TCGETS2,
    termios.TIOCGWINSZ,
    termios.FIONREAD,
    termios.TIOCOUTQ,
    termios.FIONBIO,
    _FIOCLEX,
    _FIONCLEX,
)


def _opening(call: str, flags: int, *, writes: bool) -> list[tuple[str, tuple[If, ...]]]:
    """How files may be opened: the flags are that argument, and the mode is the next."""
    if not writes:
        # /proc/self/fd leads to pipes and memfds, past Landlock: what came for reading is not to be written to.
        return [(call, (If(flags, 0, os.O_ACCMODE | os.O_CREAT | os.O_TRUNC),))]
    # What is opened for reading is not truncated: Landlock looks at that from its third version on.
    ways = If(flags, 0, os.O_TRUNC), If(flags, os.O_WRONLY, os.O_ACCMODE), If(flags, os.O_RDWR, os.O_ACCMODE)
    return [(call, (way, If(flags + 1, 0, _SET_ID_BITS))) for way in ways]


def with_arguments(*, writes: bool) -> list[tuple[str, tuple[If, ...]]]:
    """Those that are allowed with some arguments: one line each, and all that it says must be so.

    Args:
        writes: there are directories that this process may write in.
    """
    own = os.getpid()
    sort, kinds = ~(socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) & _LOW, (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
    return [
        ("clone", (If(0, _THREAD, _LOW & ~_DETACHED),)),
        ("mmap", (If(3, 0, _MAP_HUGETLB),)),
        ("memfd_create", (If(1, 0, _LOW & ~_MEMFD_PLAIN),)),
        ("close_range", (If(2, 0, _CLOSE_RANGE_UNSHARE),)),
        *(("fcntl", (If(1, command),)) for command in (*_FCNTL_COMMANDS, *(_LOCKS if writes else ()))),
        # Signals of a socket's, to whoever its holders have named; and reads and writes by the block, of others' too.
        ("fcntl", (If(1, fcntl.F_SETFL), If(2, 0, os.O_ASYNC | os.O_DIRECT))),
        *(("ioctl", (If(1, request, _LOW),)) for request in _IOCTLS),
        *(("prctl", (If(0, option, _LOW),)) for option in (_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA)),
        *(
            ("arch_prctl", (If(0, option, _LOW),))
            for option in (_ARCH_GET_XCOMP_SUPP, _ARCH_GET_XCOMP_PERM, _ARCH_REQ_XCOMP_PERM)
        ),
        # Of this process alone.
        *(("prlimit64", (If(0, pid, _LOW),)) for pid in (0, own)),
        ("setpriority", (If(0, os.PRIO_PROCESS, _LOW), If(1, 0, _LOW))),
        ("kill", (If(0, own, _LOW),)),
        ("tgkill", (If(0, own, _LOW),)),
        # No sockets but pairs that records cannot leave by name: a datagram's can, with descriptors.
        *(("socketpair", (If(0, socket.AF_UNIX, _LOW), If(1, kind, sort), If(2, 0, _LOW))) for kind in kinds),
        ("sendto", (If(4, 0),)),
        ("setsockopt", (If(1, socket.SOL_SOCKET, _LOW), If(2, socket.SO_PASSCRED, _LOW))),
        *_opening("openat", 2, writes=writes),
        *_opening("open", 1, writes=writes),
    ]
