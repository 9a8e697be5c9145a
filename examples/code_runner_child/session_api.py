"""What code_runner.py gives a process that runs a snippet."""

from collections.abc import Iterator

import capmarshal as cm


class Shop(cm.Interface):
    """The tool that snippets are given; a real one has more."""

    @cm.method
    @cm.raises(KeyError)
    def price(self, article: str) -> float:
        """Of one."""

    @cm.method
    def articles(self) -> Iterator[str]:
        """Which there are, as many as are wanted."""


class Session(cm.Interface):
    """One run of a snippet."""

    @cm.method
    def code(self) -> str:
        """The snippet."""

    @cm.method
    def shop(self) -> Shop:
        """The tool."""

    @cm.method
    def print(self, text: str) -> None:
        """Takes what is printed, when it is."""

    @cm.method
    @cm.raises(ValueError)
    def finish(self, result: str) -> None:
        """Takes the value of the last expression, as JSON."""
