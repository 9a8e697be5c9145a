"""``capmarshal demo``, against the machine's own ``sha256sum``."""

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import capmarshal as cm
from capmarshal.demo import broker, holders
from patience import until

# -P: not the checkout, but the installed package.
DEMO = (sys.executable, "-P", "-m", "capmarshal", "demo")
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8"}

# The longest that anything here may take that should be done at once.
SOON = 10.0

ODD_NAMES = [
    b"plain",
    b"two words",
    b" ",
    b"line\nend",
    b"\n",
    b"carriage\rreturn",
    b"back\\slash",
    b"\\n",
    b"all\\of\nthem\r",
    b"tab\tand\x01\x1b[31mred",
    b"not utf-8 \xff\xfe",
    b"\xff\n",
    "schön ☃".encode(),
    b"-dash",
    b"--",
    b"--help",
    b"a:b'c\"d",
    b"*",
]

needs_sha256sum = pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")


def run(*arguments, interpreter=sys.executable, **options):
    command = [interpreter, *DEMO[1:], *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, **{"env": ENVIRONMENT, **options})


def assert_as_sha256sum(*arguments, interpreter=sys.executable, **options):
    """The same output, the same exit status, and the same complaints but for the name of the command."""
    demo = run("--", *arguments, interpreter=interpreter, **options)
    if isinstance(options.get("stdin"), io.BufferedReader):
        options["stdin"].seek(0)
    options = {"env": ENVIRONMENT, **options}
    expected = subprocess.run(["sha256sum", "--", *arguments], capture_output=True, timeout=60, **options)
    assert demo.stdout == expected.stdout
    assert demo.stderr == expected.stderr.replace(b"sha256sum: ", b"capmarshal: ")
    assert demo.returncode == expected.returncode
    return demo


def children_of(pid):
    """IDs of its child processes, the oldest first; zombies too."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may contain anything (proc(5)).
            state, parent, *_ = stat.read_text().rpartition(")")[2].split()
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return sorted(found, key=lambda child: Path(f"/proc/{child}").stat().st_ctime_ns)


def command_of(pid):
    """Its arguments; empty if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    return []


def find_child(pid, module):
    return next((child for child in children_of(pid) if module in command_of(child)), None)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def holds(pid, path):
    """Whether it has the file open."""
    with contextlib.suppress(OSError):
        return any(os.path.realpath(link) == str(path) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


class Running:
    """A demo in the background, in a process group of its own, as a shell would start it."""

    def __init__(self, command):
        # A shell has what it runs in its background ignore Ctrl-C, and that is inherited; a handler is not (execve(2)).
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                process_group=0,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        self.pid = self.process.pid

    @property
    def server(self):
        return until(lambda: find_child(self.pid, b"capmarshal.demo.server"))

    @property
    def client(self):
        return until(lambda: find_child(self.pid, b"capmarshal.demo.client"))

    def ends(self):
        """Exit status, output and complaints."""
        out, err = self.process.communicate(timeout=SOON)
        return self.process.returncode, out, err

    def clear_up(self):
        left = children_of(self.pid)
        self.process.kill()
        self.process.communicate()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start():
    """Starts a demo in the background."""
    started = []

    def start_one(*arguments, command=DEMO):
        started.append(Running([*command, *arguments]))
        return started[-1]

    yield start_one
    for running in started:
        running.clear_up()


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def blocked_server(start, fifo):
    """A demo whose server waits in read(2) for what nobody writes."""
    with cm.Descriptor(os.open(fifo, os.O_RDWR | os.O_CLOEXEC)):
        running = start(fifo)
        until(lambda: holds(running.server, fifo))
        yield running


# What it prints


@needs_sha256sum
@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_name_is_shown_as_sha256sum_shows_it(name, tmp_path):
    (tmp_path / os.fsdecode(name)).write_bytes(b"content of " + name)
    assert_as_sha256sum(b"./" + name, name, cwd=tmp_path)


@needs_sha256sum
def test_many_files_in_the_given_order(tmp_path):
    """Empty, large, given twice; odd names among plain ones."""
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(os.urandom(1 << 16) * 80)
    for name in ODD_NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    assert_as_sha256sum(*ODD_NAMES, "large", "empty", "large", *reversed(ODD_NAMES), cwd=tmp_path)


@needs_sha256sum
def test_what_cannot_be_read_is_reported_and_the_rest_is_still_done(tmp_path):
    (tmp_path / "good").write_bytes(b"good")
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    arguments = ["good", "missing", "directory", "mis sing", "a:b", b"\xff\n", "", "good/", "loop", "/proc/self/mem"]
    assert assert_as_sha256sum(*arguments, "good", cwd=tmp_path).returncode == 1


@needs_sha256sum
def test_a_file_of_proc():
    assert_as_sha256sum("/proc/version", "/proc/cmdline")


@needs_sha256sum
def test_an_unreadable_file_as_an_ordinary_user(tmp_path, ordinary_python):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "open").write_bytes(b"open")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    interpreter, options = ordinary_python
    options = {**options, "env": {**options["env"], "LC_ALL": "C.UTF-8"}, "cwd": tmp_path}
    assert (
        b"secret: Permission denied"
        in assert_as_sha256sum("open", "secret", "open", interpreter=interpreter, **options).stderr
    )


