"""What a confined process is refused: each through raw system calls, as an ordinary user of its host's.

And what its host has is unchanged: limits, priority, signals, terminal, and other children.
"""

import array
import contextlib
import inspect
import json
import os
import platform
import pty
import resource
import signal
import socket
import subprocess
import tempfile
import textwrap

import pytest

import capmarshal as cm
import raw_calls
from confined import confines, in_host
from patience import PATIENCE
from raw_calls import NUMBERS

_RAW = inspect.getsource(raw_calls)
_EPERM = "EPERM"
AT_FDCWD = -100

pytestmark = confines


def _program(source):
    return _RAW + textwrap.dedent(source)


@pytest.fixture
def said(fork, ordinary_python):
    """said(source, ...): what a confined file says that makes raw system calls, and whose parent is ordinary."""
    return lambda source, *arguments, **options: in_host(
        fork, ordinary_python, lambda host: host.said(_program(source), *arguments, **options)
    )


# The calls, by name, with arguments that would do something; P is the parent's pid, D a descriptor of the door's.
ATTACKS = [
    # Sockets, and what others share.
    ("socket", "2, 1, 0"),
    ("socket", "1, 2, 0"),
    ("socket", "16, 3, 0"),
    ("socketpair", "1, 2, 0, pair"),
    ("socketpair", "1, 2 | 0o2000000, 0, pair"),
    ("socketpair", "1, 1, 1, pair"),
    ("socketpair", "2, 1, 0, pair"),
    ("connect", "D, name, 10"),
    ("bind", "D, name, 10"),
    ("listen", "D, 5"),
    ("shutdown", "D, 2"),
    ("sendto", "D, b'x', 1, 0, name, 10"),
    ("sendmmsg", "D, 0, 1, 0"),
    ("sendto", "D, b'x', 1, 1, 0, 0"),  # MSG_OOB
    ("sendto", "D, b'x', 1, 0x20000000, 0, 0"),  # MSG_FASTOPEN
    ("sendmsg", "D, 0, 1"),
    ("sendmsg", "D, 0, 0x20000000"),
    ("getsockopt", "D, 1, 77, one, pair"),  # SO_PEERPIDFD
    ("getsockopt", "D, 1, 31, one, pair"),  # SO_PEERSEC
    ("getsockopt", "D, 6, 35, one, pair"),  # TCP_ZEROCOPY_RECEIVE
    ("fcntl", "D, 8, P"),  # F_SETOWN
    ("fcntl", "D, 15, owner"),  # F_SETOWN_EX
    ("fcntl", "D, 10, 9"),  # F_SETSIG
    ("fcntl", "D, 4, 0o20000"),  # F_SETFL, O_ASYNC
    ("fcntl", f"D, 4, {os.O_DIRECT}"),  # F_SETFL
    ("fcntl", "D, 1024, 1"),  # F_SETLEASE
    ("fcntl", "D, 1026, 1"),  # F_NOTIFY
    ("fcntl", "D, 1031, 1 << 20"),  # F_SETPIPE_SZ
    ("ioctl", "D, 0x5452, one"),  # FIOASYNC
    ("ioctl", "D, 0x8901, owner"),  # FIOSETOWN
    ("ioctl", "D, 0x8902, owner"),  # SIOCSPGRP
    ("ioctl", "0, 0x5412, b'x'"),  # TIOCSTI
    ("ioctl", "0, 0x5402, 0"),  # TCSETS
    ("ioctl", "0, 0x540E, 0"),  # TIOCSCTTY
    ("ioctl", "0, 0x541C, 0"),  # TIOCLINUX
    # Other processes.
    ("kill", "P, 15"),
    ("kill", "-1, 15"),
    ("kill", "0, 15"),
    ("kill", "1, 0"),
    ("tkill", "P, 15"),
    ("tgkill", "P, P, 15"),
    ("rt_sigqueueinfo", "P, 15, 0"),
    ("rt_tgsigqueueinfo", "P, P, 15, 0"),
    ("pidfd_open", "P, 0"),
    ("pidfd_getfd", "3, 3, 0"),
    ("pidfd_send_signal", "3, 15, 0, 0"),
    ("ptrace", "16, P, 0, 0"),
    ("ptrace", "0, 0, 0, 0"),
    ("process_vm_readv", "P, 0, 0, 0, 0, 0"),
    ("process_vm_writev", "P, 0, 0, 0, 0, 0"),
    ("process_madvise", "3, 0, 0, 0, 0"),
    ("process_mrelease", "3, 0"),
    ("kcmp", "P, P, 0, 0, 0"),
    ("prlimit64", "P, 7, limits, 0"),
    ("prlimit64", "P | (1 << 32), 7, limits, 0"),
    ("getpgid", "P"),
    ("getsid", "P"),
    ("getpriority", "0, P"),
    ("getpriority", "1, 0"),
    ("getpriority", "2, 0"),
    ("sched_getaffinity", "P, 8, one"),
    ("clock_gettime", "~P << 3, pair"),
    ("clock_gettime", "(~P << 3) | 2, pair"),
    ("clock_getres", "(~P << 3) | 2, pair"),
    ("clock_nanosleep", "(~P << 3) | 2, 0, pair, 0"),
    ("setpriority", "0, P, 19"),
    ("setpriority", "1, 0, 19"),
    ("setpriority", "2, 0, 19"),
    ("sched_setaffinity", "P, 8, one"),
    ("sched_setscheduler", "P, 3, one"),
    ("sched_setparam", "P, one"),
    ("sched_setattr", "P, one, 0"),
    ("ioprio_set", "1, P, 0"),
    ("migrate_pages", "P, 0, 0, 0"),
    ("perf_event_open", "one, P, -1, -1, 0"),
    ("setpgid", "0, P"),
    ("setsid", ""),
    # Programs, processes, namespaces.
    ("execve", "b'/bin/true', 0, 0"),
    ("execveat", "AT_FDCWD, b'/bin/true', 0, 0, 0"),
    ("clone", "17, 0, 0, 0, 0"),
    ("clone", "0x00004111, 0, 0, 0, 0"),  # CLONE_VM, CLONE_VFORK
    ("clone", "0x003D0F00 & ~0x400, 0, 0, 0, 0"),  # a thread with its own table
    ("clone", "0x003D0F00 & ~0x200, 0, 0, 0, 0"),  # or directory
    ("clone", "0x003D0F00 | 0x2000, 0, 0, 0, 0"),  # CLONE_PTRACE
    ("clone", "0x003D0F00 | 0x10000000, 0, 0, 0, 0"),  # CLONE_NEWUSER
    ("unshare", "0x10000000"),
    ("unshare", "0x400"),
    ("setns", "0, 0"),
    ("close_range", "100, 200, 2"),
    ("personality", "0x0040000"),
    # Files beside Landlock.
    ("flock", "0, 2"),
    ("fcntl", "0, 6, one"),  # F_SETLK
    ("fcntl", "0, 7, one"),  # F_SETLKW
    ("fcntl", "0, 37, one"),  # F_OFD_SETLK
    ("fcntl", "0, 38, one"),  # F_OFD_SETLKW
    ("fchmod", "1, 0o777"),
    ("fchmodat", "AT_FDCWD, own, 0o777, 0"),
    ("chmod", "own, 0o4777"),
    ("chown", "own, -1, -1"),
    ("fchown", "1, -1, -1"),
    ("fchownat", "AT_FDCWD, own, -1, -1, 0"),
    ("utimensat", "AT_FDCWD, own, 0, 0"),
    ("utimensat", "1, 0, 0, 0"),
    ("getxattr", "own, b'user.x', one, 4"),
    ("lgetxattr", "own, b'user.x', one, 4"),
    ("listxattr", "own, one, 4"),
    ("llistxattr", "own, one, 4"),
    ("setxattr", "own, b'user.x', b'y', 1, 0"),
    ("fsetxattr", "1, b'user.x', b'y', 1, 0"),
    ("truncate", "b'/etc/passwd', 0"),
    ("mknodat", "AT_FDCWD, b'x', 0o010600, 0"),
    ("symlinkat", "b'/etc/passwd', AT_FDCWD, b'x'"),
    ("name_to_handle_at", "AT_FDCWD, b'/', one, one, 0"),
    ("open_by_handle_at", "AT_FDCWD, one, 0"),
    ("chroot", "b'/'"),
    ("pivot_root", "b'/', b'/'"),
    ("mount", "0, b'/', 0, 0, 0"),
    ("umount2", "b'/proc', 0"),
    ("open_tree", "AT_FDCWD, b'/', 0"),
    ("move_mount", "0, 0, 0, 0, 0"),
    ("inotify_init1", "0"),
    ("fanotify_init", "0, 0"),
    ("quotactl", "0, 0, 0, 0"),
    ("renameat2", "AT_FDCWD, own, AT_FDCWD, b'x', 0"),
    # What the user has but once, and what the kernel has much of.
    ("add_key", "b'user', b'x', b'y', 1, -3"),
    ("request_key", "b'user', b'x', 0, 0"),
    ("keyctl", "0, -3, 0"),
    ("shmget", "0, 4096, 0o1600"),
    ("shmat", "0, 0, 0"),
    ("semget", "0, 1, 0o1600"),
    ("mq_open", "b'x', 0o102, 0o600, 0"),
    ("timer_create", "1, 0, one"),
    ("signalfd4", "-1, one, 8, 0"),
    ("mlock", "one, 4"),
    ("madvise", "0, 0, 12"),  # MADV_MERGEABLE
    ("madvise", "0, 0, 20"),  # MADV_COLD
    ("madvise", "0, 0, 21"),  # MADV_PAGEOUT
    ("madvise", "0, 0, 100"),  # MADV_HWPOISON
    ("membarrier", "1, 0, 0"),  # MEMBARRIER_CMD_GLOBAL
    ("membarrier", "2, 0, 0"),  # MEMBARRIER_CMD_GLOBAL_EXPEDITED
    ("pipe2", "pair, 0o200"),  # O_NOTIFICATION_PIPE
    ("futex", "one, 2, 0, 0, 0, 0"),  # FUTEX_FD
    ("memfd_create", "b'x', 4"),  # MFD_HUGETLB
    ("mmap", "0, 1 << 21, 3, 0x22 | 0x40000, -1, 0"),  # MAP_HUGETLB
    ("memfd_secret", "0"),
    ("userfaultfd", "1"),
    ("io_uring_setup", "4, one"),
    ("io_uring_enter", "3, 0, 0, 0, 0, 0"),
    ("io_uring_register", "3, 0, 0, 0"),
    ("bpf", "0, one, 128"),
    ("splice", "0, 0, 1, 0, 1, 0"),
    ("vmsplice", "1, 0, 0, 0"),
    # Itself.
    ("setrlimit", "7, limits"),
    ("setuid", "0"),
    ("setresuid", "0, 0, 0"),
    ("seccomp", "1, 0, 0"),
    ("landlock_create_ruleset", "0, 0, 1"),
    ("prctl", "4, 0, 0, 0, 0"),  # PR_SET_DUMPABLE
    ("prctl", "36, 1, 0, 0, 0"),  # PR_SET_CHILD_SUBREAPER
    ("prctl", "0x59616D61, -1, 0, 0, 0"),  # PR_SET_PTRACER
    # The machine.
    ("syslog", "3, 0, 0"),
    ("reboot", "0, 0, 0, 0"),
    ("swapoff", "b'/x'"),
    ("clock_settime", "0, 0"),
]
if platform.machine() == "x86_64":
    ATTACKS += [("fork", ""), ("vfork", "")]
