"""Who owns what when a call ends, by object and by number; and that it is closed when that is due."""

from __future__ import annotations

import contextvars
import io
import os
import socket
import subprocess
from typing import Any

import pytest

import by_hand
import capmarshal as cm
from capmarshal._server.ownership import InProgress, current

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE = by_hand.PATIENCE


class Owning(cm.Interface):
    @cm.method
    def fill(self, file: io.BufferedWriter) -> None: ...

    @cm.method
    def look(self, what: socket.socket) -> int: ...

    @cm.method
    def reader(self, how: str, file: io.BufferedReader) -> cm.Descriptor: ...

    @cm.method
    def several(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]: ...

    @cm.method
    def made(self) -> cm.Descriptor: ...

    @cm.method
    def closed(self) -> bool: ...


class OwningServer(Owning):
    def __init__(self):
        self.last = []

    def fill(self, file):
        file.write(b"#!/bin/true\n")

    def look(self, what):
        return what.getsockname()[1]

    def reader(self, how, file):
        self.last = [file]
        if how == "raw":
            return file.raw
        if how == "detached":
            return file.detach()
        if how == "borrowed":
            return io.FileIO(file.fileno(), closefd=False)
        return file

    def several(self, files):
        self.last = list(files)
        return [files[2], io.FileIO(files[0].fileno(), closefd=False), files[2]]

    def made(self):
        self.last = [io.FileIO(os.memfd_create("made"))]
        return self.last[0]

    def closed(self):
        closed, self.last = [file.closed for file in self.last], []
        return all(closed)


@pytest.fixture
def owning():
    with by_hand.serving(OwningServer()) as capability, cm.timeout(PATIENCE):
        yield capability.cast(Owning)
    capability.close()


def test_a_program_that_a_method_wrote_can_be_run_when_the_call_has_returned(owning, tmp_path):
    """No ETXTBSY: the server's copy of the writer is closed before the answer leaves."""
    program = tmp_path / "program"
    for _ in range(50):
        with open(program, "wb") as file:
            owning.fill(file)
        program.chmod(0o755)
        subprocess.run([program], check=True, timeout=PATIENCE)
        program.unlink()


def test_a_listener_that_was_lent_can_be_closed_and_bound_again(owning):
    """No EADDRINUSE: the server's copy is closed before the answer leaves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    for _ in range(50):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
            assert owning.look(listener) == address[1]


def test_a_result_is_closed_before_the_next_call_of_its_channel(owning):
    """So that a program that goes on using it fails at its first try, and not now and then."""
    for _ in range(50):
        owning.made().close()
        assert owning.closed()


@pytest.mark.parametrize("how", ["the same", "raw", "detached", "borrowed"])
def test_an_argument_whose_number_is_returned_is_a_result_whatever_object_carries_it(owning, how, identity):
    """It is the argument's file that arrives, and nothing of it stays open at the server."""
    with open(os.memfd_create("lent"), "w+b") as file:
        for _ in range(20):
            with owning.reader(how, file) as same:
                assert identity(same) == identity(file)
            if how != "detached":
                assert owning.closed()


def test_of_many_arguments_those_returned_by_number_and_by_object_arrive(owning, identity):
    """In the order of the results, also twice; all of them are closed at the server."""
    lent = [by_hand.temporary() for _ in range(4)]
    for _ in range(20):
        returned = owning.several(lent)
        assert [identity(file) for file in returned] == [identity(lent[place]) for place in (2, 0, 2)]
        for file in returned:
            file.close()
        assert owning.closed()
    for file in lent:
        file.close()


class Unclosable:
    """Has a descriptor, and no close() of its own."""

    def __init__(self):
        self.file = by_hand.temporary(b"unclosable")

    def __del__(self):
        self.file.close()

    def fileno(self):
        return self.file.fileno()


class Troublesome(Unclosable):
    """Raises when it is closed, or asked for its descriptor once more: what, the test says."""

    def __init__(self, error, where):
        super().__init__()
        self.error, self.where, self.asked = error, where, 0

    def fileno(self):
        self.asked += 1
        if self.where == "fileno" and self.asked > 1:
            raise self.error
        return super().fileno()

    def close(self):
        self.file.close()
        if self.where == "close":
            raise self.error


class Odd(cm.Interface):
    @cm.method
    def odd(self, how: str, where: str) -> cm.Descriptor: ...

    @cm.method
    def odd_data(self, how: str, where: str) -> Any: ...

    @cm.method
    def refused(self, how: str, where: str) -> Any: ...

    @cm.method
    def fine(self) -> int: ...


class Panic(BaseException):
    pass


# Made anew each time: one that is kept keeps the frames that it was raised through.
ERRORS = {
    "OSError": lambda: OSError(5, "x"),
    "SystemExit": lambda: SystemExit(3),
    "Panic": Panic,
    "TypeError": TypeError,
}


class OddServer(Odd):
    def odd(self, how, where):
        return Unclosable() if how == "no close" else Troublesome(ERRORS[how](), where)

    odd_data = odd

    def refused(self, how, where):
        return [self.odd(how, where), object()]

    def fine(self):
        return 1


@pytest.mark.parametrize("where", ["close", "fileno"])
@pytest.mark.parametrize("how", ["no close", *ERRORS])
def test_a_result_that_cannot_be_closed_ends_nothing(how, where):
    """It is answered, whatever its close() and fileno() raise; the service goes on, with its thread."""
    with by_hand.serving(OddServer()) as capability, cm.timeout(PATIENCE):
        proxy = capability.cast(Odd)
        for _ in range(2):
            with proxy.odd(how, where) as file:
                assert os.pread(file.fileno(), 20, 0) == b"unclosable"
            with pytest.raises(cm.RemoteError, match=r"where typing\.Any is due"):
                proxy.odd_data(how, where)
            with pytest.raises(cm.RemoteError, match="cannot be sent"):
                proxy.refused(how, where)
            assert proxy.fine() == 1
    capability.close()


class WithHelpers(by_hand.Worker):
    """Has a thread beside the serving one keep what came, in the call's context and out of it."""

    def count(self, files):
        context = contextvars.copy_context()
        self.later = lambda: context.run(cm.keep, files)
        self.kept = by_hand.Concurrent(context.run, cm.keep, files).outcome()
        with pytest.raises(RuntimeError, match="only a call has descriptors"):
            by_hand.Concurrent(cm.keep, files).outcome()
        return len(files)


def test_a_thread_keeps_for_the_call_that_lent_it_its_context_as_long_as_that_goes_on(memfd, identity):
    """As asyncio.to_thread() and anyio's do; and for no other call, nor when it is over."""
    server = WithHelpers()
    with by_hand.serving(server) as capability:
        assert capability.cast(by_hand.Work).count([memfd]) == 1
        (kept,) = server.kept
        assert identity(kept) == identity(memfd)
        with pytest.raises(RuntimeError, match="only a call has descriptors"):
            server.later()
        kept.close()
        server.later = None


def test_calls_in_progress_end_for_all_contexts_that_know_them():
    """Those that others add and remove when there is none of them; others when they are said to end."""
    badges = []
    for calls, begin, end in (
        (InProgress(None, badges), lambda: badges.append(b"one"), badges.clear),
        (made := InProgress(None), lambda: None, made.end),
    ):
        context = contextvars.copy_context()
        context.run(current.set, calls)
        begin()
        with cm.Descriptor(os.dup(0)) as file:
            assert context.run(cm.keep, file) is calls.kept.pop()
            end()
            with pytest.raises(RuntimeError, match="only a call has descriptors"):
                context.run(cm.keep, file)
