"""``multiprocessing.Connection`` over a unix socket, objects by its own pickling.

https://docs.python.org/3/library/multiprocessing.html#module-multiprocessing.connection: ``Listener`` and ``Client``,
``send`` and ``recv``.  No password, which would be asked for once per connection only.  A descriptor goes on the same
socket by ``multiprocessing.reduction.send_handle``, the cheapest that the package has.
"""

import os
from multiprocessing import reduction
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from bench.rivals import client


def serve(directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    client.end_with_input()
    with Listener(client.path(directory), "AF_UNIX") as listener:
        while True:
            with listener.accept() as connection:
                _answer(connection)


def _answer(connection: "Connection[Any, Any]") -> None:
    while True:
        try:
            match connection.recv():
                case ("add", a, b):
                    connection.send(a + b)
                case ("inode",):
                    number = reduction.recv_handle(connection)
                    result = os.fstat(number).st_ino
                    os.close(number)
                    connection.send(result)
        except EOFError:
            return


def connect(directory: str) -> client.Client:
    """A client of that server."""
    near = Client(client.path(directory), "AF_UNIX")

    def add(a: int, b: int) -> int:
        near.send(("add", a, b))
        result: int = near.recv()
        return result

    def inode(number: int) -> int:
        near.send(("inode",))
        reduction.send_handle(near, number, 0)  # the process is asked for on Windows alone
        result: int = near.recv()
        return result

    return client.Client(add, near.close, inode)
