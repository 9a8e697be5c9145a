"""ETOOMANYREFS: what is sent and not yet received is limited for each user; calls wait for room, and then say why.

``test_message.py`` shows the danger, with messages alone.  Root is exempt, so all of this runs as an ordinary user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import subprocess
import sys
import time

import pytest

import by_hand
import capmarshal as cm
import parts_by_hand as hand

PATIENCE = hand.PATIENCE
LIMIT = 100


def soft_limit(number):
    """Of this process, from here on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def flood():
    """Sends descriptors that nobody receives until the kernel refuses; the sockets that hold them."""
    held = []
    with contextlib.suppress(OSError):
        while True:
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            held += pair
            for _ in range(100):
                by_hand.send(pair[0], b"x", [pair[0].fileno()])
    return held


@contextlib.contextmanager
def hog(fork):
    """Another process of this user that eats the whole budget until the block ends."""
    ended, hold = os.pipe()
    started, began = os.pipe()

    def eat():
        os.close(hold)
        soft_limit(1000)
        held = flood()
        os.write(began, b".")
        os.read(ended, 1)
        return len(held)

    child = fork(eat)
    try:
        assert os.read(started, 1) == b"."
        yield
    finally:
        os.close(hold)
        child.result()
        for number in (ended, started, began):
            os.close(number)


def test_the_load_that_fails_as_messages_passes_as_calls(fork):
    """More descriptors than the limit allows in flight, from eight threads at once: each call waits for its turn."""

    def child():
        with hand.bulk_process(fork) as (_, proxy), by_hand.pipe() as (reader, _writer):
            soft_limit(LIMIT)
            many = [cm.Descriptor.dup_of(reader)]

            def load():
                with cm.timeout(PATIENCE):
                    return [len(proxy.check(b"", many * 60)[1]) for _ in range(20)]

            threads = [by_hand.Concurrent(load) for _ in range(8)]
            results = [thread.outcome() for thread in threads]
            many[0].close()
            return results

    assert fork(child, ordinary=True).result() == [[60] * 20] * 8


def test_a_long_call_has_few_descriptors_in_flight(fork):
    """A thousand in a call and in a result, where the kernel would refuse them at once: each part waits its turn."""

    def child():
        with hand.bulk_process(fork) as (_, proxy), by_hand.pipe() as (reader, _writer):
            one = cm.Descriptor.dup_of(reader)
            # The danger: a part of 253 after one of 253, unread.
            soft_limit(LIMIT)
            one_end, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            by_hand.send(one_end, b"x", [one.fileno()] * 253)
            with pytest.raises(OSError, match="Too many references") as caught:
                by_hand.send(one_end, b"x", [one.fileno()] * 253)
            assert caught.value.errno == errno.ETOOMANYREFS
            one_end.close()
            other_end.close()
            with cm.timeout(PATIENCE):
                _, inodes = proxy.check(b"x" * 300_000, [one] * 1000)
                assert inodes == [os.fstat(one.fileno()).st_ino] * 1000
                one.close()
                soft_limit(4096)
                proxy.soft_limit(60)
                made = proxy.same(1000, None)
                for each in made:
                    each.close()
            return len(made)

    assert fork(child, ordinary=True, table=4096).result() == 1000


def test_a_call_says_whose_limit_it_was(fork):
    """Another process of the user eats the budget: the error, at the deadline, has user, limit, value and remedy."""

    def child():
        with hand.bulk_process(fork) as (_, proxy), by_hand.pipe() as (reader, _writer):
            soft_limit(LIMIT)
            with cm.Descriptor.dup_of(reader) as one:
                proxy.check(b"", [one])
                texts = []
                with hog(fork):
                    for count in (1, 300):
                        with cm.timeout(0.2), pytest.raises(cm.TooManyInFlight) as caught:
                            proxy.check(b"", [one] * count)
                        texts.append((caught.value.errno, str(caught.value)))
                        if count == 1:
                            # Data alone are not concerned, on a channel that is open.
                            with cm.timeout(PATIENCE):
                                assert proxy.size(b"x") == 1
                with cm.timeout(PATIENCE):
                    assert len(proxy.check(b"", [one] * 300)[1]) == 300
            return os.getuid(), texts

    user, texts = fork(child, ordinary=True).result()
    for number, text in texts:
        assert number == errno.ETOOMANYREFS
        assert f"user {user} " in text
        assert f"RLIMIT_NOFILE of {LIMIT}" in text
        assert "raise the limit" in text
        assert "another user" in text


def test_calls_wait_until_the_queues_have_drained(fork):
    """What was refused goes on once there is room: a call, a long one, a knock, and a server's answer."""

    def child():
        with hand.bulk_process(fork) as (_, proxy), by_hand.pipe() as (reader, _writer):
            soft_limit(LIMIT)
            proxy.soft_limit(400)
            one = cm.Descriptor.dup_of(reader)

            def patiently(call, *arguments):
                with cm.timeout(PATIENCE):
                    return call(*arguments)

            with hog(fork):
                threads = [
                    by_hand.Concurrent(patiently, proxy.check, b"", [one]),
                    by_hand.Concurrent(patiently, proxy.check, b"", [one] * 300),
                    by_hand.Concurrent(patiently, proxy.same, 3, None),
                    by_hand.Concurrent(patiently, proxy.size, b"knocks"),
                ]
                with cm.timeout(0.3), contextlib.suppress(cm.CallTimeout, cm.TooManyInFlight):
                    while True:
                        proxy.same(1, None)
            outcomes = [thread.outcome() for thread in threads]
            one.close()
            for each in outcomes[2]:
                each.close()
            return len(outcomes[0][1]), len(outcomes[1][1]), len(outcomes[2]), outcomes[3]

    assert fork(child, ordinary=True).result() == (1, 300, 3, 6)


