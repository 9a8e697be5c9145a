"""SharedBuffer: handed over, who holds one, and what a stranger may send in its place."""

from __future__ import annotations

import copy
import fcntl
import gc
import os
import socket
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors.array_layout import ArrayLayout
from capmarshal._descriptors.memory import Memory
from capmarshal._descriptors.shared_buffer import Lease, buffer_of, parts_of
from capmarshal._protocol.faults import Code
from capmarshal._protocol.further_lines import Lent
from capmarshal._protocol.wire import NO_BADGE, Entry, pack_table
from fuse_file import FuseFile
from patience import PATIENCE


class Producer(cm.Interface):
    """Lends what it has written."""

    @cm.method
    def make(self, value: float) -> cm.SharedBuffer: ...

    @cm.method
    def is_free(self) -> bool: ...

    @cm.method
    def total(self, buffer: cm.SharedBuffer) -> float: ...

    @cm.method
    def mirror(self, buffers: list[cm.SharedBuffer | None]) -> dict[str, cm.SharedBuffer]: ...

    @cm.method
    def keep(self, buffer: cm.SharedBuffer) -> None: ...

    @cm.method
    def seen(self) -> float: ...

    @cm.method
    def let_go(self) -> None: ...

    @cm.method
    def raw(self, file: cm.Descriptor, data: cm.Dataspace | None) -> None: ...


class ProducerServer(Producer):
    """Its server, in a process of its own, with a pool of one."""

    def __init__(self):
        self.pool = cm.BufferPool(1, (2, 3), "d")
        self.kept = None

    def make(self, value):
        buffer = self.pool.take(PATIENCE)
        np.asarray(buffer)[:] = value
        return buffer

    def is_free(self):
        try:
            self.pool.take(0).close()
        except cm.CallTimeout:
            return False
        return True

    def total(self, buffer):
        return float(np.asarray(buffer).sum())

    def mirror(self, buffers):
        return {str(place): buffer for place, buffer in enumerate(buffers) if buffer is not None}

    def keep(self, buffer):
        self.kept = cm.keep(buffer)

    def seen(self):
        return float(np.asarray(self.kept).sum())

    def let_go(self):
        self.kept.close()

    def raw(self, file, data):
        pass


@pytest.fixture
def served(fork):
    """served(**options): a producer in another process, and that process."""
    servers = []

    def serve(**options):
        server = by_hand.server_process(fork, ProducerServer, **options)
        child, capability = server.__enter__()
        servers.append((server, capability))
        return capability.cast(Producer), child

    yield serve
    # The last first: a forked process keeps open what says to those before it that they are to end.
    for server, capability in reversed(servers):
        server.__exit__(None, None, None)
        capability.close()


@pytest.fixture
def producer(served):
    return served()[0]


def _mappings():
    return Path("/proc/self/maps").read_text().count("capmarshal-shared-buffer")


def test_it_arrives_as_what_it_is_and_both_sides_write_to_it(producer):
    """The array in another process, of the same memory."""
    with producer.make(2.0) as buffer:
        seen = np.asarray(buffer)
        assert (seen.dtype, seen.shape, seen.sum(), seen.flags.writeable) == (np.dtype("d"), (2, 3), 12, True)
        assert (buffer.format, buffer.shape, buffer.size) == ("d", (2, 3), 48)
        producer.keep(buffer)
        seen[0] = 5
        assert producer.seen() == 21
        producer.let_go()


@pytest.mark.parametrize("ordinary", [False, True])
def test_it_is_used_again_when_its_receiver_has_let_go(served, until, ordinary):
    """And not before: not while it is open, nor while there is an array of it."""
    producer, _ = served(ordinary=ordinary)
    for value in (1.0, 2.0, 3.0):
        buffer = producer.make(value)
        assert not producer.is_free()
        seen = np.asarray(buffer)
        other = buffer.dup()
        buffer.close()
        assert (producer.is_free(), seen.sum()) == (False, 6 * value)
        other.close()
        assert (producer.is_free(), seen.sum()) == (False, 6 * value)
        del seen
        until(producer.is_free)


def test_it_is_mapped_once_for_as_long_as_any_is_here(producer, until):
    """To map it each time would cost as much as to copy it; what nobody refers to any more is unmapped."""
    with producer.make(1.0) as buffer:
        view = buffer.view()
        assert _mappings() == 1
    del view
    addresses = set()
    for _ in range(3):
        until(producer.is_free)
        with producer.make(1.0) as buffer, buffer.view(), buffer.view() as view:
            assert (_mappings(), bytes(view)) == (1, struct.pack("=6d", *[1.0] * 6))
            addresses.add(np.asarray(buffer).ctypes.data)
    assert len(addresses) == 1
    assert _mappings() == 1
    del view, buffer
    gc.collect()
    assert _mappings() == 0


