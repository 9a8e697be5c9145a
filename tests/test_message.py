"""Message: bytes and descriptors in one record, what arrives and what is refused."""

import array
import collections
import copy
import errno
import fcntl
import io
import os
import socket
import subprocess
import sys

import pytest

from capmarshal import Descriptor, Message
from capmarshal._kernel.errors import (
    CallTimeout,
    Closed,
    KernelError,
    RecordTooBig,
)

# Longer than any test takes: a wait that reaches it hangs.
LONG = 60


# ---- what arrives


@pytest.mark.parametrize("count", [0, 1, 2, 16, 253])
def test_bytes_and_descriptors_arrive_in_order(pair, files, identity, count):
    """Data and all descriptors, in order, as new numbers for the same files."""
    sent = files(count)
    Message(b"data", sent).send(pair[0])
    with Message.receive(pair[1], timeout=LONG) as message:
        assert message.data == b"data"
        assert [identity(d) for d in message.descriptors] == [identity(number) for number in sent]
        assert not {d.fileno() for d in message.descriptors} & set(sent)


@pytest.mark.parametrize("count", [1, 253])
def test_descriptors_travel_between_processes_and_back(pair, files, identity, run_peer, count):
    """A second process receives them, writes to each what it is the how-maniest, and sends them back."""

    def peer(sock):
        with Message.receive(sock) as message:
            for i, descriptor in enumerate(message.descriptors):
                os.write(descriptor.fileno(), b"%d" % i)
            Message(message.data.upper(), reversed(message.descriptors)).send(sock)

    other = run_peer(peer, pair[1])
    sent = files(count)
    Message(b"there and back", sent).send(pair[0])
    with Message.receive(pair[0], timeout=LONG) as message:
        assert message.data == b"THERE AND BACK"
        assert [identity(d) for d in message.descriptors] == [identity(number) for number in reversed(sent)]
    other.finish()
    assert [os.pread(number, 9, 0) for number in sent] == [b"%d" % i for i in range(count)]


def test_every_received_descriptor_is_cloexec(pair, files):
    """Property 3: FD_CLOEXEC on each of the largest possible message, though what was sent has none."""
    sent = files(253)
    for number in sent:
        os.set_inheritable(number, True)
    Message(b"x", sent).send(pair[0])
    with Message.receive(pair[1], timeout=LONG) as message:
        flags = [fcntl.fcntl(d.fileno(), fcntl.F_GETFD) for d in message.descriptors]
    assert flags == [fcntl.FD_CLOEXEC] * 253


def test_a_received_descriptor_does_not_cross_exec(seqpacket):
    """Property 3, seen from the other side: a program that is executed does not have it open."""

    def open_in_a_program():
        command = [sys.executable, "-I", "-c", program]
        run = subprocess.run(command, close_fds=False, stdout=subprocess.PIPE, text=True, timeout=LONG, check=True)
        return run.stdout

    program = "import os; print(*map(os.path.realpath, map('/proc/self/fd/{}'.format, range(256))))"
    read_end, write_end = os.pipe()
    target = f"pipe:[{os.fstat(write_end).st_ino}]"
    Message(b"x", [write_end]).send(seqpacket[0])
    os.close(read_end)
    os.close(write_end)
    with Message.receive(seqpacket[1], timeout=LONG) as message:
        assert target not in open_in_a_program()
        # The check can fail: without the flag the program does have it.
        os.set_inheritable(message.descriptors[0].fileno(), True)
        assert target in open_in_a_program()


def test_descriptors_without_data(pair, files, identity):
    """No bytes at all, only descriptors: arrives, and is not taken for the end."""
    sent = files(2)
    Message(descriptors=sent).send(pair[0])
    with Message.receive(pair[1], timeout=LONG) as message:
        assert message.data == b""
        assert [identity(d) for d in message.descriptors] == [identity(number) for number in sent]


