"""Message: bytes and descriptors in one record, all of it or none, and nothing leaks on the way."""

import array
import contextlib
import errno
import fcntl
import gc
import math
import multiprocessing.reduction
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from capmarshal import Descriptor, Message
from capmarshal._kernel.deadline import timeout
from capmarshal._kernel.errors import (
    CallTimeout,
    Closed,
    DescriptorsLost,
    Disconnected,
    Error,
    KernelError,
    MessageTruncated,
    RecordTooBig,
    TooManyInFlight,
)
from slow_closing import is_open

# Longer than any test takes: a wait that reaches it hangs.
LONG = 60

RIGHTS = socket.SOL_SOCKET, socket.SCM_RIGHTS
# include/uapi/asm-generic/socket.h; Python has no names for these.
SO_PASSPIDFD = 76
SO_TIMESTAMPNS = 35


def _raw(numbers):
    return (*RIGHTS, array.array("i", numbers))


def _fill(sock, message):
    """Sends until the queue is full; how many fitted."""
    sent = 0
    with contextlib.suppress(CallTimeout):
        while True:
            message.send(sock, timeout=0)
            sent += 1
    return sent


@contextlib.contextmanager
def _alarms(handler, interval=0.02):
    """Has ``handler`` run as a signal handler again and again."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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


# ---- what is refused


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


@pytest.mark.parametrize("wrong", ["text", 5, [b"bytes", "text"], None, memoryview(b"abcd")[::2]])
def test_what_is_no_buffer_is_refused(wrong):
    """TypeError when the message is made, not when it is sent."""
    with pytest.raises(TypeError):
        Message(wrong)


@pytest.mark.parametrize("wrong", [[None], ["3"], [True], [1.0], [object()]])
def test_what_is_no_descriptor_is_refused(wrong):
    """TypeError, or AttributeError's place in it: neither an int nor with a fileno()."""
    with pytest.raises((TypeError, AttributeError)):
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
    """A file: ENOTSOCK, in words."""
    with pytest.raises(KernelError, match="what kind of socket") as caught:
        use(files(1)[0])
    assert caught.value.errno == errno.ENOTSOCK


def test_a_record_larger_than_the_sockets_buffer_is_refused(pair):
    """RecordTooBig says what bounds it; nothing is sent."""
    with pytest.raises(RecordTooBig, match="SO_SNDBUF"):
        Message(bytes(10_000_000)).send(pair[0])
    with pytest.raises(CallTimeout):
        Message.receive(pair[1], timeout=0)


# ---- deadlines


def test_receive_without_waiting(pair):
    """timeout=0: CallTimeout where nothing is there, the message where one is."""
    with pytest.raises(CallTimeout):
        Message.receive(pair[1], timeout=0)
    Message(b"x").send(pair[0])
    assert Message.receive(pair[1], timeout=0).data == b"x"


@pytest.mark.parametrize("bound", ["argument", "block", "outer block"])
def test_receive_waits_until_the_deadline(pair, bound):
    """The earliest of the argument and the blocks around it holds; CallTimeout is a TimeoutError."""
    outer, inner, argument = {
        "argument": (LONG, LONG, 0.1),
        "block": (LONG, 0.1, None),
        "outer block": (0.1, LONG, LONG),
    }[bound]
    begun = time.monotonic()
    with timeout(outer), timeout(inner), pytest.raises(TimeoutError) as caught:
        Message.receive(pair[1], timeout=argument)
    assert 0.1 <= time.monotonic() - begun < LONG / 2
    assert isinstance(caught.value, CallTimeout)
    assert caught.value.ran == "no"


def test_a_timeout_block_ends_with_the_block(pair):
    """After it, its deadline is forgotten, whether it passed or not."""
    with timeout(0), pytest.raises(CallTimeout):
        Message.receive(pair[1])
    Message(b"x").send(pair[0])
    with _alarms(lambda *_: Message(b"late").send(pair[0], timeout=0)):
        assert [Message.receive(pair[1]).data for _ in range(2)] == [b"x", b"late"]


