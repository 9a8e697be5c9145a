"""What docs/authority.md shows works as it stands there."""

import subprocess
import sys

import pytest

import capmarshal as cm
from documents import fenced, read
from patience import PATIENCE

PAGE = read("docs/authority.md")
PROGRAMS = fenced(PAGE)
PRINTED, CAME_HOME, REVOKED, FORWARDED, *_ = fenced(PAGE, "text")


def _printed(program, place):
    command = [sys.executable, "-W", "error", program]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_a_grant_lets_call_what_it_says_until_it_is_revoked(tmp_path):
    """The page's host and plugin print what it says."""
    host, plugin, *_ = PROGRAMS
    (tmp_path / "host.py").write_text(host, encoding="utf-8")
    (tmp_path / "plugin.py").write_text(plugin, encoding="utf-8")
    assert _printed("host.py", tmp_path) == PRINTED


def test_what_came_home_is_handed_out_as_it_came(tmp_path):
    """And ends with the grant, also where the object is managed besides."""
    (index,) = (program for program in PROGRAMS if "class IndexServer" in program)
    (tmp_path / "index.py").write_text(index, encoding="utf-8")
    assert _printed("index.py", tmp_path) == CAME_HOME


def test_files_are_read_for_whom_they_are_opened_until_that_is_revoked(tmp_path):
    """Of a folder, and of nothing else; by a deep grant, which takes back what no open file would."""
    (folder,) = (program for program in PROGRAMS if "class FileServer" in program)
    (host,) = (program for program in PROGRAMS if "from folder import" in program)
    (tmp_path / "folder.py").write_text(folder, encoding="utf-8")
    (tmp_path / "host.py").write_text(host, encoding="utf-8")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "letter").write_text("Dear Sir", encoding="utf-8")
    assert _printed("folder.py", tmp_path) == "Dear Sir\n"
    assert _printed("host.py", tmp_path) == REVOKED
    scope = {"__name__": "folder"}
    exec(folder, scope)
    for name in ("../folder.py", "..", str(tmp_path / "folder.py")):
        with pytest.raises(FileNotFoundError):
            scope["FolderServer"](str(tmp_path / "papers")).open(name)


def test_a_stream_gives_the_lines_of_a_log(tmp_path):
    """All of them, in their order."""
    (follow,) = (program for program in PROGRAMS if "def follow" in program)
    (tmp_path / "follow.py").write_text(follow, encoding="utf-8")
    (tmp_path / "log").write_text("one\ntwo\n", encoding="utf-8")
    assert _printed("follow.py", tmp_path) == "one\ntwo\n"


def test_a_stream_of_what_was_given(tmp_path):
    """From one server to another."""
    (grep,) = (program for program in PROGRAMS if "def grep" in program)
    (tmp_path / "grep.py").write_text(grep, encoding="utf-8")
    assert _printed("grep.py", tmp_path) == "19\n"


def test_proxies_that_look_at_each_call(tmp_path):
    """One that traces them, and one that lets them through only at times."""
    (proxies,) = (program for program in PROGRAMS if "class Tracing" in program)
    (tmp_path / "proxies.py").write_text(proxies, encoding="utf-8")
    assert _printed("proxies.py", tmp_path) == FORWARDED
    scope = {"__name__": "proxies"}
    exec(proxies, scope)
    with cm.Entrypoint("safe") as safe, cm.Entrypoint("proxies") as entrypoint:
        held = safe.manage(scope["SafeServer"]())
        attended = entrypoint.grant(scope["InOfficeHours"](held, hours=range(24))).cast(scope["Safe"])
        assert attended.take("key") == "of brass"


def test_a_membrane_stands_before_what_comes_through_it(tmp_path):
    """Files that are opened through it are read through it, and it goes with who has them."""
    (folder,) = (program for program in PROGRAMS if "class FileServer" in program)
    (membrane,) = (program for program in PROGRAMS if "class Membrane" in program)
    here = {"__name__": "folder"}
    exec(folder, here)
    exec(membrane, here)
    (tmp_path / "letter").write_text("Dear Sir", encoding="utf-8")
    with cm.Entrypoint("folder") as behind, cm.Entrypoint("before it") as entrypoint:
        to = behind.manage(here["FolderServer"](str(tmp_path)))
        folder = entrypoint.grant(here["Membrane"](entrypoint, to), label="before it").cast(here["Folder"])
        file = folder.open("letter")
        assert cm.capability(file).label == "before it"
        assert file.read(0, 100) == b"Dear Sir"
