"""Message: what else may come than was expected, who owns what came, and what others send and receive."""

import array
import contextlib
import errno
import gc
import multiprocessing.reduction
import os
import socket
import threading
import time

import pytest

from capmarshal import Message
from capmarshal._kernel.errors import (
    CallTimeout,
    Closed,
    DescriptorsLost,
    Disconnected,
    Error,
    MessageTruncated,
    TooManyInFlight,
)
from full_table import fill
from slow_closing import is_open

# Longer than any test takes: a wait that reaches it hangs.
LONG = 60

RIGHTS = socket.SOL_SOCKET, socket.SCM_RIGHTS

# include/uapi/asm-generic/socket.h; Python has no names for these.
SO_PASSPIDFD = 76

SO_TIMESTAMPNS = 35


def _raw(numbers):
    return (*RIGHTS, array.array("i", numbers))


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
        filler = fill(room)
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
