"""A program that has multiprocessing create processes, and gives them what a process can inherit: run with a method."""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Generic, TypeVar

import capmarshal as cm

T = TypeVar("T")


class Hub(cm.Interface):
    @cm.method
    def add(self, number: int) -> int: ...


class Box(cm.Interface, Generic[T]):
    @cm.method
    def put(self, what: T) -> T: ...


class HubServer(Hub):
    def __init__(self):
        self.sum = 0

    def add(self, number: int) -> int:
        self.sum += number
        return self.sum


class BoxServer(Box[int]):
    def put(self, what: int) -> int:
        return what


given = {}


def report(capability, again, proxy, box, timed, descriptor, dataspace, buffer, unsealed, written):
    """What a process finds in its arguments, one line."""
    with cm.timeout(30):
        assert again is capability
        assert cm.capability(proxy) == capability
        assert cm.capability(timed) == capability
        proxy.add(1)
        timed.add(1)
        assert box.put(3) == 3
        try:
            box.put("3")
        except TypeError:
            pass
        else:
            raise AssertionError("the arguments of Box[int] are lost")
        with descriptor.open("wb") as pipe:
            pipe.write(b"+")
        assert (dataspace.shape, dataspace.format, bytes(dataspace.view())) == ((2, 2), "B", b"data")
        assert dataspace.sealed
        assert not unsealed.sealed
        unsealed.write(b"+", written)
        for thing in (descriptor, dataspace):
            if not thing.closed:
                assert not os.get_inheritable(thing.fileno())
        with buffer, buffer.view() as view:
            assert (buffer.shape, bytes(view)) == ((2, 2), b"lent")
            view[:] = b"done"
        dataspace.close()
        unsealed.close()
        return capability.cast(Hub).add(1)


def initialize(*arguments):
    given["arguments"] = arguments


def report_given(_):
    return report(*given["arguments"])


def run(how, context, arguments):
    """Has a process report: by a Process, by either kind of pool, or by a Process that has them as attributes."""
    if how == "process":
        process = context.Process(target=report, args=arguments[:-1], kwargs={"written": arguments[-1]})
        process.start()
        process.join(60)
        assert process.exitcode == 0, process.exitcode
    elif how == "pool":
        with context.Pool(1, initialize, arguments) as pool:
            pool.map_async(report_given, [None]).get(60)
            pool.close()
            pool.join()
    else:
        with ProcessPoolExecutor(1, context, initialize, arguments) as executor:
            executor.submit(report_given, None).result(60)


def main(method):
    context = multiprocessing.get_context(method)
    server = HubServer()
    with (
        cm.Entrypoint("hub") as entrypoint,
        cm.Dataspace.create((2, 2)) as dataspace,
        cm.Dataspace.create(3) as shared,
        cm.BufferPool(1, (2, 2)) as pool,
    ):
        capability, box = entrypoint.manage(server), entrypoint.manage(BoxServer())
        dataspace.write(b"data")
        dataspace.seal()
        proxy, timed = capability.cast(Hub), capability.cast(Hub, timeout=20)
        for place, how in enumerate(("process", "pool", "executor")):
            read_end, write_end = os.pipe()
            with cm.Descriptor(read_end) as reader, cm.Descriptor(write_end) as writer:
                # Lent again: the process before has let go of it.
                with pool.take(30) as buffer, buffer.view() as view:
                    view[:] = b"lent"
                    capabilities = (capability, capability, proxy, box.cast(Box[int]), timed)
                    run(how, context, (*capabilities, writer, dataspace, buffer, shared, place))
                    assert bytes(view) == b"done"
                writer.close()
                assert os.read(reader.fileno(), 2) == b"+", how
                assert os.read(reader.fileno(), 1) == b"", how
        assert server.sum == 9
        assert bytes(shared.view()) == b"+++"
    print("all done")


if __name__ == "__main__":
    main(sys.argv[1])