# SO_LINGER, SO_REUSEADDR, SO_RCVTIMEO, SO_PASSRIGHTS, TCP_CORK.
_OPTIONS = ((1, 13), (1, 2), (1, 20), (1, 83), (6, 3))
ATTACKS += [("setsockopt", f"D, {level}, {option}, one, 4") for level, option in _OPTIONS]
ATTACKS = [(name, arguments) for name, arguments in ATTACKS if NUMBERS[name][platform.machine() == "aarch64"] >= 0]

_PREPARED = """
    P, AT_FDCWD, own = os.getppid(), -100, __file__.encode()
    D = cm.parent()  # its door: the one socket that is open
    import stat
    (D,) = [n for n in range(3, 64) if outcome(lambda: stat.S_ISSOCK(os.fstat(n).st_mode)) is True]
    name, one, pair = b"\\x01\\x00\\x00outside", ctypes.byref(ctypes.c_int(1)), (ctypes.c_int * 2)()
    owner = ctypes.byref((ctypes.c_int * 2)(1, P))
    limits = (ctypes.c_long * 2)(64, 64)
"""


@pytest.mark.parametrize("options", [{}, {"threads": 64, "missing": ["threads"]}], ids=["plain", "namespace"])
def test_every_attack_is_refused(fork, ordinary_python, options):
    """By EPERM; what the host has is what it was, and no signal has come; also in a user namespace, for its threads."""
    lines = "".join(f"    say(raw({name!r}, {arguments}))\n" for name, arguments in ATTACKS if arguments)
    lines += "".join(f"    say(raw({name!r}))\n" for name, arguments in ATTACKS if not arguments)
    order = [attack for attack in ATTACKS if attack[1]] + [attack for attack in ATTACKS if not attack[1]]

    def act(host):
        caught = []
        for number in (signal.SIGTERM, signal.SIGIO, signal.SIGUSR1, signal.SIGURG):
            signal.signal(number, lambda number, _: caught.append(number))
        before = _of_the_host()
        other = subprocess.Popen(["sleep", "1000"])
        said = host.said(_program(_PREPARED + lines), stdin=subprocess.PIPE, **options)
        alive = other.poll() is None
        other.kill()
        other.wait()
        # The door is what it was.
        again = host.said("say(tell('still there'))")
        return said, caught, _of_the_host() == before, alive, again

    said, caught, unchanged, alive, again = in_host(fork, ordinary_python, act)
    assert [(attack, result) for attack, result in zip(order, said, strict=True) if result != _EPERM] == []
    assert (caught, unchanged, alive, again) == ([], True, True, [1])


