"""What a thread waits in."""

from __future__ import annotations

# ppoll(2): x86-64's number, and that of the table that newer architectures share.
_PPOLL = ("271", "73")
_RECVMSG = ("47", "212")
# epoll_wait(2), which newer architectures do not have, and epoll_pwait(2): in these event loops wait.
_EPOLL = ("232", "281", "22")


def polls(thread):
    """Whether it waits in ppoll(2), or its event loop does."""
    return _fields(thread)[0] in _PPOLL + _EPOLL


def process_receives(pid):
    """Whether the first thread of a process waits in recvmsg(2)."""
    with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
        return file.read().split()[0] in _RECVMSG


def waits_in(thread, number):
    """Whether it is in a system call whose first argument is the descriptor (proc_pid_syscall(5))."""
    return _fields(thread)[1:2] == [hex(number)]


def _fields(thread):
    with open(f"/proc/self/task/{thread.native_id}/syscall", encoding="ascii") as file:
        return file.read().split()
