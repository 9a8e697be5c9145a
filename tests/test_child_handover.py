"""How a parent capability reaches a child: what stands in between, who takes it, and what only looks like one."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import struct
import subprocess
import sys
import textwrap

import pytest

import capmarshal as cm
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._protocol import handover_record, wire
from child_program import ran
from patience import PATIENCE

VARIABLE = "CAPMARSHAL_PARENT"

# What a child begins with that shall import capmarshal when it likes.
PROLOGUE = """\
import os, socket, subprocess, sys

def told():
    import capmarshal as cm
    class Work(cm.Interface):
        @cm.method
        def double(self, value: int) -> int: ...
    try:
        with cm.timeout(30):
            return str(cm.parent().cast(Work).double(21))
    except cm.NoParent as error:
        return f"NoParent: {error}"

"""
TELL = "print(told())"
PYTHON = (sys.executable, "-I", "-W", "error", "-c")
# What a launcher does that means well; by its own program, as it is no matter of Popen's options.
CLOSING = (sys.executable, "-I", "-c", "import os, sys; os.closerange(3, 4096); os.execv(sys.argv[1], sys.argv[1:])")
CLEARING = ("env", "-i")

AS_STDIN = pytest.mark.parametrize("as_stdin", [False, True], ids=["from 3 up", "standard input"])


def program(source):
    return [*PYTHON, PROLOGUE + textwrap.dedent(source)]


def told_of(sock, number=None):
    """The variable for a socket, as :func:`capmarshal.spawn` sets it."""
    return f"{sock.fileno() if number is None else number}:{os.fstat(sock.fileno()).st_ino}"


@contextlib.contextmanager
def waiting(capability, record=None):
    """A socket in which a capability waits, in this record."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        with near:
            record = handover_record.pack(badge_of(capability)) if record is None else record
            socket.send_fds(near, [record], [open_door_of(capability).number])
        yield far


# Where it gets through.


@AS_STDIN
def test_it_is_there_when_capmarshal_is_imported(capability, as_stdin):
    """Isolated, with a shell in between, and with another environment."""
    for options in ({}, {"env": {"PLAIN": "1"}}, {"env": {b"PLAIN": b"1", VARIABLE.encode(): b"3:1"}}):
        assert ran(program(TELL), capability, parent_as_stdin=as_stdin, **options) == "42"
    shell = ["sh", "-c", '"$@"; exit $?', "sh", *program(TELL)]
    assert ran(shell, capability, parent_as_stdin=as_stdin) == "42"


@pytest.mark.parametrize("launcher", [CLOSING, CLEARING, CLEARING + CLOSING], ids=["closes", "clears", "both"])
def test_as_standard_input_it_gets_through_any_launcher(capability, launcher):
    """One that closes what is open from 3 up, clears the environment, or both."""
    assert ran([*launcher, *program(TELL)], capability, parent_as_stdin=True) == "42"


@AS_STDIN
def test_an_ordinary_user_without_a_home(capability, ordinary_python, as_stdin):
    """In a directory where nothing can be written, with an environment in which nothing is but what Python needs."""
    interpreter, options = ordinary_python
    wanted = {name: value for name, value in options["env"].items() if name in ("PYTHONPATH", "LD_PRELOAD")}
    command = [interpreter, "-P", "-c", PROLOGUE + TELL]
    assert ran(command, capability, parent_as_stdin=as_stdin, **{**options, "env": wanted}, cwd="/") == "42"


