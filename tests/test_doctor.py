"""``capmarshal doctor``: each probe seen both ways, by what the kernel really refuses; and what is printed."""

from __future__ import annotations

import codecs
import errno
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

import capmarshal as cm
import full_table
from capmarshal import testing
from capmarshal._child import seccomp
from capmarshal._doctor import examination, showing, trying
from capmarshal._doctor.finding import Finding, Level, worst
from capmarshal._doctor.probe import Lacking, Probe
from confined import not_sanitized
from patience import PATIENCE
from raw_calls import raw
from refusing import DENIED_BY_AGENTS, kill, refuse, refuse_argument, refuse_socket_option

COMMAND = [sys.executable, "-P", "-m", "capmarshal", "doctor"]
PROBES = {probe.name: probe for probe in examination.probes()}

# include/uapi/asm-generic/socket.h, linux/fcntl.h, linux/personality.h.
SO_DOMAIN, SO_COOKIE, SO_PASSPIDFD, SO_PASSRIGHTS = 39, 57, 76, 83
F_DUPFD_QUERY, UNAME26 = 1027, 0x0020000


def looked(name):
    return trying.attempt(PROBES[name])


# What is done to a process before it looks; what it then finds, and part of the words.
REFUSALS = {
    "kernel": (lambda: raw("personality", UNAME26), Level.LESS, "Linux 2.6"),
    "around it": (lambda: refuse(["ptrace"]), Level.OK, "seccomp"),
    "sockets": (lambda: refuse(["socketpair"]), Level.MISSING, "(EPERM)"),
    "passing descriptors": (lambda: refuse(["recvmsg"]), Level.MISSING, "(EPERM)"),
    "epoll": (lambda: refuse(["eventfd2"], errno.ENOSYS), Level.MISSING, "(ENOSYS)"),
    "a call": (lambda: refuse(["epoll_create1"]), Level.MISSING, "refuses epoll_create1(2)"),
    "memfds": (lambda: refuse(["memfd_create"]), Level.LESS, "refuses memfd_create(2)"),
    "waking asyncio": (lambda: refuse(["sendto"]), Level.LESS, "(EPERM)"),
    "SO_COOKIE": (lambda: refuse_socket_option(SO_COOKIE, errno.EPERM), Level.LESS, "(EPERM)"),
    "SO_DOMAIN, SO_TYPE": (lambda: refuse_socket_option(SO_DOMAIN, errno.EACCES), Level.LESS, "(EACCES)"),
    "names of doors": (lambda: refuse(["bind"]), Level.LESS, "(EPERM)"),
    "who knocks": (
        lambda: refuse_socket_option(socket.SO_PASSCRED, errno.EPERM, "setsockopt"),
        Level.LESS,
        "(EPERM)",
    ),
    "pidfds of who knocks": (
        lambda: refuse_socket_option(SO_PASSPIDFD, errno.ENOPROTOOPT, "setsockopt"),
        Level.LESS,
        "(ENOPROTOOPT)",
    ),
    "pidfds": (lambda: refuse(["pidfd_open"], errno.ENOSYS), Level.LESS, "(ENOSYS)"),
    "SO_PASSRIGHTS": (
        lambda: refuse_socket_option(SO_PASSRIGHTS, errno.ENOPROTOOPT, "setsockopt"),
        Level.NOTE,
        "(ENOPROTOOPT)",
    ),
    "closing in one step": (lambda: refuse(["close_range"], errno.ENOSYS), Level.LESS, "(ENOSYS)"),
    "mount of a file": (lambda: refuse(["statx"]), Level.LESS, "(EPERM)"),
    "listening and connecting": (lambda: refuse(["connect"]), Level.LESS, "(EPERM)"),
    "Landlock": (lambda: refuse(["landlock_create_ruleset"], errno.ENOSYS), Level.LESS, "none"),
    "Landlock's scopes": (lambda: refuse(["landlock_create_ruleset"], errno.ENOSYS), Level.LESS, "none"),
    "libseccomp": (lambda: setattr(seccomp, "LIBRARY", "libnothing.so.9"), Level.LESS, "libnothing.so.9"),
    "seccomp": (lambda: refuse(["seccomp"]), Level.LESS, "a filter that is there refuses more"),
    "memory": (
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY)),
        Level.LESS,
        "RLIMIT_FSIZE 1,048,576",
    ),
    # Here it is well where it is refused.
    "userfaultfd": (lambda: refuse(["userfaultfd"]), Level.OK, "refused: Operation not permitted (EPERM)"),
    "io_uring": (lambda: refuse(["io_uring_setup"], errno.ENOSYS), Level.OK, "refused: "),
    "taking descriptors": (lambda: refuse(["pidfd_getfd"]), Level.OK, "refused: Operation not permitted (EPERM)"),
}
# And by the tests further down; what there is always is not lacking.
ELSEWHERE = {
    "user",
    "parent capability",
    "Python",
    "wheel",
    "what it requires",
    "event loops",
    "capmarshal[async]",
    "threads",
    "comparing descriptors",
    "list of mounts",
    "own descriptors in /proc",
    "others' processes in /proc",
    "threads, counted apart",
    "descriptors",
    "processes",
    "cgroup",
}


