"""``capmarshal.testing``: pairs, servers in processes of their own that fail when they are told to, and leaks."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest

import capmarshal as cm
import loops
import tested_servers
from capmarshal import testing
from capmarshal._testing import leaks, loading
from patience import PATIENCE
from tested_servers import (
    BothServer,
    Counter,
    CounterServer,
    Files,
    FilesServer,
    MoreFilesServer,
    Other,
    Plain,
    exits,
    make_files,
)


class OwnServer(Counter):
    async def add(self, value):
        return -value


# A pair.


def test_a_pair_is_a_proxy_and_its_object(tmp_path):
    """The proxy calls by sockets; the test looks into the object."""
    server = FilesServer()
    (tmp_path / "file").write_bytes(b"four")
    with testing.pair(server) as files, open(tmp_path / "file", "rb") as file:
        assert not isinstance(files, FilesServer)
        assert (files.size(file), files.double(4)) == (4, 8)
        files.hold(file)
        assert len(server.held) == 1
        # Arguments are checked and sent: nothing of the test's own is passed through.
        with pytest.raises(cm.ArgumentError):
            files.double("four")
    server.held[0].close()
    with pytest.raises(cm.Disconnected):
        files.double(4)


@pytest.mark.parametrize("loop", loops.LOOPS)
def test_a_pair_is_awaited(loop):
    """The same in every event loop, by async with."""

    async def main():
        server = CounterServer()
        async with testing.pair(server) as counter:
            assert await counter.add(3) == 3
            assert await counter.add(4) == 7
        assert server.total == 7

    loops.run(loop, main)


def test_which_interface_a_proxy_is_of():
    """The lowest one that its class has; or the one that is said."""
    with testing.pair(MoreFilesServer()) as files:
        assert (files.more(), files.double(1)) == (4, 2)
    with testing.pair(MoreFilesServer(), Files) as files:
        assert files.double(1) == 2
        assert not hasattr(files, "more")
    with pytest.raises(
        TypeError, match=r"which interface BothServer is called by is to be said, .*: it has Files, Other"
    ):
        testing.pair(BothServer())
    with testing.pair(BothServer(), Other) as other:
        assert other.other() == 3


@pytest.mark.parametrize("wrong", [Plain(), FilesServer, 3])
def test_a_pair_is_of_an_object_that_can_be_served(wrong):
    with pytest.raises(TypeError):
        testing.pair(wrong)


def test_a_pair_has_the_options_of_an_entrypoint():
    """And nothing that an entrypoint has not."""
    with testing.pair(FilesServer(), max_descriptors=1, label="small") as files, open(os.devnull, "rb") as null:
        assert cm.capability(files).label == "small"
        with pytest.raises(cm.TooLarge):
            files.count([null, null])
    with pytest.raises(TypeError), testing.pair(FilesServer(), nonsense=1):
        pass


def test_what_would_hang_fails():
    """Each call has a deadline, unless that is switched off."""
    reader, writer = os.pipe()
    with open(reader, "rb") as file, testing.pair(FilesServer(), timeout=0.1, close_timeout=PATIENCE) as files:
        try:
            with pytest.raises(cm.CallTimeout):
                files.size(file)
        finally:
            os.close(writer)


def test_the_colour_decides_the_block():
    """The error of entering the other one is the entrypoint's own, and leaves nothing."""
    with pytest.raises(cm.InterfaceError), testing.pair(CounterServer()):
        pass

    async def main():
        with pytest.raises(cm.InterfaceError):
            async with testing.pair(FilesServer()):
                pass

    anyio.run(main)


# A peer.


def test_a_peer_is_another_process(tmp_path):
    """Of which the test has a proxy; it ends with the block."""
    (tmp_path / "file").write_bytes(b"four")
    with testing.served_in_process(FilesServer, 3) as peer:
        assert peer.proxy.pid() == peer.pid != os.getpid()
        assert peer.proxy.double(4) == 12
        with open(tmp_path / "file", "rb") as file:
            assert peer.proxy.size(file) == 4
        assert peer.capability.cast(Files).double(1) == 3
        assert repr(peer) == f"<Peer {peer.pid}>"
    with pytest.raises(ProcessLookupError):
        os.kill(peer.pid, 0)


