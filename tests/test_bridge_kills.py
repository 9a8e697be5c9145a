"""Bridges, nodes and servers that are killed, stopped and parted under load: calls run once at most, and none hangs.

What a caller is told is compared with what has run.
"""

import contextlib
import threading

import pytest

import bridge_hosts
import capmarshal as cm
import hosts
import nats_servers
from bridge_calls import Calls, Counted, Server
from forwarding import Desk, row
from patience import PATIENCE, until

# Seconds of a lease where a test has to wait for its end.
SHORT = 3.0


@pytest.fixture
def nodes(tmp_path):
    """Three of one cluster."""
    with nats_servers.nodes(tmp_path, 3) as made:
        yield made


@contextlib.contextmanager
def bridged(addresses, lease=SHORT):
    """A near and a far bridge, at some nodes each; a server, its capability, and the far one's token for it."""
    with bridge_hosts.starting() as made, cm.Entrypoint("counted") as entrypoint:
        near, far = made.start(dict(zip(("near", "far"), addresses, strict=True)), lease=lease)
        server = Server()
        exported = entrypoint.manage(server)
        token = far.host.export(exported)
        try:
            yield near, far, server, exported, token
        finally:
            server.released.set()


def at(nodes):
    """For two bridges, all nodes."""
    return [[node.address for node in nodes]] * 2


def one_after_the_other(nodes, lose, give_back):
    """What becomes of calls, meanwhile and in between."""
    with bridged(at(nodes)) as (near, _far, server, _exported, token):
        with Calls(lambda: near.host.connect(token), server) as calls:
            calls.more()
            for node in nodes:
                lose(node)
                calls.more()
                give_back(node)
                until(lambda: all(node.knows() == 2 for node in nodes))
                calls.more()
        return calls.check()


def test_nodes_that_are_killed_one_after_the_other(nodes):
    """No call is lost, and each runs once."""
    assert set(one_after_the_other(nodes, nats_servers.Node.kill, nats_servers.Node.start)) == {"answered"}


def test_nodes_that_stand_still_and_go_on_with_bodies_in_them(nodes):
    """What they pass on then is not run again, nor late."""
    assert one_after_the_other(nodes, nats_servers.Node.stop, nats_servers.Node.go_on)["no"] == 0


@pytest.mark.parametrize("which", ["near", "far"])
def test_a_bridge_that_is_killed_and_started_again_under_load(nodes, which):
    """By its name, with its token: who has a link with the one before joins the new one."""
    with bridged(at(nodes)) as (near, far, server, exported, token):
        with Calls(lambda: near.host.connect(token), server) as calls:
            for _ in range(2):
                calls.more()
                killed = near if which == "near" else far
                killed.kill()
                killed.restart()
                if which == "far":
                    far.host.export_again(exported, token)
            calls.more()
        came = calls.check()
        assert came["answered"] >= 300
        assert came["maybe"] + came["no"] > 0


@pytest.mark.parametrize("which", ["near", "far"])
def test_a_bridge_that_stands_still_for_longer_than_a_lease(nodes, which):
    """What is sent to it meanwhile does not run late; who waits is told when the lease is over."""
    with bridged(at(nodes)) as (near, far, server, _exported, token):
        counted = near.host.connect(token).cast(Counted)
        assert counted.run(1) == 1
        stopped, other = (near, far) if which == "near" else (far, near)
        told = {}

        def call(number):
            try:
                told[number] = counted.run(number)
            except cm.Disconnected as error:
                told[number] = error.ran

        stopped.stop()
        callers = [threading.Thread(target=call, args=(number,)) for number in range(2, 12)]
        for caller in callers:
            caller.start()
        if which == "near":
            until(lambda: not far.host.counts())
        else:
            other.alone()
        stopped.go_on()
        for caller in callers:
            caller.join(PATIENCE)
        assert len(told) == len(callers)
        if which == "far":
            assert set(told.values()) <= {"maybe", "no"}
        stopped_and_reached(near, token)
        assert set(server.ran) == {1, 0}, (server.ran, told)


def stopped_and_reached(near, token):
    """One more call, which comes after all that was sent before."""

    def reached():
        try:
            return near.host.connect(token).cast(Counted).run(0) == 0
        except cm.Disconnected:
            return False

    until(reached)


def test_what_is_sent_to_a_bridge_that_stands_still_has_a_deadline_there(nodes):
    """Calls whose time is over when it goes on do not run, although the lease is not."""
    with bridged(at(nodes), lease=PATIENCE) as (near, far, server, _exported, token):
        counted = near.host.connect(token).cast(Counted)
        assert counted.run(1) == 1
        far.stop()
        for number in range(2, 6):
            with pytest.raises(cm.CallTimeout), cm.timeout(0.5):
                counted.run(number)
        far.go_on()
        assert counted.run(6) == 6
        assert server.ran == {1: 1, 6: 1}


def test_a_server_that_dies_in_a_call(nodes):
    """Its caller beyond two bridges is told so, and all who have something of it."""
    with (
        bridged(at(nodes)) as (near, far, _server, _exported, _token),
        row(("desk", "blocking")) as (served, [process]),
    ):
        desk = near.host.connect(far.host.export(served)).cast(Desk)
        assert desk.echo(b"x") == b"x"
        with pytest.raises(cm.Disconnected) as caught:
            desk.die()
        assert caught.value.ran == "maybe"
        assert process.wait(PATIENCE) == 3
        cm.wait_gone(cm.capability(desk), PATIENCE)
        with pytest.raises(cm.Disconnected) as caught:
            desk.echo(b"x")
        assert caught.value.ran == "no"
        del caught


@pytest.mark.parametrize("kind", hosts.KINDS)
def test_hosts_that_are_parted_for_less_than_a_lease(kind, tmp_path):
    """Calls wait, and are answered; what was given up meanwhile has not run."""
    with hosts.hosts(kind, tmp_path, extra='ping_interval: "2m"') as network:
        here, there, third = network.hosts
        addresses = [[here.address], [there.address]]
        with bridged(addresses, lease=2 * PATIENCE) as (near, _far, server, _exported, token):
            counted = near.host.connect(token).cast(Counted)
            assert counted.run(1) == 1
            network.part([here], [there, third])
            callers = [threading.Thread(target=counted.run, args=(number,)) for number in range(2, 8)]
            for caller in callers:
                caller.start()
            with pytest.raises(cm.CallTimeout), cm.timeout(1.5):
                counted.run(8)
            assert all(caller.is_alive() for caller in callers)
            network.join()
            for caller in callers:
                caller.join(PATIENCE)
            assert server.ran == dict.fromkeys(range(1, 8), 1)


@pytest.mark.parametrize("kind", hosts.KINDS)
def test_hosts_that_are_parted_for_longer_than_a_lease(kind, tmp_path):
    """Who waits is told; nothing of it runs when they are joined again, and what was exported is reached anew."""
    with hosts.hosts(kind, tmp_path, extra='ping_interval: "2m"') as network:
        here, there, third = network.hosts
        with bridged([[here.address], [there.address]]) as (near, far, server, _exported, token):
            with Calls(lambda: near.host.connect(token), server) as calls:
                calls.more()
                network.part([here], [there, third])
                near.alone()
                far.alone()
                ran = set(server.ran)
                network.join()
                calls.more()
            came = calls.check()
            assert came["maybe"]
            # Of those that were told so, some may have run before: none since.
            maybe = {number for number, told in calls.told.items() if told == "maybe"}
            assert maybe & set(server.ran) <= ran
