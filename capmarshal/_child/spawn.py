"""A child process that holds nothing but the capability that its parent gave it.

It waits for the child in a socket that the child inherits, and nobody else: with the child, it goes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import threading
from typing import TYPE_CHECKING, Any

from capmarshal._capabilities import handover
from capmarshal._capabilities.capability import Capability
from capmarshal._child import inherited, privileges
from capmarshal._child.confinement import DESCRIPTORS_MIN, Confinement
from capmarshal._descriptors.moving import opened
from capmarshal._descriptors.private import Private, make_memfd, make_pair
from capmarshal._kernel.numbers import check_whole
from capmarshal._kernel.waiting import drive

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence

    from capmarshal._kernel.waiting import Steps

# Popen's options, and spawn()'s, that a confined process can't have.
_NOT_CONFINED = ("executable", "pass_fds", "preexec_fn", "shell", "parent_as_stdin", "descriptor_limit")
_STREAMS = ("stdin", "stdout", "stderr")
# subprocess.DEVNULL.
_DEVNULL = -3


class _HandedDown(Private):
    """A descriptor for a child that the current thread is about to create: no other child keeps it."""

    __slots__ = ("_thread",)

    def __init__(self) -> None:
        super().__init__(-1)
        self._thread = threading.get_ident()

    def in_child(self) -> None:
        """Closes the copy of a child that another thread has forked."""
        # Where Popen is given something to be run before the exec, it is a fork like any other.
        if threading.get_ident() != self._thread:
            super().in_child()


def _pair(doing: str) -> tuple[Private, Private]:
    """(this process's end, the child's) of a new socket; raises as :func:`make_pair`."""
    far = _HandedDown()
    near, made = make_pair(doing)
    far.number, made.number = made.number, -1
    return near, far


def _waiting(parent: Capability) -> Private:
    """A socket in which a capability waits.

    Raises:
        Closed, TableFull, TooManyInFlight, KernelError: nothing was made.
    """
    near, far = _pair("handing the parent capability over")
    try:
        handover.send(near.number, parent, None)
    except BaseException:
        far.close()
        raise
    finally:
        near.close()
    return far


def _check_limit(descriptors: int) -> None:
    """Refuses a limit that cannot be given.

    Raises:
        ValueError: more than this process may give, or too few to start with.
        TypeError: no whole number.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wrong = f"a descriptor limit is {DESCRIPTORS_MIN} to {hard} (this process's hard one), not {descriptors!r}"
    check_whole(descriptors, wrong, DESCRIPTORS_MIN, hard)


def _check_confined(confine: Confinement, options: Mapping[str, Any]) -> None:
    """Refuses what is no confinement, and what has no place beside one.

    Raises:
        TypeError: it is none.
        ValueError: an option would hand more down, or run something else.
    """
    if not isinstance(confine, Confinement):
        raise TypeError(f"confine must be a Confinement, not {confine!r}")
    if wrong := [option for option in _NOT_CONFINED if options.get(option)]:
        raise ValueError(
            f"{', '.join(wrong)}: not for a confined process, which inherits its parent capability, and the standard "
            "streams that are named; its limit of descriptors is Confinement(descriptors=...)"
        )


def _provide(options: dict[str, Any]) -> None:
    """What a confined process inherits of standard streams, session and environment, unless it is named."""
    for stream in _STREAMS:
        if options.get(stream) is None:
            options[stream] = _DEVNULL
    # Not the host's: what a terminal does to a group of processes in its background, it does to that of this one alone.
    if options.get("process_group") is None:
        options.setdefault("start_new_session", True)
    if options.get("env") is None:
        from capmarshal._child import launching

        options["env"] = launching.default_environment()


def _check_args(args: Any, options: Mapping[str, Any]) -> None:
    """Refuses nothing as what to run.

    Raises:
        ValueError: it is.
    """
    some = args if isinstance(args, str | bytes | os.PathLike) else len(args)
    if not some and options.get("executable") is None:
        raise ValueError(f"args is what to run, and its arguments, as in ['program', 'argument'], not {args!r}")


@contextlib.contextmanager
def _null_device(options: dict[str, Any]) -> Iterator[None]:
    """Opens the null device where a stream is to be that: what Popen opens for it stays open where it fails."""
    named = [stream for stream in _STREAMS if options.get(stream) == _DEVNULL]
    if not named:
        yield
        return
    with opened(os.devnull, os.O_RDWR) as number:
        options.update((stream, number) for stream in named)
        yield


def _handed_down(data: bytes) -> Private:
    """A file that has that, for the child."""
    made = make_memfd("a launcher's plan")
    far = _HandedDown()
    far.number, made.number = made.number, -1
    try:
        os.write(far.number, data)
        os.lseek(far.number, 0, os.SEEK_SET)
    except BaseException:
        far.close()
        raise
    return far


def _with_variable(environment: Mapping[Any, Any] | None, value: str) -> dict[Any, Any]:
    """A child's environment, with where its capability waits."""
    made = dict(os.environ if environment is None else environment)
    made.pop(os.fsencode(inherited.VARIABLE), None)
    made[inherited.VARIABLE] = value
    return made