@AS_STDIN
def test_without_proc(capability, as_stdin):
    """Nothing is looked up there."""
    without = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if subprocess.run([*without, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no namespaces for mounts here")
    source = "assert not os.path.exists('/proc/self'); print(told())"
    assert ran([*without, *program(source)], capability, parent_as_stdin=as_stdin) == "42"


@AS_STDIN
def test_a_limit_of_descriptors_is_set_all_the_same(capability, as_stdin):
    """Which takes a fork as os.fork() makes it, where a child closes what is its parent's alone."""
    source = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[1], told())"
    assert ran(program(source), capability, parent_as_stdin=as_stdin, descriptor_limit=32) == "32 42"


def test_another_exec_before_it_is_imported(capability):
    """It waits."""
    source = f"os.execv(sys.executable, {program(TELL)!r})"
    assert ran(program(source), capability) == "42"


def test_standard_input_has_ended_when_it_is_taken(capability):
    """And stays open: no other file gets its number."""
    source = "print(told(), repr(sys.stdin.read()), os.dup(0) > 2)"
    assert ran(program(source), capability, parent_as_stdin=True) == "42 '' True"


def test_a_sender_of_ones_own(capability):
    """What waits in standard input may be from send_capability(), with a Popen as any other."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        with near:
            cm.send_capability(near, capability)
        assert ran(program(TELL), stdin=far) == "42"


def test_standard_input_is_not_to_be_given_twice(capability):
    """Said before anything is made."""
    with pytest.raises(ValueError, match="parent_as_stdin=True"):
        cm.spawn(["true"], parent=capability, parent_as_stdin=True, stdin=subprocess.DEVNULL)


# Who takes it.


@AS_STDIN
def test_it_is_taken_once(capability, as_stdin):
    """Of two forks, and of two programs of one shell, one has it, and the other is told."""
    source = """
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            os.write(write_end, told().encode())
            os._exit(0)
        os.wait()
        print(os.read(read_end, 1000).decode())
        print(told())
    """
    shell = ["sh", "-c", '"$@"; "$@"', "sh", *program(TELL)]
    for command in (program(source), shell):
        first, second = ran(command, capability, parent_as_stdin=as_stdin).split("\n")
        assert first == "42"
        assert second.startswith("NoParent: the capability that this process inherited was taken before, by another")


def test_nothing_of_it_goes_on_to_a_grandchild(capability):
    """Neither the variable nor the socket, with close_fds=False either."""
    source = f"""
        assert told() == "42"
        assert {VARIABLE!r} not in os.environ
        command = [sys.executable, "-I", "-c", sys.argv[1]]
        print(subprocess.run(command, close_fds=False, stdout=subprocess.PIPE, text=True).stdout)
    """
    look = f"import os; print({VARIABLE!r} in os.environ, os.dup(0))"
    assert ran([*program(source), look], capability) == "False 3"


def test_an_exec_after_it_was_taken_has_none(capability):
    """It went no further than the first program that imported capmarshal."""
    source = f"""
        assert told() == "42"
        os.execv(sys.executable, {program(TELL)!r})
    """
    assert ran(program(source), capability).startswith("NoParent: this process inherited no capability")


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12),
    reason="CPython 3.12 crashes where a module of its own, _datetime, is refused by one interpreter and then imported",
)
@pytest.mark.parametrize("first", ["outer", "inner"])
def test_of_several_interpreters_the_first_has_it(capability, first):
    """Each has an environment of its own, and imports capmarshal anew, where it can be imported at all."""
    source = f"""
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            print("none")
            raise SystemExit
        inner = interpreters.create()
        def tell_inner():
            interpreters.run_string(inner, sys.argv[1])
        for tell in (lambda: print(told(), flush=True), tell_inner)[:: 1 if {first!r} == "outer" else -1]:
            tell()
    """
    code = f"import sys; sys.path[:] = {sys.path!r}\n{PROLOGUE}\n"
    code += "try: print(told(), flush=True)\nexcept ImportError: print('none')"
    first_said, *rest = ran([*program(source), code], capability).split("\n")
    if "none" in (first_said, *rest):
        pytest.skip("capmarshal is for one interpreter here")
    assert first_said == "42"
    assert rest[0].startswith(
        "NoParent: the socket in which a capability waited for this process is not there any more"
    )


@AS_STDIN
def test_what_nobody_takes_goes_with_the_process(capability, as_stdin, until):
    """Until then the door is held, though the parent has closed its own; after that it hangs up."""
    server, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with server, near, far:
        with client:
            socket.send_fds(near, [handover_record.pack(b"b" * wire.BADGE_SIZE)], [client.fileno()])
        received = cm.receive_capability(far, PATIENCE)
        command = [*PYTHON, "import os; os.write(1, b'ready'); os.read(2, 1)"]
        read_end, write_end = os.pipe()
        with cm.Descriptor(read_end) as reader, cm.Descriptor(write_end) as writer:
            child = cm.spawn(
                command, parent=received, parent_as_stdin=as_stdin, stdout=subprocess.PIPE, stderr=reader.fileno()
            )
            with child:
                assert child.stdout.read(5) == b"ready"
                received.close()
                del received
                gc.collect()
                poll = select.poll()
                poll.register(server, select.POLLIN)
                assert poll.poll(0) == []
                writer.close()
        until(lambda: poll.poll(0))


def test_a_fork_in_another_thread_keeps_nothing_of_it(capability):
    """What waits goes with the process that it is for: a fork of the spawning process has no copy of the socket."""
    source = """
        import threading
        import capmarshal as cm
        from capmarshal._child import spawn

        made = spawn._waiting(cm.parent())
        number = made.fileno()
        open_in_forks = []

        def fork():
            pid = os.fork()
            if pid == 0:
                try:
                    os.fstat(number)
                    os._exit(1)
                except OSError:
                    os._exit(0)
            open_in_forks.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        fork()
        print(open_in_forks)
        made.close()
    """
    assert ran(program(source), capability) == "[0, 1]"


# Why there is none.


def test_a_process_that_was_given_none():
    """Started in any other way."""
    expected = "this process inherited no capability: capmarshal.spawn() starts one that does, with "
    assert ran(program(TELL), stdin=subprocess.DEVNULL).startswith(f"NoParent: {expected}")


def test_a_launcher_that_closes_what_it_does_not_know(capability):
    """The error says what has been closed, and what helps."""
    said = ran([*CLOSING, *program(TELL)], capability, stdin=subprocess.DEVNULL)
    assert said.startswith("NoParent: the socket in which a capability waited for this process is not there any more: ")
    assert said.endswith("spawn(..., parent_as_stdin=True) passes it as standard input")


def test_a_launcher_that_gives_another_standard_input(capability):
    """Likewise."""
    shell = ["sh", "-c", '"$@" </dev/null', "sh", *program(TELL)]
    expected = "a capability waited for this process in its standard input, which a program in between has replaced"
    assert ran(shell, capability, parent_as_stdin=True) == f"NoParent: {expected}"


@AS_STDIN
@pytest.mark.parametrize(
    ("record", "why"),
    [
        (struct.pack("=8sII", b"\xfecapmshl", 99, 20) + b"more", "its server speaks version 99 of the protocol, and"),
        (handover_record.pack(bytes(16)), "its badge is that of no object"),
    ],
    ids=["version", "badge"],
)
def test_a_handover_that_is_of_no_use(capability, record, why, as_stdin):
    """Of a parent with another version of capmarshal, say: the error says that."""
    with waiting(capability, record) as far:
        how = {"stdin": far} if as_stdin else {"pass_fds": [far.fileno()], "env": {VARIABLE: told_of(far)}}
        said = ran(program(TELL), **how)
    assert said.startswith("NoParent: the capability that this process inherited could not be taken: ")
    assert why in said


def test_a_call_that_is_refused(capability):
    """By a filter: the error says which."""
    with waiting(capability) as far:
        source = f"""
            sys.path[:0] = {sys.path!r}
            import refusing
            refusing.refuse(["recvmsg"])
            print(told())
        """
        said = ran(program(source), pass_fds=[far.fileno()], env={VARIABLE: told_of(far)})
    expected = "the capability that this process inherited could not be taken: receiving a capability: "
    refused = "Operation not permitted: a filter or a security module refuses recvmsg(2)"
    assert said == f"NoParent: {expected}{refused}"


# What is somebody else's.


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=lambda k: k.name)
@pytest.mark.parametrize("data", [b"", b"hello", b"\xfecapmshl", b"x" * 100], ids=["none", "short", "magic", "long"])
def test_a_standard_input_that_is_another_socket_is_left_alone(kind, data, memfd, identity):
    """What waits in it, with what is attached to it, is there for its reader, and so is an error that waits."""
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    source = """
        with socket.socket(fileno=os.dup(0)) as stdin:
            flags = os.get_blocking(0), os.get_inheritable(0)
            assert told().startswith("NoParent: this process inherited no capability")
            assert flags == (os.get_blocking(0), os.get_inheritable(0))
            stdin.setblocking(False)
            try:
                data, numbers, *_ = socket.recv_fds(stdin, 1000, 4)
                print(data, *(os.fstat(number).st_ino for number in numbers))
            except OSError as error:
                print(type(error).__name__)
    """
    with near, far:
        if data:
            socket.send_fds(near, [data], [memfd.fileno()])
        expected = f"{data} {identity(memfd)[1]}" if data else "BlockingIOError"
        assert ran(program(source), stdin=far) == expected
        if kind != socket.SOCK_DGRAM:
            far.send(b"never read")
            near.close()
            assert ran(program(source), stdin=far) == "ConnectionResetError"


def test_a_peek_offset_of_standard_input_stays(capability):
    """Of a reader who looks ahead: a look of ours would move it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    source = """
        assert told().startswith("NoParent")
        with socket.socket(fileno=os.dup(0)) as stdin:
            print(stdin.recv(100, socket.MSG_PEEK))
    """
    with near, far:
        far.setsockopt(socket.SOL_SOCKET, 42, 3)
        near.send(handover_record.pack(b"b" * 16))
        assert ran(program(source), stdin=far) == repr(handover_record.pack(b"b" * 16)[3:])


@pytest.mark.parametrize(
    "told",
    [
        "",
        "x",
        "3",
        "3:",
        ":3",
        "-1:5",
        "3:-5",
        "3 :5",
        "99999999999999999999:1",
        "\u0663:1",
        "9" * 5000 + ":1",
        "3:" + "9" * 5000,
    ],
    ids=lambda told: told[:24],
)
def test_a_variable_that_says_something_else_is_ignored(told):
    """And removed."""
    source = f"print(told()[:54]); assert {VARIABLE!r} not in os.environ"
    said = ran(program(source), stdin=subprocess.DEVNULL, env={VARIABLE: told})
    assert said.startswith("NoParent: th")


def test_a_variable_of_another_time_is_ignored(capability):
    """Whose number is another socket's by now, or a file's: that stays as it is."""
    with waiting(capability) as far, waiting(capability) as other, open(os.devnull, "rb") as file:
        for stale in (f"{other.fileno()}:{os.fstat(far.fileno()).st_ino}", f"{file.fileno()}:{os.fstat(3).st_ino}"):
            number = stale.partition(":")[0]
            source = f"print(told()); assert os.get_inheritable({number})"
            said = ran(program(source), pass_fds=[int(number)], env={VARIABLE: stale}, stdin=subprocess.DEVNULL)
            assert "is not there any more" in said
        assert cm.receive_capability(other, PATIENCE) == cm.receive_capability(far, PATIENCE)


def test_a_standard_input_that_was_handed_over_besides(capability):
    """Where the variable tells of nothing any more, what waits in standard input is found."""
    with waiting(capability) as far:
        assert ran(program(TELL), stdin=far, env={VARIABLE: "250:1"}) == "42"
