"""Capabilities that wait in a socket: handed over, taken once, and what else may wait there."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import struct

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._capabilities.space import space
from capmarshal._descriptors import reaper
from capmarshal._protocol import handover_record, wire
from full_table import fill
from patience import PATIENCE, until

# include/uapi/asm-generic/socket.h
_SO_PEEK_OFF = 42
HEAD = struct.Struct("=8sII")
BADGE = b"b" * wire.BADGE_SIZE


@pytest.fixture(params=[socket.SOCK_SEQPACKET, socket.SOCK_STREAM], ids=["SEQPACKET", "STREAM"])
def ends(request, make_pair):
    """The two ends of a socket of each kind that a capability can be handed over by."""
    return make_pair(request.param)


@pytest.fixture
def stream(make_pair):
    return make_pair(socket.SOCK_STREAM)


@pytest.fixture
def door():
    """The client end of a socket that is as good as a door: the other end stays open."""
    server, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with server, client:
        yield client


def refused(sock, match):
    with pytest.raises(cm.ProtocolError, match=match):
        cm.receive_capability(sock, PATIENCE)


def flooded(sock, capability):
    """Hands it over until that is an error; (how often it went, the error)."""
    sent = 0
    try:
        while True:
            cm.send_capability(sock, capability, 0)
            sent += 1
    except cm.Error as error:
        return sent, error


# What is handed over.


def test_a_capability_goes_to_another_process(ends, capability, run_peer):
    """Which has no other way to it: it calls, and holds one descriptor of it."""

    def peer(sock):
        class Work(cm.Interface):
            @cm.method
            def double(self, value: int) -> int: ...

        before = os.dup(0)
        os.close(before)
        with cm.timeout(30):
            received = cm.receive_capability(sock)
            after = os.dup(0)
            os.close(after)
            assert after == before + 1
            print(received.cast(Work).double(21))

    near, far = ends
    cm.send_capability(near, capability)
    assert run_peer(peer, far).finish() == "42\n"


def test_it_may_be_sent_before_anybody_is_there_to_take_it(ends, fork):
    """And it keeps the door reachable: its sender has closed it meanwhile, and ended."""
    near, far = ends
    with by_hand.server_process(fork) as (_, capability):

        def hand_over():
            cm.send_capability(near, capability)

        fork(hand_over).result()
        expected = badge_of(capability)
        capability.close()
        received = cm.receive_capability(far, PATIENCE)
        assert badge_of(received) == expected
        with cm.timeout(PATIENCE):
            assert received.cast(by_hand.Work).double(4) == 8
        received.close()


def test_all_that_stands_for_a_capability_can_be_sent(ends, capability, worker):
    """A capability, a proxy and a managed object: the same capability comes home each time."""
    near, far = ends
    for what in (capability, capability.cast(by_hand.Work), worker):
        cm.send_capability(near, what)
        assert cm.receive_capability(far, PATIENCE) is capability
    assert capability.local is worker


def test_sockets_are_taken_by_number_and_in_any_object(ends, capability):
    """What has a fileno()."""
    near, far = ends
    cm.send_capability(near.fileno(), capability)
    assert cm.receive_capability(far.fileno(), PATIENCE) is capability
    with cm.Descriptor.dup_of(near) as one, cm.Descriptor.dup_of(far) as other:
        cm.send_capability(one, capability)
        assert cm.receive_capability(other, PATIENCE) is capability


def test_several_come_in_their_order(ends):
    """One record each, one after the other."""
    near, far = ends
    with cm.Entrypoint("several") as entrypoint:
        sent = [entrypoint.manage(by_hand.Worker()) for _ in range(3)]
        for each in sent:
            cm.send_capability(near, each)
        assert [cm.receive_capability(far, PATIENCE) for _ in sent] == sent


def test_a_nonblocking_socket_is_waited_for_all_the_same(ends, capability):
    """Whoever holds a copy may set the flag."""
    near, far = ends
    near.setblocking(False)
    far.setblocking(False)
    waiting = by_hand.Concurrent(cm.receive_capability, far, PATIENCE)
    cm.send_capability(near, capability)
    assert waiting.outcome() is capability


def test_nothing_comes(ends):
    """In time, at once, and by the deadline that is in force."""
    _, far = ends
    with pytest.raises(cm.CallTimeout, match=r"no capability came in 0\.01 s"):
        cm.receive_capability(far, 0.01)
    with pytest.raises(cm.CallTimeout, match="no capability came in 0 s"):
        cm.receive_capability(far, 0)
    with cm.timeout(0.01), pytest.raises(cm.CallTimeout, match=r"before the deadline of cm\.timeout\(0\.01\)"):
        cm.receive_capability(far)


def test_the_other_end_is_closed(ends, capability):
    """Disconnected; what was sent before is received first, also where something of the receiver's was left unread."""
    near, far = ends
    far.send(b"never read")
    cm.send_capability(near, capability)
    near.close()
    assert cm.receive_capability(far, PATIENCE) is capability
    with pytest.raises(cm.Disconnected, match="the other end of the socket was closed") as caught:
        cm.receive_capability(far, PATIENCE)
    assert caught.value.ran == "no"
    with pytest.raises(cm.Disconnected):
        cm.send_capability(far, capability)


