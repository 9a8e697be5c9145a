"""A dbus-daemon of its own, for the peers that need one: where the server is, with a configuration of its own."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.rivals import client

# Of what is served there: twice, without descriptors and with.
PATH, INTERFACE = "/org/example/adder", "org.example.Adder"
NAMES = ("org.example.Adder", "org.example.Files")

# Listens in one place, and forbids nothing: dbus-daemon(1).
_CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
# The daemon ends with the standard input that it shares with the server, however the server ends.
_DAEMON = 'dbus-daemon --nofork --nopidfile --config-file="$1" 2>"$2" & cat; kill $!; wait'


def address(directory: str) -> str:
    """What to connect to."""
    return "unix:path=" + client.path(directory)


@contextlib.contextmanager
def running(directory: str) -> Iterator[None]:
    """The daemon runs, until the standard input ends.

    Raises:
        SystemExit: nobody could connect to it; with what it said.
    """
    configuration, log = Path(directory, "bus.conf"), Path(directory, "bus.log")
    configuration.write_text(_CONFIGURATION.format(address=address(directory)))
    with subprocess.Popen(["sh", "-c", _DAEMON, "sh", configuration, log]):
        try:
            client.await_listener(directory)
        except ConnectionRefusedError as error:
            raise SystemExit(f"no connection to dbus-daemon ({error}), which said:\n{log.read_text()}") from None
        yield
