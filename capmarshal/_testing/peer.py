"""A server in a process of its own, which fails when a test says so: by signals and limits, and by no clock."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from capmarshal._capabilities.handover import receive_capability
from capmarshal._descriptors.private import make_pair
from capmarshal._descriptors.process import process as this_process
from capmarshal._testing import loading, orders
from capmarshal._testing.interfaces import interface_of
from capmarshal._testing.pairs import CALL_TIMEOUT

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from capmarshal._capabilities.capability import Capability

T = TypeVar("T")

# Seconds, for the process to begin, to do what it is told, and to end.
_PATIENCE = 30.0
_END_PATIENCE = 5.0

# It finds what this process finds.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from capmarshal._testing.process import main; main(int(sys.argv[2]))"
)


class _Lifeline:
    """The socket whose closing ends the process: a forked child, which could keep both, has neither of its ends.

    Attributes:
        ours: the end of this process.
        theirs: that of the other one.
    """

    epoll = False

    def __init__(self) -> None:
        near, far = make_pair("starting a server")
        # No fork falls in between.
        with this_process.lock, near.release() as ours, far.release() as theirs:
            self.ours, self.theirs = ours.socket(), theirs.socket()
            this_process.privates.add(self)

    def in_child(self) -> None:
        """Closes the child's copies."""
        self.ours.close()
        self.theirs.close()


class Peer(Generic[T]):
    """A process that serves one object; made by :func:`served_in_process`.

    Attributes:
        capability: of the object.
        proxy: of the object, by its interface; each call may take 30 seconds unless something else was said.
        pid: of the process.
    """

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, capability: Capability, proxy: T):
        self._process = process
        self._control = control
        self.capability: Capability = capability
        self.proxy: T = proxy
        self.pid: int = process.pid

    def _told(self, **what: Any) -> dict[str, Any]:
        """Has the process do something, and says what it answers.

        Raises:
            RuntimeError: it has ended, or is stopped; or says why it does not.
        """
        try:
            orders.tell(self._control, **what)
            answer = orders.hear(self._control)
        except OSError as error:
            raise RuntimeError(f"the process {self.pid} has ended, or stands still: {error}") from None
        if answer is None:
            raise RuntimeError(f"the process {self.pid} has ended")
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def dies(self, during: Callable[..., Any] | None = None) -> None:
        """Has the process die, by SIGKILL: at once, or in the middle of a call.

        Args:
            during: a method of the interface, as ``Files.read``: the process dies when its server's method of that name
                begins the next time, after the call has arrived and before anything is answered.  None: it has died
                when this returns.

        Raises:
            RuntimeError: it does not run, or has no such method.
            TypeError: ``during`` is no method.
        """
        if during is not None:
            self._told(do="die", during=_name_of(during))
            return
        self._process.kill()
        self._process.wait(_PATIENCE)

    def stalls(self, during: Callable[..., Any] | None = None) -> None:
        """Has the process stand still, by SIGSTOP, until :meth:`goes_on`: at once, or in the middle of a call.

        What is sent to it waits, as for a process that is swapped out or hangs.  Calls end by their deadlines.

        Args:
            during: as for :meth:`dies`.  None: it stands still when this returns.

        Raises:
            RuntimeError: it does not run, or has no such method.
            TypeError: ``during`` is no method.
        """
        if during is not None:
            self._told(do="stall", during=_name_of(during))
            return
        self._process.send_signal(signal.SIGSTOP)
        try:
            seen = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            seen = None
        if seen is None or seen.si_code != os.CLD_STOPPED:
            raise RuntimeError(f"the process {self.pid} has ended")

    def loses_descriptors(self, room: int = 0) -> None:
        """Has its descriptor table be full, until :meth:`goes_on`: descriptors that are sent to it are lost.

        A channel is a descriptor, too: a client that has not called yet waits until its deadline.  Have it call before.

        Args:
            room: how many more it may have open.

        Raises:
            RuntimeError: it does not run.
        """
        self._told(do="shrink", room=room)

    def goes_on(self) -> None:
        """Ends what :meth:`stalls` and :meth:`loses_descriptors` began, and what was to happen during a method.

        Raises:
            RuntimeError: it has ended.
        """
        self._process.send_signal(signal.SIGCONT)
        self._told(do="go on")

    def open_descriptors(self) -> dict[int, str]:
        """What :func:`open_descriptors` says there: what a server has left open after a call.

        Raises:
            RuntimeError: it does not run.
        """
        return dict(self._told(do="list")["open"])

    def __repr__(self) -> str:
        return f"<Peer {self.pid}>"