def test_a_receiver_that_reads_nothing(ends, capability):
    """The sender waits for as long as it is told."""
    near, far = ends
    sent, error = flooded(near, capability)
    assert type(error) is cm.CallTimeout
    assert str(error) == "the receiver's queue stayed full, and no capability was sent in 0 s"
    waiting = by_hand.Concurrent(cm.send_capability, near, capability, PATIENCE)
    for _ in range(sent):
        assert cm.receive_capability(far, PATIENCE) is capability
    assert waiting.outcome() is None
    assert cm.receive_capability(far, PATIENCE) is capability


def test_handovers_that_nobody_reads_are_in_flight(fork, make_pair):
    """At the soft limit of the sender, an ordinary user: whose limit it was; nothing was sent, and later it is."""

    def flood():
        near, far = make_pair(socket.SOCK_STREAM)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        entrypoint = cm.Entrypoint("flood")
        capability = entrypoint.manage(by_hand.Worker())
        sent, error = flooded(near, capability)
        assert type(error) is cm.TooManyInFlight
        assert "handing a capability over: user" in str(error)
        assert "RLIMIT_NOFILE of 64" in str(error)
        for _ in range(sent):
            assert cm.receive_capability(far, 0) is capability
        cm.send_capability(near, capability, 0)
        assert cm.receive_capability(far, 0) is capability
        entrypoint.close()
        return sent

    assert fork(flood, ordinary=True).result() >= 64


def test_what_is_in_flight_is_waited_for(fork, make_pair):
    """Where there is time: another receiver takes something, by a signal handler here, and the capability is sent."""

    def wait():
        full, other = make_pair(socket.SOCK_STREAM), make_pair()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        entrypoint = cm.Entrypoint("flood")
        capability = entrypoint.manage(by_hand.Worker())
        sent, _ = flooded(full[0], capability)

        def drain(*_):
            for _ in range(sent):
                cm.receive_capability(full[1], 0)

        signal.signal(signal.SIGALRM, drain)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        cm.send_capability(other[0], capability, PATIENCE)
        assert cm.receive_capability(other[1], 0) is capability
        entrypoint.close()

    fork(wait, ordinary=True).result()


@pytest.mark.parametrize("wrong", [None, 3, by_hand.Worker, "capability"], ids=repr)
def test_what_is_no_capability_is_not_sent(ends, wrong):
    """Said before anything is sent."""
    near, far = ends
    with pytest.raises(TypeError, match="a capability, a proxy or a managed object can be handed over, not"):
        cm.send_capability(near, wrong)
    with pytest.raises(TypeError, match="not managed"):
        cm.send_capability(near, by_hand.Worker())
    with pytest.raises(cm.CallTimeout):
        cm.receive_capability(far, 0)


def test_a_closed_capability_is_not_sent(ends, capability):
    """Closed; the socket as well."""
    near, far = ends
    closed = space.capability(open_door_of(capability), BADGE)
    closed.close()
    with pytest.raises(cm.Closed):
        cm.send_capability(near, closed)
    far.close()
    with pytest.raises(cm.Closed):
        cm.receive_capability(far)
    with pytest.raises(cm.Closed):
        cm.send_capability(far, capability)


