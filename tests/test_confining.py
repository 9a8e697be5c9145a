"""What confining needs, what is missing, and what is then said (`_child/confining`, `_child/privileges`)."""

import ast
import codecs
import errno
import os
import queue
import resource
import subprocess
import sys
import threading
import types

import pytest

import capmarshal as cm
import child_program
from capmarshal._child import confining, landlock, own_count, privileges, seccomp
from capmarshal._child.confinement import data_of
from capmarshal._kernel.native import lib
from confined import PROLOGUE, in_host, not_sanitized, skip_without
from patience import PATIENCE
from refusing import DENIED_BY_AGENTS, refuse

pytestmark = not_sanitized


def _plan(**options):
    return data_of(cm.Confinement(**options))


def _refused(**options):
    """What is said where this process is to be confined, and is not."""
    with pytest.raises(cm.NotConfined) as raised:
        confining.confine_by(_plan(**options), [], [])
    return raised.value


def _runs(*command):
    """Whether it does, and ends well: the tool may be missing, as what it asks of the kernel."""
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def test_other_threads_are_in_the_way():
    """They would go on unbound; nothing is changed, and which there are is not Python's to say."""
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    try:
        error = _refused()
    finally:
        end.set()
        other.join()
    assert error.errno == errno.EBUSY
    assert "other threads" in str(error)
    assert error.missing == ()


def _thread(end):
    other = threading.Thread(target=end.wait, daemon=True)
    other.start()


def test_a_thread_that_begins_meanwhile_is_found(fork, monkeypatch):
    """By a signal handler, or a finalizer: Landlock binds the thread that asks for it alone."""
    give_up = privileges.give_up

    def begins():
        end = threading.Event()
        monkeypatch.setattr(privileges, "give_up", lambda: (_thread(end), give_up()))
        with pytest.raises(cm.KernelError, match=r"a thread has begun while .* the process should end") as raised:
            confining.confine_by(_plan(), [], [])
        end.set()
        return type(raised.value).__name__

    assert fork(begins).result() == "KernelError"


def test_one_that_begins_at_the_last_moment_is_bound(fork, monkeypatch):
    """By Landlock from its start on, as all that a thread starts which is bound; and by the filter, as all threads."""
    install = seccomp.install

    def begins():
        ask, answers = queue.SimpleQueue(), queue.SimpleQueue()

        def answer():
            while action := ask.get():
                try:
                    answers.put(action())
                except OSError as error:
                    answers.put(error.errno)

        def start_and_install(program):
            threading.Thread(target=answer, daemon=True).start()
            install(program)

        monkeypatch.setattr(seccomp, "install", start_and_install)
        confining.confine_by(_plan(), [], [])
        for action in (lambda: open("/etc/passwd"), lambda: os.kill(os.getppid(), 0), None):
            ask.put(action)
        return answers.get(timeout=PATIENCE), answers.get(timeout=PATIENCE)

    assert fork(begins).result() == (errno.EACCES, errno.EPERM)


@pytest.mark.parametrize("way", ["stat", "unshare"])
def test_threads_are_counted_where_they_are_not_listed(fork, monkeypatch, way):
    """Landlock lets /proc be asked how many there are; without that, unshare(2) tells, which does nothing here."""

    def counted():
        if lib.lx_unshare(0) != 0:
            return None
        monkeypatch.setattr(privileges.os, "listdir", lambda path: open("/nonexistent"))
        if way == "unshare":
            monkeypatch.setattr(privileges.os, "stat", lambda path: open("/nonexistent"))
        else:
            monkeypatch.setattr(privileges, "lib", types.SimpleNamespace(lx_unshare=lambda flags: -errno.EPERM))
        alone = privileges.threads()
        end = threading.Event()
        other = threading.Thread(target=end.wait)
        other.start()
        beside = privileges.threads()
        end.set()
        other.join()
        return alone, beside

    numbers = fork(counted).result()
    if numbers is None:
        pytest.skip("a filter that is there refuses unshare(2)")
    assert numbers == (1, 2)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM], ids=errno.errorcode.get)
