"""The package's modules stand on each other in one order, and only one of them touches the extension."""

import ast
from pathlib import Path

import pytest

import capmarshal

# Lowest first: a module imports from those before it only.  _kernel.native alone stands on the extension.
LAYERS = (
    "_kernel.native",
    "lx",
    "_kernel.polling",
    "_kernel.errors",
    "_kernel.deadline",
    "_descriptors.private",
    "_descriptors.descriptor",
    "_typed.lists",
    "_descriptors.reaper",
    "_descriptors.dataspace",
    "_descriptors.inbox",
    "_descriptors.message",
    "_protocol.wire",
    "_kernel.waiting",
    "_protocol.parts",
    "_capabilities.space",
    "_protocol.faults",
    "_typed.codec",
    "_client.channel",
    "_client.knocking",
    "_typed.parameters",
    "_typed.method",
    "_client.proxy",
    "_typed.interface",
    "_server.journal",
    "_server.objects",
    "_server.dispatch",
    "_server.answers",
    "_server.channels",
    "_server.reception",
    "_server.doorkeeper",
    "_server.loop",
    "_entrypoint",
    "_child.spawn",
    "__init__",
    "demo",
    "__main__",
)

PACKAGE = Path(capmarshal.__file__).parent
EXTENSION = "_kernel._extension"


def _name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "demo" if parts[0] == "demo" else ".".join(parts).removesuffix(".__init__")


# The folders' own __init__ have a docstring and nothing else, which a test holds.
MODULES = sorted({_name(path) for path in PACKAGE.rglob("*.py")})
PACKAGES = sorted(name for name in MODULES if (PACKAGE / name).is_dir() and name != "demo")


def _dotted(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = ".".join(filter(None, ("capmarshal" if node.level else "", node.module)))
        return [f"{base}.{alias.name}" for alias in node.names]
    return []


def _imported(source, names):
    """The modules of the package, of those in ``names``, that ``source`` imports; __init__ is the package itself."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        for dotted in _dotted(node):
            package, _, rest = dotted.partition(".")
            if package != "capmarshal":
                continue
            while rest and rest not in names:
                rest = rest.rpartition(".")[0]
            found.add(rest or "__init__")
    return found


def test_every_module_has_its_place_in_the_order():
    """A module that the order does not know is an oversight."""
    unknown = [name for name in MODULES if name not in LAYERS and name not in PACKAGES]
    assert not unknown, f"add {unknown} to LAYERS in {Path(__file__).name}, each above what it imports"


@pytest.mark.parametrize("module", [name for name in LAYERS if name != "demo"])
def test_imports_go_downward_only(module):
    """No module imports one of its own layer's height or above; type checkers' imports count too."""
    below = set(LAYERS[: LAYERS.index(module)])
    allowed = below | ({EXTENSION} if module == "_kernel.native" else set())
    source = (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    upward = _imported(source, {*LAYERS, EXTENSION}) - allowed
    assert not upward, f"{module} imports {sorted(upward)}, which are not below it"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_imports_nothing_by_itself(package):
    """So a module of it can be imported without the others."""
    assert not _imported((PACKAGE / package / "__init__.py").read_text(encoding="utf-8"), {*LAYERS, EXTENSION})


@pytest.mark.parametrize(
    ("line", "modules"),
    [
        ("import capmarshal", {"__init__"}),
        ("import capmarshal._kernel._extension as n", {EXTENSION}),
        ("from capmarshal._kernel import _extension", {EXTENSION}),
        ("from capmarshal import Message", {"__init__"}),
        ("from capmarshal._kernel.native import lib", {"_kernel.native"}),
        ("from . import lx", {"lx"}),
        ("from .lx import bind", {"lx"}),
        ("def f():\n    from capmarshal._kernel import native, errors", {"_kernel.native", "_kernel.errors"}),
        ("import os, socket", set()),
    ],
)
def test_every_form_of_import_is_seen(line, modules):
    """The check above cannot be passed by writing an import differently."""
    assert _imported(line, {*LAYERS, EXTENSION}) == modules
