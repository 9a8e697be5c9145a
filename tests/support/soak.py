"""A soak: 8 clients make calls of 4 servers, blocking ones and ones in event loops, while some are killed.

``python tests/support/soak.py CALLS [SEED]``.  Calls are of every kind, some of them cancelled, interrupted or at
their deadline; each answer is looked at.  After each tenth of them, clients let go of all servers; then servers, and
the half of the clients that lives on, say what they hold.  In the end these are the descriptors that they had after
the first tenth, and as much memory within 5 %, which is only looked at where calls are many.
"""

from __future__ import annotations

import json
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soak_calls
import soak_process
from patience import PATIENCE
from soak_client import COUNT

CLIENTS = 8
# Rounds, and of how many calls one is at least.
ROUNDS_MAX, ROUND_MIN = 10, 1000
# Memory settles with what has been there once at the same time: a first round of 10,000 calls has not brought all of
# that (5.5 % more in the second round, and none in the eight after it), one of 100,000 has.
MEMORY_FROM, MEMORY_MORE = 1_000_000, 0.05
KILL_EVERY = 5000
# So many times the same is found before it is believed.
SAME = 3
# Seconds within which some client has made a call; a client itself says which of its calls hangs.
STILL_MAX = 2 * soak_process.CALL_MAX


class Failed(Exception):
    """The soak has; it says in what."""


class Process:
    """A server or client; it answers each line that it is told by one of its own."""

    def __init__(self, program, driver, *arguments):
        self.name = " ".join((program, driver, *arguments[1:2]))
        command = [sys.executable, Path(__file__).with_name(f"soak_{program}.py"), driver, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, line):
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()

    def has_answered(self):
        """Whether it has, or has ended."""
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def answers(self):
        """What it answers."""
        if not select.select([self._process.stdout], [], [], 2 * PATIENCE)[0]:
            raise Failed(f"{self.name} does not answer")
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self.name} has ended with status {self._process.wait(PATIENCE)}")
        return json.loads(line)

    def held(self):
        """What it holds, once that does not become less: others let go of theirs in their own time."""
        deadline, least, same = time.monotonic() + PATIENCE, None, 0
        while same < SAME and time.monotonic() < deadline:
            self.tell(soak_process.HOLD)
            held = self.answers()
            open_now = sum(held["descriptors"].values())
            same = same + 1 if open_now == least else 0
            least = open_now
            time.sleep(0.02)  # between two looks at what tells nobody
        return held

    def say_where(self):
        """Has it say on standard error where it is."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)

    def end(self):
        """Kills it; at once, in the middle of its calls."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._process.stdin.close()
        self._process.stdout.close()


class Soak:
    """All processes of one."""

    def __init__(self, calls, rounds, seed, directory):
        self._share, self._directory = calls // CLIENTS // rounds, directory
        self._randomly = random.Random(seed)  # chance of a test, no secret
        self._counts, self.killed = Path(directory, "counts"), 0
        self._counts.write_bytes(bytes(COUNT.size * CLIENTS))
        for number in range(soak_calls.FILES):
            Path(soak_calls.path_of(directory, number)).write_bytes(soak_calls.content_of(number))
        self._servers = [Process("server", driver, directory) for driver in soak_process.DRIVERS]
        for server in self._servers:
            server.answers()
        self._clients = [self._new_client(slot) for slot in range(CLIENTS)]

    def _new_client(self, slot):
        # Two of each driver, of which the second may be killed.
        driver = soak_process.DRIVERS[slot // 2]
        return Process("client", driver, self._directory, f"{slot}", f"{self._randomly.random()}")

    def _made(self):
        return [count for (count,) in COUNT.iter_unpack(self._counts.read_bytes())]

    def round(self, number):
        """Its share of the calls."""
        share = self._share
        goals = [share * (number + 1)] * CLIENTS
        kills = self._kills(share, [goal - share for goal in goals])
        for client, goal, made in zip(self._clients, goals, self._made(), strict=True):
            client.tell(f"{goal - made}\n")
        waiting = set(range(CLIENTS))
        last, since = None, time.monotonic()
        while waiting:
            made = self._made()
            if made != last:
                last, since = made, time.monotonic()
            if time.monotonic() > since + STILL_MAX:
                raise Failed(f"no call ends; clients that have not ended theirs: {sorted(waiting)}")
            for slot in sorted(waiting):
                if self._clients[slot].has_answered():
                    self._clients[slot].answers()
                    waiting.remove(slot)
                elif kills[slot] and made[slot] >= kills[slot][0]:
                    kills[slot].pop(0)
                    self._kill(slot, goals[slot])
            time.sleep(0.005)  # a poll: how many calls were made tells nobody

    def _kills(self, share, begin):
        """At which of their calls clients are killed."""
        count = max(1, round(share * CLIENTS / min(KILL_EVERY, share * CLIENTS)))
        kills = [[] for _ in range(CLIENTS)]
        for _ in range(count):
            slot = self._randomly.randrange(1, CLIENTS, 2)
            kills[slot].append(begin[slot] + self._randomly.randrange(1, share))
        return [sorted(each) for each in kills]

    def _kill(self, slot, goal):
        self._clients[slot].end()
        self.killed += 1
        self._clients[slot] = self._new_client(slot)
        self._clients[slot].tell(f"{max(0, goal - self._made()[slot])}\n")

    def held(self):
        """What each process holds that lives on: servers first, since they may hold objects of clients'."""
        return {process.name: process.held() for process in (*self._servers, *self._clients[::2])}

    def end(self):
        for process in (*self._servers, *self._clients):
            process.end()

    def say_where(self):
        for process in (*self._servers, *self._clients):
            process.say_where()
        time.sleep(1)  # for them to write it, before they are killed


def differences(name, before, after, memory):
    """In what this process does not hold what it held."""
    found = []
    if before["descriptors"] != after["descriptors"]:
        found.append(f"{name} had {before['descriptors']} open and has {after['descriptors']}")
    if memory and after["resident"] > before["resident"] * (1 + MEMORY_MORE):
        found.append(f"{name} had {before['resident']} kB resident and has {after['resident']} kB")
    return found


def show(round_, held, since):
    words = [f"{name} {sum(of['descriptors'].values())}/{of['resident'] // 1024}" for name, of in held.items()]
    print(f"{round_}: {time.monotonic() - since:.0f} s, descriptors/MiB:", ", ".join(words), flush=True)


def run(calls, seed):
    """Runs it; what was not as it should be, in words."""
    since, first = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        rounds = min(max(calls // ROUND_MIN, 2), ROUNDS_MAX)
        soak = Soak(calls, rounds, seed, directory)
        try:
            for number in range(rounds):
                soak.round(number)
                held = soak.held()
                first = first or held
                show(f"{number + 1}/{rounds}", held, since)
        except Failed:
            soak.say_where()
            raise
        finally:
            soak.end()
        print(f"{calls} calls, {soak.killed} clients killed")
    memory = calls >= MEMORY_FROM
    return [line for name in first for line in differences(name, first[name], held[name], memory)]


def main():
    calls = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"soak of {calls} calls, seed {seed}", flush=True)
    wrong = run(calls, seed)
    print("\n".join(wrong) or "all as it was")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