def test_a_kernel_without_landlock_is_told(fork, number):
    """One that is older, one where it is switched off, or a filter; else, if that was said, all else is put on."""
    skip_without("seccomp")

    def without():
        refuse(["landlock_create_ruleset"], number)
        error = _refused()
        confining.confine_by(_plan(missing=["landlock"]), [], [])
        with pytest.raises(PermissionError):
            open("/dev/null", "w")
        with open("/etc/passwd") as file:
            read = file.readline()
        return str(error), error.missing, read != ""

    words, missing, read = fork(without).result()
    assert missing == ("landlock",)
    assert "Linux 5.13" in words
    assert "its files are those that its user may open" in words
    assert "missing=['landlock'] does without" in words
    assert read


def test_a_landlock_without_scopes_is_told(fork, monkeypatch):
    """As that of Linux 6.7."""
    skip_without("landlock", "seccomp")

    def without():
        monkeypatch.setattr(landlock, "version", lambda: 4)
        error = _refused()
        confining.confine_by(_plan(missing=["scopes"]), [], [])
        with pytest.raises(PermissionError):
            open("/etc/passwd")
        return str(error), error.missing

    words, missing = fork(without).result()
    assert missing == ("scopes",)
    assert "version 4" in words


@pytest.mark.parametrize("abi", range(1, 8))
def test_each_version_of_landlock_is_put_on(fork, monkeypatch, abi):
    """What an older kernel does not know is not asked of it."""
    skip_without("seccomp")
    if landlock.version() < abi:
        pytest.skip(f"this kernel has version {landlock.version()}")

    def bound():
        monkeypatch.setattr(landlock, "version", lambda: abi)
        confining.confine_by(_plan(read=["/etc/hostname"], missing=["scopes"]), [], [])
        with pytest.raises(PermissionError):
            open("/etc/passwd")
        return open("/etc/hostname").close()

    assert fork(bound).result() is None


def test_a_system_without_libseccomp_is_told(fork, monkeypatch):
    """With how it is installed."""
    skip_without("landlock", "scopes")

    def without():
        monkeypatch.setattr(seccomp, "LIBRARY", "libseccomp.so.nonexistent")
        error = _refused()
        confining.confine_by(_plan(missing=["seccomp"]), [], [])
        with pytest.raises(PermissionError):
            open("/etc/passwd")
        return str(error), error.missing

    words, missing = fork(without).result()
    assert missing == ("seccomp",)
    assert "apt install libseccomp2" in words
    assert "starts processes" in words


def test_all_that_is_missing_is_told_at_once(fork, monkeypatch):
    """Not one after the other."""

    def without():
        monkeypatch.setattr(seccomp, "LIBRARY", "libseccomp.so.nonexistent")
        monkeypatch.setattr(landlock, "version", lambda: 0)
        return _refused().missing, _refused(missing=["landlock"]).missing

    assert fork(without).result() == (("landlock", "seccomp"), ("seccomp",))


class _Noting:
    """The C part, which notes how Landlock binds."""

    def __init__(self, real):
        self.real, self.flags = real, []

    def __getattr__(self, name):
        return getattr(self.real, name)

    def lx_landlock_restrict_self(self, number, flags):
        self.flags.append(flags)
        return self.real.lx_landlock_restrict_self(number, flags)


@pytest.mark.usefixtures("confinable")
@pytest.mark.parametrize(("abi", "flags"), [(6, 0), (7, 1)])
def test_what_landlock_refuses_is_not_logged(fork, monkeypatch, abi, flags):
    """From its seventh version on it is, and then a file that nobody trusts fills the system's log."""
    if landlock.version() < abi:
        pytest.skip(f"this kernel has version {landlock.version()}")

    def child():
        noting = _Noting(landlock.lib)
        monkeypatch.setattr(landlock, "version", lambda: abi)
        monkeypatch.setattr(landlock, "lib", noting)
        cm.confine(cm.Confinement())
        with pytest.raises(PermissionError):
            open("/etc/passwd")
        return noting.flags

    assert fork(child).result() == [flags]


@pytest.mark.usefixtures("confinable")
def test_threads_are_counted_apart_from_its_users_others(fork, ordinary_python):
    """Who has more than that already; and it is the user that it was."""
    source = """
        import threading
        end, count = threading.Event(), 1
        try:
            while count < 100:
                threading.Thread(target=end.wait, daemon=True).start()
                count += 1
        except RuntimeError:
            say(count)
        end.set()
        say(os.getuid(), os.getgid(), os.stat(__file__).st_uid == os.getuid(), tell("still there"))
    """

    def act(host):
        if not _runs("unshare", "--user", "true"):
            return None
        others = [subprocess.Popen(["sleep", "1000"]) for _ in range(12)]
        try:
            return host.said(source, threads=8), (os.getuid(), os.getgid())
        finally:
            for each in others:
                each.kill()
                each.wait()

    counted = in_host(fork, ordinary_python, act)
    if counted is None:
        pytest.skip("an ordinary user makes no user namespaces here")
    (count, user, group, is_own, told), own = counted
    assert count == 8
    assert ((user, group), is_own, told) == (own, True, 1)


