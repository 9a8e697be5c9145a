"""Descriptors that a forked child must not keep: made above the standard streams, and closed once, whatever happens."""

import contextlib
import errno
import fcntl
import gc
import os
import socket
import threading

import pytest

import capmarshal as cm
from by_hand import Concurrent
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import private as _private
from capmarshal._descriptors import reaper
from capmarshal._descriptors.private import Private, make_epoll_set, make_event, make_pair, make_pidfd, make_reader
from capmarshal._descriptors.process import process
from capmarshal._kernel.native import lib
from full_table import fill
from interrupting import InterruptingTwice
from patience import PATIENCE
from refusing import refuse
from slow_closing import is_open

MAKERS = {
    "pair": lambda: make_pair("making a test"),
    "epoll set": lambda: (make_epoll_set(),),
    "event": lambda: (make_event(),),
    "pidfd": lambda: (make_pidfd(os.getpid()),),
    "reader": lambda: (make_reader(b"/dev/null"),),
}


class Hooked:
    """The extension's functions, but for one of which something else is done first."""

    def __init__(self, name, before):
        self._name, self._before = name, before

    def __getattr__(self, name):
        function = getattr(lib, name)
        if name != self._name:
            return function

        def hooked(*arguments):
            self._before(*arguments)
            return function(*arguments)

        return hooked


@pytest.mark.parametrize("maker", MAKERS.values(), ids=list(MAKERS))
@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_nothing_of_ours_is_a_standard_stream(fork, maker, closed):
    """Where those are closed, a later dup2() to one of them would replace it."""

    def child():
        for number in closed:
            os.close(number)
        made = maker()
        numbers = [each.number for each in made]
        flags = [fcntl.fcntl(number, fcntl.F_GETFD) for number in numbers]
        left = [number for number in closed if is_open(number)]
        for each in made:
            each.close()
        return min(numbers) >= 3, set(flags), left, any(map(is_open, numbers))

    assert fork(child).result() == (True, {fcntl.FD_CLOEXEC}, [], False)


class Echo(cm.Interface):
    @cm.method
    def same(self, thing: cm.Capability) -> cm.Capability: ...


class EchoServer(Echo):
    def same(self, thing):
        return thing


def test_an_entrypoint_and_its_client_without_standard_streams(fork):
    """Door, server's end, epoll set, channel and a door that is received: all are from 3 up, and work."""

    def child():
        for number in (0, 1, 2):
            os.close(number)
        with cm.Entrypoint("low") as entrypoint, cm.Entrypoint("other") as other, cm.timeout(PATIENCE):
            proxy = entrypoint.manage(EchoServer()).cast(Echo)
            # Its capability comes back by a descriptor that gets the lowest number there is.
            proxy.same(other.manage(EchoServer()))
            ours = [number for number in (0, 1, 2) if is_open(number)]
            low = [
                private.number
                for private in process.privates
                if isinstance(private, Private) and 0 <= private.number < 3
            ]
            return ours, low, open_door_of(cm.capability(proxy)).number >= 3

    assert fork(child).result() == ([], [], True)


def test_a_received_door_leaves_the_standard_streams(fork):
    """It got the lowest number that was free, and gets another one before it is a door."""
    with cm.Entrypoint("far") as entrypoint:
        number = open_door_of(entrypoint.manage(EchoServer())).number

        def child():
            os.dup2(number, 0)
            os.close(number)
            with cm.Descriptor(0) as low:
                from capmarshal._descriptors.moving import move_above_standard

                move_above_standard(low)
                return low.fileno() >= 3, is_open(0)

        assert fork(child).result() == (True, False)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=list(MAKERS))
def test_a_full_table_makes_nothing(fork, maker):
    """Neither end of a pair stays open, and no owner either."""

    def child():
        fill(1)
        before = set(process.privates)
        with pytest.raises(cm.TableFull) if maker is MAKERS["pair"] else contextlib.nullcontext():
            maker()
        gc.collect()
        assert reaper.wait(PATIENCE)
        os.close(os.dup(1))
        return set(process.privates) == before

    assert fork(child, table=64).result()


@pytest.mark.parametrize("maker", MAKERS.values(), ids=list(MAKERS))
@pytest.mark.parametrize("name", ["cm_make_pair", "cm_make_epoll", "cm_make_event", "cm_make_pidfd", "cm_make_file"])
def test_an_interrupt_after_it_is_made_leaves_nothing(maker, name, monkeypatch):
    """Ctrl-C raises where a call ends: what C has made was nobody's then."""

    class Interrupt(BaseException):
        pass

    class Interrupted(Hooked):
        def __getattr__(self, asked):
            function = getattr(lib, asked)
            if asked != name:
                return function

            def interrupted(*arguments):
                assert function(*arguments) == 0
                raise Interrupt

            return interrupted

    monkeypatch.setattr(_private, "lib", Interrupted(name, None))
    with contextlib.suppress(Interrupt):
        for each in maker():
            each.close()


