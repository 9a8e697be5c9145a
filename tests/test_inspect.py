"""``capmarshal inspect``: who serves, holds and waits, of real processes; in each form, and what it could not see."""

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from xml.etree import ElementTree as ET

import pytest

import capmarshal as cm
from capmarshal import aio
from capmarshal.__main__ import main
from capmarshal._capabilities.capability import badge_of
from capmarshal._inspect import watching
from capmarshal._inspect.looking import look
from capmarshal._inspect.view import Channel, Door, Entrypoint, Holder
from child_program import Registry, RegistryServer
from inspected import HOLD, INSPECT, child, entrypoint, holders, on_a_terminal, process, seen, told
from patience import PATIENCE, until
from refusing import refuse

FORMS = ([], ["--json"], ["--dot"], ["--svg"])

TAKE = "\nheld = cm.parent()\n" + HOLD
CALL = "\ntell('something')\n" + HOLD


def test_who_serves_and_who_holds_under_how_many_descriptors():
    """The entrypoint's own door and those of its grants, together; the channels, by client."""
    with cm.Entrypoint("digest") as served, cm.Entrypoint("beside") as beside:
        capability = served.manage(RegistryServer())
        granted = served.grant(RegistryServer(), label="plugin 3")
        other = beside.manage(RegistryServer())
        twice = "\nheld = cm.parent(); again = os.dup(held.fileno())\n" + HOLD
        with child(CALL, capability) as caller, child(twice, granted) as plugin:
            view = seen()

            one = entrypoint(view, "digest")
            assert one["servers"] == [os.getpid()]
            assert one["door"]["name"] == capability.name
            assert holders(one["door"]) == {os.getpid(): 1, caller.pid: 1}
            (grant,) = one["grants"]
            assert (grant["label"], grant["grant"]) == ("plugin 3", True)
            assert holders(grant) == {os.getpid(): 1, plugin.pid: 2}
            assert [channel["clients"] for channel in one["channels"]] == [[caller.pid]]
            assert one["door"]["knocks"] is None
            assert not one["door"]["out_of_sight"]
            assert entrypoint(view, "beside")["grants"] == []
            assert holders(entrypoint(view, "beside")["door"]) == {os.getpid(): 1}
            assert process(view, caller.pid)["name"].endswith(" -c")
            assert process(view, caller.pid)["parent"] == os.getpid()
        del other


def test_only_what_has_to_do_with_the_processes_that_are_named():
    with cm.Entrypoint("mine") as served, cm.Entrypoint("its") as its:
        mine, capability = served.manage(RegistryServer()), its.manage(RegistryServer())
        with child(TAKE, capability) as holder:
            assert {each["door"]["label"] for each in seen()["entrypoints"]} == {"mine", "its"}
            assert [each["door"]["label"] for each in seen(holder.pid)["entrypoints"]] == ["its"]
        del mine


def test_what_nobody_has_taken_yet_is_in_flight():
    """A child that was given a capability, and has not taken it: no process has that, and the queue is known."""
    with cm.Entrypoint("digest") as served:
        granted = served.grant(RegistryServer(), label="untaken")
        # capmarshal, when it is imported, takes it.
        with child(["-c", f"import sys{HOLD}"], granted) as waiting:
            granted.close()
            view = seen()

            (grant,) = entrypoint(view, "digest")["grants"]
            assert grant["out_of_sight"]
            assert grant["holders"] == []
            (queue,) = [queue for queue in view["in_flight"] if queue["readers"] == [waiting.pid]]
            assert queue["descriptors"] == 1
            assert f"1 descriptor on the way to {process(view, waiting.pid)['name']}" in told(os.getpid())
            assert "in flight, or not seen" in told(os.getpid())


def test_a_grant_that_was_closed_by_its_last_holder_is_not_there():
    with cm.Entrypoint("digest") as served:
        granted = served.grant(RegistryServer(), label="gone")
        granted.close()
        until(lambda: entrypoint(seen(), "digest")["grants"] == [])


