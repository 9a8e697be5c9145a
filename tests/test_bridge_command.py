"""``capmarshal bridge``, as its users have it: processes of its own, a service, and clients."""

import argparse
import asyncio
import io
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import bridge_commands
import capmarshal as cm
import commands
import nats_servers
import secured_nodes
from capmarshal._bridge_command import running
from capmarshal._bridge_command.duties import Duties
from capmarshal._bridge_command.settings import of_file
from desk import DeskServer
from patience import PATIENCE, until

UNREACHABLE = "nats://127.0.0.1:1"
# Another bridge's, or nobody's.
TOKEN = f"cm1:far:{'0' * 32}:{'1' * 64}"


@pytest.fixture
def node(tmp_path):
    """The options that name a node which runs."""
    with nats_servers.nodes(tmp_path) as [node]:
        yield "--engine", node.address


@pytest.fixture
def service(tmp_path):
    """The path of a service."""
    with cm.Entrypoint("desk") as entrypoint:
        entrypoint.listen(tmp_path / "desk.sock", DeskServer())
        yield tmp_path / "desk.sock"


def exported(node, service, **options):
    return bridge_commands.bridge(*node, "--name", "far", "export", service, **options)


def called(path):
    status, out, err = commands.run("call", path, "add", "a line")
    assert (status, err) == (0, "")
    return int(out)


def test_a_service_is_called_on_another_machine(node, service, tmp_path):
    """By a token that is printed on the one, and handed over to the other."""
    with exported(node, service) as far:
        [(token, path)] = far.ready().tokens()
        assert path == str(service)
        there = tmp_path / "there.sock"
        with bridge_commands.bridge(
            *node, "--name", "near", "import", "-", "--at", there, stdin=subprocess.PIPE
        ) as near:
            near.tell(f"{token}\n")
            near.ready()
            assert stat.S_IMODE(there.stat().st_mode) == 0o600
            assert called(there) == 1
            assert called(service) == 2
            assert near.end() == 0
            assert not there.exists()
            assert near.out.text == ""
            assert "a link with far has begun" in near.err.text
        assert far.end() == 0
        assert far.out.text == f"{token} {service}\n"
        assert "the link with near has ended: the other bridge has ended it" in far.err.text


def test_a_token_is_shown_nowhere_else(node, service, tmp_path):
    """Neither in a command line, nor in a log."""
    with exported(node, service) as far:
        [(token, _)] = far.ready().tokens()
        _, _, name, key = token.split(":")
        (tmp_path / "token").write_text(f"{token} {service}\n")
        (tmp_path / "token").chmod(0o600)
        words = "--name", "near", "import", f"@{tmp_path / 'token'}", "--at", tmp_path / "there.sock", "--mode", "0660"
        with bridge_commands.bridge(*node, *words) as near:
            near.ready()
            assert called(tmp_path / "there.sock") == 1
            assert stat.S_IMODE((tmp_path / "there.sock").stat().st_mode) == 0o660
            shown = b"".join(Path(f"/proc/{each.pid}/cmdline").read_bytes() for each in (near, far)).decode()
            near.end(), far.end()
            said = shown + near.out.text + near.err.text + far.err.text
            assert name not in said
            assert key not in said


def test_a_token_on_the_command_line_is_refused(tmp_path, capfd):
    """With what to do instead, before anything else is done with it."""
    words = "bridge", "--engine", UNREACHABLE, "import", TOKEN, "--at", tmp_path / "there.sock"
    status, out, err = commands.here(capfd, *words)
    assert (status, out) == (2, "")
    assert "write @FILE, or - for standard input" in err
    assert TOKEN[-64:] not in err


