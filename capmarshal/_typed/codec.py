"""Arguments and results to payload and table, and back.

msgspec does the bytes.  Where it meets a capability or a descriptor, its hooks are called: encoding, the thing goes
into the table and its index into the payload; decoding, the annotation says what is made of the table's entry.  A
hook knows its record by a variable of the thread that is set for the time of the call and put back afterwards, so that
a signal handler that calls in between does no harm.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._kernel.errors import Error, shortened, with_article
from capmarshal._typed.exact import check_for
from capmarshal._typed.table import unsendable

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer as Buffer

    from capmarshal._typed.incoming import Incoming
    from capmarshal._typed.outgoing import Outgoing
    from capmarshal._typed.table import Search


# What a payload that is no good makes msgspec raise: RecursionError for 100,000 nested arrays, BufferError for a
# memoryview with gaps, and so on.
BAD_PAYLOAD = (ValueError, TypeError, OverflowError, RecursionError, BufferError)


# Bytes of a payload.  What is longer and no good is not decoded again to learn whose error that is.
LONG = 64 << 10


def is_msgspecs(error: Exception) -> bool:
    """Whether it is msgspec itself that says it of a payload."""
    return isinstance(error, msgspec.MsgspecError) and error.__cause__ is None


def says_all(error: Exception, payload: bytes | memoryview) -> bool:
    """Whether what decoding a payload has raised says what is wrong with it, so that it is not decoded again.

    What msgspec says itself does.  All else may be the application's own, as of a __post_init__, which raises it again,
    or a signal handler's, and the payload is good: to tell them apart is not worth what a long one costs.
    """
    return is_msgspecs(error) or len(payload) > LONG


def words_of_failure(error: Exception) -> str:
    """What is wrong with a payload, as msgspec says it; of what a class of the application's raises, its name."""
    if not isinstance(error, (*BAD_PAYLOAD, Error)):
        return type(error).__name__
    words = shortened(str(error))
    return _TYPES.sub(_in_python, words) if is_msgspecs(error) else words


# What msgspec says is due, and what came; and where it has JSON's words, those of people who write Python.
_TYPES, _JSON = re.compile(r"\b(?:Expected|got) `[^`]*`"), re.compile(r"\b(?:null|object)\b")
_PYTHON = {"null": "None", "object": "record or dict"}


def _in_python(types: re.Match[str]) -> str:
    return _JSON.sub(lambda word: _PYTHON[word[0]], types[0])


# How msgspec ends an error within a value.  What stands before that may be the peer's own words.
_WITHIN = re.compile(r"( - at (?:`key` in )?`)\$([^`]*`)\Z")


def named(words: str, name: str) -> str:
    """An error's words with the name of the parameter that the value is for."""
    return _WITHIN.sub(lambda match: f"{match[1]}{name}{match[2]}", words)


class _Current(threading.local):
    outgoing: Outgoing | Search | None = None
    incoming: Incoming | None = None


_current = _Current()


def _encode_hook(thing: Any) -> Any:
    if _current.outgoing is None:
        raise unsendable(thing)
    return _current.outgoing.add(thing)


def _decode_hook(kind: type, index: Any) -> Any:
    if _current.incoming is None:
        raise TypeError(f"{with_article(kind.__qualname__)} cannot be received here")
    return _current.incoming.make(kind, index)


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_hook)

# The payload for what is data alone; raises anything that msgspec raises for what is not.
encode_data: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


def encode(value: Any, outgoing: Outgoing | Search) -> bytes:
    """The payload for ``value``; what is no data goes into ``outgoing``.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: something in it cannot be sent.
    """
    before = _current.outgoing
    _current.outgoing = outgoing
    try:
        return _encoder.encode(value)
    finally:
        _current.outgoing = before


def decoder_for(annotation: Any) -> Callable[[Buffer, Incoming], Any]:
    """A function that decodes a payload into what ``annotation`` says.

    The function raises ``msgspec.ValidationError`` that names the place for data that are not so,
    :class:`StaleCapability`, and anything that msgspec raises for malformed bytes.  What was made of descriptors until
    then is in ``incoming.produced``.

    Raises:
        TypeError: no such data can be received.
    """
    check = check_for(annotation)
    decode = msgspec.msgpack.Decoder(annotation, dec_hook=_decode_hook).decode

    def run(payload: Buffer, incoming: Incoming) -> Any:
        if check is not None:
            check(payload)
        before = _current.incoming
        _current.incoming = incoming
        try:
            return decode(payload)
        finally:
            _current.incoming = before

    return run


def data_decoder_for(annotation: Any) -> Callable[[Buffer], Any]:
    """A function that decodes a payload into what ``annotation`` says, of which all is data.

    The function raises anything that msgspec raises.
    """
    check = check_for(annotation)
    decode = msgspec.msgpack.Decoder(annotation).decode
    if check is None:
        return decode

    def run(payload: Buffer) -> Any:
        check(payload)
        return decode(payload)

    return run
