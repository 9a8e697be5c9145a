"""What a process does under somebody's filter, as client and as server of its own; and the hub that it does it with.

No test is imported here, and no annotation is text: the source is run as a program's, see :func:`command`.
"""

import contextlib
import errno
import io
import logging
import os
import select
import signal
import threading
import time
from pathlib import Path

import capmarshal as cm

SECONDS = 20
BIG = 3 << 20

# An interpreter that any user may run finds the packages by that variable (`ordinary_user.py`), which -I passes over.
_BOOT = """
import os, sys
sys.path += os.environ.get("PYTHONPATH", "").split(os.pathsep)
refusing, program, when, error, *calls = sys.argv[1:]
exec(compile(refusing, "refusing.py", "exec"))
if when == "before":
    refuse(calls, int(error))
import capmarshal
if when == "after":
    refuse(calls, int(error))
exec(compile(program, "sandboxed.py", "exec"))
act()
print("all done")
"""


class Hub(cm.Interface):
    """What the process is given; it tells what it calls back, too."""

    @cm.method
    def double(self, value: int) -> int: ...

    @cm.method
    def reverse(self, data: bytes) -> bytes: ...

    @cm.method
    def read(self, file: io.BufferedReader) -> bytes: ...

    @cm.method
    def pipe(self) -> cm.Descriptor: ...

    @cm.method
    def copy(self, data: cm.Dataspace) -> cm.Dataspace: ...

    @cm.method
    def keep(self, what: cm.Capability) -> cm.Capability: ...

    @cm.method
    def itself(self) -> cm.Capability: ...

    @cm.method
    def have_called(self, hub: cm.Capability) -> bool: ...

    @cm.method
    def wait(self, until: cm.Descriptor, interrupted: int) -> None: ...

    @cm.method
    def temporary(self) -> cm.Capability: ...

    @cm.method
    def end_temporary(self) -> None: ...

    @cm.method
    def wait_gone(self, what: cm.Capability) -> bool: ...

    @cm.method
    def has_ended(self, hub: cm.Capability, until: cm.Descriptor) -> bool: ...


class HubServer(Hub):
    """Serves it, at either side; ``entrypoint`` is where it is managed."""

    def __init__(self, entrypoint):
        self.entrypoint = entrypoint
        self.begun = threading.Event()
        self.other = None

    def double(self, value):
        return 2 * value

    def reverse(self, data):
        return data[::-1]

    def read(self, file):
        return file.read()

    def pipe(self):
        reader, writer = map(cm.Descriptor, os.pipe())
        with writer:
            os.write(writer.fileno(), b"through a pipe")
        return reader

    def copy(self, data):
        return cm.Dataspace.from_buffer(data.view())

    def keep(self, what):
        return what

    def itself(self):
        return cm.capability(self)

    def have_called(self, hub):
        call_all(hub.cast(Hub))
        return True

    def wait(self, until, interrupted):
        """Until the other end of a pipe is closed; and interrupts a process that has called it, once that sleeps."""
        if interrupted:
            deadline = time.monotonic() + SECONDS
            while Path(f"/proc/{interrupted}/stat").read_text().rpartition(")")[2].split()[0] != "S":
                assert time.monotonic() < deadline, f"{interrupted} does not sleep"
                time.sleep(0)  # a poll: no descriptor tells
            os.kill(interrupted, signal.SIGINT)
        self.begun.set()
        select.select([until], [], [], SECONDS)

    def temporary(self):
        self.other = cm.Entrypoint("temporary")
        return self.other.manage(HubServer(self.other))

    def end_temporary(self):
        self.other.close()

    def wait_gone(self, what):
        cm.wait_gone(what, SECONDS)
        return what.gone

    def has_ended(self, hub, until):
        """Whether a call that waits is ended by the end of its server, since nothing else does."""
        try:
            hub.cast(Hub).wait(until, 0)
        except cm.Disconnected as ended:
            return ended.ran == "maybe"
        return False


