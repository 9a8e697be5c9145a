"""``capmarshal completion``: what a shell completes, where it stands; in the shells themselves, too."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import capmarshal as cm
import commands
import services
from capmarshal.__main__ import main
from capmarshal._commands.completing import for_bash, words_in
from desk import DeskServer
from patience import PATIENCE

# As bash has them where nobody has changed them.
BREAKS = " \t\n\"'@><=;|&(:"


@pytest.fixture
def desk(place, monkeypatch):
    """A desk at "service", in the directory where this process is, beside some files."""
    monkeypatch.chdir(place.parent)
    (place.parent / "folder").mkdir()
    for name in ("file", "two words", ".hidden", "odd\nname"):
        (place.parent / name).write_bytes(b"")
    with services.serving(place, DeskServer()):
        yield place


def completed(capfd, line):
    """What bash would offer at the end of a line."""
    status, out, err = commands.here(capfd, "completion", "bash", line, BREAKS)
    assert (status, err) == (0, "")
    return out.splitlines()


COMPLETED = [
    ("ca", ["call"]),
    ("--v", ["--version"]),
    ("nothing ", []),
    ("completion ", ["bash", "zsh"]),
    ("describe --", ["--help", "--json", "--timeout"]),
    ("bridge ", ["export", "import", "run"]),
    ("bridge --engine nats://localhost --cr", ["--credentials"]),
    ("bridge --engine nats://localhost --credentials f", ["file", "folder/"]),
    ("bridge --name one i", ["import"]),
    ("bridge export ", ["folder/", "service"]),
    ("bridge export service ", ["folder/", "service"]),
    (
        "bridge import - --",
        ["--at", "--ca", "--certificate", "--credentials", "--engine", "--help", "--key", "--mode", "--name"],
    ),
    ("bridge import - --at ", ["folder/", "service"]),
    ("bridge run fi", ["file"]),
    # Services are sockets, and other files what else is due.
    ("call ", ["folder/", "service"]),
    ("call --output f", ["file", "folder/"]),
    ("call --timeout ", []),
    ("demo ", ["file", "folder/", "service", "service.lock", "two\\ words"]),
    ("demo .", [".hidden"]),
    ("demo two\\ w", ["two\\ words"]),
    ('demo "two w', ["two words"]),
    ("demo ./fi", ["./file"]),
    ("demo nowhere/", []),
    ("describe service ", []),
    # Methods, and their parameters.
    ("call service di", ["digest"]),
    ("call --timeout 3 service di", ["digest"]),
    ("call service add ", ["line=", "times=", "when="]),
    ("call service add x ", ["times=", "when="]),
    ("call service add times=2 w", ["when="]),
    ("call service add --", []),
    ("call service nope ", []),
    ("call file ", []),
    ("call nowhere ", []),
    # Words of the last part alone, where bash breaks it.
    ("call service digest @fi", ["@file"]),
    ("call service digest salt=@fi", ["@file"]),
    ("call service point colour=", ["blue", "red"]),
    ("call service point x r", ["red"]),
    ("call service point x colour=r", ["red"]),
]


@pytest.mark.parametrize(("line", "offered"), COMPLETED)
def test_what_may_stand_there(desk, capfd, line, offered):
    """Commands, options, paths, methods and parameters, each in its place."""
    assert completed(capfd, f"capmarshal {line}") == offered


def test_a_service_is_not_waited_for(place, capfd, monkeypatch):
    """Where it does not answer, or says nothing, nothing is offered, and nothing said."""
    monkeypatch.chdir(place.parent)
    monkeypatch.setattr("capmarshal._describe.candidates._PATIENCE", 0.05)
    with cm.Entrypoint("silent", describe=False) as entrypoint:
        entrypoint.listen(place, DeskServer())
        assert completed(capfd, "capmarshal call service ") == []
    entrypoint = cm.Entrypoint("served by nobody")
    entrypoint.listen(place, DeskServer())
    assert completed(capfd, "capmarshal call service ") == []
    entrypoint.close()


def test_a_service_types_nothing_of_its_own(place, capfd, monkeypatch):
    """What is offered would be typed: names and plain words alone."""
    monkeypatch.chdir(place.parent)
    odd = ["$(touch pwned)", "a b", "a\nb", "`x`", "x;y", commands.HOSTILE, "ok"]
    parameters = [{"name": name, "schema": {"enum": odd}} for name in odd]
    method = {"interface": "I", "result": {}, "parameters": parameters}
    said = {"interfaces": [], "methods": [method | {"name": name} for name in odd]}
    offered = {"": ["ok"], "ok ": ["ok", "ok="], "ok ok=": ["ok"]}
    for line, expected in offered.items():
        with commands.hostile(place, msgspec.msgpack.encode(said)):
            assert completed(capfd, f"capmarshal call service {line}") == expected


@pytest.mark.parametrize(
    ("line", "words", "typed"),
    [
        ("capmarshal", ["capmarshal"], "capmarshal"),
        ("capmarshal ", ["capmarshal", ""], ""),
        ("A=1 capmarshal  a\\ b 'c d'e \"f", ["capmarshal", "a b", "c de", "f"], '"f'),
        ("capmarshal '' ", ["capmarshal", "", ""], ""),
    ],
)
def test_words_are_those_of_bash(line, words, typed):
    assert words_in(line) == (words, typed)


def test_what_bash_would_take_for_more_is_quoted():
    assert for_bash(["a b$(c)"], "a", BREAKS) == ["a\\ b\\$\\(c\\)"]
    assert for_bash(["a b", "a$b", "a'b"], "'a", BREAKS) == ["a b"]
    assert for_bash(["x=@file"], "x=@f", BREAKS) == ["@file"]
    assert for_bash(["x=@file"], "x=@f", " =") == ["@file"]


def test_nothing_is_typed_that_bash_takes_for_more():
    """Within double quotes it looks for ! and what follows in its history, too."""
    assert for_bash(["d!!", "d$x", "d"], '"d', BREAKS) == ["d"]


def test_a_quoted_character_breaks_no_word():
    """What bash replaces begins behind the last that is not."""
    assert for_bash(["a=b c"], "a\\=b", BREAKS) == ["a=b\\ c"]
    assert for_bash(["x=a b=c"], "x=a\\ b", BREAKS) == ["a\\ b=c"]
    assert for_bash(["a b=c"], "a\\ b=", BREAKS) == ["c"]
    assert for_bash(["x=a b"], 'x="a', BREAKS) == ["a b"]


def test_a_path_is_no_option(place, capfd, monkeypatch):
    """Whatever somebody has called it."""
    monkeypatch.chdir(place.parent)
    (place.parent / "--output=zz").write_bytes(b"")
    assert completed(capfd, "capmarshal demo ") == ["./--output=zz"]
    with services.serving("-x", DeskServer()):
        assert completed(capfd, "capmarshal call ") == ["./-x"]
        assert completed(capfd, "capmarshal call ./-x di") == ["digest"]


def test_which_shell_is_to_be_said(capfd):
    assert commands.here(capfd, "completion")[0] == 2
    assert commands.here(capfd, "completion", "fish")[0] == 2


# How each is started, and what is typed first.
SHELLS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "bind 'set enable-bracketed-paste off'; source <(capmarshal completion bash)",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -Uz compinit && compinit -D -u; source <(capmarshal completion zsh)",
    ),
}


class Shell:
    """A shell on a terminal, in a directory, that completes: whoever types presses keys, and looks."""

    def __init__(self, name, place):
        self._terminal, other = pty.openpty()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {
            "PATH": path,
            "PS1": "$ ",
            "TERM": "dumb",
            "HOME": str(place),
            "PYTHONWARNINGS": "error",
        }
        self._process = subprocess.Popen(
            SHELLS[name][0],
            cwd=place,
            env=environment,
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        os.close(other)
        self._shown = ""
        self.type(f"{SHELLS[name][1]}; echo rea''dy\r", "ready\r\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        os.close(self._terminal)

    def type(self, keys, shown):
        """Types, and waits until that is shown."""
        os.write(self._terminal, keys.encode())
        deadline = time.monotonic() + PATIENCE
        while shown not in self._shown:
            ready, _, _ = select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{keys!r}: {shown!r} is not shown, but {self._shown!r}"
            self._shown += re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\x07", "", os.read(self._terminal, 1 << 16).decode())
        self._shown = self._shown.partition(shown)[2]


@pytest.mark.parametrize("name", SHELLS)
def test_a_shell_completes_it(name, place):
    """Typed with the key that completes, from the command to the last argument, and run."""
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    if not Path(sys.executable).with_name("capmarshal").exists():
        pytest.skip("the console script is not installed beside this interpreter")
    (place.parent / "lines of text").write_text("1\n2\n")
    with commands.desk_served(place), Shell(name, place.parent) as shell:
        shell.type("capmarshal desc\t", "describe ")
        shell.type("ser\t", "service ")
        shell.type("\r", "interface Desk\r\n")
        shell.type("capmarshal cal\t", "call ")
        shell.type("se\t", "service ")
        shell.type("tot\t", "total ")
        shell.type("@li\t", "lines\\ of\\ text ")
        shell.type("\r", "\n3\r\n")
        shell.type("capmarshal call service ad\t", "add ")
        shell.type("x tim\t", "times=")
        shell.type("4\r", "\n4\r\n")


def test_a_shell_is_all_that_is_required(capsys):
    """What the scripts add is nobody's to know."""
    with pytest.raises(SystemExit, match="2"):
        main(["completion"])
    assert capsys.readouterr().err.endswith("error: the following arguments are required: shell\n")
