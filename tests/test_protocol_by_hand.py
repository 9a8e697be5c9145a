"""What docs/protocol.md says is enough: a client and a server, made from that page alone, against capmarshal's own.

They are in ``page_client`` and ``page_server``, of sockets and struct.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import subprocess
import sys
import time

import pytest

import capmarshal as cm
from exchanges import Counter, Desk, DeskServer
from matrix import streams_are_awaited
from page_client import Failed, Held, Revoked, Sent
from page_records import (
    BEGIN,
    CALL,
    FAIL,
    GO,
    GONE,
    HANDOVER,
    HEAD,
    KNOCK,
    NO_BADGE,
    NO_LIMIT,
    OF_CALL,
    PART,
    REPLY,
    SIGNAL,
    SIZES,
    THIS_DOOR,
    VERSION,
    pack_table,
    packed,
    pair,
    put,
    receive,
    refuse,
    send,
    take,
    unpacked,
)
from page_server import DESK, LETTERS, PageServer, objects
from patience import PATIENCE, until

pytestmark = pytest.mark.usefixtures("quiet_log")

# The client -------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk():
    """What the client by hand holds: an object of capmarshal's."""
    with cm.Entrypoint("desk") as entrypoint, held(entrypoint.manage(DeskServer())) as taken:
        yield taken


@contextlib.contextmanager
def held(capability):
    """It, handed over."""
    here, there = pair()
    with here, there:
        cm.send_capability(here, capability)
        taken = Held(*take(there))
    with taken:
        yield taken


def temporary(data):
    """A file in memory: its number."""
    number = os.memfd_create("by hand", os.MFD_CLOEXEC)
    os.write(number, data)
    return number


def test_calls_with_data(desk):
    """On one channel, one after the other; by position and by name."""
    assert [desk.call("add", 2, 3), desk.call("add", -(1 << 40), 1)] == [(5, []), (1 - (1 << 40), [])]
    assert desk.call("text", 0.5)[0] == "0.50"
    assert desk.call("text", 0.5, digits=1)[0] == "0.5"
    assert desk.call("text", digits=1, value=0.5)[0] == "0.5"
    assert desk.knocks == 1


def test_a_descriptor_there_and_back(desk):
    """It is the same file."""
    number = temporary(b"tea")
    index, (back,) = desk.call("copy", Sent(number))
    assert index == 0
    assert os.pread(back, 10, 0) == b"tea"
    os.close(number)
    os.close(back)


def test_a_declared_error(desk):
    """By the names of its classes, and its text; and the channel goes on."""
    with pytest.raises(Failed) as failed:
        desk.call("find", "tea")
    assert (failed.value.code, failed.value.classes[:2]) == (1, ["KeyError", "LookupError"])
    assert failed.value.text == "'tea'"
    assert desk.call("add", 2, 3)[0] == 5
    assert desk.knocks == 1


@pytest.mark.parametrize(("method", "arguments", "code"), [("paint", (), 4), ("add", ("a", 1), 2), ("add", (1,), 2)])
def test_what_is_no_call_of_the_interface(desk, method, arguments, code):
    """Is told apart by the code."""
    with pytest.raises(Failed) as failed:
        desk.call(method, *arguments)
    assert failed.value.code == code


def test_a_guessed_badge_selects_nothing(desk):
    """STALE."""
    with Held(desk.door.dup(), b"guess" + bytes(11)) as guessed, pytest.raises(Failed) as failed:
        guessed.call("add", 2, 3)
    assert failed.value.code == 3


def test_a_deadline(desk):
    """A call that is in time, and one that comes too late, which is not run."""
    assert desk.call("add", 2, 3, until=time.monotonic_ns() + 30 * 10**9)[0] == 5
    with pytest.raises(Failed) as failed:
        desk.call("add", 2, 3, until=time.monotonic_ns() - 1)
    assert failed.value.code == 5


def test_a_handed_capability_is_called_and_handed_on(desk):
    """By its own door; and as an argument, of which the server knows that it is its own."""
    index, (counter,) = desk.call("counter")
    with counter:
        assert index == 0
        assert counter.call("step") == (1, [])
        assert desk.call("use", Sent(counter)) == (2, [])
        assert counter.knocks == 1


