"""The command ``capmarshal``, run as a process, and as a function; and a service for it in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import by_hand
import desk
import services
from capmarshal.__main__ import main
from patience import PATIENCE

PYTHON = (sys.executable, "-P", "-W", "error")
# What a terminal would obey.
HOSTILE = "\x1b]0;title\x07\x9b31m\u202e"
COMMAND = (*PYTHON, "-m", "capmarshal")


def run(*words, **options):
    """A process that runs it, to its end: exit status, and text on standard output and standard error."""
    command = [*COMMAND, *map(str, words)]
    options = {"stdin": subprocess.DEVNULL, **options}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)
    return done.returncode, done.stdout, done.stderr


def here(capfd, *words):
    """The same by this process, which imports nothing anew, and whose log is afterwards as it was."""
    log = logging.getLogger("capmarshal")
    handlers, level, propagates = list(log.handlers), log.level, log.propagate
    try:
        status = main([str(word) for word in words])
    except SystemExit as ended:
        status = ended.code
    finally:
        log.handlers[:], log.propagate = handlers, propagates
        log.setLevel(level)
    said = capfd.readouterr()
    return status, said.out, said.err


@contextlib.contextmanager
def desk_served(path, kind="blocking"):
    """A desk in a process of its own, until the end of the block."""
    command = [*PYTHON, desk.__file__, kind, str(path)]
    environment = os.environ | {"PYTHONPATH": str(Path(desk.__file__).parent)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as service:
        try:
            assert service.stdout.readline() == "listens\n"
            yield service
        finally:
            service.kill()


@contextlib.contextmanager
def hostile(place, payload):
    """A service that hands over a door of its own making, behind which this payload answers whatever is asked.

    Or what a function makes of the number of the call, a record.
    """

    def answer():
        with contextlib.suppress(OSError), impostor.accept() as far:
            asked = far.recv(1000)
            number = int.from_bytes(asked[8:16], "little")
            far.send(payload(number) if callable(payload) else by_hand.reply(number, payload))

    with by_hand.Impostor() as impostor, services.serving(place, impostor.capability):
        answering = by_hand.Concurrent(answer)
        yield
        answering.outcome()
