"""One connection to one node of NATS, which is never made again when it is lost.

nats-py makes it again by itself, and then sends what it had been given and had not sent: a call that was made before,
and given up since, would be served.  So each connection is a client of its own here, and what was given to one that was
lost is lost with it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

try:
    from nats.aio.client import Client
    from nats.errors import Error as NatsError
    from nats.errors import NoServersError, UnexpectedEOF
except ImportError as _error:
    raise ImportError("capmarshal.bridge needs nats-py: pip install 'nats-py>=2.9'") from _error

from .credentials import Credentials
from .engine import LARGEST
from .nats_wire import Incoming
from .node_socket import NodeSocket
from .refusals import denied, explain

__all__ = ["Connection", "NatsError", "Unusable"]

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

    from .login import Login
    from .nats_wire import Taker

_logger = logging.getLogger("capmarshal")

# Seconds that connecting to a node may take, and each step of it; and closing, which has nothing to wait for.
_CONNECTING = 5
_STEP = 3
_CLOSING = 0.5


class Unusable(Exception):
    """A node can't be used; the message says why."""


def _tells(error: Exception) -> int:
    """How much an error tells: what a node says more than that the connection ended by that."""
    if isinstance(error, (NoServersError, UnexpectedEOF)):
        return 0
    return 2 if isinstance(error, (NatsError, ssl.SSLError)) else 1


