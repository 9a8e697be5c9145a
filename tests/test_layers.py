"""The package's modules stand on each other in one order, and only one of them touches the extension."""

import ast
from pathlib import Path

import pytest

import capmarshal
from capmarshal._kernel.native import lib

# Lowest first; what stands in one line are siblings, none of which imports another.  A package imports only from those
# in the lines before it; what lies in no package is here by its own name.
PACKAGES = (
    ("_kernel",),
    ("lx", "_descriptors"),
    ("_protocol",),
    ("_capabilities",),
    ("_typed",),
    ("_client", "_server"),
    ("_child", "_entrypoint"),
    ("_async_client", "_async_server"),
    ("_calling",),
    ("__init__",),
    ("aio",),
    # They need the extra bridge.
    ("_bridge_engine",),
    ("_bridge_link",),
    ("_bridge",),
    ("bridge",),
    ("_inspect",),
    ("demo", "_doctor", "_testing"),
    # The one package, beside the whole, that people import by its name; and what they name to pytest.
    ("testing",),
    ("testing.plugin",),
    ("_describe", "_bridge_command"),
    ("_commands",),
    ("__main__",),
    ("_command",),
)

# And a module of a package from those before it in the package.  _kernel.native alone stands on the extension.
MODULES = {
    "_kernel": (
        "native",
        "ints",
        "numbers",
        "lifetime",
        "weakly",
        "polling",
        "errors",
        "wrong_block",
        "prompt",
        "hands",
        "deadline",
        "waiting",
        "call_log",
    ),
    "_descriptors": (
        "process",
        "moving",
        "new_process",
        "descriptor",
        "foreign",
        "private",
        "socket_paths",
        "descriptor_list",
        "layers",
        "refused",
        "array_layout",
        "memory",
        "dataspace",
        "shared_buffer",
        "buffer_pool",
        "mountinfo",
        "mounts",
        "closing",
        "closing_jobs",
        "closed_in_fork",
        "reaper_threads",
        "reaper",
        "inbox",
        "message",
    ),
    "_protocol": (
        "further_lines",
        "wire",
        "epitaph",
        "handover_record",
        "room",
        "parts",
        "answer_bound",
        "plain",
        "raised",
        "rebuilt",
        "faults",
        "states",
    ),
    "_capabilities": (
        "identity",
        "parametrised",
        "door",
        "capability",
        "homecoming",
        "space",
        "signal_capability",
        "signal_end",
        "signal_receiver",
        "gone",
        "handover",
        "connecting",
        "pickling",
    ),
    "_typed": (
        "standing_in",
        "flushing",
        "preparing",
        "files",
        "marks",
        "parameters",
        "stubs",
        "records",
        "colour",
        "table",
        "outgoing",
        "incoming",
        "stand_ins",
        "exact",
        "codec",
        "untaken",
        "long",
        "annotations",
        "sendable",
        "twins",
        "declaration",
        "description",
        "describing",
        "in_order",
        "placing",
        "implementation",
        "fitting",
        "items_before",
        "stream",
        "async_stream",
        "arguments",
        "lending",
        "binding",
        "method",
        "interface",
        "untyped",
        "forwarder",
        "streams",
    ),
    "_client": (
        "unanswered",
        "conversation",
        "sending",
        "channel",
        "knocking",
        "coding",
        "logged_proxy",
        "pulling",
        "proxy_class",
        "taken",
        "passing",
        "proxy",
        "forwarding",
    ),
    "_server": (
        "objects",
        "handler",
        "limits",
        "shares",
        "ledger",
        "timers",
        "slots",
        "watch",
        "os_signals",
        "answer",
        "outbox",
        "deep",
        "grant",
        "clients",
        "peers",
        "tracebacks",
        "journal",
        "kept",
        "shared_numbers",
        "caller",
        "ownership",
        "escapes",
        "items",
        "streams",
        "served_by",
        "call_arguments",
        "call_results",
        "calls",
        "logged_calls",
        "dispatch",
        "hanging_up",
        "unread",
        "channels",
        "closings",
        "endings",
        "backlog",
        "answers",
        "arrivals",
        "leaving",
        "records",
        "knocks",
        "doorkeeper",
        "new_door",
        "grant_methods",
        "grants_counted",
        "grant_doors",
        "unreachable",
        "grants",
        "result_grants",
        "socket_file",
        "callbacks",
        "listener",
        "handovers",
        "listening",
        "signal_handlers",
        "turns",
        "loop",
        "concurrency",
        "waiting_calls",
        "awaited_loop",
        "letting_go",
        "session",
        "starting",
        "service",
        "options",
        "entrypoint",
        "passed_service",
        "passed_streams",
    ),
    "_child": (
        "activation",
        "confinement",
        "allowed",
        "seccomp",
        "landlock",
        "privileges",
        "resource_limits",
        "undisturbed",
        "own_count",
        "confining",
        "inherited",
        "launcher",
        "own_folders",
        "pausing",
        "confine",
        "launching",
        "spawn",
    ),
    "_async_client": (
        "waiting",
        "asyncio_watch",
        "limiter",
        "calling",
        "passing",
        "proxy",
        "forwarding",
        "process",
        "spawn",
        "connecting",
        "signals",
    ),
    "_testing": (
        "leaks",
        "interfaces",
        "pairs",
        "orders",
        "traps",
        "small_table",
        "loading",
        "process",
        "peer",
    ),
    "_bridge_engine": (
        "engine",
        "awaited_answers",
        "handling",
        "credentials",
        "tls",
        "login",
        "refusals",
        "nats_wire",
        "node_socket",
        "nats_connection",
        "nats_nodes",
        "nats_interests",
        "nats_keeper",
        "nats_engine",
    ),
    "_bridge_link": (
        "tokens",
        "sealing",
        "replays",
        "clocks",
        "agreeing",
        "messages",
        "asking",
        "lines",
        "link",
        "joining",
        "reception",
    ),
    "_bridge": (
        "lending",
        "fetching",
        "dataspaces",
        "staying",
        "limits",
        "shares",
        "turns",
        "budget",
        "exports",
        "doors",
        "imports",
        "signals",
        "crossing",
        "pinging",
        "openings",
        "outgoing_calls",
        "incoming_calls",
        "partner",
        "partners",
        "pairing",
        "offers",
        "reaching",
        "alive",
        "bridge",
    ),
    "_bridge_command": ("secrecy", "token_files", "speaking", "told", "settings", "duties", "running"),
    "_commands": (
        "printing",
        "values",
        "demo",
        "doctor",
        "inspect",
        "describe",
        "call",
        "bridge",
        "completing",
        "completion",
    ),
    "_describe": (
        "asking",
        "schemas",
        "remote",
        "words",
        "arguments",
        "results",
        "running",
        "candidates",
    ),
    "_doctor": (
        "finding",
        "probe",
        "system",
        "reasons",
        "raw",
        "trying",
        "place",
        "python",
        "calling",
        "identity",
        "closing",
        "services",
        "confinement",
        "limits",
        "neighbours",
        "examination",
        "showing",
    ),
    "_inspect": (
        "sockets",
        "processes",
        "view",
        "seeing",
        "unseen",
        "looking",
        "words",
        "data",
        "table",
        "graph",
        "dot",
        "layout",
        "svg",
        "watching",
    ),
    "_async_server": (
        "call_ends",
        "driver",
        "streams",
        "asyncio_scope",
        "asyncio_driver",
        "awaited_call",
        "handlers",
        "asking",
        "serving",
        "passed_streams",
        "block",
        "asyncio_block",
        "entrypoint",
    ),
}

