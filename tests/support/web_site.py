"""The example of a web server, started with pages that do what a test wants, and its clients."""

import collections
import contextlib
import http.client
import os
import queue
import re
import signal
import socket
import threading
from pathlib import Path

from patience import PATIENCE

BIG = 32 << 20  # more than sockets have room for

# The server, of so many workers, which have these pages and are replaced without much ado.
START = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from pathlib import Path
import web_server
web_server.PROGRAM = Path(sys.path[0], "pages.py")
web_server.WORKERS, web_server.PAUSE_MAX = int(sys.argv.pop(1)), 0.1
web_server.main()
"""

PAGES = f"""
import asyncio, os, signal
import web_worker

async def page(path):
    match path.split("/")[1:]:
        case ["echo", what]:
            return what.encode()
        case ["big"]:
            return bytes({BIG})
        case ["gate", port]:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
            await reader.read()
            writer.close()
            return b"through"
        case ["crash"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["fault"]:
            raise ValueError("of the page")
    return await web_worker.hello(path)

web_worker.main(page)
"""


class Served:
    """A server that runs.

    Attributes:
        process: its parent.
        said: what that has printed since, a line each, and None at the end.
    """

    def __init__(self, process):
        self.process = process
        self.said = queue.SimpleQueue()
        self.port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", process.stdout.readline())[1])
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.said.put(line.rstrip())
        self.said.put(None)

    def next(self, pattern):
        """What matches in the next line that it says."""
        line = self.said.get(timeout=PATIENCE)
        match = line and re.fullmatch(pattern, line)
        assert match, line
        return match

    def ready(self):
        """The process ID of the worker that is ready next."""
        return int(self.next(r"worker (\d+) is ready")[1])

    def rest(self):
        """All that it has said when it has ended."""
        return list(iter(lambda: self.said.get(timeout=PATIENCE), None))

    def stop(self):
        """Has it end; its status, and what it has said."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE), self.rest()

    def client(self):
        """A client, to be closed."""
        return contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE))

    def descriptors(self):
        """How many the parent has open."""
        return self.kinds().total()

    def kinds(self):
        """How many of each kind it has open: all sockets are one, and whatever has a name is another."""
        return collections.Counter(re.sub(r"\[\d+\]$", "", link) for link in links(self.process.pid))

    def end(self):
        """With what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._reader.join()


def links(pid):
    """What a process has open."""
    opened = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            opened.append(str(path.readlink()))
    return opened


def of_tcp(pid, port):
    """Which of those are bound to a port, as links."""
    # Of /proc/net/tcp: number, local address, ..., inode.
    fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    bound = {f"socket:[{each[9]}]" for each in fields if each[1].endswith(f":{port:04X}")}
    return bound.intersection(links(pid))


def refuses(served):
    """Whether it has stopped to listen."""
    with socket.socket() as late:
        return late.connect_ex(("127.0.0.1", served.port)) != 0


def get(client, path):
    """(status, body)."""
    client.request("GET", path)
    response = client.getresponse()
    return response.status, response.read()


@contextlib.contextmanager
def gate():
    """(its path, waits until a worker stands at it, lets that through)."""
    with contextlib.ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        standing = []
        yield (
            f"/gate/{listener.getsockname()[1]}",
            lambda: standing.append(stack.enter_context(listener.accept()[0])),
            lambda: standing[-1].close(),
        )


class Load(threading.Thread):
    """A client that asks one thing after the other, on connections that are kept while they are.

    Attributes:
        answered: how many were.
        cut: how many had been sent, and got no answer, or not all of it.
        wrong: what should not have happened.
    """

    def __init__(self, served, enough):
        super().__init__()
        self.answered, self.cut, self.wrong = 0, 0, None
        self._served, self._enough = served, enough
        self.start()

    def run(self):
        with self._served.client() as client:
            while not self._enough.is_set() and self.wrong is None:
                what = f"{self.ident}-{self.answered}-{self.cut}"
                try:
                    client.request("GET", f"/echo/{what}")
                except OSError as error:
                    self.wrong = error
                    return
                try:
                    response = client.getresponse()
                    said = response.status, response.read().decode()
                except (OSError, http.client.HTTPException):
                    client.close()
                    self.cut += 1
                else:
                    self.answered += 1
                    if said != (200, what):
                        self.wrong = said
