"""What runs in a confined process is ordinary Python, as an ordinary user (`_child/confining`, `_child/launcher`)."""

import ast
import contextlib
import errno
import inspect
import io
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import zipapp
from collections.abc import Iterator
from pathlib import Path

import pytest

import capmarshal as cm
import child_program
from capmarshal._child import launching
from capmarshal._descriptors.mounts import mounts
from confined import confines, in_host
from full_table import fill
from patience import PATIENCE

pytestmark = confines


@pytest.fixture
def said(fork, ordinary_python):
    """said(source, ...): what a confined file says, whose parent is an ordinary user."""
    return lambda *arguments, **options: in_host(fork, ordinary_python, lambda host: host.said(*arguments, **options))


def test_it_calls_through_its_parent_capability(fork, ordinary_python):
    """Which it is given after it is confined; and arguments are what they were."""

    def act(host):
        said = host.said("say(tell('hello'), sys.argv, __name__, __file__)", "an argument", "")
        return said, host.told, str(host.place)

    said, told, place = in_host(fork, ordinary_python, act)
    assert said == [1, [f"{place}/plugin.py", "an argument", ""], "__main__", f"{place}/plugin.py"]
    assert told == ["hello"]


def test_it_has_its_standard_streams_and_one_door(said):
    """Those that are not named are /dev/null; nothing is inherited of the environment but the locale and the zone."""
    source = """
        import fcntl
        open_ = [number for number in range(64) if outcome(lambda: fcntl.fcntl(number, fcntl.F_GETFD)) in (0, 1)]
        null = os.stat("/dev/null").st_rdev
        say(len(open_), os.fstat(0).st_rdev == null, sys.stdin.read())
        say(sorted({*os.environ} - {"LANG", "PATH", "TZ", "LD_LIBRARY_PATH"}))
    """
    count, is_null, read, environment = said(source)
    assert (count, is_null, read) == (len(["stdin", "stdout", "stderr", "door"]), True, "")
    assert not [name for name in environment if not name.startswith("LC_")]


@pytest.mark.parametrize("elements", ["{0}:", ":{0}", "{0}::", ".:{0}", "{0};.", "../{1}", ":"])
@pytest.mark.parametrize("given", [False, True], ids=["inherited", "env"])
def test_no_library_is_loaded_from_where_it_is(fork, ordinary_python, elements, given):
    """An element of LD_LIBRARY_PATH that is empty or relative is that directory: the launcher is not confined yet."""
    if "LD_LIBRARY_PATH" in os.environ and "{0}" not in elements:
        pytest.skip("this Python may not start without LD_LIBRARY_PATH")

    def act(host):
        (host.place / "libseccomp.so.2").write_text("what ld.so refuses to load")
        old = os.environ.get("LD_LIBRARY_PATH", "/nonexistent")
        os.environ["LD_LIBRARY_PATH"] = path = elements.format(old, host.place.name)
        options = {"env": {b"LD_LIBRARY_PATH": path.encode(), "PATH": ""}} if given else {}
        said = host.said("say(os.environ.get('LD_LIBRARY_PATH'))", cwd=host.place, **options)
        return said, [path if given else old if "{0}" in elements else None]

    said, expected = in_host(fork, ordinary_python, act)
    assert said == expected


def test_the_environment_is_heeded_when_it_is_confined(fork, ordinary_python):
    """By the linker, the C library, Python: nothing is run, or read, or written, that a variable names, before that."""

    def act(host):
        (host.place / "library.so").write_text("what ld.so complains of")
        library = str(host.place / "library.so")
        names = ("LD_PRELOAD", "LD_AUDIT", "GCONV_PATH", "LOCPATH", "PYTHONPATH", "PYTHONSTARTUP", "OPENSSL_CONF")
        given = dict.fromkeys(names, library) | {"PYTHONWARNINGS": "error", "TZ": "Pacific/Auckland"}
        given |= {"LD_DEBUG": "all", "LD_DEBUG_OUTPUT": str(host.place / "out"), b"ODD\xff": b"\xfe=", "EMPTY": ""}
        source = """
            import time
            say({name: value for name, value in os.environ.items() if name in sys.argv[1:]})
            say(os.environb[b"ODD\\xff"] == b"\\xfe=", os.environ["EMPTY"], len(os.environ), time.tzname[0])
        """
        said = host.said(source, *names, env=given)
        return (
            said,
            [dict.fromkeys(names, library), True, "", len(given), "NZST"],
            sorted(path.name for path in host.place.iterdir()),
        )

    said, expected, left = in_host(fork, ordinary_python, act)
    assert said == expected
    assert left == ["library.so", "plugin.py"]


