"""The package's modules stand on each other in one order, and only one of them touches the extension."""

import ast
from pathlib import Path

import pytest

import capmarshal

# Lowest first: a module imports from those before it only.  _lx alone stands on the extension, _native.
LAYERS = (
    "_lx",
    "lx",
    "_polling",
    "_errors",
    "_deadline",
    "_private",
    "_descriptor",
    "_lists",
    "_reaper",
    "_dataspace",
    "_inbox",
    "_message",
    "_wire",
    "_backoff",
    "_parts",
    "_capability",
    "_faults",
    "_codec",
    "_channel",
    "_client",
    "_parameters",
    "_method",
    "_proxy",
    "_interface",
    "_objects",
    "_dispatch",
    "_outbox",
    "_clients",
    "_reception",
    "_doorkeeper",
    "_server",
    "_entrypoint",
    "_child",
    "__init__",
    "demo",
    "__main__",
)

PACKAGE = Path(capmarshal.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def _imported(source, names):
    """The modules of the package, of those in ``names``, that ``source`` imports; __init__ is the package itself."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ("capmarshal" if node.level else "", node.module)))
            dotted = [f"{base}.{a.name}" if base == "capmarshal" and a.name in names else base for a in node.names]
        else:
            continue
        for name in dotted:
            package, _, rest = name.partition(".")
            if package == "capmarshal":
                found.add(rest.partition(".")[0] or "__init__")
    return found


def test_every_module_has_its_place_in_the_order():
    """A module that the order does not know is an oversight."""
    unknown = [name for name in MODULES if name not in LAYERS]
    assert not unknown, f"add {unknown} to LAYERS in {Path(__file__).name}, each above what it imports"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downward_only(module):
    """No module imports one of its own layer's height or above; type checkers' imports count too."""
    below = set(LAYERS[: LAYERS.index(module)]) if module in LAYERS else set()
    allowed = below | ({"_native"} if module == "_lx" else set())
    upward = _imported((PACKAGE / f"{module}.py").read_text(encoding="utf-8"), {*LAYERS, "_native"}) - allowed
    assert not upward, f"{module} imports {sorted(upward)}, which are not below it"


@pytest.mark.parametrize(
    ("line", "modules"),
    [
        ("import capmarshal", {"__init__"}),
        ("import capmarshal._native as n", {"_native"}),
        ("from capmarshal import _native", {"_native"}),
        ("from capmarshal import Message", {"__init__"}),
        ("from capmarshal._lx import lib", {"_lx"}),
        ("from . import _lx", {"_lx"}),
        ("from ._lx import lib", {"_lx"}),
        ("def f():\n    from capmarshal import _lx, _message", {"_lx", "_message"}),
        ("import os, socket", set()),
    ],
)
def test_every_form_of_import_is_seen(line, modules):
    """The check above cannot be passed by writing an import differently."""
    assert _imported(line, {*LAYERS, "_native"}) == modules
