"""What a method raised, as plain data: told by the server.  :mod:`capmarshal._protocol.rebuilt` makes an error of it.

An error travels by the names of its classes, most derived first, as Python's ``except`` would find them: the caller
makes the first of these that its interface declares.  (No module is named: what is ``__main__`` to the one is a module
to the other.)  So a server may raise what is derived from a declared class, and a caller that knows the base alone
catches it.

All of it is bounded, at both ends.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from capmarshal._kernel.errors import Error, RemoteError
from capmarshal._protocol.plain import packed

if TYPE_CHECKING:
    from collections.abc import Callable

# Characters of an error's text: it shall fit into a record, whatever a library put into it.
_WORDS_MAX = 10_000
# Of args, attributes, notes, and a group's members, so many travel.
_MANY = 100
_Few = msgspec.Meta(max_length=_MANY)
# Bytes of all of it.
MOST = 256 << 10

_encode = msgspec.msgpack.Encoder().encode

# The values of an error's attributes that are sent; in them there may be more of these.
_PLAIN = (type(None), bool, int, float, str, bytes, list, tuple, dict)


# The likeliest reason for a file that is closed in a server, where everything else of it says that only.
_CLOSED = (
    "what a call is sent and what it returns is closed when it ends, unless its method takes it out: self.file = "
    "cm.keep(file)"
)
# And what its caller may have meant to catch; others are mistakes in the server, that nobody catches.
_UNDECLARED = "the interface does not declare it: with @raises({}) it would arrive as itself"
_MISTAKES = (Error, AssertionError, AttributeError, NameError, RuntimeError, SyntaxError, TypeError, BaseExceptionGroup)


class Raised(msgspec.Struct, array_like=True, frozen=True):
    """An error.

    Attributes:
        classes: the names of its class and that one's bases, as ``__qualname__`` has them, most derived first.
        text: what ``str()`` said of it.
        args: the error's ``args``, see :mod:`capmarshal._protocol.plain`.
        attributes: of the error's own that are plain data.
        notes: that were added to it.
        filename: of an OSError.
        members: of a group.
    """

    classes: Annotated[list[str], _Few]
    text: str
    args: Annotated[list[msgspec.Raw], _Few] = []
    attributes: Annotated[dict[str, msgspec.Raw], _Few] = {}
    notes: Annotated[list[str], _Few] = []
    filename: str | None = None
    members: Annotated[list[Raised], _Few] = []


def words_of(error: BaseException) -> str:
    """An error's text, cut where it is long; whatever the error's own class raises when it is asked."""
    try:
        return _decent(str(error))
    except BaseException as worse:  # a __str__ or __repr__ of the user's may raise anything
        if isinstance(worse, KeyboardInterrupt):
            raise
        return f"(its text cannot be had: {type(worse).__qualname__})"


def _decent(words: str) -> str:
    """Names of files that are no UTF-8 come as lone surrogates, which msgspec refuses."""
    return words[:_WORDS_MAX].encode("utf-8", "backslashreplace").decode()


def without_path(error: BaseException) -> str:
    """An error's text, without the path that the text of an OSError ends in."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return _decent(f"[Errno {error.errno}] {error.strerror}")
    return words_of(error)


def own_of(error: BaseException) -> dict[str, Any]:
    """The attributes of an error's own, whatever its class calls ``__dict__``."""
    own: dict[str, Any] = vars(BaseException)["__dict__"].__get__(error)
    return own


def args_of(error: BaseException) -> tuple[Any, ...]:
    """An error's args, whatever its class calls so."""
    args: tuple[Any, ...] = vars(BaseException)["args"].__get__(error)
    return args


def told(error: BaseException, brought: bytes = b"") -> Raised:
    """An error as it travels.

    Args:
        error: any, however strange.
        brought: the payload of the call that ended by it, or its beginning.  The path of an OSError is told only if it
            came in that: what else the server's files are called is its own affair.
    """
    filename = _filename(error, brought)
    text = without_path(error) if filename is None else words_of(error)
    classes = [kind.__qualname__ for kind in type(error).__mro__ if issubclass(kind, Exception)][:_MANY]
    args = [error.message] if isinstance(error, BaseExceptionGroup) else args_of(error)
    sent = [packed(value) for value in args[:_MANY]]
    raw = [value for value in sent if value is not None]
    if len(raw) < len(args):
        raw = [msgspec.Raw(_encode(text))]
    whole = Raised(classes, text, raw, _attributes(error), notes_of(error), filename, _members(error, told, brought))
    return whole if len(_encode(whole)) <= MOST else Raised(classes, text, [msgspec.Raw(_encode(text))])


def anonymous(error: BaseException, _brought: bytes = b"") -> Raised:
    """An error that no interface declares: its name and text, and those of a group's members."""
    text = without_path(error)
    name = type(error).__qualname__
    notes = []
    if isinstance(error, RemoteError):
        # Of another call, which the method made: what was said of it there is not known here.
        notes = notes_of(error)
    elif _is_of_something_closed(error, text):
        notes = [_CLOSED]
    elif isinstance(error, Exception) and not isinstance(error, _MISTAKES):
        notes = [_UNDECLARED.format(name)]
    whole = Raised([name], text, notes=notes, members=_members(error, anonymous, b""))
    return whole if len(_encode(whole)) <= MOST else Raised([name], text, notes=notes)


def _members(error: BaseException, as_sent: Callable[[BaseException, bytes], Raised], brought: bytes) -> list[Raised]:
    if not isinstance(error, BaseExceptionGroup):
        return []
    return [as_sent(member, brought) for member in error.exceptions[:_MANY]]


def _is_of_something_closed(error: BaseException, text: str) -> bool:
    """Whether a method may have used what an earlier call was sent."""
    if isinstance(error, OSError):
        return error.errno == errno.EBADF
    return isinstance(error, ValueError) and text.rstrip(".").endswith("closed file")


def _filename(error: BaseException, brought: bytes) -> str | None:
    filename = error.filename if isinstance(error, OSError) else None
    if isinstance(filename, str) and filename and packed(filename) is not None and _encode(filename) in brought:
        return filename
    return None


def _attributes(error: BaseException) -> dict[str, msgspec.Raw]:
    found: dict[str, msgspec.Raw] = {}
    for name, value in own_of(error).items():
        raw = packed(value) if name != "__notes__" and type(value) in _PLAIN else None
        if raw is not None and packed(name) is not None and len(found) < _MANY:
            found[name] = raw
    return found


def notes_of(error: BaseException) -> list[str]:
    """An error's notes, as they may be sent."""
    notes = own_of(error).get("__notes__", ())
    if not isinstance(notes, (list, tuple)):
        return []
    return [_decent(note) for note in notes[:_MANY] if isinstance(note, str)]
