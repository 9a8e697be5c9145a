"""A web server whose parent may be root, to have the port; its workers are nobody, and hold nothing.

The parent never reads a request, and a worker never has the port.  The parent *lends* a worker a connection on which a
request waits, for as long as the call takes by which it is answered; what is idle, it keeps itself::

    parent, root perhaps                         web_worker.py, an ordinary user; several of them
      desk  <------------- report(worker) ------   it is ready, and this is what it may be asked
      accepts, and waits until a request comes
      worker.answer(connection) --------------->   reads the request, writes the answer but for its end,
      sends the end, and keeps or closes it <---   and has let go of the connection

So no request is lost that had not begun, whenever a worker dies.  A call that it had not taken is made again, to
another one (``Disconnected.ran`` is ``"no"``), also for the second request of a connection that is kept alive.  One
that it had is not repeated, for nobody knows what it did: the connection ends.  Since it is the parent that sends the
end of an answer, the client still waits for that one then, and has not sent the next.

SIGTERM or Ctrl-C is a graceful stop: whatever was sent by then is answered, and arrives whole.  Workers end when their
desk is gone, however the parent ended.

    python web_server.py PORT [USER]

serves at PORT of this machine only; 0 for any.  Where root starts it, its workers are USER's, by default nobody's, who
has to be able to read this directory and capmarshal.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from web_worker import Desk, Worker, send

import capmarshal as cm
from capmarshal import aio

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

PROGRAM = Path(__file__).with_name("web_worker.py")
WORKERS = 2
CONNECTIONS = 400  # at a time; all others wait until they are accepted
IDLE = 30.0  # seconds in which a connection has to bring its next request
GRACE = 30.0  # and in which answers have to be finished once the server is told to stop
PAUSE_MIN, PAUSE_MAX = 0.1, 5.0  # before a worker that has crashed is replaced: twice as long each time


class WorkersDesk(Desk):
    """The desk of one worker.

    Attributes:
        pid: of its process.
        busy: how many requests it has.
    """

    def __init__(self, server: Server) -> None:
        self.pid = self.busy = 0
        self._server = server

    async def report(self, worker: Worker) -> None:
        """See :meth:`Desk.report`."""
        self._server.begin(self, worker)


class Server:
    """Accepts connections, and has workers answer what comes on them.

    Args:
        listener: where; taken.
        options: of :class:`subprocess.Popen`: with these it starts workers.
    """

    def __init__(self, listener: socket.socket, options: dict[str, Any]) -> None:
        self._listener, self._options = listener, options
        self._workers: dict[WorkersDesk, Worker] = {}  # those that are ready
        self._ready = asyncio.Event()  # there are some
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._waits: set[anyio.CancelScope] = set()  # for what need not come any more, from when it is told to stop
        self._stopping = False
        self._over = asyncio.Event()

    async def serve(self) -> None:
        """Serves until SIGTERM or SIGINT, and finishes what has begun by then."""
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        async with anyio.create_task_group() as posts:
            async with aio.Entrypoint("web server") as entrypoint:
                for _ in range(WORKERS):
                    posts.start_soon(self._fill_post, entrypoint)
                async with anyio.create_task_group() as connections:
                    connections.start_soon(self._accept, connections)
                    await told.wait()
                    self._stopping = True
                    for scope in self._waits:
                        scope.cancel()
                    connections.cancel_scope.deadline = anyio.current_time() + GRACE
                self._over.set()
            # The desks have gone, so the workers end; one that does not is killed.
            posts.cancel_scope.deadline = anyio.current_time() + GRACE

    # Connections -----------------------------------------------------------------------------------------------------

    async def _accept(self, connections: TaskGroup) -> None:
        """Accepts what connects, and what has connected when the server is told to stop."""
        with self._listener:
            while True:
                await self._places.acquire()
                await self._comes(self._listener, math.inf)
                try:
                    connection, _ = self._listener.accept()
                except OSError as error:
                    self._places.release()
                    if self._stopping:
                        return
                    if not isinstance(error, BlockingIOError):
                        # It has been given up already; or there is no room for it.
                        await anyio.sleep(PAUSE_MIN)
                else:
                    connection.setblocking(False)
                    connections.start_soon(self._attend, connection)

    async def _attend(self, connection: socket.socket) -> None:
        with connection:
            while await self._asks(connection) and await self._is_answered(connection):
                pass
        self._places.release()

    async def _asks(self, connection: socket.socket) -> bool:
        """Waits for a request, which is left unread; False where none comes."""
        await self._comes(connection, IDLE)
        with contextlib.suppress(OSError):
            return bool(connection.recv(1, socket.MSG_PEEK))
        return False

    async def _comes(self, where: socket.socket, seconds: float) -> None:
        """Waits until something is there, the time is over, or the server is told to stop."""
        if not self._stopping:
            with anyio.move_on_after(seconds) as scope:
                self._waits.add(scope)
                await anyio.wait_readable(where)
            self._waits.discard(scope)

    async def _is_answered(self, connection: socket.socket) -> bool:
        """Has a request answered by the worker that has least to do; whether another one may follow."""
        while True:
            await self._ready.wait()
            desk, worker = min(self._workers.items(), key=lambda item: item[0].busy)
            desk.busy += 1
            try:
                end, keep = await worker.answer(connection, last=self._stopping)
                await send(connection, end)
            except cm.Disconnected as gone:
                self._end(desk)
                if gone.ran == "maybe":
                    print(f"worker {desk.pid} has cut an answer", flush=True)
                    return False
            except (cm.Error, OSError) as error:
                print(f"an answer of worker {desk.pid} has failed: {error}", flush=True)
                return False
            else:
                return keep
            finally:
                desk.busy -= 1

    # Workers ---------------------------------------------------------------------------------------------------------

    async def _fill_post(self, entrypoint: aio.Entrypoint) -> None:
        """Starts a worker, and another one whenever it ends."""
        pause = PAUSE_MIN
        while not self._over.is_set():
            desk, started = WorkersDesk(self), anyio.current_time()
            try:
                command, capability = [sys.executable, str(PROGRAM)], entrypoint.manage(desk)
                async with await aio.spawn(command, parent=capability, **self._options) as process:
                    desk.pid = process.pid
                    ended = f"worker {desk.pid} has ended: {await process.wait()}"
            except OSError as error:
                ended = f"no worker was started: {error}"
            await entrypoint.dissolve(desk)
            self._end(desk)
            if not self._over.is_set():
                print(ended, flush=True)
                pause = PAUSE_MIN if anyio.current_time() - started > PAUSE_MAX else min(2 * pause, PAUSE_MAX)
                with anyio.move_on_after(pause):
                    await self._over.wait()

    def begin(self, desk: WorkersDesk, worker: Worker) -> None:
        """A worker is ready."""
        self._workers[desk] = worker
        self._ready.set()
        print(f"worker {desk.pid} is ready", flush=True)
        cm.notify_ready()

    def _end(self, desk: WorkersDesk) -> None:
        """Nothing is asked of it any more."""
        self._workers.pop(desk, None)
        if not self._workers:
            self._ready.clear()


def main() -> None:
    """Serves, as the command line says."""
    port, user = int(sys.argv[1]), (sys.argv[2:] or ["nobody"])[0]
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL}
    if os.getuid() == 0:
        options |= {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
    asyncio.run(Server(listener, options).serve())


if __name__ == "__main__":
    main()