def test_who_connects_and_where():
    """The path, and how many wait there."""
    with contextlib.ExitStack() as stack:
        name = f"{os.environ.get('TMPDIR', '/tmp')}/inspected-{os.getpid()}"
        served = stack.enter_context(cm.Entrypoint("service"))
        served.listen(name, RegistryServer())
        assert entrypoint(seen(), "service")["listens"] == [{"path": name, "waiting": 0}]
        assert f"at {name}" in told(os.getpid())


def test_what_is_not_served_yet():
    """An entrypoint whose block was not entered, and a grant that nobody watches: it is that of the only one there."""
    with contextlib.closing(cm.Entrypoint("waits")) as made:
        granted = made.grant(RegistryServer(), label="early")
        one = entrypoint(seen(), "waits")
        assert [grant["label"] for grant in one["grants"]] == ["early"]
        assert one["channels"] == []
        del granted


def test_what_an_event_loop_serves():
    """Its own door, its grants and channels are those of one entrypoint, as ever."""

    class Slow(cm.Interface):
        @cm.method
        async def tell(self, what: str) -> int: ...

    class SlowServer(Slow):
        async def tell(self, what):
            return 1

    async def serve():
        async with aio.Entrypoint("awaited") as served:
            granted = served.grant(SlowServer(), label="its grant")
            assert await granted.cast(Slow).tell("") == 1
            return await asyncio.to_thread(seen)

    one = entrypoint(asyncio.run(serve()), "awaited")
    assert [grant["label"] for grant in one["grants"]] == ["its grant"]
    assert [channel["clients"] for channel in one["channels"]] == [[os.getpid()]]


def test_what_wakes_a_loop_is_no_channel(run_peer):
    """Where the main thread serves, the kernel's signals come by a pair of its own; and its own calls by channels."""

    def serve():
        class Thing(cm.Interface):
            @cm.method
            def touch(self) -> None: ...

        class ThingServer(Thing):
            def touch(self):
                print("serves", flush=True)

        with contextlib.closing(cm.Entrypoint("in the main thread")) as served:
            proxy = served.manage(ThingServer()).cast(Thing)
            threading.Thread(target=proxy.touch).start()
            with contextlib.suppress(KeyboardInterrupt):
                served.serve_forever()

    peer = run_peer(serve)
    assert peer.line() == "serves"
    assert [channel["clients"] for channel in entrypoint(seen(peer.pid), "in the main thread")["channels"]] == [
        [peer.pid]
    ]
    os.kill(peer.pid, signal.SIGINT)


def test_signals_are_no_channels():
    with cm.Entrypoint("told") as served:
        capability = served.manage(RegistryServer())
        sent = served.on_signal(lambda: None)
        sent.send()
        until(lambda: entrypoint(seen(), "told")["signals"] == 1)
        assert entrypoint(seen(), "told")["channels"] == []
        del capability


def _server(sock):
    """A peer that serves, and can be stopped."""

    class Registry(cm.Interface):
        @cm.method
        def tell(self, what: str) -> int: ...

    class Server(Registry):
        def tell(self, what):
            if what == "work":
                while not select_module.select([sock], [], [], 0)[0]:
                    pass
            if what == "wait":
                print("waits", flush=True)
                sock.recv(1)
            return 1

    import select as select_module

    with cm.Entrypoint("stopped") as entrypoint:
        cm.send_capability(sock, entrypoint.manage(Server()))
        print("serves", flush=True)
        sys.stdin = None
        # To the end of the test.
        end = select_module.poll()
        end.register(sock, select_module.POLLRDHUP)
        end.poll()


@pytest.fixture
def stoppable(run_peer, seqpacket):
    """(its process, its capability, a socket that ends it, or what its method waits for)."""
    near, far = seqpacket
    peer = run_peer(_server, far)
    far.close()
    capability = cm.receive_capability(near)
    assert peer.line() == "serves"
    yield peer, capability.cast(Registry), near
    capability.close()
    near.close()


@contextlib.contextmanager
def _calling(proxy, *words):
    """Threads that call, each with a channel of its own, until the block's end, by when they are to be answered."""

    def call(what):
        with cm.timeout(PATIENCE):
            proxy.tell(what)

    threads = [threading.Thread(target=call, args=(what,)) for what in words]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def _calls(view):
    """What waits in the channels of the server."""
    return [channel["calls"] for channel in entrypoint(view, "stopped")["channels"] if channel["calls"]]