@pytest.mark.parametrize(
    ("env", "error"),
    [
        ({"A=B": "x"}, ValueError),
        ({"": "x"}, ValueError),
        ({"A": "x\0"}, ValueError),
        ({"A": 1}, TypeError),
    ],
)
def test_what_is_no_environment_is_refused(tmp_path, env, error):
    """Here, as by Popen."""
    with child_program.registry() as (_, capability), pytest.raises(error):
        cm.spawn([tmp_path / "plugin.py"], parent=capability, confine=cm.Confinement(), env=env)


def test_any_number_of_paths_is_taken(fork, ordinary_python):
    """More than may stand in an argument of a program's."""

    def act(host):
        for number in range(3000):
            (host.place / f"{number} {'x' * 80}").touch()
        paths = [str(path) for path in host.place.iterdir()]
        return host.said("say(outcome(lambda: open(sys.argv[1]).read()))", paths[-1], read=paths)

    assert in_host(fork, ordinary_python, act) == [""]


@pytest.mark.parametrize("args", [[], "", ()])
def test_nothing_to_run_is_refused(args):
    """By name, with and without a confinement."""
    with child_program.registry() as (_, capability):
        for confine in (None, cm.Confinement()):
            with pytest.raises(ValueError, match="args is what to run"):
                cm.spawn(args, parent=capability, confine=confine)


def test_nothing_stays_open_where_the_table_is_full(tmp_path, fork):
    """Of the null device, of which Popen leaves one where it makes no pipe."""
    (tmp_path / "plugin.py").write_text("")

    def attempts():
        with child_program.registry() as (_, capability):
            rooms = []
            for room in range(14):
                taken = fill(room)
                with (
                    contextlib.suppress(OSError),
                    cm.spawn([tmp_path / "plugin.py"], parent=capability, confine=cm.Confinement(), stdout=-1) as child,
                ):
                    child.communicate(timeout=PATIENCE)
                left = fill(0)
                rooms.append(len(left))
                for number in (*taken, *left):
                    os.close(number)
            return rooms

    assert fork(attempts, table=64).result() == [*range(14)]


def test_ctrl_c_ends_it_as_any_program_of_pythons(fork, ordinary_python):
    """With the lines of the file, none of the launcher's, and by the signal."""

    def act(host):
        with host.start("import signal\nsay('runs')\nsignal.pause()") as child:
            child.stdout.readline()
            child.send_signal(signal.SIGINT)
            _, complaints = child.communicate(timeout=PATIENCE)
        return child.returncode, complaints.decode()

    status, complaints = in_host(fork, ordinary_python, act)
    assert status == -signal.SIGINT
    assert "plugin.py" in complaints
    assert complaints.endswith("KeyboardInterrupt\n")
    assert "launcher" not in complaints


def test_nothing_of_the_launchers_own_is_compiled_into_it(said):
    """As by Python: an annotation is what it says, unless the file itself asks for text."""
    source = """
        def function(number: int) -> None: ...
        say(function.__annotations__["number"] is int)
    """
    assert said(source) == [True]


def test_it_is_in_a_session_of_its_own(said, fork, ordinary_python):
    """What a terminal does to all of its processes that are in the background, it does not do to the host."""
    source = "say(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid())"
    assert said(source) == [True, True]
    assert said(source, process_group=0) == [False, True]


def test_files_are_read_where_that_was_said_and_nowhere_else(fork, ordinary_python):
    """A file, or what is beneath a directory; their names and what they are like are seen everywhere."""

    def act(host):
        for name in ("inside/one", "inside/deep/two", "outside", "file"):
            (host.place / name).parent.mkdir(parents=True, exist_ok=True)
            (host.place / name).write_text(name)
        source = """
            os.chdir(sys.argv[1])
            for name in ("inside/one", "inside/deep/two", "file", "outside", "inside/../outside", "/etc/passwd"):
                say(outcome(lambda: open(name).read()))
            say(sorted(os.listdir("inside")), outcome(lambda: os.listdir(".")), os.stat("/etc/passwd").st_size > 0)
            say(outcome(lambda: open("inside/new", "w")), outcome(lambda: open("inside/one", "a")))
        """
        return host.said(source, str(host.place), read=[host.place / "inside", str(host.place / "file")])

    denied = "PermissionError"
    assert in_host(fork, ordinary_python, act) == [
        *("inside/one", "inside/deep/two", "file", denied, denied, denied),
        *(["deep", "one"], denied, True),
        *(denied, denied),
    ]


