"""Spawned by code_runner.py, confined: runs one snippet, prints to its session, and gives it the last value."""

import ast
import io
import json
import sys
import traceback

from session_api import Session

import capmarshal as cm

# Characters.
PART = 10_000

session = cm.parent().cast(Session)


class Output(io.TextIOBase):
    """Where print() goes."""

    def write(self, text: str, /) -> int:
        """Sends it on, in calls that are not too big."""
        for at in range(0, len(text), PART):
            session.print(text[at : at + PART])
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


def data_of(value: object) -> str:
    """A value as JSON; as its repr(), where it is none, as by its keys, or a list that is within itself."""
    try:
        return json.dumps(value, default=repr)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(repr(value))


sys.stdout = sys.stderr = Output()
try:
    session.finish(data_of(run(session.code())))
except Exception as error:  # noqa: BLE001 - it is the snippet's own
    # Not by str(), which is the snippet's, too.
    print(*traceback.format_exception_only(error), sep="", end="")
    sys.exit(1)