@needs_sha256sum
def test_standard_input(tmp_path):
    """From a file, where it stands; the second time there is nothing left."""
    (tmp_path / "data").write_bytes(b"from standard input")
    with (tmp_path / "data").open("rb") as file:
        assert_as_sha256sum("-", "data", "-", stdin=file, cwd=tmp_path)
    assert_as_sha256sum("-", input=b"from a pipe" * 100_000)


@needs_sha256sum
def test_standard_input_that_is_not_there():
    """Non-blocking with nothing to read, or closed."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with cm.Descriptor(reading) as pipe, cm.Descriptor(writing):
        assert b"unavailable" in assert_as_sha256sum("-", stdin=pipe).stderr
    closed = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *DEMO, "-"], capture_output=True, env=ENVIRONMENT)
    assert (closed.returncode, closed.stderr) == (1, b"capmarshal: -: Bad file descriptor\n")


@needs_sha256sum
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_files_that_are_inherited_descriptors(tmp_path):
    """<(command) and /dev/fd/7, in whichever directory they are; each as often as it is named."""
    (tmp_path / "data").write_bytes(b"by number")

    def printed(*command):
        script = 'exec 7< data; exec "$@" <(echo one; echo two) /dev/fd/7 /proc/self/fd/7 data <(echo three)'
        return subprocess.run(
            ["bash", "-c", script, "bash", *command], capture_output=True, cwd=tmp_path, env=ENVIRONMENT, timeout=60
        )

    expected, demo = printed("sha256sum", "--"), printed(*DEMO, "--")
    assert demo.stdout == expected.stdout
    assert (demo.stderr, demo.returncode) == (b"", 0)


@needs_sha256sum
@pytest.mark.parametrize("nobody", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize("options", [[], ["--verbose"]])
def test_complaints_that_nobody_can_hear_stop_nothing(nobody, options, tmp_path):
    """Standard error is closed, or full: the other files are still read, and the exit status says what it would."""
    (tmp_path / "data").touch()
    names = ["data", "missing", "also missing", "data"]

    def printed(*command):
        script = ["sh", "-c", f'exec "$@" {nobody}', "sh", *command]
        return subprocess.run(script, stdout=subprocess.PIPE, cwd=tmp_path, env=ENVIRONMENT, timeout=60)

    expected, demo = printed("sha256sum", *names), printed(*DEMO, *options, *names)
    assert (demo.returncode, demo.stdout) == (expected.returncode, expected.stdout)
    assert demo.returncode == 1


def test_the_console_script(tmp_path):
    script = Path(sys.executable).with_name("capmarshal")
    if not script.exists():
        pytest.skip("the console script is not installed beside this interpreter")
    (tmp_path / "data").touch()
    assert subprocess.check_output([script, "demo", "data"], cwd=tmp_path) == run("data", cwd=tmp_path).stdout


@pytest.mark.parametrize("arguments", [[], ["demo"], ["demo", "--nonsense", "x"], ["nonsense"]])
def test_a_usage_error_has_exit_status_2(arguments):
    command = [sys.executable, "-P", "-m", "capmarshal", *arguments]
    failed = subprocess.run(command, capture_output=True, timeout=60)
    assert (failed.returncode, failed.stdout) == (2, b"")
    assert failed.stderr.startswith(b"usage: ")


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    (tmp_path / "data").touch()
    reading, writing = os.pipe()
    os.close(reading)
    with cm.Descriptor(writing) as nobody:
        ended = subprocess.run([*DEMO, "data", "data"], stdout=nobody, stderr=subprocess.PIPE, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_a_full_disk_is_reported(tmp_path):
    (tmp_path / "data").touch()
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([*DEMO, "data"], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, b"capmarshal: write error: No space left on device\n")


def test_a_module_beside_the_files_is_not_run(tmp_path):
    """The children look for modules where the package is, not where the files are."""
    (tmp_path / "hashlib.py").write_text("raise SystemExit('run')")
    command = [sys.executable, "-P", *DEMO[1:], "hashlib.py"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


# Who holds what


def test_verbose_shows_one_descriptor_of_each_entrypoint_in_each_process(tmp_path):
    (tmp_path / "data").touch()
    head, *rows = run("--verbose", *["data"] * 20, cwd=tmp_path).stderr.decode().splitlines()
    assert head.split("  ")[-2:] == ["broker entrypoint", "digest entrypoint"]
    assert [row.rsplit(maxsplit=3)[0] for row in rows] == ["broker", "digest server", "client"]
    assert [row.split()[-2:] for row in rows] == [["1", "1"]] * 3
    assert len({row.split()[-3] for row in rows}) == 3


def test_without_verbose_nothing_is_shown(tmp_path):
    (tmp_path / "data").touch()
    assert run("data", cwd=tmp_path).stderr == b""


def test_the_table_counts_what_the_kernel_shows():
    with contextlib.ExitStack() as stack:
        null = stack.enter_context(Path(os.devnull).open("rb"))
        pair = [stack.enter_context(end) for end in socket.socketpair()]
        stack.enter_context(pair[0].dup())
        assert holders.count(os.getpid(), os.fstat(pair[0].fileno()).st_ino) == 2
        assert holders.count(os.getpid(), os.fstat(pair[1].fileno()).st_ino) == 1
        assert holders.count(os.getpid(), os.fstat(null.fileno()).st_ino) == 0


def test_arguments_and_environment_of_the_children_tell_nothing(blocked_server, fifo):
    """No badge and no descriptor number: they are what anybody could have written down beforehand."""
    environment = Path(f"/proc/{blocked_server.pid}/environ").read_bytes()
    expected = {
        blocked_server.server: [*map(os.fsencode, broker.SERVER)],
        blocked_server.client: [*map(os.fsencode, broker.CLIENT), os.fsencode(fifo)],
    }
    assert len(expected) == 2
    for pid, command in expected.items():
        assert command_of(pid) == command
        assert Path(f"/proc/{pid}/environ").read_bytes() == environment


def test_the_server_is_given_nothing_but_its_parent_capability(blocked_server, fifo):
    """Its standard streams are null, but for complaints; it has what it made itself, and the file that was passed."""
    descriptors = Path(f"/proc/{blocked_server.server}/fd")
    assert [str((descriptors / number).readlink()) for number in "01"] == ["/dev/null"] * 2
    kinds = [str(entry.readlink()).partition(":")[0] for entry in descriptors.iterdir() if int(entry.name) > 2]
    # Of its entrypoint: two ends, an epoll set, an eventfd; a channel each way, and the parent's door.  And what tells
    # which mounts there are, and, where the kernel tells who knocks, the pidfd of the one client.
    kinds = sorted(kinds)
    if kinds.count("anon_inode") == 3:
        kinds.remove("anon_inode")
    mounts = f"/proc/{blocked_server.server}/mountinfo"
    assert kinds == sorted([*["socket"] * 5, *["anon_inode"] * 2, mounts, str(fifo)])


# How it ends


@pytest.mark.parametrize("whom", ["the group", "the broker"])
def test_ctrl_c_while_the_server_waits_for_a_fifo(blocked_server, whom):
    pids = [blocked_server.server, blocked_server.client]
    began = time.monotonic()
    (os.killpg if whom == "the group" else os.kill)(blocked_server.pid, signal.SIGINT)
    assert blocked_server.ends() == (130, b"", b"")
    assert time.monotonic() - began < SOON / 2
    assert all(map(gone, pids))


def test_ctrl_c_while_the_client_waits_to_open_a_fifo(start, fifo):
    running = start(fifo)
    pids = [running.server, running.client]
    os.killpg(running.pid, signal.SIGINT)
    assert running.ends() == (130, b"", b"")
    assert all(map(gone, pids))


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.15])
def test_ctrl_c_while_the_children_start(start, fifo, delay):
    """Python answers Ctrl-C with a traceback while it starts: the children do not see it."""
    running = start(fifo)
    first = running.server
    time.sleep(delay)  # waits for nothing: the moment is what is tried
    os.killpg(running.pid, signal.SIGINT)
    assert running.ends() == (130, b"", b"")
    assert gone(first)


def test_a_server_that_ends_before_it_is_ready(capfd):
    assert broker.run(["x"], server=[sys.executable, "-P", "-c", "raise SystemExit(3)"]) == 1
    assert capfd.readouterr() == ("", "capmarshal: the digest server ended before it was ready: exit status 3\n")


def test_a_server_that_is_killed_before_it_is_ready(start):
    """Here it would never be."""
    script = "import sys; from capmarshal.demo import broker; sys.exit(broker.run(['x'], server=['sleep', '1000']))"
    running = start(command=[sys.executable, "-P", "-c", script])
    os.kill(until(lambda: find_child(running.pid, b"sleep")), signal.SIGKILL)
    assert running.ends() == (1, b"", b"capmarshal: the digest server ended before it was ready: signal 9\n")


def test_a_server_that_is_killed_while_it_reads(blocked_server):
    os.kill(blocked_server.server, signal.SIGKILL)
    assert blocked_server.ends() == (1, b"", b"capmarshal: the digest server is gone\n")


def test_a_client_that_is_killed(blocked_server):
    server = blocked_server.server
    os.kill(blocked_server.client, signal.SIGKILL)
    assert blocked_server.ends() == (1, b"", b"capmarshal: the client was ended: signal 9\n")
    assert gone(server)


def test_a_broker_that_is_killed_takes_both_along(blocked_server):
    """Whatever they wait for: nobody tells them but the kernel."""
    pids = [blocked_server.server, blocked_server.client]
    os.kill(blocked_server.pid, signal.SIGKILL)
    until(lambda: all(map(gone, pids)))
