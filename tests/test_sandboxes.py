"""Inside other people's sandboxes: what they deny is done without, as client and as server."""

import contextlib
import errno
import gc
import io
import logging
import os
import socket
import subprocess

import pytest

import by_hand
import capmarshal as cm
import sandboxed
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors.inbox import record_room
from capmarshal._protocol import wire
from patience import PATIENCE
from refusing import DENIED_BY_AGENTS, refuse

# All of them, and each alone.
every_call = pytest.mark.parametrize(
    "calls", [DENIED_BY_AGENTS, *((call,) for call in DENIED_BY_AGENTS)], ids=["all", *DENIED_BY_AGENTS]
)

# What stands between, as other people have it: it closes what it does not know, or mounts no /proc.
_CLOSING = ("-I", "-c", "import os, sys; os.closerange(3, 4096); os.execv(sys.argv[1], sys.argv[1:])")
_WITHOUT_PROC = ("unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")


@contextlib.contextmanager
def _hub():
    with cm.Entrypoint("hub") as entrypoint:
        yield entrypoint.manage(sandboxed.HubServer(entrypoint))


def _run(command, capability, **options):
    """It says that all is done, and nothing else, in any stream."""
    child = cm.spawn(
        command, parent=capability, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", **options
    )
    try:
        out, _ = child.communicate(timeout=PATIENCE)
    finally:
        child.kill()
        child.wait(PATIENCE)
    assert (out, child.returncode) == ("all done\n", 0)


@pytest.mark.parametrize("when", ["before", "after"])
@every_call
def test_what_is_denied_is_done_without(calls, when, ordinary_python):
    """The deny list of a well-known sandbox for coding agents, and each call of it alone."""
    python, options = ordinary_python
    with _hub() as capability:
        _run(sandboxed.command(python, when, calls), capability, **options)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EACCES])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_filter_may_say_what_it_likes(when, error, ordinary_python):
    """That there is no such call, or no access."""
    python, options = ordinary_python
    with _hub() as capability:
        _run(sandboxed.command(python, when, DENIED_BY_AGENTS, error), capability, **options)


def test_behind_a_launcher_that_closes_what_it_does_not_know(ordinary_python):
    """All descriptors from 3 up: standard input is left, for an ordinary user without a home."""
    python, options = ordinary_python
    options = {**options, "env": {**options["env"], "HOME": "/nonexistent"}}
    with _hub() as capability:
        command = [python, *_CLOSING, *sandboxed.command(python, "before", DENIED_BY_AGENTS)]
        _run(command, capability, parent_as_stdin=True, **options)


@pytest.mark.parametrize("as_stdin", [False, True])
def test_without_proc(as_stdin, ordinary_python):
    """Nothing is asked there that can't be done without."""
    python, options = ordinary_python
    tried = subprocess.run([*_WITHOUT_PROC, "true"], stderr=subprocess.PIPE, text=True, check=False, **options)
    if tried.returncode:
        pytest.skip(f"this user may make no mount namespace: {tried.stderr.strip()}")
    with _hub() as capability:
        command = [*_WITHOUT_PROC, *sandboxed.command(python, "before", DENIED_BY_AGENTS)]
        _run(command, capability, parent_as_stdin=as_stdin, **options)


@pytest.mark.parametrize(
    ("call", "act"),
    [
        ("socketpair", lambda hub: hub.double(1)),
        ("socketpair", lambda _: cm.Entrypoint("refused")),
        ("sendmsg", lambda hub: hub.double(1)),
        ("eventfd2", lambda _: cm.Entrypoint("refused")),
        ("epoll_create1", lambda _: cm.Entrypoint("refused")),
        ("memfd_create", lambda _: cm.Dataspace.from_buffer(b"data")),
    ],
    ids=lambda param: param if isinstance(param, str) else "",
)
def test_what_it_cannot_do_without_is_named(call, act, fork, open_descriptors):
    """A filter that refuses that, too, is told by the error; nothing is left behind."""
    with _hub() as capability:
        hub = capability.cast(sandboxed.Hub)

        def in_child():
            refuse([call])
            before = open_descriptors()
            words = "nothing"
            # Not by pytest.raises(), which keeps the traceback, and so what was made.
            try:
                with cm.timeout(PATIENCE):
                    act(hub)
            except cm.KernelError as error:
                words = str(error)
            gc.collect()
            return words, open_descriptors() - before

        words, left = fork(in_child).result()
        assert f"Operation not permitted: a filter or a security module refuses {call}(2)" in words
        assert not left


@pytest.mark.parametrize("shrunk", [False, True])
def test_how_long_a_record_may_be_is_tried_where_it_may_not_be_asked(shrunk, fork, seqpacket):
    """Nothing is sent by that; a call of a few thousand bytes is not made in parts for it."""
    one, other = seqpacket
    if shrunk:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    usual = 212_960

    def in_child():
        refuse(["getsockopt"])
        return record_room(one.fileno())

    room = fork(in_child).result()
    assert room == (usual if record_room(one.fileno()) >= usual else 4096)
    assert shrunk <= (room == 4096)
    one.send(bytes(room))
    assert len(other.recv(usual + 1)) == room
    with pytest.raises(BlockingIOError):
        other.recv(1, socket.MSG_DONTWAIT)


# As a server for those who are hostile.


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def filtered(fork, log):
    """The capability of a server that may ask nothing of a socket and set nothing; it serves whatever a test did."""

    def before():
        refuse(DENIED_BY_AGENTS)
        logging.getLogger("capmarshal").handlers = [logging.FileHandler(log)]
        logging.getLogger("capmarshal").propagate = False

    with by_hand.server_process(fork, before=before) as (_, capability):
        yield capability
        with by_hand.knock(capability) as near:
            assert by_hand.lives(near, capability)


