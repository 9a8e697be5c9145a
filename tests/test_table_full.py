"""A full descriptor table: an answer that says so, and the next call works."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import resource
import socket

import anyio
import pytest

import awaiting
import by_hand
import capmarshal as cm
import full_table
from capmarshal import aio
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import reaper as _reaper
from loops import LOOPS, AwaitedWork, Work, Worker, in_thread, run

PATIENCE = by_hand.PATIENCE
TABLE = 128


class Tight(cm.Interface):
    """A server whose table its client can fill."""

    @cm.method
    def leave(self, room: int) -> int: ...

    @cm.method
    def relax(self) -> int: ...

    @cm.method
    def count(self, files: list[cm.Descriptor]) -> int: ...

    @cm.method
    def pipes(self, count: int) -> list[cm.Descriptor]: ...


def fill(room):
    """Leaves room for so many descriptors, when all is closed that is to be; the ones that take the others' places."""
    assert _reaper.wait(PATIENCE)
    return full_table.fill(room)


class TightServer(Tight):
    def __init__(self):
        self.taken = []

    def leave(self, room):
        self.relax()
        self.taken = fill(room)
        return len(self.taken)

    def relax(self):
        for number in self.taken:
            os.close(number)
        self.taken = []
        assert _reaper.wait(PATIENCE)
        return len([number for number in range(TABLE) if _is_open(number)])

    def count(self, files):
        return len(files)

    def pipes(self, count):
        made = []
        while len(made) < count:
            made += [cm.Descriptor(number) for number in os.pipe()]
        return made


def _is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("room", [0, 1, 2, 4])
def test_a_servers_full_table_is_told_and_the_next_call_works(fork, room):
    """The caller learns how many of how many were lost, where, and whose limit it was; nothing stays open."""
    with by_hand.server_process(fork, TightServer, table=TABLE) as (_process, capability), cm.timeout(PATIENCE):
        proxy = capability.cast(Tight)
        with by_hand.temporary() as file:
            assert proxy.count([file] * 5) == 5
            before = proxy.relax()
            for _ in range(3):
                proxy.leave(room)
                with pytest.raises(cm.DescriptorsLost) as caught:
                    proxy.count([file] * 5)
                assert f"{5 - room} of 5 descriptors were lost at the server" in str(caught.value)
                assert "RLIMIT_NOFILE" in str(caught.value)
                assert str(TABLE) in str(caught.value)
                assert proxy.count([]) == 0
            assert proxy.relax() == before
            assert proxy.count([file] * 5) == 5


def test_a_server_with_a_full_table_gives_an_idle_channel_up_for_a_newcomer(fork):
    """The newcomer's first knock is lost, its next is taken; who had the channel knocks again, and loses nothing."""
    with by_hand.server_process(fork, TightServer, table=TABLE) as (_process, capability), cm.timeout(PATIENCE):
        proxy = capability.cast(Tight)
        proxy.leave(0)
        (channel,) = open_door_of(capability).idle
        open_door_of(capability).idle.clear()
        assert proxy.count([]) == 0
        open_door_of(capability).idle.extend([channel])
        assert proxy.relax() > 0
        assert channel not in open_door_of(capability).idle


def test_a_servers_method_that_finds_its_table_full_is_a_remote_error(fork):
    """What the method itself cannot open is the method's error, as any other."""
    with by_hand.server_process(fork, TightServer, table=TABLE) as (_process, capability), cm.timeout(PATIENCE):
        proxy = capability.cast(Tight)
        proxy.leave(3)
        with pytest.raises(cm.RemoteError, match="OSError"):
            proxy.pipes(4)
        before = proxy.relax()
        for one in proxy.pipes(4):
            one.close()
        assert proxy.relax() == before