def test_each_probe_is_seen_otherwise():
    """A new one needs a refusal here."""
    named = {name for name in PROBES if not name.startswith("capmarshal[")} | {"capmarshal[async]"}
    assert named == {*REFUSALS} | ELSEWHERE


@not_sanitized
@pytest.mark.parametrize("name", PROBES)
def test_here_it_is_found_or_told_why_not(name, fork):
    """On a machine that has all, all are found; what another lacks, it says in words."""
    found = fork(lambda: looked(name)).result()
    assert (found.group, found.name) == (PROBES[name].group, name)
    assert found.found
    if found.level in (Level.LESS, Level.MISSING):
        pytest.skip(f"this machine lacks it: {found.found}")
    assert found.level in (Level.OK, Level.NOTE)


@pytest.mark.parametrize(
    "name",
    # AddressSanitizer may have a forked child wait for ever that loads a library.
    [pytest.param(name, marks=[not_sanitized] if name == "libseccomp" else []) for name in REFUSALS],
)
def test_what_is_refused_is_told(name, fork):
    """With what it costs, and what mends it; and nothing stays open or changed where it is tried."""
    change, level, words = REFUSALS[name]

    def in_child():
        change()
        before = testing.open_descriptors().keys()
        made = looked(name)
        assert testing.open_descriptors().keys() == before
        return made

    found = fork(in_child).result()
    assert (found.level, words in found.found) == (level, True), found
    if level is not Level.OK:
        assert found.costs


@pytest.mark.parametrize("name", REFUSALS)
def test_a_full_table_is_told_as_such(name, fork):
    """Not as if the kernel lacked anything; and what no call can do without is missing."""

    def in_child():
        with_room = looked(name)
        full_table.fill(0)
        return with_room, looked(name)

    with_room, found = fork(in_child, table=256).result()
    if found.level is Level.MISSING:
        assert "EMFILE" in found.found or "descriptor table full" in found.found
    elif found.level is Level.UNTRIED:
        assert found.found.startswith("the descriptor table is full")
        assert not found.costs
    else:
        assert found.level in (Level.OK, Level.NOTE, with_room.level)


def test_a_filter_that_kills_is_told(fork):
    """The process that tries it dies, and the doctor does not."""

    def in_child():
        kill(["socketpair"])
        return looked("sockets"), looked("epoll").level

    found, after = fork(in_child).result()
    assert (found.level, found.found) == (Level.MISSING, "whoever asks is killed: a filter does that")
    assert "have the filter allow socketpair, sendmsg, recvmsg" in found.mend
    assert after is Level.OK


def test_what_does_not_come_back_is_told(fork, monkeypatch):
    monkeypatch.setattr(trying, "PATIENCE", 1)
    probe = Probe("group", "name", lambda: str(signal.pause()), Level.LESS, "costs", "mend")
    found = fork(lambda: trying.attempt(probe)).result()
    assert found == Finding("group", "name", Level.LESS, "it does not come back in time", "costs", "mend")