@streams_are_awaited
def test_a_stream_of_three(desk):
    """Two, and the last; then it is at its end."""
    _, (stream,) = desk.call("letters")
    with stream:
        (first, ended), _ = stream.call("next", 2)
        assert (first, ended) == (["a", "b"], False)
        assert stream.call("next", 2)[0] == [["c"], True]


@streams_are_awaited
def test_a_stream_ends_when_nobody_can_call_it():
    """When its door is closed, and its channels are, in whichever order."""
    server = DeskServer()
    with cm.Entrypoint("desk") as entrypoint, held(entrypoint.manage(server)) as desk:
        _, (stream,) = desk.call("letters")
        assert stream.call("next", 1)[0] == [["a"], False]
        stream.door.close()
        assert stream.channel.fileno() >= 0
        assert desk.call("add", 2, 3)[0] == 5
        assert server.ended == 0
        stream.close()
        until(lambda: server.ended == 1)


@streams_are_awaited
def test_a_stream_that_raises(desk):
    """The items before come first; then it is the FAIL of the next call."""
    _, (stream,) = desk.call("broken")
    with stream:
        assert stream.call("next", 16)[0] == [["a"], False]
        with pytest.raises(Failed) as failed:
            stream.call("next", 16)
        assert (failed.value.code, failed.value.classes[0]) == (1, "KeyError")


def test_files_and_sockets_as_arguments(desk):
    """A file is read from where its offset stands."""
    number = temporary(b"tea and cake")
    os.lseek(number, 8, os.SEEK_SET)
    assert desk.call("read", Sent(number)) == (b"cake", [])
    os.close(number)
    here, there = pair()
    with here, there:
        assert desk.call("greet", Sent(there.fileno())) == (None, [])
        assert here.recv(100) == b"good day"
    directory = os.open("/", os.O_RDONLY)
    with pytest.raises(Failed) as failed:
        desk.call("read", Sent(directory))
    assert failed.value.code == 2
    os.close(directory)


# F_ADD_SEALS, fcntl(2).
SEALS = {"SEAL": 1, "SHRINK": 2, "GROW": 4, "WRITE": 8}