@pytest.mark.parametrize("seconds", [-1, -0.001, math.nan])
def test_a_timeout_that_is_none_is_refused(pair, seconds):
    """Negative or not a number: ValueError, nothing waited for or sent."""
    with pytest.raises(ValueError, match="0 or more"):
        Message.receive(pair[1], timeout=seconds)
    with pytest.raises(ValueError, match="0 or more"):
        Message(b"x").send(pair[0], timeout=seconds)
    with pytest.raises(ValueError, match="0 or more"):
        timeout(seconds)


@pytest.mark.parametrize("seconds", [1e300, math.inf, 10**12])
def test_a_far_away_deadline_is_one(pair, seconds):
    """Infinity and friends wait, and neither overflow nor return at once."""
    with _alarms(lambda *_: Message(b"late").send(pair[0], timeout=0)):
        assert Message.receive(pair[1], timeout=seconds).data == b"late"


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_a_full_queue_ends_a_send_at_its_deadline(pair, files, seconds):
    """CallTimeout, nothing sent, no descriptor kept: what arrives is exactly what send() returned for."""
    sent = _fill(pair[0], Message(bytes(1000)))
    begun = time.monotonic()
    with pytest.raises(CallTimeout):
        Message(bytes(1000), files(3)).send(pair[0], timeout=seconds)
    assert time.monotonic() - begun >= seconds
    for _ in range(sent):
        assert not Message.receive(pair[1], timeout=0).descriptors
    with pytest.raises(CallTimeout):
        Message.receive(pair[1], timeout=0)


def test_a_full_queue_ends_a_send_at_the_deadline_of_its_block(pair):
    """The block bounds a send too."""
    _fill(pair[0], Message(bytes(1000)))
    with timeout(0.05), pytest.raises(CallTimeout):
        Message(bytes(1000)).send(pair[0])


def test_receive_waits_though_the_peer_made_the_socket_non_blocking(seqpacket, run_peer):
    """O_NONBLOCK belongs to the open file, so whoever shares it can set it: receive() waits all the same."""

    def meddler(shared):
        shared.setblocking(False)

    run_peer(meddler, seqpacket[1]).finish()
    assert fcntl.fcntl(seqpacket[1], fcntl.F_GETFL) & os.O_NONBLOCK
    begun = time.monotonic()
    with pytest.raises(CallTimeout):
        Message.receive(seqpacket[1], timeout=0.1)
    assert time.monotonic() - begun >= 0.1
    with _alarms(lambda *_: Message(b"late").send(seqpacket[0], timeout=0)):
        assert Message.receive(seqpacket[1]).data == b"late"


def test_receive_waits_though_the_socket_has_a_timeout_of_its_own(seqpacket):
    """SO_RCVTIMEO of whoever shares the socket: ends no wait of ours."""
    seqpacket[1].setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVTIMEO, (0).to_bytes(8, sys.byteorder) + bytes([1] + [0] * 7)
    )
    with _alarms(lambda *_: Message(b"late").send(seqpacket[0], timeout=0), 0.1):
        assert Message.receive(seqpacket[1]).data == b"late"


def test_send_waits_though_the_socket_is_non_blocking(seqpacket):
    """As above, for a sender: it waits while the queue is full, and goes on when there is room."""
    seqpacket[0].setblocking(False)
    sent = _fill(seqpacket[0], Message(bytes(1000)))
    begun = time.monotonic()
    with pytest.raises(CallTimeout):
        Message(b"x").send(seqpacket[0], timeout=0.1)
    assert time.monotonic() - begun >= 0.1

    def make_room(*_):
        for _ in range(sent):
            seqpacket[1].recv(1000, socket.MSG_DONTWAIT)
        signal.setitimer(signal.ITIMER_REAL, 0)

    with _alarms(make_room, 0.1):
        Message(b"x").send(seqpacket[0])
    assert seqpacket[1].recv(10) == b"x"


