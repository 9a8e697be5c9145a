"""How Sphinx makes the site, of README.md and of docs/: `make docs`.

The source directory is the checkout: so a link from one page to another, or to an example, is the same, and relative,
in the site and where the files themselves are read.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.highlighting import PygmentsBridge

import capmarshal

CHECKOUT = Path(__file__).parents[1]
# What there is room for on a wide page.
COLUMNS = 120

project = "capmarshal"
author = "the capmarshal authors"
version = release = capmarshal.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "bench/README.md", "docs/**"]
# What begins with a dot: virtual environments, and what tools keep.
exclude_patterns = [".*", "build", "dist", "site"]

# As GitHub makes them: authority.md#what-comes-home.
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
# Type variables and aliases of signatures, which have no page; and other people's modules.
nitpick_ignore_regex = [
    ("py:.*", r"(.*\.)?(F|P|R|T|What|AnyProcess|ArrayLayout|AwaitedForClient|Buffer|BufferOrArray|CData|ForClient)"),
    ("py:.*", r"(.*\.)?(Engine|HasFileno|StrOrBytesPath)"),
    ("py:.*", r"Path|(anyio|_?io|logging|multiprocessing|os|pathlib|socket|ssl|struct|subprocess)(\..*)?"),
]

html_theme = "furo"
html_title = "capmarshal"
html_copy_source = False
html_show_copyright = False
html_additional_pages = {"index": "to_root.html"}
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]


def _contents(app, name, source):
    """Makes the table of contents of the links that the first page has, section by section."""
    if name == root_doc:
        for title, section in re.findall(r"^## (.+)\n([^#]*)", source[0], re.MULTILINE):
            links = re.findall(r"^- \[(.*?)\]\((.*?)\.\w+\)", section, re.MULTILINE)
            entries = [f"{words} <{page}>" for words, page in links]
            source[0] += "\n".join(["\n```{toctree}", ":hidden:", f":caption: {title}", *entries, "```\n"])


def _plain_first_line(app, what, name, thing, options, lines):
    """Has a colon in the first line of a property, or of what comes back, be a colon: to napoleon it ends a type."""
    if lines and what in ("property", "attribute"):
        lines[0] = f": {lines[0]}"
    for number, line in enumerate(lines[:-1]):
        if line.strip() == "Returns:":
            lines[number + 1] = lines[number + 1].replace(lines[number + 1].lstrip(), f": {lines[number + 1].lstrip()}")


def _signature(app, what, name, thing, options, signature, result):
    """Has nothing said of how an object is made that programs do not make; and of defaults no more than is written."""
    if not signature:
        return None
    if what == "exception" or name in {f"capmarshal.{each}" for each in ("Caller", "Capability", "Signal")}:
        return "", None
    return re.sub(r"Limits\(\w.*?\)", "Limits()", signature), result


def _found_in_package(app, env, node, content):
    """What capmarshal.aio, or a module that is nobody's business, calls by the names that capmarshal has."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    target = f"capmarshal.{target.rpartition('.')[2] if '._' in target else target}"
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, node["reftype"], target, node, content)


def _examples():
    files = (path for path in sorted((CHECKOUT / "examples").rglob("*")) if path.is_file())
    return [path for path in files if path.suffix != ".pyc"]


def _example_pages(app):
    """A page for each file of examples/."""
    bridge = PygmentsBridge("html", app.config.pygments_style)
    for path in _examples():
        name = str(path.relative_to(CHECKOUT))
        language = {".py": "python", ".c": "c"}.get(path.suffix, "ini")
        shown = bridge.highlight_block(path.read_text(encoding="utf-8"), language)
        yield name, {"title": name, "body": f"<h1>{name}</h1>{shown}"}, "page.html"


def _link_to_examples(app, doctree):
    """Has links to files of examples/ lead to their pages; by itself Sphinx makes them files for download."""
    name = app.env.docname
    for node in list(doctree.findall(addnodes.download_reference)):
        path = (Path(app.env.doc2path(name)).parent / node["reftarget"]).resolve()
        if path in _examples():
            page = app.builder.get_relative_uri(name, str(path.relative_to(CHECKOUT)))
            node.replace_self(nodes.reference("", "", *node.children, refuri=page, internal=True))


def _long_lines(app, doctree):
    """Has what is printed in long lines, as errors are, be broken, and not scrolled; site.css does that."""
    for node in doctree.findall(nodes.literal_block):
        text = node.astext()
        is_a_table = re.search(r"\S {3,}\S", text)
        if node.get("language") != "python" and not is_a_table and max(map(len, text.splitlines())) > COLUMNS:
            node["classes"].append("long-lines")


def setup(app):
    """Sphinx calls this."""
    app.connect("source-read", _contents)
    app.connect("autodoc-process-docstring", _plain_first_line, priority=100)
    app.connect("autodoc-process-signature", _signature)
    app.connect("missing-reference", _found_in_package)
    app.connect("html-collect-pages", _example_pages)
    app.connect("doctree-read", _link_to_examples, priority=100)
    app.connect("doctree-read", _long_lines)
