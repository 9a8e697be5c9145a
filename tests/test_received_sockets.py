"""What a socket is like when it has travelled: its flags are those of the open file, which both sides share."""

from __future__ import annotations

import os
import socket

import pytest

import by_hand
import capmarshal as cm
from patience import PATIENCE


class Sockets(cm.Interface):
    @cm.method
    def look(self, sock: socket.socket) -> tuple[float | None, str]: ...

    @cm.method
    def echo(self, sock: socket.socket) -> socket.socket: ...


class SocketsServer(Sockets):
    def look(self, sock):
        return sock.gettimeout(), f"{sock.family.name} {sock.type.name} {sock.proto}"

    def echo(self, sock):
        return sock


@pytest.fixture
def sockets(fork):
    with by_hand.server_process(fork, SocketsServer) as (_, capability), cm.timeout(PATIENCE):
        yield capability.cast(Sockets)
        capability.close()


@pytest.fixture
def default_timeout():
    socket.setdefaulttimeout(5)
    yield
    socket.setdefaulttimeout(None)


@pytest.fixture(params=["blocking", "non-blocking"])
def sent(request, make_pair):
    """A socket to be sent, made before any default timeout."""
    near, _ = make_pair(socket.SOCK_STREAM)
    near.setblocking(request.param == "blocking")
    return near


def test_a_default_timeout_changes_no_flag_of_the_socket_that_is_sent_or_received(sockets, sent, default_timeout):
    """Neither in the process that sends nor, through the open file that they share, by one that receives."""
    blocking = os.get_blocking(sent.fileno())
    with sockets.echo(sent) as back:
        assert os.get_blocking(sent.fileno()) is blocking
        assert back.gettimeout() == (None if blocking else 0)


def test_a_default_timeout_in_the_server_changes_no_flag_of_the_clients(sent, default_timeout):
    """The kind of the fault: whoever receives, its socket object is made by the same function."""
    with by_hand.serving(SocketsServer()) as capability, cm.timeout(PATIENCE):
        blocking = os.get_blocking(sent.fileno())
        timeout, kind = capability.cast(Sockets).look(sent)
        assert timeout == (None if blocking else 0)
        assert kind == "AF_UNIX SOCK_STREAM 0"
        assert os.get_blocking(sent.fileno()) is blocking
        capability.close()


def test_what_is_said_of_a_received_socket_is_true(sockets):
    """Family, type and protocol are those of the socket that was sent."""
    for family, kind in [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_DGRAM)]:
        with socket.socket(family, kind) as sock:
            assert sockets.look(sock)[1] == f"{family.name} {kind.name} {_protocol(sock)}"


def _protocol(sock):
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)


def test_a_descriptor_that_is_no_socket_stays_a_descriptor():
    """It is still owned by the same object then."""
    with by_hand.temporary() as file, cm.Descriptor.dup_of(file) as descriptor:
        with pytest.raises(OSError, match="making a socket"):
            descriptor.socket()
        assert not descriptor.closed
