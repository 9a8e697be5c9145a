"""What begins the command ``capmarshal``: Ctrl-C ends it without a traceback while its modules are still imported.

Before this one, Python imports the package itself, and that moment is left.
"""

from __future__ import annotations

import signal


def main() -> int:
    """Runs it; as :func:`capmarshal.__main__.main`."""
    by_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if by_default:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from capmarshal.__main__ import main as run

    if by_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()