def _of_the_host():
    """Its limits, priority, scheduling and session."""
    limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
    return limits, os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), os.getpgrp(), os.getsid(0)


def test_numbers_that_no_kernel_has_do_not_exist(said):
    """ENOSYS: who asks has another way. Nor do clone3 and openat2, whose arguments lie in memory, nor x32's numbers."""
    source = """
        say(raw("clone3", 0, 0), raw("openat2", -100, b"/etc/passwd", 0, 0), raw(1000), raw(1 << 20), raw(-2))
        say(raw(0x40000000 | 39))
    """
    assert said(source) == ["ENOSYS"] * 6


@pytest.mark.skipif(platform.machine() != "x86_64", reason="another architecture's calls, of x86-64 alone")
def test_the_calls_of_32_bits_do_not_exist(said):
    """Through int 0x80, which has other numbers: 11 is execve there, 39 mkdir."""
    source = """
        import mmap
        # push rbx; mov eax, edi; xor ebx, ebx; xor ecx, ecx; xor edx, edx; int 0x80; pop rbx; ret
        code = bytes.fromhex("5389f831db31c931d2cd805bc3")
        memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        memory.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        enter = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(address)
        say([enter(number) for number in (11, 2, 20, 39, 359)])
        os._exit(0)
    """
    assert said(source) == [[-38] * 5]


