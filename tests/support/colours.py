"""What tests call and serve with, in another colour: painted over capmarshal before they are imported.

``pytest --client=asyncio --server=trio`` runs the same tests, whose calls and methods block:

- What ``cast`` gives is of the same class as ever, but each of its methods runs what an awaitable proxy has there.
- ``cm.Entrypoint`` is :class:`_Served`, an ``aio.Entrypoint``: its objects' methods run in tasks.

Who makes a call from within a task awaits it there, as a program would: it has the colour of the server.
"""

from __future__ import annotations

import functools

import awaiting
import capmarshal as cm
import loops
from capmarshal import _calling, _entrypoint
from capmarshal._async_client import proxy as _awaitable
from capmarshal._async_server import passed_streams
from capmarshal._capabilities import capability as _capability
from capmarshal._capabilities.door import home_of
from capmarshal._typed.colour import colour_of
from capmarshal._typed.method import methods_of
from served_in_loop import served_by


def paint(client, server):
    """Has proxies and entrypoints be of these colours from here on."""
    awaiting.clients_loop, awaiting.servers_loop = loops.LOOPS.get(client), loops.LOOPS.get(server)
    _paint_proxies()
    if server != "blocking":
        painted = served_by(server)
        for module in (cm, _calling, _entrypoint):
            module.Entrypoint = painted


def _paint_proxies():
    make_class = _capability._make_proxy_class

    def make_painted_class(interface, timed, logged):
        made = make_class(interface, timed, logged)
        if colour_of(interface) == "blocking":
            awaitable = _awaitable.make_class(interface, timed, logged, passed_streams.serve)
            for called in methods_of(interface).values():
                setattr(made, called.name, _painted(vars(made)[called.name], vars(awaitable)[called.name]))
        return made

    _capability.make_proxies_by(make_painted_class)


def _is_inline(proxy=None):
    """Whether it is called in the serving thread of its own entrypoint, which is not to wait for itself."""
    door = _capability.door_of(_capability.capability_behind(proxy)) if isinstance(proxy, _capability.Proxy) else None
    home = home_of(door) if door is not None else None
    return home is not None and home.serves_this_thread()


def _painted(method, awaitable):
    """A proxy's blocking method that runs an awaitable one."""

    @functools.wraps(method)
    def call(*arguments, **by_name):
        blocks = awaiting.clients_loop is None or awaiting.plainly.get() or _is_inline(*arguments[:1])
        if blocks and not awaiting.in_task():
            return method(*arguments, **by_name)
        return awaiting.finish(awaitable(*arguments, **by_name), awaiting.clients_loop)

    return call
