"""What the kernel sends to nobody: an error of one call that says so, on a channel that goes on."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
from typing import Any

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import open_door_of
from patience import PATIENCE

# The same on every architecture that has it.
_IO_URING_SETUP = 425
# Far above what else is opened meanwhile, so that nothing gets the number once it is closed.
_HIGH = 700


class Odd(cm.Interface):
    @cm.method
    def take(self, first: cm.Descriptor, name: str, second: cm.Descriptor | None = None) -> int: ...

    @cm.method
    def count(self, files: list[cm.Descriptor]) -> int: ...

    @cm.method
    def give(self, kind: str) -> cm.Descriptor: ...

    @cm.method
    def several(self, count: int, bad: int) -> list[cm.Descriptor]: ...

    @cm.method
    def kept(self) -> cm.Descriptor: ...


def _closed_number():
    """A number that is not open."""
    with open("/dev/null", "rb") as file:
        number = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    os.close(number)
    return number


def _io_uring():
    libc = ctypes.CDLL(None, use_errno=True)
    number = libc.syscall(_IO_URING_SETUP, 1, ctypes.create_string_buffer(120))
    if number < 0:
        pytest.skip(f"io_uring_setup: {errno.errorcode[ctypes.get_errno()]}")
    return number


class Bare:
    """Has a number, and closes it if it is open."""

    def __init__(self, number):
        self.number = number

    def fileno(self):
        return self.number

    def close(self):
        number, self.number = self.number, -1
        if 0 <= number < _HIGH:
            os.close(number)


KINDS = {"closed": _closed_number, "io_uring": _io_uring}
WHY = {"closed": "is not open", "io_uring": "is an io_uring, which the kernel sends to nobody"}


class OddServer(Odd):
    def __init__(self):
        self.ready: Any = None

    def take(self, first, name, second=None):
        return 1

    def count(self, files):
        return len(files)

    def give(self, kind):
        return self.ready or by_hand.temporary()

    def several(self, count, bad):
        made = [cm.Descriptor.dup_of(0) for _ in range(count)]
        if bad >= 0:
            made[bad].close()
            made[bad] = cm.Descriptor(_closed_number())
        return made

    def kept(self):
        """What another thread closes before the answer is sent, whose number is looked at once more."""

        class Closing(Bare):
            def close(self):
                pass

        return cm.keep(Closing(_closed_number()))


@pytest.fixture
def server():
    return OddServer()


@pytest.fixture
def odd(server, caplog):
    """A proxy, of which each call must leave the one channel as it was, and the log without a word of its client."""
    with by_hand.serving(server) as capability, cm.timeout(PATIENCE):
        proxy = capability.cast(Odd)
        assert proxy.count([]) == 0
        before = list(open_door_of(capability).idle)
        yield proxy
        assert proxy.count([]) == 0
        after = list(open_door_of(capability).idle)
        capability.close()
    assert after == before
    assert not [record for record in caplog.records if "dropped" in record.getMessage()]


@pytest.mark.parametrize("place", ["first", "second"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_argument_that_the_kernel_refuses_is_named(odd, kind, place):
    """By method and parameter, with what is wrong with it."""
    bare = Bare(KINDS[kind]())
    with by_hand.temporary() as file:
        arguments = {"first": file, "name": "x", "second": file, place: bare}
        with pytest.raises(
            cm.ArgumentError, match=rf"Odd\.take, argument `{place}` cannot be sent: .*{WHY[kind]}"
        ) as caught:
            odd.take(**arguments)
    assert isinstance(caught.value.__cause__, OSError)
    bare.close()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_kernel_refuses_of_a_message_is_named(seqpacket, kind):
    """By its number, which is what a message has."""
    near, _ = seqpacket
    bare = Bare(KINDS[kind]())
    with by_hand.temporary() as file, pytest.raises(cm.KernelError, match=rf"descriptor {bare.number} {WHY[kind]}"):
        cm.Message(b"x", [file, bare]).send(near, PATIENCE)
    bare.close()


@pytest.mark.parametrize("count", [10, 300])
def test_one_of_many_arguments_that_the_kernel_refuses_is_an_error_of_that_call(server, count):
    """Also where it goes in parts, of which some have been sent: that channel is given up, and another made."""
    with by_hand.serving(server) as capability, cm.timeout(PATIENCE), by_hand.temporary() as file:
        proxy = capability.cast(Odd)
        with pytest.raises(cm.ArgumentError, match=r"Odd\.count, argument `files` cannot be sent: .*is not open"):
            proxy.count([file] * (count - 1) + [Bare(_closed_number())])
        assert proxy.count([file] * count) == count
        capability.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_the_kernel_refuses_is_an_error_of_its_call(odd, server, kind):
    """It names the method; the server's fault ends no channel and is not put down to the client."""
    server.ready = Bare(KINDS[kind]())
    with pytest.raises(cm.ArgumentError, match=rf"Odd\.give, .*result: .*cannot be sent: .*{WHY[kind]}"):
        odd.give(kind)
    server.ready = None
    odd.give(kind).close()


def test_one_of_many_results_that_the_kernel_refuses_is_an_error_of_its_call(odd):
    """In one record."""
    with pytest.raises(cm.ArgumentError, match=r"Odd\.several, .*result: .*is not open"):
        odd.several(20, 7)
    for file in odd.several(20, -1):
        file.close()


@pytest.mark.parametrize("bad", [3, 299])
def test_a_result_in_parts_that_the_kernel_refuses_is_an_error_of_its_call(server, caplog, bad):
    """Also where its client has part of it; the log has no word of that client."""
    with by_hand.serving(server) as capability, cm.timeout(PATIENCE):
        proxy = capability.cast(Odd)
        with pytest.raises(cm.ArgumentError, match=r"Odd\.several, .*result: .*is not open"):
            proxy.several(300, bad)
        for file in proxy.several(300, -1):
            file.close()
        capability.close()
    assert not [record for record in caplog.records if "dropped" in record.getMessage()]


def test_a_kept_result_that_was_closed_meanwhile_is_an_error_of_its_call(odd):
    """It is to be duplicated, and is not there any more."""
    with pytest.raises(cm.ArgumentError, match=r"Odd\.kept, .*result: .*duplicating a descriptor: Bad file descriptor"):
        odd.kept()


def test_other_clients_are_served_while_results_are_refused(server):
    """One after the other: a refusal costs a look at each descriptor, and nothing waits."""
    with by_hand.serving(server) as capability, cm.timeout(PATIENCE):
        proxy = capability.cast(Odd)
        refusals = []

        def refused():
            with cm.timeout(PATIENCE), pytest.raises(cm.ArgumentError):
                proxy.several(20, 7)
            refusals.append(1)

        threads = [threading.Thread(target=refused) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert proxy.count([]) == 0
        for thread in threads:
            thread.join(PATIENCE)
        assert len(refusals) == 4
        capability.close()
