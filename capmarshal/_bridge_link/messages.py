"""What two bridges say to each other, sealed: each question and each answer as it is written down.

All are arrays of MessagePack, in the order of their fields.  Times are nanoseconds of the CLOCK_BOOTTIME of whoever is
asked: a time *left* would not age in an engine, nor in a machine that stands still.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeAlias, TypeVar

import msgspec

from .sealing import NotGenuine

VERSION = 1


class Kind(IntEnum):
    """What a body is; an answer is of the kind of its question and :data:`ANSWER`."""

    HELLO = 1
    JOIN = 2
    OPEN = 3
    CALL = 4
    DONE = 5
    PING = 6
    FETCH = 7
    RING = 8
    BYE = 9
    PAIR = 10


ANSWER = 0x80
# The answer to any question that was not taken.
REFUSED = 0xFF

# Nothing that can be a number of a thing.
NOTHING = 0


class _Message(msgspec.Struct, array_like=True):
    """All of them."""


# What stands in a table ---------------------------------------------------------------------------------------------


class Mine(_Message, tag=0):
    """What the one who says this has, and lets the other call, or ring.

    Attributes:
        number: of it, among what it has exported by this link.
        is_signal: whether it is a signal.
    """

    number: int
    is_signal: bool


class Yours(_Message, tag=1):
    """What the other has exported by this link."""

    number: int


class Others(_Message, tag=3):
    """What the other has exported by the other link of the same two bridges."""

    number: int


class Described(_Message):
    """What is said of a dataspace, so that one like it can be made elsewhere.

    Attributes:
        size: bytes.
        sealed: nobody can change it any more.
        format: of an item of the array that it is; None of bytes.
        shape: of that array; empty of bytes.
    """

    size: int
    sealed: bool
    format: str | None = None
    shape: tuple[int, ...] = ()


class Copied(_Message, tag=2):
    """A dataspace, to be fetched."""

    number: int
    described: Described


Mention: TypeAlias = Mine | Yours | Copied | Others


class Long(_Message):
    """A payload that is too long to stand here, and is to be fetched."""

    number: int
    size: int


Payload: TypeAlias = bytes | Long


# Questions and answers ----------------------------------------------------------------------------------------------


class Hello(_Message):
    """Asks the exporter of a token what time it is there; anybody who has the token may."""

    version: int


class HelloAnswer(_Message):
    """Its clock, what JOIN is to say that is taken by this start of it, and its half of the link's key."""

    version: int
    clock: int
    instance: bytes
    half: bytes


class Join(_Message):
    """Makes a link.

    Attributes:
        link_name: of the link's own token, of which both subjects are made.
        half: of the key of that, the importer's: what all that goes by the link is sealed with is of both.
        shown: the exporter's, as it was shown.
        name: of the importer.
        lease: of the importer, for this link.
        clock: of the importer.
    """

    link_name: bytes
    half: bytes
    shown: bytes
    name: str
    lease: bytes
    clock: int


class Joined(_Message):
    """The link is there."""

    lease: bytes
    clock: int


class Open(_Message):
    """Asks for what a token stands for, by a link.

    Attributes:
        subject: the token's.
        proof: that one has it; of no use by another link.
    """

    subject: str
    proof: bytes


class Opened(_Message):
    """It: its number among what is exported by this link, which is mentioned by that once.

    It is never what the other has itself: who has the token may call until that is revoked, and it alone.
    """

    number: int


class Call(_Message):
    """Calls an object; the label's call is its ID.

    Attributes:
        object: its number, among what the other has exported.
        method: its name.
        payload: the arguments.
        table: what stands in it.
        deadline: until when it may run; 0: as long as it takes.
        client: a number that stands for who makes it, among all whose calls come by this link.
    """

    object: int
    method: str
    payload: Payload
    table: list[Mention]
    deadline: int
    client: int = 0


