"""Children: what they get from their parent, which is one capability, and what they do not."""

import contextlib
import gc
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

import capmarshal as cm
import child_program
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._descriptors import reaper as _reaper
from patience import PATIENCE


def _open_now():
    gc.collect()
    assert _reaper.wait(PATIENCE)
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - iterdir() would keep a descriptor of its own open


def test_a_child_calls_through_its_parent_capability():
    """parent() is there as soon as capmarshal is imported, and calls the object that spawn() was given."""
    with child_program.registry() as (target, capability):
        child_program.ran(child_program.python("assert tell('hello') == 1"), capability)
        assert target.told == ["hello"]


def test_parent_is_the_same_object_each_time():
    """And the same as what is received of that object later."""
    with child_program.registry() as (_, capability):
        child_program.ran(
            child_program.python("assert cm.parent() is cm.parent(); assert cm.parent().label == 'registry'"),
            capability,
        )


def test_a_process_that_was_not_spawned_has_no_parent():
    """NoParent says how to start one that has; also in a process started by other means from one that has."""
    with pytest.raises(cm.NoParent, match="spawn"):
        cm.parent()
    program = """
        assert cm.parent()
        code = sys.argv[1]
        print(subprocess.run([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, text=True).stdout)
    """
    code = "import capmarshal as cm\ntry: cm.parent()\nexcept LookupError as error: print(type(error).__name__)"
    with child_program.registry() as (_, capability):
        assert child_program.ran(child_program.python(program, code), capability).split() == ["NoParent"]


def test_a_child_holds_its_standard_streams_and_one_door():
    """Right after the import: no channel, nothing of the parent's; and the door is CLOEXEC."""
    program = """
        listed = descriptors()
        (door,) = [number for number in listed if number > 2 and os.path.exists(f"/proc/self/fd/{number}")]
        assert listed[door].startswith("socket:"), listed
        assert not os.get_inheritable(door)
        tell("x")
        assert len(descriptors()) == len(listed) + 1, descriptors()
    """
    with child_program.registry() as (_, capability), contextlib.ExitStack() as stack:
        for _ in range(5):
            # Inheritable ones of the parent's own, that a careless spawn would hand down.
            number = os.dup(open_door_of(capability).number)
            stack.callback(os.close, number)
            os.set_inheritable(number, True)
        child_program.ran(child_program.python(program), capability)


