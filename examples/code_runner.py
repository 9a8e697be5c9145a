"""Runs snippets of Python that a model has written, each in a confined process, with a tool that is given to it.

    python code_runner.py SNIPPET.py...

What a snippet prints is seen when it is printed, behind a "|"; the value of its last expression comes back as data.
The tool is taken back after so many calls, and all that a snippet was given when it has ended, or its time is over.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import capmarshal as cm

CHILD = Path(__file__).with_name("code_runner_child")
sys.path.append(str(CHILD))

from session_api import Session, Shop  # noqa: E402 - found by the line before

CALLS = 200
# Of what a snippet prints, and of its value.
CHARACTERS = 10_000
# Of one call, and of its answer: what is bigger costs the runner no time.
BYTES = 1 << 20
# Threads are not counted for root, nor where a container refuses namespaces: a user of its own bounds them there.
CONFINED = cm.Confinement(read=[CHILD], memory=1 << 30, cpu=5, threads=16, descriptors=64, missing=["threads"])


class ShopServer(Shop):
    """The tool, for one run."""

    def __init__(self, entrypoint: cm.Entrypoint) -> None:
        self._entrypoint, self._calls = entrypoint, CALLS
        self._prices = {"bread": 3.2, "milk": 1.1, "salt": 0.6}

    def _count(self) -> None:
        self._calls -= 1
        if self._calls == 0:
            # This one is answered, and is the last.
            self._entrypoint.revoke(self, f"{CALLS} calls were made")

    def price(self, article: str) -> float:
        """See :meth:`Shop.price`."""
        self._count()
        return self._prices[article]

    def articles(self) -> Iterator[str]:
        """See :meth:`Shop.articles`."""
        self._count()
        return iter(sorted(self._prices))


class SessionServer(Session):
    """A run of a snippet, and what has come of it.

    Attributes:
        result: the value of its last expression.
        shown: that, for people.
    """

    def __init__(self, snippet: str, tool: Shop) -> None:
        self._snippet, self._tool = snippet, tool
        # Characters that may be printed yet, and whether a line of them has begun.
        self._left, self._begun = CHARACTERS, False
        self.result: object = None
        self.shown = "no value"

    def code(self) -> str:
        """See :meth:`Session.code`."""
        return self._snippet

    def shop(self) -> Shop:
        """See :meth:`Session.shop`."""
        return self._tool

    def print(self, text: str) -> None:
        """See :meth:`Session.print`."""
        shown, self._left = text[: max(self._left, 0)], self._left - len(text)
        # Nothing that a terminal obeys, and no line that could be taken for the runner's.
        plain = "".join(each if each.isprintable() or each == "\n" else "?" for each in shown)
        for line in plain.splitlines(keepends=True):
            print(line if self._begun else f"| {line}", end="", flush=True)
            self._begun = not line.endswith("\n")

    def close(self) -> None:
        """Ends what was printed."""
        if self._begun:
            print()
        if self._left < 0:
            print(f"(and {-self._left} characters more)")

    def finish(self, result: str) -> None:
        """See :meth:`Session.finish`."""
        if len(result) > CHARACTERS:
            raise ValueError(f"a result has {CHARACTERS} characters at most")
        try:
            value = json.loads(result)
            self.result, self.shown = value, ascii(value)
        except RecursionError:
            raise ValueError("a result is nested too deep") from None


def name_of(number: int) -> str:
    """A signal's name, or its number: most real-time ones have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run(entrypoint: cm.Entrypoint, snippet: str, seconds: float) -> tuple[SessionServer, str]:
    """Runs a snippet; (what has come of it, how it ended, in words)."""
    tool = ShopServer(entrypoint)
    # A grant of its own, so that it can be taken back by itself.
    session = SessionServer(snippet, entrypoint.grant(tool, label="snippet").cast(Shop))
    given = entrypoint.grant(session, label="snippet")
    try:
        with cm.spawn([CHILD / "run_snippet.py"], parent=given, confine=CONFINED) as child:
            try:
                status = child.wait(seconds)
            except subprocess.TimeoutExpired:
                return session, f"killed after {seconds:g} seconds"
            finally:
                # Also where Ctrl-C ends this: the snippet's session is another.
                child.kill()
    finally:
        entrypoint.revoke(tool)
        # Nor does a call of it run any more, which may print.
        entrypoint.dissolve(session)
        session.close()
    if status < 0:
        return session, f"by {name_of(-status)}"
    return session, "well" if status == 0 else "with an error"


def main(*snippets: str) -> None:
    """Runs snippets, one after the other."""
    seconds = float(os.environ.get("SECONDS", "5"))
    with cm.Entrypoint("runner", max_bytes=BYTES, max_descriptors=1) as entrypoint:
        for path in map(Path, snippets):
            try:
                snippet = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                print(f"{path.name} cannot be read: {error}", flush=True)
                continue
            session, ended = run(entrypoint, snippet, seconds)
            print(f"{path.name} ended {ended}: {session.shown}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