def test_tokens_are_not_printed_where_others_read_them(service, tmp_path, monkeypatch):
    words = "bridge", "--engine", UNREACHABLE, "export", service
    with open(tmp_path / "tokens", "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        done = subprocess.run([*commands.COMMAND, *words], stdout=file, stderr=subprocess.PIPE, timeout=PATIENCE)
        assert (done.returncode, b"umask 077" in done.stderr) == (1, True)
        os.fchmod(file.fileno(), 0o600)
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        done = subprocess.run([*commands.COMMAND, *words], stdout=file, stderr=subprocess.PIPE, timeout=PATIENCE)
        assert (done.returncode, b"the journal would have the tokens" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    "words",
    [
        ["import", "@secret", "--at", "there.sock"],
        ["--credentials", "secret", "export", "x.sock"],
        ["export", "x.sock", "--certificate", "public", "--key", "secret"],
        # One that has its key, too.
        ["export", "x.sock", "--certificate", "secret"],
    ],
)
def test_secrets_that_others_may_read_are_refused(words, tmp_path, capfd, monkeypatch):
    """Before anything is done with them; that a group may is for who has made that group."""
    monkeypatch.chdir(tmp_path)
    for name, mode in (("secret", 0o604), ("public", 0o644)):
        Path(name).write_text(f"{TOKEN}\n")
        Path(name).chmod(mode)
    status, out, err = commands.here(capfd, "bridge", "--engine", UNREACHABLE, *words)
    assert (status, out) == (2, "")
    assert "may be read by all users of this machine: chmod o-r secret" in err
    Path("secret").chmod(0o660)
    status, _, err = commands.here(capfd, "bridge", "--engine", UNREACHABLE, *words)
    assert status != 2
    assert "chmod" not in err


def test_what_is_no_service_is_not_exported(node, tmp_path):
    """Nor is a token printed for it: nothing that listens can ever be made there."""
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file"):
        status, out, err = commands.run("bridge", *node, "export", tmp_path / "later.sock", place)
        assert (status, out) == (1, "")
        assert f"{place} can't be exported: it is no socket of a service's" in err


def test_a_socket_at_which_nobody_listens(node, tmp_path):
    """As one leaves that was killed: it may be started again, and until then that is said."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(tmp_path / "desk.sock"))
    with exported(node, tmp_path / "desk.sock") as far:
        far.ready()
        far.err.until("desk.sock: no service is there yet: ")


def test_options_before_and_after_what_is_to_be_done(node, service):
    """Nodes are all those that are named, wherever."""
    with bridge_commands.bridge("--engine", UNREACHABLE, "export", service, *node, "--name", "late") as late:
        late.err.until("bridge late is ready")
        assert late.end() == 0
    status, _, err = commands.run(
        "bridge", "--engine", UNREACHABLE, "export", "--engine", "nats://127.0.0.1:2", service
    )
    assert status == 3
    assert UNREACHABLE in err
    assert "nats://127.0.0.1:2" in err


def test_doors_at_paths_are_told_from_each_other(node, service, tmp_path):
    """By whose service it is, and where it is here."""
    with exported(node, service) as far:
        [(token, _)] = far.ready().tokens()
        (tmp_path / "token").write_text(token)
        (tmp_path / "token").chmod(0o600)
        there = tmp_path / ("desk\n" + "x" * 80)
        words = "import", f"@{tmp_path / 'token'}", "--at"
        with (
            bridge_commands.bridge(*node, "--name", "near", *words, tmp_path / "there.sock") as near,
            bridge_commands.bridge(*node, "--name", "other", *words, there) as other,
        ):
            near.ready(), other.ready()
            assert cm.connect(tmp_path / "there.sock").label == "far: there.sock"
            assert cm.connect(there).label == f"far: desk{'x' * 55}"


def test_an_engine_that_cannot_be_reached(service):
    status, out, err = commands.run("bridge", "--engine", UNREACHABLE, "export", service)
    assert (status, out) == (3, "")
    assert UNREACHABLE in err


def test_an_engine_that_does_not_know_this_one(service, tmp_path):
    """Without credentials, with those of another bridge, and with its own."""
    with secured_nodes.secured(tmp_path, count=1) as secured:
        words = "--engine", secured.addresses[0], "--ca", secured.ca, "--name", "web1"
        status, out, err = commands.run("bridge", *words, "export", service)
        assert (status, out) == (3, "")
        assert "Authorization Violation" in err
        words = *words, "--credentials"
        status, out, err = commands.run("bridge", *words, secured.seed("render1"), "export", service)
        assert (status, out) == (3, "")
        assert 'may not subscribe to "_INBOX.web1' in err
        with bridge_commands.bridge(*words, secured.seed("web1"), "export", service) as bridge:
            assert bridge.ready().tokens()
            assert bridge.end() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "x.sock"], "say --engine"),
        (["--engine", "http://x", "export", "x.sock"], "nats://HOST:PORT"),
        (["--engine", "nats://me:secret@x", "export", "x.sock"], "no credentials in it"),
        (["--engine", "nats://x:99999", "export", "x.sock"], "a number from 1 to 65535"),
        (["--engine", "nats://x:abc", "export", "x.sock"], "a number from 1 to 65535"),
        (["--engine", "nats://x:0", "export", "x.sock"], "a number from 1 to 65535"),
        (["--engine", UNREACHABLE, "--name", "No Such", "export", "x.sock"], "lower-case"),
        (["--engine", UNREACHABLE, "--key", "x.pem", "export", "x.sock"], "a key is of a certificate"),
        (["--engine", UNREACHABLE, "import", "@no.token", "--at", "x.sock"], "no.token: No such file"),
        (["--engine", UNREACHABLE, "import", "-", "--at", "x.sock"], "standard input is to have one token, and has 0"),
        (["--engine", UNREACHABLE, "import", "@x", "--at", "x.sock", "--mode", "rw"], "no mode of a file"),
        (["--engine", UNREACHABLE], "export | import | run"),
        (["run", "no.toml"], "no.toml: No such file"),
    ],
)
def test_what_cannot_be_meant(words, said, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    status, out, err = commands.here(capfd, "bridge", *words)
    assert (status, out) == (2, "")
    assert said in err
    assert "secret" not in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engine = [", "bridge.toml: "),
        ("name =", "Invalid value (at end of document)"),
        ("engines = []", "`engines` is nothing that a bridge knows; it knows engine, name,"),
        ("name = 5", "`name` is a number, and text is due"),
        ('engine = ["x", true]', "one in the list of `engine` is true or false, and an address is due"),
        ("exports = []", "`exports` is a list, and a table is due: [exports], and a line each below it"),
        (
            '[exports]\n"a.sock" = 1',
            '"a.sock" in [exports] is a number, and the file of its token, or a list of such, is due',
        ),
        ('[imports]\n"a.sock" = ["x"]', '"a.sock" in [imports] is a list, and the file of a token, or { token ='),
        ('[imports]\n"a.sock" = { mode = 0o660 }', '"a.sock" in [imports] has no `token`: the file of one is due'),
        ('[imports]\n"a.sock" = { token = "x", mode = 0o7777 }', '`mode` of "a.sock" in [imports] is none of a file'),
        (
            '[imports]\n"a.sock" = { token = 1 }',
            '`token` of "a.sock" in [imports] is a number, and the file of one',
        ),
        ('[exports]\n"a.sock" = "x"\n"b.sock" = "x"', "one file is named for two exports"),
        ('[exports]\n"a.sock" = ["\\u0000"]', 'one in the list of "a.sock" in [exports] has a NUL in it'),
        ('[exports]\n"\\u0000.sock" = []', "a path in [exports] has a NUL in it"),
        ('[imports]\n"\\u0000.sock" = "x"', "a path in [imports] has a NUL in it"),
        ('[imports]\n"a.sock" = { token = "\\u0000" }', '`token` of "a.sock" in [imports] has a NUL in it'),
        ('credentials = "x\\u0000"', "`credentials` has a NUL in it"),
        (f"name = {'[' * 10_000}", "bridge.toml: "),
        (
            '[imports]\n"a.sock" = { token = "x", made = 1 }',
            '"a.sock" in [imports] has `made`, and may have token',
        ),
    ],
)
def test_a_file_that_cannot_be_meant(text, said, tmp_path, capfd):
    (tmp_path / "bridge.toml").write_text(text)
    status, out, err = commands.here(capfd, "bridge", "--engine", UNREACHABLE, "run", tmp_path / "bridge.toml")
    assert (status, out) == (2, "")
    assert said in err


def test_a_name_that_another_one_has(node, service):
    """It is refused as long as that runs, and free as soon as it was killed."""
    with exported(node, service) as first:
        first.ready()
        with exported(node, service) as second:
            assert second.status() == 1
            assert "a bridge named 'far' runs already" in second.err.text
            assert second.out.text == ""
        first.kill()
        with exported(node, service) as third:
            third.ready()


def test_one_bridge_for_all_that_a_machine_needs(node, service, tmp_path):
    """Its tokens stay good when it is started again."""
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir(), near.mkdir()
    (far / "bridge.toml").write_text(
        f'engine = "{node[1]}"\nname = "far"\n[exports]\n"{service}" = ["one.token", "two.token"]\n'
    )
    (near / "bridge.toml").write_text(
        'name = "not this"\n[imports]\n"one.sock" = "../far/one.token"\n'
        '"two.sock" = { token = "two.token", mode = 0o660 }\n'
    )
    with bridge_commands.bridge("run", far / "bridge.toml") as first:
        first.ready()
        assert first.out.text == ""
        assert stat.S_IMODE((far / "one.token").stat().st_mode) == 0o600
        (near / "two.token").write_bytes((far / "two.token").read_bytes())
        (near / "two.token").chmod(0o644)
        with bridge_commands.bridge(*node, "--name", "near", "run", near / "bridge.toml") as other:
            assert other.status() == 1
            assert "near/two.token has a token, and may be read by all users" in other.err.text
        (near / "two.token").chmod(0o640)
        with bridge_commands.bridge(*node, "--name", "near", "run", near / "bridge.toml") as other:
            other.ready()
            assert stat.S_IMODE((near / "two.sock").stat().st_mode) == 0o660
            assert called(near / "one.sock") == 1
            assert first.end() == 0
            with bridge_commands.bridge("run", far / "bridge.toml") as again:
                again.ready()
                assert (called(near / "one.sock"), called(near / "two.sock")) == (2, 3)


def test_a_file_is_read_again(node, service, tmp_path):
    """What is not exported there any more is revoked, what is new is there, and the rest is not disturbed."""
    file = tmp_path / "far.toml"
    file.write_text(f'[exports]\n"{service}" = ["stays.token", "goes.token"]\n')
    with bridge_commands.bridge(*node, "--name", "far", "run", file) as far:
        far.ready()
        stays, goes = tmp_path / "stays.sock", tmp_path / "goes.sock"
        (tmp_path / "near.toml").write_text(
            f'[imports]\n"{stays}" = "stays.token"\n"{goes}" = "goes.token"\n"new.sock" = "new.token"\n'
        )
        file.write_text(f'[exports]\n"{service}" = ["stays.token", "new.token"]\n')
        with bridge_commands.bridge(*node, "--name", "near", "run", tmp_path / "near.toml") as near:
            # Not there yet.
            assert near.status() == 1
            assert "new.token: No such file" in near.err.text
        far.send(signal.SIGHUP)
        far.err.until("has read its file again")
        with bridge_commands.bridge(*node, "--name", "near", "run", tmp_path / "near.toml") as near:
            near.ready()
            desk = cm.connect(stays)
            assert called(tmp_path / "new.sock") == 1
            status, _, _ = commands.run("call", goes, "nothing")
            assert status == 3
            file.write_text("no TOML")
            far.send(signal.SIGHUP)
            far.err.until("or not all of it")
            assert not desk.gone
            # Another token in the place of one that was stolen, say.
            (tmp_path / "stays.token").unlink()
            file.write_text(f'credentials = "x"\n[exports]\n"{service}" = "stays.token"\n')
            far.send(signal.SIGHUP)
            far.err.until("stay as they were")
            cm.wait_gone(desk, PATIENCE)


def test_a_token_that_cannot_be_kept(node, service, tmp_path):
    """Nor be looked for."""
    name = 300 * "x"
    (tmp_path / "bridge.toml").write_text(f'[exports]\n"{service}" = "{name}"\n')
    status, out, err = commands.run("bridge", *node, "--name", "far", "run", tmp_path / "bridge.toml")
    assert (status, out) == (1, "")
    assert "can't be made: File name too long" in err
    assert "Traceback" not in err


def test_whatever_is_met_when_a_file_is_read_again_is_logged(tmp_path, caplog):
    """The bridge serves on."""
    (tmp_path / "bridge.toml").write_text(f'engine = "{UNREACHABLE}"\n')
    parsed = argparse.Namespace(
        deed="run",
        file=str(tmp_path / "bridge.toml"),
        name="far",
        engine=[],
        credentials="",
        ca="",
        certificate="",
        key="",
    )

    class Unexpected(Duties):
        async def take(self, exports, imports):
            raise ValueError("nobody has thought of that")

    async def program():
        settings = of_file(tmp_path / "bridge.toml", parsed)
        await running._Running(parsed, settings, print)._take_again(Unexpected(None))

    asyncio.run(program())
    [record] = caplog.records
    assert record.message == "what was read again is not done, or not all of it"
    assert "nobody has thought of that" in str(record.exc_info[1])


def test_who_starts_it_is_told_when_it_is_ready(node, service, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(PATIENCE)
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with exported(node, service, env=environment) as far:
            assert notified.recv(100) == b"READY=1"
            assert far.tokens()
        (tmp_path / "token").write_text(TOKEN)
        (tmp_path / "token").chmod(0o600)
        there = tmp_path / "there.sock"
        words = "--name", "near", "import", f"@{tmp_path / 'token'}", "--at", there
        with bridge_commands.bridge(*node, *words, env=environment) as near:
            assert notified.recv(100) == b"READY=1"
            # Whether or not it leads anywhere.
            assert there.is_socket()
            near.err.until(f"warning: {there}: ")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)])
def test_signals_end_it(node, service, number, status):
    with exported(node, service) as far:
        far.ready()
        assert far.end(number) == status
        assert "Traceback" not in far.err.text


class Slow(cm.Interface):
    @cm.method
    def run(self) -> str: ...

    @cm.method
    def other(self) -> cm.Capability: ...

    @cm.method
    def nothing(self) -> None: ...


class SlowServer(Slow):
    def __init__(self, other=None):
        self._other = other
        self.begun, self.may_end = threading.Event(), threading.Event()

    def run(self):
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        return "to its end"

    def other(self):
        return self._other

    def nothing(self):
        pass


def refused(call):
    try:
        call()
    except cm.Disconnected as error:
        return error.ran == "no"
    return False


def test_calls_that_run_are_answered_before_it_ends(node, tmp_path):
    answers = []
    with cm.Entrypoint("slow") as entrypoint, cm.Entrypoint("other") as another:
        slow = SlowServer(another.manage(SlowServer()))
        entrypoint.listen(tmp_path / "slow.sock", slow)
        with exported(node, tmp_path / "slow.sock") as far:
            [(token, _)] = far.ready().tokens()
            words = "--name", "near", "import", "-", "--at", tmp_path / "there.sock"
            with bridge_commands.bridge(*node, *words, stdin=subprocess.PIPE) as near:
                near.tell(token)
                near.ready()
                there = cm.connect(tmp_path / "there.sock").cast(Slow)
                other = there.other().cast(Slow)
                calling = threading.Thread(target=lambda: answers.append(there.run()))
                calling.start()
                assert slow.begun.wait(PATIENCE)
                far.send(signal.SIGTERM)
                until(lambda: refused(other.nothing))
                slow.may_end.set()
                calling.join(PATIENCE)
                assert answers == ["to its end"]
                assert far.status() == 0
                cm.wait_gone(cm.capability(there), PATIENCE)


def test_a_signal_ends_it_before_it_has_begun(service):
    """As where a node takes the connection, and then says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        node = "--engine", f"nats://127.0.0.1:{silent.getsockname()[1]}"
        with exported(node, service) as far:
            connection, _ = silent.accept()
            with connection:
                assert far.end() == 0
                assert far.err.text == ""


def test_a_service_that_comes_later(node, tmp_path):
    with exported(node, tmp_path / "desk.sock") as far:
        [(token, _)] = far.ready().tokens()
        far.err.until("desk.sock: no service is there yet: ")
        (tmp_path / "token").write_text(token)
        (tmp_path / "token").chmod(0o600)
        words = "--name", "near", "import", f"@{tmp_path / 'token'}", "--at", tmp_path / "there.sock"
        with bridge_commands.bridge(*node, *words) as near:
            near.err.until("'far' refuses: what the token stands for is not there")
            with cm.Entrypoint("desk") as entrypoint:
                entrypoint.listen(tmp_path / "desk.sock", DeskServer())
                assert called(tmp_path / "there.sock") == 1


def test_it_has_a_large_table(node, service):
    """Whatever the soft limit was."""
    with exported(node, service, before=["prlimit", "--nofile=200:"]) as far:
        far.ready()
        soft, hard = far.table()
        assert 200 < soft == hard