def test_a_server_that_was_stopped_is_stuck_and_red(stoppable):
    """The process, the call that waits for it, and its client's knock, in every form."""
    peer, proxy, _ = stoppable
    proxy.tell("before")
    os.kill(peer.pid, signal.SIGSTOP)
    # Until it is, it may yet answer: it looks for the next call before it sleeps.
    until(lambda: process(seen(peer.pid), peer.pid)["state"] == "T")
    try:
        # The one by the channel that is there; the other knocks.
        with _calling(proxy, "one", "two"):
            try:
                view = until(lambda: (view := seen(peer.pid)) and _calls(view) and _knocks(view) and view)
                assert process(view, peer.pid)["state"] == "T"
                assert process(view, peer.pid)["stuck"]
                assert not process(view, os.getpid())["stuck"]
                assert [queue["stuck"] for queue in _calls(view)] == [True]
                assert entrypoint(view, "stopped")["door"]["knocks"]["stuck"]
                # A knock brings its channel's other end.
                assert entrypoint(view, "stopped")["door"]["knocks"]["descriptors"] == 1

                table = told(peer.pid)
                assert re.search(r"\[\d+\] \(stopped\) STUCK", table)
                assert "1 call STUCK" in table
                assert "1 knock STUCK" in table
                code, screen = on_a_terminal(peer.pid)
                assert code == 0
                assert re.search(r"\x1b\[1;31m[^\x1b]*\(stopped\)", screen)
                assert re.search(r"\x1b\[1;31m1 call\b", screen)
                (box,) = [line for line in told("--dot", peer.pid).splitlines() if "(stopped)" in line]
                assert "color=red" in box
                picture = ET.fromstring(told("--svg", peer.pid))
                red = [text.text for text in _texts(picture) if "--stuck" in text.get("style")]
                assert any("(stopped)" in text for text in red)
                assert any("waiting: 1 knock, 1 call" in text for text in red)
            finally:
                os.kill(peer.pid, signal.SIGCONT)
    finally:
        os.kill(peer.pid, signal.SIGCONT)
    after = until(lambda: (view := seen(peer.pid)) and not _calls(view) and view)
    assert not process(after, peer.pid)["stuck"]


def _knocks(view):
    return entrypoint(view, "stopped")["door"]["knocks"]


def _waiting(view):
    return [*_calls(view), *filter(None, [_knocks(view)])]


def _texts(picture):
    return picture.iter("{http://www.w3.org/2000/svg}text")


def test_a_server_that_waits_in_a_method_is_stuck_and_one_that_works_is_not(stoppable):
    """What waits behind a call in progress: whether the process has had the processor makes the difference."""
    peer, proxy, near = stoppable
    for word, stuck in (("wait", True), ("work", False)):
        # One of them runs, the other waits: at the door, or in a channel once it has one.
        with _calling(proxy, word, word):
            try:
                until(lambda stuck=stuck: [queue["stuck"] for queue in _waiting(seen(peer.pid))] == [stuck])
            finally:
                near.send(b"1")
                near.send(b"2")


def test_a_client_that_does_not_read_its_answers(stoppable, run_peer, make_pair):
    """It is the client that is stuck, then."""
    one, other = make_pair()

    def client(sock):
        class Registry(cm.Interface):
            @cm.method
            def tell(self, what: str) -> int: ...

        registry = cm.receive_capability(sock).cast(Registry)
        registry.tell("one")
        print("calls", flush=True)
        registry.tell("wait")

    peer, proxy, near = stoppable
    slow = run_peer(client, other)
    other.close()
    cm.send_capability(one, cm.capability(proxy))
    assert slow.line() == "calls"
    # It is stopped while its call runs, whose answer it then does not take.
    assert peer.line() == "waits"
    os.kill(slow.pid, signal.SIGSTOP)
    until(lambda: process(seen(slow.pid), slow.pid)["state"] == "T")
    near.send(b"1")
    try:
        view = until(lambda: (view := seen(peer.pid)) and _answers(view) and view)
        assert [queue["readers"] for queue in _answers(view)] == [[slow.pid]]
        assert process(view, slow.pid)["stuck"]
        assert not process(view, peer.pid)["stuck"]
    finally:
        os.kill(slow.pid, signal.SIGCONT)
    slow.finish()


