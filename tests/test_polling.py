"""Polling before sleeping: only for a peer on another CPU, rarely where it does not pay, and at nobody's expense."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

import by_hand
import capmarshal as cm
import matrix
from capmarshal._kernel import polling as _polling
from capmarshal._kernel.native import NULL, ffi, lib
from capmarshal._protocol import wire as _wire

PATIENCE = by_hand.PATIENCE


@pytest.fixture
def here():
    """This thread stays on one CPU: 1 + its number, as a head carries it."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    yield min(usable) + 1
    os.sched_setaffinity(0, usable)


def _polling_of(peer):
    polling = ffi.new("struct cm_polling *")
    polling.peer = peer
    return polling


def test_nobody_polls_for_a_peer_on_the_same_cpu_or_an_unknown_one(here):
    """Polling would keep the one from running, and may do so for the other."""
    assert here == lib.cm_cpu()
    assert not lib.cm_polls(_polling_of(here))
    assert not lib.cm_polls(_polling_of(0))
    assert lib.cm_polls(_polling_of(here + 1))


def test_misses_are_followed_by_ever_more_waits_without_polling(here):
    """The first is borne; then 2, 4, 8 waits and so on, up to 1,024; one success, and all is as at the beginning."""
    polling = _polling_of(here + 1)
    skipped = []
    for _ in range(14):
        assert lib.cm_polls(polling)
        lib.cm_poll_missed(polling)
        skips = polling.skip
        assert not any(lib.cm_polls(polling) for _ in range(skips))
        skipped.append(skips)
    assert skipped == [0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024, 1024]
    assert lib.cm_polls(polling)
    lib.cm_poll_found(polling)
    lib.cm_poll_missed(polling)
    assert lib.cm_polls(polling)


class _Caller:
    """One end of a channel, called by C as a client does; its peer is whatever the test sends."""

    def __init__(self, poll):
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.caller, self.inbox = ffi.new("struct cm_caller *"), ffi.new("struct cm_inbox *")
        self.caller.poll, self.caller.room = poll, 4096
        self.room = ffi.new("char[]", 4096)
        self.inbox.data, self.inbox.capacity = self.room, 4096

    def call(self, milliseconds=5):
        deadline = time.monotonic_ns() + int(milliseconds * 1_000_000)
        key = by_hand.key(bytes(16), b"m")
        return lib.cm_call(self.near.fileno(), self.caller, key, b"", 0, NULL, self.inbox, deadline)

    def answered(self, cpu):
        """A call that is answered, by a peer that says where it runs."""
        self.far.send(_wire.pack_reply(self.caller.id + 1, [], 0, b"", cpu))
        assert self.call(1000 * PATIENCE) == lib.CM_HEAD

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.near.close()
        self.far.close()


@pytest.mark.parametrize("poll", [50_000, 0])
def test_a_client_polls_for_the_cpu_that_the_last_answer_named(here, poll):
    """And not at all where it is switched off.  A poll in vain is how it shows."""
    with _Caller(poll) as client:
        client.answered(here)
        assert client.call() == -errno.ETIMEDOUT
        assert client.caller.polling.misses == 0
        client.answered(here + 1)
        # A poll in vain comes back, for signal handlers to run before anybody sleeps.
        assert client.call() == (-errno.EINTR if poll else -errno.ETIMEDOUT)
        assert client.caller.sent
        assert client.caller.polling.misses == bool(poll)


def test_every_call_says_where_it_was_sent_from(here):
    """Made by C, in every CALL."""
    with _Caller(0) as client:
        client.call()
        assert int.from_bytes(client.far.recv(4096)[6:8], sys.byteorder) == here


@pytest.mark.parametrize("method", [b"double", b"pipes"])
def test_every_answer_says_where_it_was_sent_from(method):
    """Also one that is made by Python, since it hands something over."""
    with by_hand.serving() as capability, by_hand.knock(capability) as near:
        for _ in range(2):
            near.send(by_hand.call(capability, method, b"\x91\x02"))
            data, control, *_ = near.recvmsg(4096, 4096)
            assert 0 < int.from_bytes(data[6:8], sys.byteorder) <= os.cpu_count()
            for *_, numbers in control:
                for number in memoryview(numbers).cast("i"):
                    os.close(number)
        del capability


def test_others_are_served_while_a_client_lies_about_its_cpu():
    """It names a CPU that the server never runs on, and then says nothing: the server polls, and looks around."""
    with by_hand.serving() as capability, by_hand.knock(capability) as near:
        proxy = capability.cast(by_hand.Work)
        with cm.timeout(PATIENCE):
            for _ in range(200):
                near.send(by_hand.call(capability, cpu=65_000))
                assert by_hand.answer(near)[0].id == 1
                assert proxy.double(4) == 8
        del proxy, capability


@matrix.signals_end_loops
def test_a_signal_that_comes_while_the_server_polls_is_heard(fork):
    """Its handler runs at once, not with the next record; here it ends the serving, each time anew."""
    registrar = by_hand.Registrar()
    with cm.Entrypoint("registrar") as entrypoint:
        register = entrypoint.manage(registrar).cast(by_hand.Register)

        def serve():
            served = cm.Entrypoint("signalled")
            signal.signal(signal.SIGTERM, lambda *_: served.close())
            register.enter(served.manage(by_hand.Worker()))
            served.serve_forever()
            return True

        for _ in range(10):
            registrar.arrived.clear()
            child = fork(serve)
            assert registrar.arrived.wait(PATIENCE), child.result()
            capability, registrar.what = registrar.what, None
            with by_hand.knock(capability) as near:
                # A CPU that the server never runs on, so that it polls after the answer.
                call, pid = by_hand.call(capability, cpu=65_000), child.pid
                near.send(call)
                near.recv(64)
                os.kill(pid, signal.SIGTERM)
                assert child.result() is True
            capability.close()


def test_a_client_that_never_pauses_does_not_starve_another(fork):
    """Its calls are found by polling, 16 in a row at most; then everybody is looked at."""
    with by_hand.server_process(fork) as (_, capability):
        proxy, stop = capability.cast(by_hand.Work), []

        def call_on(proxy):
            calls = 0
            while not stop:
                proxy.double(calls)
                calls += 1
            return calls

        busy = by_hand.Concurrent(call_on, proxy)
        with cm.timeout(PATIENCE):
            assert [proxy.double(value) for value in range(300)] == [2 * value for value in range(300)]
        stop.append(True)
        assert busy.outcome() > 0
        cm.capability(proxy).close()
        del proxy, capability


@pytest.mark.parametrize("value", ["0", "1", "off", None])
def test_the_environment_switches_it_off(value):
    """CAPMARSHAL_POLL=0, and nothing else; what is neither 0 nor 1 is warned of."""
    environment = {name: of for name, of in os.environ.items() if name != "CAPMARSHAL_POLL"}
    if value is not None:
        environment["CAPMARSHAL_POLL"] = value
    script = "from capmarshal._kernel import polling as _polling; print(_polling.poll_nanoseconds)"
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == f"{0 if value == '0' else 50_000}\n"
    assert ("RuntimeWarning: CAPMARSHAL_POLL=off does nothing" in done.stderr) == (value == "off")
    assert _polling.poll_nanoseconds in (0, 50_000)
