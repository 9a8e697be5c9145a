"""A bridge: what makes capabilities of this machine callable from others, and those of others from this one."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import capmarshal as cm
from capmarshal import aio
from capmarshal._bridge_engine.engine import CLOSING
from capmarshal._bridge_link.asking import NotTaken
from capmarshal._bridge_link.tokens import Token, check_exporter
from capmarshal._kernel.errors import with_article
from capmarshal._server.new_door import LABEL_MAX

from .alive import claim
from .limits import AT_A_TIME, LinkLimits
from .offers import Offer, Offers
from .pairing import answer_pairs
from .partners import Partners
from .reaching import NotReached, Reaching

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from capmarshal import Caller, Capability
    from capmarshal._bridge_engine.engine import Engine
    from capmarshal._bridge_link.link import Link

# Bytes of a call's arguments, and of its result; dataspaces are not counted.
MAX_BYTES = 64 << 20
MAX_DATASPACE = 4 << 30

# Calls of this machine's processes that may be under way.
CONCURRENCY = 1_000

# The engines of all bridges.
_taken: weakref.WeakSet[Engine] = weakref.WeakSet()


class Bridge:
    """Makes capabilities of this machine callable from other machines, and those of others from this one.

    An asynchronous context manager, in an event loop of asyncio's (uvloop's included).  What it exports can be called
    by whoever has the token, through a bridge of the own machine's.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        max_bytes: int = MAX_BYTES,
        max_dataspace: int = MAX_DATASPACE,
        close_timeout: float = CLOSING,
    ) -> None:
        """One that nobody can reach yet.

        Args:
            name: of this bridge, which no other one of the same engine has: 1 to 32 lower-case letters, digits and
                hyphens.
            engine: that carries its calls; taken: it is closed with the bridge.
            max_bytes: of a call's arguments, and of its result.
            max_dataspace: bytes of one dataspace that another bridge may have copied here.
            close_timeout: seconds for which leaving the block waits for calls that other bridges have made.

        Raises:
            ValueError: no such name; or the engine is another bridge's.
            TypeError: that is no engine.
        """
        self.name: str = check_exporter(name)
        _check_engine(engine)
        if engine in _taken:
            raise ValueError("that engine is another bridge's, and is closed with it: each has one of its own")
        _taken.add(engine)
        self._engine = engine
        self._entered = False
        self._close_timeout = close_timeout
        self._process = os.getpid()
        self._stack = contextlib.AsyncExitStack()
        self._max_bytes, self._max_dataspace = max_bytes, max_dataspace
        self._offers = Offers(engine, self._was_joined)
        # From when it is entered on.
        self._entrypoint: aio.Entrypoint
        self._partners: Partners
        self._reaching: Reaching

    async def __aenter__(self) -> Self:
        """From here on it can be reached.

        Raises:
            NameTaken: another bridge of that name runs.
            EngineError: the engine can't be asked whether there is one, or does not let this one have that name.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._engine.close)
            self._entrypoint = await stack.enter_async_context(self._made_entrypoint())
            limits = LinkLimits.of_this_process(self._max_bytes, self._max_dataspace)
            self._partners = Partners(self._entrypoint, limits, self._offers.opened)
            self._reaching = Reaching(self._engine, self.name, self._partners)
            stack.push_async_callback(await claim(self._engine, self.name))
            stack.push_async_callback(self._end)
            self._stack = stack.pop_all()
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    # Exporting -----------------------------------------------------------------------------------------------------

    async def export(self, what: object, *, token: Token | None = None) -> Token:
        """Makes an object callable by whoever has a token, which is a new one.

        Args:
            what: a capability, a proxy of one, or an object that an entrypoint manages: held until it is revoked.  Or
                the path of a service (str or PathLike), which is connected to for each bridge that comes with the
                token: it may have been started again meanwhile.
            token: one of this bridge's that stands for it, as from before it was started again; None: a new one.

        Returns:
            The token: whoever has it can call.

        Raises:
            TypeError, ValueError: it is none of these; or the token is another bridge's, in use, or revoked meanwhile.
            EngineError: the bridge has ended.
        """
        self._check_entered()
        if token is None:
            token = Token.new(self.name)
        self._check_own(token)
        await self._offers.make(token, what)
        return token

    async def revoke(self, token: Token, reason: str = "") -> None:
        """Ends what a token is good for: all that was reached by it can't be called any more, wherever it is.

        That includes what methods called by it have returned.  Calls that run are answered.  Does nothing the second
        time.  Exported again, it is good again.

        Args:
            token: one of this bridge's.
            reason: for those who hold it, who get it with their error.

        Raises:
            TypeError, ValueError: it is none of this bridge's.
            RuntimeError: the bridge was not entered.
            Closed: this process is a fork of the one that made it.
        """
        self._check_entered()
        self._check_own(token)
        offer = self._offers.take_back(token)
        if offer is None:
            return
        offer.revoked = reason
        for each in offer.passed_on:
            self._entrypoint.revoke(each, reason)
        for partner in self._partners:
            partner.revoke(offer)
        await offer.reception.close()

    # Importing -----------------------------------------------------------------------------------------------------

    async def connect(self, token: Token) -> Capability:
        """What a token stands for.

        Returns:
            Its capability, of this machine: to be called, and handed on, as any.  Of a token of this bridge's own it is
            the very one that was exported, which is not revoked with the token.

        Raises:
            NotReached: it can't be reached.
            TableFull: no room for its two descriptors.
            TypeError: that is no token.
            RuntimeError: the bridge was not entered.
            Closed: this process is a fork of the one that made it.
        """
        self._check_entered()
        if _checked(token).exporter != self.name:
            return await self._reaching.reach(token, anew="")
        thing, _ = await self._own(token)
        return thing

    def listen(self, path: str | os.PathLike[str], token: Token, *, mode: int = 0o600) -> None:
        """Hands what a token stands for over to each process that connects to a path, by a grant of its own.

        The other bridge is asked whenever somebody connects: who connects while it can't be reached is not let in.  Of
        a token of this bridge's own they get grants, too, which are revoked with it.

        Args:
            path: of a socket to be made, as :meth:`capmarshal.aio.Entrypoint.listen` has it.
            token: of another bridge, or of this one.
            mode: of the file.

        Raises:
            KernelError, ValueError: there is no listening there.
            TypeError: that is no token.
            RuntimeError: the bridge was not entered.
            Closed: this process is a fork of the one that made it.
        """
        self._check_entered()
        _checked(token)

        label = _label(token.exporter, path)

        async def for_client(_caller: Caller) -> Capability:
            if token.exporter != self.name:
                return await self._reaching.reach(token, anew=label)
            thing, offer = await self._own(token)
            return self._entrypoint.grant(offer.pass_on(thing), label=label)

        self._entrypoint.listen(path, for_client=for_client, mode=mode)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many things each of the others, by its name, has of this machine's, and this machine of its."""
        return self._partners.counts if self._entered else {}

    async def _own(self, token: Token) -> tuple[Capability, Offer]:
        try:
            return await self._offers.own(token)
        except NotTaken as error:
            raise NotReached(f"{self.name!r}, which is this bridge, refuses: {error}", ran="no") from None

    async def _was_joined(self, subject: str, link: Link) -> None:
        partner = self._partners.make(link, subject)
        if not partner.joins():
            raise NotTaken(
                f"{partner.shares.links.held:,} bridges have joined this one with that token: it takes no more of "
                "them, since others have, or may need, the rest of its links"
            )
        answer_pairs(partner, self._partners.joined.get)
        await link.serve()
        partner.begin()

    async def _end(self) -> None:
        self._partners.take_no_more()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._close_timeout):
                await asyncio.gather(self._offers.close(), self._partners.drain())
        await self._partners.close()

    def _made_entrypoint(self) -> aio.Entrypoint:
        return aio.Entrypoint(
            "bridge",
            concurrency=CONCURRENCY,
            max_bytes=self._max_bytes,
            limits=cm.Limits(unread_bytes=AT_A_TIME * self._max_bytes),
            describe=True,
        )

    def _check_entered(self) -> None:
        if self._process != os.getpid():
            raise cm.Closed(
                f"the bridge {self.name!r} is its parent's: this process is a fork of the one that made it, and has to "
                "make its own"
            )
        if not self._entered:
            raise RuntimeError("a Bridge is entered before it is used: async with Bridge(...) as bridge")

    def _check_own(self, token: Token) -> None:
        if _checked(token).exporter != self.name:
            raise ValueError(f"a token of {token.exporter!r}, and this bridge is {self.name!r}")

    def __repr__(self) -> str:
        return f"<Bridge {self.name!r}>"


def _label(exporter: str, path: str | os.PathLike[str]) -> str:
    """Of the grants of those who connect to a path: what they are told from others by, in lists of all doors."""
    name = "".join(letter for letter in Path(path).name if letter.isprintable())
    return f"{exporter}: {name}".encode()[:LABEL_MAX].decode(errors="ignore")


def _checked(token: object) -> Token:
    if not isinstance(token, Token):
        hint = ": of text, Token.parse() makes one" if isinstance(token, str | bytes) else ""
        # A text may be one: it is shown nowhere.
        raise TypeError(f"a Token is due, and not {with_article(type(token).__name__)}{hint}")
    return token


def _check_engine(engine: object) -> None:
    if not hasattr(engine, "serve"):
        hint = ", which is to be awaited" if inspect.iscoroutine(engine) else ""
        raise TypeError(f"an engine is what NatsEngine.connect() gives{hint}, not {engine!r}")
