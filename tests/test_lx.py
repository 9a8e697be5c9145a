"""lx: each function is one system call, returns -errno, and leaves everything else alone."""

import errno
import fcntl
import inspect
import mmap
import os
import select
import signal
import socket
import struct
import threading
from pathlib import Path

import cffi
import pytest

from capmarshal import lx
from capmarshal._kernel.native import lib

NULL = lx.ffi.NULL
SEQPACKET = socket.SOCK_SEQPACKET


def _name(path=b""):
    """A sockaddr_un; without a path, bind() makes up an abstract one (unix(7), autobind)."""
    return struct.pack("H", socket.AF_UNIX) + path


def _message(data=b"", room=0):
    """A msghdr, and the memory that it points to, which must be kept."""
    memory = lx.ffi.new("char[]", data or room or 1)
    part = lx.ffi.new("struct iovec *", {"iov_base": memory, "iov_len": len(data) or room})
    return lx.ffi.new("struct msghdr *", {"msg_iov": part, "msg_iovlen": 1}), part, memory


@pytest.fixture
def ends(seqpacket):
    """The two descriptors of a SEQPACKET pair."""
    return tuple(end.fileno() for end in seqpacket)


def _length(room=0):
    return lx.ffi.new("unsigned int *", room)


# Each failure that needs no more than wrong arguments: the call, what it returns.
FAILURES = [
    pytest.param(lambda: lx.socket(-1, SEQPACKET, 0), errno.EAFNOSUPPORT, id="socket"),
    pytest.param(lambda: lx.socketpair(socket.AF_UNIX, SEQPACKET, 0, NULL), errno.EFAULT, id="socketpair"),
    pytest.param(lambda: lx.bind(-1, _name(), 2), errno.EBADF, id="bind"),
    pytest.param(lambda: lx.connect(-1, _name(), 2), errno.EBADF, id="connect"),
    pytest.param(lambda: lx.getsockname(-1, NULL, _length()), errno.EBADF, id="getsockname"),
    pytest.param(lambda: lx.getpeername(-1, NULL, _length()), errno.EBADF, id="getpeername"),
    pytest.param(lambda: lx.sendto(-1, b"x", 1, 0, lx.ffi.NULL, 0), errno.EBADF, id="sendto"),
    pytest.param(lambda: lx.sendmsg(-1, _message(b"x")[0], 0), errno.EBADF, id="sendmsg"),
    pytest.param(lambda: lx.recvmsg(-1, _message(room=1)[0], 0), errno.EBADF, id="recvmsg"),
    pytest.param(lambda: lx.getsockopt(-1, 1, socket.SO_TYPE, NULL, _length()), errno.EBADF, id="getsockopt"),
    pytest.param(lambda: lx.setsockopt(-1, 1, socket.SO_SNDBUF, b"1234", 4), errno.EBADF, id="setsockopt"),
    pytest.param(lambda: lx.shutdown(-1, socket.SHUT_RDWR), errno.EBADF, id="shutdown"),
    pytest.param(lambda: lx.fcntl(-1, fcntl.F_GETFD, 0), errno.EBADF, id="fcntl"),
    pytest.param(lambda: lx.fstat(-1, lx.ffi.new("struct stat *")), errno.EBADF, id="fstat"),
    pytest.param(lambda: lx.close(-1), errno.EBADF, id="close"),
    pytest.param(lambda: lx.mmap(NULL, 4096, 1, 2, -1, 0), errno.EBADF, id="mmap"),
    pytest.param(lambda: lx.munmap(NULL, 0), errno.EINVAL, id="munmap"),
    pytest.param(lambda: lx.epoll_create1(-1), errno.EINVAL, id="epoll_create1"),
    pytest.param(lambda: lx.epoll_ctl(-1, 2, -1, NULL), errno.EBADF, id="epoll_ctl"),
    pytest.param(lambda: lx.epoll_pwait(-1, lx.ffi.new("struct epoll_event *"), 1, 0), errno.EBADF, id="epoll_pwait"),
    pytest.param(lambda: lx.ppoll(NULL, 0, lx.ffi.new("struct timespec *", [0, -1])), errno.EINVAL, id="ppoll"),
]