# ---- signals


@pytest.mark.parametrize("operation", ["receive", "send"])
def test_a_signal_handler_runs_and_the_wait_goes_on_to_its_deadline(pair, operation):
    """EINTR is no error: handlers run many times, and the deadline stays where it was."""
    ran = []
    if operation == "send":
        _fill(pair[0], Message(bytes(1000)))
        wait, sock = Message(bytes(1000)).send, pair[0]
    else:
        wait, sock = Message.receive, pair[1]
    begun = time.monotonic()
    with _alarms(lambda *_: ran.append(1)), pytest.raises(CallTimeout):
        wait(sock, timeout=0.3)
    assert len(ran) > 2
    assert 0.3 <= time.monotonic() - begun < LONG / 2


def test_a_signal_during_a_send_sends_once(pair):
    """Interrupted, then the handler makes room: the message arrives, and arrives once."""
    sent = _fill(pair[0], Message(bytes(1000)))
    drained = []

    def make_room(*_):
        with contextlib.suppress(CallTimeout):
            while len(drained) < sent:
                drained.append(Message.receive(pair[1], timeout=0).data)

    with _alarms(make_room):
        Message(b"the one").send(pair[0], timeout=LONG)
    make_room()
    assert Message.receive(pair[1], timeout=LONG).data == b"the one"
    with pytest.raises(CallTimeout):
        Message.receive(pair[1], timeout=0)


def test_a_signal_handler_may_receive_while_its_thread_does(make_pair, files, identity):
    """Each gets its own message: the memory that is received into is not shared."""
    outer, inner = make_pair(), make_pair()
    sent = files(2)
    got = []

    def handler(*_):
        if not got:
            Message(b"inner", sent[:1]).send(inner[0])
            got.append(Message.receive(inner[1], timeout=LONG))
            Message(b"outer", sent[1:]).send(outer[0])

    with _alarms(handler), Message.receive(outer[1], timeout=LONG) as message, got[0]:
        assert [(m.data, identity(m.descriptors[0])) for m in (got[0], message)] == [
            (b"inner", identity(sent[0])),
            (b"outer", identity(sent[1])),
        ]


@pytest.mark.parametrize("seconds", [None, 60])
def test_ctrl_c_ends_a_receive(seqpacket, run_peer, until, seconds):
    """SIGINT while it waits raises KeyboardInterrupt; the next receive works as if nothing had been."""

    def waiter(sock, seconds):
        print("ready", flush=True)
        try:
            Message.receive(sock, timeout=seconds)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(Message.receive(sock, timeout=60).data.decode())

    peer = run_peer(waiter, seqpacket[1], seconds)
    assert peer.line() == "ready"
    until(peer.asleep)
    os.kill(peer.pid, signal.SIGINT)
    assert peer.line() == "interrupted"
    Message(b"after").send(seqpacket[0])
    assert peer.finish() == "after\n"


def test_ctrl_c_ends_a_send(seqpacket, run_peer, until):
    """As above, for a sender whose receiver's queue is full; the unsent message does not arrive."""

    def sender(sock):
        sent = 0
        try:
            while True:
                Message(b"x").send(sock, timeout=0)
                sent += 1
        except TimeoutError:
            print(sent, flush=True)
        try:
            Message(b"y").send(sock)
        except KeyboardInterrupt:
            print("interrupted", flush=True)

    peer = run_peer(sender, seqpacket[1])
    seqpacket[1].close()
    sent = int(peer.line())
    until(peer.asleep)
    os.kill(peer.pid, signal.SIGINT)
    assert peer.finish() == "interrupted\n"
    assert [Message.receive(seqpacket[0], timeout=LONG).data for _ in range(sent)] == [b"x"] * sent
    with pytest.raises(Disconnected):
        Message.receive(seqpacket[0], timeout=LONG)


# ---- the other side is gone