@pytest.mark.parametrize("loop", loops.LOOPS)
def test_a_peer_is_awaited(loop):
    """It serves what awaits in a loop of its own."""

    async def main():
        with testing.served_in_process(CounterServer) as peer:
            assert await peer.proxy.add(5) == 5
            peer.dies(during=Counter.add)
            with pytest.raises(cm.Disconnected) as ended:
                await peer.proxy.add(5)
            assert ended.value.ran == "maybe"

    loops.run(loop, main)


@pytest.mark.parametrize("during", ["add", object(), 3], ids=["name", "instance", "number"])
def test_what_happens_during_no_method_is_refused(during):
    """In words; and the process goes on."""
    with testing.served_in_process(CounterServer) as peer:
        for happens in (peer.dies, peer.stalls):
            with pytest.raises(TypeError, match=r"during is a method of the interface, as in during=Files\.read, not"):
                happens(during=during)


def test_a_function_makes_it():
    """Of which interface is then to be said."""
    with testing.served_in_process(make_files, 5, interface=Files) as peer:
        assert peer.proxy.double(1) == 5
    with pytest.raises(TypeError, match=r"as its class, .* not as an object"), testing.served_in_process(FilesServer()):
        pass
    with pytest.raises(TypeError, match="which interface"), testing.served_in_process(make_files, 5):
        pass


def test_it_dies_between_calls():
    """No call has begun that is made then."""
    with testing.served_in_process(FilesServer) as peer:
        assert peer.proxy.double(1) == 2
        peer.dies()
        with pytest.raises(cm.Disconnected) as ended:
            peer.proxy.double(1)
        assert ended.value.ran == "no"
        with pytest.raises(RuntimeError, match="has ended"):
            peer.open_descriptors()
        with pytest.raises(RuntimeError, match="has ended"):
            peer.stalls()


def test_it_dies_in_the_middle_of_a_call():
    """Of the one that was named, whichever are made before; nobody knows whether it ran."""
    with testing.served_in_process(FilesServer) as peer:
        peer.dies(during=Files.double)
        assert peer.proxy.pid() == peer.pid
        with pytest.raises(cm.Disconnected) as ended:
            peer.proxy.double(1)
        assert ended.value.ran == "maybe"


def test_it_stalls_and_goes_on():
    """A call then waits until its deadline; when it goes on, others are answered."""
    with testing.served_in_process(FilesServer) as peer:
        peer.stalls()
        with pytest.raises(cm.CallTimeout), cm.timeout(0.05):
            peer.proxy.double(1)
        peer.goes_on()
        assert peer.proxy.double(2) == 4


def test_it_stalls_in_the_middle_of_a_call():
    with testing.served_in_process(FilesServer) as peer:
        peer.stalls(during=Files.double)
        assert peer.proxy.pid() == peer.pid
        with pytest.raises(cm.CallTimeout) as late, cm.timeout(0.3):
            peer.proxy.double(1)
        assert late.value.ran == "maybe"
        peer.goes_on()
        # Once.
        assert peer.proxy.double(2) == 4


def test_what_was_to_happen_is_taken_back():
    with testing.served_in_process(FilesServer) as peer:
        peer.dies(during=Files.double)
        peer.goes_on()
        assert peer.proxy.double(2) == 4


def test_a_stalled_one_ends_with_its_block():
    """As does one that is killed, or was to die and has not."""
    for deed in (lambda peer: peer.stalls(), lambda peer: peer.dies(during=Files.pid), lambda peer: peer.dies()):
        with testing.served_in_process(FilesServer) as peer:
            deed(peer)
        with pytest.raises(ProcessLookupError):
            os.kill(peer.pid, 0)


@pytest.mark.parametrize("during", [Other.other, len])
def test_what_it_has_no_method_for(during):
    """Is said at once: it would never happen."""
    with testing.served_in_process(FilesServer) as peer, pytest.raises(RuntimeError, match="FilesServer has no method"):
        peer.dies(during=during)