def _answers(view):
    channels = entrypoint(view, "stopped")["channels"]
    return [channel["answers"] for channel in channels if channel["answers"]]


def test_an_ordinary_user_sees_its_own_and_is_told_what_not(ordinary_python):
    """Its own processes; how many others there are; and of those that it names, why not."""
    python, options = ordinary_python
    program = """\
        import capmarshal as cm, os, subprocess, sys
        class Thing(cm.Interface): ...
        with cm.Entrypoint("ordinary") as entrypoint:
            capability = entrypoint.manage(Thing())
            print(os.getpid(), flush=True)
            sys.exit(subprocess.run([sys.executable, "-P", "-m", "capmarshal", "inspect", "--json"]).returncode)
    """
    with cm.Entrypoint("of another user") as served:
        capability = served.manage(RegistryServer())
        out = told(command=[python, "-P", "-c", textwrap.dedent(program)], cwd="/", **options)
        pid, _, text = out.partition("\n")
        view = json.loads(text)
        one = entrypoint(view, "ordinary")
        assert one["servers"] == [int(pid)]
        assert holders(one["door"]) == {int(pid): 1}
        if os.getuid() == 0:
            assert os.getpid() not in {each["pid"] for each in view["processes"]}
            assert not any(each["door"]["label"] == "of another user" for each in view["entrypoints"] if each["door"])
            assert any(
                re.fullmatch(r"[\d,]+ process(es)? that .* may not look into: of root.*", line)
                for line in view["not_seen"]
            )
            assert any(
                re.match(r"[\d,]+ doors? of which no process that was seen has an end: of ", line)
                for line in view["not_seen"]
            )
            why = "it is another user's, or it does not let itself be"
            complaint = f"capmarshal: process {os.getpid()} may not be looked into: {why}\n"
            command = [python, "-P", "-m", "capmarshal", "inspect"]
            assert told(os.getpid(), code=1, stderr=complaint, command=command, cwd="/", **options) == ""
        del capability


def test_a_holder_whose_server_is_not_seen(ordinary_python):
    """Who was given a capability by another user's process sees the door, and of whom it is."""
    if os.getuid() != 0:
        pytest.skip("needs root, to be another user besides")
    python, options = ordinary_python
    program = """\
        import capmarshal as cm, os, subprocess, sys
        held = cm.parent()
        sys.exit(subprocess.run([sys.executable, "-P", "-m", "capmarshal", "inspect", str(os.getpid())]).returncode)
    """
    with cm.Entrypoint("of root") as served:
        capability = served.manage(RegistryServer())
        command = [python, "-P", "-c", textwrap.dedent(program)]
        done = cm.spawn(command, parent=capability, stdout=subprocess.PIPE, text=True, cwd="/", **options)
        out, _ = done.communicate(timeout=PATIENCE)
        assert done.returncode == 0
        (line,) = [line for line in out.splitlines() if "of root" in line and "not seen: of root" in line]
        assert f"[{done.pid}]" in line


def test_a_process_that_does_not_let_itself_be_looked_into(ordinary_python):
    """As a confined one: it is said to be there, and that its channel's client was not seen."""
    python, options = ordinary_python
    program = """\
        import capmarshal as cm, ctypes, os, subprocess, sys
        class Thing(cm.Interface):
            @cm.method
            def touch(self) -> None: ...
        class ThingServer(Thing):
            def touch(self):
                pass
        if len(sys.argv) > 1:
            cm.parent().cast(Thing).touch()
            ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE
            print(flush=True)
            sys.stdin.read()
            sys.exit()
        with cm.Entrypoint("ordinary") as entrypoint:
            streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            command = [sys.executable, "-P", *sys.orig_argv[sys.orig_argv.index("-c"):], "child"]
            with cm.spawn(command, parent=entrypoint.grant(ThingServer(), label="hidden"), **streams) as child:
                child.stdout.readline()
                subprocess.run([sys.executable, "-P", "-m", "capmarshal", "inspect", "--json"], check=True)
            print(child.pid)
    """
    out = told(command=[python, "-P", "-c", textwrap.dedent(program)], cwd="/", **options)
    text, _, pid = out.partition("\n")
    view = json.loads(text)
    one = entrypoint(view, "ordinary")
    if int(pid) in {each["pid"] for each in view["processes"]}:
        pytest.skip("this user may look into any process")
    assert [channel["clients"] for channel in one["channels"]] == [[]]
    assert any("of this user that no other may look into" in line for line in view["not_seen"])


