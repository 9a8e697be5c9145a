"""What the documents say is done, is done: each page that can be followed is, from top to bottom."""

import re

import pytest

from capmarshal.__main__ import _COMMANDS
from confined import not_sanitized, skip_without
from documents import CHECKOUT, Reader, blocks, fenced, read

# Pages that are programs and commands one after the other; and what of confinement they need.  Programs of the other
# pages are run in several ways each, by hostile peers, or where a tool is installed: by tests of their own.
FOLLOWED = {
    "docs/deploying.md": (),
    "docs/files.md": (),
    "docs/pools.md": (),
    "docs/shell.md": (),
    "docs/tutorial.md": ("landlock", "seccomp", "scopes"),
    "docs/types.md": (),
}


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[not_sanitized] * bool(FOLLOWED[page])) for page in FOLLOWED]
)
def test_a_page_is_followed(page, tmp_path):
    """Each program runs, and each command prints what stands below it."""
    skip_without(*FOLLOWED[page])
    with Reader(page, tmp_path) as reader:
        reader.follow()


def test_each_page_with_programs_has_them_run():
    """By being followed, or by a test that reads it."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (CHECKOUT / "tests").glob("test_*.py"))
    for path in (CHECKOUT / "docs").glob("*.md"):
        page = f"docs/{path.name}"
        assert not fenced(read(page)) or page in FOLLOWED or f'read("{page}")' in tests, page


def test_the_page_of_the_command_has_each_of_its_parts():
    """And none that is not there, in the order of --help."""
    shown = re.findall(r"^\| `capmarshal (\w+)", read("docs/command.md"), re.MULTILINE)
    assert shown == [command.__name__.rpartition(".")[2] for command in _COMMANDS]


def test_each_page_that_is_followed_has_something_to_do():
    """Else a fence that is written in another way would be overlooked."""
    for page in FOLLOWED:
        found = [block for block in blocks(read(page)) if block.kind != "before"]
        assert 2 * len(found) == len(re.findall(r"^ *(?:```|~~~)", read(page), re.MULTILINE))
        assert {block.kind for block in found} <= {"python", "console", "text"}
