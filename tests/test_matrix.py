"""Calls and methods have the colours that the run was started with: what ``matrix`` has all tests rely on."""

import asyncio
import os

import pytest
import trio

import capmarshal as cm
from patience import PATIENCE


def colour_here():
    """The colour of the code that this is called by."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        pass
    else:
        return "trio"
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return "blocking"
    return "uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio"


class Seen(cm.Interface):
    @cm.method
    def here(self) -> str: ...

    @cm.method
    def take(self, file: cm.Descriptor) -> None: ...

    @cm.method
    def by_a_call(self, of: "Seen") -> list[str]: ...


class SeenServer(Seen):
    def here(self):
        return colour_here()

    def take(self, file):
        pass

    def by_a_call(self, of):
        return [colour_here(), of.here(), colour_here()]


class Noticing:
    """An argument that notices where it is made ready to be sent."""

    def __init__(self):
        self.seen = set()

    def fileno(self):
        self.seen.add(colour_here())
        return 0


@pytest.fixture
def colours(request):
    return request.config.getoption("client"), request.config.getoption("server")


def test_a_method_runs_in_the_servers_colour_and_a_call_is_made_in_the_clients(colours):
    """And the test itself blocks."""
    client, server = colours
    noticing = Noticing()
    with cm.Entrypoint("seen") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(SeenServer()).cast(Seen)
        assert proxy.here() == server
        proxy.take(noticing)
        assert noticing.seen == {client}
        assert colour_here() == "blocking"


def test_a_forked_process_has_the_same_colours(colours, fork):
    """Whose loops are its own."""
    with cm.Entrypoint("seen") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(SeenServer()).cast(Seen)

        def act():
            noticing = Noticing()
            proxy.take(noticing)
            with cm.Entrypoint("forked") as own:
                return proxy.here(), noticing.seen, proxy.by_a_call(own.manage(SeenServer()).cast(Seen)), os.getpid()

        here, seen, calls, pid = fork(act).result()
        assert (here, seen, calls) == (colours[1], {colours[0]}, [colours[1]] * 3)
        assert pid != os.getpid()


def test_what_a_method_calls_is_answered_also_by_its_own_entrypoint(colours):
    """It awaits that in its task, where it has one."""
    with cm.Entrypoint("one") as one, cm.Entrypoint("two") as two, cm.timeout(PATIENCE):
        first, second = one.manage(SeenServer()).cast(Seen), two.manage(SeenServer()).cast(Seen)
        assert first.by_a_call(second) == [colours[1]] * 3
        assert first.by_a_call(first) == [colours[1]] * 3