def test_where_the_kernel_lists_no_sockets(fork):
    """The error says whose refusal that is."""

    def ask():
        refuse(("sendmsg",))
        try:
            look()
        except OSError as error:
            return str(error)

    words = "the kernel lists no sockets here, sock_diag(7): Operation not permitted"
    assert fork(ask).result() == f"[Errno 1] {words}"


def _unshared(*options):
    """The command that runs another in namespaces of its own; skips where it can't."""
    unshare = shutil.which("unshare")
    command = [unshare, "--map-root-user", *options]
    if unshare is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no such namespaces can be made here")
    return command


def test_other_network_namespaces_are_named():
    """A client that is in one makes its channels there: that it has some is seen, and that they are not listed."""
    command = _unshared("--net")
    with cm.Entrypoint("digest") as served:
        capability = served.manage(RegistryServer())
        program = [*command, sys.executable, "-I", "-c"]
        source = textwrap.dedent(
            """
            import capmarshal as cm, sys
            class Registry(cm.Interface):
                @cm.method
                def tell(self, what: str) -> int: ...
            cm.parent().cast(Registry).tell("here")
            print("here", flush=True)
            sys.stdin.read()
            """
        )
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with cm.spawn([*program, source], parent=capability, **streams) as inside:
            assert inside.stdout.readline() == "here\n"
            view = seen()
            inside.kill()
        one = entrypoint(view, "digest")
        assert holders(one["door"]) == {os.getpid(): 1, inside.pid: 1}
        assert [channel["clients"] for channel in one["channels"]] == [[]]
        assert any("other network namespaces" in line and str(inside.pid) in line for line in view["not_seen"])


def test_processes_outside_of_a_pid_namespace_are_not_seen_and_that_is_said():
    command = _unshared("--pid", "--fork", "--mount-proc")
    line = "not seen: processes outside of this PID namespace, which may hold capabilities too\n"
    assert line in told(command=[*command, *INSPECT])


