"""Core, init and a child of init: how access to objects is delegated, and why no descriptors pile up.

This is the scenario of Genode's commit ca4f574f4c (2012), where capabilities first travelled between processes as
socket descriptors.  *Core* manages memory quota: each client has a session, and may transfer quota from its own to any
other that it holds a capability for.  *Init* is started by core, and starts a *child*:

    core   serves Ram and the sessions
     |       gives init  its session, and Ram
    init   serves a parent interface of its own
     |       gives child its session, and Ram: both are core's, and child gets at them through init alone
    child

In a transfer, ``to`` is a capability of core's own that comes home to core as an argument.  In 2012 copies of core's
socket were left behind: the commit counted 8 in core and init, and then the kernel answered ETOOMANYREFS.  Here all
three processes transfer quota in all directions, 10,000 times in total, in a descriptor table of 64 entries, and at the
end each holds core's entrypoint exactly once, as the kernel itself tells.

    python core_init.py

prints the balances and the counts, and exits with 1 if one of them is not what it should be.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import capmarshal as cm

if TYPE_CHECKING:
    import subprocess

DESCRIPTORS = 64  # the size of each process's descriptor table
QUOTA = 1_000_000  # bytes in all
# Transfers that each process makes between everybody's sessions, after init and child have each made one to begin with.
TRANSFERS = {"core": 3_334, "init": 3_332, "child": 3_332}
ALL_TRANSFERS = 10_000
SESSIONS = 4  # core's, init's, and child's two
REFRESH = 100  # after so many transfers, a process receives all capabilities once more
PATIENCE = 60.0  # seconds, for all calls of a process


# What can be called, and by whom, is said by interfaces ----------------------------------------------------------


class InsufficientQuota(Exception):
    """The session does not have as much as was to be transferred."""


class NoSession(Exception):
    """What was passed is no session of this server."""


class RamSession(cm.Interface):
    """An account.  Who holds it may look at it, spend from it, and pass it on."""

    @cm.method
    def quota(self) -> int:
        """Bytes that are left."""

    @cm.method
    @cm.raises(InsufficientQuota, NoSession, ValueError)
    def transfer_quota(self, to: RamSession, amount: int) -> None:
        """Moves quota to another session.

        Raises:
            InsufficientQuota: there is not that much; nothing is moved.
            NoSession: ``to`` is served by somebody else.
            ValueError: a negative amount.
        """


class Ram(cm.Interface):
    """Where sessions come from."""

    @cm.method
    def session(self) -> RamSession:
        """A new one, without quota."""


class Parent(cm.Interface):
    """What a process may ask of the one that started it.  Core is init's parent, and init is child's."""

    @cm.method
    def own_session(self) -> RamSession:
        """The session with the quota that the parent gave it."""

    @cm.method
    def ram(self) -> Ram:
        """The service, for sessions of its own making."""

    @cm.method
    def offer(self, session: RamSession) -> None:
        """Passes a session on, upwards, to everybody."""

    @cm.method
    def sessions(self) -> list[RamSession]:
        """Everybody's."""

    @cm.method
    def finished(self, name: str, client_ends: int) -> None:
        """Says under how many descriptors a process holds core's entrypoint, after it has done its share."""


# Core ------------------------------------------------------------------------------------------------------------


class CoreRamSession(RamSession):
    """A session as core knows it.  All calls run in the entrypoint's thread, so there is nothing to lock."""

    def __init__(self, quota: int = 0) -> None:
        self._quota = quota
        self.transfers = 0

    def quota(self) -> int:
        """See :meth:`RamSession.quota`."""
        return self._quota

    def transfer_quota(self, to: RamSession, amount: int) -> None:
        """See :meth:`RamSession.transfer_quota`."""
        # A capability of the entrypoint's own comes home as the object itself, anybody else's as a proxy.
        if not isinstance(to, CoreRamSession):
            raise NoSession("not a session of core's")
        if amount < 0:
            raise ValueError("a negative amount would be taken from the other one")
        if amount > self._quota:
            raise InsufficientQuota(f"{amount} of {self._quota} bytes")
        self._quota -= amount
        to._quota += amount  # noqa: SLF001 - of the same class
        self.transfers += 1


