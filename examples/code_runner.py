"""Runs snippets of Python that a model has written, each in a confined process, with a tool that is given to it.

    python code_runner.py SNIPPET.py...

What a snippet prints is seen when it is printed; the value of its last expression comes back as data.  When it has
ended, or its time is over, all that it was given is taken back.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import capmarshal as cm

CHILD = Path(__file__).with_name("code_runner_child")
sys.path.append(str(CHILD))

from session_api import Session, Shop  # noqa: E402 - found by the line before

# Of what a snippet prints, and of its value.
CHARACTERS = 10_000
CONFINED = cm.Confinement(read=[CHILD], memory=1 << 30, cpu=5, descriptors=64)


class ShopServer(Shop):
    """The tool."""

    def __init__(self) -> None:
        self.prices = {"bread": 3.2, "milk": 1.1, "salt": 0.6}

    def price(self, article: str) -> float:
        """See :meth:`Shop.price`."""
        return self.prices[article]

    def articles(self) -> list[str]:
        """See :meth:`Shop.articles`."""
        return sorted(self.prices)


class SessionServer(Session):
    """A snippet, and what has come of it."""

    def __init__(self, snippet: str, tool: Shop) -> None:
        self.snippet, self.tool = snippet, tool
        self.left = CHARACTERS
        self.result: object = None

    def code(self) -> str:
        """See :meth:`Session.code`."""
        return self.snippet

    def shop(self) -> Shop:
        """See :meth:`Session.shop`."""
        return self.tool

    def print(self, text: str) -> None:
        """See :meth:`Session.print`."""
        shown, self.left = text[: self.left], max(self.left - len(text), 0)
        # Nothing that a terminal obeys.
        print("".join(each if each.isprintable() or each == "\n" else "?" for each in shown), end="", flush=True)

    def finish(self, result: str) -> None:
        """See :meth:`Session.finish`."""
        if len(result) > CHARACTERS:
            raise ValueError(f"a result has {CHARACTERS} characters at most")
        self.result = json.loads(result)


def name_of(number: int) -> str:
    """A signal's name, or its number: most real-time ones have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run(entrypoint: cm.Entrypoint, session: SessionServer, seconds: float) -> str:
    """Runs a snippet; how that ended, in words."""
    given = entrypoint.grant(session, label="snippet", deep=True)
    try:
        with cm.spawn([CHILD / "run_snippet.py"], parent=given, confine=CONFINED) as child:
            try:
                status = child.wait(seconds)
            except subprocess.TimeoutExpired:
                return f"killed after {seconds:g} seconds"
            finally:
                # Also where Ctrl-C ends this: the snippet's session is another.
                child.kill()
    finally:
        entrypoint.revoke(given)
    if status < 0:
        return f"by {name_of(-status)}"
    return "well" if status == 0 else "with an error"


def main(*snippets: str) -> None:
    """Runs snippets, one after the other."""
    seconds = float(os.environ.get("SECONDS", "5"))
    with cm.Entrypoint("runner") as entrypoint:
        for path in snippets:
            try:
                session = SessionServer(Path(path).read_text(encoding="utf-8"), ShopServer())
            except UnicodeDecodeError:
                print(f"{Path(path).name} cannot be read: it is not UTF-8", flush=True)
                continue
            ended = run(entrypoint, session, seconds)
            print(f"{Path(path).name} ended {ended}: {session.result!r}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