def test_sockets_of_other_kinds_are_refused(capability, make_pair):
    """In words, and nothing is read or sent."""
    near, _ = make_pair(socket.SOCK_DGRAM)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for sock, match in ((near, "AF_UNIX socket, SEQPACKET or STREAM; this one is DGRAM"), (server, "family is 2")):
            with pytest.raises(TypeError, match=match):
                cm.send_capability(sock, capability)
            with pytest.raises(TypeError, match=match):
                cm.receive_capability(sock, 0)
    read_end, write_end = os.pipe()
    with cm.Descriptor(read_end) as reader, cm.Descriptor(write_end), pytest.raises(cm.KernelError) as caught:
        cm.receive_capability(reader)
    assert caught.value.errno == errno.ENOTSOCK


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM], ids=lambda kind: kind.name)
def test_a_socket_that_is_not_connected(kind, capability):
    """One that listens is none, either: said at once."""
    with socket.socket(socket.AF_UNIX, kind) as lonely:
        for _ in range(2):
            for use in (cm.receive_capability, lambda sock: cm.send_capability(sock, capability)):
                with pytest.raises(cm.Disconnected, match="not connected"):
                    use(lonely)
            lonely.bind("")
            lonely.listen()


# What stands around it.


def test_a_stream_goes_on_where_the_handover_ends(stream, capability, memfd):
    """Exactly its bytes are taken, and the descriptors of what follows go to whoever reads that."""
    near, far = stream
    near.sendall(b"before")
    cm.send_capability(near, capability)
    socket.send_fds(near, [b"after"], [memfd.fileno()])
    assert far.recv(6) == b"before"
    assert cm.receive_capability(far, PATIENCE) is capability
    data, (came,), *_ = socket.recv_fds(far, 100, 4)
    with cm.Descriptor(came):
        assert data == b"after"


def test_what_is_sent_in_one_go_is_told_apart(stream, door):
    """A handover and what follows it, in one sendmsg(2) of somebody's."""
    near, far = stream
    socket.send_fds(near, [handover_record.pack(BADGE) + b"after"], [door.fileno()])
    assert badge_of(cm.receive_capability(far, PATIENCE)) == BADGE
    assert far.recv(100) == b"after"


@pytest.mark.parametrize("first", [1, 7, 8, 15, 16, 17, 31])
def test_a_stream_may_bring_it_in_pieces(stream, door, first):
    """The door is attached to its first byte; the rest is waited for."""
    near, far = stream
    record = handover_record.pack(BADGE)
    socket.send_fds(near, [record[:first]], [door.fileno()])
    waiting = by_hand.Concurrent(cm.receive_capability, far, PATIENCE)
    for place in range(first, len(record)):
        near.send(record[place : place + 1])
    near.send(b"after")
    assert badge_of(waiting.outcome()) == BADGE
    assert far.recv(100) == b"after"


@pytest.mark.parametrize("first", [1, 16, 31])
def test_a_stream_that_stops_in_the_middle(stream, door, first):
    """By its end, or by the deadline: the door that came is closed."""
    near, far = stream
    part = [handover_record.pack(BADGE)[:first]]
    socket.send_fds(near, part, [door.fileno()])
    with pytest.raises(cm.CallTimeout, match="receiving the rest of a capability: the deadline passed"):
        cm.receive_capability(far, 0.01)
    socket.send_fds(near, part, [door.fileno()])
    near.close()
    with pytest.raises(cm.Disconnected, match="in the middle of one"):
        cm.receive_capability(far, PATIENCE)


@pytest.mark.parametrize("data", [b"hello", b"\xfe", b"\xfecapmsh", b"x" * 100, HEAD.pack(b"\xfecapmshl", 2, 15)])
@pytest.mark.parametrize("attached", [False, True], ids=["bytes", "with a file"])
def test_what_is_no_handover_is_left_there(ends, data, attached, memfd, identity):
    """All of it, with what is attached: whoever it is for still gets it."""
    near, far = ends
    stream = far.type == socket.SOCK_STREAM
    if attached and stream and b"\xfecapmshl".startswith(data):
        pytest.skip("of a stream, the rest of it may be yet to come")
    if attached:
        socket.send_fds(near, [data], [memfd.fileno()])
    else:
        near.send(data)
    for _ in range(2):
        refused(far, "what waits in the socket is no capability that was handed over, and was left there")
    came, numbers, *_ = socket.recv_fds(far, 1000, 4)
    assert came == data
    assert [identity(number) for number in numbers] == ([identity(memfd)] if attached else [])
    for number in numbers:
        os.close(number)


def test_an_empty_record_is_no_handover(seqpacket):
    """And no end of the connection."""
    near, far = seqpacket
    near.send(b"")
    refused(far, "left there")
    assert far.recv(10) == b""


# What a stranger may send.


def test_another_version_is_told(ends, door):
    """And taken, however long it is: what follows is received."""
    near, far = ends
    for size in (16, 100, 4096):
        record = HEAD.pack(b"\xfecapmshl", 99, size).ljust(size, b"n")
        socket.send_fds(near, [record], [door.fileno()])
        refused(far, f"its server speaks version 99 of the protocol, and this process {wire.VERSION}")
    socket.send_fds(near, [handover_record.pack(BADGE)], [door.fileno()])
    assert badge_of(cm.receive_capability(far, PATIENCE)) == BADGE