def test_the_end_comes_after_everything_that_was_sent(seqpacket, files):
    """Closed after a message: the message first, then Disconnected, again and again; a ConnectionError."""
    Message(b"last", files(1)).send(seqpacket[0])
    seqpacket[0].close()
    with Message.receive(seqpacket[1], timeout=LONG) as message:
        assert message.data == b"last"
    for _ in range(2):
        with pytest.raises(ConnectionError) as caught:
            Message.receive(seqpacket[1], timeout=LONG)
        assert isinstance(caught.value, Disconnected)


def test_a_send_to_nobody_is_disconnected_and_no_signal(pair, fork):
    """EPIPE or ECONNREFUSED: Disconnected, certainly not sent, and SIGPIPE is not raised."""
    pair[1].close()

    def child():
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            Message(b"x").send(pair[0])
        except Disconnected as error:
            return error.ran
        return "sent"

    assert fork(child).result() == "no"


def test_a_peer_that_closed_without_reading(seqpacket):
    """A record of ours that was never read: it is the end, as if it had been."""
    Message(b"x").send(seqpacket[0])
    seqpacket[1].close()
    for _ in range(2):
        with pytest.raises(Disconnected, match="closed"):
            Message.receive(seqpacket[0], timeout=LONG)


def test_a_peer_that_is_killed_wakes_the_receiver(seqpacket, run_peer):
    """SIGKILL, no time to say anything: a receiver without a deadline wakes."""

    def victim(sock):
        Message(b"alive").send(sock)
        Message.receive(sock)

    peer = run_peer(victim, seqpacket[1])
    seqpacket[1].close()
    assert Message.receive(seqpacket[0], timeout=LONG).data == b"alive"
    killer = threading.Thread(target=peer.kill)
    killer.start()
    with pytest.raises(Disconnected):
        Message.receive(seqpacket[0])
    killer.join()


def test_a_receiver_that_closes_wakes_a_blocked_sender(seqpacket, run_peer, until):
    """Waiting for room without a deadline, when the last reader goes: Disconnected."""

    def sender(sock):
        try:
            while True:
                Message(bytes(1000)).send(sock)
        except Disconnected as error:
            print(error.ran)

    peer = run_peer(sender, seqpacket[1])
    seqpacket[1].close()
    Message.receive(seqpacket[0], timeout=LONG)
    until(peer.asleep)
    seqpacket[0].close()
    assert peer.finish() == "no\n"


def test_an_empty_record_of_a_foreign_sender_is_not_the_end(pair):
    """Others do send records of 0 bytes: an empty message, and what comes after it is received."""
    pair[0].send(b"")
    Message(b"more").send(pair[0])
    assert [Message.receive(pair[1], timeout=LONG).data for _ in range(2)] == [b"", b"more"]


# ---- what does not fit


@pytest.mark.parametrize("size", [0, 1, 4])
def test_a_record_larger_than_the_room_is_truncated_and_its_descriptors_closed(pair, files, open_descriptors, size):
    """MessageTruncated with what did fit; no descriptor stays; the next message arrives whole."""
    sent, before = files(5), open_descriptors()
    Message(b"abcdef", sent).send(pair[0])
    before |= set(sent)
    with pytest.raises(MessageTruncated, match=f"{size} bytes") as caught:
        Message.receive(pair[1], timeout=LONG, size=size)
    assert caught.value.data == b"abcdef"[:size]
    assert caught.value.errno == errno.EMSGSIZE
    assert open_descriptors() == before
    Message(b"next").send(pair[0])
    assert Message.receive(pair[1], timeout=LONG).data == b"next"


def test_room_that_just_suffices(pair):
    """A record as large as the room is whole."""
    Message(b"abcdef").send(pair[0])
    assert Message.receive(pair[1], timeout=LONG, size=6).data == b"abcdef"


