"""What plugin_host.py gives a plugin: three capabilities, which it asks its parent for."""

import io

import capmarshal as cm


class Log(cm.Interface):
    """Takes lines."""

    @cm.method
    @cm.raises(PermissionError)
    def write(self, line: str) -> None:
        """Adds one."""


class Folder(cm.Interface):
    """One directory's files, to be read."""

    @cm.method
    @cm.raises(PermissionError)
    def names(self) -> list[str]:
        """Which there are."""

    @cm.method
    @cm.raises(PermissionError, FileNotFoundError)
    def open(self, name: str) -> io.BufferedReader:
        """One of them."""


class Store(cm.Interface):
    """Texts by their keys; they are there again when the plugin is started again."""

    @cm.method
    @cm.raises(PermissionError)
    def get(self, key: str) -> str | None:
        """What was put there last."""

    @cm.method
    @cm.raises(PermissionError)
    def put(self, key: str, text: str) -> None:
        """Has it kept."""


class Host(cm.Interface):
    """What a plugin's parent capability is."""

    @cm.method
    @cm.raises(PermissionError)
    def log(self) -> Log:
        """Its log."""

    @cm.method
    @cm.raises(PermissionError)
    def folder(self) -> Folder:
        """The directory."""

    @cm.method
    @cm.raises(PermissionError)
    def store(self) -> Store:
        """Its own store."""
