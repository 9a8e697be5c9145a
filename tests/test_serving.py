"""``aio.Entrypoint``: calls are run in an event loop, and how serving begins and ends."""

from __future__ import annotations

import anyio
import pytest

import capmarshal as cm
from capmarshal import aio
from loops import Work, Worker, each_loop, in_thread, run
from patience import PATIENCE


def _calls(capability):
    """Calls of every kind, from another process."""
    with cm.timeout(PATIENCE):
        work = capability.cast(Work)
        assert [work.double(value) for value in range(40)] == [2 * value for value in range(40)]
        assert work.blob(bytes(range(256)) * 4096) == bytes(range(256)) * 4096
        with cm.Dataspace.from_buffer(b"spam") as dataspace:
            files = work.echo([cm.Descriptor.dup_of(dataspace.fileno())] * 300)
        assert len(files) == 300
        for file in files:
            file.close()
        assert work.take(capability) == capability
        with pytest.raises(cm.RemoteError, match="ValueError"):
            work.blob(b"")
    return True


class Strict(Worker):
    async def blob(self, data):
        if not data:
            raise ValueError("nothing")
        return await super().blob(data)


@each_loop
def test_calls_of_every_kind_are_answered(loop, fork, quiet_log):
    """Data, long ones, descriptors both ways, capabilities, errors; made by a blocking client, of the twin."""
    entrypoint = aio.Entrypoint("awaited")
    capability = entrypoint.manage(Strict())
    child = fork(lambda: _calls(capability))

    async def main():
        async with entrypoint:
            assert await in_thread(child.result)

    run(loop, main)
    assert entrypoint.closed


@each_loop
def test_a_blocking_call_that_would_wait_for_itself_is_told_at_once(loop):
    """In words that say what to do; from another thread it is made."""

    async def main():
        async with aio.Entrypoint("awaited") as entrypoint:
            work = entrypoint.manage(Worker()).cast(Work)
            with pytest.raises(RuntimeError, match=r"double\(\) was called by a blocking proxy.*to_thread"):
                work.double(1)
            assert await in_thread(work.double, 1) == 2

    run(loop, main)


@each_loop
def test_connecting_to_itself_and_waiting_for_its_own_end_are_told_at_once(loop, tmp_path):
    """Without a deadline, too; where they are awaited, or made in another thread, they are made."""

    async def main():
        async with aio.Entrypoint("awaited") as entrypoint:
            entrypoint.listen(tmp_path / "s", Worker())
            (tmp_path / "link").symlink_to("s")
            for name in ("s", "link"):
                words = rf"^connecting to '.*/{name}' in the thread of the event loop.*await aio\.connect.*to_thread"
                for timeout in (None, 0, PATIENCE):
                    with pytest.raises(RuntimeError, match=words):
                        cm.connect(tmp_path / name, timeout)
            capability = await in_thread(cm.connect, tmp_path / "s")
            assert await aio.connect(tmp_path / "s") is capability
            with pytest.raises(RuntimeError, match=r"^waiting for entrypoint 'awaited' to go.*await aio\.wait_gone"):
                cm.wait_gone(capability)
            with pytest.raises(cm.CallTimeout):
                cm.wait_gone(capability, 0)
            assert not capability.gone
            async with anyio.create_task_group() as group:
                group.start_soon(in_thread, cm.wait_gone, capability)
                entrypoint.close()
        with pytest.raises(cm.Disconnected):
            cm.connect(tmp_path / "s")
        cm.wait_gone(capability)

    run(loop, main)
