"""An interface and its server, and proxies of others: what tests of declarations use."""

import contextlib
from typing import Any

import capmarshal as cm
from patience import PATIENCE


class Echo(cm.Interface):
    @cm.method
    def echo(self, value: Any) -> Any: ...


class EchoServer(Echo):
    def echo(self, value: Any) -> Any:
        return value


@contextlib.contextmanager
def serve(target, interface):
    """A proxy of an object, by an interface."""
    with cm.Entrypoint("test") as entrypoint, cm.timeout(PATIENCE):
        yield entrypoint.manage(target).cast(interface)


def offline(interface):
    """A proxy whose server is gone: nothing can be sent by it."""
    entrypoint = cm.Entrypoint("gone")
    capability = entrypoint.manage(EchoServer())
    entrypoint.close()
    return capability.cast(interface)