def test_files_outside_are_not_opened_by_any_way(said):
    """By each call, from a thread, through /proc, by a directory."""
    source = """
        import threading
        results = []
        def attempt():
            results.append(raw("openat", -100, b"/etc/passwd", 0, 0))
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        os.chdir("/etc")
        say(
            *results,
            raw("openat", -100, b"/etc/passwd", 0, 0),
            raw("openat", -100, f"/proc/{os.getppid()}/environ".encode(), 0, 0),
            raw("openat", -100, f"/proc/{os.getppid()}/mem".encode(), 0, 0),
            raw("openat", -100, b"/proc/self/mem", 0, 0),
            raw("openat", -100, b"/proc/self/cwd/passwd", 0, 0),
            raw("openat", -100, b"passwd", 0, 0),
            raw("openat", -100, b".", 0o200000, 0),
            raw("openat", -100, b"/dev/tty", 0, 0),
            raw("openat", -100, b"/dev/shm", 0, 0),
            raw("openat", -100, b"/tmp", 0o20200001, 0o600),
        )
        for name in ("exe", "cwd", "root", "fd/0"):
            say(outcome(lambda: os.readlink(f"/proc/{os.getppid()}/{name}")))
    """
    *results, exe, cwd, root, zero = said(source)
    # By ptrace's rules, to which Landlock adds that a process outside is none's to look at; by hidepid it is not seen.
    assert {exe, cwd, root, zero} in ({"PermissionError"}, {"FileNotFoundError"})
    assert results.pop() in ("EACCES", _EPERM)
    # Not every container has it.
    assert results.pop() in ("EACCES", "ENOENT")
    assert {results.pop(2), results.pop(2)} in ({"EACCES"}, {"ENOENT"})
    assert results == ["EACCES"] * 7


