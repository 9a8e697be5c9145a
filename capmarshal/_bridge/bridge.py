"""A bridge: what makes capabilities of this machine callable from others, and those of others from this one."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import inspect
import logging
import math
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import capmarshal as cm
from capmarshal import aio
from capmarshal._bridge_engine.engine import CLOSING, EngineClosed, EngineError, NobodyThere, NotAllowed, Unanswered
from capmarshal._bridge_link.joining import Reception, instance_of, join
from capmarshal._bridge_link.link import LinkLost, NotTaken
from capmarshal._bridge_link.sealing import LEASE_BYTES, NotGenuine
from capmarshal._bridge_link.tokens import Token, check_exporter
from capmarshal._kernel.errors import with_article

from .alive import claim
from .exports import Root
from .limits import AT_A_TIME, LinkLimits
from .pairing import answer_pairs, pair
from .partner import Partner
from .shares import Pools, Shares

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from capmarshal import Caller, Capability
    from capmarshal._bridge_engine.engine import Engine
    from capmarshal._bridge_link.link import Link
    from capmarshal._bridge_link.messages import Join, Open

    Source: TypeAlias = Callable[[], Awaitable[Capability]]

_logger = logging.getLogger("capmarshal")

# Bytes of a call's arguments, and of its result; dataspaces are not counted.
MAX_BYTES = 64 << 20
MAX_DATASPACE = 4 << 30

# Calls of this machine's processes that may be under way; and bridges that may have joined this one.
CONCURRENCY = 1_000
LINKS_MOST = 2_000

# Seconds that a service at a path has to hand over what is asked for.
_CONNECTING = 3.0

# Seconds in which nodes tell each other who serves what.
_KNOWN = 1.0


class NotReached(cm.Disconnected):
    """What a token stands for can't be reached: its bridge is not there, refuses, or does not answer."""


class _Export(Root):
    """What one token stands for."""

    def __init__(self, token: Token, source: Source, reception: Reception) -> None:
        self.token = token
        self.source = source
        self.reception = reception


# The engines of all bridges.
_taken: weakref.WeakSet[Engine] = weakref.WeakSet()