def test_a_proc_that_hides_processes_is_named(ordinary_python):
    """Of others, it says, there may be more than it can count."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, and setpriv to become an ordinary user")
    python, options = ordinary_python
    hiding = "mount -t proc -o hidepid=2 none /proc"
    become = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    namespaces = ("--pid", "--fork", "--mount")
    unshare, *_ = _unshared(*namespaces)
    command = [unshare, *namespaces, "sh", "-c", f'{hiding} && exec {become} "$@"', "sh", python, *INSPECT[1:]]
    out = told(command=command, env=options["env"], cwd="/")
    assert "not seen: processes of other users at all, since /proc is mounted with hidepid\n" in out


def test_without_proc_one_line_says_so():
    command = [*_unshared("--mount"), "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh", *INSPECT]
    words = "no proc(5) is mounted at /proc, which would tell of processes"
    told(command=command, code=1, stderr=f"capmarshal: inspect: [Errno 2] {words}\n")


def test_no_process_no_view():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    told(gone.pid, code=1, stderr=f"capmarshal: there is no process {gone.pid}\n")


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_no_form_shows_a_badge(form):
    with cm.Entrypoint("secretive") as served:
        capability = served.manage(RegistryServer())
        granted = served.grant(RegistryServer(), label="secret")
        with child(CALL, granted):
            text = told(*form, os.getpid())
        assert "secretive" in text
        for held in (capability, granted):
            badge = badge_of(held)
            for written in (badge.hex(), badge.hex()[:8], str(list(badge)), repr(badge)):
                assert written not in text


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_into_a_file_at_once(form, tmp_path):
    """Nobody finds half of one, and nothing else is left beside it."""
    file = tmp_path / "picture"
    file.write_text("before")
    before = file.stat().st_ino
    assert told(*form, "--output", file, os.getpid()) == ""
    assert file.read_text()
    assert file.read_text() != "before"
    assert file.stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["picture"]
    nowhere = tmp_path / "none" / "picture"
    complaint = f"capmarshal: inspect: [Errno 2] No such file or directory: '{nowhere}'\n"
    told(*form, "-o", nowhere, code=1, stderr=complaint)


def test_no_link_that_others_have_put_into_a_folder_is_followed(tmp_path):
    """Neither one with the name that is given, nor one with any name that another process can know before."""
    folder, victim = tmp_path / "shared", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("kept")
    file = folder / "picture"
    # It plants the link by its own number, and becomes the command.
    plant = "import os, sys; os.symlink(sys.argv[1], f'{sys.argv[2]}/.picture.{os.getpid()}'); os.execv(sys.executable,"
    command = [sys.executable, "-c", f"{plant} sys.argv[3:])", victim, folder, *INSPECT]
    file.symlink_to(victim)
    for _ in range(2):
        told("--json", "-o", file, os.getpid(), command=[*map(str, command)])
        assert victim.read_text() == "kept"
        assert not file.is_symlink()
        assert json.loads(file.read_text())
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask
    # Nor one that leads to what is written to, as a disk is.
    file.unlink()
    file.symlink_to(os.devnull)
    told("--json", "-o", file, os.getpid())
    assert not file.is_symlink()
    assert json.loads(file.read_text())


def test_what_becomes_a_file_while_it_is_opened_is_replaced_and_not_written_to(tmp_path, monkeypatch):
    file = tmp_path / "picture"
    os.mkfifo(file)
    found = file.lstat()
    file.unlink()
    file.write_text("another's")
    before = file.stat().st_ino
    kept = file.open()
    with kept, monkeypatch.context() as lies:
        lies.setattr(type(file), "lstat", lambda _: found)
        watching.written(lambda: "picture", file, None)
        assert kept.read() == "another's"
    assert (file.read_text(), file.stat().st_ino == before) == ("picture", False)


def test_into_a_pipe_and_into_what_is_open_already(tmp_path):
    """A name of a descriptor is none of a file: what it leads to is written to, and nothing is made beside it."""
    os.mkfifo(tmp_path / "pipe")
    with open(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK), "rb") as reading:
        told("--json", "-o", tmp_path / "pipe", os.getpid())
        assert json.loads(reading.read())
    # Not /dev/stdout: who replaced that, as root, would have broken the machine.
    for name in ("/dev/fd/1", "/proc/self/fd/1"):
        with (tmp_path / "printed").open("w+") as printed:
            command = [*INSPECT, "--json", "-o", name, str(os.getpid())]
            assert subprocess.run(command, stdout=printed, check=False, timeout=PATIENCE).returncode == 0
            assert os.fstat(printed.fileno()).st_nlink == 1
            assert json.loads(printed.read())


def test_it_looks_again_until_it_is_interrupted():
    with cm.Entrypoint("watched") as served:
        capability = served.manage(RegistryServer())
        command = [*INSPECT, "--json", "--watch", "0.01", str(os.getpid())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE) as watching:
            assert entrypoint(json.loads(watching.stdout.readline()), "watched")["grants"] == []
            granted = served.grant(RegistryServer(), label="new")
            until(lambda: entrypoint(json.loads(watching.stdout.readline()), "watched")["grants"])
            watching.send_signal(signal.SIGINT)
            _, complaints = watching.communicate(timeout=PATIENCE)
        assert (watching.returncode, complaints) == (130, "")
        del capability, granted


def test_it_redraws_a_terminal_until_it_is_interrupted():
    own, its = pty.openpty()
    with cm.Entrypoint("redrawn") as served, open(own, "rb", buffering=0) as screen:
        capability = served.manage(RegistryServer())
        environment = os.environ | {"COLUMNS": "200", "LINES": "50", "TERM": "xterm"}
        command = [*INSPECT, "--watch", "0.01", str(os.getpid())]
        with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment) as watching:
            os.close(its)
            _read_until(screen, b"redrawn", 3)
            watching.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):
                while screen.read(1 << 16):
                    pass
            assert watching.wait(PATIENCE) == 130
        del capability


def _read_until(screen, word, times):
    """Reads until the word has come so often."""
    text = b""
    while text.count(word) < times:
        assert select.select([screen], [], [], PATIENCE)[0]
        text += screen.read(1 << 16)


def _door(label, *pids):
    return Door(label, label, True, 0, (), True, tuple(Holder(pid, 1) for pid in pids), None, False)


def _channel(*pids):
    return Channel(tuple(Holder(pid, 1) for pid in pids), None, None)


def test_a_channel_is_of_the_only_door_that_its_client_holds():
    """Else of the first: of whoever holds several, or was not seen.  Thousands of both are no more than thousands."""
    many = 5_000
    doors = [_door("first", 1, 2), *(_door(f"grant {number}", 1, 10 + number) for number in range(many))]
    channels = [_channel(1), _channel(2), _channel(), _channel(3), *(_channel(10 + number) for number in range(many))]
    made = Entrypoint(None, tuple(doors), tuple(channels), 0, ()).channels_by_door()
    assert made == [channels[:4], *([channel] for channel in channels[4:])]


def test_whoever_reads_may_have_had_enough():
    """As `| head -1` has."""
    with subprocess.Popen([*INSPECT, "--watch", "0.01"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        started.stdout.readline()
        started.stdout.close()
        assert started.stderr.read() == b""
        assert started.wait(PATIENCE) == 0


def test_without_rich_a_terminal_is_told_what_to_install():
    """And lines need none."""
    source = (
        "import sys; sys.modules['rich'] = None; from capmarshal.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-P", "-c", source, "inspect"]
    assert told(os.getpid(), command=command)
    code, screen = on_a_terminal(os.getpid(), command=command)
    assert code == 1
    assert "pip install 'rich>=13.7'" in screen
    assert "Traceback" not in screen


@pytest.mark.parametrize("arguments", [["--watch", "0"], ["--watch", "nan"], ["--json", "--dot"], ["x"]], ids=" ".join)
def test_what_makes_no_sense_is_refused(arguments):
    done = subprocess.run([*INSPECT, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert "usage: capmarshal inspect" in done.stderr


def test_processes_may_end_while_they_are_looked_at():
    """Looks go on, and say nothing of what has gone."""
    over = threading.Event()

    def start():
        while not over.is_set():
            with cm.Entrypoint("short"):
                subprocess.run(["true"], check=True)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            for each in look().entrypoints:
                assert each.doors
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_many_are_all_there():
    """30 entrypoints with 10 channels each, of one client: each is counted, and none twice."""
    with contextlib.ExitStack() as stack:
        entrypoints = [stack.enter_context(cm.Entrypoint(f"one of many {number}")) for number in range(30)]
        proxies = [each.manage(RegistryServer()).cast(Registry) for each in entrypoints]
        hub = stack.enter_context(cm.Entrypoint("hub"))
        program = """
            from capmarshal._capabilities.capability import open_door_of
            class Hub(cm.Interface):
                @cm.method
                def all(self) -> list[Registry]: ...
            for proxy in (held := cm.parent().cast(Hub).all()):
                idle, used = open_door_of(cm.capability(proxy)).idle, []
                # As that many threads would that call at the same time: whoever finds no channel idle makes one.
                for _ in range(10):
                    proxy.tell("")
                    used.append(idle.pop())
                idle += used
        """
        client = stack.enter_context(child(textwrap.dedent(program) + HOLD, hub.manage(Hub(proxies))))
        view = seen()
        for number in range(30):
            one = entrypoint(view, f"one of many {number}")
            assert [channel["clients"] for channel in one["channels"]] == [[client.pid]] * 10
            assert holders(one["door"]) == {os.getpid(): 1, client.pid: 1}


class _All(cm.Interface):
    @cm.method
    def all(self) -> list[Registry]: ...


class Hub(_All):
    """Hands them all out."""

    def __init__(self, proxies):
        self._proxies = proxies

    def all(self):
        return self._proxies


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("0", "'0' is no number of seconds, more than 0"),
        ("x", "'x' is no number of seconds"),
        ("inf", "'inf' never ends"),
    ],
)
def test_what_is_no_time_to_look_again(word, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", "--watch", word])
    assert said in capsys.readouterr().err
