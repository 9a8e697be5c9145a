"""Calls and results that do not fit into one record: any size, all or nothing, and what their failures mean."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import signal
import threading
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
import matrix
import parts_by_hand as hand
from capmarshal._capabilities.capability import open_door_of
from capmarshal._protocol import wire as _wire

PATIENCE = hand.PATIENCE
MIB = 1 << 20


@pytest.fixture
def server(fork):
    with hand.bulk_process(fork) as (child, proxy), cm.timeout(PATIENCE):
        yield child, proxy


@pytest.fixture
def proxy(server):
    return server[1]


@pytest.fixture
def one():
    with by_hand.pipe() as (reader, _writer), cm.Descriptor.dup_of(reader) as made:
        yield made


def patiently(call, *arguments):
    with cm.timeout(PATIENCE):
        return call(*arguments)


@pytest.mark.parametrize("count", [0, 1, 253, 254, 1000])
@pytest.mark.parametrize("size", [0, 65_500, 212_500, 3 * MIB])
def test_a_call_of_any_size_arrives_whole(proxy, files, size, count):
    """Bytes and descriptors, each exactly once and in order, whether they fit into a record or not."""
    data = hand.pattern(size)
    numbers = files(count)
    lent = [cm.Descriptor.dup_of(number) for number in numbers]
    digest, inodes = proxy.check(data, lent)
    assert digest == hashlib.sha256(data).hexdigest()
    assert inodes == [os.fstat(number).st_ino for number in numbers]
    for each in lent:
        each.close()


@pytest.mark.parametrize("step", range(-160, 161, 8))
def test_no_size_around_one_records_room_is_special(proxy, step):
    """Byte for byte around the largest record of the default buffer."""
    data = hand.pattern(212_960 + step)
    assert proxy.check(data, [])[0] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("count", [0, 253, 254, 1000])
@pytest.mark.parametrize("size", [0, 212_900, 3 * MIB])
def test_a_result_of_any_size_arrives_whole(proxy, size, count):
    """The other way round."""
    data, made = proxy.make(size, count)
    assert data == hand.pattern(size)
    links = [str(Path(f"/proc/self/fd/{each.fileno()}").readlink()) for each in made]
    assert links == [f"/memfd:made-{i} (deleted)" for i in range(count)]
    for each in made:
        each.close()


def test_thousands_of_descriptors_and_hundreds_of_megabytes(fork):
    """Where the entrypoint allows it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4000:
        pytest.skip("the hard limit of descriptors here is too low")

    def child():
        with hand.bulk_process(fork, {"max_bytes": 400 * MIB, "max_descriptors": 3000}, table=4000) as (_, proxy):
            with by_hand.pipe() as (reader, _), cm.Descriptor.dup_of(reader) as one, cm.timeout(3 * PATIENCE):
                _, inodes = proxy.check(bytes(200 * MIB), [one] * 3000)
                return len(inodes)

    assert fork(child, table=4000).result() == 3000


def test_the_default_maxima_are_named(proxy, one):
    """1,024 descriptors and 64 MiB: refused as arguments and as results, and the next call works."""
    with pytest.raises(cm.TooLarge, match=r"1025 descriptors.*maximum is 1024 \(max_descriptors\)"):
        proxy.check(b"", [one] * 1025)
    with pytest.raises(cm.TooLarge, match=r"arguments of \d+ bytes.*maximum is 67108864 \(max_bytes\)"):
        proxy.size(bytes(64 * MIB))
    with pytest.raises(cm.TooLarge, match=r"a result with 1025 descriptors.*1024 \(max_descriptors\)"):
        proxy.same(1025, None)
    with pytest.raises(cm.TooLarge, match=r"a result of \d+ bytes.*67108864 \(max_bytes\)"):
        proxy.make(64 * MIB, 0)
    assert len(proxy.check(b"", [one] * 1024)[1]) == 1024
    assert proxy.size(bytes(63 * MIB)) == 63 * MIB


def test_maxima_are_the_entrypoints(fork, one):
    """Smaller ones hold for what fits into one record, too."""
    with hand.bulk_process(fork, {"max_bytes": 10_000, "max_descriptors": 2}) as (_, proxy), cm.timeout(PATIENCE):
        assert len(proxy.check(b"", [one] * 2)[1]) == 2
        with pytest.raises(cm.TooLarge, match="max_descriptors"):
            proxy.check(b"", [one] * 300)
        with pytest.raises(cm.TooLarge, match="max_bytes"):
            proxy.size(bytes(300_000))
        with pytest.raises(cm.TooLarge, match="max_bytes"):
            proxy.make(10_000, 0)
        with pytest.raises(cm.TooLarge, match="max_descriptors"):
            proxy.same(3, None)
        assert proxy.size(bytes(9000)) == 9000


