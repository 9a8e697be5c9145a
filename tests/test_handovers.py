"""What was handed over and is not taken: bounded, for each user and over all, and nobody else pays."""

import os
import socket
import struct

import pytest

import by_hand
import capmarshal as cm
from capmarshal._protocol import handover_record
from capmarshal._server import handovers as _handovers
from capmarshal._server.limits import Limits
from capmarshal._server.shares import Shares
from patience import PATIENCE, until
from services import connected, double, failure, serving


def handovers(entrypoint):
    return entrypoint._service._server._listening._handovers


def waiting(connections):
    """How many of these have a capability waiting, and how many were told that it is too many; the rest nothing."""
    told = []
    for connection in connections:
        record = connection.recv(4096, socket.MSG_PEEK)
        told.append(isinstance(handover_record.read(record), bytes))
    return told.count(True), told.count(False)


def test_who_never_reads_gets_so_many_and_no_more(place, fork):
    """A thousand times: the server keeps 64 ends, and the next is told why; when they close, all is as before."""
    with serving(place, mode=0o666) as entrypoint:
        mine = [connected(place) for _ in range(64)]
        assert waiting(mine) == (64, 0)
        for _ in range(1000 - 64):
            with connected(place) as more:
                assert waiting([more]) == (0, 1)
        kind, words = failure(place, 1)
        assert (kind, f"64 capabilities wait to be taken by processes of user {os.getuid()}" in words) == (
            "TooManyInFlight",
            True,
        )
        until(lambda: len(handovers(entrypoint)) == 64)
        if os.getuid() == 0:
            assert fork(lambda: double(place), ordinary=True).result() == 8
        asking = by_hand.Concurrent(double, place)
        mine.pop().close()
        assert asking.outcome() == 8
        for connection in mine:
            connection.close()
        until(lambda: len(handovers(entrypoint)) == 0)
        assert double(place) == 8


def test_over_all_it_is_bounded_too(place, fork):
    """By the size of the descriptor table: whoever connects then is told, of whatever user."""

    def serve():
        with serving(place) as entrypoint:
            connections = [connected(place) for _ in range(12)]
            # A sixteenth of 128 for one user.
            until(lambda: len(handovers(entrypoint)) == 8)
            return waiting(connections)

    assert fork(serve, table=128).result() == (8, 4)


