"""Entrypoint.listen: who connects gets one capability, and from there on all is as ever."""

import logging
import os
import socket

import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors.socket_paths import Credentials, credentials_of
from full_table import fill
from patience import PATIENCE
from services import double, failure, serving


def test_another_process_connects_and_calls(place, fork):
    with serving(place):
        assert fork(lambda: double(place, 21)).result() == 42


def test_everybody_gets_the_same(place):
    """As the capability space has it: the same object, under one descriptor."""
    worker = by_hand.Worker()
    with serving(place, worker) as entrypoint:
        first, second = cm.connect(place, PATIENCE), cm.connect(place, PATIENCE)
        assert first is second is entrypoint.manage(worker)
        assert first.local is worker
        first.close()


def test_a_proxy_or_a_capability_may_be_handed_over(place):
    """Of whatever entrypoint: a service may stand for another."""
    with cm.Entrypoint("behind") as behind, cm.Entrypoint("before") as before:
        behind_it = behind.manage(by_hand.Worker())
        for number, given in enumerate((behind_it, behind_it.cast(by_hand.Work))):
            path = f"{place}{number}"
            before.listen(path, given)
            assert cm.connect(path, PATIENCE) is behind_it
        behind_it.close()
        # pytest holds it
        del given


def test_for_client_is_told_who_connects(place, fork):
    """Process, user and group, as the kernel has them; an ordinary user's too."""
    told = []
    worker = by_hand.Worker()
    with cm.Entrypoint("service") as entrypoint:
        capability = entrypoint.manage(worker)
        entrypoint.listen(place, for_client=lambda caller: told.append(caller) or capability, mode=0o666)

        def run():
            double(place)
            return os.getpid(), os.getuid(), os.getgid()

        children = [fork(run, ordinary=ordinary).result() for ordinary in (False, True)]
        assert [(caller.pid, caller.uid, caller.gid) for caller in told] == children
        assert told[0] == cm.Caller(*children[0])
        capability.close()


def test_each_client_may_get_something_of_its_own(place, fork):
    workers = []

    class Counting(by_hand.Worker):
        def double(self, value):
            return len(workers)

    with cm.Entrypoint("service") as entrypoint:

        def make(_caller):
            workers.append(Counting())
            return entrypoint.manage(workers[-1])

        entrypoint.listen(place, for_client=make)
        assert [fork(lambda: double(place)).result() for _ in range(3)] == [1, 2, 3]
        assert len({id(worker) for worker in workers}) == 3
    workers.clear()


def test_who_is_not_let_in_is_told(place):
    with serving(place, for_client=lambda _caller: None):
        kind, words = failure(place)
        assert kind == "Refused"
        assert f"process {os.getpid()} of user {os.getuid()} is not let in" in words
        with pytest.raises(PermissionError):
            cm.connect(place, PATIENCE)


@pytest.mark.parametrize(
    "error",
    [ValueError("private words"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_what_for_client_raises_refuses_that_client_and_ends_nothing(place, caplog, error):
    """Property 11: it is logged, and its words are not the client's to read."""
    worker = by_hand.Worker()
    with cm.Entrypoint("service") as entrypoint:
        capability = entrypoint.manage(worker)
        errors = [error]

        def choose(_caller):
            if errors:
                raise errors.pop()
            return capability

        entrypoint.listen(place, for_client=choose)
        kind, words = failure(place)
        assert (kind, "private" in words) == ("Refused", False)
        assert "the service failed when it was asked what (its for_client), and its log says why" in words
        (record,) = caplog.records
        assert (record.levelno, record.exc_info[1]) == (logging.ERROR, error)
        assert f"process {os.getpid()} " in record.getMessage()
        assert f"for_client, at '{place}', failed" in record.getMessage()
        caplog.clear()
        assert double(place) == 8
        capability.close()
    error.__traceback__ = None


def test_what_for_client_would_give_is_gone(place, caplog):
    """As where it stands before another service: its clients may try again, and are told none of its words."""

    def choose(_caller):
        raise cm.Disconnected("connecting to '/private'", ran="no")

    with serving(place, for_client=choose):
        with pytest.raises(cm.Disconnected, match="would hand over is gone, or can't be reached now") as caught:
            cm.connect(place, timeout=PATIENCE)
        assert (caught.value.ran, "private" in str(caught.value)) == ("no", False)
        (record,) = caplog.records
        assert (record.levelno, record.exc_info) == (logging.WARNING, None)
        assert "private" in record.getMessage()


@pytest.mark.parametrize("given", [by_hand.Worker(), 3, "service", by_hand.Worker, object()], ids=repr)
def test_what_for_client_gives_is_managed(place, caplog, given):
    """As elsewhere: what is no capability, nor stands for one, is a TypeError, which the log has."""
    with serving(place, for_client=lambda _caller: given):
        assert failure(place)[0] == "Refused"
    assert isinstance(caplog.records[0].exc_info[1], TypeError)
    caplog.clear()


def test_a_closed_capability_is_handed_to_nobody(place, caplog):
    """Which is not the client's fault, and the log says so."""
    with cm.Entrypoint("other") as other:
        closed = other.manage(by_hand.Worker())
        closed.close()
        with serving(place, closed):
            assert failure(place)[0] == "Refused"
            assert "closed" in caplog.text
    caplog.clear()


def test_for_client_may_call_objects_of_its_own_entrypoint(place):
    """It runs in the serving thread, as a call does: a call to itself runs inline, with the deadline that it sets."""
    seen = []
    with cm.Entrypoint("service") as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())

        def choose(_caller):
            seen.append((cm.remaining() > PATIENCE, capability.cast(by_hand.Work).double(5)))
            with cm.timeout(0.5):
                seen.append(cm.remaining() <= 0.5)
            cm.timeout(0).__enter__()
            return capability

        entrypoint.listen(place, for_client=choose)
        assert double(place) == 8
        assert double(place) == 8
        assert seen == [(True, 10), True] * 2
        capability.close()


def test_for_client_may_close_the_entrypoint(place):
    """From within it, as from within a call."""
    entrypoint = cm.Entrypoint("service")
    entrypoint.listen(place, for_client=lambda _caller: entrypoint.close())
    with entrypoint:
        assert failure(place)[0] in ("Refused", "Disconnected")
    assert not place.exists()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((), {}, TypeError, "for_client=..."),
        ((by_hand.Worker(),), {"for_client": lambda _caller: None}, TypeError, "for_client=..."),
        ((), {"for_client": 3}, TypeError, "called with a Caller"),
        ((), {"for_client": lambda: None}, TypeError, "called with a Caller, and .* takes other arguments"),
        ((3,), {}, TypeError, "can be managed, not 3"),
        ((by_hand.Worker,), {}, TypeError, "an object first"),
        ((lambda _caller: None,), {}, TypeError, "for_client=..."),
        ((by_hand.Worker().double,), {}, TypeError, "for_client=..."),
        ((by_hand.Worker(),), {"mode": "600"}, TypeError, "not '600'"),
        ((by_hand.Worker(),), {"mode": True}, TypeError, "permissions"),
        ((by_hand.Worker(),), {"mode": 0o1600}, ValueError, "not 0o1600"),
        ((by_hand.Worker(),), {"mode": 600}, ValueError, "as 0o600, not 0o1130"),
        ((by_hand.Worker(),), {"mode": -1}, ValueError, "permissions"),
    ],
)
def test_what_is_no_use_is_refused(place, arguments, options, error, words):
    """With what would be of use; and nothing is made."""
    with cm.Entrypoint("service") as entrypoint:
        with pytest.raises(error, match=words):
            entrypoint.listen(place, *arguments, **options)
        assert not place.exists()