def test_closing_what_a_truncated_record_brought_does_not_delay_the_receiver(seqpacket, lingering, drain):
    """A stranger's socket may take a minute to close: the error comes at once."""
    number, stream = lingering(60)
    Message(b"abcdef", [number]).send(seqpacket[0])
    os.close(number)  # the last reference is the one under way
    begun = time.monotonic()
    with pytest.raises(MessageTruncated):
        Message.receive(seqpacket[1], timeout=LONG, size=1)
    assert time.monotonic() - begun < 30
    drain(stream)


@pytest.mark.parametrize("room", [0, 1, 7])
def test_a_full_descriptor_table_loses_descriptors_but_not_the_message(pair, files, fork, open_descriptors, room):
    """Property 2: the bytes are kept for an answer, what came is closed, the limit is named, and all goes on."""
    sent = files(8)
    Message(b"to be answered", sent).send(pair[0])
    Message(b"next", sent).send(pair[0])

    def child():
        filler = []
        with contextlib.suppress(OSError):
            while True:
                filler.append(os.dup(0))
        for _ in range(room):
            os.close(filler.pop())
        before = open_descriptors()
        with pytest.raises(DescriptorsLost) as caught:
            Message.receive(pair[1], timeout=LONG)
        after = open_descriptors()
        for number in filler:
            os.close(number)
        with Message.receive(pair[1], timeout=LONG) as message:
            following = message.data, len(message.descriptors)
        error = caught.value
        return str(error), error.data, error.errno, after - before, before - after, following

    text, data, number, leaked, lost, following = fork(child, table=100).result()
    assert "100 of 100, RLIMIT_NOFILE" in text
    assert f"the {room} that came are closed" in text
    assert (data, number) == (b"to be answered", errno.EMFILE)
    assert not leaked | lost
    assert following == (b"next", 8)


# ---- whatever else the kernel delivers


def test_several_headers_of_descriptors_are_gathered(pair, files, identity):
    """Two SCM_RIGHTS headers in one sendmsg: the receiver has them all, in order."""
    sent = files(5)
    pair[0].sendmsg([b"x"], [_raw(sent[:2]), _raw(sent[2:])])
    with Message.receive(pair[1], timeout=LONG) as message:
        assert [identity(d) for d in message.descriptors] == [identity(number) for number in sent]


@pytest.mark.parametrize("count", [0, 3, 253])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param([socket.SO_PASSCRED], id="SO_PASSCRED"),
        pytest.param([SO_PASSPIDFD], id="SO_PASSPIDFD"),
        pytest.param([socket.SO_TIMESTAMP if hasattr(socket, "SO_TIMESTAMP") else 29], id="SO_TIMESTAMP"),
        pytest.param([socket.SO_PASSSEC], id="SO_PASSSEC"),
        pytest.param([socket.SO_PASSCRED, SO_PASSPIDFD, SO_TIMESTAMPNS, socket.SO_PASSSEC], id="all"),
    ],
)
def test_what_a_socket_was_switched_to_deliver_besides_is_passed_over(pair, files, identity, options, count):
    """Credentials, pidfds, timestamps, labels: the message is the same, and no pidfd stays open."""
    for option in options:
        try:
            pair[1].setsockopt(socket.SOL_SOCKET, option, 1)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise
            pytest.skip(f"this kernel has no socket option {option}")
    sent = files(count)
    Message(b"data", sent).send(pair[0])
    with Message.receive(pair[1], timeout=LONG) as message:
        assert message.data == b"data"
        assert [identity(d) for d in message.descriptors] == [identity(number) for number in sent]
    pair[0].close()
    if pair[1].type == socket.SOCK_SEQPACKET:
        with pytest.raises(Disconnected):
            Message.receive(pair[1], timeout=LONG)


# ---- who owns what


def test_take_moves_a_descriptor_out(pair, files, identity):
    """Taken: the taker closes it, the message does not; None stands in its place."""
    sent = files(2)
    Message(b"x", sent).send(pair[0])
    with Message.receive(pair[1], timeout=LONG) as message:
        left, taken = message.descriptors[0], message.take(1)
        assert message.descriptors == (left, None)
    assert left.closed
    assert not taken.closed
    assert identity(taken) == identity(sent[1])
    taken.close()


