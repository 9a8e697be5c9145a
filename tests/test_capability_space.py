"""The capability space: one descriptor a door, one object a capability, and nothing kept that nobody refers to."""

import contextlib
import copy
import os
import pickle
import socket
import threading
import traceback

import pytest

import capmarshal as cm
import doors_by_hand
from capmarshal._capabilities import space as _space
from capmarshal._capabilities.capability import badge_of, key_of, open_door_of
from capmarshal._capabilities.space import space
from capmarshal._descriptors import private as _private
from capmarshal._kernel.native import lib
from capmarshal._server.clients import Peer, User
from capmarshal._server.limits import Limits
from capmarshal._server.shares import Shares
from interrupting import Interrupting
from patience import PATIENCE
from refusing import refuse


@contextlib.contextmanager
def _foreign(label="foreign"):
    """(server, client) of a door of another process's, closed afterwards."""
    server, client = doors_by_hand.pair(label)
    with server, client:
        yield server, client


BADGE = bytes(range(0xA0, 0xB0))


def test_name_and_label_are_what_getpeername_says():
    """The server defines them; every holder of a client end can ask for them."""
    with _foreign("printer") as (server, client):
        capability = doors_by_hand.receive(client, BADGE)
        assert capability.name == server.getsockname()[1:].decode() == client.getpeername()[1:].decode()
        assert capability.label == "printer"
    entrypoint = cm.Entrypoint("mine")
    try:
        own = entrypoint.manage(doors_by_hand.ThingServer())
        assert own.name == entrypoint.name
        assert own.label == "mine"
        with socket.socket(fileno=os.dup(open_door_of(own).number)) as client:
            assert client.getpeername() == b"\0" + own.name.encode()
    finally:
        entrypoint.close()


@pytest.mark.parametrize("address", [b"", b"\0", b"\0odd", b"\0capmarshal/", b"\0capmarshal/a/b/c", b"\0\xff\xfe/\n"])
def test_a_name_may_be_anything(address):
    """A foreign server chooses it, and may choose none: label and repr do without."""
    with _foreign(label="") as (server, client):
        if address:
            server.bind(address)
        capability = doors_by_hand.receive(client, BADGE)
        assert isinstance(capability.label, str)
        assert "nameless" in repr(capability) or capability.label
        assert repr(capability).isprintable()


def test_a_name_is_not_identity():
    """Two doors whose servers chose the same name, one after the other, are two doors."""
    name = "\0capmarshal/same/" + os.urandom(8).hex()
    with _foreign(label="") as (first_server, first), _foreign(label="") as (second_server, second):
        first_server.bind(name)
        one = doors_by_hand.receive(first, BADGE)
        first_server.close()
        second_server.bind(name)
        other = doors_by_hand.receive(second, BADGE)
        assert one.name == other.name
        assert one != other
        assert open_door_of(one) is not open_door_of(other)


def test_a_forked_child_sees_the_same_cookie(fork):
    """The kernel's identity of a socket is the same in every process."""
    with _foreign() as (server, client):
        seen = fork(lambda: [lib.cm_cookie(end.fileno()) for end in (server, client)]).result()
        assert seen == [doors_by_hand.cookie_of(server), doors_by_hand.cookie_of(client)]


def _connected_tcp():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


@pytest.mark.parametrize("refused", [(), ("getsockopt",)], ids=["asked", "not to be asked"])
def test_seqpacket_sockets_are_told_from_all_else(refused, make_pair, fork):
    """Also where a filter does not let it be asked: nothing is sent or taken by finding out."""
    right, other_end = make_pair()
    left, gone = make_pair()
    left.send(b"unread")
    gone.close()
    datagrams, stream = make_pair(socket.SOCK_DGRAM), make_pair(socket.SOCK_STREAM)
    tcp = _connected_tcp()
    with tcp[0], tcp[1], socket.socket(type=socket.SOCK_DGRAM) as udp, cm.Descriptor(os.memfd_create("t")) as memfd:
        udp.connect(("127.0.0.1", 9))
        numbers = [file.fileno() for file in (right, left, datagrams[0], stream[0], *tcp, udp, memfd)]

        def in_child():
            refuse(refused)
            return [lib.cm_is_seqpacket(number) for number in (*numbers, 1000)]

        other_end.send(b"waits")
        assert fork(in_child).result() == [1, 1, 0, 0, 0, 0, 0, 0, 0]
        assert right.recv(10) == b"waits"
        for end in (other_end, datagrams[1], stream[1], *tcp):
            with pytest.raises(BlockingIOError):
                end.recv(1, socket.MSG_DONTWAIT)