@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_clients_full_table_is_told_and_the_next_call_works(fork, room):
    """The result's descriptors do not fit: the client learns how many, and keeps none of them."""
    with by_hand.serving() as capability:

        @awaiting.loop_kept()
        def client():
            proxy = capability.cast(by_hand.Work)
            with cm.timeout(PATIENCE):
                assert proxy.double(1) == 2
                for _ in range(3):
                    taken = fill(room)
                    with pytest.raises(cm.DescriptorsLost) as caught:
                        proxy.pipes(6)
                    assert f"{6 - room} of 6 descriptors of the result were lost" in str(caught.value)
                    assert str(TABLE) in str(caught.value)
                    assert _reaper.wait(PATIENCE)
                    with pytest.raises(OSError, match="Too many open files"):
                        taken += [os.dup(0) for _ in range(room + 1)]
                    assert proxy.double(2) == 4
                    for number in taken:
                        os.close(number)
                files = proxy.pipes(6)
                for file in files:
                    file.close()
                return len(files)

        assert fork(client, table=TABLE).result() == 6


def test_a_clients_full_table_refuses_a_new_channel(fork):
    """No room for the pair: an error that names the limit, at once, and nothing is left behind."""
    with by_hand.serving() as capability:

        @awaiting.loop_kept()
        def client():
            taken = fill(1)
            with pytest.raises(cm.TableFull, match=str(TABLE)):
                capability.cast(by_hand.Work).double(1)
            os.close(taken.pop())
            with cm.timeout(PATIENCE):
                return capability.cast(by_hand.Work).double(1)

        assert fork(client, table=TABLE).result() == 2


def test_a_client_with_a_full_table_is_told_that_its_server_is_gone(fork):
    """The channel that it has kept has ended, and the door: it makes no other, for which there would be no room."""

    @awaiting.loop_kept()
    def client():
        with by_hand.Impostor() as impostor:
            proxy = impostor.capability.cast(by_hand.Work)
            answering = by_hand.Concurrent(by_hand.answer_first_knock, impostor)
            with cm.timeout(PATIENCE):
                assert proxy.double(4) == 8
                answering.outcome()
                impostor.end.close()
                taken = fill(0)
                with pytest.raises(cm.Disconnected) as caught:
                    proxy.double(1)
            for number in taken:
                os.close(number)
            return caught.value.ran

    assert fork(client, table=TABLE).result() == "no"


def test_a_clients_own_idle_channels_make_room_for_a_new_one(fork):
    """A client that has called from many threads at once has as many channels: they are given up before it fails."""
    with by_hand.serving() as capability, by_hand.serving() as other:

        @awaiting.loop_kept()
        def client():
            first, door = capability.cast(by_hand.Work), open_door_of(capability)
            with cm.timeout(PATIENCE):
                used = []
                for number in range(20):
                    assert first.double(number) == 2 * number
                    # Whoever finds none idle makes one.
                    used.append(door.idle.pop())
                door.idle += used
                del used
                taken = fill(0)
                assert other.cast(by_hand.Work).double(1) == 2
                assert (len(door.idle), first.double(2)) == (0, 4)
            for number in taken:
                os.close(number)
            return len(door.idle)

        assert fork(client, table=TABLE).result() == 1


def _receive(capability, _path):
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        cm.send_capability(one, capability)
        taken = fill(0)
        try:
            return cm.receive_capability(other, PATIENCE)
        finally:
            for number in taken:
                os.close(number)


def _make(make):
    def made(_capability, path):
        taken = fill(0)
        try:
            return make(path)
        finally:
            for number in taken:
                os.close(number)

    return made


NEEDS = {
    "receive_capability": _receive,
    "connect": _make(lambda path: cm.connect(path, PATIENCE)),
    "an entrypoint": _make(lambda _path: cm.Entrypoint("new").close()),
    "a dataspace": _make(lambda _path: cm.Dataspace.create(8).close()),
}


