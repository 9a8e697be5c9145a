"""A program that passes bytes on from sockets that it is given to where they go, unless two hosts are parted.

Its arguments, in JSON: a list of ``[descriptor, host, port, pair]``, of which the descriptor is a socket that listens.
Each line of its input is a list of the pairs that are parted from then on; it answers each with a line.  It ends with
its input.

Nothing is lost between two that are parted: it is held, as TCP holds what it has got no answer to, and is passed on
when they are joined again.  So is the end of a connection, and so is its beginning.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys


async def _pass_on(reader, writer, gate):
    try:
        while data := await reader.read(1 << 16):
            await gate.wait()
            writer.write(data)
            await writer.drain()
        await gate.wait()
        writer.write_eof()
    except OSError:
        await gate.wait()
        writer.transport.abort()


async def _relay(place, gate, near_reader, near_writer):
    try:
        await gate.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection(*place)
        except OSError:
            near_writer.transport.abort()
            return
        try:
            await asyncio.gather(_pass_on(near_reader, far_writer, gate), _pass_on(far_reader, near_writer, gate))
        finally:
            far_writer.transport.abort()
    finally:
        near_writer.transport.abort()


async def _main(links):
    # Nothing else refers to all of them.
    gates, servers, tasks = {}, [], set()
    for descriptor, host, port, pair in links:
        gate = gates.setdefault(pair, asyncio.Event())
        gate.set()

        def taken(reader, writer, place=(host, port), gate=gate):
            task = asyncio.create_task(_relay(place, gate, reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        servers.append(await asyncio.start_server(taken, sock=socket.socket(fileno=descriptor)))
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    os.write(1, b"\n")
    while line := await commands.readline():
        parted = json.loads(line)
        for pair, gate in gates.items():
            if pair in parted:
                gate.clear()
            else:
                gate.set()
        os.write(1, b"\n")
    # Without waiting for what is held.
    os._exit(0)


asyncio.run(_main(json.loads(sys.argv[1])))
