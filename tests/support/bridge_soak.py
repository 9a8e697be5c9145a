"""A soak of bridges: calls through two of them, beside each other, while these and the nodes between them are killed.

``python tests/support/bridge_soak.py CALLS [SEED]``.  Nodes and bridges are killed and started again, and stand still
and go on, one after the other and at random.  The server counts by each call's number; in the end no call has run
twice, none that was answered has not run, and none that was told "no" has run, then or later.
"""

from __future__ import annotations

import collections
import contextlib
import random
import sys
import tempfile
import threading
from pathlib import Path

import bridge_hosts
import capmarshal as cm
import nats_servers
from bridge_calls import Calls, Server
from patience import until

# Calls after which what was said of them is compared with what has run, so that memory has no more of them.
ROUND = 10_000
# Answers between two things that are done to somebody.
BETWEEN_MIN, BETWEEN_MAX = 100, 900
CALLERS = 6


class Soak:
    """All processes of one, and what is done to them."""

    def __init__(self, stack, directory, randomly):
        self._randomly = randomly
        self._nodes = stack.enter_context(nats_servers.nodes(directory, 3))
        starting = stack.enter_context(bridge_hosts.starting())
        addresses = [node.address for node in self._nodes]
        self._near, self._far = (starting.start(name, addresses) for name in ("near", "far"))
        self.server = Server()
        self._exported = stack.enter_context(cm.Entrypoint("counted")).manage(self.server)
        self._token = self._far.host.export(self._exported)
        self.done = collections.Counter()

    def connect(self):
        """What the near bridge has of the server."""
        return self._near.host.connect(self._token)

    def do_something(self, calls):
        """To a node, or to a bridge."""
        act = self._randomly.choice(
            [self._kill_node, self._stop_node, self._kill_near, self._kill_far, self._stop_bridge]
        )
        self.done[act.__name__.strip("_")] += 1
        act(calls)

    def _kill_node(self, calls):
        node = self._randomly.choice(self._nodes)
        node.kill()
        calls.more(self._randomly.randrange(100))
        node.start()
        self._whole()

    def _stop_node(self, calls):
        node = self._randomly.choice(self._nodes)
        node.stop()
        calls.more(self._randomly.randrange(100))
        node.go_on()
        self._whole()

    def _whole(self):
        until(lambda: all(node.knows() == len(self._nodes) - 1 for node in self._nodes))

    def _kill_near(self, _calls):
        self._near.kill()
        self._near.restart()

    def _kill_far(self, _calls):
        self._far.kill()
        self._far.restart()
        self._far.host.export_again(self._exported, self._token)

    def _stop_bridge(self, _calls):
        bridge = self._randomly.choice([self._near, self._far])
        bridge.stop()
        # As long as nobody is answered, and a little less than always.
        threading.Event().wait(self._randomly.random())
        bridge.go_on()


def soak(calls_wanted, seed):
    """Raises AssertionError where something was not as it should be; prints how many calls came to what."""
    randomly = random.Random(seed)  # chance of a test, no secret
    came, may_run, first = collections.Counter(), set(), 1
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        made = Soak(stack, Path(directory), randomly)
        while came.total() < calls_wanted:
            wanted = min(ROUND, calls_wanted - came.total())
            with Calls(made.connect, made.server, callers=CALLERS, first=first) as calls:
                while len(calls.told) < wanted:
                    calls.more(min(randomly.randrange(BETWEEN_MIN, BETWEEN_MAX), max(wanted - len(calls.told), 1)))
                    made.do_something(calls)
            came += calls.check()
            may_run |= {number for number, told in calls.told.items() if told == "maybe"}
            first = max(calls.told) + 1
            for number, told in calls.told.items():
                if told == "answered":
                    del made.server.ran[number]
            print(f"{came.total():,} calls: {dict(came)}; done: {dict(made.done)}", flush=True)
        ran = dict(made.server.ran)
    assert ran.keys() <= may_run, "a call has run again after it was answered, or after it was said that it never would"
    assert set(ran.values()) <= {1}, "a call has run twice"


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"seed {chosen}", flush=True)
    soak(int(sys.argv[1]), chosen)
    print("no wrong answer")
