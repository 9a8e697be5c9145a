"""The site of README.md and docs/: it is built without a warning, and each name that people import is in it."""

import importlib.metadata
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

import capmarshal as cm
from capmarshal import aio, bridge, lx, testing

CHECKOUT = Path(__file__).parents[1]
# To build it takes some ten seconds of processor time, which others may need too.
PATIENCE = 240.0
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The directory that it was built in."""
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-P", "-m", "sphinx", "-q", "-n", "-W", "--keep-going", "-E", "-c", "docs", "-b", "html"]
    done = subprocess.run([*command, ".", built], cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stderr, done.returncode) == ("", 0)
    return built


def test_it_is_built_without_a_warning(site):
    """So no link from page to page, no heading that one leads to, and no name of the reference is missing."""
    assert (site / "docs" / "index.html").exists()
    for page in (CHECKOUT / "docs").rglob("*.md"):
        assert (site / page.relative_to(CHECKOUT)).with_suffix(".html").exists()


def test_no_two_pages_have_the_same_title(site):
    """Who has several open, or searches, tells them apart."""
    pages = [page for page in site.rglob("*.html") if page.stem not in ("genindex", "py-modindex", "search")]
    titles = [re.search("<h1>(.*?)<", page.read_text(encoding="utf-8")) for page in pages]
    found = [title[1] for title in titles if title]
    assert len({*found}) == len(found), sorted(found)


@pytest.mark.parametrize(
    ("module", "page"),
    [(cm, "capmarshal"), (aio, "aio"), (bridge, "bridge"), (lx, "lx"), (testing, "testing")],
    ids=["cm", "aio", "bridge", "lx", "testing"],
)
def test_each_name_that_people_import_is_in_the_reference(site, module, page):
    """With its docstring; `lx` and its memory have a page, and documentation of cffi's, of their own."""
    html = (site / "docs" / "reference" / f"{page}.html").read_text(encoding="utf-8")
    described = set(re.findall(rf'<dt class="[^"]*" id="{re.escape(module.__name__)}\.(\w+)"', html))
    assert described == {*module.__all__} - {"lx", "ffi"}


def test_a_page_is_called_alike_where_it_is_listed():
    """The site's contents are made of the list, and would have a second title for it; the README's is the package."""
    listed = re.findall(
        r"^- \[(.*?)\]\((.*?\.md)\)", (CHECKOUT / "docs/index.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    pages = {page: words for words, page in listed if not page.endswith("/README.md") or "bench" in page}
    assert len(pages) > 20
    for page, words in pages.items():
        assert (CHECKOUT / "docs" / page).read_text(encoding="utf-8").partition("\n")[0] == f"# {words}"


def test_each_example_has_a_page_and_links_lead_there(site):
    """And not to files for download."""
    for path in (CHECKOUT / "examples").rglob("*.py"):
        assert (site / f"{path.relative_to(CHECKOUT)}.html").exists()
    assert "examples/key_holder.py.html" in (site / "docs" / "authority.html").read_text(encoding="utf-8")
    assert not list(site.glob("_downloads/*/*.py"))


def test_no_link_leads_nowhere(site):
    """Neither to a page nor to a place in it, as it is written in the end."""
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    places = {page: set(re.findall(r'\bid="([^"]+)"', html)) for page, html in pages.items()}
    lost = []
    for page, html in pages.items():
        for link in set(re.findall(r'<a\b[^>]* href="([^"]+)"', html)):
            path, _, place = urllib.parse.unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            if not link.startswith(("https:", "http:")) and (
                not target.exists() or (place and place not in places.get(target, {place}))
            ):
                lost.append(f"{page.relative_to(site)}: {link}")
    assert not lost


def test_it_needs_nothing_from_elsewhere(site):
    """To be read: no script, style, font or picture."""
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert not re.findall(
            r'<(?:script|img)[^>]+src="(?:https?:)?//|<link[^>]+stylesheet[^>]+href="(?:https?:)?//', html
        )


def test_what_is_installed_carries_no_documents():
    """They are for the source distribution."""
    assert not [file for file in importlib.metadata.files("capmarshal") if "docs" in file.parts or file.suffix == ".md"]