class CoreRam(Ram):
    """Makes sessions, which core's entrypoint then serves."""

    def __init__(self, entrypoint: cm.Entrypoint) -> None:
        self._entrypoint = entrypoint

    def session(self) -> RamSession:
        """See :meth:`Ram.session`."""
        session = CoreRamSession()
        self._entrypoint.manage(session)
        return session  # a managed object in a result goes out as its capability


class InitsParent(Parent):
    """What init gets of core.

    Args:
        own_session: init's.
        ram: the service.
        sessions: core's and init's; more will be offered.

    Attributes:
        all_offered: set when they are all there.
        client_ends: name of a process -> the number of descriptors under which it holds core's entrypoint.
    """

    def __init__(self, own_session: RamSession, ram: Ram, sessions: list[RamSession]) -> None:
        self._own_session = own_session
        self._ram = ram
        self._sessions = sessions
        self.all_offered = threading.Event()
        self.client_ends: dict[str, int] = {}

    def own_session(self) -> RamSession:
        """See :meth:`Parent.own_session`."""
        return self._own_session

    def ram(self) -> Ram:
        """See :meth:`Parent.ram`."""
        return self._ram

    def offer(self, session: RamSession) -> None:
        """See :meth:`Parent.offer`."""
        self._sessions.append(session)
        if len(self._sessions) == SESSIONS:
            self.all_offered.set()

    def sessions(self) -> list[RamSession]:
        """See :meth:`Parent.sessions`."""
        return self._sessions

    def finished(self, name: str, client_ends: int) -> None:
        """See :meth:`Parent.finished`."""
        self.client_ends[name] = client_ends