class _Joining:
    """Joining one other bridge: one at a time, and who waits for that is told of its silence, too.

    Attributes:
        turn: of who joins it.
        wanted: how many want it.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.wanted = 0
        self._asked, self._words = -math.inf, ""

    def check(self, since: float) -> None:
        """Raises Unanswered where it was asked since then, and was silent."""
        if since <= self._asked:
            raise Unanswered(self._words)

    def was_silent(self, asked: float, error: Unanswered) -> None:
        """It was asked then, and has not answered."""
        self._asked, self._words = asked, str(error)


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
        self._limits = LinkLimits.of_this_process(max_bytes, max_dataspace)
        self._pools = Pools(self._limits, LINKS_MOST)
        # Of who has joined with a token, by its subject, and of whom this one has joined, by the name.
        self._shares: weakref.WeakValueDictionary[str, Shares] = weakref.WeakValueDictionary()
        self._instance = os.urandom(LEASE_BYTES)
        self._exports: dict[str, _Export] = {}
        # Those that this one has joined, by their names; and all.
        self._joined: dict[str, Partner] = {}
        self._joining: dict[str, _Joining] = {}
        self._partners: set[Partner] = set()
        self._ended = False
        self._stack = contextlib.AsyncExitStack()
        self._entrypoint = aio.Entrypoint(
            "bridge",
            concurrency=CONCURRENCY,
            max_bytes=max_bytes,
            limits=cm.Limits(unread_bytes=AT_A_TIME * max_bytes),
            describe=True,
        )

    async def __aenter__(self) -> Self:
        """From here on it can be reached.

        Raises:
            NameTaken: another bridge of that name runs.
            EngineError: the engine can't be asked whether there is one, or does not let this one have that name.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._engine.close)
            await stack.enter_async_context(self._entrypoint)
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
            TypeError, ValueError: it is none of these; or the token is another bridge's, or in use.
            EngineError: the bridge has ended.
        """
        self._check_entered()
        source = self._source(what)
        if token is None:
            token = Token.new(self.name)
        self._check_own(token)
        if token.subject in self._exports:
            raise ValueError("that token stands for something already")
        reception = Reception(self._engine, token, self._instance, joined=partial(self._was_joined, token.subject))
        self._exports[token.subject] = _Export(token, source, reception)
        try:
            await reception.open()
        except BaseException:
            self._exports.pop(token.subject, None)
            raise
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
        """
        self._check_entered()
        self._check_own(token)
        export = self._exports.pop(token.subject, None)
        if export is None:
            return
        export.revoked = reason
        for partner in tuple(self._partners):
            partner.revoke(export)
        await export.reception.close()

    # Importing -----------------------------------------------------------------------------------------------------

    async def connect(self, token: Token) -> Capability:
        """What a token of another bridge's stands for.

        Returns:
            Its capability, of this machine: to be called, and handed on, as any.

        Raises:
            NotReached: it can't be reached.
            TableFull: no room for its two descriptors.
            TypeError: that is no token.
            RuntimeError: the bridge was not entered.
        """
        self._check_entered()
        return await self._connect(_checked(token), anew=False)

    def listen(self, path: str | os.PathLike[str], token: Token, *, mode: int = 0o600) -> None:
        """Hands what a token stands for over to each process that connects to a path, by a grant of its own.

        The other bridge is asked whenever somebody connects: who connects while it can't be reached is not let in.

        Args:
            path: of a socket to be made, as :meth:`capmarshal.aio.Entrypoint.listen` has it.
            token: of another bridge.
            mode: of the file.

        Raises:
            KernelError, ValueError: there is no listening there.
            TypeError: that is no token.
            RuntimeError: the bridge was not entered.
        """
        self._check_entered()
        _checked(token)

        async def for_client(_caller: Caller) -> Capability:
            return await self._connect(token, anew=True)

        self._entrypoint.listen(path, for_client=for_client, mode=mode)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many things each of the others, by its name, has of this machine's, and this machine of its."""
        counts: dict[str, dict[str, int]] = {}
        for partner in self._partners:
            # Each may have joined the other.
            before = counts.get(partner.link.other, {})
            counts[partner.link.other] = {what: count + before.get(what, 0) for what, count in partner.counts.items()}
        return counts

    async def _connect(self, token: Token, *, anew: bool) -> Capability:
        if token.exporter == self.name:
            return await self._own(token)
        clock = asyncio.get_running_loop().time
        until, pause = clock() + _KNOWN, 0.02
        while True:
            try:
                return await self._reach(token, anew=anew)
            except NobodyThere as error:
                # What has just begun to be served, a token or the link itself, is not known at all nodes yet.
                if clock() + pause > until:
                    raise NotReached(f"{token.exporter!r} can't be reached: {error}", ran="no") from None
            await asyncio.sleep(pause)
            pause *= 2

    async def _reach(self, token: Token, *, anew: bool) -> Capability:
        """As _connect, without waiting until nodes have told each other; raises NobodyThere for that."""
        again = True
        while True:
            partner: Partner | None = None
            try:
                partner = await self._partner(token)
                return await partner.open(token, anew=anew)
            except LinkLost as error:
                # It was lost meanwhile, and nobody had told.
                if not again:
                    raise NotReached(f"{token.exporter!r} was lost: {error}", ran="no") from None
                again = False
            except NotTaken as error:
                raise NotReached(f"{token.exporter!r} refuses: {error}", ran="no") from None
            except (EngineError, NotGenuine) as error:
                if not again or partner is None or not await self._was_started_again(partner, token):
                    if isinstance(error, NobodyThere):
                        raise
                    raise NotReached(f"{token.exporter!r} can't be reached: {error}", ran="no") from None
                again = False

    async def _was_started_again(self, partner: Partner, token: Token) -> bool:
        """Whether another start of a bridge serves its token than the one that was joined, which is lost by that."""
        try:
            instance = await instance_of(self._engine, token)
        except (EngineError, NotTaken, NotGenuine):
            return False
        if instance == partner.link.instance:
            return False
        partner.link.lose("the other bridge was started again")
        return True

    async def _own(self, token: Token) -> Capability:
        export = self._exports.get(token.subject)
        if export is None or export.token != token:
            raise NotReached(f"{self.name!r}, which is this bridge, has no such token", ran="no")
        try:
            return await export.source()
        except (cm.Error, OSError) as error:
            raise NotReached(f"what the token stands for is not there: {error}", ran="no") from None

    async def _partner(self, token: Token) -> Partner:
        joining = self._joining.setdefault(token.exporter, _Joining())
        joining.wanted += 1
        since = asyncio.get_running_loop().time()
        try:
            async with joining.turn:
                partner = self._joined.get(token.exporter)
                if partner is None or partner.link.lost:
                    joining.check(since)
                    partner = await self._join(token, joining)
                return partner
        finally:
            joining.wanted -= 1
            if not joining.wanted:
                del self._joining[token.exporter]

    async def _join(self, token: Token, joining: _Joining) -> Partner:
        made: list[Partner] = []

        def prepare(link: Link) -> None:
            made.append(self._made(link, token.exporter))

        asked = asyncio.get_running_loop().time()
        try:
            await join(self._engine, token, ours=self.name, prepare=prepare)
        except Unanswered as error:
            # What is not allowed is so of one subject alone.
            if not isinstance(error, NotAllowed):
                joining.was_silent(asked, error)
            raise
        (partner,) = made
        if partner.link.lost:
            raise LinkLost(partner.link.lost)
        self._joined[token.exporter] = partner
        partner.begin()
        # The other may have joined this one before.  Asked also where who waits for it gives up.
        pairing = [
            partner.link.run(pair(partner, came))
            for came in self._partners
            if came.link.other == token.exporter and came is not partner
        ]
        if pairing:
            await asyncio.wait(pairing)
        return partner

    # Being joined --------------------------------------------------------------------------------------------------

    async def _was_joined(self, subject: str, link: Link, _join: Join) -> None:
        partner = self._made(link, subject)
        if not partner.joins():
            raise NotTaken(
                f"{partner.shares.links.held:,} bridges have joined this one with that token: it takes no more of "
                "them, since others have, or may need, the rest of its links"
            )
        answer_pairs(partner, self._joined.get)
        await link.serve()
        partner.begin()

    def _made(self, link: Link, who: str) -> Partner:
        async def opening(question: Open) -> tuple[Capability, Root]:
            return await self._opened(link, question)

        if self._ended:
            raise EngineClosed("the bridge has ended")
        shares = self._shares.get(who)
        if shares is None:
            shares = self._shares[who] = Shares(self._pools)
        partner = Partner(link, self._entrypoint, self._limits, shares, opening)
        link.at_loss(lambda _why: self._lost(partner))
        self._partners.add(partner)
        return partner

    async def _opened(self, link: Link, question: Open) -> tuple[Capability, Root]:
        export = self._exports.get(question.subject)
        if export is None or not hmac.compare_digest(export.token.proof(link.token), question.proof):
            raise NotTaken("there is no such token, or it was revoked")
        try:
            thing = await export.source()
        except (cm.Error, OSError) as error:
            raise NotTaken(f"what the token stands for is not there: {error}") from None
        if self._exports.get(question.subject) is not export:
            raise NotTaken("the token was revoked")
        return thing, export

    def _lost(self, partner: Partner) -> None:
        self._partners.discard(partner)
        if self._joined.get(partner.link.other) is partner:
            del self._joined[partner.link.other]

    async def _end(self) -> None:
        self._ended = True
        for export in tuple(self._exports.values()):
            await export.reception.close()
        self._exports.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._close_timeout):
                await asyncio.gather(*(partner.drain() for partner in tuple(self._partners)))
        await asyncio.gather(*(partner.close("the bridge was closed") for partner in tuple(self._partners)))

    def _check_entered(self) -> None:
        if not self._entered:
            raise RuntimeError("a Bridge is entered before it is used: async with Bridge(...) as bridge")

    def _check_own(self, token: Token) -> None:
        if _checked(token).exporter != self.name:
            raise ValueError(f"a token of {token.exporter!r}, and this bridge is {self.name!r}")

    def _source(self, what: object) -> Source:
        if isinstance(what, str | os.PathLike):
            path: Any = what

            async def connected() -> Capability:
                return await aio.connect(path, timeout=_CONNECTING)

            return connected
        capability = what if isinstance(what, cm.Capability) else cm.capability(what)  # type: ignore[arg-type]  # refused

        async def held() -> Capability:
            return capability

        return held

    def __repr__(self) -> str:
        return f"<Bridge {self.name!r}>"


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
