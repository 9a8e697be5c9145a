"""Ctrl-C leaves no lock held: it may come at every jump back, and not all that lie in a ``with`` are covered by it."""

from __future__ import annotations

import ast
import dis
import types
from pathlib import Path

import pytest

import capmarshal as cm

PACKAGE = Path(cm.__file__).parent
# Run by the reaper's threads alone, where no signal handler runs.
ELSEWHERE = {"Threads._begin", "Threads._end"}


def _functions(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _functions(constant)


def _locked(source):
    """First and last line of each block that runs while a lock is held."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.With) and any(ast.unparse(item.context_expr).endswith("lock") for item in node.items):
            yield node.body[0].lineno, node.body[-1].end_lineno


def uncovered(source):
    """(function, line) of each jump back from within such a block to within it that no exception handler covers."""
    blocks = list(_locked(source))
    for code in _functions(compile(source, "source", "exec")):
        # A comprehension of 3.11 is a call, as far as what surrounds it is concerned.
        if code.co_name.startswith("<"):
            continue
        handled = dis.Bytecode(code).exception_entries
        lines = {each.offset: each.positions.lineno or 0 for each in dis.get_instructions(code)}
        for each in dis.get_instructions(code):
            if not each.opname.startswith("JUMP_BACKWARD") or each.opname.endswith("NO_INTERRUPT"):
                continue
            start, target = lines[each.offset], lines[each.argval]
            covered = any(entry.start <= each.offset < entry.end for entry in handled)
            if not covered and any(first <= min(start, target) and start <= last for first, last in blocks):
                yield code.co_qualname, start


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_jump_back_leaves_a_lock_held(path):
    """CPython 3.12 and 3.13 put the one behind a condition at the end of a loop outside of what the `with` covers."""
    assert [place for place in uncovered(path.read_text()) if place[0] not in ELSEWHERE] == []
