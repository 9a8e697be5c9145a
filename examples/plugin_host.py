"""Runs plugins that it does not trust, beside each other, and says what became of each.

    python plugin_host.py DIRECTORY PLUGIN.py...

Each has three capabilities: a log, a view of DIRECTORY, and a store in a database that the host owns.  It is confined,
and has quotas of time, memory, descriptors and calls.  The interfaces are in plugin_api/host_api.py.
"""

import contextlib
import io
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import capmarshal as cm

API = Path(__file__).with_name("plugin_api")
sys.path.append(str(API))

from host_api import Folder, Host, Log, Store  # noqa: E402 - found by the line before

SECONDS, CALLS = 10, 1000
CONFINED = cm.Confinement(read=[API], memory=512 << 20, cpu=3, descriptors=64)
LINE, LINES, TEXT, KEYS = 200, 100, 10_000, 100


def say(line: str) -> None:
    """Prints a line at once: print() writes its end by itself, and several threads print here."""
    print(f"{line}\n", end="", flush=True)


class Quota:
    """What one plugin may call; shared by all that it is given."""

    def __init__(self) -> None:
        self.left = CALLS

    def take(self) -> None:
        """Takes a call.

        Raises:
            PermissionError: there is none left.
        """
        self.left -= 1
        if self.left < 0:
            raise PermissionError(f"{CALLS} calls were made")


class LogServer(Log):
    """Prints what a plugin writes, and no more than so much of it."""

    def __init__(self, name: str, quota: Quota) -> None:
        self._name, self._quota, self._left = name, quota, LINES

    def write(self, line: str) -> None:
        """See :meth:`Log.write`."""
        self._quota.take()
        self._left -= 1
        if self._left < 0:
            raise PermissionError(f"{LINES} lines were written")
        # Nothing that a terminal obeys.
        say(f"{self._name}: {ascii(line[:LINE])[1:-1]}")


class FolderServer(Folder):
    """Opens files, and hands them over: a plugin opens none by itself."""

    def __init__(self, place: Path, quota: Quota) -> None:
        self._place, self._quota = place, quota

    def names(self) -> list[str]:
        """See :meth:`Folder.names`."""
        self._quota.take()
        return sorted(entry.name for entry in os.scandir(self._place) if entry.is_file(follow_symlinks=False))

    def open(self, name: str) -> io.BufferedReader:
        """See :meth:`Folder.open`."""
        if name not in self.names():
            raise FileNotFoundError(f"there is no file {name!r}")
        # Whoever may change the directory may have put a link there in the meantime.
        return os.fdopen(os.open(self._place / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


class StoreServer(Store):
    """A plugin's part of the database."""

    def __init__(self, data: sqlite3.Connection, name: str, quota: Quota) -> None:
        self._data, self._name, self._quota = data, name, quota

    def get(self, key: str) -> str | None:
        """See :meth:`Store.get`."""
        self._quota.take()
        found = self._data.execute("SELECT text FROM texts WHERE plugin = ? AND key = ?", (self._name, key)).fetchone()
        return found and str(found[0])

    def put(self, key: str, text: str) -> None:
        """See :meth:`Store.put`."""
        self._quota.take()
        (keys,) = self._data.execute("SELECT count(*) FROM texts WHERE plugin = ?", (self._name,)).fetchone()
        if len(key) > LINE or len(text) > TEXT or (keys >= KEYS and self.get(key) is None):
            raise PermissionError(f"a store has {KEYS} texts of {TEXT} characters, with keys of {LINE}")
        with self._data:
            self._data.execute("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", (self._name, key, text))


class HostServer(Host):
    """One plugin's."""

    def __init__(self, name: str, place: Path, data: sqlite3.Connection) -> None:
        quota = Quota()
        self._log, self._folder = LogServer(name, quota), FolderServer(place, quota)
        self._store = StoreServer(data, name, quota)

    def log(self) -> Log:
        """See :meth:`Host.log`."""
        return self._log

    def folder(self) -> Folder:
        """See :meth:`Host.folder`."""
        return self._folder

    def store(self) -> Store:
        """See :meth:`Host.store`."""
        return self._store


def name_of(number: int) -> str:
    """A signal's name, or its number: most real-time ones have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ended(plugin: subprocess.Popen[bytes]) -> str:
    """How a plugin has ended, in words; it is ended where its time is over."""
    try:
        status = plugin.wait(SECONDS)
    except subprocess.TimeoutExpired:
        plugin.kill()
        plugin.wait()
        return f"killed after {SECONDS} seconds"
    if status < 0:
        return f"ended by {name_of(-status)}"
    # No more than fits into the pipe: whoever writes more waits there.
    said = plugin.stderr.read() if plugin.stderr else b""
    last = " / ".join(said.decode(errors="replace").splitlines()[-2:]).strip()
    return f"ended with {status}" + (f": {ascii(last[:LINE])[1:-1]}" if status else "")


def run(entrypoint: cm.Entrypoint, host: HostServer, path: Path) -> None:
    """Runs a plugin, and says what became of it."""
    # What it is given through this goes with it.
    given = entrypoint.grant(host, label=path.stem, deep=True)
    try:
        with cm.spawn([path], parent=given, confine=CONFINED, stderr=subprocess.PIPE) as plugin:
            say(f"{path.stem} {ended(plugin)}")
    except OSError as error:
        say(f"{path.stem} cannot be run: {error}")
    finally:
        entrypoint.revoke(given)


def main(directory: str, *plugins: str) -> None:
    """Runs plugins beside each other."""
    # One thread serves, so one at a time uses it.
    data = sqlite3.connect("plugins.sqlite", check_same_thread=False)
    data.execute("CREATE TABLE IF NOT EXISTS texts (plugin, key, text, PRIMARY KEY (plugin, key))")
    with contextlib.closing(data), cm.Entrypoint("host") as entrypoint:
        hosts = [(HostServer(Path(each).stem, Path(directory), data), Path(each)) for each in plugins]
        threads = [threading.Thread(target=run, args=(entrypoint, *each)) for each in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print("the host goes on")


if __name__ == "__main__":
    main(*sys.argv[1:])
