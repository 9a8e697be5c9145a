"""The command ``capmarshal`` from its first moment on: Ctrl-C ends it without a traceback while it is still imported.

Beside the package, since what is in that is imported after it.
"""

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