@pytest.mark.parametrize(
    "data",
    [
        b"abcdefgh",
        bytearray(b"abcdefgh"),
        memoryview(b"0abcdefgh0")[1:-1],
        [b"abc", bytearray(b"def"), memoryview(b"gh")],
        (b"", b"abcdefgh", b""),
        [array.array("H", [0x6261, 0x6463]), b"efgh"],
        [bytes([c]) for c in b"abcdefgh"],
    ],
)
def test_buffers_are_gathered(pair, data):
    """Any buffer or sequence of buffers arrives as one record, joined in order."""
    if sys.byteorder == "big":
        pytest.skip("the array is written little-endian")
    Message(data).send(pair[0])
    with Message.receive(pair[1], timeout=LONG) as message:
        assert message.data == b"abcdefgh"


def test_more_buffers_than_one_system_call_takes(pair):
    """UIO_MAXIOV is 1,024: 3,000 buffers arrive all the same."""
    parts = [bytes([i % 251]) for i in range(3000)]
    Message(parts).send(pair[0])
    with Message.receive(pair[1], timeout=LONG) as message:
        assert message.data == b"".join(parts)


@pytest.mark.parametrize("empty", [b"", [], array.array("i"), [array.array("d"), b""]])
def test_empty_buffers_are_buffers(pair, files, empty):
    """No bytes in whatever form are no bytes."""
    Message(empty, files(1)).send(pair[0])
    with Message.receive(pair[1], timeout=LONG) as message:
        assert message.data == b""


def test_records_keep_their_borders_and_order(pair):
    """Two messages sent are two received, the first first."""
    Message(b"one").send(pair[0])
    Message(b"two").send(pair[0])
    assert [Message.receive(pair[1], timeout=LONG).data for _ in range(2)] == [b"one", b"two"]


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_a_full_queue_holds_the_sender_until_the_receiver_reads(make_pair, run_peer, kind):
    """Ten times what a queue holds goes through, in order, though nobody but the kernel regulates it."""

    def receiver(sock):
        for i in range(3000):
            assert Message.receive(sock).data == b"%d" % i

    pair = make_pair(kind)
    peer = run_peer(receiver, pair[1])
    for i in range(3000):
        Message(b"%d" % i).send(pair[0], timeout=LONG)
    peer.finish()


@pytest.mark.parametrize(
    "data",
    [
        lambda: (part for part in (b"ab", bytearray(b"c"))),
        lambda: {b"ab": 1, b"c": 2},
        lambda: collections.deque([b"ab", memoryview(b"c")]),
        lambda: array.array("B", b"abc"),
        lambda: memoryview(b"abcd")[:3],
        lambda: [memoryview(b"abc").cast("B", (1, 3)), memoryview(b"")],
    ],
    ids=["generator", "dict", "deque", "array", "slice", "two dimensions"],
)
def test_data_are_a_buffer_or_an_iterable_of_buffers(pair, data):
    """Of whatever kind, as socket.sendmsg() takes them."""
    Message(data()).send(pair[0])
    assert pair[1].recv(100) == b"abc"


# ---- what is refused


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("text", "bytes, another buffer, or several of them, not str"),
        (["text"], "not str"),
        (5, "not int"),
        (None, "not NoneType"),
        ([b"a", [b"b"]], "not list"),
        (memoryview(b"abcd")[::2], "not contiguous"),
        ([memoryview(b"abcd")[::-1]], "not contiguous"),
    ],
    ids=repr,
)
def test_what_is_no_buffer_is_a_type_error_that_says_what_is_due(data, why):
    """One and the same, alone or among others."""
    with pytest.raises(TypeError, match=why):
        Message(data)


def test_an_empty_message_is_refused(pair):
    """Neither bytes nor descriptors: the receiver could not tell it from the end; nothing is sent."""
    with pytest.raises(ValueError, match="empty"):
        Message().send(pair[0])
    with pytest.raises(CallTimeout):
        Message.receive(pair[1], timeout=0)