@pytest.mark.parametrize("writes", [False, True])
def test_what_it_may_not_open_it_hands_to_nobody(fork, ordinary_python, writes):
    """By a descriptor that only names a file or directory (O_PATH): who opens that does so by its own rights."""

    def act(host):
        source = """
            ways = 0o10000000, 0o10000001, 0o10200000, 0o10001000
            say([raw("openat", -100, path, flags, 0) for path in (b"/etc/passwd", b"/etc", b"/") for flags in ways])
        """
        return host.said(_program(source), write=[host.place] if writes else [])

    assert in_host(fork, ordinary_python, act) == [[_EPERM] * 12]


def test_what_came_for_reading_is_not_opened_again_for_writing(fork, ordinary_python):
    """A file, a memfd, a pipe: through /proc, where Landlock looks at the first alone."""

    class Gives(cm.Interface):
        @cm.method
        def give(self) -> list[cm.Descriptor]: ...

    class GivesServer(Gives):
        def give(self):
            memfd = os.memfd_create("read only")
            with tempfile.TemporaryFile() as file:
                readers = [os.open(f"/proc/self/fd/{number}", os.O_RDONLY) for number in (memfd, file.fileno())]
            os.close(memfd)
            return [cm.Descriptor(number) for number in (*readers, os.dup(pipe[0]))]

    pipe = os.pipe()
    source = """
        class Gives(cm.Interface):
            @cm.method
            def give(self) -> list[cm.Descriptor]: ...
        with cm.timeout(30):
            for given in cm.parent().cast(Gives).give():
                path = f"/proc/self/fd/{given.fileno()}".encode()
                say([raw("openat", -100, path, flags, 0) for flags in (1, 2, 0o1000, 0o100 | 1)])
                say(raw("fcntl", given.fileno(), 3) & 3)
    """

    def act(host):
        with cm.Entrypoint("gives") as entrypoint:
            host.capability = entrypoint.manage(GivesServer())
            return host.said(_program(source))

    try:
        assert in_host(fork, ordinary_python, act) == [[_EPERM] * 4, 0] * 3
    finally:
        for end in pipe:
            os.close(end)


def test_a_datagram_does_not_leave_by_name(fork, ordinary_python):
    """By a socket that it was given, either: to an abstract name, with or without descriptors."""

    class Gives(cm.Interface):
        @cm.method
        def give(self) -> cm.Descriptor: ...

    class GivesServer(Gives):
        def give(self):
            return cm.Descriptor(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach())

    source = """
        import array, socket
        class Gives(cm.Interface):
            @cm.method
            def give(self) -> cm.Descriptor: ...
        with cm.timeout(30):
            given = cm.parent().cast(Gives).give().socket()
        name = b"\\0" + sys.argv[1].encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1]))]
        for attempt in (
            lambda: given.sendmsg([b"out"], [], 0, name),
            lambda: given.sendmsg([b"out"], rights, 0, name),
            lambda: given.sendto(b"out", name),
            lambda: given.connect(name),
        ):
            say(outcome(attempt))
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            one, other = socket.socketpair(socket.AF_UNIX, kind)
            say(outcome(lambda: one.sendmsg([b"out"], rights, 0, name)))
    """

    def act(host):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside, cm.Entrypoint("gives") as entrypoint:
            outside.bind("")
            outside.setblocking(False)
            host.capability = entrypoint.manage(GivesServer())
            said = host.said(_program(source), outside.getsockname()[1:].decode())
            with pytest.raises(BlockingIOError):
                outside.recv(100)
            return said

    assert in_host(fork, ordinary_python, act) == ["PermissionError"] * 4 + ["OSError", 3]


def test_nothing_is_typed_into_the_terminal(fork, ordinary_python):
    """That it was given as its standard streams: it writes, and changes nothing of how that behaves."""
    source = """
        import termios, tty
        for attempt in (
            lambda: raw("ioctl", 0, 0x5412, b"x"),
            lambda: raw("ioctl", 0, 0x5412 | 1 << 32, b"x"),
            lambda: raw("ioctl", 0, 0x5408, 0),
        ):
            say(attempt())
        try:
            tty.setraw(0)
        except termios.error as error:
            say(error.args[0])
        say(os.isatty(0), outcome(lambda: open("/dev/tty", "w")))
    """

    def act(host):
        try:
            leader, terminal = pty.openpty()
        except OSError as error:
            return str(error)
        with open(leader, "rb", buffering=0), open(terminal, "rb+", buffering=0) as opened:
            said = host.said(_program(source), stdin=opened)
            os.set_blocking(terminal, False)
            with pytest.raises(BlockingIOError):
                os.read(terminal, 10)
        return said

    said = in_host(fork, ordinary_python, act)
    if isinstance(said, str):
        pytest.skip(f"no terminals here: {said}")
    assert said == [_EPERM, _EPERM, _EPERM, 1, True, "PermissionError"]