def test_it_loses_descriptors():
    """What is sent to it does not arrive, the call says so, and it serves on."""
    with testing.served_in_process(FilesServer) as peer, contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(os.devnull, "rb")) for _ in range(5)]
        assert peer.proxy.count(files) == 5
        peer.loses_descriptors()
        assert peer.proxy.double(1) == 2
        with pytest.raises(cm.DescriptorsLost):
            peer.proxy.count(files)
        peer.loses_descriptors(room=2)
        assert peer.proxy.count(files[:2]) == 2
        with pytest.raises(cm.DescriptorsLost):
            peer.proxy.count(files)
        peer.goes_on()
        assert peer.proxy.count(files) == 5


def test_it_may_have_few_from_the_start():
    """By its hard limit, which it can't raise."""
    with testing.served_in_process(FilesServer, descriptors=20) as peer, contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(os.devnull, "rb")) for _ in range(20)]
        assert peer.proxy.count(files[:2]) == 2
        with pytest.raises(cm.DescriptorsLost):
            peer.proxy.count(files)


def test_what_it_has_open_is_told():
    """Which shows what a method has left."""
    with testing.served_in_process(FilesServer) as peer, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as kept:
        assert peer.proxy.double(1) == 2
        before = peer.open_descriptors()
        peer.proxy.hold(kept)
        after = peer.open_descriptors()
        (number,) = after.keys() - before.keys()
        assert after[number] == testing.open_descriptors()[kept.fileno()]


def test_what_can_not_be_made_is_told_with_its_traceback():
    with pytest.raises(RuntimeError, match="ValueError: no such thing"):
        with testing.served_in_process(FilesServer, 1, "no such thing"):
            pass


def test_a_process_that_ends_at_once_is_told():
    with pytest.raises(RuntimeError, match="is not served by another process: it has ended"):
        with testing.served_in_process(exits, interface=Files):
            pass


def test_what_another_process_does_not_find():
    """A class within a function, or what is no class at all."""

    class Within(FilesServer):
        pass

    for wrong in (Within, lambda: FilesServer()):
        with pytest.raises(TypeError, match="at the top of a module"):
            with testing.served_in_process(wrong, interface=Files):
                pass


PROGRAM = """\
import sys
import capmarshal as cm
from capmarshal import testing

class Held:
    def __init__(self):
        self.number = os.memfd_create("held")

    def __del__(self):
        os.close(self.number)

class Adder(cm.Interface):
    @cm.method
    def add(self, a: int, b: int) -> int: ...

class AdderServer(Adder):
    def add(self, a: int, b: int) -> int:
        return a + b

if __name__ == "__main__":
    with testing.served_in_process(AdderServer) as peer:
        print(peer.proxy.add(1, 2))
"""


def test_of_a_program(tmp_path):
    """Whose main module is run again there, but for what is only the program's."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_a_module_that_is_not_imported_there_is_told_with_its_traceback(tmp_path):
    """Whatever the process had still to read when it ended."""
    (tmp_path / "program.py").write_text(f"if __name__ != '__main__': raise OSError('not here')\n{PROGRAM}")
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert "RuntimeError: <class '__main__.AdderServer'> is not served by another process: " in done.stderr
    assert "OSError: not here" in done.stderr


def test_of_what_was_typed():
    """There is no file to run again."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.stderr.splitlines()[-1].endswith("it was typed, or run by -c")


@pytest.mark.parametrize("installed", [False, True])
def test_modules_are_found_by_name_or_by_file(installed, fork, tmp_path):
    """A module of the same name elsewhere is not taken for it."""
    for folder, value in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "found.py").write_text(f"value = {value}\n")

    def in_child():
        sys.path.insert(0, str(tmp_path / ("one" if installed else "two")))
        loading.load("found", str(tmp_path / "one" / "found.py"))
        import found

        return found.value

    assert fork(in_child).result() == 1


