"""An answer that is on its way when its entrypoint is closed arrives whole, as finished and answered says."""

from __future__ import annotations

import os
import threading

import pytest

import by_hand
import capmarshal as cm

PATIENCE = by_hand.PATIENCE


class Large(cm.Interface):
    @cm.method
    def blob(self, size: int) -> bytes: ...

    @cm.method
    def files(self, count: int) -> list[cm.Descriptor]: ...


class LargeServer(Large):
    def __init__(self):
        self.began = threading.Event()

    def blob(self, size):
        self.began.set()
        return bytes(size)

    def files(self, count):
        self.began.set()
        return [cm.Descriptor(os.memfd_create("answer")) for _ in range(count)]


@pytest.mark.parametrize("how", ["close", "leave", "close within the bound"])
@pytest.mark.parametrize("what", ["bytes", "descriptors"])
def test_an_answer_in_parts_arrives_whole_while_its_entrypoint_closes(how, what):
    """10 MB, and 600 descriptors: closed as soon as the method has begun, again and again."""
    for _ in range(10):
        server = LargeServer()
        entrypoint = cm.Entrypoint("closing", close_timeout=PATIENCE).__enter__()
        proxy = entrypoint.manage(server).cast(Large)

        def call(proxy=proxy):
            with cm.timeout(PATIENCE):
                if what == "bytes":
                    return len(proxy.blob(10_000_000))
                files = proxy.files(600)
                for file in files:
                    file.close()
                return len(files)

        calling = by_hand.Concurrent(call)
        assert server.began.wait(PATIENCE)
        if how == "close":
            entrypoint.close()
        elif how == "leave":
            entrypoint.__exit__(None, None, None)
        else:
            entrypoint.close(PATIENCE)
        assert calling.outcome() == (10_000_000 if what == "bytes" else 600)
        entrypoint.__exit__(None, None, None)
        with pytest.raises(cm.Disconnected), cm.timeout(PATIENCE):
            proxy.blob(1)


def test_a_client_that_reads_no_answer_does_not_keep_its_entrypoint(caplog):
    """Its answer is sent until the bound, and no longer."""
    with cm.Entrypoint("closing", close_timeout=0.3) as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())
        near = by_hand.knock(capability)
        near.send(by_hand.call(capability, b"blob", b"\x91\xce\x00\x98\x96\x80"))
        with cm.timeout(PATIENCE):
            # Served after that one, so its answer is on its way.
            assert capability.cast(by_hand.Work).double(1) == 2
    near.close()
    capability.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "capmarshal closing"]
