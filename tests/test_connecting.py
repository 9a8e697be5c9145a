"""connect(): within its deadline a capability, or the words for why there is none."""

import errno
import os
import signal
import socket
import struct
import threading
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
import matrix
from capmarshal._descriptors import reaper
from capmarshal._protocol import handover_record
from capmarshal._protocol.handover_record import Because
from full_table import fill
from patience import PATIENCE, until
from services import connected, double, failure, leave_stale, serving


@pytest.fixture
def listener(place):
    """A server by hand at that path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(place))
        made.listen(0)
        made.settimeout(PATIENCE)
        yield made


def answered_by(listener, *records, keep=False):
    """A thread that accepts one connection and sends records."""

    def serve():
        connection, _ = listener.accept()
        for record in records:
            connection.send(record)
        if keep:
            return connection
        connection.close()
        return None

    return by_hand.Concurrent(serve)


def test_no_file(place):
    kind, words = failure(place)
    assert (kind, "no such file" in words) == ("Disconnected", True)


def test_nobody_listens(place):
    leave_stale(place)
    kind, words = failure(place)
    assert (kind, "nobody listens there" in words) == ("Disconnected", True)
    with pytest.raises(cm.Disconnected) as caught:
        cm.connect(place)
    assert caught.value.ran == "no"


def test_no_socket(place):
    place.write_text("file")
    assert failure(place)[0] == "KernelError"
    with pytest.raises(OSError, match="no socket") as caught:
        cm.connect(place)
    assert caught.value.errno == errno.ENOTSOCK


@pytest.mark.parametrize("kind", ["STREAM", "DGRAM"])
def test_a_socket_of_another_kind(place, kind):
    with socket.socket(socket.AF_UNIX, getattr(socket, f"SOCK_{kind}")) as other:
        other.bind(str(place))
        if kind == "STREAM":
            other.listen()
        assert failure(place)[0] == "ProtocolError"


def test_a_directory_that_may_not_be_entered(place, fork):
    """Refused, as by the file's own permissions: it is said who is kept out."""
    if os.getuid() != 0:
        pytest.skip("needs two users")
    with serving(place, mode=0o666):
        place.parent.chmod(0o700)
        kind, words = fork(lambda: failure(place), ordinary=True).result()
        assert (kind, "a directory on the way" in words) == ("Refused", True)
        place.parent.chmod(0o711)
        assert fork(lambda: double(place), ordinary=True).result() == 8


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_service_that_accepts_nobody(listener, place, timeout):
    """As many wait there as may: who comes then waits until the deadline, and is told."""
    with connected(place):
        kind, words = failure(place, timeout)
        assert (kind, "too many others wait there" in words) == ("CallTimeout", True)
        with cm.timeout(timeout), pytest.raises(cm.CallTimeout, match=r"cm\.timeout"):
            cm.connect(place)


def test_who_waits_to_be_accepted_is(listener, place):
    """When there is room."""
    with connected(place):
        waiting = by_hand.Concurrent(failure, place)
        for _ in range(2):
            listener.accept()[0].close()
        assert waiting.outcome()[0] == "Disconnected"


def test_a_service_that_says_nothing(listener, place):
    """As a stopped one, or somebody else's, which waits for its client to begin."""
    kind, words = failure(place, 0.05)
    assert (kind, "nothing was handed over in 0.05 s: its service is busy, " in words) == ("CallTimeout", True)


def test_a_service_that_hangs_up(listener, place):
    serving_it = answered_by(listener)
    kind, words = failure(place)
    serving_it.outcome()
    assert (kind, "handed nothing over" in words) == ("Disconnected", True)


