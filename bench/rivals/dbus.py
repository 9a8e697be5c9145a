"""dbus-fast over a dbus-daemon of its own: the high-level service and client of asyncio.

https://dbus-fast.readthedocs.io/en/latest/high-level-service/index.html and high-level-client/index.html: a
``ServiceInterface``, a proxy from introspection data that is part of the program, descriptors as type ``h`` with
``negotiate_unix_fd``.  That flag makes every call dearer, so there are two connections, one with it and one without.
The wheel's Cython extension does the (un)marshalling.  Each call goes through the daemon and back, which is what D-Bus
is; the daemon runs where the server does.
"""

# No "from __future__ import annotations": dbus-fast reads the annotations of a service's methods.

import asyncio
import contextlib
import os
from typing import Any

from bench.rivals import client, daemon

_INTROSPECTION = f"""\
<node name="{daemon.PATH}">
  <interface name="{daemon.INTERFACE}">
    <method name="Add">
      <arg name="a" type="x" direction="in"/>
      <arg name="b" type="x" direction="in"/>
      <arg type="x" direction="out"/>
    </method>
    <method name="Inode">
      <arg name="file" type="h" direction="in"/>
      <arg type="t" direction="out"/>
    </method>
  </interface>
</node>
"""


async def _connected(directory: str, *, descriptors: bool) -> Any:
    from dbus_fast.aio import MessageBus

    return await MessageBus(daemon.address(directory), negotiate_unix_fd=descriptors).connect()


def serve(directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    with daemon.running(directory):
        asyncio.run(_serve(directory))


async def _serve(directory: str) -> None:
    from dbus_fast.annotations import DBusInt64, DBusUInt64, DBusUnixFd
    from dbus_fast.service import ServiceInterface, dbus_method

    class Adder(ServiceInterface):
        def __init__(self) -> None:
            super().__init__(daemon.INTERFACE)

        @dbus_method()
        def Add(self, a: DBusInt64, b: DBusInt64) -> DBusInt64:  # noqa: N802 - as methods of D-Bus are named
            return a + b

        @dbus_method()
        def Inode(self, file: DBusUnixFd) -> DBusUInt64:  # noqa: N802 - as methods of D-Bus are named
            try:
                return os.fstat(file).st_ino
            finally:
                os.close(file)

    adder = Adder()
    buses = [await _connected(directory, descriptors=descriptors) for descriptors in (False, True)]
    for bus, name in zip(buses, daemon.NAMES, strict=True):
        bus.export(daemon.PATH, adder)
        await bus.request_name(name)
    # The daemon ends with standard input.
    for bus in buses:
        with contextlib.suppress(EOFError):
            await bus.wait_for_disconnect()


def connect(directory: str) -> client.Client:
    """A client of that server."""
    from dbus_fast import DBusError

    runner = asyncio.Runner()
    buses = [runner.run(_connected(directory, descriptors=descriptors)) for descriptors in (False, True)]
    plain, with_files = [
        bus.get_proxy_object(name, daemon.PATH, _INTROSPECTION).get_interface(daemon.INTERFACE)
        for bus, name in zip(buses, daemon.NAMES, strict=True)
    ]

    def call_both() -> None:
        for adder in (plain, with_files):
            runner.run(adder.call_add(0, 0))

    # Until the server has both its names on the bus.
    client.patiently(call_both, DBusError)

    async def disconnect() -> None:
        for bus in buses:
            bus.disconnect()
            await bus.wait_for_disconnect()

    def close() -> None:
        with runner:
            runner.run(disconnect())

    return client.Client(plain.call_add, close, with_files.call_inode, runner)