# And of those that the package alone calls.
OWN_FAILURES = [
    pytest.param(lambda: lib.lx_landlock_create_ruleset(NULL, 8, 0), errno.EFAULT, id="landlock_create_ruleset"),
    pytest.param(lambda: lib.lx_landlock_add_rule(-1, 1, NULL, 0), errno.EBADF, id="landlock_add_rule"),
    pytest.param(lambda: lib.lx_seccomp(99, 0, NULL), errno.EINVAL, id="seccomp"),
    pytest.param(lambda: lib.lx_prctl(-1, 0, 0, 0, 0), errno.EINVAL, id="prctl"),
    pytest.param(lambda: lib.lx_capset(bytes(8), NULL), errno.EINVAL, id="capset"),
    pytest.param(lambda: lib.lx_unshare(-1), errno.EINVAL, id="unshare"),
]

FUNCTIONS = {name for name in lx.__all__ if inspect.isfunction(getattr(lx, name))}


def test_the_failure_of_every_function_is_tested():
    """A function that is added gets a line in FAILURES."""
    assert {case.id for case in FAILURES} == FUNCTIONS


@pytest.mark.parametrize(("call", "number"), FAILURES)
def test_a_failure_is_the_negative_errno_and_libc_errno_stays(call, number):
    """A failing call returns -errno, raises nothing, and leaves libc's errno as it was."""
    lx.ffi.errno = 4321
    assert call() == -number
    assert lx.ffi.errno == 4321


@pytest.mark.parametrize(("call", "number"), OWN_FAILURES)
def test_so_it_is_of_those_that_are_not_everywhere(call, number):
    """An older kernel has them not, elsewhere they are switched off, or a filter refuses them, as Docker's unshare."""
    lx.ffi.errno = 4321
    result = call()
    assert lx.ffi.errno == 4321
    _skip_where_refused(result)
    assert result == -number


def _skip_where_refused(result):
    if result in (-errno.ENOSYS, -errno.EOPNOTSUPP, -errno.EPERM):
        pytest.skip(f"not to be had here: {os.strerror(-result)}")


def test_the_errno_that_is_looked_at_is_the_one_that_libc_writes():
    """The test above can fail: a call through libc does change what it looks at."""
    libc = cffi.FFI()
    libc.cdef("int close(int);")
    lx.ffi.errno = 4321
    assert libc.dlopen(None).close(-1) == -1
    assert lx.ffi.errno == errno.EBADF


def test_fstat(files):
    """fstat() tells what os.fstat() tells."""
    (memfd,) = files(1)
    os.write(memfd, bytes(10_000))
    status = lx.ffi.new("struct stat *")
    assert lx.fstat(memfd, status) == 0
    assert (status.st_size, status.st_blocks) == (10_000, os.fstat(memfd).st_blocks)


def test_mmap_and_munmap(files):
    """mmap() returns an address where the file's bytes are; munmap() takes it away again."""
    (memfd,) = files(1)
    os.write(memfd, b"mapped")
    address = lx.mmap(NULL, 6, mmap.PROT_READ, mmap.MAP_PRIVATE, memfd, 0)
    assert bytes(lx.ffi.buffer(lx.ffi.cast("char *", address), 6)) == b"mapped"
    assert lx.munmap(lx.ffi.cast("char *", address), 6) == 0
    assert f"{address:x}-" not in Path("/proc/self/maps").read_text()


def test_socket_and_close():
    """socket() returns a descriptor with the flags asked for, no others; close() closes it."""
    plain = lx.socket(socket.AF_UNIX, SEQPACKET, 0)
    closing = lx.socket(socket.AF_UNIX, SEQPACKET | socket.SOCK_CLOEXEC, 0)
    assert [os.get_inheritable(plain), os.get_inheritable(closing)] == [True, False]
    assert [lx.close(plain), lx.close(closing)] == [0, 0]
    assert lx.close(plain) == -errno.EBADF


