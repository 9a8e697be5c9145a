"""Typed calls as one would write them by hand for asyncio, uvloop and trio: anyio's streams, and msgspec.

One connection, on which any number of calls are in flight: a frame is its length, then msgpack as
:class:`bench.contenders.Rpc` has it: method by name, errors told, and a number by which the answer finds who waits for
it.  Each request has a task of its own.  What a stream brings is taken apart here, all at once: anyio's
``BufferedByteReceiveStream`` asks for each length and each rest by itself, which is twice the waiting.

What it lacks: capabilities and descriptors; a handler that hears that its caller has gone, or was cancelled; a
connection that outlives the cancelling of a call while it is sent; deadlines that travel; bounds for how many handlers
run, and how long a frame is; fairness between clients.
"""

import struct
from collections.abc import AsyncIterator, Iterator
from functools import partial

import anyio
import msgspec
from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream

from bench import loops
from bench.contenders import Answer, Request, decode_answer, decode_int, decode_pair, decode_request, encode

_SIZE = struct.Struct("=I")


class _Locked:
    """Sends frames one after the other: two tasks may not send on a stream of anyio's at the same time."""

    def __init__(self, stream: ByteSendStream) -> None:
        self._stream = stream
        self._lock = anyio.Lock(fast_acquire=True)

    async def send(self, what: Request | Answer) -> None:
        """Returns when it is sent."""
        async with self._lock:
            await self._stream.send(_framed(what))


class _Gathered:
    """Who sends takes along what others have to send meanwhile."""

    def __init__(self, stream: ByteSendStream) -> None:
        self._stream = stream
        self._left = b""
        self._busy = False

    async def send(self, what: Request | Answer) -> None:
        """Returns when it is sent, or somebody else does it."""
        self._left += _framed(what)
        if self._busy:
            return
        self._busy = True
        try:
            while self._left:
                data, self._left = self._left, b""
                await self._stream.send(data)
        finally:
            self._busy = False


# By name: the obvious one, and the one that a second thought brings.
SENDERS: dict[str, type[_Locked | _Gathered]] = {"locked": _Locked, "gathered": _Gathered}


def _framed(what: Request | Answer) -> bytes:
    frame = encode(what)
    return _SIZE.pack(len(frame)) + frame


async def _chunks(stream: ByteReceiveStream) -> AsyncIterator[Iterator[bytes]]:
    """The frames that have come since the last time, until the other side ends."""
    rest = bytearray()

    def frames() -> Iterator[bytes]:
        at, size = 0, _SIZE.size
        while at + size <= len(rest) and (end := at + size + _SIZE.unpack_from(rest, at)[0]) <= len(rest):
            yield bytes(rest[at + size : end])
            at = end
        del rest[:at]

    async for chunk in stream:
        rest += chunk
        yield frames()


class _Pending:
    def __init__(self) -> None:
        self.came = anyio.Event()
        self.answer: Answer | None = None


class Client:
    """The client's half."""

    def __init__(self, stream: ByteStream, sender: str) -> None:
        self._stream, self._sender = stream, SENDERS[sender](stream)
        self._pending: dict[int, _Pending] = {}
        self._id = 0

    async def add(self, a: int, b: int) -> int:
        return decode_int(await self._call("add", (a, b)))

    async def _call(self, method: str, arguments: tuple[object, ...]) -> msgspec.Raw:
        self._id = number = self._id + 1
        self._pending[number] = pending = _Pending()
        try:
            await self._sender.send(Request(number, method, msgspec.Raw(encode(arguments))))
            await pending.came.wait()
        finally:
            del self._pending[number]
        if pending.answer is None:
            raise ConnectionError("the server ended")
        if pending.answer.error:
            raise RuntimeError(pending.answer.error)
        return pending.answer.result

    async def receive(self) -> None:
        """Gives answers to those who wait for them, until the server ends."""
        async for frames in _chunks(self._stream):
            for frame in frames:
                answer = decode_answer(frame)
                # Who was cancelled waits no longer.
                if pending := self._pending.get(answer.id):
                    pending.answer = answer
                    pending.came.set()
        for pending in self._pending.values():
            pending.came.set()


async def often(path: str, sender: str, times: int, in_flight: int) -> float:
    """Seconds for one call of the server at this path."""
    async with await anyio.connect_unix(path) as stream, anyio.create_task_group() as group:
        client = Client(stream, sender)
        group.start_soon(client.receive)
        taken = await loops.often(client.add, (1, 2), 3, times, in_flight)
        group.cancel_scope.cancel()
    return taken


async def _add(a: int, b: int) -> int:
    return a + b


_METHODS = {"add": (_add, decode_pair)}


async def _answer(sender: _Locked | _Gathered, frame: bytes) -> None:
    request = decode_request(frame)
    try:
        method, arguments = _METHODS[request.method]
        answer = Answer(request.id, msgspec.Raw(encode(await method(*arguments(request.arguments)))))
    except (LookupError, msgspec.MsgspecError) as error:
        answer = Answer(request.id, msgspec.Raw(encode(None)), str(error))
    await sender.send(answer)


async def _greet(made: type[_Locked | _Gathered], stream: ByteStream) -> None:
    sender = made(stream)
    async with stream, anyio.create_task_group() as handlers:
        async for frames in _chunks(stream):
            for frame in frames:
                handlers.start_soon(_answer, sender, frame)


async def serve(sender: str, path: str) -> None:
    """Listens at this path."""
    async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, partial(_greet, SENDERS[sender]))
        await loops.await_end()
        group.cancel_scope.cancel()