def test_254_descriptors_are_refused(files):
    """The kernel's limit has a name and a number in the error, before anything is sent."""
    with pytest.raises(ValueError, match=r"254 .* at most 253"):
        Message(b"x", files(1) * 254)


def test_a_received_one_is_not_copied(pair, files):
    """Two would own what came, and the second would close what has got its numbers since."""
    Message(b"x", files(1)).send(pair[0])
    with Message.receive(pair[1]) as message, pytest.raises(TypeError, match="copied"):
        copy.copy(message)


@pytest.mark.parametrize("wrong", ["text", 5, [b"bytes", "text"], None, memoryview(b"abcd")[::2]])
def test_what_is_no_buffer_is_refused(wrong):
    """TypeError when the message is made, not when it is sent."""
    with pytest.raises(TypeError):
        Message(wrong)


@pytest.mark.parametrize("wrong", [[None], ["3"], [True], [1.0], [object()], [io.BytesIO()]])
def test_what_is_no_descriptor_is_refused(wrong):
    """A TypeError that says what is due: neither an int nor with a fileno()."""
    with pytest.raises(TypeError, match="descriptor"):
        Message(b"x", wrong)


def test_a_closed_file_is_refused_when_the_message_is_made(tmp_path):
    """ValueError for a closed file, socket or Descriptor."""
    with (tmp_path / "file").open("wb") as file:
        pass
    with socket.socket() as sock, Descriptor(os.dup(0)) as descriptor:
        pass
    for closed in (file, sock, descriptor, -1):
        with pytest.raises(ValueError, match="closed"):
            Message(b"x", [closed])


def test_a_file_closed_before_the_send_is_refused(pair, files):
    """Borrowed and closed meanwhile: Closed, or EBADF for a plain number; nothing is sent."""
    number = os.dup(files(1)[0])
    descriptor = Descriptor(os.dup(number))
    by_object, by_number = Message(b"x", [descriptor]), Message(b"x", [number])
    descriptor.close()
    os.close(number)
    with pytest.raises(Closed):
        by_object.send(pair[0])
    with pytest.raises(KernelError) as caught:
        by_number.send(pair[0])
    assert caught.value.errno == errno.EBADF
    with pytest.raises(CallTimeout):
        Message.receive(pair[1], timeout=0)


@pytest.mark.parametrize("use", [Message(b"x").send, Message.receive], ids=["send", "receive"])
def test_sockets_without_records_or_descriptors_are_refused(use, make_pair):
    """STREAM and TCP: TypeError, which says what to use instead or why not."""
    with pytest.raises(TypeError, match="SEQPACKET or DGRAM"):
        use(make_pair(socket.SOCK_STREAM)[0])
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp, pytest.raises(TypeError, match="AF_UNIX"):
        use(tcp)


@pytest.mark.parametrize("use", [Message(b"x").send, Message.receive], ids=["send", "receive"])
def test_what_is_no_socket_is_refused(use, files):
    """A file: ENOTSOCK, in words; and what has no descriptor."""
    with pytest.raises(TypeError, match="is due, not 'socket'"):
        use("socket")
    with pytest.raises(KernelError, match="what kind of socket") as caught:
        use(files(1)[0])
    assert caught.value.errno == errno.ENOTSOCK


def test_room_is_a_number_of_bytes(pair):
    """In words, not in those of whatever compares it first."""
    for size, error in {"64": TypeError, True: TypeError, -1: ValueError, 1 << 64: ValueError}.items():
        with pytest.raises(error, match=f"size is a number of bytes, not {size!r}"):
            Message.receive(pair[1], size=size)


def test_a_record_larger_than_the_sockets_buffer_is_refused(pair):
    """RecordTooBig says what bounds it; nothing is sent."""
    with pytest.raises(RecordTooBig, match="SO_SNDBUF"):
        Message(bytes(10_000_000)).send(pair[0])
    with pytest.raises(CallTimeout):
        Message.receive(pair[1], timeout=0)
