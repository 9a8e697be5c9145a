"""Confines the process that runs it, for good: limits, privileges, Landlock, and a filter of system calls.

In this order: each needs what the next one takes.  What is missing is told before anything is changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING, Any

from capmarshal._child import landlock, privileges, resource_limits
from capmarshal._child.confinement import PARTS
from capmarshal._child.own_count import bound_threads, why_not
from capmarshal._child.undisturbed import undisturbed
from capmarshal._descriptors.mounts import mounts
from capmarshal._kernel.errors import KernelError, NotConfined
from capmarshal._kernel.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterable

# Descriptors that a process needs to go on: to import, and to call.
_ROOM = 4
# Something, once this process is confined.
_bound: list[bool] = []


def _filter_for(plan: dict[str, Any], abi: int) -> tuple[bytes | None, str]:
    """The program of the filter; or None, and why there is none."""
    # Imported when used: nobody else needs ctypes.
    try:
        from capmarshal._child import seccomp

        library = seccomp.library()
    except (ImportError, OSError) as error:
        return None, f"libseccomp cannot be loaded ({error}): install it, as by `apt install libseccomp2`"
    if not seccomp.available():
        return None, "this kernel has no filters, or a filter that is there refuses more"
    writes = bool(plan["write"])
    return seccomp.program(library, writes=writes, truncates=writes and abi >= landlock.TRUNCATE), ""


def _check(lacking: dict[str, str], without: Iterable[str]) -> None:
    """Refuses to go on without what nobody has said is not needed."""
    needed = {part: why for part, why in lacking.items() if part not in without}
    if not needed:
        return
    told = "; ".join(f"{part}: {why}, and without it, {PARTS[part]}" for part, why in needed.items())
    raise NotConfined(
        errno.ENOSYS, f"this process cannot be confined here: {told}. missing={[*needed]} does without", tuple(needed)
    )


def not_alone(others: Iterable[threading.Thread]) -> NotConfined:
    """The error where a process has other threads."""
    names = ", ".join(repr(each.name) for each in others)
    names = names or (
        "of a library, which Python does not know; numpy begins none where OPENBLAS_NUM_THREADS=1 is in the "
        "environment before it is imported"
    )
    words = f"this process cannot be confined: it has other threads, which would go on unbound: {names}"
    return NotConfined(errno.EBUSY, words)


def _check_ready() -> None:
    """Refuses to confine a process that would not be bound as a whole.

    Raises:
        NotConfined: there are other threads, or what no filter sees; or it is confined.
    """
    if _bound:
        raise NotConfined(errno.EALREADY, "this process is confined, and stays as it is")
    if (threads := privileges.threads()) is None:
        raise NotConfined(errno.EBUSY, "this process cannot be confined: nobody tells how many threads it has")
    if threads != 1:
        raise not_alone([each for each in threading.enumerate() if each is not threading.current_thread()])
    if ring := privileges.ring():
        raise NotConfined(
            errno.EBUSY,
            f"this process cannot be confined: {ring}, which does what a filter does not see; a loop of uvloop's has "
            "one: confine before there is one",
        )


def _check_still_alone() -> None:
    """Refuses to go on where a thread has begun all the same: neither Landlock nor what was given up is for that.

    One that begins later is bound from its start on, as who starts it.

    Raises:
        KernelError: so it is.
    """
    if privileges.threads() != 1:
        words = "a thread has begun while this process was being confined, and is not bound: the process should end"
        raise KernelError(errno.EBUSY, words)


def _check_memory(memory: int | None, threads: int) -> None:
    """Refuses a limit of memory that is passed already, or at once: no thread would begin, nor anything be closed.

    Raises:
        NotConfined: so it is.
    """
    now = resource_limits.mapped() if memory is not None else None
    if memory is None or now is None or memory >= (least := now + resource_limits.needed(threads)):
        return
    words = f"memory={memory} is too little: this process maps {now} bytes already, and to go on it needs {least}"
    raise NotConfined(errno.ENOMEM, words)


def _check_descriptors(descriptors: int) -> None:
    """Refuses a limit of descriptors that leaves no room beside what is open: nothing would be received, nor imported.

    Raises:
        NotConfined: so it is.
    """
    if descriptors < (least := (now := resource_limits.opened(descriptors)) + _ROOM):
        words = f"descriptors={descriptors} are too few: this process has {now} open, and to go on it needs {least}"
        raise NotConfined(errno.EMFILE, words)


def _have_threads_end() -> None:
    """Loads what glibc loads where the first thread ends, and ends the process where it can't: the table may be full.

    misc/unwind-link.c of glibc's.
    """
    with contextlib.suppress(ImportError, OSError):
        # Imported when used, as below.
        import ctypes

        ctypes.CDLL("libgcc_s.so.1")


def _forking_is_refused() -> None:
    """Has ``os.fork()`` say why it failed, as it does here: CPython before 3.11.3 asks for that too late.

    What cffi calls finds errno as ffi.errno says, and leaves it so where it enters the kernel by itself.
    """
    ffi.errno = errno.EPERM
    lib.lx_close(-1)


def confine_by(plan: dict[str, Any], also_read: Iterable[str], listed: Iterable[str], *, threads: int = 0) -> None:
    """Confines this process, which has one thread.

    Args:
        plan: :func:`data_of` a confinement.
        also_read: paths that are read besides; those that are not there are passed over.
        listed: directories whose names are listed, likewise.
        threads: how many it begins right after that.

    Raises:
        NotConfined: a part is missing, or memory or descriptors are too few, or something is in the way; nothing was
            changed.
        OSError: a path is not there; nothing was changed.
        KernelError: a step was refused, and the process is bound by those before it.
    """
    _check_ready()
    lacking = {}
    if not (abi := landlock.version()):
        lacking["landlock"] = "this kernel has none (Linux 5.13), it is switched off, or a filter refuses it"
    elif abi < landlock.SCOPES:
        lacking["scopes"] = f"Landlock has none here (version {abi}; it is {landlock.SCOPES} from Linux 6.12 on)"
    program, why = _filter_for(plan, abi)
    if program is None:
        lacking["seccomp"] = why
    if plan["threads"] is not None and (why := why_not()):
        lacking["threads"] = why
    _check(lacking, plan["missing"])
    known = mounts.for_good()
    _have_threads_end()
    _check_memory(plan["memory"], threads)
    _check_descriptors(plan["descriptors"])
    with contextlib.ExitStack() as ends:
        ruleset = None
        if abi:
            # Before anything is changed: a path may not be there.
            made = landlock.ruleset(abi, plan["read"], plan["write"], also_read, listed)
            ruleset = ends.enter_context(made)
        ends.enter_context(undisturbed())
        # Again: what a signal handler, or a finalizer, did meanwhile.
        _check_ready()
        if plan["threads"] is not None and "threads" not in lacking:
            bound_threads(plan["threads"])
        resource_limits.put_on(memory=plan["memory"], cpu=plan["cpu"], descriptors=plan["descriptors"])
        privileges.be_expendable()
        privileges.leave_no_core()
        privileges.give_up()
        if ruleset is not None:
            ruleset.put_on()
        _check_still_alone()
        if program is not None:
            from capmarshal._child import seccomp

            seccomp.install(program)
            os.register_at_fork(after_in_parent=_forking_is_refused)
        privileges.starts_none.append(True)
        _bound.append(True)
        if abi:
            # The list can't be opened any more.
            mounts.keep(known)
