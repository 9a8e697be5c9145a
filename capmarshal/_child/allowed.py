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
    "brk munmap mremap mprotect msync mincore mseal get_mempolicy",
    # Threads, and what the C library does for them.
    "futex_wait futex_wake futex_waitv futex_requeue set_robust_list rseq set_tid_address gettid sched_yield",
    "getcpu exit exit_group restart_syscall",
    # Signals, of its own.
    "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause alarm",
    "setitimer getitimer",
    # Time.
    "gettimeofday nanosleep time times timerfd_create timerfd_settime timerfd_gettime",
    # Who and where it is.
    "getpid getppid getpgrp getuid geteuid getgid getegid getresuid getresgid getgroups",
    "getrlimit getrusage sysinfo uname umask getcwd chdir fchdir getrandom wait4 waitid",
    # Reading and writing what it has open.
    "read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek close dup dup2 dup3 pipe eventfd",
    "eventfd2 ftruncate fallocate fsync fdatasync sendfile copy_file_range getdents getdents64",
    # What files and paths are like, which Landlock does not hide.
    "stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat",
    # Extended attributes may be anything: those of files that it has open.
    "fgetxattr flistxattr",
    # Waiting.
    "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2",
    # Sockets that it has.
    "recvfrom recvmsg accept accept4 getsockname getpeername",
)
ANY: Final = frozenset(name for names in _BY_KIND for name in names.split())