def test_close_range():
    """For this package alone: it closes those from the first to the last, and is refused what is no range."""
    opened = [os.dup(0) for _ in range(4)]
    first, *_, last = opened
    assert opened == [*range(first, last + 1)]
    assert lx.lib.lx_close_range(first + 1, last - 1, 0) == 0
    assert lx.lib.lx_close_range(last, first, 0) == -errno.EINVAL
    assert [lx.close(number) for number in opened] == [0, -errno.EBADF, -errno.EBADF, 0]


def test_socketpair_makes_two_connected_ends():
    """socketpair() writes two descriptors; what is sent into one comes out of the other."""
    pair = lx.ffi.new("int[2]", [-1, -1])
    assert lx.socketpair(socket.AF_UNIX, SEQPACKET | socket.SOCK_CLOEXEC, 0, pair) == 0
    with socket.socket(fileno=pair[0]) as left, socket.socket(fileno=pair[1]) as right:
        left.send(b"over")
        assert right.recv(9) == b"over"


def test_a_bound_end_names_its_peer():
    """bind() of one end: getsockname() there and getpeername() on the other end give the same name."""
    with socket.socket(socket.AF_UNIX, SEQPACKET) as free, socket.socket(socket.AF_UNIX, SEQPACKET) as client:
        assert lx.bind(free.fileno(), _name(), 2) == 0
        free.listen()
        name, length = lx.ffi.new("char[128]"), _length(128)
        assert lx.getsockname(free.fileno(), name, length) == 0
        assert lx.ffi.buffer(name, length[0])[2:] == free.getsockname()

        assert lx.connect(client.fileno(), name, length[0]) == 0
        peer, room = lx.ffi.new("char[128]"), _length(128)
        assert lx.getpeername(client.fileno(), peer, room) == 0
        assert lx.ffi.buffer(peer, room[0])[:] == lx.ffi.buffer(name, length[0])[:]


def test_getpeername_of_an_unconnected_socket():
    """getpeername() of a socket without a peer is -ENOTCONN."""
    with socket.socket(socket.AF_UNIX, SEQPACKET) as lonely:
        assert lx.getpeername(lonely.fileno(), lx.ffi.new("char[128]"), _length(128)) == -errno.ENOTCONN


def test_connect_to_nobody():
    """connect() to a name that nobody is bound to is -ECONNREFUSED."""
    name = _name(b"\0" + os.urandom(16))
    with socket.socket(socket.AF_UNIX, SEQPACKET) as client:
        assert lx.connect(client.fileno(), name, len(name)) == -errno.ECONNREFUSED


def test_sendmsg_and_recvmsg(ends):
    """They return the number of bytes; the flags of the message come back."""
    sent, received = _message(b"hello"), _message(room=3)
    assert lx.sendmsg(ends[0], sent[0], 0) == 5
    assert lx.recvmsg(ends[1], received[0], 0) == 3
    assert lx.ffi.buffer(received[2], 3)[:] == b"hel"
    assert received[0].msg_flags & socket.MSG_TRUNC


def test_nothing_is_retried_where_there_is_nothing(ends):
    """An empty queue with MSG_DONTWAIT is -EAGAIN."""
    assert lx.recvmsg(ends[1], _message(room=1)[0], socket.MSG_DONTWAIT) == -errno.EAGAIN


def test_sendto_sends_so_many_bytes(ends):
    """To a connected socket there is no address to give."""
    assert lx.sendto(ends[0], b"hello", 4, 0, lx.ffi.NULL, 0) == 4
    assert os.read(ends[1], 10) == b"hell"


def test_sendmsg_to_a_closed_peer(seqpacket):
    """-EPIPE, and no signal with MSG_NOSIGNAL."""
    seqpacket[1].close()
    assert lx.sendmsg(seqpacket[0].fileno(), _message(b"x")[0], socket.MSG_NOSIGNAL) == -errno.EPIPE


