"""What a thread waits in."""

from __future__ import annotations


def waits_in(thread, number):
    """Whether it is in a system call whose first argument is the descriptor (proc_pid_syscall(5))."""
    with open(f"/proc/self/task/{thread.native_id}/syscall", encoding="ascii") as file:
        return file.read().split()[1:2] == [hex(number)]
