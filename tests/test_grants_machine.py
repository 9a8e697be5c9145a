"""Grants through random lives in several processes: who may call is who holds, and who is told is told then."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import weakref
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import capmarshal as cm
from by_hand import Work, Worker
from capmarshal import testing
from grant_holder import Maker, outcome
from patience import PATIENCE, until

PROGRAM = Path(__file__).parent / "support" / "grant_holder.py"
places = st.integers(0, 99)


def pair():
    """A socket of which both ends are this process's."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.settimeout(PATIENCE)
    return ends


def forward(source, target):
    """Takes one record with its descriptors, and sends it on: nobody here looks at it."""
    record, numbers, _, _ = socket.recv_fds(source, 4096, 4)
    socket.send_fds(target, [record], numbers)
    for number in numbers:
        os.close(number)


class Process:
    """Another process, as told by its sockets.

    Attributes:
        held: by place, what it holds.
    """

    def __init__(self, control, data, pid, held):
        self.control, self.data, self.pid, self.held = control, data, pid, held

    def do(self, what, *arguments, sockets=()):
        socket.send_fds(self.control, [json.dumps([what, *arguments]).encode()], [sock.fileno() for sock in sockets])
        return json.loads(self.control.recv(1000))

    def fork(self):
        """Another one, which holds what this one does."""
        (control, its_control), (data, its_data) = pair(), pair()
        with its_control, its_data:
            pid = self.do("fork", sockets=[its_control, its_data])
        return Process(control, data, pid, dict(self.held))

    def close(self):
        self.control.close()
        self.data.close()


class MakerServer(Worker, Maker):
    """Knows what it has handed out last, as long as somebody else has it."""

    def another(self):
        made = MakerServer()
        self.last = weakref.ref(made)
        return made


class ModelGrant:
    """What the model knows of one.

    Attributes:
        target: of it; where it was handed out, refers to that weakly.
        deep: what is handed out through it belongs to it.
        told: somebody is told when nobody holds it.
        revoked: it was.
        dissolved: of what was handed out through it, what is not there any more.
    """

    def __init__(self, target, *, deep=False, told=True):
        self.target, self.deep, self.told, self.revoked = target, deep, told, False
        self.dissolved = []


def referent(target):
    """An object, which the model may refer to weakly."""
    return target() if isinstance(target, weakref.ref) else target


class Held(NamedTuple):
    """What somebody holds, in the model.

    Attributes:
        grant: that it is by.
        target: what is called, or a weak reference to what was handed out.
        part: some methods only can be called.
    """

    grant: ModelGrant
    target: object
    part: bool = False

    @property
    def over(self):
        """How all calls end; None where they do not."""
        if self.grant.revoked:
            return "Revoked"
        return "StaleCapability" if self.target in self.grant.dissolved else None

    def expected(self, method):
        """How a call of a method ends."""
        return self.over or ("UnknownMethod" if self.part and method == "size" else 8)

    @property
    def local(self):
        """What it is at home."""
        return None if self.over else referent(self.target)