def core() -> None:
    """Starts init, does its share of the transfers, and checks what this file claims."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, most), most))  # inherited by the others
    with cm.Entrypoint("core") as entrypoint:
        cores, inits = CoreRamSession(QUOTA // 2), CoreRamSession(QUOTA // 2)
        ram = CoreRam(entrypoint)
        sessions: list[RamSession] = [cores, inits]
        served = InitsParent(inits, ram, sessions)
        for target in (cores, inits, ram):
            entrypoint.manage(target)
        access = entrypoint.manage(served)
        init = spawn_self("init", access)
        while not served.all_offered.wait(0.1):
            if init.poll() is not None:
                sys.exit("core: init ended too early")
        # By a proxy, core's main thread calls core's entrypoint just as the other processes do.
        held = take_part(access.cast(Parent), "core")
        if init.wait() != 0:
            sys.exit("core: init failed")
        access.cast(Parent).finished("core", client_ends_of_core(held))
        check_and_print([session for session in sessions if isinstance(session, CoreRamSession)], served.client_ends)
        check_that_more_than_there_is_is_refused(access.cast(Parent).sessions())


def check_and_print(sessions: list[CoreRamSession], client_ends: dict[str, int]) -> None:
    """The result, for people; ends the program if it is not what it should be."""
    balances = [session.quota() for session in sessions]
    transfers = sum(session.transfers for session in sessions)
    print(f"{transfers} transfers; balances {' + '.join(map(str, balances))} = {sum(balances)} bytes")
    for name in TRANSFERS:
        count = client_ends.get(name, 0)
        print(f"{name} holds core's entrypoint under {count} descriptor{'s' * (count != 1)}")
    if sum(balances) != QUOTA or min(balances) < 0:
        sys.exit(f"core: the balances should be {QUOTA} in all")
    if transfers != ALL_TRANSFERS:
        sys.exit(f"core: there should have been {ALL_TRANSFERS} transfers")
    if client_ends != dict.fromkeys(TRANSFERS, 1):
        sys.exit("core: each process should hold it under 1 descriptor")


def check_that_more_than_there_is_is_refused(sessions: list[RamSession]) -> None:
    """A declared error arrives as itself, also across processes; ends the program if it does not."""
    try:
        sessions[0].transfer_quota(sessions[1], QUOTA + 1)
    except InsufficientQuota as error:
        print(f"one transfer too much: {error}")
    else:
        sys.exit("core: a session gave more than it had")


# Init ------------------------------------------------------------------------------------------------------------


class ChildsParent(Parent):
    """What child gets of init: a session that init made for it, and what init itself gets of core, passed on.

    Passing on is nothing but returning what was received: from then on child calls core directly.
    """

    def __init__(self, own_session: RamSession, inits_parent: Parent) -> None:
        self._own_session = own_session
        self._parent = inits_parent

    def own_session(self) -> RamSession:
        """See :meth:`Parent.own_session`."""
        return self._own_session

    def ram(self) -> Ram:
        """See :meth:`Parent.ram`."""
        return self._parent.ram()

    def offer(self, session: RamSession) -> None:
        """See :meth:`Parent.offer`."""
        self._parent.offer(session)

    def sessions(self) -> list[RamSession]:
        """See :meth:`Parent.sessions`."""
        return self._parent.sessions()

    def finished(self, name: str, client_ends: int) -> None:
        """See :meth:`Parent.finished`."""
        self._parent.finished(name, client_ends)


def init() -> None:
    """Makes a session for child, starts it, and does its share of the transfers."""
    parent = cm.parent().cast(Parent)
    childs = new_session(parent)
    with cm.Entrypoint("init") as entrypoint:
        child = spawn_self("child", entrypoint.manage(ChildsParent(childs, parent)))
        held = take_part(parent, "init")
        if child.wait() != 0:
            sys.exit("init: child failed")
        parent.finished("init", client_ends_of_core(held))


# Child -----------------------------------------------------------------------------------------------------------


def child() -> None:
    """Makes one more session, and does its share of the transfers."""
    parent = cm.parent().cast(Parent)
    new_session(parent)
    held = take_part(parent, "child")
    parent.finished("child", client_ends_of_core(held))


# What they have in common ------------------------------------------------------------------------------------------


def spawn_self(role: str, parent: cm.Capability) -> subprocess.Popen[Any]:
    """Runs this file again, as another process that holds nothing but ``parent``."""
    return cm.spawn([sys.executable, __file__, role], parent=parent)


def new_session(parent: Parent) -> RamSession:
    """Makes a session, gives it half of the process's own quota, and offers it to everybody."""
    own, made = parent.own_session(), parent.ram().session()
    own.transfer_quota(made, own.quota() // 2)
    parent.offer(made)
    return made


def take_part(parent: Parent, name: str) -> list[RamSession]:
    """Moves quota around, from each session to each other in turn; all capabilities that it was given for that."""
    held: list[RamSession] = []
    for number in range(TRANSFERS[name]):
        if number % REFRESH == 0:
            sessions = parent.sessions()
            directions = itertools.cycle(itertools.permutations(sessions, 2))
            # None is given up: each is the same capability as before, and takes no descriptor of its own.
            held += sessions
        source, to = next(directions)
        source.transfer_quota(to, 1 + number % 7)
    return held


def client_ends_of_core(sessions: list[RamSession]) -> int:
    """Under how many descriptors this process holds the entrypoint that serves the sessions: asks the kernel.

    To be asked when nobody calls this process any more: what a call brings is there for a moment, till recognised.
    """
    inode = os.fstat(cm.capability(sessions[0]).fileno()).st_ino
    held = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor by which the directory itself was read
            held += str(entry.readlink()) == f"socket:[{inode}]"
    return held


if __name__ == "__main__":
    roles = {"core": core, "init": init, "child": child}
    with cm.timeout(PATIENCE):
        roles[sys.argv[1] if len(sys.argv) > 1 else "core"]()
