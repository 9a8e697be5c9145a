"""Who knocks, as the kernel tells: processes by pidfd, and users."""

import gc
import os
import re
import select

import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors import private
from capmarshal._descriptors.private import Private
from capmarshal._server.limits import Limits
from capmarshal._server.peers import Peers
from capmarshal._server.shares import Shares
from patience import PATIENCE


def _pidfds_have_identity():
    """Asked of the kernel's release, which is another way than the package's."""
    return tuple(map(int, re.match(r"(\d+)\.(\d+)", os.uname().release).groups())) >= (6, 9)


needs_pidfs = pytest.mark.skipif(not _pidfds_have_identity(), reason="pidfds have no identity before Linux 6.9")


@pytest.fixture
def epoll():
    made = private.make_epoll_set()
    yield made
    made.close()


@pytest.fixture
def peers(epoll):
    return Peers(Shares(Limits(), 1, 1), epoll)


@pytest.fixture
def sleeper(fork):
    """sleeper(): a process that stays until the test ends."""
    ended, hold = os.pipe()

    def wait():
        os.close(hold)
        select.select([ended], [], [], 4 * PATIENCE)

    yield lambda: fork(wait)
    os.close(ended)
    os.close(hold)


def pidfd(pid):
    with private.lock:
        return Private(os.pidfd_open(pid))


@needs_pidfs
def test_processes_are_told_apart_where_their_ids_are_not_known(peers, sleeper):
    """In another pid namespace all have the ID 0: they do not share one account."""
    one, other = sleeper(), sleeper()
    first = peers.knocked(0, 7, pidfd(one.pid))
    assert peers.knocked(0, 7, pidfd(one.pid)) is first
    second = peers.knocked(0, 7, pidfd(other.pid))
    assert second is not first
    assert second.user is first.user
    assert peers.knocked(0, 8, None).user is not first.user


@needs_pidfs
def test_a_process_that_is_known_by_its_pidfd_is_known_without_one(peers, sleeper):
    """The table may have no room for it; but not once the process has ended, and another may have its ID."""
    child = sleeper()
    known = peers.knocked(child.pid, 7, pidfd(child.pid))
    assert peers.knocked(child.pid, 7, None) is known
    pid = child.pid
    child.kill()
    assert peers.knocked(pid, 7, None) is not known


def test_where_there_are_no_pidfds_the_credentials_tell(peers):
    """As on kernels before 6.5."""
    first = peers.knocked(10, 7, None)
    assert peers.knocked(10, 7, None) is first
    assert peers.knocked(11, 7, None) is not first
    assert peers.knocked(10, 8, None) is not first


def test_where_pidfds_have_no_identity_the_credentials_tell(peers):
    """As on kernels before 6.9, where all of them share one inode, as other descriptors of the kernel's own do."""
    event = private.make_event()
    first = peers.knocked(10, 7, event)
    assert peers.knocked(10, 7, private.make_event()) is first
    assert peers.knocked(11, 7, private.make_event()) is not first
    # And it tells when the process has ended.
    assert first.pidfd is event


def test_where_a_knock_brings_no_pidfd_one_is_opened(peers, sleeper):
    """As on kernels before 6.5; of a process that has ended there is none."""
    child = sleeper()
    known = peers.knocked(child.pid, 7, None)
    assert select.select([known.pidfd], [], [], 0)[0] == []
    pid = child.pid
    child.kill()
    assert select.select([known.pidfd], [], [], PATIENCE)[0]
    late = peers.knocked(pid, 7, None)
    assert late is not known
    assert (late.pidfd, late.ended) == (None, True)


def test_nobody_is_remembered_for_ever(peers):
    """A peer goes with its last channel and door."""
    for pid in range(100):
        peers.knocked(pid + 1, pid, None)
    gc.collect()
    assert len(peers._by_pid) <= 1
    assert len(peers._users) <= 1


@needs_pidfs
def test_a_knock_through_the_door_tells_who_it_was(fork):
    """By pidfd: the server holds one for a process that has channels, and lets it go with the last of them."""
    with cm.Entrypoint("known") as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())
        channels = entrypoint._service._server._channels

        def one_channel():
            with by_hand.knock(capability) as near:
                near.send(by_hand.call(capability))
                by_hand.answer(near)
                return True

        assert fork(one_channel).result()
        with cm.timeout(PATIENCE):
            assert capability.cast(by_hand.Work).double(2) == 4
        [channel] = channels.all()
        assert channel.peer.pidfd is not None
        assert (channel.peer.pid, channel.peer.uid) == (os.getpid(), os.getuid())