@contextlib.contextmanager
def _own_server_end():
    entrypoint = cm.Entrypoint("own")
    try:
        yield entrypoint._service._server._doorkeeper.door
    finally:
        entrypoint.close()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_own_server_end, "server's end"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), "connected to nothing"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), "no AF_UNIX SEQPACKET"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), "no AF_UNIX SEQPACKET"),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM), "no AF_UNIX SEQPACKET"),
        (lambda: cm.Descriptor(os.memfd_create("test")), "no AF_UNIX SEQPACKET"),
    ],
    ids=["own server end", "unconnected", "datagrams", "stream", "tcp", "file"],
)
def test_only_a_client_end_makes_a_capability(make, why):
    """Anything else is refused, and its receiver still owns it."""
    with make() as wrong, cm.Descriptor.dup_of(wrong) as descriptor:
        with pytest.raises(cm.ArgumentError, match=why):
            space.receive_door(descriptor, None)
        assert not descriptor.closed


def test_neither_repr_nor_errors_show_the_badge():
    """A badge in a log is a capability for whoever reads it: at most its first two bytes are shown."""
    shown = []
    entrypoint = cm.Entrypoint("own")
    try:
        own = entrypoint.manage(doors_by_hand.ThingServer())
        with _foreign() as (_, client):
            other = doors_by_hand.receive(client, BADGE)
            for capability in (own, other):
                proxy = capability.cast(doors_by_hand.Thing)
                badge = badge_of(capability)
                shown += [repr(capability), str(capability), repr(proxy), f"{proxy}"]
                capability.close()
                shown.append(repr(capability))
                for raising in (
                    lambda capability=capability: open_door_of(capability),
                    lambda capability=capability: capability.cast(doors_by_hand.Thing),
                    lambda capability=capability: capability.cast(int),
                    lambda capability=capability: pickle.dumps(capability),
                    proxy.use,
                    lambda proxy=proxy: pickle.dumps(proxy),
                ):
                    with pytest.raises((cm.Error, TypeError)) as caught:
                        raising()
                    shown.append("".join(traceback.format_exception(caught.value)))
                for text in shown:
                    assert badge.hex()[:6] not in text
                    assert repr(badge)[2:-1] not in text
        with pytest.raises(cm.StaleCapability) as caught:
            doors_by_hand.receive(entrypoint._door.number, BADGE)
        assert BADGE.hex()[:6] not in str(caught.value)
    finally:
        entrypoint.close()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_and_copying_are_refused(protocol):
    """A capability or proxy in a pickle would be two secrets in a file: a TypeError says what to do instead."""
    with _foreign() as (_, client):
        capability = doors_by_hand.receive(client, BADGE)
        for thing in (capability, capability.cast(doors_by_hand.Thing), [capability]):
            with pytest.raises(TypeError, match="argument of a call"):
                pickle.dumps(thing, protocol)
            with pytest.raises(TypeError, match="argument of a call"):
                copy.deepcopy(thing)


def test_equality_and_hash_go_by_key():
    """Door and badge: another badge, another door, and anything that is no capability are different."""
    with _foreign() as (_, one), _foreign() as (_, other):
        capability = doors_by_hand.receive(one, BADGE)
        assert capability == doors_by_hand.receive(one, BADGE)
        assert capability != doors_by_hand.receive(one, BADGE[::-1])
        assert capability != doors_by_hand.receive(other, BADGE)
        assert capability != BADGE
        assert capability != key_of(capability)
        assert hash(capability) == hash(doors_by_hand.receive(one, BADGE))
        assert len({capability, doors_by_hand.receive(one, BADGE), doors_by_hand.receive(other, BADGE)}) == 2


def test_after_close_the_next_receipt_gives_a_new_capability():
    """A closed capability stays closed, for all who use the object; its equal, received later, works."""
    with _foreign() as (_, client):
        capability = doors_by_hand.receive(client, BADGE)
        capability.close()
        capability.close()
        again = doors_by_hand.receive(client, BADGE)
        assert again is not capability
        assert again == capability
        assert capability.closed
        assert not again.closed
        assert doors_by_hand.receive(client, BADGE) is again


def test_a_closed_capability_has_its_name_still():
    """Which is asked for only when somebody wants it, and can't be once the descriptor is closed."""
    server, client = doors_by_hand.pair(label="spool")
    with server, client:
        capability = doors_by_hand.receive(client, BADGE)
        capability.close()
        capability.close()
        assert capability.label == "spool"
        assert "spool" in repr(capability)


