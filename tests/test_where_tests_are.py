"""The maps name each thing and none that is gone.

tests/README.md the tests, CONTRIBUTING.md the package's modules, docs/index.md the documents.
"""

import re
from pathlib import Path

import capmarshal

TESTS = Path(__file__).parent
PACKAGE = Path(capmarshal.__file__).parent
README = (TESTS / "README.md").read_text(encoding="utf-8")
# Of each package, what CONTRIBUTING.md says is in it: its own line of the layout, and those below it.
LAYOUT = (
    (TESTS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Layout")[2].partition("## Rules")[0]
)
SAID = set(re.findall(r"`([\w/.]+)`", README))

FILES = sorted(path.name for path in TESTS.glob("test_*.py"))
HELPERS = sorted(path.name for path in TESTS.glob("support/*.py"))
# As the README calls them: `_server/loop`.
MODULES = sorted(
    str(path.relative_to(PACKAGE).with_suffix(""))
    for path in PACKAGE.rglob("*.py")
    if path.stem not in ("__init__", "__main__")
)


def test_the_tests_of_each_module_can_be_found():
    """In a file that bears its name, or where the README says."""
    lost = [name for name in MODULES if f"test_{Path(name).name.lstrip('_')}.py" not in FILES and name not in SAID]
    assert not lost, f"say in tests/README.md where the tests of {lost} are"


def test_the_readme_speaks_of_modules_that_exist():
    """A module that has moved or gone is named no more."""
    gone = [name for name in SAID if "/" in name and name.partition("/")[0].startswith("_") and name not in MODULES]
    assert not gone, f"tests/README.md speaks of {gone}"


def test_each_test_file_and_each_helper_is_described():
    """And none that is not there."""
    named = {name for name in SAID if name.endswith(".py") and name != "conftest.py"}
    assert named == {*FILES, *HELPERS}


def test_the_layout_names_every_module():
    """Each in the lines of its own package: who is new here finds it."""
    described = dict(re.findall(r"^ {6}(_\w+)/ +(.*\n(?: {7,}.*\n)*)", LAYOUT, re.MULTILINE))
    lost = [
        name
        for name in MODULES
        if name.startswith("_")
        and "/" in name
        and not re.search(rf"\b{Path(name).name}\b", described.get(name.partition("/")[0], ""))
    ]
    assert not lost, f"say in the layout of CONTRIBUTING.md what {lost} are for"


def test_the_layout_speaks_of_modules_that_exist():
    """Where it says what happens where."""
    assert set(re.findall(r"`(_\w+/\w+)`", LAYOUT)) <= set(MODULES)


def test_the_first_page_of_the_documents_names_every_other():
    """And none that is not there: the site's table of contents is made of it."""
    docs = TESTS.parent / "docs"
    named = set(re.findall(r"^- \[.+?\]\((\w+\.md)\)", (docs / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {path.name for path in docs.glob("*.md")} - {"index.md"}
