"""Two ends of a link between bridges, by themselves."""

import asyncio
import logging

import pytest

from capmarshal._bridge_link.asking import NotTaken
from capmarshal._bridge_link.link import Link, LinkLost
from capmarshal._bridge_link.messages import Call, Kind, Ring, Taken
from capmarshal._bridge_link.tokens import Token
from engine_in_process import Network, Slow


async def two_ends():
    """That which has joined, and the other."""
    network, token = Network(), Token.new("far")
    ends = [
        Link(network.engine(), token, ours=ours, other=other, made_by_us=ours == "near")
        for ours, other in (("near", "far"), ("far", "near"))
    ]
    for end, other in (ends, ends[::-1]):
        await end.serve()
        end.joined(other.lease, other.renew())
    return ends


def fault(_label, _question):
    raise ZeroDivisionError("of the test")


async def awaited_fault(_label, _question):
    raise ZeroDivisionError("of the test")


@pytest.mark.parametrize("answering", [fault, awaited_fault])
def test_a_fault_where_a_question_is_answered(answering, caplog):
    """What is asked until it is answered is refused; of a call it is not said that it has had no effect."""

    async def program():
        near, far = await two_ends()
        far.answer(Kind.RING, answering)
        far.answer(Kind.CALL, answering)
        with pytest.raises(NotTaken, match="a fault"):
            await near.insist(Kind.RING, Ring(1), Taken)
        with pytest.raises(TimeoutError):
            await near.ask(Kind.CALL, Call(1, "method", b"", [], 0), Taken, within=0.2)
        for end in (near, far):
            await end.close("the test is over")

    async def bounded():
        async with asyncio.timeout(25):
            await program()

    with caplog.at_level(logging.ERROR, "capmarshal"):
        asyncio.run(bounded())
    assert [record.getMessage() for record in caplog.records] == ["bridge: a fault where near was answered"] * 2


def test_who_raises_at_the_loss_of_the_other_keeps_nobody_from_being_told(caplog):
    """And what is asked, and what runs, ends all the same."""
    told = []

    def raising(_why):
        raise ZeroDivisionError("of the test")

    async def program():
        near, far = await two_ends()
        for do in (raising, told.append):
            near.at_loss(do)
        asked = asyncio.create_task(near.ask(Kind.RING, Ring(1), Taken, within=100))
        far.answer(Kind.RING, lambda _label, _ring: asyncio.Event().wait())
        running = near.run(asyncio.sleep(100))
        await asyncio.sleep(0)
        near.lose("the test")
        [error] = await asyncio.gather(asked, return_exceptions=True)
        assert str(error) == "the test"
        for end in (near, far):
            await end.close("the test is over")
        assert running.cancelled()

    async def bounded():
        async with asyncio.timeout(25):
            await program()

    with caplog.at_level(logging.ERROR, "capmarshal"):
        asyncio.run(bounded())
    assert told == ["the test"]
    assert [record.getMessage() for record in caplog.records] == ["bridge: a fault at the loss of far"]


def test_a_link_that_is_lost_while_it_begins_to_be_served():
    """It is not: nobody would ever end that."""

    async def program():
        network, token = Network(), Token.new("far")
        engine = Slow(network.engine())
        link = Link(engine, token, ours="near", other="far", made_by_us=True)
        serving = asyncio.create_task(link.serve())
        await asyncio.sleep(0)
        link.lose("the test")
        engine.go.set()
        with pytest.raises(LinkLost, match="the test"):
            await serving
        await link.close("the test is over")
        assert not [one for made in network.engines for one in made._subscriptions]

    async def bounded():
        async with asyncio.timeout(25):
            await program()

    asyncio.run(bounded())