def test_modules_are_imported_from_what_is_read(fork, ordinary_python):
    """From directories, and not from others; none of them stands for one of the standard library's."""

    def act(host):
        for name in ("read/own.py", "read/json.py", "hidden/secret.py"):
            (host.place / name).parent.mkdir(exist_ok=True)
            (host.place / name).write_text("NAME = __name__")
        source = """
            import own
            say(own.NAME, hasattr(json, "NAME"))
            try:
                sys.path.append(sys.argv[1])
                import secret
            except ImportError as error:
                say(type(error).__name__)
        """
        return host.said(source, str(host.place / "hidden"), read=[host.place / "read"])

    assert in_host(fork, ordinary_python, act) == ["own", False, "ModuleNotFoundError"]


def test_files_are_written_where_that_was_said(fork, ordinary_python):
    """Made, renamed, truncated, removed, and made temporarily; nowhere else, and no link leads out."""

    def act(host):
        (host.place / "outside").write_text("untouched")
        (host.place / "work").mkdir()
        source = """
            import tempfile, sqlite3
            os.chdir(sys.argv[1])
            with tempfile.TemporaryDirectory() as place, tempfile.NamedTemporaryFile("w", dir=place) as file:
                file.write("temporary")
            with open("a", "w") as file:
                file.write("12345")
            os.truncate("a", 3)
            os.mkdir("sub")
            os.rename("a", "sub/b")
            os.replace("sub/b", "c")
            say(open("c").read(), os.listdir("sub"))
            os.rmdir("sub")
            with sqlite3.connect("data") as data:
                data.execute("create table t (x)")
                data.execute("insert into t values (5)")
            say(data.execute("select * from t").fetchall(), sorted(os.listdir(".")))
            data.close()
            for attempt in (
                lambda: open("../outside", "w"),
                lambda: os.truncate("../outside", 0),
                lambda: os.remove("../outside"),
                lambda: os.rename("../outside", "mine"),
                lambda: os.link("../outside", "mine"),
                lambda: os.symlink("/etc/passwd", "passwd"),
                lambda: os.mkfifo("fifo"),
                lambda: os.chmod("c", 0o4755),
                lambda: os.open("s", os.O_CREAT | os.O_WRONLY, 0o4755),
                lambda: os.open("../outside", os.O_RDONLY | os.O_TRUNC),
            ):
                say(outcome(attempt))
            with open(os.devnull, "w") as null:
                null.write("x")
        """
        said = host.said(source, str(host.place / "work"), write=[host.place / "work"])
        return said, (host.place / "outside").read_text(), sorted(path.name for path in (host.place / "work").iterdir())

    said, outside, left = in_host(fork, ordinary_python, act)
    # Where two directories are bound differently, it is another file system as it were.
    assert [*map(str, said[4:])] == ["PermissionError"] * 3 + [said[7], said[8]] + ["PermissionError"] * 5
    assert {said[7], said[8]} <= {"PermissionError", "OSError"}
    assert said[:4] == ["123", [], [[5]], ["c", "data"]]
    assert (outside, left) == ("untouched", ["c", "data"])


def test_the_standard_library_is_imported_lazily(said):
    """All that is imported when it is used first; and what it can't have is an ordinary error."""
    source = """
        import asyncio, concurrent.futures, csv, ctypes, dataclasses, datetime, decimal, email.message, hashlib, inspect
        import logging, lzma, multiprocessing, queue, random, re, secrets, shutil, socket, sqlite3, ssl, statistics
        import subprocess, tempfile, threading, typing, urllib.request, uuid, xml.etree.ElementTree, zipfile, zoneinfo
        say(secrets.token_bytes(8).hex() != "", hashlib.sha256(b"x").hexdigest()[:8])
        say(str(datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset()))
        say(len(os.sched_getaffinity(0)) > 0, (os.cpu_count() or 0) > 0)
        for attempt in (
            lambda: subprocess.run(["true"]),
            lambda: os.fork(),
            lambda: socket.socket(),
            lambda: socket.create_connection(("127.0.0.1", 1)),
            lambda: multiprocessing.Process(target=print).start(),
            lambda: urllib.request.urlopen("http://127.0.0.1:1/"),
            lambda: os.kill(os.getppid(), 0),
        ):
            say(outcome(attempt))
    """
    results = said(source)
    assert results[:5] == [True, "2d711642", "2:00:00", True, True]
    *refused, url, kill = results[5:]
    assert (url, kill) == ("URLError", "PermissionError")
    assert refused == ["PermissionError"] * 5