def sealed(data, *seals):
    """Memory with these seals: its number."""
    number = os.memfd_create("by hand", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(number, data)
    fcntl.fcntl(number, 1033, sum(SEALS[seal] for seal in seals))
    return number


def test_a_dataspace_as_an_argument(desk):
    """With all four seals; without any of them it is none."""
    number = sealed(bytes([1, 2, 3]), *SEALS)
    assert desk.call("total", Sent(number)) == (6, [])
    os.close(number)
    for missing in SEALS:
        number = sealed(b"", *(seal for seal in SEALS if seal != missing))
        with pytest.raises(Failed) as failed:
            desk.call("total", Sent(number))
        assert failed.value.code == 2
        os.close(number)


def test_a_shared_buffer_as_an_argument(desk):
    """What the other side has written is in it; and it has let go when nobody has its lease."""
    number = sealed(bytes(4096), "SHRINK", "GROW", "SEAL")
    mine, lease = pair()
    with mine, lease:
        assert desk.call("mark", Sent(number, lease.fileno())) == (4096, [])
        assert os.pread(number, 5, 0) == b"a tea"
        with pytest.raises(Failed) as failed:
            desk.call("mark", Sent(number))
        assert failed.value.code == 2
        lease.close()
        assert receive(mine) == (b"", [])
    os.close(number)


def test_an_array_is_memory_to_who_knows_none(desk):
    """What else is said of it is passed over."""
    index, (memory,) = desk.call("grid")
    assert (index, os.pread(memory, 100, 0)) == (0, bytes(48))
    os.close(memory)


def test_a_long_answer(desk):
    """In parts."""
    assert desk.call("zeros", 500_000)[0] == bytes(500_000)
    assert desk.call("add", 2, 3)[0] == 5


def test_many_descriptors(desk):
    """There, and back: in parts, which wait for each other."""
    numbers = [temporary(b"") for _ in range(300)]
    assert desk.call("inodes", [Sent(number) for number in numbers]) == (300, [])
    places, back = desk.call("copies", Sent(numbers[0]))
    assert places == list(range(300))
    assert {os.fstat(number).st_ino for number in back} == {os.fstat(numbers[0]).st_ino}
    for number in (*numbers, *back):
        os.close(number)


def test_a_long_call_that_is_refused():
    """It is told before all of it is sent, and the channel goes on."""
    with cm.Entrypoint("desk", max_bytes=1_000_000) as entrypoint, held(entrypoint.manage(DeskServer())) as desk:
        with pytest.raises(Failed) as failed:
            desk.call("find", "x" * 3_000_000)
        assert failed.value.code == 7
        assert desk.call("add", 2, 3)[0] == 5
        assert desk.knocks == 1


def test_a_revoked_door():
    """Calls are answered until then; and then it says why."""
    with cm.Entrypoint("desk") as entrypoint:
        granted = entrypoint.grant(DeskServer(), label="guest")
        with held(granted) as desk:
            assert desk.call("add", 2, 3)[0] == 5
            entrypoint.revoke(granted, "the lease has run out")
            with pytest.raises(Revoked, match="the lease has run out"):
                desk.call("add", 2, 3)


def test_a_deep_grant_hands_out_behind_its_own_door():
    """No descriptor comes: it is called through this door."""
    with cm.Entrypoint("desk") as entrypoint, held(entrypoint.grant(DeskServer(), deep=True)) as desk:
        _, (counter,) = desk.call("counter")
        with counter:
            assert counter.call("step")[0] == 1


def test_the_end_of_a_server():
    """The door has hung up, and has no epitaph."""
    with cm.Entrypoint("desk") as entrypoint:
        taken = take_over(entrypoint.manage(DeskServer()))
        assert taken.call("add", 2, 3)[0] == 5
    with taken, pytest.raises(ConnectionError, match="the server has gone"):
        taken.call("add", 2, 3)


def take_over(capability):
    """As held(), for whoever closes it later."""
    here, there = pair()
    with here, there:
        cm.send_capability(here, capability)
        return Held(*take(there))


def test_a_service_is_connected_to(place):
    """And hands its capability over; or says why not."""
    shut = place.with_name("shut")
    with cm.Entrypoint("desk") as entrypoint:
        entrypoint.listen(place, DeskServer())
        entrypoint.listen(shut, for_client=lambda _caller: None)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(place))
            taken = Held(*take(connection))
        with taken:
            assert taken.call("add", 2, 3)[0] == 5
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(shut))
            with pytest.raises(PermissionError, match="is not let in") as refused:
                take(connection)
            assert refused.value.errno == 0


def test_a_signal_is_sent():
    """Through its door, with no knock."""
    with cm.SignalReceiver() as receiver, held(cm.capability(receiver.signal)) as signal:
        assert signal.badge == b"capmarshalsignal"
        send(signal.door, HEAD.pack(VERSION, SIGNAL, 0, 0, 0, 0))
        assert receiver.wait(PATIENCE) == 1


def test_a_signal_is_received(desk):
    """Of a door by hand, which is an argument."""
    end, client = pair()
    with end, Held(client, b"capmarshalsignal") as signal:
        assert desk.call("ring", Sent(signal)) == (None, [])
        assert receive(end) == (HEAD.pack(VERSION, SIGNAL, 0, 0, 0, 0), [])


def test_doors_are_known_by_cookie_and_name(desk):
    """The cookie is the same in every copy, and of no other socket; the name is for people."""
    with desk.door.dup() as copy, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        mine, same, else_ = (one.getsockopt(socket.SOL_SOCKET, 57, 8) for one in (desk.door, copy, other))
        assert mine == same != else_
    assert re.fullmatch(rb"\0capmarshal/desk/[0-9a-f]{16}", desk.door.getpeername())
    _, (counter,) = desk.call("counter")
    with counter:
        assert re.fullmatch(rb"\0capmarshal/desk/[0-9a-f]{16}", counter.door.getpeername())
    with cm.Entrypoint("desk") as entrypoint, held(entrypoint.grant(DeskServer(), label="guest")) as guest:
        assert re.fullmatch(rb"\0capmarshal/guest/grant-[0-9a-f]{16}", guest.door.getpeername())


def test_a_stream_socket_hands_over_as_well():
    """What follows is left where it is."""
    here, there = socket.socketpair()
    with cm.Entrypoint("desk") as entrypoint, here, there:
        cm.send_capability(here, entrypoint.manage(DeskServer()))
        here.send(b"more")
        with Held(*take(there)) as desk:
            assert desk.call("add", 2, 3)[0] == 5
        assert there.recv(10) == b"more"