def spawn(
    args: Sequence[str | os.PathLike[str]] | str,
    *,
    parent: Capability,
    parent_as_stdin: bool = False,
    descriptor_limit: int | None = None,
    confine: Confinement | None = None,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Starts a child process that inherits one capability, which it gets from :func:`parent`.

    The child inherits a socket in which the capability waits until capmarshal is imported; the environment says which.
    It can be taken once, and what nobody takes goes with the process.  The child knows of nobody else, unless somebody
    tells it.

    Args:
        args: as for :class:`subprocess.Popen`.
        parent: the capability to give; borrowed.
        parent_as_stdin: the socket is the child's standard input, where it is found without the environment: for
            launchers and sandboxes that clear that, or close all other descriptors.  When the capability has been
            taken, standard input has ended.
        descriptor_limit: the child's hard RLIMIT_NOFILE, for one that is not to be trusted with more: it bounds what
            the child can have open, and its share of what its user may have in flight, which is counted over all of a
            user's processes (ETOOMANYREFS).  Unless it is privileged, the child cannot raise it.  The process is
            begun by this interpreter (``sys.executable``), which limits itself and then becomes the program.
        confine: what the child may have.  It is a Python file then, which is run by this interpreter, isolated from the
            environment (``python -I``), in a process that has confined itself and made sure of it: ``args`` is the
            file and its arguments.  Standard streams that are not named are ``/dev/null``, and it is in a
            session of its own, unless ``start_new_session=False`` or a ``process_group`` is said.  Without ``env``, the
            environment has the locale, the time zone, LD_LIBRARY_PATH, a PATH that is empty, and TMPDIR: the first
            directory that it may write in.  What is named in ``env`` is there, whatever it is, once it is confined;
            before that, the locale alone is heeded, so LD_PRELOAD and its like do nothing.
        options: as for :class:`subprocess.Popen`.  ``close_fds`` must stay True.  With ``confine``, none that would
            hand more down or run something else: ``executable``, ``pass_fds``, ``preexec_fn``, ``shell``.

    Returns:
        The process, to be waited for.

    Raises:
        ValueError: nothing to run, ``close_fds=False``, ``parent_as_stdin=True`` with a ``stdin``, or a descriptor
            limit that cannot be given; with ``confine``, any of these, and options that are not for it.
        NotConfined: the kernel or the system lacks a part, which the message names; nothing of the file was run.
        TypeError: ``parent`` is no capability, or the limit no number.
        Closed: the capability is closed.
        TableFull, TooManyInFlight: no room for the socket, or too much that was sent and not yet received.
        OSError: as from :class:`subprocess.Popen`; or this process is confined, and starts no other.
        CallTimeout: with a limit or a confinement, the program was not running when :class:`capmarshal.timeout` was up;
            it was ended.
    """
    return drive(
        starting(
            args,
            parent=parent,
            parent_as_stdin=parent_as_stdin,
            descriptor_limit=descriptor_limit,
            confine=confine,
            options=options,
        )
    )


def starting(
    args: Sequence[str | os.PathLike[str]] | str,
    *,
    parent: Capability,
    parent_as_stdin: bool,
    descriptor_limit: int | None,
    confine: Confinement | None,
    options: dict[str, Any],
) -> Steps[subprocess.Popen[Any]]:
    """As :func:`spawn`, in steps: that a program runs which a launcher has begun is waited for."""
    if not options.get("close_fds", True):
        raise ValueError("close_fds=False would hand everything down; name what the child needs in pass_fds")
    if not isinstance(parent, Capability):
        raise TypeError(f"parent must be a Capability, not {parent!r}; capability() gives that of a proxy or an object")
    _check_args(args, options)
    if privileges.starts_none:
        raise PermissionError(errno.EPERM, "this process is confined, and starts no other")
    if descriptor_limit is not None:
        _check_limit(descriptor_limit)
    temporary: tuple[str, ...] = ()
    if confine is not None:
        _check_confined(confine, {**options, "parent_as_stdin": parent_as_stdin, "descriptor_limit": descriptor_limit})
        temporary = confine.write if options.get("env") is None else ()
        _provide(options)
    if parent_as_stdin and options.get("stdin") is not None:
        raise ValueError("with parent_as_stdin=True, the child's standard input is where its capability waits")
    with contextlib.closing(_waiting(parent)) as waiting, _null_device(options):
        number = waiting.fileno()
        if parent_as_stdin:
            options["stdin"] = number
        else:
            options["pass_fds"] = (*options.get("pass_fds", ()), number)
        told = inherited.told_of(number, as_stdin=parent_as_stdin)
        options["env"] = _with_variable(options.get("env"), told)
        if confine is None and descriptor_limit is None:
            return _popen(args, options)
        return (yield from _launched(args, confine, descriptor_limit, options, temporary))


def _popen(args: Any, options: dict[str, Any]) -> subprocess.Popen[Any]:
    # Imported when used: 3 ms of every start otherwise, also of those that spawn nobody.
    import subprocess

    return subprocess.Popen(args, **options)  # noqa: S603 - what to run is the caller's to say


def _launched(
    args: Any,
    confine: Confinement | None,
    descriptor_limit: int | None,
    options: dict[str, Any],
    temporary: Sequence[str],
) -> Steps[subprocess.Popen[Any]]:
    """Starts what is confined, or limited, by a launcher, and waits until it runs."""
    # Imported when used, as subprocess is.
    from capmarshal._child import launching

    near, far = _pair("hearing from a launcher")
    started: subprocess.Popen[Any] | None = None
    with contextlib.closing(near):
        try:
            with contextlib.ExitStack() as handed_down:
                handed_down.enter_context(contextlib.closing(far))
                passed, ended = [far.number], b""
                if confine is not None:
                    plan = _handed_down(launching.plan_for(confine, options, temporary))
                    handed_down.enter_context(contextlib.closing(plan))
                    passed, ended = [far.number, plan.number], launching.CONFINED
                    command = launching.confining(args, plan.number, far.number)
                else:
                    command = launching.limiting(args, descriptor_limit, far.number, options)
                options["pass_fds"] = (*options.get("pass_fds", ()), *passed)
                started = _popen(command, options)
            started.args = args
            yield from launching.heard(near, ended)
        except BaseException:
            if started is not None:
                launching.abandon(started)
            raise
        return started