def test_a_listening_socket_may_be_given(place):
    """It is taken, and closed with the entrypoint; its file is its maker's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(place))
        made.listen()
        with cm.Entrypoint("service") as entrypoint:
            entrypoint.listen(made, by_hand.Worker())
            assert made.fileno() == -1
            assert double(place) == 8
    assert place.is_socket()
    assert failure(place)[0] == "Disconnected"


@pytest.mark.parametrize(
    ("kind", "listens", "error", "words"),
    [
        (socket.SOCK_STREAM, True, TypeError, "ListenSequentialPacket"),
        (socket.SOCK_DGRAM, False, TypeError, "SEQPACKET"),
        (socket.SOCK_SEQPACKET, False, ValueError, "does not listen"),
    ],
)
def test_a_socket_of_another_kind_is_refused(place, kind, listens, error, words):
    """And closed, since it was taken."""
    with socket.socket(socket.AF_UNIX, kind) as made, cm.Entrypoint("service") as entrypoint:
        made.bind(str(place))
        if listens:
            made.listen()
        with pytest.raises(error, match=words):
            entrypoint.listen(made, by_hand.Worker())
        assert made.fileno() == -1
        with pytest.raises(cm.Closed):
            entrypoint.listen(made, by_hand.Worker())


def test_a_socket_that_others_hold_too_goes_on(place):
    """As systemd's: it is not shut down, and the next server finds who has connected meanwhile."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(place))
        made.listen()
        for _ in range(2):
            with cm.Entrypoint("service") as entrypoint:
                entrypoint.listen(made.dup(), by_hand.Worker())
                assert double(place) == 8
            waiting = by_hand.Concurrent(double, place)
            assert made.fileno() >= 0
            with cm.Entrypoint("service") as entrypoint:
                entrypoint.listen(made.dup(), by_hand.Worker())
                assert waiting.outcome() == 8


def test_a_socket_that_was_shut_down_is_no_end_of_the_service(place, caplog, until):
    """Whoever holds it may do that; the log says so once, and the loop does not turn for nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(place))
        made.listen()
        with cm.Entrypoint("service") as entrypoint:
            capability = entrypoint.manage(by_hand.Worker())
            entrypoint.listen(made.dup(), capability)
            made.shutdown(socket.SHUT_RDWR)
            until(lambda: "was shut down" in caplog.text)
            assert capability.cast(by_hand.Work).double(4) == 8
            assert len(caplog.records) == 1
            capability.close()
    caplog.clear()


def test_full_tables_make_who_connects_wait(place, fork):
    """Nobody is lost, and nothing ends, where the server's descriptor table has no room for a connection."""

    def serve():
        entrypoint = cm.Entrypoint("service")
        entrypoint.listen(place, by_hand.Worker())
        with entrypoint:
            logging.getLogger("capmarshal").setLevel(logging.CRITICAL)
            connections = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
            full = fill(0)
            connections[0].settimeout(PATIENCE)
            connections[0].connect(str(place))
            capability = entrypoint.manage(by_hand.Worker())
            assert capability.cast(by_hand.Work) is not None
            connections[0].settimeout(0.2)
            with pytest.raises(TimeoutError):
                connections[0].recv(100)
            for number in full:
                os.close(number)
            connections[0].settimeout(PATIENCE)
            assert connections[0].recv(100)
            connections[0].close()
            return double(place)

    assert fork(serve, table=64).result() == 8


def test_the_kernel_says_who_is_at_the_other_end(seqpacket):
    """What limits are counted by, and what for_client is told."""
    assert credentials_of(seqpacket[0].fileno()) == Credentials(os.getpid(), os.getuid(), os.getgid())