@pytest.mark.parametrize("need", NEEDS)
def test_a_clients_idle_channels_make_room_for_whatever_needs_it(fork, tmp_path, need):
    """What a burst of calls has left is closed for it, and the next call makes a channel."""
    with cm.Entrypoint("burst") as entrypoint:
        work = by_hand.Worker()
        capability = entrypoint.manage(work)
        entrypoint.listen(tmp_path / "socket", work)

        @awaiting.loop_kept()
        def client():
            proxy, door = capability.cast(by_hand.Work), open_door_of(capability)
            with cm.timeout(PATIENCE):
                used = []
                for number in range(20):
                    assert proxy.double(number) == 2 * number
                    used.append(door.idle.pop())
                door.idle += used
                del used
                NEEDS[need](capability, tmp_path / "socket")
                return len(door.idle), proxy.double(4)

        assert fork(client, table=TABLE).result() == (0, 8)


def test_a_clients_channels_in_use_are_not_given_up_for_a_new_one(fork):
    """Only idle ones are: a call in progress is nobody's to end, and waited for until the deadline."""
    with by_hand.serving() as capability, by_hand.serving() as other:

        @awaiting.loop_kept()
        def client():
            door = open_door_of(capability)
            with cm.timeout(PATIENCE):
                assert capability.cast(by_hand.Work).double(1) == 2
                channel = door.idle.pop()
                taken = fill(0)
                with (
                    pytest.raises(cm.CallTimeout, match="not made: the descriptor table is full") as late,
                    cm.timeout(0.1),
                ):
                    other.cast(by_hand.Work).double(1)
                assert late.value.ran == "no"
                door.idle.append(channel)
                for number in taken:
                    os.close(number)
                assert capability.cast(by_hand.Work).double(2) == 4
                return channel in door.idle

        assert fork(client, table=TABLE).result()


def _in_threads(capabilities, calls):
    """Makes so many calls at a time by threads, with room for few of them; their answers."""
    with concurrent.futures.ThreadPoolExecutor(calls) as pool:
        works = [capability.cast(Work) for capability in capabilities]
        answers = [pool.submit(works[number % len(works)].wait, str(number)) for number in range(calls)]
        return [answer.result(PATIENCE) for answer in answers]


def _in_a_loop(loop):
    def calls_in_loop(capabilities, calls):
        async def main():
            works = [capability.cast(AwaitedWork) for capability in capabilities]
            answers = []

            async def call(number):
                answers.append(await works[number % len(works)].wait(str(number)))

            async with anyio.create_task_group() as group:
                for number in range(calls):
                    group.start_soon(call, number)
            return answers

        return run(loop, main)

    return calls_in_loop


@pytest.mark.parametrize("by", ["threads", *LOOPS])
@pytest.mark.parametrize("servers", [1, 3])
def test_a_call_that_finds_no_room_waits_for_one_of_those_that_run(fork, by, servers):
    """All are answered, whichever servers they are for, though there is room for a few at a time."""
    calls_at_once = _in_threads if by == "threads" else _in_a_loop(by)
    workers = [Worker() for _ in range(servers)]
    entrypoints = [aio.Entrypoint("burst", limits=cm.Limits(process_share=1)) for _ in workers]
    capabilities = [one.manage(worker) for one, worker in zip(entrypoints, workers, strict=True)]

    def client():
        # Of a loop's own, and of the reaper's.
        soft = 24 + sum(_is_open(number) for number in range(TABLE))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
        return sorted(calls_at_once(capabilities, 60), key=int)

    child = fork(client)

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            for one in entrypoints:
                await stack.enter_async_context(one)
            await workers[0].began(3)
            for worker in workers:
                worker.go = True
            assert await in_thread(child.result) == [str(number) for number in range(60)]

    run("asyncio", main)


def test_an_entrypoint_needs_room(fork):
    """Where it has not all of its descriptors, it has none."""

    @awaiting.loop_kept()
    def make():
        before = sum(_is_open(number) for number in range(TABLE))
        for room in range(4):
            taken = fill(room)
            with pytest.raises(cm.TableFull):
                cm.Entrypoint("no room")
            for number in taken:
                os.close(number)
            assert _reaper.wait(PATIENCE)
            assert sum(_is_open(number) for number in range(TABLE)) == before
        taken = fill(4)
        cm.Entrypoint("just enough").close()
        for number in taken:
            os.close(number)
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    assert fork(make, table=TABLE).result() == TABLE
