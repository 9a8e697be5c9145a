"""Spawned by code_runner.py, confined: runs one snippet, prints to its session, and gives it the last value."""

import ast
import io
import json
import sys

from session_api import Session

import capmarshal as cm

session = cm.parent().cast(Session)


class Output(io.TextIOBase):
    """Where print() goes."""

    def write(self, text: str, /) -> int:
        """Sends it on."""
        session.print(text)
        return len(text)


def run(code: str) -> object:
    """The value of the last expression; None where the last line is none."""
    tree = ast.parse(code, "snippet")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    scope: dict[str, object] = {"__name__": "__main__", "shop": session.shop()}
    exec(compile(tree, "snippet", "exec"), scope)  # noqa: S102 - what this is for
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "snippet", "eval"), scope)  # noqa: S307 - likewise


sys.stdout = Output()
try:
    value = run(session.code())
except Exception as error:  # noqa: BLE001 - it is the snippet's own
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
session.finish(json.dumps(value, default=repr))
