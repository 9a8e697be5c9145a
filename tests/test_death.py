"""Who wakes when somebody dies, and what ``ran`` says: in every state of a call."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import stat
import struct
import termios
import time

import pytest

import by_hand
import capmarshal as cm
import matrix
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import reaper as _reaper
from capmarshal._descriptors.process import process
from capmarshal._protocol import wire as _wire
from patience import until

PATIENCE = by_hand.PATIENCE


def calling(capability, *arguments):
    """A call of double() or block() in a thread of its own, that hangs no longer than it may."""

    def call():
        proxy = capability.cast(by_hand.Work)
        with cm.timeout(PATIENCE):
            return proxy.block(*arguments) if arguments else proxy.double(21)

    return by_hand.Concurrent(call)


def test_a_server_killed_while_it_works(fork):
    """Its client wakes at once, and cannot know how far the call got."""
    with by_hand.server_process(fork) as (process, capability), by_hand.pipe() as (started, began):
        with by_hand.pipe() as (going, _go):
            call = calling(capability, began, going)
            assert started.read(1) == b"."
            process.kill()
            with pytest.raises(
                cm.Disconnected,
                match=r"^Work.block, entrypoint 'elsewhere': the server closed its entrypoint, or ended, "
                r"during the call, which may have run$",
            ) as caught:
                call.outcome()
        assert caught.value.ran == "maybe"
        with pytest.raises(
            cm.Disconnected, match=r"^Work.double, entrypoint 'elsewhere': the server is gone"
        ) as caught:
            capability.cast(by_hand.Work).double(1)
        assert caught.value.ran == "no"


def test_a_server_killed_before_it_reads(fork):
    """A call that waits in its queue certainly never ran; that of another client, which did, may have."""
    with by_hand.server_process(fork) as (process, capability), by_hand.pipe() as (started, began):
        with by_hand.pipe() as (going, _go):
            working = calling(capability, began, going)
            assert started.read(1) == b"."
            with by_hand.knock(capability) as near:
                near.send(by_hand.call(capability))
                queued = [calling(capability) for _ in range(3)]
                # Their knocks and calls are on the way or there; in either case nobody reads them.
                process.kill()
                for call in queued:
                    with pytest.raises(cm.Disconnected) as caught:
                        call.outcome()
                    assert caught.value.ran == "no"
                assert by_hand.ended(near)
            with pytest.raises(cm.Disconnected) as caught:
                working.outcome()
            assert caught.value.ran == "maybe"


def test_a_stopped_server_that_is_killed(fork):
    """One that does nothing at all any more, on a channel that it knows: the call was not read."""
    with by_hand.server_process(fork) as (process, capability), cm.timeout(PATIENCE):
        assert capability.cast(by_hand.Work).double(1) == 2
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        (channel,) = open_door_of(capability).idle
        call = calling(capability)
        # The record is in the server's queue once the sender's buffer is charged with it (SIOCOUTQ).
        number = channel.near.number
        deadline = time.monotonic() + PATIENCE
        while not _unread(number):
            assert time.monotonic() < deadline
        process.kill()
        with pytest.raises(cm.Disconnected) as caught:
            call.outcome()
        assert caught.value.ran == "no"


def _unread(number):
    return struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))[0]


def test_a_server_killed_after_it_replied():
    """Its answer is in the client's queue: the call has a result, not an error."""
    with by_hand.Impostor() as impostor:
        call = calling(impostor.capability)
        channel = impostor.accept()
        channel.recv(4096)
        channel.send(by_hand.reply(1))
        channel.close()
        impostor.end.close()
        assert call.outcome() == 42


def test_an_answer_is_used_though_a_later_record_was_not_read():
    """The kernel reports the reset before the answer that came earlier; the answer counts."""
    with by_hand.Impostor() as impostor:
        before = set(process.privates)
        call = calling(impostor.capability)
        with impostor.accept() as channel:
            channel.recv(4096)
            # What an honest client never sends: a second record, so that the close is a reset.
            # An event loop has some of its own, too.
            made = [private for private in set(process.privates) - before if private.number >= 0]
            (near,) = [one for one in made if stat.S_ISSOCK(os.fstat(one.number).st_mode)]
            with socket.socket(fileno=os.dup(near.number)) as copy:
                copy.send(b"unread")
            channel.send(by_hand.reply(1))
        assert call.outcome() == 42


@pytest.mark.parametrize(("read", "ran"), [(True, "maybe"), (False, "no")])
def test_a_server_that_closes_a_channel(read, ran):
    """Read, the call may have run; unread, it has not: it is repeated on another channel until the door ends."""
    with by_hand.Impostor() as impostor:
        call = calling(impostor.capability)
        channel = impostor.accept()
        # Peeked at, so that it is there.
        channel.recv(4096, socket.MSG_PEEK)
        if read:
            channel.recv(4096)
            channel.close()
        else:
            channel.close()
            impostor.accept().close()
            impostor.accept().close()
            impostor.end.close()
        with pytest.raises(cm.Disconnected) as caught:
            call.outcome()
        assert caught.value.ran == ran


