"""Runs plugins that it does not trust, beside each other, and says what became of each.

    python plugin_host.py DIRECTORY PLUGIN.py...

Each has three capabilities: a log, a view of DIRECTORY, and a store in a database that the host owns.  It is confined,
and has quotas of time, memory, descriptors and calls.  A plugin's own words have its name and a colon before them; all
else is the host's word.  The interfaces are in plugin_api/host_api.py.
"""

import contextlib
import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import capmarshal as cm

API = Path(__file__).with_name("plugin_api")
sys.path.append(str(API))

from host_api import Folder, Host, Log, Store  # noqa: E402 - found by the line before

SECONDS, CALLS = 10, 1000
# Threads are not counted for root, nor where a container refuses namespaces: a user of its own bounds them there.
CONFINED = cm.Confinement(read=[API], memory=512 << 20, cpu=3, threads=16, descriptors=64, missing=["threads"])
LINE, LINES, TEXT, KEYS = 200, 100, 10_000, 100
# Of one call, and of its answer: what is bigger costs the host no time.
BYTES = 1 << 20
# With a space or a colon in it, a name could say what the host says.
NAME = re.compile(r"[\w.-]+", re.ASCII)


def say(line: str) -> None:
    """Prints a line at once: print() writes its end by itself, and two threads print here."""
    print(f"{line}\n", end="", flush=True)


def shown(text: str) -> str:
    """A line of a plugin's, with nothing that a terminal obeys."""
    return ascii(text[:LINE])[1:-1][:LINE]


class Quota:
    """What one plugin may call and write; shared by all that it is given.

    Attributes:
        refused: why a call was, the last one that was.
    """

    def __init__(self, entrypoint: cm.Entrypoint, host: Host) -> None:
        self._entrypoint, self._host = entrypoint, host
        self._calls, self._lines = CALLS, LINES
        self.refused = ""

    def refuse(self, reason: str) -> PermissionError:
        """An error to be raised; the host tells of it, whether or not the plugin does."""
        self.refused = reason
        return PermissionError(reason)

    def take_call(self) -> None:
        """Takes a call.

        Raises:
            PermissionError: there is none left: it was the last one, since further ones do not get here.
        """
        self._calls -= 1
        if self._calls < 0:
            error = self.refuse(f"{CALLS} calls were made")
            self._entrypoint.revoke(self._host, self.refused)
            raise error

    def take_line(self) -> None:
        """Takes a line.

        Raises:
            PermissionError: there is none left.
        """
        self._lines -= 1
        if self._lines < 0:
            raise self.refuse(f"{LINES} lines were written")


class LogServer(Log):
    """Prints what a plugin writes, and no more than so much of it."""

    def __init__(self, name: str, quota: Quota) -> None:
        self._name, self._quota = name, quota

    def write(self, line: str) -> None:
        """See :meth:`Log.write`."""
        self._quota.take_call()
        self._quota.take_line()
        say(f"{self._name}: {shown(line)}")


class FolderServer(Folder):
    """Opens files of a directory, and hands them over: a plugin opens none by itself.

    Args:
        place: a descriptor of the directory, borrowed.
        quota: the plugin's.
    """

    def __init__(self, place: int, quota: Quota) -> None:
        self._place, self._quota = place, quota

    def _names(self) -> list[str]:
        # No links, FIFOs and devices; and names that are text, in one line.
        with os.scandir(self._place) as entries:
            return sorted(
                each.name for each in entries if each.is_file(follow_symlinks=False) and each.name.isprintable()
            )

    def _open(self, name: str, flags: int) -> int:
        # Whoever may change the directory may have put a link or a FIFO there in the meantime.
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._place)

    def names(self) -> list[str]:
        """See :meth:`Folder.names`."""
        self._quota.take_call()
        return self._names()

    def open(self, name: str) -> io.BufferedReader:
        """See :meth:`Folder.open`."""
        self._quota.take_call()
        if name not in self._names():
            raise FileNotFoundError(f"there is no file {name!r}")
        return open(name, "rb", opener=self._open)