def test_a_receiver_that_is_killed_has_let_go(producer, fork, until):
    """The kernel closes what it had."""
    reader, writer = os.pipe()

    def hold():
        with producer.make(1.0) as buffer:
            seen = np.asarray(buffer)
            os.write(writer, b"x")
            threading.Event().wait(PATIENCE)
            del seen

    child = fork(hold)
    assert os.read(reader, 1) == b"x"
    assert not producer.is_free()
    child.kill()
    until(producer.is_free)
    os.close(reader)
    os.close(writer)


def test_whoever_it_was_passed_on_to_holds_it(served, until):
    """A third process, when the second has closed it."""
    producer, _ = served()
    other, _ = served()
    with producer.make(4.0) as buffer:
        other.keep(buffer)
    assert (producer.is_free(), other.seen()) == (False, 24.0)
    other.let_go()
    until(producer.is_free)


def test_a_forked_child_holds_what_its_parent_held(producer, fork, until):
    """It has the same memory, and reads it: until it closes that, or ends."""
    go, stop = os.pipe()
    back, told = os.pipe()

    def look():
        os.close(stop)
        os.write(told, b"x" if np.asarray(buffer).sum() == 6 else b"?")
        os.read(go, 1)

    buffer = producer.make(1.0)
    child = fork(look)
    buffer.close()
    assert os.read(back, 1) == b"x"
    assert not producer.is_free()
    os.close(stop)
    until(producer.is_free)
    child.result()
    for number in (go, back, told):
        os.close(number)


def test_it_outlives_its_producer(served):
    """Memory is memory."""
    producer, child = served()
    with producer.make(7.0) as buffer:
        child.kill()
        assert np.asarray(buffer).sum() == 42


def test_a_call_lets_go_of_what_it_was_passed(producer, until):
    """As of any descriptor: unless its method keeps it, or returns it."""
    with producer.make(1.0) as buffer:
        assert producer.total(buffer) == 6
        came = producer.mirror([None, buffer])["1"]
    assert (producer.is_free(), np.asarray(came).sum()) == (False, 6)
    came.close()
    until(producer.is_free)


class Held(cm.Interface):
    @cm.method
    def hold(self, buffer: cm.SharedBuffer) -> cm.SharedBuffer | None: ...


class HeldServer(Held):
    """Refers to what it was passed, and does not keep it."""

    def __init__(self, *, gives_back):
        self.gives_back = gives_back
        self.held = None

    def hold(self, buffer):
        self.held = buffer
        return buffer if self.gives_back else None


@pytest.mark.parametrize("gives_back", [False, True])
def test_a_call_closes_both_descriptors_of_what_it_was_passed(gives_back, until):
    """The memory's as well as the lease's, though somebody refers to it still."""
    server = HeldServer(gives_back=gives_back)
    with cm.Entrypoint("holder") as entrypoint, cm.BufferPool(1, 8) as pool, pool.take() as buffer:
        given = entrypoint.manage(server).cast(Held).hold(buffer)
        if given is not None:
            given.close()
        # Of a result, once its answer is sent.
        until(lambda: server.held.closed)
        with pytest.raises(cm.Closed):
            server.held.fileno()


@pytest.mark.parametrize("arguments", [(), (64,), (64, "f")])
def test_one_is_taken_out_of_a_pool(arguments):
    """Who calls the class is told so."""
    with pytest.raises(TypeError, match=r"taken out of a pool: BufferPool\(count, shape\)\.take\(\)"):
        cm.SharedBuffer(*arguments)


def test_one_that_is_not_due_is_refused(producer):
    """It goes with its lease, or not at all; and what has none is no buffer."""
    with producer.make(1.0) as buffer, cm.Dataspace.from_buffer(b"data") as data:
        with pytest.raises(cm.ArgumentError, match=r"SharedBuffer where capmarshal\.Descriptor is due: .*lease"):
            producer.raw(buffer, None)
        with pytest.raises(cm.ArgumentError, match=r"SharedBuffer where capmarshal\.Dataspace is due: .*from_"):
            producer.raw(data, buffer)
        for wrong in (data, b"data", np.zeros(3)):
            with pytest.raises(cm.ArgumentError, match=r"where capmarshal\.SharedBuffer is due: take\(\) one out of a"):
                producer.total(wrong)
        with pytest.raises(cm.ArgumentError, match="shared buffer"):
            producer.mirror([data])
        assert producer.total(buffer) == 6


def test_one_that_was_closed_is_closed(producer):
    """No use after close, and closing twice is nothing."""
    buffer = producer.make(1.0)
    buffer.close()
    buffer.close()
    assert buffer.closed
    for use in (buffer.fileno, buffer.view, buffer.dup, lambda: producer.total(buffer), lambda: np.asarray(buffer)):
        with pytest.raises(cm.Closed, match="closed before"):
            use()


