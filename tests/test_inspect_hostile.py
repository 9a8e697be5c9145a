"""What labels and processes' names bring into what ``capmarshal inspect`` shows: nothing that means something there."""

import json
import os
import re
import socket
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from capmarshal._inspect.data import as_json
from capmarshal._inspect.dot import as_dot
from capmarshal._inspect.looking import look
from capmarshal._inspect.processes import Process, _program
from capmarshal._inspect.seeing import Seeing
from capmarshal._inspect.sockets import Socket
from capmarshal._inspect.svg import as_svg
from capmarshal._inspect.table import drawn, plain
from capmarshal._inspect.view import View
from inspected import on_a_terminal, told

SVG = "{http://www.w3.org/2000/svg}"
NASTY = [
    b"[bold red]markup[/]",
    b"</text><script>alert(1)</script>&amp;<!--",
    b'"]; evil [label="',
    b"back\\slash \\N \\l\\",
    b"\x1b]0;title\x07\x1b[31mred",
    b"line\nend\r\t\x00nul",
    b"not utf-8 \xff\xfe",
    "\N{RIGHT-TO-LEFT OVERRIDE}desrever \N{ZERO WIDTH SPACE}\N{LINE SEPARATOR}".encode(),
    "wide \N{CJK UNIFIED IDEOGRAPH-4E2D}".encode(),
    b"\xed\xa0\x80",
    b"a/b//c",
    b"",
    b"x" * 70,
]


def _forms(view):
    """Each that a terminal, a file or a program is given."""
    console = Console(width=200, force_terminal=True, color_system=None, record=False, file=open(os.devnull, "w"))
    with console.file, console.capture() as screen:
        console.print(drawn(view))
    return {"plain": plain(view), "json": as_json(view), "dot": as_dot(view), "svg": as_svg(view), "rich": screen.get()}


def _strings(dot):
    """The quoted strings of a digraph; outside of them there is nothing but what this package writes."""
    strings = re.findall(r'"((?:[^"\\]|\\.)*)"', dot)
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "S", dot)
    statement = r"  (?:rankdir=LR|node|edge|S|S -> S)(?: \[[\w=, ]+\])?;\n"
    assert re.fullmatch(rf"digraph capmarshal \{{\n(?:{statement})*\}}\n", outside)
    return strings


def _harmless(view):
    """Whatever is in it."""
    forms = _forms(view)
    for name, text in forms.items():
        # rich's own: bold, dim and the end of it.
        rest = re.sub(r"\x1b\[[\d;]*m", "", text) if name == "rich" else text
        assert all(character.isprintable() or character == "\n" for character in rest), name
    json.loads(forms["json"])
    assert forms["json"].isascii()
    assert forms["json"].count("\n") == 1
    picture = ET.fromstring(forms["svg"])
    assert {each.tag.removeprefix(SVG) for each in picture.iter()} <= {
        "svg", "title", "style", "defs", "marker", "path", "rect", "g", "text"
    }  # fmt: skip
    # Of a backslash, what follows it means something else to Graphviz but in these.
    escapes = {escape for string in _strings(forms["dot"]) for escape in re.findall(r"\\.", string)}
    assert escapes <= {r"\\", '\\"', r"\l"}
    return forms, picture


@pytest.fixture
def doors(make_pair):
    """doors(*labels): pairs that are named as doors are, by whoever likes."""
    made = []

    def name(*labels):
        for number, label in enumerate(labels):
            end, other = make_pair()
            end.bind(b"\0capmarshal/" + label + f"/{os.getpid():08x}{number:08x}".encode())
            made.append((end, other))
        return made

    return name


def test_labels_of_strangers_mean_nothing_in_any_form(doors):
    """They are shown, on one line, and escaped."""
    doors(*NASTY)
    view = look().only(frozenset([os.getpid()]))
    assert len(view.entrypoints) == len(NASTY)
    forms, picture = _harmless(view)
    shown = {each.text for each in picture.iter(f"{SVG}text")}
    assert "[bold red]markup[/]" in shown
    assert "</text><script>alert(1)</script>&amp;<!--" in shown
    assert "''" in shown
    assert "a/b//c" in shown
    for name in ("plain", "rich"):
        assert "[bold red]markup[/]" in forms[name]
        assert "\\x1b]0;title\\x07\\x1b[31mred" in forms[name]
    (string,) = [string for string in _strings(forms["dot"]) if "slash" in string]
    assert r"back\\slash \\N \\l\\\l" in string
    labels = {each["door"]["label"] for each in json.loads(forms["json"])["entrypoints"]}
    assert "line\\nend\\r\\t\\x00nul" in labels