class StoreServer(Store):
    """A plugin's part of the database.

    Args:
        data: the database.
        owner: whose part it is.
        quota: the plugin's.
    """

    def __init__(self, data: sqlite3.Connection, owner: bytes, quota: Quota) -> None:
        self._data, self._owner, self._quota = data, owner, quota

    def get(self, key: str) -> str | None:
        """See :meth:`Store.get`."""
        self._quota.take_call()
        found = self._data.execute("SELECT text FROM texts WHERE plugin = ? AND key = ?", (self._owner, key)).fetchone()
        return found and str(found[0])

    def put(self, key: str, text: str) -> None:
        """See :meth:`Store.put`."""
        self._quota.take_call()
        keys = {found for (found,) in self._data.execute("SELECT key FROM texts WHERE plugin = ?", (self._owner,))}
        if len(key) > LINE or len(text) > TEXT or len(keys | {key}) > KEYS:
            raise self._quota.refuse(f"a store has {KEYS} texts of {TEXT} characters, with keys of {LINE}")
        with self._data:
            self._data.execute("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", (self._owner, key, text))


class HostServer(Host):
    """One plugin's.

    Attributes:
        name: the plugin's.
        quota: likewise.
    """

    def __init__(self, entrypoint: cm.Entrypoint, path: Path, place: int, data: sqlite3.Connection) -> None:
        self.name, self.quota = path.stem, Quota(entrypoint, self)
        self._log, self._folder = LogServer(self.name, self.quota), FolderServer(place, self.quota)
        # By its path: another time, another one may have its name.
        self._store = StoreServer(data, os.fsencode(path.resolve()), self.quota)

    def log(self) -> Log:
        """See :meth:`Host.log`."""
        self.quota.take_call()
        return self._log

    def folder(self) -> Folder:
        """See :meth:`Host.folder`."""
        self.quota.take_call()
        return self._folder

    def store(self) -> Store:
        """See :meth:`Host.store`."""
        self.quota.take_call()
        return self._store


@contextlib.contextmanager
def running(entrypoint: cm.Entrypoint, host: HostServer, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A plugin, which is ended with the block: its session is another, so that Ctrl-C does not reach it."""
    # What it is given through this goes with it.
    given = entrypoint.grant(host, label=host.name, deep=True)
    try:
        with cm.timeout(SECONDS):
            process = cm.spawn([path], parent=given, confine=CONFINED, stderr=subprocess.PIPE)
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        entrypoint.revoke(given)


def name_of(number: int) -> str:
    """A signal's name, or its number: most real-time ones have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ended(plugin: subprocess.Popen[bytes], deadline: float) -> str:
    """How a plugin has ended, in words; it is ended where its time is over."""
    try:
        status = plugin.wait(max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        plugin.kill()
        plugin.wait()
        return f"killed after {SECONDS} seconds"
    return f"ended with {status}" if status >= 0 else f"ended by {name_of(-status)}"


def tell(host: HostServer, plugin: subprocess.Popen[bytes], deadline: float) -> None:
    """Says what became of a plugin, when it has ended."""
    how = ended(plugin, deadline)
    # No more than fits into the pipe: whoever writes more waits there.
    words = plugin.stderr.read() if plugin.stderr else b""
    for line in words.decode(errors="replace").splitlines()[-2:]:
        say(f"{host.name}: {shown(line)}")
    say(f"{host.name} {how}" + (f"; refused: {host.quota.refused}" if host.quota.refused else ""))


def main(directory: str, *plugins: str) -> None:
    """Runs plugins beside each other."""
    names = [Path(each).stem for each in plugins]
    if len({*names}) < len(names) or not all(map(NAME.fullmatch, names)):
        raise SystemExit("plugins have names of their own, of letters, digits, '.', '_' and '-'")
    with contextlib.ExitStack() as stack:
        # One thread uses it: the one that serves.
        data = stack.enter_context(contextlib.closing(sqlite3.connect("plugins.sqlite", check_same_thread=False)))
        data.execute("CREATE TABLE IF NOT EXISTS texts (plugin, key, text, PRIMARY KEY (plugin, key))")
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, place)
        entrypoint = stack.enter_context(cm.Entrypoint("host", max_bytes=BYTES, max_descriptors=1))
        started = []
        for path in map(Path, plugins):
            host = HostServer(entrypoint, path, place, data)
            try:
                plugin = stack.enter_context(running(entrypoint, host, path))
            except (OSError, cm.Error) as error:
                say(f"{host.name} cannot be run: {error}")
            else:
                started.append((host, plugin, time.monotonic() + SECONDS))
        # Who was started first has its deadline first.
        for each in started:
            tell(*each)
    print("the host goes on")


if __name__ == "__main__":
    main(*sys.argv[1:])
