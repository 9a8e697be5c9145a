"""Doors and channels that the garbage collector takes: no number outlives its descriptor, and no close blocks."""

import contextlib
import gc
import os
import socket
import stat
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import open_door_of
from patience import PATIENCE

# The stranger's sockets take longer to close than any test may take.
LONG = 600


class User:
    """An application's object in a garbage cycle, that takes its leave of a session when it goes."""

    def __init__(self, session, told):
        self.session, self.told = session, told
        self.me = self

    def __del__(self):
        # Whatever numbers are free by now are the application's own from here on.
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(4)]
        try:
            self.told.append(self.session.double(21))
        except cm.Error as error:
            self.told.append(error)
        for end in (end for pair in pairs for end in pair):
            with contextlib.suppress(BlockingIOError):
                self.told.append(end.recv(4096, socket.MSG_DONTWAIT))
        for one, other in pairs:
            one.close()
            other.close()


def _answers(impostor, count):
    """Serves so many calls by hand, on as many channels as come."""
    with impostor.accept() as channel:
        for number in range(1, count + 1):
            assert channel.recv(4096)
            channel.send(by_hand.reply(number))


@pytest.fixture
def collector_is_told():
    """The collector runs when the test says so, and no earlier."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("warm", [0, 1], ids=["no channel yet", "an idle channel"])
def test_a_finalizer_may_call(collector_is_told, warm):
    """The call works, and nobody else's socket gets the knock, the far end, the badge or the arguments."""
    told = []
    with by_hand.Impostor() as impostor:
        session = impostor.capability.cast(by_hand.Work)
        impostor.capability = None
        serving = by_hand.Concurrent(lambda: _answers(impostor, warm + 1))
        with cm.timeout(PATIENCE):
            for _ in range(warm):
                assert session.double(1) == 42
            User(session, told)
            del session
            assert told == []
            gc.collect()
        serving.outcome()
    assert told == [42]


def test_a_finalizer_may_call_an_object_of_its_own_process(collector_is_told):
    """Of an entrypoint that another thread serves, and that is kept."""
    told = []
    with cm.Entrypoint("own") as entrypoint, cm.timeout(PATIENCE):
        session = entrypoint.manage(by_hand.Worker()).cast(by_hand.Work)
        assert session.double(1) == 2
        User(session, told)
        del session
        gc.collect()
    assert told == [42]


AT_EXIT = """
    import socket, sys
    import capmarshal as cm
    from test_finalizers import Giver, User

    class Told(list):
        def append(self, what):
            print(what, flush=True)

    session = cm.parent().cast(Giver).give()
    if sys.argv[1] == "warm":
        session.double(1)
    user = User(session, Told())
"""


class Giver(cm.Interface):
    """Gives a capability of another entrypoint, of which the child holds nothing else."""

    @cm.method
    def give(self) -> by_hand.Work: ...


class GiverServer(Giver):
    def __init__(self, gift):
        self.gift = gift

    def give(self) -> by_hand.Work:
        return self.gift


@pytest.mark.parametrize("warm", ["cold", "warm"])
def test_a_finalizer_may_call_when_the_interpreter_ends(tmp_path, warm):
    """As long as Python still runs any code, that is."""
    (tmp_path / "script.py").write_text(textwrap.dedent(AT_EXIT))
    path = os.pathsep.join([str(Path(__file__).parent), *(entry for entry in sys.path if "support" in entry)])
    with cm.Entrypoint("giver") as giver, cm.Entrypoint("gift") as gift:
        worker = by_hand.Worker()
        gift.manage(worker)
        child = cm.spawn(
            [sys.executable, "-P", "-W", "error", str(tmp_path / "script.py"), warm],
            parent=giver.manage(GiverServer(worker)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        said, complaints = child.communicate(timeout=PATIENCE)
    assert (said, complaints, child.returncode) == ("42\n", "", 0)


def test_a_door_lives_as_long_as_anything_that_uses_it(collector_is_told):
    """Its descriptor is open while somebody has the door, and no longer."""
    with by_hand.Impostor() as impostor:
        door = open_door_of(impostor.capability)
        impostor.capability = None
        gc.collect()
        assert stat.S_ISSOCK(os.fstat(door.number).st_mode)
        del door
        # Hung up: nobody has the client's end any more.
        assert impostor.end.recv(1) == b""


# ----------------------------------------------------------------- a close that blocks


def test_dropping_a_door_does_not_block(lingering):
    """Its queue holds a socket that lingers: whoever drops the capability waits for nothing."""
    number, peer = lingering(LONG)
    with by_hand.Impostor() as impostor:
        by_hand.send(impostor.end, b"x", [number])
        os.close(number)

        def drop():
            impostor.capability = None

        by_hand.Concurrent(drop).outcome()
        peer.close()


def test_dropping_a_channel_does_not_block(lingering):
    """The same of an idle channel, into whose queue a hostile server puts it."""
    number, peer = lingering(LONG)
    with by_hand.Impostor() as impostor:
        serving = by_hand.Concurrent(lambda: _answer_and_leave(impostor, number))
        with cm.timeout(PATIENCE):
            assert impostor.capability.cast(by_hand.Work).double(1) == 42
        with serving.outcome():
            os.close(number)

            def drop():
                impostor.capability = None

            by_hand.Concurrent(drop).outcome()
            peer.close()


def _answer_and_leave(impostor, number):
    channel = impostor.accept()
    assert channel.recv(4096)
    channel.send(by_hand.reply(1))
    by_hand.send(channel, by_hand.reply(1, descriptors=1), [number])
    return channel


def test_a_server_that_drops_a_strangers_door_serves_on(lingering):
    """Sent as an argument, with a lingering socket in its queue: no call is delayed by that."""
    number, peer = lingering(LONG)
    end, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with by_hand.serving() as capability, end, client:
        by_hand.send(end, b"x", [number])
        os.close(number)
        with by_hand.knock(capability) as near:
            record = by_hand.call(capability, b"maybe", b"\x91\x91\x00", [(0, b"b" * 16)], 1)
            with by_hand.busy(capability):
                # Not the last close: the record with the other one waits in a queue.
                by_hand.send(near, record, [client.fileno()])
                client.close()
            assert near.recv(4096)
        proxy = capability.cast(by_hand.Work)
        with cm.timeout(PATIENCE):
            assert [proxy.double(21) for _ in range(3)] == [42, 42, 42]
        peer.close()
    capability.close()


@pytest.mark.parametrize("kept", [cm.capability, lambda proxy: proxy], ids=["capability", "proxy"])
def test_a_capability_does_not_keep_its_entrypoint(kept):
    """Not even one whose object refers to it: nothing global does, either."""

    class Knowing(by_hand.Worker):
        pass

    def forget():
        entrypoint, target = cm.Entrypoint("forgotten"), Knowing()
        target.entrypoint = entrypoint
        return weakref.ref(entrypoint), kept(entrypoint.manage(target).cast(by_hand.Work))

    with pytest.warns(ResourceWarning, match="unclosed <Entrypoint 'forgotten'>"):
        entrypoint, held = forget()
        gc.collect()
    assert entrypoint() is None
    with pytest.raises(cm.Disconnected):
        (held if isinstance(held, by_hand.Work) else held.cast(by_hand.Work)).double(1)