@pytest.mark.parametrize("wait", ["recvmsg", "ppoll", "epoll_pwait"])
def test_a_signal_ends_a_wait(ends, wait):
    """-EINTR comes back: the signal handler runs, and nothing is retried here."""
    ran = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: ran.append(number))
    epoll = lx.epoll_create1(select.EPOLL_CLOEXEC)
    try:
        # Again and again, in case the first comes before the wait.
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        if wait == "recvmsg":
            result = lx.recvmsg(ends[1], _message(room=1)[0], 0)
        elif wait == "ppoll":
            polled = lx.ffi.new("struct pollfd *", {"fd": ends[1], "events": select.POLLIN})
            result = lx.ppoll(polled, 1, NULL)
        else:
            result = -errno.EINTR
            # Also ended by what has no handler: SIGCONT (signal(7)), or an io_uring with work for this thread.
            while result == -errno.EINTR and not ran:
                result = lx.epoll_pwait(epoll, lx.ffi.new("struct epoll_event *"), 1, -1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        lx.close(epoll)
    assert result == -errno.EINTR
    assert ran


def test_socket_options(ends):
    """What setsockopt() sets, getsockopt() gives; both return 0, and the length is written."""
    on, value, length = struct.pack("i", 1), lx.ffi.new("int *"), _length(4)
    assert lx.setsockopt(ends[0], socket.SOL_SOCKET, socket.SO_PASSCRED, on, len(on)) == 0
    assert lx.getsockopt(ends[0], socket.SOL_SOCKET, socket.SO_PASSCRED, value, length) == 0
    assert (value[0], length[0]) == (1, 4)


def test_shutdown_ends_the_peers_reading(seqpacket):
    """After shutdown(SHUT_WR) the peer reads the end."""
    assert lx.shutdown(seqpacket[0].fileno(), socket.SHUT_WR) == 0
    assert lx.recvmsg(seqpacket[1].fileno(), _message(room=1)[0], 0) == 0


def test_fcntl_returns_what_the_command_says(ends):
    """F_DUPFD_CLOEXEC: a new descriptor, not below the argument, CLOEXEC."""
    copy = lx.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 100)
    try:
        assert copy >= 100
        assert lx.fcntl(copy, fcntl.F_GETFD, 0) == fcntl.FD_CLOEXEC
    finally:
        lx.close(copy)


def test_epoll_reports_the_data_of_the_registration(ends, seqpacket):
    """An event carries the 64 bits that it was registered with; nothing ready is 0 events; deleted is forgotten."""
    epoll = lx.epoll_create1(select.EPOLL_CLOEXEC)
    try:
        data = 0x1234_5678_9ABC_DEF0
        event = lx.ffi.new("struct epoll_event *", {"events": select.EPOLLIN, "data": {"u64": data}})
        assert lx.epoll_ctl(epoll, 1, ends[1], event) == 0
        assert lx.epoll_ctl(epoll, 1, ends[1], event) == -errno.EEXIST
        ready = lx.ffi.new("struct epoll_event[4]")
        assert lx.epoll_pwait(epoll, ready, 4, 0) == 0
        seqpacket[0].send(b"x")
        assert lx.epoll_pwait(epoll, ready, 4, 0) == 1
        assert (ready[0].events, ready[0].data.u64) == (select.EPOLLIN, data)
        assert lx.epoll_ctl(epoll, 2, ends[1], NULL) == 0
        assert lx.epoll_pwait(epoll, ready, 4, 0) == 0
    finally:
        lx.close(epoll)


def test_ppoll_counts_and_writes_the_time_left(ends, seqpacket):
    """0 when the time is up, and none of it is left; else the number of ready ones, and the rest of the time."""
    polled = lx.ffi.new("struct pollfd *", {"fd": ends[1], "events": select.POLLIN})
    short, long = lx.ffi.new("struct timespec *", [0, 1_000_000]), lx.ffi.new("struct timespec *", [60, 0])
    assert lx.ppoll(polled, 1, short) == 0
    assert (short.tv_sec, short.tv_nsec) == (0, 0)
    seqpacket[0].send(b"x")
    assert lx.ppoll(polled, 1, long) == 1
    assert polled.revents == select.POLLIN
    assert 0 < long.tv_sec <= 60