def test_a_peer_is_held_to_a_number_of_doors():
    """What one peer sent and is still held is counted; a door that is held already and other peers' doors are not."""
    limits = Shares(Limits(doors=30), 1, 1)
    most = limits.doors.process
    greedy, modest = Peer(1, User(1), limits), Peer(2, User(2), limits)
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(most + 1):
            server, client = doors_by_hand.pair(label="")
            server.close()
            clients.append(stack.enter_context(client))
        last = clients.pop()
        held = [doors_by_hand.receive(client, BADGE, greedy) for client in clients]
        with pytest.raises(cm.ArgumentError, match=f"{most} doors.*process 1 "):
            doors_by_hand.receive(last, BADGE, greedy)
        assert doors_by_hand.receive(clients[0], BADGE, greedy) is held[0]
        assert open_door_of(doors_by_hand.receive(last, BADGE, modest)).key == doors_by_hand.cookie_of(last)
        held.pop()
        assert open_door_of(doors_by_hand.receive(last, BADGE, greedy)).key == doors_by_hand.cookie_of(last)


def _switch_at_every_line(frame, event, argument):
    """A trace function: between any two lines of the space, other threads get their turn."""
    if frame.f_code.co_filename != _space.__file__:
        return None
    if event == "line":
        # Longer than any other thread needs for its line, and bounded: no plain sleep would do either.
        threading.Event().wait(0.0005)
    return _switch_at_every_line


def test_eight_threads_that_receive_the_same_capability_get_one_object():
    """Looking up and entering are one step: two were the race that gave a client the wrong capability."""
    before = doors_by_hand.open_now()
    barrier = threading.Barrier(8, timeout=PATIENCE)
    rounds = [doors_by_hand.pair(label="") for _ in range(5)]
    received = [[] for _ in rounds]

    def receive():
        for got, (_, client) in zip(received, rounds, strict=True):
            barrier.wait()
            got.append(doors_by_hand.receive(client, BADGE))

    threads = [threading.Thread(target=receive) for _ in range(8)]
    traced = threading.gettrace()
    threading.settrace(_switch_at_every_line)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    finally:
        threading.settrace(traced)
    for got, (server, client) in zip(received, rounds, strict=True):
        assert len(got) == 8
        assert len({id(capability) for capability in got}) == 1
        assert len({id(open_door_of(capability)) for capability in got}) == 1
        server.close()
        client.close()
    del got
    assert doors_by_hand.open_now() == before + len(rounds)
    received.clear()
    assert doors_by_hand.open_now() == before


def test_the_death_of_an_earlier_life_does_not_end_the_next():
    """The note of a death may come after the same capability has been received again; then it is void."""
    with _foreign() as (_, client):
        capability = doors_by_hand.receive(client, BADGE)
        key = key_of(capability)
        # What is referred to dies at once.
        space._died += [space._reference(set(), each) for each in (key, key[0])]
        assert open_door_of(doors_by_hand.receive(client, BADGE[::-1])) is open_door_of(capability)
        assert doors_by_hand.receive(client, BADGE) is capability


def test_a_door_that_a_fellow_holder_has_bound_is_still_a_door():
    """Any holder may bind() the client end that all share; whoever receives it after that must not be shut out."""
    with _foreign() as (_, client):
        client.bind("")
        capability = doors_by_hand.receive(client, BADGE)
        assert open_door_of(capability).key == doors_by_hand.cookie_of(client)


def test_the_server_end_of_a_nameless_door_of_our_own_is_refused():
    """Where bind() was refused, no name tells the ends apart, but we know our own."""
    server, client = doors_by_hand.pair(label="")
    with _private.lock:
        server_end = _private.Private(server.detach())
        home = threading.Event()
        door = space.add_home(cm.Descriptor(client.detach()), server_end, home)
    try:
        with pytest.raises(cm.ArgumentError, match="server's end"):
            doors_by_hand.receive(server_end.number, BADGE)
    finally:
        space.remove_home(door.key)
        server_end.close()


def test_ctrl_c_is_not_swallowed_where_a_capability_dies():
    """No function of ours runs there: Python only prints what is raised in one, and goes on."""
    with _foreign() as (_, client):
        capability = doors_by_hand.receive(client, BADGE)
        interrupting = Interrupting(0, KeyboardInterrupt, [_space.__file__])
        with interrupting:
            del capability
        assert interrupting.where == ""
