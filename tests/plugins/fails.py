"""Is only wrong."""

raise ValueError("\x1b[2J" + "x" * 10_000)
