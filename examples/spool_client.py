"""A client of spool.py that survives its restarts: each line is written once, in order, whenever the service ends.

It may be the only one that writes: how many lines there are tells it whether a line that it has no answer for is there.
"""

import time

from spool import PATH, Spool

import capmarshal as cm

LINES = 1000

# Seconds that the service may take to come back, and to answer.
PATIENCE = 30.0
# And between two looks whether it has.
PAUSE = 0.02


def connect() -> Spool:
    """The service, as soon as it is there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return cm.connect(PATH, timeout=PATIENCE).cast(Spool, timeout=PATIENCE)
        except cm.Disconnected:
            # There is no such file, or nobody listens there, or whoever did has gone.
            if time.monotonic() > deadline:
                raise
            time.sleep(PAUSE)


def main() -> None:
    """Writes what is missing of the lines."""
    spool, written, restarts = connect(), None, 0
    while written is None or written < LINES:
        try:
            written = spool.lines() if written is None else spool.append(f"line {written}")
        except cm.Disconnected as gone:
            restarts += 1
            spool = connect()
            if gone.ran == "maybe":
                # The line may be there: it is asked.  It certainly is not where gone.ran is "no", and is sent again.
                written = None
    print(f"{written} lines; the service was started again {restarts} times")


if __name__ == "__main__":
    main()