def test_two_confined_siblings_do_not_reach_each_other(fork, ordinary_python):
    """Neither by pid, nor by files, nor by names; each has its own directory."""
    waits = "say(os.getpid()); sys.stdin.read(); say(open(sys.argv[1] + '/own').read())"
    source = """
        sibling, place = int(sys.argv[1]), sys.argv[2]
        say(
            raw("kill", sibling, 9),
            raw("tgkill", sibling, sibling, 9),
            raw("prlimit64", sibling, 7, (ctypes.c_long * 2)(1, 1), 0),
            raw("setpriority", 0, sibling, 19),
            raw("ptrace", 16, sibling, 0, 0),
            raw("pidfd_open", sibling, 0),
            raw("process_vm_readv", sibling, 0, 0, 0, 0, 0),
            outcome(lambda: open(f"/proc/{sibling}/mem", "rb")),
            outcome(lambda: open(f"/proc/{sibling}/fd/1", "wb")),
            outcome(lambda: open(f"{place}/own", "w")),
            outcome(lambda: open(f"{place}/own")),
            outcome(lambda: os.remove(f"{place}/own")),
        )
    """

    def act(host):
        for name in ("one", "two"):
            (host.place / name).mkdir()
            (host.place / name / "own").write_text(name)
        one, two = (str(host.place / name) for name in ("one", "two"))
        pipes = {"stdin": subprocess.PIPE, "name": "waits.py"}
        with host.start(waits, one, write=[one], **pipes) as waiting:
            pid = json.loads(waiting.stdout.readline())
            said = host.said(_program(source), str(pid), one, write=[two])
            out, errors = waiting.communicate(timeout=PATIENCE)
        return said, json.loads(out), errors

    said, own, errors = in_host(fork, ordinary_python, act)
    # By hidepid, it is not seen.
    assert {*said[7:9]} in ({"PermissionError"}, {"FileNotFoundError"})
    assert said[:7] + said[9:] == [_EPERM] * 7 + ["PermissionError"] * 3
    assert (own, errors) == ("one", b"")


def test_limits_and_priority_are_its_own_to_lower(said):
    """And the signals that it sends itself: what it may do to itself, ordinary programs do."""
    source = """
        import resource, signal, faulthandler
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 60))
        say(os.nice(5) >= 5, outcome(lambda: os.nice(-5)), resource.getrlimit(resource.RLIMIT_NOFILE))
        heard = []
        signal.signal(signal.SIGUSR1, lambda *_: heard.append("heard"))
        os.kill(os.getpid(), signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        say(heard)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        signal.signal(signal.SIGALRM, lambda *_: heard.append("alarm"))
        while "alarm" not in heard:
            signal.pause()
        say(raw("getpid") == os.getpid())
    """
    assert said(source) == [True, "PermissionError", [50, 60], ["heard", "heard"], True]


def test_descriptors_in_flight_are_few(fork, ordinary_python):
    """Its user's budget is counted over all processes: the limit is low, and cannot be raised."""
    source = """
        import array, socket
        held, sent = [], 0
        try:
            while True:
                pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                held.append(pair)
                for _ in range(100):
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1] * 253))]
                    pair[0].sendmsg([b"x"], rights)
                    sent += 253
        except OSError as error:
            say(error.errno, sent)
    """

    def act(host):
        number, sent = host.said(_program(source), descriptors=64)
        return number, sent

    number, sent = in_host(fork, ordinary_python, act)
    assert number == 109
    # Checked before it is attached: one message may go beyond.
    assert sent <= 64 + 253


