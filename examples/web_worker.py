"""The worker of web_server.py, which starts it; and what the two may ask of each other.

HTTP/1.1 by hand, GET only: what matters is who holds what.  The worker holds its desk, and each connection for as long
as it answers there.  Other pages are served by a program that gives ``main`` another function.
"""

import asyncio
import contextlib
import http.client
import io
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import TypeAlias

import anyio

import capmarshal as cm
from capmarshal import aio

# What there is at a path; None if there is nothing.
Page: TypeAlias = Callable[[str], Awaitable[bytes | None]]

HEAD_MAX, HEAD_END = 16384, b"\r\n\r\n"
PART = 1 << 16
# Seconds in which a client has to send a request, and to take each part of the answer.
PATIENCE = 10.0


class Worker(cm.Interface):
    """What the parent may ask of a worker."""

    @cm.method
    async def answer(self, connection: socket.socket, last: bool) -> tuple[bytes, bool]:
        """Answers the request that waits there, the last one if that is said.

        Returns:
            The end of the answer, to be sent; and whether the connection is to be kept.
        """


class Desk(cm.Interface):
    """What a worker may ask of its parent."""

    @cm.method
    async def report(self, worker: Worker) -> None:
        """The worker is ready."""


async def hello(path: str) -> bytes | None:
    """The one page that there is."""
    return f"hello from process {os.getpid()} of user {os.getuid()}\n".encode() if path == "/" else None


class PageWorker(Worker):
    """Serves pages."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def answer(self, connection: socket.socket, last: bool) -> tuple[bytes, bool]:
        """See :meth:`Worker.answer`."""
        received = b""
        # A client that goes, or takes too long, has ended its connection.
        with contextlib.suppress(OSError):
            while HEAD_END in (received := await receive_head(connection, received)):
                # What came with it is the next request: nobody else can read that any more.
                head, _, received = received.partition(HEAD_END)
                status, body, keep = await self._answer_to(head)
                answer = made(status, body, keep=keep and not last)
                if last or not (keep and received):
                    await send(connection, answer[:-PART])
                    return answer[-PART:], keep and not last
                await send(connection, answer)
        return b"", False

    async def _answer_to(self, head: bytes) -> tuple[HTTPStatus, bytes, bool]:
        """(status, body, whether the client may ask more)."""
        line, _, fields = head.partition(b"\r\n")
        try:
            method, path, version = line.decode("ascii").split(" ")
            headers = http.client.parse_headers(io.BytesIO(fields + HEAD_END))
        except (ValueError, http.client.HTTPException):
            return HTTPStatus.BAD_REQUEST, b"", False
        if method != "GET" or "Content-Length" in headers or "Transfer-Encoding" in headers:
            # Where its body ends is not looked for.
            return HTTPStatus.NOT_IMPLEMENTED, b"", False
        keep = version == "HTTP/1.1" and "close" not in headers.get("Connection", "").lower()
        try:
            body = await self._page(path)
        except Exception:
            logging.exception("GET %r", path)
            return HTTPStatus.INTERNAL_SERVER_ERROR, b"", keep
        return (HTTPStatus.NOT_FOUND, b"", keep) if body is None else (HTTPStatus.OK, body, keep)


def made(status: HTTPStatus, body: bytes, *, keep: bool) -> bytes:
    """An answer."""
    head = f"HTTP/1.1 {status} {status.phrase}\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: text/plain\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    return head.encode() + body


async def receive_head(connection: socket.socket, received: bytes) -> bytes:
    """What has come, to the end of a request's head at least; without one if the client sends none."""
    with anyio.fail_after(PATIENCE):
        while HEAD_END not in received and len(received) < HEAD_MAX:
            part = await asyncio.get_running_loop().sock_recv(connection, PART)
            if not part:
                break
            received += part
    return received


async def send(connection: socket.socket, data: bytes) -> None:
    """Sends it to a client that takes some of it all the time; otherwise a TimeoutError."""
    for start in range(0, len(data), PART):
        with anyio.fail_after(PATIENCE):
            await asyncio.get_running_loop().sock_sendall(connection, data[start : start + PART])


async def work(page: Page) -> None:
    """Works until the parent has gone, or needs nobody any more."""
    # They are meant for the parent, also where a terminal or a supervisor sends them to all.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    desk, worker = cm.parent().cast(Desk), PageWorker(page)
    async with aio.Entrypoint("worker") as entrypoint:
        entrypoint.manage(worker)
        with contextlib.suppress(cm.Disconnected):
            await desk.report(worker)
            await aio.wait_gone(desk)


def main(page: Page = hello) -> None:
    """Serves pages."""
    asyncio.run(work(page))


if __name__ == "__main__":
    main()