@pytest.mark.parametrize(
    ("record", "match"),
    [
        (HEAD.pack(b"\xfecapmshl", wire.VERSION, 31) + b"b" * 15, "it has 31 bytes, and says 31"),
        (HEAD.pack(b"\xfecapmshl", wire.VERSION, 33) + b"b" * 17, "it has 33 bytes, and says 33"),
        (handover_record.pack(bytes(16)), "its badge is that of no object"),
    ],
    ids=["short", "long", "no badge"],
)
def test_a_record_that_is_wrong_is_taken_and_refused(ends, door, record, match):
    """With its door, which is closed."""
    near, far = ends
    socket.send_fds(near, [record], [door.fileno()])
    refused(far, match)
    with pytest.raises(cm.CallTimeout):
        cm.receive_capability(far, 0)


def test_a_record_that_is_another_length_than_it_says(seqpacket, door):
    """Of a socket with records, which does not go on."""
    near, far = seqpacket
    record = handover_record.pack(BADGE)
    for wrong, match in ((record[:-1], "it has 31 bytes, and says 32"), (record + b"x", "longer than it says")):
        socket.send_fds(near, [wrong], [door.fileno()])
        refused(far, match)


@pytest.mark.parametrize("count", [0, 2, 253])
def test_any_other_number_of_descriptors_is_refused(ends, door, count):
    """All that came is closed."""
    near, far = ends
    socket.send_fds(near, [handover_record.pack(BADGE)], [door.fileno()] * count)
    refused(far, f"it came with {count} descriptors, where one is due")


def test_what_is_no_door_is_refused(ends, memfd, make_pair):
    """A file, a socket of another kind, and one that nobody is behind."""
    near, far = ends
    datagram, _ = make_pair(socket.SOCK_DGRAM)
    for wrong in (memfd, datagram):
        socket.send_fds(near, [handover_record.pack(BADGE)], [wrong.fileno()])
        refused(far, "a capability came with a descriptor that is no AF_UNIX SEQPACKET socket")


def test_what_lingers_when_it_is_closed_holds_nobody_up(ends, lingering):
    """Its closing blocks: it is left to the reaper, and waited for no longer than the deadline."""
    near, far = ends
    number, peer = lingering(60)
    with cm.Descriptor(number) as slow:
        socket.send_fds(near, [handover_record.pack(BADGE)], [number])
        slow.close()
        with pytest.raises(cm.ProtocolError):
            cm.receive_capability(far, 0)
        assert reaper.behind()
        peer.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionError):
            while peer.recv(1 << 20):
                pass
    until(lambda: not reaper.behind())


def test_a_guessed_badge_of_an_object_of_ones_own(ends, capability):
    """Stale, at once; and the door that came is closed."""
    near, far = ends
    socket.send_fds(near, [handover_record.pack(BADGE)], [open_door_of(capability).number])
    with pytest.raises(cm.StaleCapability):
        cm.receive_capability(far, PATIENCE)


def test_a_full_table_leaves_it_there(ends, capability, fork, open_descriptors):
    """Taken when there is room again."""
    near, far = ends
    cm.send_capability(near, capability)

    def receive():
        soft = max(open_descriptors()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
        fillers = fill(0)
        with pytest.raises(cm.TableFull, match="taking a capability: descriptor table full"):
            cm.receive_capability(far, 0)
        os.close(fillers.pop())
        return badge_of(cm.receive_capability(far, 0))

    assert fork(receive).result() == badge_of(capability)


def test_a_peek_offset_that_a_holder_has_set_makes_nobody_hang(ends, capability):
    """SO_PEEK_OFF is the socket's: poll(2) then says that there is something where nothing can be seen."""
    near, far = ends
    try:
        far.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 1000)
    except OSError:
        pytest.skip("SEQPACKET has no peek offset here")
    cm.send_capability(near, capability)
    with pytest.raises((cm.CallTimeout, cm.ProtocolError)):
        cm.receive_capability(far, 0.05)


def test_a_version_that_may_grow():
    """The head is the same whatever the version, and says how long the record is."""
    record = handover_record.pack(BADGE)
    assert HEAD.unpack_from(record) == (b"\xfecapmshl", wire.VERSION, len(record))
    assert record.endswith(BADGE)
    assert handover_record.read(record) == BADGE