def test_it_is_not_copied_nor_made_of_anything(producer):
    """There is one way to have one."""
    with producer.make(1.0) as buffer, pytest.raises(TypeError, match=r"dup\(\) makes another"):
        copy.copy(buffer)
    with pytest.raises(TypeError, match=r"BufferPool\(count, shape\)\.take\(\)"):
        cm.SharedBuffer(b"data")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a class of Python's has no buffer before 3.12")
def test_it_is_a_buffer(producer):
    """Of its format and shape."""
    with producer.make(1.0) as buffer, memoryview(buffer) as view:
        assert (view.format, view.shape, view.readonly) == ("d", (2, 3), False)


FIXED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def _memfd(size=48, seals=FIXED, *, filled=True):
    number = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    if filled and size:
        os.posix_fallocate(number, 0, size)
    os.truncate(number, size)
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
    return number


def _read_only():
    number = _memfd()
    try:
        return os.open(f"/proc/self/fd/{number}", os.O_RDONLY)
    finally:
        os.close(number)


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (lambda: _memfd(seals=fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL), "could become shorter"),
        (lambda: _memfd(seals=fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK), "could become shorter"),
        (lambda: _memfd(seals=FIXED | fcntl.F_SEAL_WRITE), "cannot be written"),
        (lambda: _memfd(seals=FIXED | 0x10), "cannot be written"),
        (_read_only, "cannot be written"),
        (lambda: _memfd(0), "no bytes"),
        (lambda: _memfd(1 << 40, filled=False), "has memory for 0"),
        (lambda: _memfd(40), "shape"),
        (lambda: os.open("/dev/null", os.O_RDWR), "no memfd"),
    ],
)
def test_memory_that_is_none_is_refused(producer, memory, words):
    """What a stranger sends in its place does not kill who reads it, and is as large as its array."""
    number = memory()
    near, lease = socket.socketpair()
    with near, lease, cm.Descriptor(number):
        fault = _said_to_be_lent(producer, [number, lease.fileno()], ArrayLayout("d", (2, 3)))
        assert fault.code is Code.ARGUMENT
        assert words in fault.message


def test_a_lease_that_is_none_is_refused(producer):
    """Whoever has lent it would never know, or know it too early."""
    with cm.Descriptor(_memfd()) as memory:
        fault = _said_to_be_lent(producer, [memory.fileno(), memory.fileno()], ArrayLayout("d", (2, 3)))
    assert fault.code is Code.ARGUMENT
    assert "no lease" in fault.message


def test_memory_that_is_said_to_be_of_a_pool_does_not_pile_up(make_pair):
    """A stranger knows the pool's number from what it was lent: it is mapped no more than so often, views aside."""
    with cm.BufferPool(1, 8) as pool, pool.take() as own:
        _, far = make_pair()
        first = None
        for value in range(300):
            lease = Lease(os.dup(far.fileno()))
            with buffer_of(Memory(_memfd(8)), lease, parts_of(own)[2], None) as buffer:
                view = buffer.view()
                view[0] = value % 256
            first = first or view
        assert Path("/proc/self/maps").read_text().count("memfd:hostile") <= 256 + 1
        first[1] = 7
        assert bytes(first[:2]) == bytes([0, 7])
        del first, view


@pytest.mark.parametrize("which", ["memory", "lease"])
def test_a_file_whose_server_has_stopped_is_refused_unasked(producer, tmp_path, make_pair, which):
    """In the place of either: fstat(2) of it would keep all clients."""
    _, lease = make_pair()
    with FuseFile(tmp_path) as file, cm.Descriptor(_memfd()) as memory:
        number = os.open(file.path, os.O_RDONLY)
        file.stop()
        numbers = [number, lease.fileno()] if which == "memory" else [memory.fileno(), number]
        try:
            fault = _said_to_be_lent(producer, numbers, ArrayLayout("d", (2, 3)))
        finally:
            file.go_on()
            os.close(number)
    assert fault.code is Code.ARGUMENT
    assert "shared buffer is due" in fault.message


def _said_to_be_lent(producer, numbers, layout):
    """What a client gets that says so of two descriptors, by hand."""
    capability = cm.capability(producer)
    table, _ = pack_table([Entry(0, NO_BADGE, layout, Lent(1, 5))])
    entries = list(struct.iter_unpack("=H16s", table))
    record = by_hand.call(capability, method=b"total", payload=b"\x91\x00", entries=entries, descriptors=2)
    with by_hand.knock(capability) as near:
        by_hand.send(near, record, numbers)
        return by_hand.answer(near)[0]