class Result(_Message, tag=0):
    """It has run, and returned."""

    payload: Payload
    table: list[Mention]


class Failed(_Message, tag=1):
    """It has run, or not: the fault, as a server's FAIL has it."""

    fault: bytes


class Running(_Message, tag=2):
    """It runs; that it has ended will be said by a DONE."""


Outcome: TypeAlias = Result | Failed
# For read(): as type checkers see it, a union is no type.
ANSWER_TO_CALL: Any = Result | Failed | Running


class Done(_Message):
    """A call that was told to run has ended."""

    call: bytes
    outcome: Outcome


class Taken(_Message):
    """It has been heard."""


class State(IntEnum):
    """Of a call that was asked for."""

    # It has come: how it ends will be said by a DONE, also where that was said before.
    RUNNING = 0
    # It was never begun, and never will be.
    NEVER = 1
    # That can't be said now: it is to be asked for again.
    UNSAID = 2


class Ping(_Message):
    """Says that one lives; and what is new.

    Attributes:
        number: of this ping: what comes again under the same one is not taken again.
        asked: calls of which it is not known whether they have come: neither has their outcome been heard, nor were
            they given up by an earlier ping.
        ended: calls whose outcome has been heard: no more is wanted to know of them.
        given_up: calls of which no more is wanted to know either, and whose outcome was not heard, if there is one.
        released: (number, how often it was mentioned) of what the other has exported, and is not held any more.
        gone: (number, why) of what was exported, and can't be called any more; None: its server is gone.
    """

    number: int
    asked: list[bytes]
    ended: list[bytes]
    given_up: list[bytes]
    released: list[tuple[int, int]]
    gone: list[tuple[int, str | None]]


class Pong(_Message):
    """The clock, and what has become of the calls that were asked for, in their order."""

    clock: int
    states: list[State]


class Fetch(_Message):
    """Asks for bytes of what was lent."""

    number: int
    offset: int
    size: int


class Fetched(_Message):
    """They."""

    data: bytes


class Ring(_Message):
    """Sends a signal."""

    number: int


class Pair(_Message):
    """Asks whether the other has joined the one who asks, too, by another link.

    Attributes:
        subject: of that link's token.
        proof: that one has its key.
    """

    subject: str
    proof: bytes


class Paired(_Message):
    """It has; and the proof that it has the key."""

    proof: bytes


class Bye(_Message):
    """The one who says this ends, and all that it has of the other's; it takes no more calls.

    Attributes:
        came: calls of the other's that have come, and of which it has not said that it has heard their outcome.  Those
            that it still waits for besides have not run.
    """

    came: list[bytes]


class Refused(_Message):
    """Why a question was not taken: it has had no effect, and never will.

    Attributes:
        words: for people.
        clock: of who refuses, if it came after it had expired: another one may be sent in its place.
    """

    words: str
    clock: int | None = None


QUESTIONS: dict[int, type[_Message]] = {
    Kind.HELLO: Hello,
    Kind.JOIN: Join,
    Kind.OPEN: Open,
    Kind.CALL: Call,
    Kind.DONE: Done,
    Kind.PING: Ping,
    Kind.FETCH: Fetch,
    Kind.RING: Ring,
    Kind.BYE: Bye,
    Kind.PAIR: Pair,
}

M = TypeVar("M")
_encode = msgspec.msgpack.Encoder().encode
_decoders: dict[object, msgspec.msgpack.Decoder[object]] = {}


def written(message: object) -> bytes:
    """A message as it is sealed."""
    return _encode(message)


def read(plain: bytes, kind: type[M]) -> M:
    """A message of a kind, or of several (``A | B``).

    Raises:
        NotGenuine: it is none; nothing is said of what it is, since that is nobody's business.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        made: M = decoder.decode(plain)  # type: ignore[assignment]  # of that kind
        return made
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NotGenuine(f"a bridge of another version, or a fault in one: {error}") from None