@pytest.mark.parametrize(
    "record",
    [
        b"220 ready",
        b"\xfe",
        handover_record.pack(b"b" * 16),
        handover_record.pack(b"b" * 16)[:20],
        handover_record.pack(b"b" * 16) + b"more",
        handover_record.pack(bytes(16)),
        handover_record.pack_refusal("why", Because.REFUSED)[:33],
    ],
    ids=repr,
)
def test_a_service_of_somebody_elses(listener, place, record):
    """What it says is no handover, or of no use."""
    serving_it = answered_by(listener, record)
    kind, words = failure(place)
    serving_it.outcome()
    assert (kind, "this version of capmarshal" in words) == ("ProtocolError", True)


def test_another_version(listener, place):
    """Told by its number."""
    record = bytearray(handover_record.pack(b"b" * 16))
    record[8:12] = struct.pack("=I", 4711)
    serving_it = answered_by(listener, bytes(record))
    kind, words = failure(place)
    serving_it.outcome()
    assert (kind, "version 4711" in words) == ("ProtocolError", True)


@pytest.mark.parametrize("words", ["", "because", "\x1b[2Jnothing", "long " * 2000, "\N{SNOWMAN}" * 2000])
def test_what_a_service_says_is_shortened_and_printable(listener, place, words):
    """A stranger may have written it."""
    serving_it = answered_by(listener, handover_record.pack_refusal(words, Because.REFUSED))
    kind, told = failure(place)
    serving_it.outcome()
    assert kind == "Refused"
    assert told.isprintable()
    assert len(told) < 2000


def test_a_refusal_with_descriptors_leaves_none(listener, place, files):
    def serve():
        connection, _ = listener.accept()
        with connection:
            socket.send_fds(connection, [handover_record.pack_refusal("why", Because.REFUSED)], files(3))

    serving_it = by_hand.Concurrent(serve)
    assert failure(place)[0] == "Refused"
    serving_it.outcome()