def test_what_libraries_ask_of_the_system_is_answered(said):
    """Or not found: they have another way, and it is no error of theirs."""
    source = """
        import ctypes.util, getpass, mimetypes, platform, pwd, shutil, uuid
        say(platform.platform() != "", mimetypes.guess_type("a.png")[0], ctypes.util.find_library("pthread"))
        say(shutil.which("gcc"), uuid.getnode() > 0, os.path.expanduser("~"))
    """
    *answers, home = said(source)
    assert answers == [True, "image/png", None, None, True]
    # Of nobody, libnss_systemd knows one without a file.
    assert home in ("~", "/")


def test_what_is_refused_has_the_other_way_of_the_page(fork, ordinary_python):
    """docs/confinement.md: what ordinary libraries do that is refused, and what does the same."""

    def act(host):
        (host.place / "read").mkdir()
        (host.place / "work").mkdir()
        with contextlib.closing(sqlite3.connect(host.place / "read" / "data")) as data, data:
            data.execute("create table t (x)")
            data.execute("insert into t values (5)")
        reading = """
            import sqlite3, sys
            path, query = sys.argv[1] + "/data", "select * from t"
            def read(uri):
                with sqlite3.connect(uri, uri=True) as data:
                    return data.execute(query).fetchall()
            try:
                read(f"file:{path}?mode=ro")
            except sqlite3.OperationalError as error:
                say(str(error))
            say(read(f"file:{path}?mode=ro&immutable=1"))
        """
        ways = """
            import concurrent.futures, multiprocessing.pool, shutil, socket, threading
            os.chdir(sys.argv[1])
            say(outcome(lambda: multiprocessing.pool.ThreadPool(2)))
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                say(list(pool.map(abs, [-1])))
            open("a", "w").close()
            say(outcome(lambda: shutil.copy("a", "b")), shutil.copyfile("a", "c"))
            one, other = socket.socketpair()
            say(outcome(lambda: one.shutdown(socket.SHUT_WR)))
            one.close()
            say(other.recv(1).decode())
        """
        read = host.said(reading, str(host.place / "read"), read=[host.place / "read"])
        return read, host.said(ways, str(host.place / "work"), write=[host.place / "work"])

    read, ways = in_host(fork, ordinary_python, act)
    assert read[1:] == [[[5]]]
    pool, *ways = ways
    assert pool in ("PermissionError", "FileNotFoundError")
    assert ways == [[1], "PermissionError", "c", "PermissionError", ""]


def test_numpy_computes_in_one_thread(fork, ordinary_python):
    """Where that is all that it has: it is told so by the environment."""
    source = """
        import numpy
        say(float((numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum()))
    """
    limited = {"threads": 1, "missing": ["threads"], "env": {"OPENBLAS_NUM_THREADS": "1"}}
    assert in_host(fork, ordinary_python, lambda host: host.said(source, **limited)) == [300.0**3]


def test_numpy_computes(said):
    """With its libraries, and their threads."""
    source = """
        import numpy
        square = numpy.ones((300, 300))
        say(float((square @ square).sum()), float(numpy.linalg.inv(numpy.eye(50) * 2).trace()))
        say(int(numpy.random.default_rng(1).integers(10)) < 10)
    """
    assert said(source) == [300.0**3, 25.0, True]


def test_threads_compute(said):
    """Also one that outlives the file's last line, whose module is __main__ still."""
    source = """
        import concurrent.futures, threading, time
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            say(sum(pool.map(lambda x: x * x, range(100))))
        def late():
            main.join()
            say(sys.modules["__main__"].__file__ == __file__)
        main = threading.current_thread()
        threading.Thread(target=late).start()
    """
    assert said(source) == [328350, True]