def test_a_terminal_obeys_none_of_it(doors):
    doors(*NASTY)
    code, screen = on_a_terminal(os.getpid())
    assert code == 0
    assert "[bold red]markup[/]" in screen
    rest = re.sub(r"\x1b\[[\d;]*m", "", screen).replace("\r\n", "\n")
    assert all(character.isprintable() or character == "\n" for character in rest)


def test_names_of_processes_mean_nothing_either(doors):
    """A process may call itself anything; and what its arguments are, is not shown."""
    ((end, _),) = doors(b"of a child")
    source = "import sys; sys.stdin.read()"
    for name in ("[red]</text>\x1b[31m\n", "python \udcff"):
        command = [name, "-c", source, "--password=secret"]
        with subprocess.Popen(
            command, executable=sys.executable, stdin=subprocess.PIPE, pass_fds=[end.fileno()]
        ) as child:
            view = look().only(frozenset([child.pid]))
            forms, _ = _harmless(view)
            assert view.processes[child.pid].name
            assert "stdin" not in view.processes[child.pid].name
            assert "secret" not in "".join(forms.values())
            child.communicate()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["/usr/bin/python3.11", "-W", "error", "-u", "/srv/digest.py", "--token", "x"], "python3.11 digest.py"),
        (["python", "-X", "dev", "-m", "bench.servers", "x"], "python -m bench.servers"),
        (["python", "-I", "-c", "import this"], "python -c"),
        (["python", "-Ic", "import this", "secret"], "python -c"),
        (["python", "-uBc", "import this", "secret"], "python -c"),
        (["python", "-cimport this", "secret"], "python -c"),
        (["python", "-Imbench.servers", "secret"], "python -m bench.servers"),
        (["python", "-Im", "bench.servers", "secret"], "python -m bench.servers"),
        (["python", "-Wc", "-Xc", "-bW", "c", "-BX", "m", "/srv/digest.py", "secret"], "python digest.py"),
        (["python", "-W", "", "/srv/digest.py", "secret"], "python digest.py"),
        (["python", "-c", "", "secret"], "python -c"),
        (["python", "--check-hash-based-pycs", "never", "digest.py", "secret"], "python digest.py"),
        (["pypy3.10", "--jit", "off", "digest.py", "secret"], "pypy3.10 digest.py"),
        (["python", "-", "secret"], "python -"),
        (["python", "-u", "--", "/srv/-m.py", "secret"], "python -m.py"),
        (["python", "", "secret"], "python "),
        (["python3.13t-dbg", "digest.py"], "python3.13t-dbg digest.py"),
        (["python-client", "secret"], "python-client"),
        (["python"], "python"),
        (["/usr/sbin/sshd: user [priv]"], "sshd: user [priv]"),
        (["sleep", "10"], "sleep"),
        (["python", "-I", "/lib/capmarshal/_child/launcher.py", "5", "{}", "plugin.py", "x"], "python plugin.py"),
        (["python", "/lib/capmarshal/_child/launcher.py", "5"], "python"),
    ],
)
def test_what_a_process_is_called(words, name):
    """Its program, and of an interpreter what that runs."""
    assert " ".join(_program(words)) == name