def test_the_badge_is_in_neither_the_command_line_nor_the_environment():
    """Any list of processes shows those: what they say, of which socket it is, is no secret."""
    with child_program.registry() as (_, capability), subprocess.Popen(["true"]) as plain:
        child = cm.spawn(
            child_program.python("print('ready', flush=True); sys.stdin.read()"),
            parent=capability,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PLAIN": "1"},
        )
        try:
            assert child.stdout.readline() == b"ready\n"
            badge = badge_of(capability)
            for name in ("cmdline", "environ"):
                shown = Path(f"/proc/{child.pid}/{name}").read_bytes()
                assert badge not in shown
                assert badge.hex().encode() not in shown.lower()
                assert repr(badge)[2:-1].encode() not in shown
            environment = Path(f"/proc/{child.pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
            # What the C library and Python set themselves aside, it is the environment that was asked for, and that.
            asked, told = [entry for entry in environment if not entry.startswith(b"LC_")]
            assert asked == b"PLAIN=1"
            assert re.fullmatch(rb"CAPMARSHAL_PARENT=\d+:\d+", told)
            child.communicate(timeout=PATIENCE)
        finally:
            child.kill()
            child.wait(PATIENCE)
        plain.wait(PATIENCE)


def test_a_grandchild_gets_nothing():
    """The capability goes through exactly one exec, also if the child starts its own with close_fds=False."""
    program = """
        for close in (True, False):
            command = [sys.executable, "-I", "-c", sys.argv[1]]
            print(subprocess.run(command, close_fds=close, stdout=subprocess.PIPE, text=True).stdout.strip())
    """
    numbers = "map(int, os.listdir('/proc/self/fd'))"
    code = f"import os; print([n for n in {numbers} if n > 2 and os.path.exists(f'/dev/fd/{{n}}')])"
    with child_program.registry() as (_, capability):
        assert child_program.ran(child_program.python(program, code), capability).split() == ["[]", "[]"]


def test_a_child_spawns_a_child_of_its_own_with_the_same_capability():
    """Inherited down the generations, each time by name: nobody gets it unasked."""
    program = """
        tell("child")
        code = sys.argv[1]
        assert cm.spawn([sys.executable, "-I", "-c", code], parent=cm.parent()).wait(30) == 0
    """
    with child_program.registry() as (target, capability):
        child_program.ran(child_program.python(program, child_program.PROLOGUE + "tell('grandchild')"), capability)
        assert target.told == ["child", "grandchild"]


def test_a_shell_in_between_passes_it_on():
    """``sh -c 'exec python ...'``: only capmarshal takes what is handed over, whatever runs before."""
    command = ["sh", "-c", 'exec "$@"', "sh", *child_program.python("tell('through a shell')")]
    with child_program.registry() as (target, capability):
        child_program.ran(command, capability)
        child_program.ran(shlex.join(child_program.python("tell('and another')")), capability, shell=True)
        assert target.told == ["through a shell", "and another"]


@pytest.mark.parametrize("closed", [(0,), (0, 1, 2), (1,)], ids=str)
def test_a_parent_without_standard_streams_spawns(closed, fork):
    """Its own descriptors have low numbers then, which Popen would overwrite with the child's streams."""
    with child_program.registry() as (target, capability):

        def spawn_without():
            for number in closed:
                os.close(number)
            for number in closed:
                # Each of those that are closed is taken in turn by what waits, by a door, by a server's end.
                for given in (capability, number):
                    with cm.Entrypoint("low") if given is number else contextlib.nullcontext() as low:
                        child = cm.spawn(
                            child_program.python("tell('low')" if low is None else "assert cm.parent().label == 'low'"),
                            parent=capability if low is None else low.manage(child_program.RegistryServer()),
                            stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL,
                        )
                        assert child.wait(PATIENCE) == 0

        fork(spawn_without).result()
        assert target.told == ["low"] * len(closed)


def test_a_child_of_a_process_without_standard_streams_gets_its_capability(fork):
    """Its streams are pipes, which are put on 0, 1 and 2: nothing of ours is there."""

    def spawn_low():
        for number in (0, 1, 2):
            os.close(number)
        entrypoint = cm.Entrypoint("low")
        capability = entrypoint.manage(child_program.RegistryServer())
        assert open_door_of(capability).number >= 3
        child = cm.spawn(
            child_program.python("print(cm.parent().label)"),
            parent=capability,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        out, _ = child.communicate(timeout=PATIENCE)
        entrypoint.close()
        return child.returncode, out

    assert fork(spawn_low).result() == (0, b"low\n")


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (["/nonexistent/program"], {}, FileNotFoundError),
        ([os.devnull], {}, PermissionError),
        (["true"], {"cwd": "/nonexistent"}, FileNotFoundError),
        (["true"], {"nonsense": 1}, TypeError),
        (["true"], {"close_fds": False}, ValueError),
        ([], {}, (IndexError, ValueError)),
        (["tr\0ue"], {}, ValueError),
    ],
    ids=["no program", "not executable", "no directory", "unknown option", "close_fds", "no arguments", "NUL"],
)
def test_a_spawn_that_fails_leaves_nothing_behind(arguments, options, error):
    """The error is Popen's own; no descriptor and no process stays."""
    with child_program.registry() as (_, capability):
        before = _open_now()
        with pytest.raises(error):
            cm.spawn(arguments, parent=capability, **options)
        assert _open_now() == before
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def test_a_spawn_that_succeeds_leaves_nothing_behind_either():
    """The handover is the child's; the parent keeps the door that it had."""
    with child_program.registry() as (_, capability):
        before = _open_now()
        child_program.ran(child_program.python(""), capability)
        assert _open_now() == before