class GrantMachine(RuleBasedStateMachine):
    """Random lives of grants, against a model that counts who holds what."""

    # A process that holds nothing, and forks others.
    nursery: Process

    def __init__(self):
        super().__init__()
        self.open_before = len(testing.open_descriptors())
        self.entrypoint = cm.Entrypoint("granting").__enter__()
        self.root = self.entrypoint.manage(Worker()).cast(Work)
        self.in_force = self.entrypoint._service.grants._in_force
        assert self.root.double(1) == 2
        # Most lives have several: what is told too early is told where one of several has ended.
        self.processes = [self.nursery.fork() for _ in range(2)]
        # What this process holds, and the server is of it; and what lies in sockets, each with its ends.
        self.own, self.posted = [], []
        self.grants, self.told = [], []
        self.next_place = 0

    def _place(self):
        self.next_place += 1
        return str(self.next_place)

    def _all_held(self):
        """What is held, once for each who does."""
        held = [held for held, _ in (*self.own, *self.posted)]
        return held + [one for process in self.processes for one in process.held.values()]

    def _some(self, number):
        """One of those that hold anything, and a place of it."""
        process = [process for process in self.processes if process.held][number % self._holding()]
        return process, list(process.held)[number % len(process.held)]

    def _holding(self):
        return sum(bool(process.held) for process in self.processes)

    def _grant(self, target, *, part, deep):
        only = (Work.double, Maker.another) if part else None
        granted = self.entrypoint.grant(target, only=only, deep=deep, unreachable=self.told.append)
        self.grants.append(ModelGrant(target, deep=deep))
        self.own.append((Held(self.grants[-1], target, part), granted))

    @precondition(lambda self: len(self.grants) < 12)
    @rule(part=st.booleans(), deep=st.booleans())
    def grant(self, part, deep):
        self._grant(MakerServer(), part=part, deep=deep)

    @precondition(lambda self: self.own and len(self.grants) < 12)
    @rule(number=places, deep=st.booleans())
    def restrict(self, number, deep):
        """Another grant of the same object, with less."""
        held, _ = self.own[number % len(self.own)]
        if held.local is not None:
            self._grant(held.local, part=True, deep=deep)

    @precondition(lambda self: self._holding() and len(self.grants) < 12)
    @rule(number=places)
    def hand_out(self, number):
        """By a deep grant something that belongs to it; by any other, something that goes by itself."""
        process, place = self._some(number)
        held, new_place = process.held[place], self._place()
        ended = process.do("another", place, new_place)
        assert ended == held.over
        if ended is None:
            assert held.local is not None
            made = held.local.last
            if not held.grant.deep:
                self.grants.append(ModelGrant(made, told=False))
            process.held[new_place] = Held(held.grant if held.grant.deep else self.grants[-1], made)

    @precondition(lambda self: len(self.processes) < 4)
    @rule()
    def new_process(self):
        self.processes.append(self.nursery.fork())

    @precondition(lambda self: self._holding() and len(self.processes) < 4)
    @rule(number=places)
    def fork_a_holder(self, number):
        process, _ = self._some(number)
        self.processes.append(process.fork())

    @precondition(lambda self: self.own and len(self.posted) < 6)
    @rule(number=places)
    def post(self, number):
        ends = pair()
        held, granted = self.own[number % len(self.own)]
        cm.send_capability(ends[0], granted)
        self.posted.append((held, ends))

    @precondition(lambda self: self._holding() and len(self.posted) < 6)
    @rule(number=places)
    def pass_on(self, number):
        process, place = self._some(number)
        ends = pair()
        process.do("send", place)
        forward(process.data, ends[0])
        self.posted.append((process.held[place], ends))

    def _unpost(self, number):
        return self.posted.pop(number % len(self.posted))

    @precondition(lambda self: self.posted and self.processes)
    @rule(number=places, whose=places)
    def receive(self, number, whose):
        held, ends = self._unpost(number)
        self._give(self.processes[whose % len(self.processes)], held, ends[1])
        for end in ends:
            end.close()

    def _give(self, process, held, source):
        """Has a process take what lies in a socket."""
        forward(source, process.data)
        place = self._place()
        process.do("take", place)
        process.held[place] = held

    @precondition(lambda self: self.own and self.processes)
    @rule(number=places, keeps=st.booleans())
    def give_to_all(self, number, keeps):
        """By this process, which has it itself after that, or has not."""
        at = number % len(self.own)
        held, granted = self.own[at] if keeps else self.own.pop(at)
        near, far = pair()
        with near, far:
            for process in self.processes:
                cm.send_capability(near, granted)
                self._give(process, held, far)

    @precondition(lambda self: self.posted)
    @rule(number=places)
    def come_home(self, number):
        held, ends = self._unpost(number)
        with contextlib.ExitStack() as closing:
            for end in ends:
                closing.callback(end.close)
            if held.over == "StaleCapability":
                with pytest.raises(cm.StaleCapability):
                    cm.receive_capability(ends[1], PATIENCE)
                return
            received = cm.receive_capability(ends[1], PATIENCE)
        assert received.local is held.local
        self.own.append((held, received))

    @precondition(lambda self: self.posted)
    @rule(number=places)
    def lose(self, number):
        _, ends = self._unpost(number)
        for end in ends:
            end.close()

    @precondition(lambda self: self._holding())
    @rule(number=places, method=st.sampled_from(["double", "size"]))
    def call(self, number, method):
        process, place = self._some(number)
        assert process.do("call", place, method) == process.held[place].expected(method)

    @precondition(lambda self: self.own)
    @rule(number=places, method=st.sampled_from(["double", "size"]))
    def call_own(self, number, method):
        held, granted = self.own[number % len(self.own)]
        assert outcome(granted, method) == held.expected(method)
        # A loop keeps what its last call has raised, and so what was called.
        assert self.root.double(1) == 2

    @precondition(lambda self: self.own)
    @rule(number=places)
    def revoke(self, number):
        held, granted = self.own[number % len(self.own)]
        if held.target is held.grant.target or held.grant.revoked:
            self.entrypoint.revoke(granted, "over")
            held.grant.revoked = True
            self._calls_end_everywhere()
        else:
            with pytest.raises(ValueError, match="belongs to a deep grant"):
                self.entrypoint.revoke(granted, "over")

    def _calls_end_everywhere(self):
        """Of what is over, at once."""
        for process in self.processes:
            for place, held in process.held.items():
                if held.over:
                    assert process.do("call", place, "double") == held.over

    @precondition(lambda self: any(held.local is not None for held in self._all_held()))
    @rule(number=places)
    def dissolve(self, number):
        """All that leads to an object: its grants, and what deep ones have handed out of it, and nothing else."""
        there = [held.local for held in self._all_held() if held.local is not None]
        target = there[number % len(there)]
        # Of a grant that is over already, somebody may have been told.
        for held in self._all_held():
            if referent(held.grant.target) is target:
                held.grant.revoked = True
        for held in self._all_held():
            if held.local is target:
                held.grant.dissolved.append(held.target)
        del there
        self.entrypoint.dissolve(target)
        self._calls_end_everywhere()

    @precondition(lambda self: self._holding())
    @rule(number=places)
    def drop(self, number):
        process, place = self._some(number)
        process.do("drop", place)
        del process.held[place]

    @precondition(lambda self: self.own)
    @rule(number=places)
    def drop_own(self, number):
        del self.own[number % len(self.own)]
        # What a call in a loop has raised knows it.
        gc.collect()

    @precondition(lambda self: self.processes)
    @rule(number=places)
    def kill(self, number):
        process = self.processes.pop(number % len(self.processes))
        os.kill(process.pid, signal.SIGKILL)
        # The kernel closes all that it has, in some order.
        assert process.control.recv(1) == b""
        process.close()

    @invariant()
    def who_is_told_is_told_when_nobody_holds_it(self):
        held = {id(held.grant) for held in self._all_held()}
        alive = [grant for grant in self.grants if id(grant) in held]
        due = [id(grant.target) for grant in self.grants if grant.told and not grant.revoked and grant not in alive]
        until(lambda: len(self.told) >= len(due))
        # It has come round meanwhile.
        assert self.root.double(1) == 2
        assert sorted(map(id, self.told)) == sorted(due)
        # Also those of which nobody is told.
        until(lambda: len(self.in_force) == sum(not grant.revoked for grant in alive))
        granted = [grant.target for grant in self.grants if grant.told]
        gone = [grant.target for grant in self.grants if not grant.told and grant not in alive]
        until(lambda: all(target() is None or target() in granted for target in gone))

    def teardown(self):
        for process in self.processes:
            process.close()
        for _, ends in self.posted:
            for end in ends:
                end.close()
        self.own.clear()
        self.posted.clear()
        self.processes.clear()
        gc.collect()
        self.who_is_told_is_told_when_nobody_holds_it()
        grants, objects = self.entrypoint._service.grants, self.entrypoint._objects
        until(lambda: not self.in_force and not grants._revoked and not grants._own_doors._doorkeepers)
        assert len(objects._by_badge) == 1
        assert not objects._only
        self.entrypoint.__exit__(None, None, None)
        self.entrypoint = self.root = None
        if len(testing.open_descriptors()) != self.open_before:
            gc.collect()
        until(lambda: len(testing.open_descriptors()) == self.open_before)


@pytest.fixture
def nursery():
    (control, its_control), (data, its_data) = pair(), pair()
    numbers = [its_control.fileno(), its_data.fileno()]
    command = [sys.executable, "-P", str(PROGRAM), *map(str, numbers)]
    with its_control, its_data:
        started = subprocess.Popen(command, pass_fds=numbers, env=os.environ | {"PYTHONPATH": str(PROGRAM.parent)})
    yield Process(control, data, started.pid, {})
    control.close()
    data.close()
    assert started.wait(PATIENCE) == 0


def test_grants_through_random_lives_in_several_processes(nursery):
    GrantMachine.nursery = nursery
    run_state_machine_as_test(GrantMachine, settings=settings(max_examples=40, stateful_step_count=40))
    del GrantMachine.nursery