def test_files_are_not_left_open_by_who_went_before(fork, ordinary_python):
    """Of its host, inheritable ones, and the launcher's own."""
    source = """
        opened = []
        for number in range(3, 256):
            with __import__("contextlib").suppress(OSError):
                opened.append(os.readlink(f"/proc/self/fd/{number}"))
        say(opened)
    """

    def act(host):
        with contextlib.ExitStack() as stack:
            for path in ("/etc/passwd", "/"):
                number = os.open(path, os.O_RDONLY)
                stack.callback(os.close, number)
                os.set_inheritable(number, True)
            return host.said(source)

    (opened,) = in_host(fork, ordinary_python, act)
    assert [each.partition(":")[0] for each in opened] == ["socket"]
    assert array.array("i").itemsize == 4


def test_it_asks_of_itself_what_it_may_not_ask_of_others(said):
    """Its group, session, priority, processors, and clocks: those of its threads, too."""
    source = """
        import threading, time
        own = os.getpid()
        say(os.getpgid(0) == os.getpgid(own), os.getsid(0) == os.getsid(own))
        say(os.getpriority(os.PRIO_PROCESS, 0) == os.getpriority(os.PRIO_PROCESS, own))
        say(os.sched_getaffinity(0) == os.sched_getaffinity(own), time.process_time() > 0, time.thread_time() > 0)
        clocks = [(~own << 3) | 2, time.pthread_getcpuclockid(threading.main_thread().ident), -6, -2]
        end = threading.Event()
        other = threading.Thread(target=end.wait)
        other.start()
        clocks.append(time.pthread_getcpuclockid(other.ident))
        say([time.clock_gettime(clock) >= 0 for clock in clocks])
        say(outcome(lambda: time.clock_gettime((~os.getppid() << 3) | 6)))
        end.set()
    """
    assert said(source) == [*[True] * 6, [True] * 5, "OSError"]


def test_files_stay_in_memory(fork, ordinary_python):
    """What it reads, others may read too; that it needs them no more does nothing, and is no error."""

    def act(host):
        (host.place / "file").write_bytes(b"x" * 4096)
        source = """
            with open(sys.argv[1], "rb") as file:
                say(raw("fadvise64", file.fileno(), 0, 0, 4), raw("fadvise64", file.fileno(), 0, 0, 3))
                say(outcome(lambda: os.posix_fadvise(file.fileno(), 0, 0, 77)))
        """
        return host.said(_program(source), str(host.place / "file"), read=[host.place])

    assert in_host(fork, ordinary_python, act) == [0, 0, "PermissionError"]


def test_locks_that_inherit_priority_do_not_exist(said):
    """ENOSYS, by which the C library knows that it has none: they name their owner by its number, of any process."""
    source = """
        word = ctypes.byref(ctypes.c_int(os.getppid()))
        say([raw("futex", word, operation | more, 0, 0, 0, 0) for operation in (6, 7, 8, 13) for more in (0, 128)])
        say(raw("futex", word, 1, 1, 0, 0, 0), raw("futex", word, 10 | 128, 1, 0, 0, -1))
    """
    assert said(source) == [["ENOSYS"] * 8, 0, 0]


def test_who_writes_makes_no_device_and_opens_none(fork, ordinary_python):
    """No whiteout in the place of what is renamed; and nothing is opened for neither reading nor writing."""

    def act(host):
        (host.place / "work").mkdir()
        source = """
            os.chdir(sys.argv[1])
            for name in ("a", "b", "c"):
                open(name, "w").close()
            say([raw("renameat2", -100, b"a", -100, b"d", flags) for flags in (4, 5)])
            say([raw("renameat2", -100, b"a", -100, new, flags) for new, flags in ((b"b", 1), (b"b", 2), (b"e", 0))])
            say([raw("openat", -100, path, 3, 0) for path in (b"/dev/ptmx", b"/etc/passwd", b"c")])
            say(raw("openat", -100, b"/dev/ptmx", 2, 0), sorted(os.listdir(".")))
        """
        return host.said(_program(source), str(host.place / "work"), write=[host.place / "work"])

    denied = [[_EPERM] * 2, ["EEXIST", 0, 0], [_EPERM] * 3]
    assert in_host(fork, ordinary_python, act) == [*denied, "EACCES", ["b", "c", "e"]]


def test_it_leaves_no_core(said):
    """A program that is given cores (core(5)) would be run for each, whatever RLIMIT_CORE says."""
    assert said("say(os.stat('/proc/self/environ').st_uid == os.getuid(), raw('prctl', 4, 1, 0, 0, 0))") == [
        False,
        _EPERM,
    ]
