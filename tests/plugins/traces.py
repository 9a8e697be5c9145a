"""Looks into other processes, takes their descriptors, and kills them."""

import ctypes
import os
import signal

from host_api import Host

import capmarshal as cm

log = cm.parent().cast(Host).log()
host = os.getppid()
libc = ctypes.CDLL(None, use_errno=True)
for what, call in {
    "ptrace": lambda: libc.ptrace(16, host, 0, 0),
    "process_vm_readv": lambda: libc.process_vm_readv(host, None, 0, None, 0, 0),
    "kill": lambda: os.kill(host, signal.SIGKILL),
    "killpg": lambda: os.killpg(0, signal.SIGKILL),
    "all": lambda: os.kill(-1, signal.SIGKILL),
    "pidfd": lambda: os.pidfd_open(host),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, host, 19),
    "affinity": lambda: os.sched_setaffinity(host, {0}),
}.items():
    try:
        log.write("HARM: " + what if call() != -1 else f"refused: {what}")
    except PermissionError:
        log.write(f"refused: {what}")