@pytest.mark.parametrize(
    ("raises", "found"),
    [
        (Lacking("words"), Finding("group", "name", Level.LESS, "words", "costs", "mend")),
        (Lacking("w", level=Level.NOTE, costs="", mend=""), Finding("group", "name", Level.NOTE, "w", "", "")),
        (OSError(errno.EIO, "x"), Finding("group", "name", Level.LESS, "Input/output error (EIO)", "costs", "mend")),
        (OSError("only words"), Finding("group", "name", Level.LESS, "only words", "costs", "mend")),
        (cm.CallTimeout("late"), Finding("group", "name", Level.LESS, "late", "costs", "mend")),
        (ValueError("bad"), Finding("group", "name", Level.LESS, "ValueError: bad", "costs", "mend")),
        (
            OSError(errno.EMFILE, "x"),
            Finding(
                "group",
                "name",
                Level.UNTRIED,
                "the descriptor table is full: Too many open files (EMFILE)",
                "",
                "close what is open, or `ulimit -n 4096`",
            ),
        ),
    ],
)
def test_whatever_a_probe_raises_is_what_was_found(raises, found):
    def look():
        raise raises

    assert trying.look(Probe("group", "name", look, Level.LESS, "costs", "mend")) == found


def test_an_older_kernel_is_named(fork):
    """Where it is not a filter's doing: a filter that says ENOSYS is asked to allow it."""

    def in_child():
        refuse(["pidfd_open"], errno.ENOSYS)
        refuse_socket_option(SO_PASSPIDFD, errno.ENOPROTOOPT, "setsockopt")
        return looked("pidfds").mend, looked("pidfds of who knocks").mend

    by_filter, by_age = fork(in_child).result()
    assert by_filter.startswith("have the filter allow pidfd_open")
    assert by_age == "Linux 6.9 or later"


def test_descriptors_are_compared_by_either_way(fork):
    """F_DUPFD_QUERY, else kcmp(2); neither costs something."""

    def in_child():
        refuse_argument("fcntl", 1, F_DUPFD_QUERY, errno.EINVAL)
        one = looked("comparing descriptors")
        refuse(["kcmp"])
        return one, looked("comparing descriptors")

    one, none = fork(in_child).result()
    assert (one.level, one.found[:7]) == (Level.OK, "kcmp(2)")
    assert (none.level, none.found) == (Level.LESS, "neither F_DUPFD_QUERY nor kcmp(2): EPERM")


def _limited():
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    return {name: looked(name) for name in ("threads", "processes", "Landlock", "sockets", "threads, counted apart")}


def test_without_another_process_or_thread(fork):
    """An ordinary user who may have no more of them: all that leaves no trace is tried all the same."""
    found = fork(_limited, ordinary=True).result()
    assert (found["threads"].level, found["threads"].found) == (Level.MISSING, "can't start new thread")
    assert (found["processes"].level, found["processes"].found[:14]) == (Level.LESS, "1 of this user")
    assert found["sockets"].level is Level.OK
    assert found["Landlock"].level is Level.UNTRIED


def test_namespaces_that_are_refused(fork):
    """Confinement(threads=) needs one; root's threads are not counted at all."""

    # Python's own folder may be closed to that user.
    codecs.lookup("ascii")

    def in_child():
        refuse(["unshare"])
        return looked("threads, counted apart"), os.geteuid()

    found, user = fork(in_child, ordinary=True).result()
    assert user
    assert (found.level, found.mend != "") == (Level.LESS, True)
    assert "cm.Confinement needs it" in found.costs


def test_who_asks(fork):
    """An ordinary user is told nothing more; root, that it is no ordinary one."""
    assert fork(lambda: looked("user"), ordinary=True).result().level is Level.OK
    if os.geteuid() == 0:
        assert fork(lambda: looked("user")).result().level is Level.NOTE


