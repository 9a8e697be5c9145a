"""The peers that speak D-Bus, over a dbus-daemon of their own, which runs where the server does.

Each call goes through the daemon and back, which is what D-Bus is.  To be able to send descriptors makes every call
dearer, so there are two connections on either side, one without that and one with it, and two names on the bus.
"""

# No "from __future__ import annotations": dbus-fast reads the annotations of a service's methods.

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from bench.loops import Client, in_asyncio
from bench.processes import PATIENCE, await_listener, patiently

_PATH, _INTERFACE = "/org/example/adder", "org.example.Adder"
# Of what is served there: whether it is with descriptors.
_NAMES = {"org.example.Adder": False, "org.example.Files": True}
# The daemon ends with the standard input that it shares with the server, however the server ends.
_DAEMON = 'dbus-daemon --session --nofork --nopidfile --address="unix:path=$1" 2>"$1.log" & cat; kill $!; wait'


@contextlib.contextmanager
def _daemon(path: str) -> Iterator[None]:
    """The daemon runs, until the standard input ends."""
    with subprocess.Popen(["sh", "-c", _DAEMON, "sh", path]):
        try:
            await_listener(path)
        except ConnectionRefusedError as error:
            said = Path(f"{path}.log").read_text()
            raise SystemExit(f"no connection to dbus-daemon ({error}), which said:\n{said}") from None
        yield


def serve_dbus_fast(path: str) -> None:
    """dbus-fast: the high-level service and client of asyncio.

    https://dbus-fast.readthedocs.io/en/latest/high-level-service/index.html and high-level-client/index.html: a
    ``ServiceInterface``, a proxy from what the service says of itself, descriptors as type ``h`` with
    ``negotiate_unix_fd``.  The wheel's Cython extension does the (un)marshalling.
    """
    from dbus_fast.annotations import DBusInt64, DBusUInt64, DBusUnixFd
    from dbus_fast.service import ServiceInterface, dbus_method

    class Adder(ServiceInterface):
        @dbus_method()
        def Add(self, a: DBusInt64, b: DBusInt64) -> DBusInt64:  # noqa: N802 - as methods of D-Bus are named
            return a + b

        @dbus_method()
        def Inode(self, file: DBusUnixFd) -> DBusUInt64:  # noqa: N802 - as methods of D-Bus are named
            try:
                return os.fstat(file).st_ino
            finally:
                os.close(file)

    async def run() -> None:
        adder = Adder(_INTERFACE)
        for name, bus in (await _buses(path)).items():
            bus.export(_PATH, adder)
            await bus.request_name(name)
        await asyncio.Event().wait()

    with _daemon(path):
        asyncio.run(run())


@in_asyncio
async def dbus_fast(path: str) -> AsyncIterator[Client]:
    from dbus_fast import DBusError

    async def adder(name: str) -> Any:
        # Until the server has both its names on the bus.
        while True:
            with contextlib.suppress(DBusError):
                node = await buses[name].introspect(name, _PATH)
                return buses[name].get_proxy_object(name, _PATH, node).get_interface(_INTERFACE)
            await asyncio.sleep(0.01)

    buses = await _buses(path)
    async with asyncio.timeout(PATIENCE):
        plain, with_files = [await adder(name) for name in _NAMES]
    yield Client(plain.call_add, with_files.call_inode)
    for bus in buses.values():
        bus.disconnect()
        await bus.wait_for_disconnect()


async def _buses(path: str) -> dict[str, Any]:
    from dbus_fast.aio import MessageBus

    at = f"unix:path={path}"
    return {name: await MessageBus(at, negotiate_unix_fd=files).connect() for name, files in _NAMES.items()}


def serve_jeepney(path: str) -> None:
    """jeepney: the blocking connection, in both processes.

    https://jeepney.readthedocs.io/en/latest/: a ``Proxy`` of a ``MessageGenerator`` makes the calls; the server
    receives messages and answers them, since jeepney has no services.  Descriptors need ``enable_fds``, which its
    documentation advises to leave disabled where they are not needed.
    """
    from jeepney import MessageType, message_bus, new_method_return

    def serve(name: str, connection: Any) -> None:
        connection.send_and_get_reply(message_bus.RequestName(name))
        # The daemon ends when this process does, or just before.
        with contextlib.suppress(ConnectionResetError):
            while True:
                message = connection.receive()
                if message.header.message_type is MessageType.method_call:
                    signature, result = _inode(message) if _NAMES[name] else _sum(message)
                    connection.send(new_method_return(message, signature, (result,)))

    with _daemon(path):
        for of_name in _connections(path).items():
            threading.Thread(target=serve, args=of_name).start()


def _sum(message: Any) -> tuple[str, int]:
    a, b = message.body
    return "x", a + b


def _inode(message: Any) -> tuple[str, int]:
    with message.body[0] as file:
        return "t", os.fstat(file.fileno()).st_ino


@contextlib.contextmanager
def jeepney(path: str) -> Iterator[Client]:
    from jeepney import DBusErrorResponse, MessageGenerator, new_method_call
    from jeepney.io.blocking import Proxy

    class Adder(MessageGenerator):
        interface = _INTERFACE

        def add(self, a: int, b: int) -> Any:
            return new_method_call(self, "Add", "xx", (a, b))

        def inode(self, number: int) -> Any:
            return new_method_call(self, "Inode", "h", (number,))

    connections = _connections(path)
    plain, with_files = (Proxy(Adder(_PATH, name), connection) for name, connection in connections.items())

    def add(a: int, b: int) -> Any:
        return plain.add(a, b)[0]

    def inode(number: int) -> Any:
        return with_files.inode(number)[0]

    # Until the server has both its names on the bus.
    patiently(lambda: add(0, 0), DBusErrorResponse)
    with Path(os.devnull).open() as file:
        patiently(lambda: inode(file.fileno()), DBusErrorResponse)

    yield Client(add, inode)
    for connection in connections.values():
        connection.close()


def _connections(path: str) -> dict[str, Any]:
    from jeepney.io.blocking import open_dbus_connection

    return {name: open_dbus_connection(f"unix:path={path}", enable_fds=files) for name, files in _NAMES.items()}