def call_all(hub):
    """Every kind of call there is: data, long ones, descriptors, dataspaces, capabilities."""
    assert hub.double(21) == 42
    # In one record, and in parts.
    for size in (100, 10_000, BIG):
        data = os.urandom(size)
        assert hub.reverse(data) == data[::-1]
    reader, writer = os.pipe()
    os.write(writer, b"in a file")
    os.close(writer)
    with open(reader, "rb") as file:
        assert hub.read(file) == b"in a file"
    with hub.pipe() as pipe:
        assert os.read(pipe.fileno(), 100) == b"through a pipe"
    with cm.Dataspace.from_buffer(b"sealed") as sent, hub.copy(sent) as received:
        assert received.view() == b"sealed"
    itself = cm.capability(hub)
    assert hub.itself() is hub.keep(itself) is itself


def act():
    """All that a process does with the hub that it was given; each part is what some filter has once broken."""
    # Of a method that is left behind, see below.
    logging.getLogger("capmarshal").setLevel(logging.CRITICAL)
    with cm.timeout(SECONDS):
        hub = cm.parent().cast(Hub)
        call_all(hub)
        _limits_of_time(hub)
        _ctrl_c(hub)
        _serve(hub)
        _fork(hub)
        _close_while_a_method_runs(hub)


@contextlib.contextmanager
def _pipe():
    """An end to be waited for, until this block ends."""
    reader, writer = map(cm.Descriptor, os.pipe())
    with reader, writer:
        yield reader


def _limits_of_time(hub):
    with _pipe() as until:
        try:
            with cm.timeout(0.01):
                hub.wait(until, 0)
        except cm.CallTimeout:
            pass
        else:
            raise AssertionError("it came back")
    assert hub.double(1) == 2


def _ctrl_c(hub):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with _pipe() as until:
        try:
            hub.wait(until, os.getpid())
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("it came back")
    assert hub.double(1) == 2


def _serve(hub):
    """Serves what the other side calls, and tells when it has gone; and the same the other way round."""
    with cm.Entrypoint("sandboxed") as entrypoint:
        server = HubServer(entrypoint)
        own = entrypoint.manage(server)
        assert hub.have_called(own)
        # It comes home, and is the object that is managed here; called from elsewhere, its own thread runs it.
        assert hub.keep(own) is own
        assert own.local is server
        assert own.cast(Hub).double(2) == 4
        call_all(own.cast(Hub))
        # And to its own thread, which runs it at once.
        assert own.cast(Hub).have_called(own)
    assert hub.wait_gone(own)
    other = hub.temporary()
    assert not other.gone
    hub.end_temporary()
    cm.wait_gone(other, SECONDS)
    assert other.gone


def _fork(hub):
    forked = os.fork()
    if forked == 0:
        code = 1
        try:
            assert hub.double(4) == 8
            with cm.Entrypoint("forked") as entrypoint:
                assert hub.have_called(entrypoint.manage(HubServer(entrypoint)))
            code = 0
        finally:
            os._exit(code)
    assert hub.double(3) == 6
    assert os.waitpid(forked, 0)[1] == 0


def _close_while_a_method_runs(hub):
    entrypoint = cm.Entrypoint("blocked", close_timeout=0)
    server = HubServer(entrypoint)
    own = entrypoint.manage(server)
    told = []
    with _pipe() as until:
        with entrypoint:
            thread = threading.Thread(target=lambda: told.append(hub.has_ended(own, until)))
            thread.start()
            assert server.begun.wait(SECONDS)
        thread.join(SECONDS)
        assert told == [True]


def command(python, when, calls, error=errno.EPERM):
    """How Python runs :func:`act` under a filter that is there before capmarshal is imported, or comes after."""
    here = Path(__file__).parent
    sources = [(here / name).read_text() for name in ("refusing.py", "sandboxed.py")]
    return [python, "-I", "-W", "error", "-c", _BOOT, *sources, when, str(error), *calls]