@pytest.mark.parametrize("maker", MAKERS.values(), ids=list(MAKERS))
def test_a_second_interrupt_while_the_first_is_dealt_with_leaves_nothing(maker):
    """Two Ctrl-C within a moment: the second came between the closing of the one end and that of the other."""

    class Interrupt(BaseException):
        pass

    at, again = 0, 0
    while True:
        interrupting = InterruptingTwice(at, again, Interrupt, [_private.__file__])
        with contextlib.suppress(Interrupt), interrupting:
            for each in maker():
                each.close()
        if interrupting.times == 2:
            again += 1
        elif interrupting.times:
            at, again = at + 1, 0
        else:
            break
    assert at > 3


def test_a_child_forked_while_one_is_being_closed_closes_it_too(fork, monkeypatch):
    """Forgotten and not closed yet, it stayed open in the child, and a server's death unnoticed."""
    near, far = make_pair("making a test")
    number, seen = far.number, []

    def forking(closing):
        if closing == number and not seen:
            seen.append(None)
            seen[0] = fork(lambda: (is_open(number), far.number)).result()

    monkeypatch.setattr(_private, "lib", Hooked("lx_close", forking))
    far.close()
    monkeypatch.undo()
    assert seen == [(False, -1)]
    assert not process.closing
    near.close()


def test_a_child_forked_after_the_close_leaves_the_number_to_whoever_has_it(fork):
    """By then it may be anybody's."""
    near, far = make_pair("making a test")
    cookie, number = lib.cm_cookie(far.number), far.number
    far.close()
    with socket.socket() as foreign:
        if foreign.fileno() != number:
            os.dup2(foreign.fileno(), number)
        process.closing[cookie] = number
        try:
            assert fork(lambda: is_open(number)).result()
        finally:
            process.closing.clear()
            if foreign.fileno() != number:
                os.close(number)
    near.close()


def test_a_socket_that_has_no_cookie_to_tell_is_closed_as_any_other(monkeypatch, fork):
    """Where a filter hides it: nobody waits for its close, and a child that is forked meanwhile closes its copy."""

    def could_fork():
        taken = process.lock.acquire(blocking=False)
        if taken:
            process.lock.release()
        return taken

    def child():
        refuse(["getsockopt"])
        near, far = make_pair("making a test")
        number, seen = far.number, []

        def look(closing):
            if closing != number or seen:
                return
            seen.append(None)
            free = Concurrent(could_fork).outcome()
            forked = os.fork()
            if forked == 0:
                os._exit(2 * is_open(number) + (far.number != -1))
            seen[0] = free, os.waitpid(forked, 0)[1]

        monkeypatch.setattr(_private, "lib", Hooked("lx_close", look))
        far.close()
        monkeypatch.undo()
        near.close()
        return seen, dict(process.closing)

    assert fork(child).result() == ([(True, 0)], {})


@pytest.mark.parametrize("maker", [make_epoll_set, make_event])
def test_what_is_no_socket_is_closed_while_nobody_can_fork(maker, monkeypatch):
    """It cannot block, and a child could not know it."""
    private, free = maker(), []

    def ask(_):
        asker = threading.Thread(target=lambda: free.append(process.lock.acquire(blocking=False)))
        asker.start()
        asker.join(PATIENCE)

    monkeypatch.setattr(_private, "lib", Hooked("lx_close", ask))
    private.close()
    assert free == [False]


def test_one_that_is_forgotten_is_closed_and_not_kept():
    """A set kept each for ever: 800,000 records through a door were 83 MB."""
    near, far = make_pair("making a test")
    number, before = far.number, len(process.privates)
    del far
    gc.collect()
    assert reaper.wait(PATIENCE)
    assert not is_open(number)
    assert len(process.privates) == before - 1
    near.close()


def test_a_number_is_gone_before_another_finalizer_can_see_it():
    """In a garbage cycle, whoever is finalised after it finds that there is none."""

    class Last:
        def __init__(self, private):
            self.private, self.me = private, self

        def __del__(self):
            seen.append(self.private.number)

    seen = []
    near, far = make_pair("making a test")
    last = Last(far)
    del far, last
    gc.collect()
    near.close()
    assert seen == [-1]


def test_released_it_is_a_childs_too(fork):
    """A door's client end, which children keep."""
    near, far = make_pair("making a test")
    with far.release() as kept:
        assert far.number == -1
        assert fork(lambda: (is_open(kept.fileno()), near.number)).result() == (True, -1)
    near.close()


def test_closing_twice_closes_once():
    """And one that never had a number."""
    near, far = make_pair("making a test")
    number = near.number
    near.close()
    again = os.dup2(far.number, number)
    near.close()
    assert is_open(again)
    os.close(again)
    far.close()
    Private(-1).close()
    assert lib.lx_close(-1) == -errno.EBADF