IN_THE_ENVIRONMENT = """
import os, socket
number, inode = os.environ["CAPMARSHAL_PARENT"].split(":")
assert os.fstat(int(number)).st_ino == int(inode)
data, numbers, _, _ = socket.recv_fds(socket.socket(fileno=int(number)), 100, 2)
print(len(data), data[:8].hex(), len(numbers), int(number) > 2)
"""


def test_the_environment_says_where_it_waits():
    """In a process that is started without a word about its standard input."""
    command = [sys.executable, "-I", "-S", "-c", IN_THE_ENVIRONMENT]
    with cm.Entrypoint("desk") as entrypoint:
        parent = entrypoint.manage(DeskServer())
        with cm.spawn(command, parent=parent, stdout=subprocess.PIPE, text=True) as child:
            out, _ = child.communicate(timeout=PATIENCE)
    assert out == "32 fe6361706d73686c 1 True\n"


def test_another_version_is_answered(desk):
    """In the server's own, with both numbers."""
    near, far = pair()
    with near:
        with far:
            send(desk.door, HEAD.pack(9, KNOCK, 0, 1, 0, 0), [far.fileno()])
        send(near, HEAD.pack(9, CALL, 0, 0, 0, 1) + b"whatever that version has")
        data, _ = receive(near)
        assert data[:2] == bytes([VERSION, FAIL])
        code, message, _ = unpacked(data[16:])
        assert (code, message) == (10, "version 9 of the protocol; this is version 3")


@pytest.mark.parametrize(
    ("record", "answered"),
    [
        (HEAD.pack(VERSION, CALL, 0, 0, 0, 1), True),
        (HEAD.pack(VERSION, 99, 0, 0, 0, 1), True),
        (HEAD.pack(9, BEGIN, 0, 0, 0, 1) + bytes(12), True),
        (b"less than a head", True),
        (b"less", False),
        (HEAD.pack(VERSION, REPLY, 0, 0, 0, 1), False),
        (HEAD.pack(VERSION, FAIL, 0, 0, 0, 1), False),
        (HEAD.pack(VERSION, KNOCK, 0, 1, 0, 0), False),
        (HEAD.pack(VERSION, GONE, 0, 0, 0, 0), False),
        (HEAD.pack(VERSION, BEGIN, 0, 0, 0, 1), False),
        (HEAD.pack(VERSION, PART, 0, 0, 0, 1) + b"x", False),
        (HEAD.pack(VERSION, GO, 0, 0, 0, 1) + b"x", False),
    ],
)
def test_what_is_no_call_is_answered_or_ends_the_channel(desk, record, answered):
    """By what has come of it."""
    desk.knock()
    send(desk.channel, record)
    data, _ = receive(desk.channel)
    if answered:
        assert (data[:2], unpacked(data[16:])[0]) == (bytes([VERSION, FAIL]), 10)
    else:
        assert not data


A_FILE, A_COUNTER = (0, NO_BADGE), (0, b"c" * 16)


@pytest.mark.parametrize(
    ("table", "files", "payload", "code"),
    [
        ([A_FILE], 1, [0], None),
        # What nothing refers to.
        ([A_FILE], 2, [0], None),
        ([A_FILE, (1, NO_BADGE)], 2, [0], 2),
        ([], 1, [0], 2),
        ([A_FILE], 1, [1], 2),
        ([A_FILE], 1, [True], 2),
        ([A_FILE], 1, [0.0], 2),
        ([A_COUNTER], 1, [0], 2),
        # What is none of the record's, or has two owners.
        ([(1, NO_BADGE)], 1, [0], 10),
        ([(THIS_DOOR, b"c" * 16)], 1, [0], 10),
        ([A_FILE, A_FILE], 1, [0], 10),
        ([A_FILE, A_COUNTER], 1, [0], 10),
        # What is announced and not sent, or the other way.
        ([A_FILE], 0, [0], 10),
    ],
)
def test_tables_that_are_sound_and_others(desk, table, files, payload, code):
    """Each entry is referred to once, each descriptor has one owner, and what is announced is there."""
    numbers = [temporary(b"tea") for _ in range(files)]
    desk.knock()
    announced = max(files, 1)
    record = HEAD.pack(VERSION, CALL, len(table), announced, 0, 1 << 63) + OF_CALL.pack(NO_LIMIT, 0, 6, desk.badge)
    send(desk.channel, record + b"length" + pack_table(table) + packed(payload), numbers)
    for number in numbers:
        os.close(number)
    data, _ = receive(desk.channel)
    assert HEAD.unpack_from(data)[5] == 1 << 63
    if code is None:
        assert (data[1], unpacked(data[16:])) == (REPLY, 3)
    else:
        assert (data[1], unpacked(data[16:])[0]) == (FAIL, code)


