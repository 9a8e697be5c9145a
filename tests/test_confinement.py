"""`Confinement`: what it takes, and what it says of what it does not take."""

import os
from pathlib import Path

import pytest

import capmarshal as cm
from capmarshal._child.confinement import data_of


def test_paths_are_made_absolute(monkeypatch, tmp_path):
    """The process may be somewhere else; links stay what they are until it is confined."""
    monkeypatch.chdir(tmp_path)
    made = cm.Confinement(read=["one", Path("two")], write=(path for path in ("/three/../four",)))
    assert made.read == (f"{tmp_path}/one", f"{tmp_path}/two")
    assert made.write == ("/four",)


def test_what_is_not_said_is_not_there():
    """Nothing is read or written, nothing may be missing, and descriptors are bounded."""
    made = cm.Confinement()
    assert (made.read, made.write, made.missing) == ((), (), ())
    assert (made.memory, made.cpu, made.threads, made.descriptors) == (None, None, None, 64)


def test_it_shows_what_was_said():
    """As one would write it."""
    assert repr(cm.Confinement()) == "Confinement(descriptors=64)"
    made = cm.Confinement(read=["/srv"], memory=1 << 30, missing=["threads"])
    assert repr(made) == "Confinement(descriptors=64, memory=1073741824, missing=['threads'], read=['/srv'])"


def test_it_cannot_be_changed_by_a_word_that_is_misspelt():
    """Nor made with one."""
    with pytest.raises(TypeError, match="reads"):
        cm.Confinement(reads=["/srv"])
    with pytest.raises(AttributeError):
        cm.Confinement().reads = ["/srv"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"read": "/srv"}, TypeError, r"read takes some paths, as in read=\[path\], not '/srv'"),
        ({"write": Path("/srv")}, TypeError, "write takes some paths"),
        ({"read": [3]}, TypeError, "read takes some paths"),
        ({"read": [b"/srv"]}, TypeError, "read takes some paths"),
        ({"read": None}, TypeError, "read takes some paths"),
        ({"read": [""]}, ValueError, "read: '' is no path"),
        ({"write": ["a\0b"]}, ValueError, "write: .* is no path"),
        ({"read": ["\ud800"]}, ValueError, "read: .* is no path"),
        ({"memory": "1G"}, TypeError, "memory is a whole number of bytes, 67108864 or more, or None; not '1G'"),
        ({"memory": 1}, ValueError, "memory is a whole number of bytes"),
        ({"memory": 1e9}, TypeError, "memory is"),
        ({"cpu": 0}, ValueError, "cpu is a whole number of seconds, 1 or more, or None; not 0"),
        ({"cpu": True}, TypeError, "cpu is"),
        ({"memory": 1 << 63}, ValueError, "memory is 9223372036854775807 at most, or None, not 9223372036854775808"),
        ({"cpu": 1 << 62}, ValueError, "cpu is 1000000000 at most"),
        ({"descriptors": 1 << 63}, ValueError, "descriptors is 9223372036854775807 at most"),
        ({"threads": 1 << 64}, ValueError, "threads is 9223372036854775807 at most"),
        ({"threads": 0}, ValueError, "threads is a whole number of threads"),
        ({"descriptors": 15}, ValueError, "descriptors is a whole number, 16 or more, not 15"),
        ({"descriptors": None}, TypeError, "descriptors is a whole number"),
        ({"missing": "threads"}, TypeError, r"missing takes names of parts, as in missing=\['threads'\]"),
        ({"missing": 1}, TypeError, "missing takes names of parts"),
        ({"missing": ["selinux"]}, ValueError, "there is no part 'selinux', but 'landlock', 'scopes', 'seccomp'"),
        ({"missing": [[]]}, ValueError, "there is no part"),
    ],
)
def test_what_it_does_not_take_is_named(options, error, words):
    """With what it does take."""
    with pytest.raises(error, match=words):
        cm.Confinement(**options)


def test_it_is_told_to_the_launcher_as_data():
    """All of it: nothing that was said is forgotten on the way."""
    made = cm.Confinement(
        read=["/r"], write=["/w"], memory=1 << 30, cpu=5, threads=3, descriptors=20, missing=["seccomp"]
    )
    assert data_of(made) == {
        "read": ["/r"],
        "write": ["/w"],
        "memory": 1 << 30,
        "cpu": 5,
        "threads": 3,
        "descriptors": 20,
        "missing": ["seccomp"],
    }
    assert os.sep == "/"