@pytest.mark.usefixtures("confinable")
def test_no_more_threads_are_asked_for_than_its_user_may_have(fork, ordinary_python):
    """A limit above the hard one is that, as of the other limits."""

    def act(host):
        if not _runs("unshare", "--user", "true"):
            return None
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        most = 10_000 if hard == resource.RLIM_INFINITY else min(hard, 10_000)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        source = "import resource\nsay(resource.getrlimit(resource.RLIMIT_NPROC))"
        return host.said(source, threads=most + 1), host.said(source, threads=most - 1), most

    said = in_host(fork, ordinary_python, act)
    if said is None:
        pytest.skip("an ordinary user makes no user namespaces here")
    above, below, most = said
    assert (above, below) == ([[most, most]], [[most - 1, most - 1]])


@pytest.mark.usefixtures("confinable")
def test_where_threads_cannot_be_counted_it_is_told(fork, ordinary_python, monkeypatch):
    """Of root, by an older kernel, and where no user namespace can be made."""
    if os.getuid() == 0:
        assert "root" in str(fork(lambda: _refused(threads=4)).result())
    monkeypatch.setattr(own_count, "_kernel", lambda: (5, 13))
    assert "from 5.14 on" in str(fork(lambda: _refused(threads=4)).result())

    def act(host):
        refuse(["unshare"])
        with pytest.raises(cm.NotConfined) as raised:
            host.said("say('run')", threads=4)
        return (
            raised.value.missing,
            raised.value.errno,
            str(raised.value),
            host.said("say('run')", threads=4, missing=["threads"]),
        )

    missing, number, words, said = in_host(fork, ordinary_python, act)
    assert (missing, number, said) == (("threads",), errno.ENOSYS, ["run"])
    assert "threads: a user namespace of its own can't be made here: Operation not permitted" in words
    assert "missing=['threads'] does without" in words


@pytest.mark.usefixtures("confinable")
def test_where_a_namespace_is_made_and_refuses_its_maps_it_is_told(fork, monkeypatch):
    """As Ubuntu's AppArmor has it: nothing was changed, and all else is put on where that may be missing."""
    if os.getuid() != 0 and not _runs("unshare", "--user", "true"):
        pytest.skip("an ordinary user makes no user namespaces here")

    # The child may not import that.
    codecs.lookup("ascii")

    def refused(path, words):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(own_count, "_written", refused)
    # Root's, of a child that has become an ordinary user.
    monkeypatch.setattr(own_count.os, "access", lambda path, mode: True)

    def act():
        error = _refused(threads=4)
        user = os.getuid()
        confining.confine_by(_plan(threads=4, missing=["threads"]), [], [])
        with pytest.raises(PermissionError):
            open("/etc/passwd")
        return error.missing, str(error), os.getuid() == user

    missing, words, same = fork(act, ordinary=True).result()
    assert (missing, same) == (("threads",), True)
    assert "namespace of its own can't be made here: Permission denied: /proc/self/setgroups" in words


def test_maps_that_are_refused_all_the_same_are_a_step_that_was(monkeypatch):
    """Not an OSError, of which nothing has changed."""

    def refused():
        raise PermissionError(errno.EACCES, "Permission denied", "/proc/self/setgroups")

    monkeypatch.setattr(own_count, "_enter", refused)
    with pytest.raises(cm.KernelError, match="namespace of its own: Permission denied: /proc/self/setgroups"):
        own_count.bound_threads(4)


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.8.0-48-generic", (6, 8)), ("5.4-rc12", (5, 4)), ("5.14", (5, 14)), ("6.1+", (6, 1)), ("next", (0, 0))],
)
def test_the_version_of_a_kernel_is_its_first_two_numbers(monkeypatch, release, version):
    """Whatever who built it has put after them."""
    monkeypatch.setattr(own_count.os, "uname", lambda: types.SimpleNamespace(release=release))
    assert own_count._kernel() == version


