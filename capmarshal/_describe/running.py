"""What the commands ``describe`` and ``call`` do, to their exit status."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._capabilities.connecting import connect
from capmarshal._describe.arguments import Arguments, BadArgument
from capmarshal._describe.asking import description_of
from capmarshal._describe.remote import interface_for
from capmarshal._describe.results import Writer, put, without_escapes
from capmarshal._describe.schemas import CannotBeCalled
from capmarshal._describe.words import lines_of, signature
from capmarshal._descriptors.moving import opened
from capmarshal._kernel.deadline import option_timeout
from capmarshal._kernel.errors import (
    ArgumentError,
    CallTimeout,
    Disconnected,
    Error,
    ProtocolError,
    Refused,
    Revoked,
    StaleCapability,
    TooManyInFlight,
    UnknownMethod,
    printable,
    shortened,
)
from capmarshal.demo.complaints import complain

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from capmarshal._capabilities.capability import Capability
    from capmarshal._typed.description import Description, MethodDescription

_FAILED, _USAGE, _UNREACHABLE = 1, 2, 3
# Seconds for an answer, unless it is said.
_TIMEOUT = 10.0
# That there was no answer, and will be none; what else a call raises was answered.
_NO_ANSWER = (CallTimeout, Disconnected, ProtocolError, Refused, Revoked, StaleCapability, TooManyInFlight)
# Where the output goes.
_STANDARD = 1


class _Ended(Exception):
    """The command has failed.

    Args:
        status: its exit status.
        words: why.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def describe(path: str, seconds: float | None, *, as_json: bool) -> int:
    """Shows what a service offers.

    Args:
        path: of its socket.
        seconds: for its answer; None: the default.
        as_json: the description as it is.

    Returns:
        The exit status.
    """

    def run() -> None:
        with option_timeout(_TIMEOUT if seconds is None else seconds):
            _, described = _asked(path)
        if as_json:
            text = without_escapes(msgspec.json.format(msgspec.json.encode(described), indent=2).decode())
        else:
            text = _shown(described)
        put(_STANDARD, f"{text}\n".encode())

    return _ended(run)


def _shown(described: Description) -> str:
    try:
        return "\n".join(lines_of(described))
    except Exception as error:  # noqa: BLE001 - a stranger's words: whatever is wrong with them is wrong with them
        words = f"what the entrypoint says of its object cannot be understood: {type(error).__name__}: {error}"
        raise ProtocolError(words) from None


def call(path: str, name: str, words: Sequence[str], seconds: float | None, output: str | None) -> int:
    """Makes a call of a service, and writes its result.

    Args:
        path: of its socket.
        name: of the method.
        words: the arguments.
        seconds: for each answer; None: the default.
        output: where the result goes, as it is; None: to standard output, as JSON.

    Returns:
        The exit status.
    """
    return _ended(lambda: _call(path, name, words, seconds, output))


def _call(path: str, name: str, words: Sequence[str], seconds: float | None, output: str | None) -> None:
    limit = _TIMEOUT if seconds is None else seconds
    with contextlib.ExitStack() as open_until_over:
        with option_timeout(limit):
            capability, described = _asked(path)
            method = _method(described, name)
            try:
                arguments = open_until_over.enter_context(Arguments(method, described.definitions, words))
                # What cannot be called has nothing opened, or emptied.
                interface = interface_for(method, described, arguments.given)
                by_position, by_name = arguments.make()
            except BadArgument as error:
                takes = signature(method, described.definitions)
                raise _Ended(_USAGE, f"{error}; the method is {takes}") from None
            except CannotBeCalled as error:
                raise _Ended(_USAGE, f"{name}() cannot be called from a shell: {error}") from None
            except Error as error:
                # Of another service, which an argument names, or of its own time.
                raise _Ended(_UNREACHABLE, str(error)) from None
            except OSError as error:
                # What an argument names.
                raise _Ended(_USAGE, str(error)) from None
        number = open_until_over.enter_context(_output(output))
        is_file = number != _STANDARD and stat.S_ISREG(os.fstat(number).st_mode)
        writer = Writer(number, raw=output is not None, emptied=is_file, seconds=seconds)
        # Whoever follows a log waits for the next line, however long that takes.
        each = option_timeout(None if method.stream and seconds is None else limit)
        arguments.empty()
        try:
            with each:
                result = getattr(capability.cast(interface), name)(*by_position, **by_name)
            _write(_bounded(result, each) if method.stream else result, method, writer)
            writer.end()
        except Error:
            if arguments.wrong is not None:
                # An item of a stream, which the method has been told of.
                raise _Ended(_USAGE, str(arguments.wrong)) from None
            raise
    if "capability" in writer.left_out:
        complain("no shell can keep a capability: what it leads to is let go of now")
    if "descriptor" in writer.left_out:
        complain("no shell can keep a descriptor: where it is the result, --output FILE has what can be read from it")


def _bounded(stream: Any, each: option_timeout) -> Generator[Any, None, None]:
    """A stream each of whose items comes in time."""
    with contextlib.closing(stream):
        while True:
            with each:
                try:
                    item = next(stream)
                except StopIteration:
                    return
            yield item


def _write(result: Any, method: MethodDescription, writer: Writer) -> None:
    if method.stream:
        with contextlib.closing(result):
            for item in result:
                writer.write(item)
    elif result is not None or method.result.get("type") != "null":
        writer.write(result)


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[int]:
    """The descriptor that a result is written to; what is there already stays there."""
    if path in (None, "-"):
        yield _STANDARD
        return
    with contextlib.ExitStack() as stack:
        try:
            number = stack.enter_context(opened(str(path), os.O_WRONLY | os.O_CREAT, 0o666))
        except OSError as error:
            raise _Ended(_USAGE, str(error)) from None
        yield number


def _asked(path: str) -> tuple[Capability, Description]:
    """What a service hands over, and says of it."""
    try:
        capability = connect(path)
    except Error as error:
        raise _Ended(_UNREACHABLE, str(error)) from None
    except ValueError as error:
        raise _Ended(_USAGE, str(error)) from None
    try:
        return capability, description_of(capability)
    except UnknownMethod as error:
        raise _Ended(_FAILED, f"{path}: {error}") from None


def _method(described: Description, name: str) -> MethodDescription:
    found = next((method for method in described.methods if method.name == name), None)
    if found is None:
        others = ", ".join(method.name for method in described.methods) or "nothing"
        raise _Ended(_USAGE, f"there is no method {name}; there is {others}")
    return found


def _ended(run: Callable[[], None]) -> int:
    """Runs a command; its exit status, once it has been said what was wrong."""
    # What a stream's items have to be told of is told by an exit status; only who asks for a log gets one.
    log = logging.getLogger("capmarshal")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    try:
        run()
    except BrokenPipeError:
        # Whoever read has had enough.
        return 0
    except _Ended as ended:
        return _complaint(ended.status, str(ended))
    except (ArgumentError, UnknownMethod) as error:
        # Of a result it is none of the command line's.
        return _complaint(_FAILED if ", result: " in str(error) else _USAGE, str(error))
    except _NO_ANSWER as error:
        return _complaint(_UNREACHABLE, str(error))
    except (Error, OSError, TypeError, ValueError, RecursionError) as error:
        return _complaint(_FAILED, str(error))
    return 0


def _complaint(status: int, words: str) -> int:
    complain(printable(shortened(words)))
    return status