@pytest.mark.parametrize("client", ["asyncio", "uvloop", "trio"])
def test_event_loops_run(fork, ordinary_python, client):
    """With threads, which wake them through a pair of sockets, timers and calls; all of them by anyio."""
    source = """
        import anyio
        class AsyncRegistry(cm.Interface):
            tell = cm.awaitable(Registry.tell)
        async def main():
            said = []
            async def one(n):
                await anyio.sleep(0.01)
                said.append(await anyio.to_thread.run_sync(lambda: n * n))
            async with anyio.create_task_group() as group:
                for n in range(3):
                    group.start_soon(one, n)
            say(sorted(said), await cm.parent().cast(AsyncRegistry).tell("from a loop"))
        uv = sys.argv[1] == "uvloop"
        anyio.run(main, backend="asyncio" if uv else sys.argv[1], backend_options={"use_uvloop": True} if uv else {})
    """

    def act(host):
        (host.place / "work").mkdir()
        return host.said(source, client), host.said(source, client, write=[host.place / "work"])

    # Of the first's there is one call less.
    assert in_host(fork, ordinary_python, act) == ([[0, 1, 4], 1], [[0, 1, 4], 2])


class Connections(cm.Interface):
    """Of which it makes none itself."""

    @cm.method
    def connect(self) -> cm.Descriptor: ...


@pytest.mark.parametrize("client", ["asyncio", "uvloop", "trio"])
def test_event_loops_use_a_connection_that_it_is_given(fork, ordinary_python, client):
    """Of TCP: what they set of each does nothing, since the host may have it, too."""
    source = """
        import anyio, anyio.abc
        class Connections(cm.Interface):
            @cm.method
            def connect(self) -> cm.Descriptor: ...
        with cm.timeout(30):
            given = cm.parent().cast(Connections).connect().socket()
        async def main():
            with anyio.fail_after(30):
                if sys.argv[1] == "trio":
                    import trio
                    given.setblocking(False)
                    async with trio.SocketStream(trio.socket.from_stdlib_socket(given)) as stream:
                        await stream.send_all(b"from a loop")
                        say((await stream.receive_some()).decode())
                else:
                    import asyncio
                    reader, writer = await asyncio.open_connection(sock=given)
                    writer.write(b"from a loop")
                    say((await reader.read(100)).decode())
                    writer.close()
                    await writer.wait_closed()
        uv = sys.argv[1] == "uvloop"
        anyio.run(main, backend="asyncio" if uv else sys.argv[1], backend_options={"use_uvloop": True} if uv else {})
    """

    def act(host):
        with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:

            class ConnectionsServer(Connections):
                def connect(self):
                    made = socket.socket()
                    made.connect(listener.getsockname())
                    other = stack.enter_context(listener.accept()[0])
                    other.sendall(b"from the host")
                    self.nodelay = stack.enter_context(made.dup())
                    return cm.Descriptor(made.detach())

            target = ConnectionsServer()
            entrypoint = stack.enter_context(cm.Entrypoint("connections"))
            host.capability = entrypoint.manage(target)
            said = host.said(source, client)
            return said, target.nodelay.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert in_host(fork, ordinary_python, act) == (["from the host"], 0)


class Files(cm.Interface):
    """What is passed both ways."""

    @cm.method
    def numbers(self, below: int) -> Iterator[int]: ...

    @cm.method
    def data(self) -> cm.Dataspace: ...

    @cm.method
    def open(self, name: str) -> io.BufferedReader: ...

    @cm.method
    def directory(self) -> cm.Descriptor: ...

    @cm.method
    def take(self, data: cm.Dataspace, pipe: cm.Descriptor, back: cm.Capability) -> int: ...


class FilesServer(Files):
    def __init__(self, place):
        self.place = place

    def numbers(self, below):
        yield from range(below)

    def data(self):
        return cm.Dataspace.from_buffer(b"data of the host's")

    def open(self, name):
        return (self.place / name).open("rb")

    def directory(self):
        return cm.Descriptor(os.open(self.place, os.O_RDONLY))

    def take(self, data, pipe, back):
        os.write(pipe.fileno(), b"written by the host")
        with cm.timeout(PATIENCE):
            return back.cast(child_program.Registry).tell(data.view().tobytes().decode())