def test_a_waiting_call_lets_other_threads_run(ends, seqpacket):
    """A thread that waits in the kernel holds no lock of Python's."""
    result = []
    message = _message(room=8)
    thread = threading.Thread(target=lambda: result.append(lx.recvmsg(ends[1], message[0], 0)))
    thread.start()
    seqpacket[0].send(b"wake")
    thread.join(30)
    assert result == [4]


# include/uapi/linux/prctl.h, landlock.h, seccomp.h, capability.h.
_PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 38, 39
_LANDLOCK_VERSION, _LANDLOCK_READ_FILE, _LANDLOCK_PATH_BENEATH = 1, 1 << 2, 1
_SECCOMP_GET_ACTION_AVAIL, _SECCOMP_RET_ERRNO = 2, 0x00050000
_CAPABILITIES_3 = 0x20080522


def test_landlock_binds_the_process_that_calls_it(fork, tmp_path):
    """A ruleset is made, given a rule, and put on: what lies beneath it can be read, and nothing else."""
    if lib.lx_landlock_create_ruleset(NULL, 0, _LANDLOCK_VERSION) < 0:
        pytest.skip("this kernel has no Landlock")
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    for place in (inside / "file", outside):
        place.write_text("read")

    def child():
        ruleset = lib.lx_landlock_create_ruleset(struct.pack("=Q", _LANDLOCK_READ_FILE), 8, 0)
        directory = os.open(inside, os.O_PATH)
        rule = struct.pack("=Qi", _LANDLOCK_READ_FILE, directory)
        made = lib.lx_landlock_add_rule(ruleset, _LANDLOCK_PATH_BENEATH, rule, 0)
        privileges = lib.lx_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), lib.lx_prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
        # Who may gain privileges is told that first.
        assert lib.lx_landlock_restrict_self(-1, 0) == -errno.EBADF
        bound = lib.lx_landlock_restrict_self(ruleset, 0)
        with pytest.raises(PermissionError):
            outside.read_text()
        return made, privileges, bound, (inside / "file").read_text()

    assert fork(child).result() == (0, (0, 1), 0, "read")


def test_capset_takes_capabilities_away(fork):
    """What is not permitted any more cannot be had again."""

    def child():
        nothing = bytes(24)
        taken = lib.lx_capset(struct.pack("=Ii", _CAPABILITIES_3, 0), nothing)
        again = lib.lx_capset(struct.pack("=Ii", _CAPABILITIES_3, 0), struct.pack("=6I", 1, 1, 0, 0, 0, 0))
        return taken, again

    taken, again = fork(child).result()
    _skip_where_refused(taken)
    assert (taken, again) == (0, -errno.EPERM)


def test_seccomp_says_which_actions_it_knows():
    """The operation that changes nothing."""
    known = lx.ffi.new("uint32_t *", _SECCOMP_RET_ERRNO)
    unknown = lx.ffi.new("uint32_t *", 0x00060000)
    result = lib.lx_seccomp(_SECCOMP_GET_ACTION_AVAIL, 0, known)
    _skip_where_refused(result)
    assert result == 0
    assert lib.lx_seccomp(_SECCOMP_GET_ACTION_AVAIL, 0, unknown) == -errno.EOPNOTSUPP


def test_unshare_tells_whether_there_are_other_threads(fork):
    """Of CLONE_THREAD it does nothing where there are none, and refuses where there are."""
    clone_thread = 0x00010000

    def child():
        alone = lib.lx_unshare(clone_thread)
        end = threading.Event()
        other = threading.Thread(target=end.wait)
        other.start()
        beside = lib.lx_unshare(clone_thread)
        end.set()
        other.join()
        return alone, beside

    alone, beside = fork(child).result()
    _skip_where_refused(alone)
    assert (alone, beside) == (0, -errno.EINVAL)