def test_take_gives_once(pair, files):
    """A second take(), or one after close(), is Closed: there is one owner."""
    Message(b"x", files(2)).send(pair[0])
    with Message.receive(pair[1], timeout=LONG) as message, message.take(0), pytest.raises(Closed):
        message.take(0)
    with pytest.raises(Closed):
        message.take(1)
    with pytest.raises(IndexError):
        message.take(2)


def test_a_message_that_borrows_has_nothing_to_give(files):
    """take() from a message made here is refused: its files belong to somebody."""
    with pytest.raises(ValueError, match="borrows"):
        Message(b"x", files(1)).take(0)


def test_sending_and_closing_leave_borrowed_files_open(pair, files):
    """A message made here closes nothing, ever."""
    sent = files(3)
    with Message(b"x", sent) as message:
        message.send(pair[0])
        message.send(pair[0])
    assert all(is_open(number) for number in sent)
    for _ in range(2):
        with Message.receive(pair[1], timeout=LONG) as received:
            assert len(received.descriptors) == 3


def test_a_received_message_can_be_sent_on(make_pair, files, identity):
    """Forwarding borrows as any send does: the message still owns what it received."""
    first, second = make_pair(), make_pair()
    sent = files(3)
    Message(b"x", sent).send(first[0])
    with Message.receive(first[1], timeout=LONG) as message:
        message.send(second[0])
        assert not any(d.closed for d in message.descriptors)
    with Message.receive(second[1], timeout=LONG) as forwarded:
        assert forwarded.data == b"x"
        assert [identity(d) for d in forwarded.descriptors] == [identity(number) for number in sent]


def test_a_message_that_lacks_a_descriptor_is_not_sent_on(make_pair, files):
    """One was taken, or all closed: Closed, rather than a message with less in it."""
    first, second = make_pair(), make_pair()
    Message(b"x", files(2)).send(first[0])
    with Message.receive(first[1], timeout=LONG) as message, message.take(0), pytest.raises(Closed):
        message.send(second[0])
    with pytest.raises(Closed):
        message.send(second[0])
    with pytest.raises(CallTimeout):
        Message.receive(second[1], timeout=0)


def test_a_forgotten_message_warns_and_closes(pair, files):
    """Received and dropped: each descriptor warns and is closed."""
    Message(b"x", files(2)).send(pair[0])
    message = Message.receive(pair[1], timeout=LONG)
    numbers = [d.fileno() for d in message.descriptors]
    with pytest.warns(ResourceWarning) as warned:
        del message
    assert len(warned) == 2
    assert not any(is_open(number) for number in numbers)


def test_a_failed_send_in_a_reference_cycle_is_collected(run_peer):
    """An exception that is kept with its traceback does not have the garbage collector crash the process."""

    def script():
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        right.close()
        try:
            Message([b"one", bytearray(b"two")]).send(left)
        except Disconnected as error:
            # Younger than the message, so that the collector comes to the message first.
            error.itself = error
        gc.collect()
        left.close()

    run_peer(script).finish()


def test_the_repr_counts(files):
    """repr() says how much, and shows none of it."""
    assert repr(Message([b"secret", b"!"], files(2))) == "<Message of 7 bytes and 2 descriptors>"


