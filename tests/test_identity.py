"""Which socket a descriptor is, where the kernel does not tell its cookie: found by its inode, and compared."""

import contextlib
import errno
import socket
import threading

import pytest

import by_hand
import capmarshal as cm
import doors_by_hand
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._capabilities.space import space
from capmarshal._descriptors import private
from patience import PATIENCE
from refusing import refuse, refuse_argument, refuse_socket_option

SO_COOKIE = 57
F_DUPFD_QUERY = 1027
BADGE = b"b" * 16


def _no_cookies():
    refuse_socket_option(SO_COOKIE, errno.EPERM)


def _no_options():
    refuse(["getsockopt"])


def _before_6_10():
    """As a kernel that compares descriptors by kcmp(2) alone."""
    _no_cookies()
    refuse_argument("fcntl", 1, F_DUPFD_QUERY, errno.EINVAL)


def _nothing_compares():
    _before_6_10()
    refuse(["kcmp"])


compares = pytest.mark.parametrize("filters", [_no_cookies, _no_options, _before_6_10], ids=lambda f: f.__name__[1:])
everywhere = pytest.mark.parametrize(
    "filters", [_no_cookies, _no_options, _before_6_10, _nothing_compares], ids=lambda f: f.__name__[1:]
)


@contextlib.contextmanager
def _foreign():
    server, client = doors_by_hand.pair()
    with server, client:
        yield server, client


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENOPROTOOPT])
def test_an_entrypoint_needs_no_cookies(error, fork):
    """Its doors would all have the cookie 0, and calls would reach none of them, were that what they are known by."""

    def in_child():
        refuse_socket_option(SO_COOKIE, error)
        with by_hand.serving(by_hand.Worker()) as one, by_hand.serving(by_hand.Worker()) as other:
            return [capability.cast(by_hand.Work).double(4) for capability in (one, other)], one == other

    assert fork(in_child).result() == ([8, 8], False)


@compares
def test_what_is_held_is_found(filters, fork, open_descriptors):
    """The same door received again is the same one, and the same capability the same object."""

    def in_child():
        filters()
        with _foreign() as (_, client), _foreign() as (_, another):
            one = doors_by_hand.receive(client, BADGE)
            before = open_descriptors()
            same = doors_by_hand.receive(client, BADGE) is one
            other = doors_by_hand.receive(another, BADGE)
            return same, other == one, len(open_descriptors() - before)

    assert fork(in_child).result() == (True, False, 1)


@compares
def test_a_filter_may_come_later(filters, fork):
    """What was received when the kernel still told cookies is found as well."""

    def in_child():
        with _foreign() as (_, client), by_hand.serving(by_hand.Worker()) as own:
            one = doors_by_hand.receive(client, BADGE)
            filters()
            home = doors_by_hand.receive(open_door_of(own).number, badge_of(own))
            return doors_by_hand.receive(client, BADGE) is one, home is own

    assert fork(in_child).result() == (True, True)


@compares
def test_a_filter_may_be_of_one_thread(filters, fork):
    """What one thread received without a cookie, another finds that is told it."""

    def in_child():
        with _foreign() as (_, client):
            received = []

            def receive():
                filters()
                received.append(doors_by_hand.receive(client, BADGE))

            thread = threading.Thread(target=receive)
            thread.start()
            thread.join(PATIENCE)
            return doors_by_hand.receive(client, BADGE) is received[0]

    assert fork(in_child).result()


def test_where_nothing_compares_each_receipt_is_a_door_of_its_own(fork, open_descriptors):
    """Not thrifty, and right: an inode alone proves nothing, so it is never taken for one that is held."""

    def in_child():
        _nothing_compares()
        with _foreign() as (_, client):
            one = doors_by_hand.receive(client, BADGE)
            before = open_descriptors()
            other = doors_by_hand.receive(client, BADGE)
            found = one == other, len(open_descriptors() - before)
            del other
            assert doors_by_hand._reaper.wait(PATIENCE)
            return *found, len(open_descriptors() - before)

    assert fork(in_child).result() == (False, 1, 0)


@everywhere
def test_a_foreign_door_with_a_copied_badge_is_not_ours(filters, fork):
    """It is called through the foreign door, and its server has no way to the object whose badge it knows."""

    def in_child():
        filters()
        with by_hand.serving(by_hand.Worker()) as own, _foreign() as (server, client):
            forged = doors_by_hand.receive(client, badge_of(own))
            server.close()
            with pytest.raises(cm.Disconnected):
                forged.cast(by_hand.Work).double(1)
            return forged == own, forged.local

    assert fork(in_child).result() == (False, None)


@compares
def test_what_comes_home_is_the_object(filters, fork):
    """And what came home with an unknown badge is stale, at once."""

    def in_child():
        filters()
        worker = by_hand.Worker()
        with by_hand.serving(worker) as own:
            came = open_door_of(own).number
            with pytest.raises(cm.StaleCapability):
                doors_by_hand.receive(came, BADGE)
            return doors_by_hand.receive(came, badge_of(own)).local is worker

    assert fork(in_child).result()


@compares
def test_the_servers_end_of_an_own_door_is_no_capability(filters, fork):
    """Whoever got hold of it."""

    def in_child():
        filters()
        server, client = doors_by_hand.pair()
        server_end = private.Private(server.detach())
        home = threading.Event()
        door = space.add_home(cm.Descriptor(client.detach()), server_end, home)
        with pytest.raises(cm.ArgumentError, match="server's end of a door of our own"):
            doors_by_hand.receive(server_end.number, BADGE)
        space.remove_home(door.key)
        server_end.close()

    fork(in_child).result()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_only_seqpacket_sockets_are_doors(kind, fork):
    """Also where nothing may be asked of a socket."""

    def in_child():
        _no_options()
        one, other = socket.socketpair(socket.AF_UNIX, kind)
        with one, other, pytest.raises(cm.ArgumentError, match="SEQPACKET"):
            doors_by_hand.receive(one, BADGE)

    fork(in_child).result()
