"""A process that holds capabilities, and does what it is told: a program, started with the numbers of two sockets.

By the first it is told what to do, a list in JSON, and answers; by the second capabilities come and go.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys

import capmarshal as cm
from by_hand import Work
from patience import PATIENCE


class Maker(Work):
    """What is granted: it hands out more of its kind."""

    @cm.method
    def another(self) -> Maker: ...


def outcome(capability, method):
    """How a call of one method or the other ends."""
    work = capability.cast(Work)
    try:
        with cm.timeout(PATIENCE):
            return work.double(4) if method == "double" else work.size(b"12345678")
    except cm.Error as error:
        return type(error).__name__


class Holder:
    """What one process holds, by place."""

    def __init__(self, control, data):
        self.held = {}
        self.listen(control, data)

    def listen(self, control, data):
        """Is told by these from now on."""
        self.control, self.data = control, data
        for sock in (control, data):
            # Whoever made them waits at the other ends for so long only.
            sock.setblocking(True)

    def call(self, place, method):
        """Calls one method or the other; how that ended."""
        return outcome(self.held[place], method)

    def another(self, place, new_place):
        """Is handed out something, which it holds from then on; how that ended."""
        try:
            with cm.timeout(PATIENCE):
                self.held[new_place] = cm.capability(self.held[place].cast(Maker).another())
        except cm.Error as error:
            return type(error).__name__

    def send(self, place):
        cm.send_capability(self.data, self.held[place])

    def take(self, place):
        self.held[place] = cm.receive_capability(self.data, PATIENCE)

    def drop(self, place):
        del self.held[place]

    def fork(self, control, data):
        """Has another process, by these sockets, which holds what this one does; its process ID."""
        pid = os.fork()
        others = [control, data] if pid else [self.control, self.data]
        if not pid:
            self.listen(control, data)
        for sock in others:
            sock.close()
        return pid

    def run(self):
        """Does what it is told until nobody tells it anything any more."""
        while True:
            told, numbers, _, _ = socket.recv_fds(self.control, 1000, 2)
            if not told:
                return
            what, *arguments = json.loads(told)
            sockets = [socket.socket(fileno=number) for number in numbers]
            result = getattr(self, what)(*arguments, *sockets)
            if what != "fork" or result:
                self.control.send(json.dumps(result).encode())


def main():
    """Runs it; nothing waits for the collector, nor for the processes that it forks."""
    gc.disable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control, data = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    Holder(control, data).run()


if __name__ == "__main__":
    main()
