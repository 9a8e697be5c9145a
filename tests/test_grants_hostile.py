"""What holders of a grant can do to it, to each other and to its server, by raw records: no more than they may."""

from __future__ import annotations

import gc
import weakref

import pytest

import by_hand
import capmarshal as cm
import parts_by_hand
from by_hand import Work, Worker
from capmarshal._protocol import wire
from capmarshal._protocol.parts import PART_BYTES
from patience import until


@pytest.fixture
def entrypoint(request):
    with cm.Entrypoint("files") as made:
        yield made
    # pytest still holds it when the descriptors are counted.
    request.node.funcargs.pop("entrypoint")


def is_unread(near):
    """Whether a client by hand hears that its call was not read, and the channel's end."""
    try:
        while (record := by_hand.answer(near)[0]) is not None:
            assert record == wire.Gone()
    except ConnectionResetError:
        pass
    return True


def test_a_call_that_is_on_its_way_when_its_grant_is_revoked(entrypoint):
    """Announced, and not whole: it is told at once, and not when all of it has come, if ever."""
    granted, root = entrypoint.grant(Worker()), entrypoint.manage(Worker()).cast(Work)
    record = by_hand.call(granted, b"size", b"\x91\xc6" + (8 * PART_BYTES).to_bytes(4) + bytes(8 * PART_BYTES))
    with by_hand.knock(granted) as near:
        (begin, _, _), (first, _, _), *_ = parts_by_hand.pieces(record)
        by_hand.send(near, begin)
        by_hand.send(near, first)
        assert root.double(1) == 2
        entrypoint.revoke(granted, "over")
        assert is_unread(near)
    until(lambda: not entrypoint._service.grants._revoked)


def test_an_object_goes_with_its_last_grant_whoever_keeps_a_channel(entrypoint):
    """Who never takes an answer has the channel, and not the object behind it."""
    target = Worker()
    granted, root = entrypoint.grant(target), entrypoint.manage(Worker()).cast(Work)
    with by_hand.knock(granted) as near:
        near.send(by_hand.call(granted, b"blob", b"\x91\xce\x01\x00\x00\x00"))
        # Of its answer the beginning comes, and no more fits into the queue than a part of it.
        assert isinstance(by_hand.answer(near)[0], wire.Begin)
        entrypoint.revoke(granted)
        last = weakref.ref(target)
        del target
        assert root.double(1) == 2
        gc.collect()
        assert last() is None
        assert entrypoint._service.grants._revoked