def test_capabilities_of_one_door_share_its_slot(desk):
    """Two entries, one descriptor."""
    with held_twice(desk) as (first, second):
        table = [(0, first.badge), (0, second.badge)]
        desk.knock()
        record = HEAD.pack(VERSION, CALL, 2, 1, 0, 1) + OF_CALL.pack(NO_LIMIT, 0, 4, desk.badge) + b"both"
        send(desk.channel, record + pack_table(table) + packed([0, 1]), [first.door.fileno()])
        assert unpacked(receive(desk.channel)[0][16:]) is True


@contextlib.contextmanager
def held_twice(desk):
    """Two capabilities of one door: of the desk itself."""
    with Held(desk.door.dup(), desk.badge) as first, Held(desk.door.dup(), desk.badge) as second:
        yield first, second


def test_another_call_gives_up_what_was_not_completed(desk):
    """A call of which a part has come, and an answer of which a part has come."""
    desk.knock()
    send(desk.channel, HEAD.pack(VERSION, BEGIN, 0, 0, 0, 1) + SIZES.pack(300_000, 0))
    send(desk.channel, HEAD.pack(VERSION, PART, 0, 0, 0, 1) + bytes(1000))
    desk.calls = 1
    assert desk.call("add", 2, 3)[0] == 5
    number = temporary(b"")
    record = HEAD.pack(VERSION, CALL, 1, 1, 0, 3) + OF_CALL.pack(NO_LIMIT, 0, 6, desk.badge) + b"copies"
    send(desk.channel, record + pack_table([A_FILE]) + packed([0]), [number])
    assert receive(desk.channel)[0][1] == BEGIN
    data, numbers = receive(desk.channel)
    assert (data[1], len(numbers)) == (PART, 253)
    for one in (number, *numbers):
        os.close(one)
    desk.calls = 3
    assert desk.call("add", 2, 3)[0] == 5
    assert desk.knocks == 1


def test_a_channel_is_given_up_by_a_word():
    """It says that nothing more was read; its client knocks again."""
    limits = cm.Limits(channels=1)
    with cm.Entrypoint("desk", limits=limits) as entrypoint, held(entrypoint.manage(DeskServer())) as desk:
        with Held(desk.door.dup(), desk.badge) as other:
            assert desk.call("add", 2, 3)[0] == 5
            assert other.call("add", 2, 3)[0] == 5
            assert receive(desk.channel) == (HEAD.pack(VERSION, GONE, 0, 0, 0, 0), [])
            assert receive(desk.channel) == (b"", [])
            assert desk.call("add", 2, 3)[0] == 5
            assert desk.knocks == 2


# The server -------------------------------------------------------------------------------------------------------


@pytest.fixture
def served():
    """The server by hand, and a proxy of capmarshal's."""
    with PageServer(objects()) as server:
        here, there = pair()
        with here, there:
            put(here, server.client, DESK)
            capability = cm.receive_capability(there, PATIENCE)
        yield server, capability.cast(Desk)
        capability.close()


def test_a_client_of_capmarshals_calls_it(served):
    """With data, by name, with a descriptor there and back, and a capability that it is handed."""
    server, desk = served
    assert [desk.add(2, 3), desk.add(5, 7)] == [5, 12]
    assert desk.text(0.5, digits=1) == "{'': [0.5], 'digits': 1}"
    with cm.Descriptor(temporary(b"tea")) as file, desk.copy(file) as back:
        assert os.pread(back.fileno(), 10, 0) == b"tea"
    counter = desk.counter()
    assert [counter.step(), counter.step()] == [1, 2]
    assert isinstance(counter, Counter)
    assert server.knocks == 1
    assert server.users == [(os.getpid(), os.getuid())]