@pytest.mark.parametrize(
    ("room", "level"), [(0, Level.MISSING), (1, Level.MISSING), (5, Level.LESS), (100, Level.LESS)]
)
def test_a_small_table(room, level, fork):
    """Told how much of it is free, and what fewer channels there are."""

    def in_child():
        full_table.fill(room)
        return looked("descriptors")

    found = fork(in_child, table=256).result()
    assert found.level is level
    assert f"{'enough' if room == 100 else room} are free" in found.found
    if level is Level.LESS:
        assert "192 channels" in found.costs


def _skip_unless(shell):
    """Where namespaces can't be made, or unshare(1) is not installed."""
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    tried = subprocess.run([*shell, "true"], capture_output=True, text=True, timeout=PATIENCE)
    if tried.returncode:
        pytest.skip(f"nobody mounts /proc here: {tried.stderr.strip()}")


def _in_namespace(mount):
    """What the doctor finds where that has been done to /proc; skips where nobody may."""
    shell = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    _skip_unless(shell)
    return _json(shell)


def _json(before=(), **options):
    done = subprocess.run([*before, *COMMAND, "--json"], capture_output=True, timeout=PATIENCE, **options)
    assert not done.stderr
    told = json.loads(done.stdout)
    assert done.returncode == (told["level"] == "missing")
    return {each["name"]: each for each in told["findings"]}


@pytest.fixture(scope="module")
def without_proc():
    return _in_namespace("mount -t tmpfs none /proc")


@pytest.mark.parametrize("name", ["list of mounts", "own descriptors in /proc", "others' processes in /proc", "cgroup"])
def test_without_proc(name, without_proc):
    """Each says what it is for, and that it is to be mounted."""
    assert without_proc[name]["level"] in ("less", "note")
    assert "mount /proc" in without_proc[name]["mend"]


def test_without_proc_all_else_is_as_before(without_proc):
    assert without_proc["a call"]["level"] == "ok"


def test_hidden_processes(fork, tmp_path):
    """Of other users; by the option of the mount, which is named."""
    if os.geteuid():
        pytest.skip("only root hides them")
    script = "import sys; from capmarshal._doctor import closing; sys.exit(closing.others())"
    hide = "mount -t proc -o hidepid=2 proc /proc"
    shell = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", f'{hide} && exec "$@"', "sh"]
    _skip_unless(shell)
    shown = subprocess.run(
        [*shell, sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=PATIENCE
    )
    assert shown.stderr == "shown (hidepid=invisible)\n"


class Nothing(cm.Interface):
    @cm.method
    def nothing(self) -> None: ...


class NothingServer(Nothing):
    def nothing(self) -> None:
        pass


def test_a_parent_capability_is_seen(fork):
    """In the process that has one."""
    with cm.Entrypoint("hub") as entrypoint:
        capability = entrypoint.manage(NothingServer())
        child = cm.spawn([*COMMAND, "--json"], parent=capability, stdout=subprocess.PIPE)
        out, _ = child.communicate(timeout=PATIENCE)
    found = {each["name"]: each for each in json.loads(out)["findings"]}["parent capability"]
    assert (found["level"], found["found"]) == ("ok", "of the entrypoint 'hub'")
    assert fork(lambda: looked("parent capability")).result().level is Level.NOTE


# How it is installed: by a dist-info that comes first.

METADATA = """\
Metadata-Version: 2.4
Name: capmarshal
Version: 9.8
Provides-Extra: async
Provides-Extra: test
Requires-Dist: {package}
Requires-Dist: {extra}; extra == "async"
"""


def _installed(fork, folder, names, *, package="cffi>=1.0", extra="anyio>=4.0", tag="cp311-abi3-linux_x86_64"):
    info = folder / "capmarshal-9.8.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(package=package, extra=extra))
    (info / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag}\n")

    def in_child():
        sys.path.insert(0, str(folder))
        made = {probe.name: probe for probe in examination.probes()}
        return [trying.attempt(made[name]) for name in names]

    return fork(in_child).result()


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("cp311-abi3-manylinux_2_28_x86_64", "a wheel for glibc"),
        ("cp311-abi3-musllinux_1_2_aarch64", "a wheel for musl"),
        ("cp311-abi3-linux_x86_64", "built from source"),
    ],
)
def test_which_wheel_it_is(tag, words, fork, tmp_path):
    (found,) = _installed(fork, tmp_path, ["wheel"], tag=tag)
    assert found.level is Level.OK
    assert found.found.startswith(f"capmarshal 9.8, {tag}: {words}")