def test_an_empty_record_is_no_end_of_a_door(filtered):
    """It looks like the end where no credentials come with it; who else knocks is let in all the same."""
    for _ in range(5):
        by_hand.at_door(filtered, b"")
    with by_hand.knock(filtered) as near:
        assert by_hand.lives(near, filtered)


def test_a_stream_is_no_channel(filtered, make_pair):
    """It keeps no records."""
    near, far = make_pair(socket.SOCK_STREAM)
    near.settimeout(PATIENCE)
    by_hand.at_door(filtered, wire.KNOCK_RECORD, [far.fileno()])
    far.close()
    assert by_hand.ended(near)


def test_a_datagram_socket_is_no_channel(filtered, make_pair, until):
    """Nobody would ever see its end, and this one seems to be readable for ever."""
    near, far = make_pair(socket.SOCK_DGRAM)
    far.shutdown(socket.SHUT_RD)
    by_hand.at_door(filtered, wire.KNOCK_RECORD, [far.fileno()])
    far.close()

    def is_closed():
        try:
            near.send(b"x")
        except BrokenPipeError:
            # Somebody has it.
            return False
        except ConnectionRefusedError:
            return True

    until(is_closed)


def test_its_own_door_is_no_channel(filtered, log, until):
    """The door's client end, sent through the door."""
    by_hand.at_door(filtered, wire.KNOCK_RECORD, [open_door_of(filtered).number])
    until(lambda: "it is a door, and no channel" in log.read_text())


def test_the_log_does_not_say_who_knocks_where_that_is_hidden(filtered, log, until):
    """It would be process 0 of root."""
    by_hand.at_door(filtered, b"junk")
    until(lambda: log.read_text() == "elsewhere: a process that a filter hides: refused a knock: it is no knock\n")


def test_who_has_not_received_its_descriptors_sees_the_end(filtered):
    """Its channel is dropped for what it does, and can't be shut down: it is closed when they have been received."""
    with by_hand.knock(filtered) as near:
        near.send(by_hand.call(filtered, b"pipes", b"\x91\x02"))
        near.send(b"no record")
        reply, descriptors = by_hand.answer(near)
        assert len(descriptors) == 2, reply
        for number in descriptors:
            os.close(number)
        assert by_hand.ended(near)


# What a program sees of sockets of its own.


def test_a_socket_whose_name_is_hidden_is_a_socket(fork, make_pair):
    """Python asks for it, and need not be told."""
    one, other = make_pair(socket.SOCK_STREAM)

    def in_child():
        refuse(["getsockname"])
        with cm.Descriptor.dup_of(one).socket() as made:
            made.send(b"x")
            return made.family, made.type, made.getblocking()

    assert fork(in_child).result() == (socket.AF_UNIX, socket.SOCK_STREAM, True)
    assert other.recv(2) == b"x"


class Sockets(cm.Interface):
    @cm.method
    def take(self, sock: socket.socket) -> None: ...

    @cm.method
    def read(self, file: io.BufferedReader) -> bytes: ...


class SocketsServer(Sockets):
    def take(self, sock):
        pass

    def read(self, file):
        return file.read()


def test_a_socket_of_which_nothing_may_be_asked_is_refused_for_that(fork, make_pair):
    """As a socket object; to read from, it is as good as any other file."""
    one, other = make_pair(socket.SOCK_STREAM)
    other.send(b"data")
    other.shutdown(socket.SHUT_WR)

    def in_child():
        refuse(["getsockopt"])
        with by_hand.serving(SocketsServer()) as capability:
            sockets = capability.cast(Sockets)
            with pytest.raises(cm.ArgumentError) as refused:
                sockets.take(one)
            with one.makefile("rb", buffering=0) as file:
                return str(refused.value), sockets.read(file)

    words, data = fork(in_child).result()
    assert (
        "a socket is due; what came is a socket that may not be asked of what type it is (getsockopt(2): "
        "Operation not permitted)"
    ) in words
    assert data == b"data"


def test_where_it_cannot_be_asked_who_connects_there_is_no_listening(fork, tmp_path):
    """It is said at once, and leaves no file; not to each client."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with made:
        made.bind(f"{tmp_path}/passed")
        made.listen()

        def in_child():
            refuse(["getsockopt"])
            with contextlib.closing(cm.Entrypoint("deaf")) as entrypoint:
                for where in (tmp_path / "own", made):
                    with pytest.raises(cm.KernelError, match=r"refuses getsockopt\(2\), which tells who connects"):
                        entrypoint.listen(where, SocketsServer())
            return [file.name for file in tmp_path.iterdir()]

        assert fork(in_child).result() == ["passed"]


def test_messages_travel_over_sockets_that_may_not_be_asked(fork, pair, memfd):
    """They are taken for ones that keep records."""
    one, other = pair

    def in_child():
        refuse(DENIED_BY_AGENTS)
        with cm.Message.receive(other, PATIENCE) as message:
            cm.Message([b"back: ", message.data], [message.descriptors[0]]).send(other, PATIENCE)
        one.close()
        with pytest.raises((cm.Disconnected, cm.CallTimeout)):
            cm.Message.receive(other, 0)

    cm.Message(b"there", [memfd]).send(one, PATIENCE)
    child = fork(in_child)
    with cm.Message.receive(one, PATIENCE) as message:
        assert message.data == b"back: there"
        assert len(message.descriptors) == 1
    child.result()