# ---- What an ended channel means


def test_a_server_that_dies_before_it_has_read_a_long_call_never_ran_it(server, until):
    """Stopped, and killed in the middle of a call of 50 MiB: ran is "no"."""
    child, proxy = server
    proxy.run()
    os.kill(child.pid, signal.SIGSTOP)
    calling = by_hand.Concurrent(patiently, proxy.size, bytes(50 * MIB))
    until(lambda: not open_door_of(cm.capability(proxy)).idle)
    child.kill()
    with pytest.raises(cm.Disconnected) as caught:
        calling.outcome()
    assert caught.value.ran == "no"


def test_a_server_that_dies_in_a_long_call_may_have_run_it(server):
    """It had read all of it: ran is "maybe"."""
    child, proxy = server
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, _go):
        calling = by_hand.Concurrent(patiently, proxy.block, bytes(5 * MIB), began, going)
        assert started.read(1) == b"."
        child.kill()
        with pytest.raises(cm.Disconnected) as caught:
            calling.outcome()
        assert caught.value.ran == "maybe"


def test_a_client_that_is_killed_in_a_long_call_leaves_nothing(proxy, fork, until):
    """Half of it came: none of it ran, and all that came is closed."""
    before = proxy.state()

    def die():
        with by_hand.pipe() as (reader, _), cm.Descriptor.dup_of(reader) as lent:
            timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL))
            timer.start()
            while True:
                proxy.check(bytes(60 * MIB), [lent] * 1000)

    child = fork(die)
    pidfd = os.pidfd_open(child.pid)
    until(lambda: os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    os.close(pidfd)
    child.kill()
    until(lambda: proxy.state().open == before.open)


# ---- Two sides


def test_two_sides_that_send_at_once_do_not_deadlock(proxy):
    """30 MiB each way, four times at once, each server also being its client's client."""
    with cm.Entrypoint("here") as here:
        mine = here.manage(hand.BulkServer()).cast(hand.Bulk)
        threads = [by_hand.Concurrent(patiently, proxy.back, mine, 30 * MIB) for _ in range(2)]
        threads += [by_hand.Concurrent(patiently, proxy.size, bytes(30 * MIB)) for _ in range(2)]
        assert [thread.outcome() for thread in threads] == [30 * MIB] * 4
        cm.capability(mine).close()


def test_sixteen_threads_that_send_a_lot_at_once_wait_for_each_other(proxy):
    """160 MiB together, where one process may have 64 on its way: none fails."""
    data = hand.pattern(10 * MIB)
    digest = hashlib.sha256(data).hexdigest()
    threads = [by_hand.Concurrent(patiently, proxy.check, data, []) for _ in range(16)]
    assert [thread.outcome()[0] for thread in threads] == [digest] * 16


def test_sixteen_threads_that_receive_a_lot_at_once(proxy):
    """The same for results."""
    threads = [by_hand.Concurrent(patiently, proxy.make, 10 * MIB, 20) for _ in range(16)]
    for thread in threads:
        data, made = thread.outcome()
        assert (len(data), len(made)) == (10 * MIB, 20)
        for each in made:
            each.close()


# ---- Given up in the middle


@pytest.mark.parametrize("what", ["call", "result"])
@pytest.mark.parametrize("seconds", [0.001, 0.003, 0.01, 0.03])
def test_a_timeout_in_the_middle_harms_no_later_call(proxy, one, what, seconds):
    """Wherever it strikes: the next call has its own answer, and nothing stays open on either side."""
    before = proxy.state().open
    for _ in range(3):
        with contextlib.suppress(cm.CallTimeout), cm.timeout(seconds):
            if what == "call":
                proxy.check(bytes(20 * MIB), [one] * 700)
            else:
                for each in proxy.make(20 * MIB, 700)[1]:
                    each.close()
        assert proxy.size(b"abc") == 3
        assert len(proxy.check(bytes(MIB), [one] * 300)[1]) == 300
    while proxy.state().open > before:
        proxy.size(b"")


def test_a_late_long_answer_does_not_block_the_next_long_call(proxy):
    """Nobody reads the answer, the server does not read on: the next call takes it in while it is being sent."""
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        blocking = by_hand.Concurrent(patiently, proxy.block, b"", began, going)
        assert started.read(1) == b"."
        for count in (0, 600):
            with cm.timeout(0.05), pytest.raises(cm.CallTimeout):
                proxy.make(5 * MIB, count)
        go.close()
        blocking.outcome()
    assert proxy.size(bytes(5 * MIB)) == 5 * MIB
    assert proxy.size(b"abc") == 3


def interrupting(function):
    """Runs it while each Ctrl-C raises KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            function()
    finally:
        signal.signal(signal.SIGINT, before)


def ctrl_c():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_ctrl_c_in_the_middle_of_sending(impostor, one):
    """The server awaits more: the call is gone, its channel too, and the next call works."""
    bulk = impostor.capability.cast(hand.Bulk)

    def serve():
        with impostor.accept() as channel:
            for _ in range(2):
                _, numbers = by_hand.answer(channel)
                hand.close_all(numbers)
            ctrl_c()
            assert by_hand.ended(channel)
        with impostor.accept() as channel:
            channel.recv(4096)
            channel.send(by_hand.reply(1))

    serving = by_hand.Concurrent(serve)
    interrupting(lambda: patiently(bulk.check, b"", [one] * 600))
    assert patiently(bulk.run) == 42
    serving.outcome()


def test_ctrl_c_in_the_middle_of_receiving(impostor):
    """What has come of the answer is closed, and the next call works."""
    bulk = impostor.capability.cast(hand.Bulk)
    with by_hand.pipe() as (reader, writer):

        def serve():
            with impostor.accept() as channel:
                channel.recv(4096)
                channel.send(hand.begin(1000, 600))
                by_hand.send(channel, hand.part(b"x", 253), [writer.fileno()] * 253)
                hand.await_go(channel)
                ctrl_c()
                assert by_hand.ended(channel)
            with impostor.accept() as channel:
                channel.recv(4096)
                channel.send(by_hand.reply(1))

        serving = by_hand.Concurrent(serve)
        interrupting(lambda: patiently(bulk.make, 1, 1))
        assert patiently(bulk.run) == 42
        serving.outcome()
        writer.close()
        by_hand.at_end(reader)


# ---- What the server keeps, and what it forks


def test_a_kept_result_may_be_closed_while_it_is_sent(proxy):
    """The long reply has duplicates: 600 files arrive whole, though their owner closed them after the first part."""
    capability = cm.capability(proxy)
    with by_hand.knock(capability) as near:
        near.send(hand.call(capability, b"make_kept", [600]))
        _, first = hand.long_answer(near, say_go=False)
        assert proxy.close_kept() == 600
        numbers = [*first]
        while len(numbers) < 600:
            near.send(hand.go())
            record, some = by_hand.answer(near)
            assert isinstance(record, _wire.Part)
            numbers += some
        assert [os.pread(number, 8, 0) for number in numbers] == [str(place).encode() for place in range(600)]
        hand.close_all(numbers)


def test_a_server_that_forks_while_a_long_reply_is_under_way(proxy):
    """The reply comes whole and from the server; the child sends nothing, and keeps no channel."""
    capability = cm.capability(proxy)
    with by_hand.knock(capability) as near, by_hand.pipe() as (going, go):
        near.send(hand.call(capability, b"make", [300_000, 600]))
        _, first = hand.long_answer(near, say_go=False)
        assert proxy.fork_until(going) > 0
        near.send(hand.go())
        numbers = [*first]
        while len(numbers) < 600:
            _, some = by_hand.answer(near)
            numbers += some
            if some and len(numbers) < 600:
                near.send(hand.go())
        hand.close_all(numbers)
        hand.rest_of_long_answer(near)
        assert hand.lives(near, capability)
        go.close()


def test_a_client_that_forks_while_a_long_reply_is_under_way(proxy, fork):
    """The parent's thread gets its answer, the child makes a call of its own."""
    with by_hand.pipe() as (going, go):
        thread = by_hand.Concurrent(patiently, proxy.make, 30 * MIB, 900)
        children = [fork(lambda: patiently(proxy.make, MIB, 0)[0] == hand.pattern(MIB)) for _ in range(3)]
        assert all(child.result() for child in children)
        data, made = thread.outcome()
        assert data == hand.pattern(30 * MIB)
        assert len(made) == 900
        for each in made:
            each.close()
        go.close()
        assert going.read() == b""


# ---- Backpressure: what a client that does not read, or does not finish, costs


@pytest.fixture
def small(fork):
    """A server with small maxima, so that a multiple of them shows."""
    with hand.bulk_process(fork, {"max_bytes": 4 * MIB, "max_descriptors": 300}) as (_, proxy):
        with cm.timeout(PATIENCE):
            assert proxy.size(bytes(3 * MIB)) == 3 * MIB
            assert len(proxy.make(3 * MIB, 0)[0]) == 3 * MIB
            yield proxy


@pytest.mark.usefixtures("freed_memory_is_given_back")
def test_calls_that_are_begun_on_many_channels_cost_no_more_than_one(small):
    """40 channels of one process, each with 4 MiB and 300 descriptors announced and stalled: as one."""
    capability = cm.capability(small)
    before = small.state()
    with contextlib.ExitStack() as stack, by_hand.pipe() as (_, writer):
        channels = [stack.enter_context(by_hand.knock(capability)) for _ in range(40)]
        for near in channels:
            near.setblocking(False)
            near.send(hand.begin(4 * MIB - 100, 300))
            by_hand.send(near, hand.part(b"x", 253), [writer.fileno()] * 253)
        for _ in range(20):
            for near in channels:
                # The server drops a channel that brings more than it announced: not the claim here.
                with contextlib.suppress(BlockingIOError):
                    for _ in range(3):
                        near.send(hand.part(bytes(60_000)))
            assert small.size(b"abc") == 3
        after = small.state()
        assert after.rss - before.rss < 12 * MIB
        assert after.open - before.open <= 40 + 300
        # Another process is served; this one still gets what needs no parts.
        assert small.size(b"abc") == 3


def test_another_process_sends_long_calls_beside_one_that_stalls(small, fork):
    """The bound is each process's own."""
    capability = cm.capability(small)
    with by_hand.knock(capability) as near:
        near.send(hand.begin(4 * MIB - 100, 300))
        assert fork(lambda: patiently(small.size, bytes(3 * MIB))).result() == 3 * MIB
        with cm.timeout(0.2), pytest.raises(cm.CallTimeout):
            small.size(bytes(3 * MIB))
    assert small.size(bytes(3 * MIB)) == 3 * MIB


@pytest.mark.usefixtures("freed_memory_is_given_back")
def test_a_server_and_a_client_that_both_do_not_read(small):
    """A client that sends calls for long replies and reads none is not read either: that is one reply."""
    capability = cm.capability(small)
    before = small.state()
    with by_hand.knock(capability) as near:
        near.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for call_id in range(1, 100_000):
                near.send(hand.call(capability, b"make", [3 * MIB, 0], id=call_id))
        assert small.size(b"abc") == 3
        after = small.state()
        # The first was run and cannot be sent; the others are unread.
        assert after.runs <= before.runs + 1
        assert after.rss - before.rss < 16 * MIB
    assert small.state().runs <= before.runs + 1


@matrix.side_by_side
@pytest.mark.usefixtures("freed_memory_is_given_back")
def test_long_replies_that_are_never_read_cost_a_bounded_sum(small, until):
    """40 channels of one process, each with a reply of 3 MiB: no more calls are taken, then channels are dropped."""
    capability = cm.capability(small)
    before = small.state()
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            near = stack.enter_context(by_hand.knock(capability))
            near.send(hand.call(capability, b"make", [3 * MIB, 0]))
        assert small.size(b"abc") == 3
        after = small.state()
        assert after.peak - before.peak < 32 * MIB
        # Two wait at a time, and each channel that was dropped makes place for one.
        lines = [line for line in after.log if "may wait for a process" in line]
        left_out = [int(told[1]) for line in lines if (told := re.search(r"and (\d+) such lines", line))]
        dropped = len(lines) + sum(left_out)
        assert dropped > 0
        assert after.runs - before.runs <= 2 + dropped
    until(lambda: small.state().open <= before.open)
    assert small.size(bytes(3 * MIB)) == 3 * MIB


def test_another_process_is_served_beside_one_that_does_not_read(small, fork):
    """What one leaves unread is no other's concern."""
    capability = cm.capability(small)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            near = stack.enter_context(by_hand.knock(capability))
            near.send(hand.call(capability, b"make", [3 * MIB, 0]))
        assert fork(lambda: len(patiently(small.make, 3 * MIB, 0)[0])).result() == 3 * MIB
