"""What a method raised, as plain data: told by the server, and raised again by the client.

An error travels by the names of its classes, most derived first, as Python's ``except`` would find them: the caller
makes the first of these that its interface declares.  (No module is named: what is ``__main__`` to the one is a module
to the other.)  So a server may raise what is derived from a declared class, and a caller that knows the base alone
catches it.

Nothing of the application's runs when it is made again: no ``__init__``, which may want other arguments than ``args``
are, no ``__new__``, no ``__setattr__``.  And nothing but the classes that the interface declares can be made, whatever
a server sends.
"""

from __future__ import annotations

import errno
import types
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._kernel.errors import Error, RemoteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Characters of an error's text: it shall fit into a record, whatever a library put into it.
_WORDS_MAX = 10_000
# Of notes, and of a group's members, so many travel.
_MANY = 100

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
        args: the error's ``args``.
        attributes: of the error's own that are plain data.
        notes: that were added to it.
        filename: of an OSError.
        members: of a group.
    """

    classes: list[str]
    text: str
    args: list[Any] = []
    attributes: dict[str, Any] = {}
    notes: list[str] = []
    filename: str | None = None
    members: list[Raised] = []


def words_of(error: BaseException) -> str:
    """An error's text, cut where it is long; whatever the error's own class raises when it is asked."""
    try:
        return _decent(str(error))
    except Exception as worse:  # noqa: BLE001 - a __str__ or __repr__ of the user's may raise anything
        return f"(its text cannot be had: {type(worse).__qualname__})"


def _decent(words: str) -> str:
    """Names of files that are no UTF-8 come as lone surrogates, which msgspec refuses."""
    return words[:_WORDS_MAX].encode("utf-8", "backslashreplace").decode()


def without_path(error: BaseException) -> str:
    """An error's text, without the path that the text of an OSError ends in."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return _decent(f"[Errno {error.errno}] {error.strerror}")
    return words_of(error)


def told(error: BaseException, brought: bytes = b"") -> Raised:
    """An error as it travels.

    Args:
        error: any, however strange.
        brought: the payload of the call that ended by it.  The path of an OSError is told only if it came in that: what
            else the server's files are called is its own affair.
    """
    filename = _filename(error, brought)
    text = without_path(error) if filename is None else words_of(error)
    classes = [kind.__qualname__ for kind in type(error).__mro__ if issubclass(kind, Exception)]
    members: list[Raised] = []
    if isinstance(error, BaseExceptionGroup):
        members = [told(member, brought) for member in error.exceptions[:_MANY]]
        args: list[Any] = [error.message]
    else:
        args = list(error.args)
    notes = [_decent(note) for note in getattr(error, "__notes__", ())[:_MANY] if isinstance(note, str)]
    return Raised(classes, text, args if _can_travel(args) else [text], _attributes(error), notes, filename, members)


def anonymous(error: BaseException) -> Raised:
    """An error that no interface declares: its name and text, and those of a group's members."""
    members = error.exceptions[:_MANY] if isinstance(error, BaseExceptionGroup) else ()
    text = without_path(error)
    name = type(error).__qualname__
    notes = []
    if _is_of_something_closed(error, text):
        notes = [_CLOSED]
    elif isinstance(error, Exception) and not isinstance(error, _MISTAKES):
        notes = [_UNDECLARED.format(name)]
    return Raised([name], text, notes=notes, members=[anonymous(member) for member in members])


def _is_of_something_closed(error: BaseException, text: str) -> bool:
    """Whether a method may have used what an earlier call was sent."""
    if isinstance(error, OSError):
        return error.errno == errno.EBADF
    return isinstance(error, ValueError) and text.rstrip(".").endswith("closed file")


def _can_travel(value: Any) -> bool:
    try:
        _encode(value)
    except Exception:  # noqa: BLE001 - whatever a class among them raises when it is asked for its fields
        return False
    return True


def _filename(error: BaseException, brought: bytes) -> str | None:
    filename = error.filename if isinstance(error, OSError) else None
    if isinstance(filename, str) and filename and _can_travel(filename) and _encode(filename) in brought:
        return filename
    return None