@overload
def served_in_process(
    make: Callable[..., T],
    *arguments: Any,
    interface: None = None,
    descriptors: int | None = None,
    timeout: float | None = CALL_TIMEOUT,
) -> contextlib.AbstractContextManager[Peer[T]]: ...


@overload
def served_in_process(
    make: Callable[..., object],
    *arguments: Any,
    interface: Callable[..., T],
    descriptors: int | None = None,
    timeout: float | None = CALL_TIMEOUT,
) -> contextlib.AbstractContextManager[Peer[T]]: ...


@contextlib.contextmanager
def served_in_process(
    make: Callable[..., Any],
    *arguments: Any,
    interface: Any = None,
    descriptors: int | None = None,
    timeout: float | None = CALL_TIMEOUT,
) -> Iterator[Peer[Any]]:
    """Starts a process that serves one object, for the time of a block, and gives what leads to it.

    It is a Python process started afresh, not a fork of this one; it prints where this one does, and ends with the
    block, or with this process, if it has not before.  A forked child of this one may call it, and can't tell it what
    to do.  An object whose methods are ``async def`` is served in asyncio, and its proxy is awaited; the block is one
    of ``with`` all the same.

    Args:
        make: makes the object there: a class, or a function, at the top of a module; of a test module, too.
        arguments: of that, pickled.
        interface: what the proxy is of; None: the interface that ``make`` is derived from, if it is a class with one.
        descriptors: how many it may have open, as its soft and hard RLIMIT_NOFILE; None: as many as this process.
        timeout: seconds that each call of the proxy may take.  None: no limit.

    Raises:
        TypeError: ``make`` is nothing that another process finds, or which interface it has is to be said.
        RuntimeError: it was not made; the message has the traceback.
        OSError: no process can be started.
    """
    if not callable(make):
        raise TypeError(
            "what another process is to make is passed as its class, or as a function that makes it, and arguments for "
            f"that behind it, not as an object that is made already: {make!r}"
        )
    if interface is None:
        if not isinstance(make, type):
            raise TypeError(f"which interface {make!r} makes an object of is to be said, as interface=...")
        interface = interface_of(make)
    where, pickled = loading.found_by(make), pickle.dumps((make, arguments))
    lifeline = _Lifeline()
    ours, theirs = lifeline.ours, lifeline.theirs
    with ours:
        with theirs:
            command = [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path), str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603
        try:
            ours.settimeout(_PATIENCE)
            with contextlib.suppress(OSError):
                # Where it has ended, there is nothing to be heard, either.
                orders.tell(ours, **where, descriptors=descriptors)
                ours.send(pickled)
            told = orders.hear(ours)
            if told is None or "error" in told:
                why = "it has ended" if told is None else f"\n{told['error']}"
                raise RuntimeError(f"{make!r} is not served by another process: {why}")
            with contextlib.closing(receive_capability(ours, _PATIENCE)) as capability:
                yield Peer(process, ours, capability, capability.cast(interface, timeout=timeout))
        finally:
            ours.close()
            _end(process)


def _name_of(method: Callable[..., Any]) -> str:
    name = getattr(method, "__name__", None)
    if not callable(method) or not isinstance(name, str):
        raise TypeError(f"during is a method of the interface, as in during=Files.read, not {method!r}")
    return name


def _end(process: subprocess.Popen[bytes]) -> None:
    """Has it end by itself, which it does when its socket is closed; else it is killed."""
    # Perhaps it stands still.
    process.send_signal(signal.SIGCONT)
    try:
        process.wait(_END_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:
        process.kill()
        raise