@pytest.mark.parametrize("also", [b"junk", b""], ids=["instead", "behind it"])
def test_what_a_service_leaves_that_is_slow_to_close_keeps_nobody(listener, place, lingering, fork, also):
    """In the connection, instead of what is due or behind it."""
    client = fork(lambda: (failure(place)[0], reaper.behind()))
    connection, _ = listener.accept()
    number, _ = lingering(int(PATIENCE))
    with connection:
        # It finds both, and that nobody else has the one open any more.
        os.kill(client.pid, signal.SIGSTOP)
        until(lambda: Path(f"/proc/{client.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        if not also:
            connection.send(handover_record.pack_refusal("why", Because.REFUSED))
        socket.send_fds(connection, [b"junk"], [number])
        os.close(number)
        os.kill(client.pid, signal.SIGCONT)
        kind, behind = client.result()
    assert (kind, behind > 0) == ("ProtocolError" if also else "Refused", True)


def test_a_busy_service_is_tried_again(listener, place):
    """Until it hands something over, or says something else."""

    def serve():
        for record in [handover_record.pack_refusal("busy", Because.BUSY)] * 3 + [
            handover_record.pack_refusal("no", Because.REFUSED)
        ]:
            connection, _ = listener.accept()
            with connection:
                connection.send(record)

    serving_it = by_hand.Concurrent(serve)
    kind, words = failure(place)
    serving_it.outcome()
    assert (kind, words.endswith("no")) == ("Refused", True)


def test_a_service_that_was_busy_and_says_nothing_more(listener, place):
    """What it has said is the reason, and not that the last try was answered too late."""

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.send(handover_record.pack_refusal("64 wait", Because.BUSY))
        return listener.accept()[0]

    serving_it = by_hand.Concurrent(serve)
    kind, words = failure(place, 1)
    serving_it.outcome().close()
    assert (kind, "64 wait" in words) == ("TooManyInFlight", True)


def test_a_service_that_stays_busy(listener, place):
    """At the deadline it is said why nothing came."""
    ended = threading.Event()

    def serve():
        while not ended.is_set():
            connection, _ = listener.accept()
            with connection:
                connection.send(handover_record.pack_refusal("64 wait", Because.BUSY))

    serving_it = by_hand.Concurrent(serve)
    kind, words = failure(place, 1)
    ended.set()
    with connected(place):
        serving_it.outcome()
    assert (kind, "64 wait" in words) == ("TooManyInFlight", True)


def test_ctrl_c_ends_the_waiting(listener, place, handler):
    """In connect(2), where as many wait as may; and it works the first time."""

    def interrupt(*_):
        raise KeyboardInterrupt

    handler(signal.SIGALRM, interrupt)
    with connected(place):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            cm.connect(place, PATIENCE)
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        handler(signal.SIGALRM, lambda *_: None)
        with pytest.raises(cm.CallTimeout):
            cm.connect(place, 0.2)
        signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.mark.parametrize(("timeout", "error"), [("1", TypeError), (-1, ValueError), (float("nan"), ValueError)])
def test_what_is_no_time_is_refused(place, timeout, error):
    with pytest.raises(error):
        cm.connect(place, timeout)


def test_a_full_table_is_said(place, fork):
    """And nothing is lost: the next time there is room."""

    def client():
        full = fill(0)
        errors = []
        while True:
            try:
                capability = cm.connect(place, PATIENCE)
            except cm.TableFull as error:
                errors.append(error)
                os.close(full.pop())
            else:
                break
        for number in full:
            os.close(number)
        return len(errors), capability.cast(by_hand.Work).double(4)

    with serving(place):
        count, result = fork(client, table=64).result()
    assert count >= 1
    assert result == 8


def test_a_service_that_restarts_is_found_again(place, run_peer):
    """Its clients see that it has gone, and whether their call ran; they connect again and go on."""

    def serve(path, number):
        class Hello(cm.Interface):
            @cm.method
            def double(self, value: int) -> int: ...

        class Server(Hello):
            def double(self, value: int) -> int:
                if value == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return number + value

        entrypoint = cm.Entrypoint("service")
        entrypoint.listen(path, Server())
        print("ready", flush=True)
        entrypoint.serve_forever()

    for number in range(3):
        peer = run_peer(serve, str(place), number)
        assert peer.line() == "ready"
        with cm.timeout(PATIENCE):
            work = cm.connect(place).cast(by_hand.Work)
            assert work.double(5) == number + 5
            with pytest.raises(cm.Disconnected) as caught:
                work.double(0)
            assert caught.value.ran == "maybe"
            with pytest.raises(cm.Disconnected) as caught:
                work.double(1)
            assert caught.value.ran == "no"
            cm.capability(work).close()
        peer.finish(code=-signal.SIGKILL)


class Looking(by_hand.Worker):
    """Whose method does what needs its own thread."""

    def double(self, value):
        return self.look(value)


@matrix.runs_inline
@pytest.mark.parametrize("activated", [False, True])
def test_a_service_that_is_to_answer_in_this_very_thread(place, activated, listener):
    """At once, for it would wait for itself; in another thread, and in a child of the process, it is answered."""
    worker = Looking()
    if not activated:
        listener.close()
        place.unlink()
    with cm.Entrypoint("service") as entrypoint:
        entrypoint.listen(listener.dup() if activated else place, worker)

        def look(value):
            with pytest.raises(RuntimeError, match=r"in the thread that serves it: .* do it in another one"):
                cm.connect(place)
            with pytest.raises(RuntimeError, match="waiting for entrypoint 'service' to go in the thread"):
                cm.wait_gone(worker)
            with pytest.raises(cm.CallTimeout):
                cm.wait_gone(worker, 0)
            pid = os.fork()
            if pid == 0:
                # Its parent is busy: it is not answered before that has seen its end.
                os._exit(failure(place, 0)[0] != "CallTimeout")
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            return 2 * value

        worker.look = look
        assert double(place) == 8
        del worker.look
    assert failure(place, 0)[0] == ("CallTimeout" if activated else "Disconnected")