@pytest.mark.usefixtures("confinable")
def test_a_filter_that_refuses_filters_is_told(fork):
    """Before anything is changed; and all else is put on where that may be missing."""

    def without():
        refuse(["seccomp"])
        error = _refused()
        confining.confine_by(_plan(missing=["seccomp"]), [], [])
        with pytest.raises(PermissionError):
            open("/etc/passwd")
        return str(error), error.missing

    words, missing = fork(without).result()
    assert missing == ("seccomp",)
    assert "a filter that is there refuses more" in words


@pytest.mark.usefixtures("confinable")
def test_within_somebodys_filter_it_adds_what_it_can(fork, ordinary_python):
    """Sockets, ptrace and the like are refused there already: calls go on, and files are refused besides."""

    def act(host):
        refuse(DENIED_BY_AGENTS)
        return host.said("say(outcome(lambda: open('/etc/passwd')), outcome(os.fork), tell('hello'))")

    passwd, forked, told = in_host(fork, ordinary_python, act)
    assert (passwd, forked, told) == ("PermissionError", "PermissionError", 1)


_IN_NAMESPACES = """
import subprocess, sys
import capmarshal as cm

class Registry(cm.Interface):
    @cm.method
    def tell(self, what: str) -> int: ...

class RegistryServer(Registry):
    def tell(self, what):
        return 1

with cm.Entrypoint("registry") as ep:
    options = {"parent": ep.manage(RegistryServer()), "confine": cm.Confinement(), "stdout": subprocess.PIPE}
    with cm.spawn(sys.argv[1:], **options) as child:
        print(child.communicate(timeout=30)[0].decode().split(), child.returncode)
"""


@pytest.mark.usefixtures("confinable")
@pytest.mark.parametrize("proc", ["mount -t tmpfs none /proc", "mount -t proc none /proc"], ids=["no proc", "own pids"])
def test_within_namespaces_it_works(tmp_path, proc):
    """Without /proc, as in some containers, and where process numbers are others."""
    command = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "sh", "-c", f'{proc} && exec "$@"', "sh"]
    if not _runs(*command, "true"):
        pytest.skip("no namespaces for mounts here")
    (tmp_path / "host.py").write_text(_IN_NAMESPACES)
    (tmp_path / "plugin.py").write_text(
        f"{PROLOGUE}say(outcome(lambda: open('/etc/passwd')), outcome(lambda: os.kill(1, 0)), tell('x'))"
    )
    done = subprocess.run(
        [*command, sys.executable, "-P", str(tmp_path / "host.py"), str(tmp_path / "plugin.py")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    assert ast.literal_eval(done.stdout.rpartition(" ")[0]) == ['"PermissionError"', '"PermissionError"', "1"]


@pytest.mark.usefixtures("confinable")
def test_what_breaks_in_the_launcher_reaches_the_parent_too(tmp_path):
    """Whatever it is: nobody takes a process for confined that is not."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text("print('run')")
    with child_program.registry() as (_, capability):
        confine = cm.Confinement()
        confine.cpu = "no number"
        with pytest.raises(cm.KernelError, match="the launcher failed: TypeError"):
            cm.spawn([plugin], parent=capability, confine=confine)


def test_every_name_is_a_system_call():
    """One that is misspelt would be passed over, as one is that is younger than the library."""
    from capmarshal._child import allowed

    names = (
        allowed.ANY | allowed.WRITING | allowed.TRUNCATING | {name for name, _ in allowed.with_arguments(writes=True)}
    )
    try:
        library = seccomp.library()
    except OSError as absent:
        pytest.skip(f"libseccomp cannot be loaded: {absent}")
    with seccomp.Filter(library) as made:
        unknown = {name for name in names | {*allowed.UNKNOWN} if made.number_of(name) < 0}
        # Pseudo numbers are those of calls that other architectures have.
        misspelt = {name for name in unknown if made.number_of(name) == -1}
    assert misspelt <= {"mseal", "futex_wait", "futex_wake", "futex_requeue", "futex_waitv"}


def test_the_names_that_libseccomp_gives_are_freed(monkeypatch):
    """Each once: a process that makes filters for others would grow by them."""
    skip_without("seccomp")
    freed, free = [], seccomp._free
    monkeypatch.setattr(seccomp, "_free", lambda name: (freed.append(name), free(name)))
    with seccomp.Filter(seccomp.library()) as made:
        assert made._last() > 300
    assert len(freed) > 200
