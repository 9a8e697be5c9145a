"""jeepney over a dbus-daemon of its own: the blocking connection, in both processes.

https://jeepney.readthedocs.io/en/latest/: a ``Proxy`` of a ``MessageGenerator`` makes the calls; the server receives
messages and answers them, since jeepney has no services.  Descriptors need ``enable_fds``, which its documentation
advises to leave disabled where they are not needed: there are two connections, one with it and one without.  The daemon
runs where the server does.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.rivals import client, daemon


def _connected(directory: str, *, descriptors: bool) -> Any:
    from jeepney.io.blocking import open_dbus_connection

    return open_dbus_connection(daemon.address(directory), enable_fds=descriptors)


def serve(directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    with daemon.running(directory):
        # Its end is that of the connections.
        for name, answer in zip(daemon.NAMES, (_add, _inode), strict=True):
            connection = _connected(directory, descriptors=answer is _inode)
            threading.Thread(target=_answer, args=(connection, name, answer)).start()


def _answer(connection: Any, name: str, answer: Callable[[Any], tuple[str, int]]) -> None:
    from jeepney import MessageType, message_bus, new_method_return

    connection.send_and_get_reply(message_bus.RequestName(name))
    while True:
        try:
            message = connection.receive()
        except ConnectionResetError:
            return
        if message.header.message_type is MessageType.method_call:
            signature, result = answer(message)
            connection.send(new_method_return(message, signature, (result,)))


def _add(message: Any) -> tuple[str, int]:
    a, b = message.body
    return "x", a + b


def _inode(message: Any) -> tuple[str, int]:
    with message.body[0] as file:
        return "t", os.fstat(file.fileno()).st_ino


def connect(directory: str) -> client.Client:
    """A client of that server."""
    from jeepney import DBusErrorResponse, MessageGenerator, new_method_call
    from jeepney.io.blocking import Proxy

    class Adder(MessageGenerator):
        interface = daemon.INTERFACE

        def __init__(self, name: str) -> None:
            super().__init__(daemon.PATH, name)

        def add(self, a: int, b: int) -> Any:
            return new_method_call(self, "Add", "xx", (a, b))

        def inode(self, number: int) -> Any:
            return new_method_call(self, "Inode", "h", (number,))

    connections = [_connected(directory, descriptors=descriptors) for descriptors in (False, True)]
    plain, with_files = [
        Proxy(Adder(name), connection) for name, connection in zip(daemon.NAMES, connections, strict=True)
    ]

    def add(a: int, b: int) -> int:
        [result] = plain.add(a, b)
        return int(result)

    def inode(number: int) -> int:
        [result] = with_files.inode(number)
        return int(result)

    # Until the server has both its names on the bus.
    client.patiently(lambda: add(0, 0), DBusErrorResponse)
    with Path(os.devnull).open() as file:
        client.patiently(lambda: inode(file.fileno()), DBusErrorResponse)

    def close() -> None:
        for connection in connections:
            connection.close()

    return client.Client(add, close, inode)
