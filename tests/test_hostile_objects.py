"""Server's objects whose classes and methods misbehave: their call is answered, and nobody else pays."""

from __future__ import annotations

import pytest

import by_hand
import capmarshal as cm
from capmarshal._protocol import wire as _wire
from capmarshal._protocol.faults import Code

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE = by_hand.PATIENCE
NO_BADGE = _wire.NO_BADGE


def test_what_decoding_raises_of_the_servers_own_classes_is_a_bad_argument(make_pair):
    """A class that checks itself may raise anything at all: the call fails, and the server serves on."""
    import msgspec

    class Odd(msgspec.Struct):
        value: int

        def __post_init__(self):
            raise (KeyError, ZeroDivisionError, AssertionError, StopIteration)[self.value]("odd")

    class Odds(cm.Interface):
        @cm.method
        def put(self, odd: Odd, file: cm.Descriptor) -> int: ...

    class Server(Odds):
        def put(self, odd, file):
            return 1

    Odds.put.__annotations__.update(odd=Odd)
    with cm.Entrypoint("odd") as entrypoint:
        capability = entrypoint.manage(Server())
        with by_hand.knock(capability) as channel:
            for value in range(4):
                with by_hand.pipe() as (reader, writer):
                    record = by_hand.call(
                        capability,
                        method=b"put",
                        payload=b"\x92\x81\xa5value" + bytes([value]) + b"\x00",
                        entries=[(0, NO_BADGE)],
                        descriptors=1,
                    )
                    by_hand.send(channel, record, [writer.fileno()])
                    assert by_hand.failure(channel) is Code.ARGUMENT
                    writer.close()
                    by_hand.at_end(reader)


@pytest.mark.parametrize("words", ["\udc80", "x" * 300_000, "\0"], ids=["surrogate", "huge", "NUL"])
def test_whatever_a_method_raises_is_told(words):
    """An error whose text cannot be encoded, or is too long for a record, is still an answer."""

    class Failing(cm.Interface):
        @cm.method
        def fail(self) -> int: ...

    class Server(Failing):
        def fail(self):
            raise ValueError(words)

    with cm.Entrypoint("failing") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(Server()).cast(Failing)
        for _ in range(2):
            with pytest.raises((cm.RemoteError, cm.RecordTooBig)):
                proxy.fail()


def test_an_error_that_has_no_text_is_told():
    """Not even str() of what a method raised must work."""

    class Bad(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    class Failing(cm.Interface):
        @cm.method
        def fail(self) -> int: ...

    class Server(Failing):
        def fail(self):
            raise Bad

    with cm.Entrypoint("failing") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(Server()).cast(Failing)
        for _ in range(2):
            with pytest.raises(cm.RemoteError, match="Bad"):
                proxy.fail()


def test_a_result_of_more_entries_than_a_table_has_is_refused():
    """65,536 capabilities of one door need one descriptor, but no table is that long: the caller is told."""

    class Many(cm.Interface):
        @cm.method
        def get(self) -> list[cm.Capability]: ...

        @cm.method
        def put(self, what: list[cm.Capability]) -> int: ...

    class Server(Many):
        def get(self):
            return [cm.capability(self)] * 70_000

        def put(self, what):
            return len(what)

    with cm.Entrypoint("many") as entrypoint, cm.timeout(PATIENCE):
        capability = entrypoint.manage(Server())
        proxy = capability.cast(Many)
        for _ in range(2):
            with pytest.raises(cm.Error):
                proxy.get()
            with pytest.raises(cm.ArgumentError):
                proxy.put([capability] * 70_000)
        assert proxy.put([capability] * 1000) == 1000