def test_long_calls_and_answers(served):
    """In parts, both ways, of bytes and of descriptors."""
    _, desk = served
    assert desk.zeros(500_000) == bytes(500_000)
    with pytest.raises(KeyError, match=r"x{100}"):
        desk.find("x" * 250_000)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(cm.Descriptor(temporary(b""))) for _ in range(300)]
        assert desk.inodes(files) == 300
        copies = [stack.enter_context(copy) for copy in desk.copies(files[0])]
    assert len(copies) == 300


@streams_are_awaited
def test_a_client_of_capmarshals_takes_its_stream(served):
    """Of three items."""
    _, desk = served
    assert list(desk.letters()) == ["a", "b", "c"]


@streams_are_awaited
def test_an_argument_that_is_a_stream(desk):
    """Whoever calls serves it; it is pulled from, and let go."""
    with PageServer(objects()) as server, Held(server.client.dup(), LETTERS) as stream:
        assert desk.call("together", Sent(stream)) == ("abc", [])
        assert server.knocks == 1


def test_its_errors_arrive(served):
    """A declared one by the name that its interface knows; and those that have a code."""
    server, desk = served
    with pytest.raises(KeyError, match="tea"):
        desk.find("tea")
    with pytest.raises(cm.UnknownMethod, match="no method read"):
        with open(os.devnull, "rb") as file:
            desk.read(file)
    del server.objects[DESK]
    with pytest.raises(cm.StaleCapability):
        desk.add(2, 3)


def test_its_calls_have_their_time(served):
    """What is left is told, and less than there was."""
    server, desk = served
    told = []
    server.objects[DESK]["add"] = lambda _arguments, _came, left: (told.append(left) or 0, ())
    with cm.timeout(30):
        desk.add(2, 3)
    desk.add(2, 3)
    assert 0 < told[0] <= 30 * 10**9
    assert told[1] == NO_LIMIT


def test_a_late_answer_is_passed_over(served):
    """It has the ID of a call that was given up; what is next is answered by the next."""
    server, desk = served
    # On a channel that is there, so that it is sent for certain.
    assert desk.add(1, 1) == 2
    server.holds_back = 1
    with pytest.raises(cm.CallTimeout) as late, cm.timeout(0.3):
        desk.add(2, 3)
    assert late.value.ran == "maybe"
    assert desk.add(5, 7) == 12


def test_a_call_that_it_has_not_read_is_made_again(served):
    """On new channels, until one is served."""
    server, desk = served
    server.refuses = 3
    assert desk.add(2, 3) == 5
    assert server.knocks == 4


def test_a_call_that_it_has_read_may_have_run(served):
    """The channel ends, with nothing unread."""
    server, desk = served
    server.leaves = 1
    with pytest.raises(cm.Disconnected) as disconnected:
        desk.add(2, 3)
    assert disconnected.value.ran == "maybe"
    assert desk.add(2, 3) == 5


def test_its_epitaph_is_read(served):
    """By who holds the door, when the channel has ended."""
    server, desk = served
    assert desk.add(2, 3) == 5
    server.revoke("so it is")
    with pytest.raises(cm.Revoked, match="so it is"):
        desk.add(2, 3)


def test_another_version_of_its_answers_is_no_answer(served):
    """The error says both."""
    server, desk = served
    server.version = 9
    with pytest.raises(cm.ProtocolError, match="version 9 of the protocol; this is version 3"):
        desk.add(2, 3)


@pytest.mark.parametrize(
    ("busy", "error"), [(0, cm.Refused), (1, cm.TooManyInFlight), (2, cm.Disconnected), (3, cm.Refused)]
)
def test_its_refusal_is_told(busy, error):
    """And whether it is for good."""
    here, there = pair()
    with here, there:
        refuse(here, "not today", busy)
        with pytest.raises(error, match="not today"):
            cm.receive_capability(there, PATIENCE)


def test_a_handover_of_another_version_is_refused():
    """Which says both."""
    here, there = pair()
    with here, there:
        send(here, HANDOVER.pack(bytes.fromhex("fe6361706d73686c"), 9, 32, bytes(16)), [there.fileno()])
        with pytest.raises(cm.ProtocolError, match="version 9 of the protocol, and this process 3"):
            cm.receive_capability(there, PATIENCE)