@pytest.mark.parametrize(
    ("requirement", "words"),
    [("cffi>=99.1", " is older than 99.1"), ("no-such-package>=1", "no-such-package is not installed")],
)
def test_what_is_required_and_not_there(requirement, words, fork, tmp_path):
    """Of the package itself it is missing; of an extra, it is the extra that is not there."""
    names = ["what it requires", "capmarshal[async]"]
    package, extra = _installed(fork, tmp_path, names, package=requirement, extra=requirement)
    assert (package.level, words in package.found) == (Level.MISSING, True)
    assert (extra.level, words in extra.found) == (Level.NOTE, True)
    # What is on the index; the package itself need not be.
    assert extra.mend == package.mend == f"`pip install '{requirement}'`"


def test_nobody_knows_how_it_was_installed(fork):
    """As where its folder was copied."""

    def in_child():
        sys.path[:] = [path for path in sys.path if not list(Path(path or ".").glob("capmarshal-*.dist-info"))]
        return [looked("wheel"), looked("what it requires")]

    for found in fork(in_child).result():
        assert (found.level, found.found[:11]) == (Level.UNTRIED, "nobody know")


@pytest.mark.parametrize(
    ("variable", "value", "level", "words"),
    [
        ("Py_GIL_DISABLED", 1, Level.MISSING, "free-threaded"),
        ("Py_DEBUG", 1, Level.LESS, "a debug build"),
        ("CONFIG_ARGS", "'--with-lto'", Level.NOTE, "without --enable-optimizations"),
        ("CONFIG_ARGS", "'--enable-optimizations'", Level.OK, ""),
        # Where nobody says how it was configured, nothing is said of it.
        ("CONFIG_ARGS", None, Level.OK, ""),
    ],
)
def test_how_python_was_built(variable, value, level, words, fork):
    def in_child():
        sysconfig.get_config_vars().update({"Py_GIL_DISABLED": 0, "Py_DEBUG": 0, variable: value})
        return looked("Python")

    found = fork(in_child).result()
    assert (found.level, words in found.found) == (level, True)


# The command.


def test_extras_for_people_are_told_of():
    """Not those that whoever works on the package installs."""
    extras = {name for name in PROBES if name.startswith("capmarshal[")}
    assert extras == {"capmarshal[async]", "capmarshal[bridge]", "capmarshal[inspect]"}


def test_json_has_all_of_it():
    """In the order of the probes, for programs."""
    found = _json()
    assert [*found] == [*PROBES]
    for each in found.values():
        assert [*each] == ["group", "name", "level", "found", "costs", "mend"]
        assert each["level"] in {level.value for level in Level}


def test_plain_lines_where_it_is_piped():
    """One for each; the last says whether it runs."""
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stderr, done.returncode) == ("", 0)
    lines = done.stdout.splitlines()
    levels = "|".join(level.value for level in Level)
    assert len([line for line in lines if re.match(rf"({levels}) +\S", line)]) == len(PROBES)
    assert lines[-1].startswith("It runs here")


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_inside_a_sandbox_for_agents(error, fork):
    """It runs there, with less, and says what the filter has to allow for more."""

    def in_child():
        refuse(DENIED_BY_AGENTS, error)
        return [*examination.examined()]

    found = {each.name: each for each in fork(in_child).result()}
    assert worst([*found.values()]) is not Level.MISSING
    less = {name for name, each in found.items() if each.level is Level.LESS}
    assert {"SO_COOKIE", "names of doors", "who knocks", "waking asyncio", "listening and connecting"} <= less
    assert "have the filter allow getsockopt" in found["SO_COOKIE"].mend