def test_a_server_that_cannot_answer_serves_on(fork):
    """An answer that the kernel refuses waits; others are answered meanwhile, and the server does not spin."""

    def child():
        with hand.bulk_process(fork) as (_, proxy), by_hand.knock(cm.capability(proxy)) as near:
            proxy.soft_limit(60)
            soft_limit(LIMIT)
            assert hand.lives(near, cm.capability(proxy))
            with hog(fork):
                near.send(hand.call(cm.capability(proxy), b"same", [2, None]))
                before, began = proxy.state().cpu, time.monotonic()
                while time.monotonic() < began + 0.5:
                    with cm.timeout(PATIENCE):
                        assert proxy.size(b"xy") == 2
                        # About 100 tries to answer, between these: not thousands of turns.
                    near.settimeout(0.1)
                    with pytest.raises(TimeoutError):
                        near.recv(1, socket.MSG_PEEK)
                used = proxy.state().cpu - before
            near.settimeout(PATIENCE)
            record, numbers = by_hand.answer(near)
            hand.close_all(numbers)
            return type(record).__name__, len(numbers), used

    kind, count, used = fork(child, ordinary=True).result()
    assert (kind, count) == ("Reply", 2)
    assert used < 0.25


def test_a_sender_receives_what_is_in_its_own_queue(fork):
    """A late answer, that nobody waits for any more, may be what fills the budget: a call takes it in first."""

    def child():
        with hand.bulk_process(fork) as (_, proxy), by_hand.pipe() as (going, go), by_hand.pipe() as (reader, _):
            capability = cm.capability(proxy)
            with by_hand.knock(capability) as near, cm.Descriptor.dup_of(reader) as one:
                assert hand.lives(near, capability)
                with cm.timeout(0.2), pytest.raises(cm.CallTimeout):
                    proxy.same(LIMIT + 50, going)
                go.close()
                # Answered after the late answer was sent.
                assert hand.lives(near, capability)
                soft_limit(LIMIT)
                with cm.timeout(2):
                    return len(proxy.check(b"", [one])[1])

    assert fork(child, ordinary=True).result() == 1


_HOG = """
import array, resource, socket, sys
held, sent = [], 0
try:
    while True:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held.append(pair)
        rights = array.array("i", [pair[0].fileno()] * 253)
        for _ in range(100):
            pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            sent += 253
except OSError as error:
    print(sent, error.errno, *resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
except ValueError:
    print("no", flush=True)
else:
    print("raised", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("limit", [None, 32])
def test_a_descriptor_limit_cures_it(fork, ordinary_python, limit):
    """A spawned process of the same user eats the whole budget; one with a low hard limit cannot, nor raise it."""
    python, options = ordinary_python

    def child():
        with hand.bulk_process(fork) as (_, proxy), by_hand.pipe() as (reader, _writer):
            soft_limit(512)
            # What runs the launcher: this process's own may be root's alone.
            sys.executable = python
            with cm.Descriptor.dup_of(reader) as one:
                proxy.check(b"", [one])
                flooder = cm.spawn(
                    [python, "-P", "-c", _HOG],
                    parent=cm.capability(proxy),
                    descriptor_limit=limit,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=options["env"],
                    cwd="/",
                )
                sent, number, soft, hard = map(int, flooder.stdout.readline().split())
                raised = flooder.stdout.readline().strip()
                try:
                    with cm.timeout(0.3):
                        outcome = len(proxy.check(b"", [one] * 200)[1])
                except cm.TooManyInFlight:
                    outcome = "refused"
                flooder.communicate(timeout=PATIENCE)
                return sent, number, soft, hard, raised, outcome

    sent, number, soft, hard, raised, outcome = fork(child, ordinary=True).result()
    assert number == errno.ETOOMANYREFS
    if limit is None:
        assert outcome == "refused"
    else:
        assert (soft, hard, raised) == (32, 32, "no")
        # Checked before it is attached: one message of 253 may go beyond.
        assert sent <= 32 + 253
        assert outcome == 200


@pytest.mark.parametrize("limit", [0, 15, -1, 1 << 40])
def test_a_descriptor_limit_that_cannot_be_given_is_refused(limit):
    """Too few to start Python, or more than this process may give."""
    with cm.Entrypoint("parent") as entrypoint:
        capability = entrypoint.manage(hand.BulkServer())
        with pytest.raises(ValueError, match="descriptor limit"):
            cm.spawn(["true"], parent=capability, descriptor_limit=limit)
        for wrong in ("64", 64.5, True):
            with pytest.raises(TypeError, match=f"descriptor limit is 16 to .*, not {wrong!r}"):
                cm.spawn(["true"], parent=capability, descriptor_limit=wrong)
        capability.close()