@pytest.mark.parametrize("options", [{"close_fds": False}, {"close_fds": 0}])
def test_close_fds_false_is_refused(options):
    """It would hand everything down; pass_fds is how to say what the child needs."""
    with child_program.registry() as (_, capability), pytest.raises(ValueError, match="pass_fds"):
        cm.spawn(["true"], parent=capability, **options)


def test_pass_fds_is_combined():
    """What the caller names goes too, under its own number, beside the capability."""
    read_end, write_end = os.pipe()
    with (
        cm.Descriptor(read_end) as reader,
        cm.Descriptor(write_end) as writer,
        child_program.registry() as (target, capability),
    ):
        program = "os.write(int(sys.argv[1]), b'through the pipe'); tell('and through the door')"
        child_program.ran(child_program.python(program, str(writer.fileno())), capability, pass_fds=[writer.fileno()])
        writer.close()
        assert os.read(reader.fileno(), 100) == b"through the pipe"
        assert target.told == ["and through the door"]


def test_a_closed_capability_cannot_be_given():
    """Closed, before anything is started."""
    with child_program.registry() as (_, capability):
        capability.close()
        with pytest.raises(cm.Closed):
            cm.spawn(["true"], parent=capability)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("wrong", [None, 3, child_program.RegistryServer(), "capability"])
def test_what_is_no_capability_cannot_be_given(wrong):
    """A server's object has a capability once it is managed: cm.capability() gives it."""
    with pytest.raises(TypeError, match=r"parent.*capability"):
        cm.spawn(["true"], parent=wrong)


def test_a_forked_child_of_a_spawned_child_has_the_parent_too():
    """The door stays open across fork; the child knocks anew and does not use its parent's channel."""
    program = """
        assert tell("before") == 1
        first = cm.parent()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert cm.parent() is first
                tell("forked")
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
        assert tell("after") == 3
    """
    with child_program.registry() as (target, capability):
        child_program.ran(child_program.python(program), capability)
        assert target.told == ["before", "forked", "after"]


def test_a_child_whose_parent_has_gone_is_told():
    """It holds the door, but nobody is behind it: Disconnected at the call, and the call did not run."""
    program = """
        print("ready", flush=True)
        sys.stdin.read()
        try:
            tell("x")
        except cm.Disconnected as error:
            print(error.ran)
    """
    with child_program.registry() as (_, capability):
        child = cm.spawn(
            child_program.python(program), parent=capability, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout.readline() == b"ready\n"
    try:
        assert child.communicate(timeout=PATIENCE)[0] == b"no\n"
    finally:
        child.kill()
        child.wait(PATIENCE)


def test_a_child_that_dies_takes_nothing_with_it():
    """SIGKILL in the middle of everything: the server goes on."""
    with child_program.registry() as (_, capability):
        child = cm.spawn(
            child_program.python("tell('alive'); print('ready', flush=True); sys.stdin.read()"),
            parent=capability,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with child:
            assert child.stdout.readline() == b"ready\n"
            child.send_signal(signal.SIGKILL)
            assert child.wait(PATIENCE) == -signal.SIGKILL
        with cm.timeout(PATIENCE):
            assert capability.cast(child_program.Registry).tell("still there") == 2


def test_spawn_is_popen():
    """What it gives is the process, to be waited for, with all that Popen can do."""
    with child_program.registry() as (_, capability), cm.spawn(["true"], parent=capability) as child:
        assert type(child) is subprocess.Popen
        assert child.wait(PATIENCE) == 0
        with cm.spawn("exit 3", shell=True, parent=capability) as shell:
            assert shell.wait(PATIENCE) == 3