def test_what_it_receives_is_closed_on_the_spot(fork, ordinary_python):
    """As elsewhere, though it can't read the list of mounts; which is not open either."""
    source = """
        from collections.abc import Iterator
        import io
        from capmarshal._descriptors import reaper
        class Files(cm.Interface):
            @cm.method
            def open(self, name: str) -> io.BufferedReader: ...
        with cm.timeout(30):
            file = cm.parent().cast(Files).open("plugin.py")
            given = cm.Descriptor(os.dup(file.fileno()))
            say(reaper.close([given]), reaper.close([cm.Descriptor(os.memfd_create("x"))]))
            say(outcome(lambda: open("/proc/self/mountinfo")))
            names = [outcome(lambda: os.readlink(f"/proc/self/fd/{number}")) for number in range(40)]
            say([name for name in names if "mount" in name])
    """

    def act(host):
        if not mounts.for_good():
            return None
        with cm.Entrypoint("files") as entrypoint:
            host.capability = entrypoint.manage(FilesServer(host.place))
            return host.said(source)

    said = in_host(fork, ordinary_python, act)
    if said is None:
        pytest.skip("this kernel has no unique IDs of mounts (Linux 6.8), or no file system here is local")
    assert said == [True, True, "PermissionError", []]


def test_all_that_travels_travels(fork, ordinary_python):
    """Generators, dataspaces, files and objects, both ways; and no path is opened by a directory that was received."""
    source = inspect.getsource(Files).replace(
        "class Files", "import io\nfrom collections.abc import Iterator\nclass Files"
    )
    program = """
        class Own(Registry):
            def tell(self, what):
                heard.append(what)
                return 7
        heard = []
        files = cm.parent().cast(Files)
        with cm.timeout(30), cm.Entrypoint("own") as own:
            say(list(files.numbers(1000)) == list(range(1000)), files.data().view().tobytes().decode())
            with files.open("opened") as file:
                say(file.read().decode())
            with files.directory() as directory:
                say(outcome(lambda: os.open("opened", os.O_RDONLY, dir_fd=directory.fileno())))
            read_end, write_end = os.pipe()
            with cm.Descriptor(write_end) as pipe:
                say(files.take(cm.Dataspace.from_buffer(b"data of the plugin's"), pipe, own.manage(Own())))
            say(heard, os.read(read_end, 100).decode())
    """

    def act(host):
        (host.place / "opened").write_text("opened by the host")
        with cm.Entrypoint("files") as entrypoint:
            host.capability = entrypoint.manage(FilesServer(host.place))
            return host.said(source + textwrap.dedent(program))

    assert in_host(fork, ordinary_python, act) == [
        *(True, "data of the host's", "opened by the host", "PermissionError", 7),
        *(["data of the plugin's"], "written by the host"),
    ]


def test_what_it_raises_is_told_as_by_python(fork, ordinary_python):
    """By its own lines, not the launcher's; statuses are those of any Python program."""

    def act(host):
        ends = []
        for source in ("1/0", "sys.exit(7)", "sys.exit('words')", "def f(:"):
            with host.start(source) as child:
                _, errors = child.communicate(timeout=PATIENCE)
            ends.append((child.returncode, errors.decode()))
        return ends

    divided, left, words, syntax = in_host(fork, ordinary_python, act)
    assert divided[0] == 1
    assert divided[1].count("File ") == 1
    assert divided[1].splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert (left, words) == ((7, ""), (1, "words\n"))
    assert syntax[0] == 1
    assert "launcher" not in syntax[1]


def test_limits_are_those_that_were_said(fork, ordinary_python):
    """And cannot be raised; of memory also that of a memfd."""

    def act(host):
        source = """
            import resource, mmap
            for name in ("NOFILE", "AS", "FSIZE", "CPU", "CORE"):
                say(resource.getrlimit(getattr(resource, "RLIMIT_" + name)))
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
            except ValueError:
                say("no")
            memfd = os.memfd_create("x")
            say(outcome(lambda: os.ftruncate(memfd, 1 << 40)), outcome(lambda: os.pwrite(memfd, b"x", 1 << 30)))
            try:
                bytearray(1 << 30)
            except MemoryError:
                say("no memory")
            kept = []
            try:
                while True:
                    kept.append(os.memfd_create("x"))
            except OSError as error:
                say(error.errno, len(kept) < 32)
        """
        return host.said(source, memory=512 << 20, cpu=60, descriptors=32)

    big = 512 << 20
    said = in_host(fork, ordinary_python, act)
    limits, rest = said[:5], said[5:]
    assert limits == [[32, 32], [big, big], [big, big], [60, 61], [0, 0]]
    assert rest == ["no", "OSError", "OSError", "no memory", 24, True]


def test_time_of_the_processor_is_bounded(fork, ordinary_python):
    """The signal says what it was."""

    def act(host):
        with host.start("while True: pass", cpu=1) as child:
            child.communicate(timeout=PATIENCE)
        return child.returncode

    assert in_host(fork, ordinary_python, act) == -signal.SIGXCPU