PACKAGE = Path(capmarshal.__file__).parent
EXTENSION = "_kernel._extension"


def _name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "demo" if parts[0] == "demo" else ".".join(parts).removesuffix(".__init__")


# The folders' own __init__ have a docstring and nothing else, which a test holds.
FOUND = sorted({_name(path) for path in PACKAGE.rglob("*.py")})
FOLDERS = sorted(name for name in FOUND if (PACKAGE / name).is_dir() and name not in ("demo", "testing"))
ORDERED = [f"{package}.{module}" for package, modules in MODULES.items() for module in modules]
ORDERED += [name for line in PACKAGES for name in line if name not in MODULES]


def _below(module):
    """What a module may import: all of the packages below its own, and what comes before it in its own."""
    package, _, name = module.partition(".")
    place = next(number for number, line in enumerate(PACKAGES) if package in line)
    lower = {other for line in PACKAGES[:place] for other in line}
    siblings = MODULES[package][: MODULES[package].index(name)] if package in MODULES else ()
    return {other for other in ORDERED if other.partition(".")[0] in lower} | {
        f"{package}.{other}" for other in siblings
    }


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
    """A module that the order does not know is an oversight, and so is a place without a module."""
    assert sorted({*FOUND} - {*FOLDERS}) == sorted(ORDERED), f"the order in {Path(__file__).name} is another"


@pytest.mark.parametrize("module", [name for name in ORDERED if name != "demo"])
def test_imports_go_downward_only(module):
    """Package by package, and within one module by module; what only a type checker imports counts too."""
    allowed = _below(module) | ({EXTENSION} if module == "_kernel.native" else set())
    path = PACKAGE / module.replace(".", "/")
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    upward = _imported(source, {*ORDERED, EXTENSION}) - allowed
    assert not upward, f"{module} imports {sorted(upward)}, which are not below it"


def test_client_and_server_are_siblings():
    """Neither stands on the other: a program that only calls needs no server, and one that serves no client."""
    for prefix in ("", "_async"):
        assert not any(name.startswith(f"{prefix}_client") for name in _below(f"{prefix}_server.entrypoint"))
        assert not any(name.startswith(f"{prefix}_server") for name in _below(f"{prefix}_client.proxy"))


@pytest.mark.parametrize("package", FOLDERS)
def test_a_folder_imports_nothing_by_itself(package):
    """So a module of it can be imported without the others."""
    assert not _imported((PACKAGE / package / "__init__.py").read_text(encoding="utf-8"), {*ORDERED, EXTENSION})


def test_type_checkers_are_told_of_all_that_the_extension_has():
    """And of nothing else: a function that C has no more, or has by another name, would be found when it is called."""
    stub = ast.parse((PACKAGE / "_kernel" / "_extension.pyi").read_text(encoding="utf-8"))
    members = next(node for node in stub.body if isinstance(node, ast.ClassDef)).body
    told = [node.name if isinstance(node, ast.FunctionDef) else node.target.id for node in members]
    assert sorted(told) == sorted(dir(lib))


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
    assert _imported(line, {*ORDERED, EXTENSION}) == modules