@pytest.mark.parametrize("soft", [1, 16, 256, 1024, 1 << 20])
def test_it_stays_below_what_may_be_in_flight(monkeypatch, soft):
    """64 a user and 256 in all, and no more than a quarter of the soft limit."""
    monkeypatch.setattr("resource.getrlimit", lambda _which: (soft, soft))
    bounds = Shares(Limits(), 1000, 10).handovers
    assert bounds.whole == min(256, max(soft // 4, 1))
    assert bounds.user == min(64, max(soft // 16, 1))


def test_who_has_taken_it_and_stays_is_no_burden(place):
    """A client that never closes its end: when room is wanted, the server closes its own."""
    with serving(place) as entrypoint:
        mine = [connected(place) for _ in range(64)]
        for connection in mine:
            _record, descriptors, _flags, _ = socket.recv_fds(connection, 100, 1)
            os.close(descriptors[0])
        until(lambda: len(handovers(entrypoint)) == 64)
        assert double(place) == 8
        until(lambda: len(handovers(entrypoint)) == 0)
        for connection in mine:
            assert by_hand.ended(connection)
            connection.close()


def test_who_shuts_its_end_down_has_not_taken_it(place):
    """It is in flight all the same, and counted: until it is closed."""
    with serving(place) as entrypoint:
        mine = [connected(place) for _ in range(64)]
        assert waiting(mine) == (64, 0)
        for connection in mine:
            connection.shutdown(socket.SHUT_RDWR)
        assert failure(place, 1)[0] == "TooManyInFlight"
        until(lambda: len(handovers(entrypoint)) == 64)
        for connection in mine:
            connection.close()
        assert double(place) == 8


def test_who_speaks_is_not_listened_to(place, files):
    """What a client sends, descriptors among it, is closed when its connection is; nothing turns for nothing."""
    with serving(place) as entrypoint:
        with connected(place) as connection, by_hand.pipe() as (reader, writer):
            for _ in range(20):
                socket.send_fds(connection, [b"x" * 100], [writer.fileno()])
            writer.close()
            assert double(place) == 8
            until(lambda: len(handovers(entrypoint)) == 1)
            assert connection.recv(100)
            connection.close()
            assert by_hand.at_end(reader) == b""
        until(lambda: len(handovers(entrypoint)) == 0)


@pytest.mark.parametrize("first", [[], [b""], [b"x", b""] * 3], ids=["nothing", "empty", "some"])
def test_who_sends_its_own_end_does_not_keep_it_open(place, hostile, first, monkeypatch):
    """In its own connection, or crosswise in another's, behind other records; and dies: the connections are over."""
    # What lies in each other's is found at one look after the other.
    monkeypatch.setattr(_handovers, "_LOOK_AGAIN", 10_000_000)

    def crosswise():
        for _ in range(4):
            ends = [connected(place), connected(place)]
            for end, other in zip(ends, ends[::-1], strict=True):
                for record in first:
                    end.send(record)
                socket.send_fds(end, [b"x"], [other.fileno(), end.fileno()])
        return os.getpid()

    with serving(place) as entrypoint:
        child = hostile(crosswise)
        child.child.kill()
        assert double(place) == 8
        until(lambda: len(handovers(entrypoint)) == 0)


def test_what_closes_slowly_keeps_nobody(place, lingering):
    """A client that leaves a socket in its connection which takes long to close."""
    with serving(place) as entrypoint:
        number, peer = lingering(int(PATIENCE))
        # Whoever closes the last copy waits: that is the server.
        with connected(place) as connection, by_hand.busy(cm.connect(place)):
            socket.send_fds(connection, [b"x"], [number])
            os.close(number)
        until(lambda: len(handovers(entrypoint)) == 0)
        assert double(place) == 8
        peer.close()


def test_an_empty_connection_ends_while_others_of_its_process_take_long_to_close(place, lingering):
    """It waits for no thread of the reaper: that process has all that it may occupy occupied."""
    slow = [lingering(int(PATIENCE)) for _ in range(2)]
    with cm.Entrypoint("service") as entrypoint:
        root = entrypoint.manage(by_hand.Worker())
        entrypoint.listen(place, for_client=lambda _caller: None)
        for number, _ in slow:
            with by_hand.busy(root), connected(place) as connection:
                socket.send_fds(connection, [b"x"], [number])
                os.close(number)
        with connected(place) as connection:
            assert connection.recv(4096)
            assert connection.recv(4096) == b""
        for _, peer in slow:
            peer.close()


def test_who_is_killed_in_between_leaves_nothing(place, hostile):
    """At every step: connected, with what was handed over unread; and nobody is asked about who has gone."""
    with serving(place) as entrypoint:
        children = [hostile(lambda: [connected(place) for _ in range(5)]) for _ in range(3)]
        until(lambda: len(handovers(entrypoint)) == 15)
        for child in children:
            child.child.kill()
        until(lambda: len(handovers(entrypoint)) == 0)
        assert double(place) == 8


def test_nobody_is_asked_about_who_has_gone(place):
    """A flood of connections that are closed at once costs no call of for_client's."""
    asked = []
    entrypoint = cm.Entrypoint("service")
    entrypoint.listen(place, for_client=asked.append)
    for _ in range(20):
        connected(place).close()
    with entrypoint:
        assert failure(place)[0] == "Refused"
        assert len(asked) == 1


def test_calls_go_on_beside_a_flood_of_connections(place, hostile):
    """One connection a turn."""

    def flood():
        child = os.fork()
        if child == 0:
            while True:
                connected(place).close()
        return child

    with serving(place) as entrypoint, cm.timeout(PATIENCE):
        hostile(flood)
        work = cm.connect(place).cast(by_hand.Work)
        for value in range(200):
            assert work.double(value) == 2 * value
        cm.capability(work).close()
        assert len(handovers(entrypoint)) <= 64


def test_too_many_in_flight_are_told(place, fork):
    """ETOOMANYREFS at the server, as an ordinary user: who connects is told whose limit it was, and tries again."""
    place.parent.chmod(0o777)

    def serve():
        with serving(place):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            null = os.open("/dev/null", os.O_RDONLY)
            try:
                while True:
                    socket.send_fds(ours, [b"x"], [null] * 50)
            except OSError:
                pass
            told = failure(place, 1)
            asking = by_hand.Concurrent(double, place)
            theirs.close()
            return told, asking.outcome()

    (kind, words), result = fork(serve, ordinary=True, table=128).result()
    assert (kind, "RLIMIT_NOFILE" in words or "in flight" in words) == ("TooManyInFlight", True)
    assert result == 8


def test_a_refusal_fits_a_record():
    """Whatever its words are."""
    record = handover_record.pack_refusal("\N{SNOWMAN}" * 5000, handover_record.Because.BUSY)
    assert len(record) <= handover_record.SIZE_MAX
    refusal = handover_record.read(record)
    assert refusal.because is handover_record.Because.BUSY
    assert refusal.why.startswith("\N{SNOWMAN}")
    assert struct.unpack_from("=I", record, 12)[0] == len(record)
