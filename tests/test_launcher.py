"""The launcher: a process that limits itself, and becomes the program that was asked for (`_child/launching`)."""

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys

import pytest

import capmarshal as cm
import child_program
from capmarshal._child import launching
from loops import run
from patience import PATIENCE

LIMIT = 64


@contextlib.contextmanager
def _spawned(command, **options):
    """A limited child."""
    with child_program.registry() as (_, capability):
        options = {"descriptor_limit": LIMIT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        child = cm.spawn(command, parent=capability, **options)
        with child:
            try:
                yield child
            finally:
                child.kill()


def _said(command, **options):
    """What it has printed."""
    with _spawned(command, **options) as child:
        out, errors = child.communicate(timeout=PATIENCE)
        assert (child.returncode, errors) == (0, b"")
        return out.decode()


def test_the_program_is_limited_and_nothing_of_the_launcher_is_left():
    """Neither a descriptor, nor an argument, nor a child: the process has become the program."""
    program = """
        import resource
        print(resource.getrlimit(resource.RLIMIT_NOFILE), len(descriptors()), sys.argv, os.getpid())
    """
    with _spawned(child_program.python(program, "an argument", "")) as child:
        out, _ = child.communicate(timeout=PATIENCE)
        expected = f"({LIMIT}, {LIMIT}) 4 {['-c', 'an argument', '']} {child.pid}\n"
        assert out.decode() == expected
        assert child.args[0] == sys.executable
        assert "launcher" not in " ".join(child.args)


@pytest.mark.parametrize(
    ("arguments", "options", "number", "name"),
    [
        (["/nonexistent/program"], {}, errno.ENOENT, "/nonexistent/program"),
        (["no such program"], {}, errno.ENOENT, "no such program"),
        (["true"], {"executable": "/nonexistent/program"}, errno.ENOENT, "/nonexistent/program"),
        ([os.devnull], {}, errno.EACCES, os.devnull),
        ("true and an argument", {}, errno.ENOENT, "true and an argument"),
    ],
)
def test_a_program_that_cannot_be_run_is_told_as_by_popen(arguments, options, number, name, monkeypatch):
    """The error is the same, and nothing is left: both descriptors and children are counted."""
    # A directory in it that this user may not enter makes it another error.
    monkeypatch.setenv("PATH", os.defpath)
    with child_program.registry() as (_, capability):
        for limit in (None, LIMIT):
            with pytest.raises((FileNotFoundError, PermissionError)) as raised:
                cm.spawn(arguments, parent=capability, descriptor_limit=limit, stdout=subprocess.PIPE, **options)
            assert (raised.value.errno, raised.value.filename) == (number, name)


def test_a_shell_another_executable_and_a_string_are_what_they_are_to_popen():
    """And PATH is looked through as by Popen: that of the program's own environment."""
    assert _said("echo $0 $(ulimit -n)", shell=True) == f"/bin/sh {LIMIT}\n"
    assert _said(["another name", "-c", "echo $0"], executable="/bin/sh") == "another name\n"
    assert _said("true", env={"PATH": "/bin:/usr/bin"}) == ""
    with pytest.raises(FileNotFoundError):
        _said("true", env={"PATH": "/nonexistent"})


def test_arguments_need_be_no_text():
    """As of Popen."""
    with _spawned([b"printf", b"%s", b"\xff\xfe"]) as child:
        assert child.communicate(timeout=PATIENCE)[0] == b"\xff\xfe"


@pytest.mark.parametrize("restored", [True, False])
def test_signals_are_as_popen_leaves_them(restored, fork):
    """Python ignores two of them when it starts; that is not handed down, unless it was asked for."""
    program = ["grep", "SigIgn", "/proc/self/status"]

    def ignored():
        # Not what this test run was started with.
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        return [_said(program, descriptor_limit=limit, restore_signals=restored) for limit in (None, LIMIT)]

    plain, limited = fork(ignored).result()
    assert plain == limited
    assert (int(plain.split()[1], 16) >> (signal.SIGPIPE - 1)) & 1 == (not restored)


def test_the_environment_is_the_one_that_was_asked_for(monkeypatch):
    """Also where Python sets LC_CTYPE for itself, and the launcher is started with what this one needs."""
    monkeypatch.setenv("LD_LIBRARY_PATH", os.environ.get("LD_LIBRARY_PATH", "/nonexistent"))
    for environment in (
        {"ONE": "1"},
        {"LC_ALL": "C"},
        {"LC_CTYPE": "C"},
        {b"LC_CTYPE": b"POSIX"},
        {b"LD_LIBRARY_PATH": b"/"},
    ):
        shown = _said(["/usr/bin/env"], env=environment).splitlines()
        shown = [line for line in shown if not line.startswith("CAPMARSHAL_PARENT=")]
        assert shown == [f"{os.fsdecode(name)}={os.fsdecode(value)}" for name, value in environment.items()]


def test_nothing_of_ours_runs_between_fork_and_exec(monkeypatch):
    """Where another thread may have left a lock taken: Popen is given nothing to be run there."""
    given = []
    real = subprocess.Popen

    def popen(*arguments, **options):
        given.append(options)
        return real(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    with child_program.registry() as (_, capability):
        assert cm.spawn(["true"], parent=capability, descriptor_limit=LIMIT).wait(PATIENCE) == 0
    assert [options.get("preexec_fn") for options in given] == [None]


def test_what_the_caller_has_run_there_runs():
    """It is his."""
    assert _said(["sh", "-c", "umask"], preexec_fn=lambda: os.umask(0o123)) == "0123\n"


def test_a_limit_that_is_too_small_is_no_hang():
    """16 descriptors are enough for the launcher and for Python."""
    assert _said(child_program.python("print(tell('x'))"), descriptor_limit=16) == "1\n"


@pytest.mark.parametrize("script", ["import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit(3)"])
@pytest.mark.parametrize("loop", [None, "asyncio", "uvloop", "trio"])
def test_a_launcher_that_ends_is_an_error(script, loop, monkeypatch, tmp_path):
    """As where its interpreter cannot start: nobody waits for ever, and nothing is left."""
    broken = tmp_path / "launcher.py"
    broken.write_text(script)
    monkeypatch.setattr(launching.launcher, "__file__", str(broken))
    with child_program.registry() as (_, capability):
        options = {"parent": capability, "descriptor_limit": LIMIT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        start = cm.spawn if loop is None else lambda *a, **o: run(loop, lambda: _aio_spawn(*a, **o))
        with pytest.raises(cm.KernelError, match=r"the launcher ended before the program began: .*launcher\.py"):
            start(["true"], **options)


async def _aio_spawn(*arguments, **options):
    """aio.spawn(), imported when it is used."""
    from capmarshal import aio

    return await aio.spawn(*arguments, **options)


def test_a_launcher_that_stands_still_is_ended_with_the_task_that_waits_for_it(monkeypatch, tmp_path):
    """Cancelled, it starts nothing; nor does it hold up the event loop meanwhile."""
    import anyio

    slow = tmp_path / "launcher.py"
    slow.write_text("import sys; sys.stdin.read()")
    monkeypatch.setattr(launching.launcher, "__file__", str(slow))

    async def cancelled(capability, reader):
        async with anyio.create_task_group() as group:
            group.start_soon(
                lambda: _aio_spawn(["true"], parent=capability, descriptor_limit=LIMIT, stdin=reader.fileno())
            )
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    with child_program.registry() as (_, capability):
        read_end, write_end = os.pipe()
        with open(read_end, "rb") as reader, open(write_end, "wb"):
            run("asyncio", cancelled, capability, reader)


def test_ctrl_c_ends_the_wait_for_a_launcher_and_the_launcher(monkeypatch, tmp_path):
    """Nothing is left of it: children are counted, too."""
    slow = tmp_path / "launcher.py"
    slow.write_text("import os, signal\nos.kill(os.getppid(), signal.SIGUSR1)\nsignal.pause()")
    monkeypatch.setattr(launching.launcher, "__file__", str(slow))

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with child_program.registry() as (_, capability):
            with pytest.raises(KeyboardInterrupt):
                cm.spawn(["true"], parent=capability, descriptor_limit=LIMIT, stdin=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_without_an_interpreter_there_is_no_launcher(monkeypatch):
    """A frozen program, or one that has Python within it."""
    with child_program.registry() as (_, capability):
        monkeypatch.setattr(sys, "executable", "")
        with pytest.raises(cm.KernelError, match=r"sys\.executable"):
            cm.spawn(["true"], parent=capability, descriptor_limit=LIMIT)
        assert cm.spawn(["true"], parent=capability).wait(PATIENCE) == 0


def test_no_interpreter_is_looked_for_where_the_child_is_started(monkeypatch, tmp_path):
    """What stands there may be anybody's, and runs unconfined."""
    (tmp_path / "python").symlink_to("/bin/true")
    with child_program.registry() as (_, capability):
        monkeypatch.setattr(sys, "executable", "./python")
        with pytest.raises(cm.KernelError, match=r"sys\.executable is no absolute path, but './python'"):
            cm.spawn([tmp_path / "plugin.py"], parent=capability, confine=cm.Confinement(), cwd=tmp_path)


def test_the_parents_limit_stays_what_it_is():
    """Only the child's is lower."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    _said(["true"])
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


@pytest.mark.parametrize("loop", [None, "asyncio", "trio"])
def test_a_launcher_that_stands_still_is_ended_when_time_is_up(loop, monkeypatch, tmp_path):
    """As where what it looks up is on a file system whose server does not answer: the block's deadline is spawn()'s."""
    slow = tmp_path / "launcher.py"
    slow.write_text("import signal\nsignal.pause()")
    monkeypatch.setattr(launching.launcher, "__file__", str(slow))
    with child_program.registry() as (_, capability):
        options = {"parent": capability, "descriptor_limit": LIMIT, "stdout": subprocess.PIPE}
        start = cm.spawn if loop is None else lambda *a, **o: run(loop, lambda: _aio_spawn(*a, **o))
        with cm.timeout(0.2), pytest.raises(cm.CallTimeout, match=r"no program was running before .*0\.2"):
            start(["true"], **options)
