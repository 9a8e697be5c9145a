"""An entrypoint of the test's own, which can be looked into, and hostile processes that speak by hand."""

from __future__ import annotations

import contextlib
import os
import select
import socket

import by_hand
import capmarshal as cm
import parts_by_hand
from patience import PATIENCE


class Notes(by_hand.Work):
    """Notes who called."""

    @cm.method
    def note(self, who: str) -> None: ...

    @cm.method
    def make(self, size: int) -> bytes: ...

    @cm.method
    def pad(self, file: cm.Descriptor, size: int) -> bytes: ...

    @cm.method
    def give(self) -> cm.Descriptor: ...


class Notebook(by_hand.Worker, Notes):
    """Serves it."""

    def __init__(self):
        super().__init__()
        self.calls_by, self.seen = [], []
        self.look = lambda: None
        self.given = None

    def note(self, who):
        self.calls_by.append(who)
        self.seen.append(self.look())

    def make(self, size):
        return bytes(size)

    def pad(self, file, size):
        return bytes(size)

    def give(self):
        return self.given


class Served:
    """An entrypoint of this process and what it serves."""

    def __init__(self, **options):
        self.entrypoint = cm.Entrypoint("shared", **options)
        self.book = Notebook()
        self.capability = self.entrypoint.manage(self.book)
        self.channels = self.entrypoint._service._server._channels

    def total(self, what):
        return self.channels.ledger.total[what]


@contextlib.contextmanager
def serving(**options):
    # Hostile clients have answers that they never read: leaving it need not wait for these.
    served = Served(**{"close_timeout": 0.1} | options)
    with served.entrypoint:
        yield served
        # Whatever a test did: the next client is served.
        with cm.timeout(PATIENCE):
            assert served.capability.cast(by_hand.Work).double(4) == 8


class Hostile:
    """A forked process that does one act after the other, each when it is told to, and then stays as it is."""

    def __init__(self, fork, *acts):
        self._acted, tell = os.pipe()
        wait, self._go = os.pipe()

        def run():
            os.close(self._go)
            kept = []
            for act in acts:
                if not os.read(wait, 1):
                    return
                kept.append(act())
                os.write(tell, b".")
            # Until the test ends, or this process is killed.
            select.select([wait], [], [], 4 * PATIENCE)

        self.child = fork(run)
        os.close(tell)
        os.close(wait)

    def act(self):
        """Has the next act done."""
        os.write(self._go, b".")
        ready, _, _ = select.select([self._acted], [], [], PATIENCE)
        assert ready, "the hostile process hangs"
        assert os.read(self._acted, 1) == b".", self.child.result()

    def close(self):
        os.close(self._acted)
        os.close(self._go)
        self.child.kill()


def channels(capability, count):
    """Channels by hand, each of which has carried a call."""
    made = [by_hand.knock(capability) for _ in range(count)]
    assert all(parts_by_hand.lives(near, capability) for near in made)
    return made


def note(capability, who):
    return by_hand.call(capability, b"note", b"\x91" + bytes([0xA0 + len(who)]) + who.encode())


def knock_in_vain(capability, number):
    """A knock that is none, with a socket that takes as long to close as what lies in its queue; takes that."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        by_hand.send(near, b"x", [number])
        os.close(number)
        by_hand.at_door(capability, b"junk", [far.fileno()])


def send_away(sock, capability, number, call_id=1, count=1, **changed):
    """Sends a call with so many arguments, which take long to close, all in all as long as one; and gives them up.

    The server is to be busy meanwhile, so that its copies are the last.  ``changed`` overrides what by_hand.call takes.
    """
    kept, sent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    payload = b"\x91\xdc" + count.to_bytes(2, "big") + bytes(range(count))
    entries = [(slot, bytes(16)) for slot in range(count)]
    fields = {"method": b"count", "payload": payload, "entries": entries, "descriptors": count, "id": call_id}
    record = by_hand.call(capability, **(fields | changed))
    with kept, sent:
        by_hand.send(sent, b"x", [number])
        os.close(number)
        by_hand.send(sock, record, [kept.fileno(), *[sent.fileno()] * (count - 1)])