@pytest.mark.parametrize(
    ("options", "name"),
    [(["-Ic", "SOURCE"], "-c"), (["-cSOURCE"], "-c"), (["-W", "", "FILE"], "program.py"), (["-", "FILE"], "-")],
)
def test_arguments_are_not_shown_however_options_are_written(options, name, doors, tmp_path):
    """As Python itself takes them, an empty word, too: what is shown is what it runs."""
    ((end, _),) = doors(b"of a child")
    source = "import sys; print('here', flush=True); sys.stdin.read()"
    (tmp_path / "program.py").write_text(source)
    words = [word.replace("SOURCE", source).replace("FILE", str(tmp_path / "program.py")) for word in options]
    with subprocess.Popen(
        [sys.executable, *words, "secret"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[end.fileno()]
    ) as child:
        if "-" in options:
            child.stdin.write(f"{source}\n".encode())
            child.stdin.flush()
        else:
            assert child.stdout.readline() == b"here\n"
        shown = look().processes[child.pid]
        assert shown.name.split(" ", 1)[1] == name
        child.stdin.close()


def test_what_is_no_door_is_not_shown(make_pair):
    """Of another kind, or with another name."""
    stream, _ = make_pair(socket.SOCK_STREAM)
    stream.bind(f"\0capmarshal/a stream {os.getpid()}/0".encode())
    other, _ = make_pair()
    other.bind(f"\0capmarshalled/{os.getpid()}/0".encode())
    text = told("--json")
    assert f"a stream {os.getpid()}" not in text
    assert f"capmarshalled/{os.getpid()}" not in text


def test_a_record_of_no_bytes_waits_too(doors):
    """Its reader is told nothing by its length; the kernel counts what it takes of memory."""
    ((end, other),) = doors(b"waits")
    assert _knocks() is None
    other.send(b"")
    assert _knocks().memory > 0
    assert end.recv(10) == b""
    assert _knocks() is None


def test_what_waits_when_its_sender_is_gone(doors):
    """Of that the bytes are known."""
    ((_, other),) = doors(b"waits")
    other.send(b"record")
    other.close()
    assert _knocks().memory == 6


def test_a_door_that_a_holder_has_shut(doors):
    """It says so."""
    ((_, other),) = doors(b"shut")
    other.shutdown(socket.SHUT_WR)
    assert "shut (shut by a holder)" in plain(look().only(frozenset([os.getpid()])))


def _knocks():
    (each,) = look().only(frozenset([os.getpid()])).entrypoints
    return each.door.knocks


# Views of anything: few sockets, of which few processes hold some, so that all kinds of lines between them are there.
INODES = st.integers(1, 12)
ENDS = st.builds(
    Socket,
    inode=INODES,
    kind=st.sampled_from([socket.SOCK_SEQPACKET, socket.SOCK_STREAM]),
    listens=st.booleans(),
    name=st.one_of(
        st.just(b""),
        st.binary(max_size=8),
        st.builds(
            lambda label, grant, end: b"\0capmarshal/" + label + b"/" + grant + end,
            st.binary(max_size=12),
            st.sampled_from([b"", b"grant-"]),
            st.binary(max_size=4),
        ),
    ),
    peer=st.integers(0, 12),
    unread=st.integers(0, 3),
    sent=st.integers(0, 3),
    user=st.integers(0, 3),
    room=st.sampled_from([0, 4608, 212_992]),
    shut=st.booleans(),
)
PROCESSES = st.builds(
    Process,
    pid=st.integers(1, 6),
    name=st.text(st.characters(categories=("L", "P", "S", "Zs")), max_size=12).filter(str.isprintable),
    parent=st.integers(0, 6),
    user=st.integers(0, 3),
    state=st.sampled_from("STRZ"),
    network=st.just(1),
    sockets=st.dictionaries(INODES, st.lists(st.integers(3, 20), min_size=1, max_size=2), max_size=8),
    watched=st.lists(st.frozensets(INODES, max_size=8), max_size=2),
)


@given(st.lists(ENDS, max_size=12), st.lists(PROCESSES, max_size=5), st.frozensets(INODES), st.integers(0, 2))
def test_whatever_the_kernel_lists_can_be_shown(ends, running, stuck, travelling):
    """Sockets whose ends don't fit each other, watched by several, held by all: each door once, in every form."""
    sockets, processes = {end.inode: end for end in ends}, {process.pid: process for process in running}
    seeing = Seeing(sockets, processes, lambda _pid, _number: travelling or None, stuck)
    entrypoints = tuple(seeing.entrypoints())
    shown = [door.name for each in entrypoints for door in each.doors]
    named = [end for end in sockets.values() if end.kind == socket.SOCK_SEQPACKET and not end.listens]
    assert len(shown) + len(seeing.unclaimed()) == sum(end.name.startswith(b"\0capmarshal/") for end in named)
    view = View(processes, entrypoints, tuple(seeing.in_flight()), ("something",))
    _harmless(view)
    _harmless(view.only(frozenset([1, 2])))