def test_the_status_is_1_where_something_needed_is_missing():
    """And the last line names it."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent / 'support')!r}); import refusing; "
        "refusing.refuse(['socketpair']); from capmarshal.__main__ import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stderr, done.returncode) == ("", 1)
    assert done.stdout.splitlines()[-1] == "It does not run here: sockets, passing descriptors, a call."


def test_the_page_shows_what_is_printed():
    """docs/debugging.md: what it says is printed where a filter refuses getsockopt(2)."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent / 'support')!r}); import refusing; "
        "refusing.refuse(['getsockopt']); from capmarshal.__main__ import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    page = (Path(__file__).parents[1] / "docs" / "debugging.md").read_text(encoding="utf-8")
    section = page.partition("## Does it run here?")[2].partition("\n## ")[0]
    (shown,) = re.findall(r"^```text\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    printed = done.stdout.splitlines()
    assert [line for line in shown.splitlines() if line not in printed and "F_DUPFD_QUERY" not in line] == []
    assert {*re.findall(r"^\| `(\w+)`", section, re.MULTILINE)} == {level.value for level in Level}


def test_as_nobody(ordinary_python):
    """User 65534, with 20 descriptors."""
    python, options = ordinary_python

    command = ["sh", "-c", 'ulimit -n 20 && exec "$@"', "sh", python, "-P", "-m", "capmarshal", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, cwd="/", **options)
    assert (done.stderr, done.returncode) == (b"", 0)
    found = {each["name"]: each for each in json.loads(done.stdout)["findings"]}
    assert (found["descriptors"]["level"], found["descriptors"]["found"][:3]) == ("less", "20,")
    assert found["a call"]["level"] == "ok"


def _at_a_terminal(script):
    """What a terminal of 160 columns is shown."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm-256color"}
    child = subprocess.Popen([sys.executable, "-P", "-c", script], stdout=theirs, env=environment)
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + PATIENCE
    try:
        while select.select([ours], [], [], max(deadline - time.monotonic(), 0))[0]:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # EIO: nobody has the other end
                break
            shown += piece
    finally:
        os.close(ours)
        child.kill()
        child.wait(PATIENCE)
    return shown.decode()


RUN = "import sys; from capmarshal.__main__ import main; sys.exit(main(['doctor']))"


def test_a_terminal_is_shown_a_table():
    """By rich, in colours."""
    pytest.importorskip("rich")
    shown = _at_a_terminal(RUN)
    assert "\x1b[" in shown
    assert "calls" in shown
    assert re.search(r"sockets +SEQPACKET", re.sub(r"\x1b\[[0-9;]*m", "", shown))
    assert "It runs here" in shown


def test_without_rich_a_terminal_is_shown_lines():
    shown = _at_a_terminal(f"import sys; sys.modules['rich'] = None; {RUN}")
    assert "\x1b[" not in shown
    assert re.search(r"^ok +sockets: SEQPACKET\r$", shown, re.MULTILINE)


def test_a_reader_that_leaves_is_no_error():
    """As head(1) does: no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as out:
        done = subprocess.run(COMMAND, stdout=out, stderr=subprocess.PIPE, timeout=PATIENCE)
    assert (done.stderr, done.returncode) == (b"", 0)


def test_where_children_are_not_waited_for():
    """SIGCHLD may be ignored by whoever starts it, and that is inherited."""
    script = f"import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); {RUN}"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([Level.OK, Level.NOTE], "It runs here."),
        ([Level.LESS], "It runs here; with less for 1 reason."),
        ([Level.LESS, Level.LESS, Level.UNTRIED], "It runs here; with less for 2 reasons. Not tried: 2."),
        ([Level.MISSING, Level.LESS, Level.MISSING], "It does not run here: 0, 2."),
    ],
)
def test_the_last_line(levels, words):
    findings = [Finding("group", str(number), level, "found") for number, level in enumerate(levels)]
    assert showing.summary(findings) == words
    assert worst(findings) is max(levels, key=[*Level].index)