def test_a_forked_child_keeps_no_server_alive():
    """A test that is killed takes its server with it, whichever children it has forked."""
    program = textwrap.dedent(
        """
        import os, signal, sys
        from capmarshal import testing
        from tested_servers import FilesServer
        with testing.served_in_process(FilesServer) as peer:
            if os.fork() == 0:
                print(peer.proxy.double(4), peer.pid, flush=True)
                try:
                    peer.open_descriptors()
                except RuntimeError as error:
                    print(error, flush=True)
                else:
                    print("it was told", flush=True)
                sys.stdin.read()
                os._exit(0)
            signal.pause()
        """
    )
    environment = os.environ | {"PYTHONPATH": str(Path(tested_servers.__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as started:
        try:
            value, pid = map(int, started.stdout.readline().split())
            assert value == 8
            server = os.pidfd_open(pid)
            try:
                said = started.stdout.readline()
                started.kill()
                assert select.select([server], [], [], PATIENCE)[0]
                assert "has ended, or stands still" in said
            finally:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(server, signal.SIGKILL)
                os.close(server)
        finally:
            started.kill()


def test_ctrl_c_at_the_terminal_is_the_tests_alone():
    with testing.served_in_process(FilesServer) as peer:
        os.kill(peer.pid, signal.SIGINT)
        assert peer.proxy.double(1) == 2


# Leaks.


def test_descriptors_that_are_left_are_named():
    with pytest.raises(testing.Leaked, match=r"^leaked: \d+ -> /dev/null$"):
        with testing.no_leaks():
            left = open(os.devnull, "rb")
    left.close()


def test_what_was_closed_or_replaced_is_named():
    number = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(testing.Leaked, match=rf"^closed, but not the test's own: {number} -> /dev/null$"):
        with testing.no_leaks():
            os.close(number)
    reader, writer = os.pipe()
    with open(os.devnull, "rb") as null:
        with pytest.raises(testing.Leaked, match=rf"^replaced: {reader} -> pipe:\[\d+\] is now /dev/null$"):
            with testing.no_leaks():
                os.dup2(null.fileno(), reader)
    os.close(reader)
    os.close(writer)


def test_children_that_are_left_are_named_and_killed():
    """Also one that has ended and was not waited for."""
    started = []

    @testing.no_leaks()
    def starts_two():
        started.extend(map(subprocess.Popen, (["sleep", "1000"], ["true"])))
        os.waitid(os.P_PID, started[1].pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(testing.Leaked) as leaked:
        starts_two()
    running, ended = started
    assert f"child left behind: {running.pid} sleep 1000" in str(leaked.value)
    assert f"child left behind: {ended.pid} [true]" in str(leaked.value)
    for process in (running, ended):
        process.wait()


def test_a_child_that_was_started_just_now_is_named():
    """The kernel knows its arguments a little later than subprocess has started it."""
    for _ in range(30):
        with subprocess.Popen(["sleep", "1000"]) as process:
            words = leaks._end(process.pid)
        assert words == f"child left behind: {process.pid} sleep 1000"


def test_garbage_is_no_leak_and_errors_pass():
    """What is left in a cycle is collected first; and what the block raises is what is raised."""

    class Held:
        def __init__(self):
            self.number, self.itself = os.memfd_create("cycle"), self

        def __del__(self):
            os.close(self.number)

    with testing.no_leaks():
        Held()
    left = []

    @testing.no_leaks()
    def raises():
        left.append(os.memfd_create("left"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        raises()
    os.close(*left)


def test_it_is_a_decorator_too():
    @testing.no_leaks()
    def leaks_one():
        return os.memfd_create("left")

    @testing.no_leaks()
    def leaks_none():
        return 3

    assert leaks_none() == 3
    before = testing.open_descriptors()
    with pytest.raises(testing.Leaked):
        leaks_one()
    (left,) = testing.open_descriptors().keys() - before.keys()
    os.close(left)


def test_who_are_children():
    child = subprocess.Popen(["sleep", "1000"])
    assert leaks.children() == {child.pid}
    child.kill()
    child.wait()
    assert leaks.children() == set()


PLUGGED = """\
import os
import pytest
import capmarshal as cm
from capmarshal import testing

pytestmark = pytest.mark.usefixtures("no_leaks")

class Adder(cm.Interface):
    @cm.method
    def add(self, a: int, b: int) -> int: ...

class AdderServer(Adder):
    def add(self, a: int, b: int) -> int:
        if a < 0:
            held = Held()
            raise RuntimeError("logged, with a frame that has this")
        return a + b

@pytest.fixture
def adder():
    with testing.pair(AdderServer()) as proxy:
        yield proxy

def test_leaks(adder):
    os.memfd_create("left")

def test_fails(adder):
    held = os.memfd_create("held by the traceback")
    assert adder.add(1, 1) == 3

def test_does_not_leak(adder):
    assert adder.add(1, 2) == 3

def test_what_is_logged_leaks_nothing(adder):
    with pytest.raises(cm.RemoteError):
        adder.add(-1, 2)

def test_in_another_process():
    with testing.served_in_process(AdderServer) as peer:
        assert peer.proxy.add(1, 2) == 3
"""


def test_the_fixture_of_pytest(tmp_path):
    """By a name in conftest.py; and a test module is found by the process that it starts, though it is on no path."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["capmarshal.testing.plugin"]\n')
    (tmp_path / "test_adder.py").write_text(PLUGGED)
    # Python started with -c would have this one.
    (tmp_path / "json.py").write_text("raise ImportError('of the folder where it is started')\n")
    command = [sys.executable, "-P", "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "."]
    # Nothing of this machine's, which takes long to import.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE)
    # Of the one that fails nothing else is said.
    assert "1 failed, 4 passed, 1 error" in done.stdout, done.stdout
    assert "memfd:left (deleted)" in done.stdout


def test_what_a_method_has_raised_and_is_logged_is_no_leak(caplog):
    """pytest keeps lines of the log for the test, with the error, its frames, and what these have open."""

    class Held:
        def __init__(self):
            self.number = os.memfd_create("held")

        def __del__(self):
            os.close(self.number)

    class Fails(FilesServer):
        def double(self, value):
            held = Held()
            raise RuntimeError(f"with {held.number} open, and {value}")

    with testing.pair(Fails()) as proxy, pytest.raises(cm.RemoteError):
        proxy.double(1)
    assert "open, and 1" in caplog.text


def test_nothing_of_it_needs_pytest():
    """Nor any other package that the tests of this one need."""
    script = textwrap.dedent(
        """
        import sys
        sys.modules["pytest"] = sys.modules["anyio"] = None
        from capmarshal import testing
        print(*testing.__all__)
        """
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stderr, done.stdout.split()) == ("", testing.__all__)


def test_it_is_imported_by_who_wants_it():
    """What else is said tells how."""
    script = "import capmarshal as cm; cm.testing"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr.splitlines()[-1].endswith("unless that is imported: say `from capmarshal import testing`")


@pytest.mark.parametrize("name", testing.__all__)
def test_names_are_said_as_they_are_imported(name):
    thing = getattr(testing, name)
    assert thing.__module__ == "capmarshal.testing"
    assert thing.__doc__


def test_completion_shows_what_a_peer_does():
    with testing.served_in_process(FilesServer) as peer:
        assert {name for name in dir(peer) if not name.startswith("_")} == {
            "capability",
            "dies",
            "goes_on",
            "loses_descriptors",
            "open_descriptors",
            "pid",
            "proxy",
            "stalls",
        }


def test_a_peer_runs_what_a_test_module_has():
    """Which is on no path of Python's, and has imported pytest."""

    async def main():
        with testing.served_in_process(OwnServer) as peer:
            return await peer.proxy.add(3)

    assert Path(loading.found_by(OwnServer)["file"]) == Path(__file__).resolve()
    assert anyio.run(main) == -3


def test_a_child_of_a_block_that_raised_is_killed():
    """And what it raised is what is told."""
    started = []

    @testing.no_leaks()
    def raises():
        started.append(subprocess.Popen(["sleep", "1000"]))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        raises()
    # Collected: Popen knows of no other status then.
    assert leaks.children() == set()
    assert started[0].poll() is not None


def test_children_are_found_where_the_kernel_does_not_list_them(monkeypatch):
    """One without CONFIG_PROC_CHILDREN."""
    read = Path.read_text

    def refused(path, *arguments, **options):
        if path.name == "children":
            raise FileNotFoundError(path)
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refused)
    with subprocess.Popen(["sleep", "1000"]) as child:
        found = leaks.children()
        child.kill()
    assert found == {child.pid}


def test_a_child_that_somebody_else_collects_is_not_left():
    """It is none any more, and no error of the block's."""
    child = subprocess.Popen(["true"])
    child.wait()
    assert leaks._end(child.pid) == ""