# Of directories that it may write in: Landlock looks at each but the last, by which others wait, at what is read too.
WRITING: Final = frozenset(
    ("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "link", "linkat", "flock")
)
# Landlock looks at it from its third version on.
TRUNCATING: Final = frozenset({"truncate"})

# What says that all is well, and does nothing, for it is but a hint: how large the queue of a socket is to be (trio, of
# the pair that wakes its loop), or how soon a connection sends (asyncio and uvloop, of each that they are given),
# which others may share; and that a file is not needed in memory any more.
_HINTS = (
    (socket.SOL_SOCKET, socket.SO_SNDBUF),
    (socket.SOL_SOCKET, socket.SO_RCVBUF),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
)
IGNORED: Final = (
    *(("setsockopt", (If(1, level, _LOW), If(2, option, _LOW))) for level, option in _HINTS),
    ("fadvise64", (If(3, os.POSIX_FADV_DONTNEED, _LOW),)),
)

# What callers have another way for, where the kernel is too old to have it: the arguments lie in memory, where a filter
# can't look.
UNKNOWN: Final = ("clone3", "openat2")

# include/uapi/linux/futex.h: to wait and to wake; and locks that inherit priority, which name a thread by its number,
# anybody's, and are not there in each kernel (CONFIG_FUTEX_PI).
_PRIVATE, _REALTIME = 128, 256
_WAITS_AND_WAKES = (0, 1, 3, 4, 5, 9, 10)
_INHERIT_PRIORITY = (6, 7, 8, 11, 12, 13)


def _futex(operation: int) -> tuple[If, ...]:
    return (If(1, operation, _LOW & ~(_PRIVATE | _REALTIME)),)


# What does not exist with some arguments.
WITHOUT: Final = tuple(("futex", _futex(operation)) for operation in _INHERIT_PRIORITY)

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
_RENAME_PLAIN = 1 | 2
_MSG_FASTOPEN = 0x20000000
_MEMBARRIER_PRIVATE = 0x1F8


# (value, bits that may be set besides) of madvise(2)'s: its own memory.  Not what drops files that others use from
# memory, nor what has the kernel merge pages with those of others, by which these are guessed.
_ADVICE = ((0, 7), (8, 3), (14, 1), (16, 3), (22, 1), (24, 1), (102, 1))
_FILE_ADVICE = (
    os.POSIX_FADV_NORMAL,
    os.POSIX_FADV_RANDOM,
    os.POSIX_FADV_SEQUENTIAL,
    os.POSIX_FADV_WILLNEED,
    os.POSIX_FADV_NOREUSE,
)

# include/uapi/asm-generic/socket.h.
_SO_PEEK_OFF, _SO_COOKIE = 42, 57
# What a socket may be asked.  Not for a pidfd of who is at the other end (SO_PEERPIDFD), nor by what protocols have.
_ASKED = (
    socket.SO_REUSEADDR,
    socket.SO_TYPE,
    socket.SO_ERROR,
    socket.SO_SNDBUF,
    socket.SO_RCVBUF,
    socket.SO_KEEPALIVE,
    socket.SO_LINGER,
    socket.SO_REUSEPORT,
    socket.SO_PASSCRED,
    socket.SO_PEERCRED,
    socket.SO_RCVLOWAT,
    socket.SO_RCVTIMEO,
    socket.SO_SNDTIMEO,
    socket.SO_ACCEPTCONN,
    socket.SO_PROTOCOL,
    socket.SO_DOMAIN,
    _SO_PEEK_OFF,
    _SO_COOKIE,
)

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
    """How files may be opened: the flags are that argument, and the mode is the next.

    Not by O_PATH, which Landlock does not look at: who is handed such a descriptor may open what this process may not.
    """
    if not writes:
        # /proc/self/fd leads to pipes and memfds, past Landlock: what came for reading is not to be written to.
        return [(call, (If(flags, 0, os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_PATH),))]
    # What is opened for reading is not truncated: Landlock looks at that from its third version on.
    # Nor opened for neither, by both bits (open(2)): Landlock has no word for that, and a device is open then.
    mode = os.O_ACCMODE | os.O_PATH
    ways = If(flags, os.O_RDONLY, mode | os.O_TRUNC), If(flags, os.O_WRONLY, mode), If(flags, os.O_RDWR, mode)
    return [(call, (way, If(flags + 1, 0, _SET_ID_BITS))) for way in ways]


def _of_itself(own: int) -> list[tuple[str, tuple[If, ...]]]:
    """What asks of processes: of this one alone."""
    asked = ("getpgid", "getsid", "sched_getaffinity")
    # A process's clock is a number of its own, kernel/time/posix-cpu-timers.c: below 0, with its complement above three
    # bits; the third says that it is a thread's, which has to be one of the same process.
    clocks = [
        If(0, 0, _LOW & ~15),
        If(0, 0x80000004, 0x80000004),
        *(If(0, (~pid << 3) & _LOW, _LOW & ~7) for pid in (0, own)),
    ]
    return [
        *((name, (If(0, pid, _LOW),)) for name in asked for pid in (0, own)),
        *(("getpriority", (If(0, os.PRIO_PROCESS, _LOW), If(1, pid, _LOW))) for pid in (0, own)),
        *((name, (clock,)) for name in ("clock_gettime", "clock_getres", "clock_nanosleep") for clock in clocks),
    ]


def with_arguments(*, writes: bool) -> list[tuple[str, tuple[If, ...]]]:
    """Those that are allowed with some arguments: one line each, and all that it says must be so.

    Args:
        writes: there are directories that this process may write in.
    """
    own = os.getpid()
    # An urgent byte is kept apart from others, which the kernel has often got wrong (CVE-2025-38236); and a connection
    # that the first bytes make is none that Landlock sees.
    plain = socket.MSG_OOB | _MSG_FASTOPEN
    renames = [("renameat2", (If(4, 0, _LOW & ~_RENAME_PLAIN),))]
    sort, kinds = ~(socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) & _LOW, (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
    return [
        ("clone", (If(0, _THREAD, _LOW & ~_DETACHED),)),
        *(("futex", _futex(operation)) for operation in _WAITS_AND_WAKES),
        ("membarrier", (If(0, 0, _LOW & ~_MEMBARRIER_PRIVATE),)),
        ("mmap", (If(3, 0, _MAP_HUGETLB),)),
        *(("madvise", (If(2, value, _LOW & ~bits),)) for value, bits in _ADVICE),
        *(("fadvise64", (If(3, advice, _LOW),)) for advice in _FILE_ADVICE),
        # No O_NOTIFICATION_PIPE, by which the kernel tells of keys.
        ("pipe2", (If(1, 0, _LOW & ~(os.O_CLOEXEC | os.O_NONBLOCK)),)),
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
        ("sendto", (If(3, 0, plain), If(4, 0))),
        ("sendmsg", (If(2, 0, plain),)),
        ("setsockopt", (If(1, socket.SOL_SOCKET, _LOW), If(2, socket.SO_PASSCRED, _LOW))),
        *(("getsockopt", (If(1, socket.SOL_SOCKET, _LOW), If(2, option, _LOW))) for option in _ASKED),
        *_of_itself(own),
        *(renames if writes else ()),
        *_opening("openat", 2, writes=writes),
        *_opening("open", 1, writes=writes),
    ]