def test_threads_receive_from_one_socket(seqpacket, files, identity):
    """Each message goes to one thread, whole: data and descriptors belong together."""
    sent = files(40)
    got = []

    def receive():
        with contextlib.suppress(Disconnected):
            while True:
                with Message.receive(seqpacket[1], timeout=LONG) as message:
                    got.append((int(message.data), identity(message.descriptors[0])))

    threads = [threading.Thread(target=receive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i, number in enumerate(sent):
        Message(b"%d" % i, [number]).send(seqpacket[0], timeout=LONG)
    seqpacket[0].close()
    for thread in threads:
        thread.join(LONG)
    assert sorted(got) == [(i, identity(number)) for i, number in enumerate(sent)]


# ---- others speak the same


def test_exchange_with_send_fds(pair, files, identity):
    """What socket.send_fds() sends, receive() understands."""
    sent = files(3)
    socket.send_fds(pair[0], [b"da", b"ta"], sent)
    with Message.receive(pair[1], timeout=LONG) as message:
        assert message.data == b"data"
        assert [identity(d) for d in message.descriptors] == [identity(number) for number in sent]


def test_exchange_with_recv_fds(pair, files, identity):
    """What send() sends, socket.recv_fds() understands."""
    sent = files(3)
    Message([b"da", b"ta"], sent).send(pair[0])
    data, numbers, _, _ = socket.recv_fds(pair[1], 100, 10)
    received = [identity(number) for number in numbers]
    for number in numbers:
        os.close(number)
    assert (data, received) == (b"data", [identity(number) for number in sent])


def test_exchange_with_multiprocessing_sendfds(pair, files, identity):
    """What multiprocessing sends, one byte with the count and the descriptors, receive() understands."""
    sent = files(3)
    for _ in range(2):
        # From Python 3.14 on it waits for that on Linux, too.
        pair[1].send(b"A")
    multiprocessing.reduction.sendfds(pair[0], sent)
    multiprocessing.reduction.send_handle(pair[0], sent[0], os.getpid())
    with Message.receive(pair[1], timeout=LONG) as several, Message.receive(pair[1], timeout=LONG) as one:
        assert (several.data, one.data) == (b"\3", b"\1")
        assert [identity(d) for d in several.descriptors] == [identity(number) for number in sent]
        assert [identity(d) for d in one.descriptors] == [identity(sent[0])]


def test_exchange_with_multiprocessing_recvfds(pair, files, identity):
    """What send() sends with that byte, multiprocessing understands."""
    sent = files(3)
    Message(b"\3", sent).send(pair[0])
    Message(b"\1", sent[:1]).send(pair[0])
    several = multiprocessing.reduction.recvfds(pair[1], 3)
    one = multiprocessing.reduction.recv_handle(pair[1])
    received = [identity(number) for number in (*several, one)]
    for number in (*several, one):
        os.close(number)
    assert received == [identity(number) for number in (*sent, sent[0])]


# ---- ETOOMANYREFS


@pytest.mark.parametrize("per_message", [1, 10])
def test_too_many_in_flight_says_whose_limit_and_ends_when_the_receiver_receives(
    pair, files, fork, open_descriptors, per_message
):
    """Property 6, the kernel's side: an ordinary user's send fails, nothing is sent or leaks, and it passes."""
    sent = files(per_message)

    def child():
        before = open_descriptors()
        count, error = 0, None
        while error is None and count <= 64 // per_message + 1:
            try:
                Message(b"%d" % count, sent).send(pair[0], timeout=LONG)
                count += 1
            except TooManyInFlight as raised:
                error = raised
        after = open_descriptors()
        received = []
        for _ in range(count):
            with Message.receive(pair[1], timeout=LONG) as message:
                received.append((int(message.data), len(message.descriptors)))
        with pytest.raises(CallTimeout):
            Message.receive(pair[1], timeout=0)
        Message(b"again", sent).send(pair[0], timeout=0)
        with Message.receive(pair[1], timeout=LONG) as message:
            again = message.data
        assert isinstance(error, Error), f"{count} sent, and no error"
        assert received == [(i, per_message) for i in range(count)]
        return str(error), error.errno, os.getuid(), after == before, again

    text, number, user, unchanged, again = fork(child, ordinary=True, table=64).result()
    assert number == errno.ETOOMANYREFS
    assert f"user {user} " in text
    assert "RLIMIT_NOFILE of 64" in text
    assert "raise the limit" in text
    assert unchanged
    assert again == b"again"
