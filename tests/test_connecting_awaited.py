"""``aio.connect()`` and ``aio.wait_gone()``: what threads get, in each event loop, which goes on meanwhile."""

from __future__ import annotations

import os
import socket

import anyio
import pytest

import by_hand
import capmarshal as cm
from capmarshal import aio
from capmarshal._capabilities.capability import open_door_of
from patience import PATIENCE
from services import serving


@pytest.fixture
def listener(place):
    """A server by hand at that path, which accepts nobody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(os.fspath(place))
        made.listen(0)
        yield made


def test_a_service_hands_over_its_capability(run, place):
    """The same as a thread gets."""
    with serving(place):
        capability = run(aio.connect, place)
        assert capability is cm.connect(place)
        assert capability.cast(by_hand.Work).double(4) == 8


@pytest.mark.parametrize("path", ["nothing", b"a\0b", 5])
def test_what_is_no_service_is_refused_as_to_a_thread(run, place, path):
    """With the same words."""
    path = place if path == "nothing" else path
    with pytest.raises((cm.Disconnected, ValueError, TypeError)) as caught:
        run(aio.connect, path)
    with pytest.raises(type(caught.value)) as plain:
        cm.connect(path)
    assert str(caught.value) == str(plain.value)


@pytest.mark.parametrize("waiting", [0, 5])
def test_a_service_that_does_not_answer_delays_nobody_else(run, place, listener, waiting):
    """Also where as many wait as may, and connect(2) itself would: the loop goes on, and the deadline holds."""
    del listener
    others = []
    for _ in range(waiting):
        others.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))
        others[-1].connect_ex(os.fspath(place))

    async def connect():
        seen = []
        async with anyio.create_task_group() as tasks:

            async def time_out():
                with pytest.raises(cm.CallTimeout) as caught:
                    await aio.connect(place, 0.1)
                seen.append(caught.value.ran)

            async def go_on():
                for _ in range(3):
                    await anyio.sleep(0)
                seen.append("others")

            tasks.start_soon(time_out)
            tasks.start_soon(go_on)
        with anyio.move_on_after(0.02) as scope:
            await aio.connect(place)
        return seen, scope.cancelled_caught

    assert run(connect) == (["others", "no"], True)
    for other in others:
        other.close()


def test_a_server_that_goes_wakes_all_who_wait_for_it(run):
    """Two tasks at one door, and a third that is cancelled; no event loop has touched what all its holders share."""
    with cm.Entrypoint("here") as entrypoint:
        worker = by_hand.Worker()
        capability = entrypoint.manage(worker)

        async def wait():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(aio.wait_gone, capability)
                tasks.start_soon(aio.wait_gone, capability.cast(by_hand.Work), PATIENCE)
                with anyio.move_on_after(0.01) as scope:
                    await aio.wait_gone(worker)
                assert scope.cancelled_caught
                assert os.get_blocking(open_door_of(capability).number)
                entrypoint.close(PATIENCE)
            await aio.wait_gone(capability, 0)

        run(wait)


def test_a_server_that_stays_is_told_as_to_a_thread(run):
    """With the same words."""
    with cm.Entrypoint("here") as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())
        with pytest.raises(cm.CallTimeout, match=r"entrypoint 'here' has not gone in 0.01 s") as caught:
            run(aio.wait_gone, capability, 0.01)
        assert caught.value.ran == "no"
        with pytest.raises(TypeError, match="has a server, not 5"):
            run(aio.wait_gone, 5)


def test_what_is_public_says_where_it_is_to_be_had():
    """As people import it."""
    assert {getattr(aio, name).__module__ for name in aio.__all__} == {"capmarshal.aio"}
