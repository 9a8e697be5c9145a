"""``multiprocessing.managers``: a proxy of an object that a manager's server holds, over a unix socket.

https://docs.python.org/3/library/multiprocessing.html#using-a-remote-manager: ``register``, ``get_server`` and
``serve_forever``, ``connect``; the proxy that it makes by itself.  Pickling is the default serializer and the faster
one (the other is XML).  A descriptor is an argument as ``multiprocessing.reduction.DupFd``, as the package itself
pickles sockets: the receiver fetches it from a thread of the sender, which asks for a password.
"""

import multiprocessing
import os
from multiprocessing import reduction
from multiprocessing.managers import BaseManager
from typing import Any

from bench.rivals import client

# Both processes are the same user's, in a directory of their own: nothing is kept secret.
_KEY = b"rivals"


class _Adder:
    def add(self, a: int, b: int) -> int:
        return a + b

    def inode(self, file: Any) -> int:
        number = file.detach()
        try:
            return os.fstat(number).st_ino
        finally:
            os.close(number)


class _Manager(BaseManager):
    pass


def serve(directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    client.end_with_input()
    multiprocessing.current_process().authkey = _KEY
    adder = _Adder()
    _Manager.register("adder", callable=lambda: adder)
    _Manager(client.path(directory), _KEY).get_server().serve_forever()


def connect(directory: str) -> client.Client:
    """A client of that server."""
    multiprocessing.current_process().authkey = _KEY
    _Manager.register("adder")
    manager = _Manager(client.path(directory), _KEY)
    manager.connect()
    adder: Any = manager.adder()  # type: ignore[attr-defined]  # register() made it

    def inode(number: int) -> int:
        result: int = adder.inode(reduction.DupFd(number))
        return result

    # A proxy's connection ends with it.
    return client.Client(adder.add, lambda: None, inode)