def test_it_goes_first_where_memory_is_out(fork, ordinary_python):
    """Before its host, which the kernel might choose else."""

    def act(host):
        with host.start("say(1); sys.stdin.read()", stdin=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"1\n"
            score = Path(f"/proc/{child.pid}/oom_score_adj").read_text()
            child.communicate(timeout=PATIENCE)
        return int(score)

    assert in_host(fork, ordinary_python, act) == 1000


def test_a_file_that_is_not_there_is_an_error_of_the_parents():
    """And so is a path that is to be read; nothing is left."""
    with child_program.registry() as (_, capability):
        with pytest.raises(FileNotFoundError) as raised:
            cm.spawn(["/nonexistent.py"], parent=capability, confine=cm.Confinement())
        assert raised.value.filename == "/nonexistent.py"
        for named in ("read", "write"):
            with pytest.raises(FileNotFoundError) as raised:
                cm.spawn([__file__], parent=capability, confine=cm.Confinement(**{named: ["/nonexistent"]}))
            assert raised.value.filename == "/nonexistent"
            assert f"No such file or directory, in Confinement({named}=...)" in str(raised.value)
        with pytest.raises(IsADirectoryError):
            cm.spawn(["/"], parent=capability, confine=cm.Confinement())


@pytest.mark.parametrize("name", ["x" * 70_000, "\udc80" * 20_000, "x" * 100_000], ids=["file", "bytes", "longer"])
def test_a_name_that_is_too_long_is_told(name):
    """What the launcher says of it fits one record; the name is cut."""
    with child_program.registry() as (_, capability):
        for args, options in ([name], {}), ([__file__], {"read": [name]}):
            with pytest.raises(OSError, match="too long") as raised:
                cm.spawn(args, parent=capability, confine=cm.Confinement(**options))
            assert raised.value.errno == errno.ENAMETOOLONG
            assert len(raised.value.filename) < 6000


def test_threads_end_where_the_table_is_full(said):
    """The C library loads a library for that, the first time, and ends the process where it can't."""
    source = """
        import threading

        def goes_on():
            while True:
                pass

        # Python ends it where the program has ended, in the middle.
        threading.Thread(target=goes_on, daemon=True).start()
        opened = []
        try:
            while True:
                opened.append(os.dup(0))
        except OSError:
            say(len(opened) > 30)
        # Takes a moment to end.
        much = [[each] for each in range(300_000)]
    """
    assert said(source) == [True]


def test_of_the_locale_only_what_is_known_is_handed_down(monkeypatch):
    """What somebody else calls LC_... may be anything."""
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv("LC_SECRET", "a token")
    made = launching.default_environment()
    assert made["LC_TIME"] == "C"
    assert "LC_SECRET" not in made
    assert "LC_SECRET" not in launching._for_python(dict(os.environ))


def test_a_file_that_it_may_not_read_is_told(tmp_path):
    """Root's launcher may read it until it is confined, and has no capabilities then: spawn() says so all the same."""
    path = tmp_path / "plugin.py"
    path.touch(mode=0)
    with child_program.registry() as (_, capability):
        with pytest.raises(PermissionError) as raised:
            cm.spawn([path], parent=capability, confine=cm.Confinement())
        assert raised.value.filename == str(path)


def test_what_lies_beside_the_file_comes_after_what_is_installed(fork, ordinary_python):
    """As all that read names: nothing of Python's is found there instead."""

    def act(host):
        host.file("raise AssertionError", name="colorsys.py")
        host.file("said = 'mine'", name="mine.py")
        source = """
            import colorsys, mine
            say("raise" not in open(colorsys.__file__).readline(), mine.said)
        """
        return host.said(source, read=[host.place])

    assert in_host(fork, ordinary_python, act) == [True, "mine"]


def test_a_module_beside_the_file_that_is_not_read_is_told(fork, ordinary_python):
    """By a note: that it is there is seen, and why it is not found would not be said."""

    def act(host):
        host.file("", name="mine.py")
        told = []
        for imported in ("mine", "mine.more", "yours"):
            with host.start(f"import {imported}") as child:
                _, errors = child.communicate(timeout=PATIENCE)
            told.append(errors.decode().splitlines()[-1].replace(str(host.place), "/place"))
        return told

    note = "it lies beside the file, in a directory that Confinement(read=['/place']) would name"
    assert in_host(fork, ordinary_python, act) == [note, note, "ModuleNotFoundError: No module named 'yours'"]


def test_temporary_files_are_where_it_may_write(tmp_path):
    """Not where its user may not, whatever root may: it has no capabilities."""
    closed, opened = tmp_path / "closed", tmp_path / "opened"
    closed.mkdir(mode=0o500)
    opened.mkdir()
    source = "import tempfile; print(tempfile.gettempdir()); tempfile.TemporaryFile().close()"
    (tmp_path / "plugin.py").write_text(source)
    with child_program.registry() as (_, capability):
        command, confine = [tmp_path / "plugin.py"], cm.Confinement(write=[closed, opened])
        with cm.spawn(command, parent=capability, confine=confine, stdout=subprocess.PIPE) as child:
            out, _ = child.communicate(timeout=PATIENCE)
    assert (out.decode(), child.returncode) == (f"{opened}\n", 0)


def test_a_file_that_is_none_is_refused_and_waited_for_by_nobody(tmp_path):
    """A FIFO would be opened for ever: nobody writes into it."""
    fifo = tmp_path / "plugin.py"
    os.mkfifo(fifo)
    with child_program.registry() as (_, capability):
        for path in (str(fifo), os.devnull):
            with pytest.raises(OSError, match="not a regular file") as raised:
                cm.spawn([path], parent=capability, confine=cm.Confinement())
            assert (raised.value.errno, raised.value.filename) == (errno.EINVAL, path)


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "plugin.py"],
        ["python3.11", "plugin.py"],
        ["python", "-m", "plugin"],
        ["-m", "plugin"],
        ["-c", "0"],
    ],
)
def test_an_interpreter_is_none_of_its_arguments(command):
    """As one is used to name it: spawn() has its own, and says so."""
    with child_program.registry() as (_, capability):
        with pytest.raises(ValueError, match="leave the interpreter away"):
            cm.spawn(command, parent=capability, confine=cm.Confinement())


