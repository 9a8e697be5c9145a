"""A soak of bridges: calls through pairs of them, beside each other, while these and the nodes between them are killed.

``python tests/support/bridge_soak.py CALLS [SEED]``.  Nodes and bridges are killed and started again, and stand still
and go on, at random, of each pair one after the other.  The server counts by each call's number; in the end no call has
run twice, none that was answered has not run, and none that was told "no" has run, then or later.
"""

from __future__ import annotations

import collections
import concurrent.futures
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

# Each has its own bridges, callers and misfortunes: where the callers of one wait, those of the others go on.
PAIRS = 2
# Calls after which what was said of them is compared with what has run, so that memory has no more of them.
ROUND = 10_000
# Answers between two things that are done to somebody.
BETWEEN_MIN, BETWEEN_MAX = 50, 350
# So many are done for so many calls at least: while a node starts, calls go on through the others.
CALLS_AN_ACT = 500
CALLERS = 6
# In so many cases of one, nobody else tells the near bridge that the far one was started again: it finds out.
FINDS_OUT = 4


class Nodes:
    """Those of all pairs: never is more than one of them down."""

    def __init__(self, nodes):
        self._nodes = nodes
        self._one = threading.Lock()
        self.addresses = [node.address for node in nodes]

    @contextlib.contextmanager
    def one(self, randomly):
        """One of them, to be stopped or killed; when the block ends, and it is there again, all know each other."""
        with self._one:
            yield randomly.choice(self._nodes)
            until(lambda: all(node.knows() == len(self._nodes) - 1 for node in self._nodes))


class Pair:
    """Two bridges, the calls that go through them, and what is done to them."""

    def __init__(self, stack, nodes, name, randomly):
        """Begun.

        Args:
            stack: ends it.
            nodes: of all pairs.
            name: no other pair's.
            randomly: what chance it has.
        """
        self._randomly, self._nodes, self._name = randomly, nodes, name
        starting = stack.enter_context(bridge_hosts.starting())
        self._near, self._far = starting.start({f"{end}-{name}": nodes.addresses for end in ("near", "far")})
        self._server = Server()
        self._exported = stack.enter_context(cm.Entrypoint("counted")).manage(self._server)
        self._token = self._far.host.export(self._exported)
        self._acts = []
        self.came, self.done = collections.Counter(), collections.Counter()

    def run(self, calls_wanted, others_failed):
        """Makes so many calls at least; raises AssertionError where something was not as it should be.

        Args:
            calls_wanted: how many.
            others_failed: an event, after which this one ends early.
        """
        may_run, first = set(), 1
        acts_wanted = calls_wanted // CALLS_AN_ACT
        while self.came.total() < calls_wanted or self.done.total() < acts_wanted:
            if others_failed.is_set():
                return
            wanted = max(min(ROUND, calls_wanted - self.came.total()), 1)
            with Calls(self._connect, self._server, callers=CALLERS, first=first) as calls:
                while len(calls.told) < wanted:
                    between = self._randomly.randrange(BETWEEN_MIN, BETWEEN_MAX)
                    calls.more(min(between, max(wanted - len(calls.told), 1)))
                    self._do_something(calls)
            self.came += calls.check()
            may_run |= {number for number, told in calls.told.items() if told == "maybe"}
            first = max(calls.told) + 1
            for number, told in calls.told.items():
                if told == "answered":
                    del self._server.ran[number]
            came = ", ".join(f"{count:,} {told}" for told, count in self.came.most_common())
            print(f"pair {self._name}: {came}; {self.done.total():,} acts: {dict(self.done)}", flush=True)
        ran = dict(self._server.ran)
        assert ran.keys() <= may_run, (
            "a call has run again after it was answered, or after it was said that it never would"
        )
        assert set(ran.values()) <= {1}, "a call has run twice"

    def _connect(self):
        """What the near bridge has of the server."""
        return self._near.host.connect(self._token)

    def _do_something(self, calls):
        """To a node, or to a bridge: each of all before one comes again."""
        if not self._acts:
            self._acts = [self._kill_node, self._stop_node, self._kill_near, self._kill_far, self._stop_bridge]
            self._randomly.shuffle(self._acts)
        act = self._acts.pop()
        self.done[act.__name__.strip("_")] += 1
        act(calls)

    def _kill_node(self, calls):
        with self._nodes.one(self._randomly) as node:
            node.kill()
            calls.more(self._randomly.randrange(100))
            node.start()

    def _stop_node(self, calls):
        with self._nodes.one(self._randomly) as node:
            node.stop()
            calls.more(self._randomly.randrange(100))
            node.go_on()

    def _kill_near(self, _calls):
        self._near.kill()
        self._near.restart()

    def _kill_far(self, _calls):
        self._far.kill()
        self._far.restart()
        self._far.host.export_again(self._exported, self._token)
        if self._randomly.randrange(FINDS_OUT):
            # Who asks for what a token stands for is told of another start at once, and so are all who wait.
            with contextlib.suppress(cm.Disconnected):
                self._connect()

    def _stop_bridge(self, _calls):
        bridge = self._randomly.choice([self._near, self._far])
        bridge.stop()
        # As long as nobody is answered, and a little less than always.
        threading.Event().wait(self._randomly.random())
        bridge.go_on()


def soak(calls_wanted, seed):
    """Raises AssertionError where something was not as it should be; prints how many calls came to what."""
    failed = threading.Event()

    def run(pair):
        try:
            pair.run(calls_wanted // PAIRS, failed)
        except BaseException:
            failed.set()
            raise

    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        nodes = Nodes(stack.enter_context(nats_servers.nodes(Path(directory), 3)))
        # Chance of a test, no secret.
        pairs = [Pair(stack, nodes, str(number), random.Random(f"{seed} {number}")) for number in range(1, PAIRS + 1)]
        with concurrent.futures.ThreadPoolExecutor(PAIRS) as threads:
            list(threads.map(run, pairs))
    print(f"{sum(pair.came.total() for pair in pairs):,} calls, {sum(pair.done.total() for pair in pairs):,} acts")


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"seed {chosen}", flush=True)
    soak(int(sys.argv[1]), chosen)
    print("no wrong answer")
