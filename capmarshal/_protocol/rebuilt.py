"""What a method raised, raised again by its caller.

Nothing of the application's runs when an error is made again: no ``__init__``, which may want other arguments than
``args`` are, no ``__new__``, no ``__setattr__``.  Nothing but the classes that the interface declares can be made,
whatever a server sends.  And of what is written in C only Python's own runs, with args that it can bear.
"""

from __future__ import annotations

import itertools
import types
from typing import TYPE_CHECKING, Any

from capmarshal._kernel.errors import CallTimeout, Disconnected, RemoteError, Revoked
from capmarshal._protocol.plain import unpacked
from capmarshal._protocol.raised import args_of, own_of, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capmarshal._protocol.raised import Raised

# Of what the members of an undeclared group were, so much is said.
_LINES = 100
# Errors of calls, which say whether theirs has run.
_OF_CALLS = (Disconnected, CallTimeout, Revoked)
_NAMES_OF_THESE = frozenset(kind.__qualname__ for kind in _OF_CALLS)


def rebuilt(sent: Raised, declared: Sequence[type[BaseException]]) -> BaseException:
    """The error that was sent, as the first of its classes that is declared; a RemoteError if none is.

    Args:
        sent: by a server; hostile, for all we know.
        declared: what may be made.

    Raises:
        ValueError, RecursionError: it is none.
    """
    by_name = {kind.__qualname__: kind for kind in declared}
    kind = next((by_name[name] for name in sent.classes if name in by_name), None)
    error = None if kind is None else _made(kind, sent, declared)
    if error is None or kind is None:
        return _remote(sent)
    own = own_of(error)
    own.update((name, unpacked(raw)) for name, raw in sent.attributes.items() if _may_have(kind, name))
    if isinstance(error, _OF_CALLS) or ("ran" in own and not _NAMES_OF_THESE.isdisjoint(sent.classes)):
        # What came was said of a call that the method has made.  The one that this error ends has run.
        own["ran"] = "maybe"
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
    for note in (*sent.notes, *itertools.islice(_flat(sent), _LINES)):
        error.add_note(note)
    return error


def _made(kind: type[BaseException], sent: Raised, declared: Sequence[type[BaseException]]) -> BaseException | None:
    """An error of that class, or of one that Python chooses for an OSError's number; None if it can't be made."""
    args: tuple[Any, ...] = tuple(map(unpacked, sent.args))
    if issubclass(kind, BaseExceptionGroup):
        args = (*args, [rebuilt(member, declared) for member in sent.members])
    try:
        new, init = _in_c(kind, "__new__"), _of_python(kind)
        try:
            error: BaseException = new(kind, *args)
            if type(error).__qualname__ not in sent.classes:
                # What errno 1 means to an SSLError is not what it means to an OSError.
                error = new(kind)
                for name, value in zip(("errno", "strerror"), args, strict=False):
                    _set(error, name, value)
            else:
                init(error, *_bearable(kind, args))
        except Exception:  # noqa: BLE001 - these args are not what the builtin class takes: it has them all the same
            if issubclass(kind, BaseExceptionGroup):
                return None
            error = new(kind)
        _set(error, "args", args, BaseException)
    except Exception:  # noqa: BLE001 - a class written in C may ask for anything
        return None
    return error


def _in_c(kind: type[BaseException], name: str) -> Any:
    """The method of the first base that is written in C."""
    written_in_c = (types.BuiltinFunctionType, types.WrapperDescriptorType)
    return next(found for base in kind.__mro__ if isinstance(found := vars(base).get(name), written_in_c))


def _of_python(kind: type[BaseException]) -> Any:
    """The ``__init__`` of the first base that is one of Python's own errors."""
    return next(
        vars(base)["__init__"] for base in kind.__mro__ if base.__module__ == "builtins" and "__init__" in vars(base)
    )


def _bearable(kind: type[BaseException], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What of its args a class of Python's own may be told, since it computes with them when it is printed.

    Raises:
        ValueError: none of it.
    """
    if issubclass(kind, UnicodeError) and len(args) > 1:
        # UnicodeDecodeError.__str__() reads object[start], without a look at what start is.
        text, start, end = args[-4:-1]
        if not (isinstance(text, (str, bytes)) and 0 <= start <= end <= len(text)):
            raise ValueError("a place that is not in the text")
    if issubclass(kind, SyntaxError):
        # A traceback would show a line of any file, and blanks up to any offset.
        return args[:1]
    return args


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
    before = args_of(error)
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