def _attributes(error: BaseException) -> dict[str, Any]:
    own = vars(error).items()
    return {name: value for name, value in own if name != "__notes__" and type(value) in _PLAIN and _can_travel(value)}


def rebuilt(sent: Raised, declared: Sequence[type[BaseException]]) -> BaseException:
    """The error that was sent, as the first of its classes that is declared; a RemoteError if none is.

    Args:
        sent: by a server; hostile, for all we know.
        declared: what may be made.
    """
    by_name = {kind.__qualname__: kind for kind in declared}
    kind = next((by_name[name] for name in sent.classes if name in by_name), None)
    error = None if kind is None else _made(kind, sent, declared)
    if error is None or kind is None:
        return _remote(sent)
    own = vars(error)
    own.update((name, value) for name, value in sent.attributes.items() if _may_have(kind, name))
    if isinstance(error, OSError) and sent.filename is not None:
        _set(error, "filename", sent.filename)
    notes = list(sent.notes)
    if not _says(error, sent.text):
        notes.insert(0, f"at the server, its text was: {sent.text}")
    if notes:
        # Not by add_note(): a frozen dataclass refuses that.
        own["__notes__"] = notes
    return error


def _remote(sent: Raised) -> RemoteError:
    """What stands for an error that is not declared, with its notes and what its members were."""
    error = RemoteError(sent.classes[0] if sent.classes else "", sent.text)
    for note in (*sent.notes, *_flat(sent)):
        error.add_note(note)
    return error


def _made(kind: type[BaseException], sent: Raised, declared: Sequence[type[BaseException]]) -> BaseException | None:
    """An error of that class, or of one that Python chooses for an OSError's number; None if it can't be made."""
    args: tuple[Any, ...] = tuple(sent.args)
    if issubclass(kind, BaseExceptionGroup):
        args = (*args, [rebuilt(member, declared) for member in sent.members])
    try:
        new, init = _builtin(kind, "__new__"), _builtin(kind, "__init__")
        try:
            error: BaseException = new(kind, *args)
            if type(error).__qualname__ not in sent.classes:
                # What errno 1 means to an SSLError is not what it means to an OSError.
                error = new(kind)
                for name, value in zip(("errno", "strerror"), args, strict=False):
                    _set(error, name, value)
            else:
                init(error, *args)
        except Exception:  # noqa: BLE001 - these args are not what the builtin class takes: it has them all the same
            if issubclass(kind, BaseExceptionGroup):
                return None
            error = new(kind)
        _set(error, "args", args, BaseException)
    except Exception:  # noqa: BLE001 - a class written in C may ask for anything
        return None
    return error


def _builtin(kind: type[BaseException], name: str) -> Any:
    """The method of the first base that is written in C."""
    written_in_c = (types.BuiltinFunctionType, types.WrapperDescriptorType)
    return next(found for base in kind.__mro__ if isinstance(found := vars(base).get(name), written_in_c))


def _set(error: BaseException, name: str, value: object, of: type[BaseException] = OSError) -> None:
    """Sets an attribute that a builtin class keeps by itself, past whatever the error's class does with attributes."""
    vars(of)[name].__set__(error, value)


def _may_have(kind: type[BaseException], name: str) -> bool:
    """Whether an instance of the class may have such an attribute: none that hides something of the class's own.

    But the default of a dataclass's field is to be hidden.
    """
    fields: dict[str, object] = getattr(kind, "__dataclass_fields__", {})
    return name in fields or not (name.startswith("__") or any(name in vars(base) for base in kind.__mro__))


def _says(error: BaseException, text: str) -> bool:
    """Whether it has that text; it is given it where its class has none of its own to make of these args."""
    if words_of(error) == text:
        return True
    before = error.args
    if isinstance(error, (OSError, BaseExceptionGroup)) or len(before) == 1:
        return False
    # The text of a class that makes nothing of several args is a tuple's.
    _set(error, "args", (text,), BaseException)
    if words_of(error) == text:
        return True
    _set(error, "args", before, BaseException)
    return False


def _flat(sent: Raised) -> Iterator[str]:
    """What the members of an undeclared group were, a line each."""
    for member in sent.members:
        yield f"{member.classes[0] if member.classes else 'an error'}: {member.text}"
        yield from _flat(member)