def test_a_program_and_an_archive_are_no_python_file(tmp_path):
    """They are told before the process is confined, not by the compiler in a process that says nothing."""
    archive = tmp_path / "plugin.pyz"
    zipapp.create_archive(Path(__file__).parent.parent / "examples" / "plugin_api", archive, main="host_api:main")
    with child_program.registry() as (_, capability):
        for path in (os.path.realpath(sys.executable), str(archive)):
            with pytest.raises(OSError, match=r"no Python file \(with confine=, args is a Python file") as raised:
                cm.spawn([path], parent=capability, confine=cm.Confinement(read=["/"]))
            assert (raised.value.errno, raised.value.filename) == (errno.ENOEXEC, path)


@pytest.mark.parametrize(
    "options",
    [
        {"pass_fds": [0]},
        {"shell": True},
        {"executable": "/bin/sh"},
        {"preexec_fn": print},
        {"parent_as_stdin": True},
        {"descriptor_limit": 100},
        {"close_fds": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_would_hand_more_down_is_refused(options):
    """Before anything is started."""
    with child_program.registry() as (_, capability):
        with pytest.raises(ValueError, match=next(iter(options))):
            cm.spawn([__file__], parent=capability, confine=cm.Confinement(), **options)
        with pytest.raises(TypeError, match="Confinement"):
            cm.spawn([__file__], parent=capability, confine={"read": []})


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_it_is_started_in_event_loops(fork, ordinary_python, loop):
    """As aio.spawn() starts others."""

    def act(host):
        from capmarshal import aio
        from loops import run

        async def main():
            path = host.file("tell('awaited'); sys.exit(3)")
            async with await aio.spawn([path], parent=host.capability, confine=cm.Confinement()) as process:
                return await process.wait()

        return run(loop, main), host.told

    assert in_host(fork, ordinary_python, act) == (3, ["awaited"])


def test_root_is_confined_too(tmp_path):
    """Without the capabilities that it has."""
    path = tmp_path / "plugin.py"
    path.write_text(
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith(('Cap', 'NoNew', 'Sec'))])"
    )
    with child_program.registry() as (_, capability):
        confine = cm.Confinement(read=["/proc"])
        with cm.spawn([path], parent=capability, confine=confine, stdout=subprocess.PIPE) as child:
            out, _ = child.communicate(timeout=PATIENCE)
    inheritable, permitted, effective, _, ambient, privileges, mode, *_ = ast.literal_eval(out.decode())
    assert {int(each, 16) for each in (inheritable, permitted, effective, ambient)} == {0}
    assert (privileges, mode) == ("1", "2")
