"""A bridge's name is its own."""

import asyncio
import contextlib

import pytest

import nats_servers
from capmarshal._bridge_engine.engine import Unanswered
from capmarshal._bridge_engine.nats_engine import NatsEngine
from capmarshal.bridge import Bridge, EngineError, NameTaken
from engine_in_process import InProcessEngine, Network
from patience import PATIENCE


def run(program):
    asyncio.run(asyncio.wait_for(program, PATIENCE))


def test_only_one_bridge_has_a_name():
    """Until that one has ended."""

    async def program():
        network = Network()
        async with Bridge("far", network.engine()):
            async with Bridge("near", network.engine()):
                pass
            with pytest.raises(NameTaken, match="'far' runs already"):
                async with Bridge("far", network.engine()):
                    pass
        async with Bridge("far", network.engine()):
            pass
        assert network.engines == []

    run(program())


def test_who_is_not_called_has_no_name():
    """As where an engine's user has another one: it would be exported by, and never reached."""

    class Deaf(InProcessEngine):
        async def serve(self, subject, handler):
            async def stop():
                pass

            return stop

    async def program():
        network = Network()
        engine = Deaf(network, 10)
        network.engines.append(engine)
        with pytest.raises(EngineError, match="does not let this bridge be called as 'far'"):
            async with Bridge("far", engine):
                pass

    run(program())


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("after", [0, 1])
def test_a_node_is_lost_while_a_bridge_begins(after, sent):
    """It begins by another one: before it has asked for its name, or as it asks whether it has it."""

    class Unlucky(InProcessEngine):
        async def call(self, subject, body, **more):
            nonlocal after
            after -= 1
            if after == -1:
                self.disconnect()
                asyncio.get_running_loop().call_later(0.2, self.connect)
                if sent:
                    raise Unanswered("the connection was lost")
            return await super().call(subject, body, **more)

    async def program():
        network = Network()
        engine = Unlucky(network, 10)
        network.engines.append(engine)
        async with Bridge("far", engine):
            assert after < -1
            with pytest.raises(NameTaken):
                async with Bridge("far", network.engine()):
                    pass

    run(program())


def test_a_name_is_free_when_its_bridge_was_lost(tmp_path):
    """By the connection that ends with its process."""

    async def program(address):
        lost = await NatsEngine.connect([address])
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(Bridge("far", lost))
            # As the kernel closes it.
            lost._keeper.connection._transport._io_writer.transport.abort()
            await lost._keeper.end()
            async with Bridge("far", await NatsEngine.connect([address])):
                pass

    with nats_servers.nodes(tmp_path) as [node]:
        run(program(node.address))