class Connection(Client):
    """What of nats-py's client is not for everybody, and is needed here all the same, is in this class.

    Attributes:
        address: of its node; empty before it is opened.
        ended: set when it has.
    """

    def __init__(self, at_denial: Callable[[str, str], None] | None = None) -> None:
        """Not connected yet.

        Args:
            at_denial: is told what the node does not let this user do: "publish" or "subscription", and to what, in
                lower case.
        """
        super().__init__()
        self._at_denial = at_denial
        self.address = ""
        self.ended: asyncio.Event = asyncio.Event()
        self._encrypted = False
        self._told: list[Exception] = []
        self._incoming: Incoming | None = None
        self._socket: NodeSocket | None = None
        # What nats-py sends by, without what it has around that.
        self._wire: asyncio.Transport | None = None
        # How often something had come when a body was last sent at once: what is sent until more comes goes together.
        self._heard = -1

    async def open(self, address: str, login: Login, tls_name: str | None) -> None:
        """Connects to a node, once.

        Args:
            address: the node's, as ``nats://host:port``.
            login: who this is.
            tls_name: the name in the node's certificate, where it is not that of the address.

        Raises:
            Unusable: that node can't be used; there is no connection.
        """
        self.address = address
        begun = asyncio.get_running_loop().time()
        self._encrypted = login.tls is not None
        try:
            signing = None if login.credentials is None else Credentials(login.credentials)
            token = None if signing is None else signing.token
            if signing is not None:
                self._public_nkey = signing.public
            async with asyncio.timeout(_CONNECTING):
                await self.connect(
                    [address],
                    name=login.name,
                    user=login.user,
                    password=login.password,
                    signature_cb=None if signing is None else signing.sign,
                    user_jwt_cb=None if token is None else partial(bytes, token),
                    tls=login.context(),
                    tls_hostname=tls_name,
                    error_cb=self._note,
                    closed_cb=self._end,
                    allow_reconnect=False,
                    # None would have it tried for ever.
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=_STEP,
                    # Nothing is kept for a connection that is not there.
                    pending_size=-1,
                )
            if self.max_payload < LARGEST:
                raise Unusable(
                    f"it takes bodies of {self.max_payload:,} bytes: set its max_payload to {LARGEST:,} at least"
                )
            self._interpose()
        except Exception as error:  # noqa: BLE001 - nats-py raises whatever it comes across in what a node says
            await self.drop()
            waited = asyncio.get_running_loop().time() - begun
            raise Unusable(explain(max([error, *reversed(self._told)], key=_tells), login, waited)) from None
        except BaseException:
            await self.drop()
            raise

    def give(self, subject: bytes, body: bytes, reply: bytes = b"") -> None:
        """Sends a body, for an answer to go to ``reply``.

        At once, where nothing waits to be sent, and it is the first since something came: so one call after the other
        waits for no turn of the event loop, and of many the rest is written together.

        Raises:
            NatsError: the connection has it not, and never will.
        """
        incoming, wire = self._incoming, self._wire
        if not self.is_connected or incoming is None or wire is None or self._flush_queue is None:
            raise NatsError("it has ended")
        command = b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(body), body)
        if incoming.heard != self._heard and not self._pending and not wire.get_write_buffer_size():
            self._heard = incoming.heard
            wire.write(command)
            return
        self._pending.append(command)
        self._pending_data_size += len(command)
        if self._flush_queue.empty():
            # What nats-py sends by: it waits for the node to take it, too.
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    def have_taken(self, subscription: Subscription, take: Taker) -> None:
        """Has messages of a subscription taken as they come; those that have headers its callback hears of."""
        if self._incoming is not None:
            self._incoming.take(subscription._id, take)  # noqa: SLF001 - what the node calls it

    async def alive(self, within: float) -> bool:
        """Whether the node says so, within that many seconds.

        Not by flush(), which waits by asyncio.wait_for(): before Python 3.12, that one may take its caller's being
        cancelled for nothing when the answer comes at the same time.
        """
        if self.is_closed:
            return False
        answer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within):
                await self._send_ping(answer)
                await answer
        except (TimeoutError, OSError, NatsError):
            return False
        # Without its reader it seems to be connected for ever.
        return not self.is_closed and self._reading_task is not None and not self._reading_task.done()

    def progress(self) -> tuple[int, int]:
        """What changes as long as anything is received, or sent."""
        taken = 0 if self._incoming is None else self._incoming.count
        return self.stats["in_msgs"] + taken, self._unsent() + self.pending_data_size

    async def drop(self) -> None:
        """Ends it; what was not sent until now is sent to nobody."""
        self._pending.clear()
        self._pending_data_size = 0
        # Closing would wait until all was sent, which a node that stands still does not take.
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        if self._flush_queue is None:
            # It was never to connect.
            return
        tasks = [self._reading_task, self._ping_interval_task, self._flusher_task]
        try:
            async with asyncio.timeout(_CLOSING):
                await self.close()
        except Exception as error:  # noqa: BLE001 - of one that was never connected, nats-py 2.9 raises AttributeError
            _logger.debug("a bridge's engine: a connection ends by %s", error or type(error))
        own = asyncio.current_task()
        ending = [task for task in tasks if task is not None and task is not own]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        self.ended.set()

    async def _process_connect_init(self) -> None:
        """What follows as soon as there is a socket."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            self._socket = NodeSocket(writer.get_extra_info("socket").fileno())
        await super()._process_connect_init()

    def _interpose(self) -> None:
        """From here on what comes is taken as it comes, see there; of messages nats-py has heard nothing until now."""
        nats: Any = self._transport
        transport = nats._io_writer.transport  # noqa: SLF001 - nobody else has it
        unread = bytes(self._ps.buf) + bytes(nats._io_reader._buffer)  # noqa: SLF001 - likewise
        self._incoming = Incoming(transport.get_protocol(), unread, self.max_payload)
        transport.set_protocol(self._incoming)
        self._wire = transport

    def _unsent(self) -> int:
        """Bytes that the node has not taken yet, of those that it was sent."""
        writer = getattr(self._transport, "_io_writer", None)
        size: int = 0 if writer is None else writer.transport.get_write_buffer_size()
        return size

    def _connect_command(self) -> bytes:
        """What is said to the node once encryption has begun, if it was to: without that, credentials are not told.

        nats-py goes on without where the node, or who stands before it, does not ask for it.
        """
        if self._encrypted and not self._server_info.get("tls_required"):
            raise NatsError("it does not encrypt, and is to: it needs a tls block in its configuration")
        if not self._server_info.get("headers"):
            raise NatsError("it does not tell whether nobody is there: it is too old, or has headers turned off")
        return super()._connect_command()

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        """Of a subscription that has ended, nothing comes any more."""
        if self._incoming is not None:
            self._incoming.leave(sid)
        super()._remove_sub(sid, max_msgs)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Asks the node, after all that it was told before: nats-py has the question overtake what waits to be sent."""
        self._pongs.append(asyncio.get_running_loop().create_future() if future is None else future)
        await self._send_command(b"PING\r\n")
        await self._flush_pending()

    async def _process_pong(self) -> None:
        """The node's answer, also to a question that was given up: by that, nats-py would end its reader, and go on."""
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pings_outstanding = 0
        else:
            await super()._process_pong()

    async def _process_err(self, err_msg: str) -> None:
        """What the node does not let this user do it says of one message, and the connection goes on."""
        found = denied(err_msg)
        if found is None or self._at_denial is None:
            await super()._process_err(err_msg)
        else:
            self._at_denial(*found)

    async def _note(self, error: Exception) -> None:
        """What nats-py tells of a connection."""
        self._told.append(error)
        # What an operator is to see: a bridge may not publish, or subscribe to, what it needs; or has been lost for it.
        _logger.log(
            logging.WARNING if self.is_connected else logging.DEBUG, "a bridge's engine: %s", error or type(error)
        )

    async def _end(self) -> None:
        self.ended.set()