def test_a_call_that_was_not_read_is_repeated():
    """A refused channel is no error: the call is made again on a new one, once."""
    with by_hand.Impostor() as impostor:
        call = calling(impostor.capability)
        channel = impostor.accept()
        channel.recv(4096, socket.MSG_PEEK)
        channel.close()
        with impostor.accept() as second:
            assert isinstance(_wire.unpack(second.recv(4096)), _wire.Call)
            second.send(by_hand.reply(1))
            assert call.outcome() == 42


@matrix.loop_is_kept
def test_an_entrypoint_that_closes_answers_the_call_in_progress_and_no_other():
    """The queued ones are told that they never ran, at once."""
    with cm.Entrypoint("closing") as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())
        with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
            working = calling(capability, began, going)
            assert started.read(1) == b"."
            with by_hand.knock(capability) as near:
                near.send(by_hand.call(capability))
                queued = [calling(capability) for _ in range(8)]
                closing = by_hand.Concurrent(entrypoint.close)
                # It is closed a moment before, for those who ask: until this, who serves may take one more call.
                until(entrypoint._service._server._ending)
                go.close()
                assert working.outcome() == 1
                closing.outcome()
                for call in queued:
                    with pytest.raises(cm.Disconnected) as caught:
                        call.outcome()
                    assert caught.value.ran == "no"
                assert by_hand.ended(near)


def test_a_client_killed_while_the_server_works(fork, until, open_descriptors):
    """The server finishes, closes what the call brought, forgets the channel, and serves on."""
    with by_hand.serving() as capability, by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        proxy = capability.cast(by_hand.Work)
        assert proxy.double(1) == 2
        before = open_descriptors()

        def call():
            go.close()
            proxy.block(began, going)

        child = fork(call)
        assert started.read(1) == b"."
        child.kill()
        go.close()
        with cm.timeout(PATIENCE):
            assert proxy.double(2) == 4
        until(lambda: open_descriptors() < before)
        began.close()
        by_hand.at_end(started)


def test_a_client_killed_with_a_big_answer_on_the_way(fork, until, open_descriptors):
    """A parked answer and its descriptors go with the client."""
    with by_hand.serving() as capability:
        assert capability.cast(by_hand.Work).double(1) == 2
        before = open_descriptors()
        sent, telling = os.pipe()

        def call():
            with by_hand.knock(capability) as near:
                near.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        near.send(by_hand.call(capability, b"pipes", b"\x91\x08"))
                os.write(telling, b".")
                signal.pause()

        child = fork(call)
        os.close(telling)
        assert os.read(sent, 1) == b"."
        os.close(sent)
        child.kill()
        with cm.timeout(PATIENCE):
            assert capability.cast(by_hand.Work).double(2) == 4
        until(lambda: open_descriptors() <= before)


@pytest.mark.parametrize("round_", range(20))
def test_a_client_killed_at_any_moment(fork, until, open_descriptors, round_):
    """In the middle of whatever it does with descriptors both ways, nothing stays at the server."""
    with by_hand.serving() as capability:
        assert capability.cast(by_hand.Work).double(1) == 2
        before = open_descriptors()
        started, telling = os.pipe()

        def call():
            proxy = capability.cast(by_hand.Work)
            with by_hand.temporary() as file:
                for number in range(1_000_000):
                    proxy.echo(file).close()
                    for end in proxy.pipes(4):
                        end.close()
                    if number == round_:
                        os.write(telling, b".")

        child = fork(call)
        os.close(telling)
        assert os.read(started, 1) == b"."
        os.close(started)
        child.kill()
        with cm.timeout(PATIENCE):
            assert capability.cast(by_hand.Work).double(2) == 4
        until(lambda: open_descriptors() <= before)
    assert _reaper.wait(PATIENCE)


class Left(cm.Interface):
    @cm.method
    def leave(self, file: cm.Descriptor) -> None: ...

    @cm.method
    def leave_data(self) -> None: ...


class LeftServer(Left):
    """Has its client's end of the channel closed in the middle of a call."""

    def leave(self, file: cm.Descriptor) -> None:
        self.near.close()

    def leave_data(self) -> None:
        self.near.close()


@pytest.mark.parametrize("method", [b"leave", b"leave_data"])
def test_a_client_that_leaves_before_its_answer_is_nothing_to_log(caplog, method):
    """It was killed, or has given the call up: neither is its fault, nor the server's."""
    with cm.Entrypoint("left") as entrypoint, cm.timeout(PATIENCE):
        server = LeftServer()
        capability = entrypoint.manage(server)
        with open(os.devnull, "rb") as file:
            for _ in range(2):
                server.near = by_hand.knock(capability)
                if method == b"leave":
                    call = by_hand.call(capability, method, b"\x91\x00", [(0, bytes(16))], 1)
                    by_hand.send(server.near, call, [file.fileno()])
                else:
                    server.near.send(by_hand.call(capability, method, b"\x90"))
                until(lambda: server.near.fileno() == -1)
        # What was sent before is answered before.
        server.near = by_hand.knock(capability)
        capability.cast(Left).leave_data()
        capability.close()
    assert caplog.messages == []
