"""Files before they are sent: what is sent is a descriptor, and a file of Python's may be more than that.

It may have bytes in its buffer that the other side would not see: what is still to be written is written; what was read
ahead of the program is given back by seeking, where that can be done, and else the file is refused.  And it may read
and write other bytes than its descriptor does: a compressed file, TLS.  Such are refused too.

Nothing here waits for a lock: a thread that reads from a pipe keeps that of its buffer for as long as nobody writes.
"""

from __future__ import annotations

import codecs
import io
import os
import socket
from typing import Any

from capmarshal._descriptors.dataspace import Dataspace
from capmarshal._descriptors.descriptor import Descriptor, number_of
from capmarshal._descriptors.foreign import ForeignFile
from capmarshal._descriptors.layers import layers_of
from capmarshal._kernel.deadline import in_force
from capmarshal._kernel.errors import Closed, with_article
from capmarshal._typed.flushing import flush_within, flush_without_waiting, pending_in
from capmarshal._typed.standing_in import standing_in

# Descriptors and nothing else; of classes derived from these, that is not known.
_BARE = (Descriptor, Dataspace, io.FileIO, ForeignFile, socket.socket)

# What reads and writes another text than is underneath, and is none of io's classes.
_CODECS = (codecs.StreamReader, codecs.StreamWriter, codecs.StreamReaderWriter, codecs.StreamRecoder)

# Bits of a text file's tell() that are a position; what is above says how to decode from there
# (cookie_type, Modules/_io/textio.c).
_POSITION_BITS = 64


# What may be done about something that is closed.
_LENT = "pass it while it is open, a call only borrows it"
_RETURNED = (
    "a call closes what it is sent and what it returns: return a copy, cm.Descriptor.dup_of(file), or take it out, "
    "return cm.keep(file)"
)


def number_to_send(file: Any, *, serving: bool = False) -> int:
    """The descriptor of something that has a ``fileno()``, borrowed.

    Args:
        file: the thing.
        serving: it is a result.

    Raises:
        TypeError: it has none after all.
        Closed: it is closed; says what to do.
    """
    try:
        return number_of(file)
    except Closed as closed:
        raise Closed(f"{closed}: {_RETURNED if serving else _LENT}") from None


def prepare(file: Any, *, serving: bool = False) -> None:
    """Brings an open file, which both sides will share, to where the program is in it.

    Args:
        file: anything with a ``fileno()``.
        serving: this thread serves others, so nothing is waited for.

    Raises:
        TypeError: the bytes that it reads and writes are not those of its descriptor.
        ValueError: nobody knows where the program is in it (a text file in the middle of an iteration), or it cannot be
            brought there (a file of /proc that has been read from, a pipe that was read ahead from).
        CallTimeout: its pending bytes could not be written in time.
    """
    if type(file) in _BARE:
        return
    if type(file) is io.BufferedReader and type(file.raw) is io.FileIO:
        # The commonest, which is what it seems to be.
        if file.seekable():
            _seek_to_where_it_is(file)
        else:
            _refuse_what_has_read_ahead(file, [file])
        return
    if type(file) is io.BufferedReader and type(file.raw) is ForeignFile:
        # Where the open file is, the program is: to ask for the position might wait for somebody who reads from it.
        if pending_in(file, file.raw) >= 0:
            return
        if serving:
            _refuse_what_has_read_ahead(file, [file])
    # By what it can do, not by its class: the files of tempfile are wrappers.  A raw file has no buffer.
    layers = layers_of(file)
    _refuse_what_transforms(file, layers)
    if isinstance(file, io.RawIOBase) or not hasattr(file, "seekable"):
        return
    if file.writable():
        if serving:
            flush_without_waiting(file)
        else:
            flush_within(file, in_force())
    if file.readable():
        if file.seekable():
            _seek_to_where_it_is(file)
        else:
            _refuse_what_has_read_ahead(file, layers)


def _name(file: Any) -> str:
    return with_article(f"`{type(file).__qualname__}`")


def _refuse_what_transforms(file: Any, layers: list[Any]) -> None:
    """Refuses gzip, bz2 and lzma files, TLS, what decodes or counts (HTTP), whatever these are wrapped in."""
    for layer in layers:
        if (
            isinstance(layer, _CODECS)
            # TLS: of the ssl module, which is not imported for that, or of another library.
            or hasattr(layer, "do_handshake")
            # Neither a raw file, nor a buffer on one, nor a text file on a buffer: it makes its bytes itself.
            or (layer is layers[-1] and isinstance(layer, io.IOBase) and not isinstance(layer, io.RawIOBase))
        ):
            raise TypeError(
                f"{_name(file)} reads and writes other bytes than its descriptor does: pass the file or socket "
                "underneath"
            )


def _seek_to_where_it_is(file: Any) -> None:
    try:
        position = file.tell()
    except OSError as error:
        # Of a text file that a `for` reads from: how far, only its decoder knows.
        advice = "; seek() to where the other side is to begin, or read lines with readline()"
        raise ValueError(
            f"where the program is in the file: {error}{advice if isinstance(file, io.TextIOBase) else ''}"
        ) from error
    try:
        if position < 0:
            raise ValueError(f"its tell() says {position}")
        if position >> _POSITION_BITS:
            raise ValueError("a place in the text that is none in the bytes, as the codec has it: open it as bytes")
        if position != os.lseek(file.fileno(), 0, os.SEEK_CUR):
            # It has read ahead.  Only a seek from the end is sure to go past its buffer to the kernel; a fresh
            # reader is left alone, since the files of /proc have no end to seek from (EINVAL, seq_lseek()).
            file.seek(0, os.SEEK_END)
            file.seek(position)
    except OSError as error:
        raise ValueError(f"where the program is in the file: {error}") from error


def _refuse_what_has_read_ahead(file: Any, layers: list[Any]) -> None:
    """Refuses what has taken more out of a pipe or socket than the program has seen."""
    for layer in layers:
        raw = getattr(layer, "raw", None)
        if isinstance(raw, io.RawIOBase):
            count = -pending_in(layer, raw)
            if count > 0:
                raise ValueError(
                    f"{count} bytes that it has read ahead would stay here: read them first, or pass the raw file "
                    "(file.raw, or what file.detach() gives) for what comes after them"
                )
            if layer is not file and _was_read_as_text(file, layer):
                raise ValueError(
                    "it was read from as text, and nobody knows how far: read it as bytes, or pass the raw file "
                    "(file.buffer.raw) for what comes after all that it has read ahead"
                )


class _Asked(Exception):  # never leaves this module
    """A text file has asked its buffer for bytes."""


def _was_read_as_text(text: Any, buffer: Any) -> bool:
    """Whether a text file has taken bytes out of its buffer: if not, it asks for some to read a line of length 0."""

    def asked(*_: int) -> bytes:
        raise _Asked

    try:
        with standing_in(buffer, "read1", asked):
            text.readline(0)
    except _Asked:
        return False
    return True
