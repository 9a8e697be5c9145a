"""Grants through random lives in several processes: who may call is who holds, and who is told is told then."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import capmarshal as cm
from by_hand import Work, Worker
from left_behind import listing
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
        held: by place, the model's grants that it holds.
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


class ModelGrant:
    """What the model knows of one.

    Attributes:
        target: of it.
        part: only one of its methods can be called.
        revoked: it was.
    """

    def __init__(self, target, *, part):
        self.target, self.part, self.revoked = target, part, False

    def expected(self, method):
        """How a call of a method ends."""
        if self.revoked:
            return "Revoked"
        return "UnknownMethod" if self.part and method == "size" else 8


class GrantMachine(RuleBasedStateMachine):
    """Random lives of grants, against a model that counts who holds what."""

    # A process that holds nothing, and forks others.
    nursery: Process

    def __init__(self):
        super().__init__()
        self.open_before = len(listing())
        self.entrypoint = cm.Entrypoint("granting").__enter__()
        self.root = self.entrypoint.manage(Worker()).cast(Work)
        assert self.root.double(1) == 2
        self.processes = []
        # What this process holds, and the server is of it; and what lies in sockets, each with its ends.
        self.own, self.posted = [], []
        self.grants, self.told = [], []
        self.next_place = 0

    def _place(self):
        self.next_place += 1
        return str(self.next_place)

    def _holders(self):
        """Each grant that somebody holds, once for each who does."""
        yield from (grant for grant, _ in self.own)
        yield from (grant for grant, _ in self.posted)
        for process in self.processes:
            yield from process.held.values()

    def _some(self, number):
        """One of those that hold anything, and a place of it."""
        process = [process for process in self.processes if process.held][number % self._holding()]
        return process, list(process.held)[number % len(process.held)]

    def _holding(self):
        return sum(bool(process.held) for process in self.processes)

    @precondition(lambda self: len(self.grants) < 12)
    @rule(part=st.booleans())
    def grant(self, part):
        target = Worker()
        granted = self.entrypoint.grant(
            target, only=(Work.double,) if part else None, unreachable=lambda what: self.told.append(what)
        )
        self.grants.append(ModelGrant(target, part=part))
        self.own.append((self.grants[-1], granted))

    @precondition(lambda self: self.own and len(self.grants) < 12)
    @rule(number=places)
    def restrict(self, number):
        """Another grant of the same object, with less."""
        whole, _ = self.own[number % len(self.own)]
        granted = self.entrypoint.grant(whole.target, only=(Work.double,), unreachable=self.told.append)
        self.grants.append(ModelGrant(whole.target, part=True))
        self.own.append((self.grants[-1], granted))

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
        grant, granted = self.own[number % len(self.own)]
        cm.send_capability(ends[0], granted)
        self.posted.append((grant, ends))

    @precondition(lambda self: self._holding() and len(self.posted) < 6)
    @rule(number=places)
    def pass_on(self, number):
        process, place = self._some(number)
        ends = pair()
        process.do("send", place)
        forward(process.data, ends[0])
        self.posted.append((process.held[place], ends))

    def _unpost(self, number):
        grant, ends = self.posted.pop(number % len(self.posted))
        return grant, ends

    @precondition(lambda self: self.posted and self.processes)
    @rule(number=places, whose=places)
    def receive(self, number, whose):
        process = self.processes[whose % len(self.processes)]
        grant, ends = self._unpost(number)
        forward(ends[1], process.data)
        for end in ends:
            end.close()
        place = self._place()
        process.do("take", place)
        process.held[place] = grant

    @precondition(lambda self: self.posted)
    @rule(number=places)
    def come_home(self, number):
        grant, ends = self._unpost(number)
        received = cm.receive_capability(ends[1], PATIENCE)
        for end in ends:
            end.close()
        assert received.local is (None if grant.revoked else grant.target)
        self.own.append((grant, received))

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
    @rule(number=places)
    def revoke(self, number):
        grant, granted = self.own[number % len(self.own)]
        self.entrypoint.revoke(granted, "over")
        grant.revoked = True

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
        held = set(map(id, self._holders()))
        due = [grant.target for grant in self.grants if not grant.revoked and id(grant) not in held]
        due = sorted(map(id, due))
        until(lambda: len(self.told) >= len(due))
        # It has come round meanwhile.
        assert self.root.double(1) == 2
        assert sorted(map(id, self.told)) == due

    def teardown(self):
        for process in self.processes:
            process.close()
        for _, ends in self.posted:
            for end in ends:
                end.close()
        self.own.clear()
        self.posted.clear()
        self.processes.clear()
        self.who_is_told_is_told_when_nobody_holds_it()
        grants, objects = self.entrypoint._service.grants, self.entrypoint._objects
        until(lambda: not grants._in_force and not grants._revoked and not grants._doorkeepers)
        assert len(objects._by_badge) == 1
        assert not objects._only
        self.entrypoint.__exit__(None, None, None)
        self.entrypoint = self.root = None
        if len(listing()) != self.open_before:
            gc.collect()
        until(lambda: len(listing()) == self.open_before)


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
