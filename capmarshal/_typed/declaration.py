"""The declaration of a remote method, read: what its signature and its annotations say.

They are read once, when the interface is first used, so that they may name what is defined after it.
"""

from __future__ import annotations

import keyword
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from capmarshal._capabilities.capability import Delegable
from capmarshal._kernel.errors import InterfaceError, name_of, with_article
from capmarshal._protocol.wire import METHOD_MAX
from capmarshal._typed.annotations import Reader, Unreadable
from capmarshal._typed.marks import CALLED, INTERFACE, RAISES, REMOTE, original_of
from capmarshal._typed.parameters import Parameter, is_async, is_awaitable, is_generator, parameters_of
from capmarshal._typed.sendable import Unsendable, is_data, optional_in
from capmarshal._typed.stubs import function_in, is_stub

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence


def _no_streams(*_: Any, **__: Any) -> Any:
    """There are none before there are interfaces, which stand above this."""


_item_of: Callable[..., tuple[Any, bool] | None] = _no_streams
_pull_interface: Callable[..., type] = _no_streams


def streams_by(item_of: Callable[..., tuple[Any, bool] | None], pull_interface: Callable[..., type]) -> None:
    """Says how results and arguments that are streams are read; see :mod:`capmarshal._typed.streams`, which does."""
    global _item_of, _pull_interface  # set once, see above
    _item_of, _pull_interface = item_of, pull_interface


class StreamArgument(NamedTuple):
    """An argument that is a stream.

    Attributes:
        where: interface, method and parameter, for people.
        result: the interface by which it is pulled.
        items_are_data: no capability and no descriptor can be in its items.
        name: of the parameter.
        optional: None will do.
    """

    where: str
    result: type
    items_are_data: bool
    name: str
    optional: bool


class Declaration:
    """What one method of an interface is declared to take and to return.

    Args:
        interface: that declares it.
        name: of the function.
        function: as declared.
        of: the class that is asked about: the interface, or one derived from it.

    Raises:
        InterfaceError: it is declared in a way that cannot work.

    Attributes:
        where: interface and method, for people.
        function: as given.
        awaitable: what its calls give is to be awaited: declared as ``async def``, or the twin of one that is not.
        raises: the declared errors.
        receiver: what the declaration calls ``self``.
        parameters: the others, in their order.
        annotations, result: their types, as the annotations say; of what is a stream, the interface by which it is
            pulled.
        gives_stream: the result is a stream: declared as an Iterator or an AsyncIterator, or as such a generator.
        stream_arguments: the arguments that are streams, by the places of their parameters.
        items_are_data: it is one in whose items no capability and no descriptor can be.
        data: for each parameter, whether no capability and no descriptor can be in it.
        arguments_are_data, result_is_data: the same of all of them, and of the result.
    """

    def __init__(self, interface: type, name: str, function: Any, of: type) -> None:
        self.where = vars(interface).get(CALLED) or f"{interface.__qualname__}.{name}"
        self._check_name(name)
        self.gives_stream = self.items_are_data = False
        self._check_function(function)
        self._check_twin(name, function)
        self.awaitable = is_awaitable(function)
        self.function: FunctionType = function
        self.raises: Sequence[type[Exception]] = getattr(function, RAISES, ())
        self._check_errors()
        receiver, self.parameters = self._receiver_and_rest()
        if receiver is None:
            raise self._wrong("there is no parameter for the object itself; begin with self")
        self.receiver = receiver
        self._read(Reader(function, interface, of))

    def _wrong(self, words: str) -> InterfaceError:
        return InterfaceError(f"{self.where}: {words}")

    def _check_name(self, name: str) -> None:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise self._wrong("the name cannot be written in a call")
        if len(name.encode()) > METHOD_MAX:
            raise InterfaceError(f"{self.where[:80]}...: a method's name of more than {METHOD_MAX} bytes")

    def _check_function(self, function: Any) -> None:
        if not isinstance(function, FunctionType):
            raise self._wrong(f"a remote method is a plain function, not {with_article(name_of(type(function)))}")
        if is_generator(function):
            kind = "async generators" if is_async(function) else "generators"
            what = "AsyncIterator" if is_async(function) else "Iterator"
            raise self._wrong(
                f"{kind} are what a server writes; what it gives is declared without yield, and without async: "
                f"def {function.__name__}(...) -> {what}[...]: ..."
            )

    def _check_twin(self, name: str, function: FunctionType) -> None:
        original = original_of(function)
        if original is not function and vars(vars(original)[INTERFACE]).get(name) is not original:
            called = f"{vars(original)[INTERFACE].__qualname__}.{original.__name__}"
            raise self._wrong(f"a twin travels under the name of what it is a twin of, and bears it: {called}")

    def _check_errors(self) -> None:
        names = [error.__qualname__ for error in self.raises]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None and len({*self.raises}) == len(names):
            raise self._wrong(f"@raises declares two errors that are called {twice}; errors travel by their names")

    def _receiver_and_rest(self) -> tuple[str | None, list[Parameter]]:
        """What the method calls its object, if it has a place for it, and its other parameters."""
        try:
            parameters = parameters_of(self.function)
        except (ValueError, TypeError) as error:
            raise self._wrong(f"a decorator hides the parameters: {error}") from error
        if not parameters or parameters[0].kind not in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
            return None, parameters
        for parameter in parameters[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise self._wrong(f"{parameter} has no fixed place in a message; take a list or a dict")
        return parameters[0].name, parameters[1:]

    def _read(self, reader: Reader) -> None:
        """Reads the annotations, and looks whether what they say can be sent."""
        try:
            written = self.function.__annotations__
        except Exception as error:  # they are evaluated when they are asked for, from Python 3.14 on
            raise self._wrong(f"an annotation cannot be understood: {error}") from error
        for parameter in self.parameters:
            if parameter.name not in written:
                name = parameter.name
                raise self._wrong(f"parameter {name} has no annotation, which says what may be passed: {name}: int")
        if "return" not in written:
            raise self._wrong("the result has no annotation; write -> None if there is none")
        self.stream_arguments: dict[int, StreamArgument] = {}
        read = [self._parameter(reader, place, written[p.name]) for place, p in enumerate(self.parameters)]
        self.annotations = [annotation for annotation, _ in read]
        self.data = [is_data for _, is_data in read]
        self.arguments_are_data = all(self.data)
        try:
            stream = _item_of(reader.read(written["return"]), result=True)
        except Unreadable:  # said below
            stream = None
        except Unsendable as error:
            raise InterfaceError(f"{self.where}, result: {error}") from error
        if stream is None:
            self.result, self.result_is_data = self._type(reader, written["return"], "result")
        else:
            self._read_stream(*stream)

    def _read_stream(self, item: Any, is_awaited: bool) -> None:
        """Reads the result of a method that gives a stream.

        Raises:
            InterfaceError: its items cannot be sent, or are awaited where its calls block.
        """
        if original_of(self.function) is self.function:
            if is_async(self.function):
                raise self._wrong("a stream's items are awaited, and not its call: write def, without async")
            if self.awaitable is not is_awaited:
                raise self._wrong("a decorator's function gives a stream of the other colour")
        try:
            items_are_data = is_data(item)
        except Unsendable as error:
            raise InterfaceError(f"{self.where}, result: {error}") from error
        self.gives_stream, self.items_are_data = True, items_are_data
        self.result = _pull_interface(self.where, item, self.raises, awaitable=self.awaitable, given=False)
        self.result_is_data = False

    def _parameter(self, reader: Reader, place: int, written: Any) -> tuple[Any, bool]:
        """What :meth:`_type` has of a parameter; of one that is a stream, what it is pulled by."""
        name = self.parameters[place].name
        try:
            kind, optional = optional_in(reader.read(written))
            stream = _item_of(kind, result=False)
            if stream is None:
                return self._type(reader, written, f"parameter {name}")
            return self._streamed(place, name, *stream, optional=optional), False
        except (Unreadable, Unsendable) as error:
            raise InterfaceError(f"{self.where}, parameter {name}: {error}") from error

    def _streamed(self, place: int, name: str, item: Any, is_awaited: bool, *, optional: bool) -> Any:
        """Reads an argument that is a stream; what it is pulled by.

        Raises:
            Unsendable: its items cannot be, or are not awaited where its calls are, or the other way round.
        """
        if original_of(self.function) is not self.function:
            raise Unsendable(
                "a twin keeps the annotations of its original, and a stream has a colour: declare the method by hand, "
                f"with {'AsyncIterator' if self.awaitable else 'Iterator'}[...]"
            )
        if is_awaited is not self.awaitable:
            one, other = ("AsyncIterator", "Iterator") if is_awaited else ("Iterator", "AsyncIterator")
            how = "awaited, and take" if self.awaitable else "not awaited, and take"
            raise Unsendable(f"an {one}, where its calls are {how} an {other}[...]")
        where, items_are_data = f"{self.where}.{name}", is_data(item)
        pulled = _pull_interface(where, item, self.raises, awaitable=is_awaited, given=True)
        self.stream_arguments[place] = StreamArgument(where, pulled, items_are_data, name, optional)
        return pulled | None if optional else pulled

    def _type(self, reader: Reader, written: Any, of: str) -> tuple[Any, bool]:
        """The type that an annotation stands for, and whether it is data alone.

        Raises:
            InterfaceError: it stands for none, or nothing that fits it can be sent.
        """
        try:
            annotation = reader.read(written)
            return annotation, is_data(annotation)
        except (Unreadable, Unsendable) as error:
            raise InterfaceError(f"{self.where}, {of}: {error}") from error


def declared_in(cls: type) -> dict[str, tuple[type, Any]]:
    """What a class and its bases declare as remote methods, by name, each with the class that does."""
    return {
        name: (base, attribute)
        for base in reversed(cls.__mro__)
        for name, attribute in vars(base).items()
        if getattr(attribute, REMOTE, False) or getattr(function_in(attribute), REMOTE, False)
    }


def refuse_forgotten(cls: type) -> None:
    """Refuses an interface with a stub that is not declared as a remote method: its calls would do nothing.

    What a server's class defines is no stub, whatever it does: it is run.

    Raises:
        InterfaceError: there is one; names it.
    """
    seen: set[str] = set()
    for base in cls.__mro__:
        own = {name: attribute for name, attribute in vars(base).items() if name not in seen}
        seen |= own.keys()
        for name, attribute in own.items() if _is_interface(base, cls) else ():
            # An abstract method is a remote one, or is known to be none.
            public = not name.startswith("_") and not getattr(attribute, "__isabstractmethod__", False)
            if public and is_stub(attribute):
                raise InterfaceError(
                    f"{base.__qualname__}.{name} does nothing, and is not declared with @method, so that its calls "
                    "would never reach a server; declare it, give it a body, or let its name begin with an underscore"
                )


def _is_interface(base: type, of: type) -> bool:
    """Whether a class only says what there is to call: it declares methods and has not defined them all."""
    if not issubclass(base, Delegable):
        return getattr(base, "_is_protocol", False)
    declared = declared_in(base)
    if not declared:
        return True
    return bool(base.__abstractmethods__) and (base is of or any(by is base for by, _ in declared.values()))


def refuse_overridden(cls: type) -> None:
    """Refuses a server's class with something of its own in the place of what its interface has, but does not declare.

    That is no remote method: a proxy runs the interface's, in its caller's process, and the server's would never be.

    Raises:
        InterfaceError: it has; names it.
    """
    first: dict[str, type] = {}
    remote = declared_in(cls)
    for base in cls.__mro__:
        is_interface = issubclass(base, Delegable) and bool(declared_in(base)) and _is_interface(base, cls)
        for name, attribute in vars(base).items():
            its = first.setdefault(name, base)
            if not is_interface or its is base or name in remote or _is_interface(its, cls):
                continue
            # What takes no object is not called by a proxy.
            takes_object = function_in(attribute) is not None and not isinstance(attribute, (staticmethod, classmethod))
            if takes_object and not name.startswith("_"):
                raise InterfaceError(
                    f"{its.__qualname__}.{name} would never be called by a client: {base.__qualname__}.{name} is not "
                    "declared with @method, so that on a proxy it runs in the caller's process; declare it, or let the "
                    "server's bear another name; one that begins with an underscore may be in both"
                )


def refuse_unservable(cls: type, streams: Collection[str]) -> None:
    """Refuses a server's class that has something in the place of a remote method that cannot be called as one.

    Args:
        cls: the class.
        streams: the names of methods that give streams.

    Raises:
        InterfaceError: it has; names it.
    """
    for name, (interface, declared) in declared_in(cls).items():
        attribute = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
        where, function = f"{cls.__qualname__}.{name}", function_in(attribute)
        if not callable(getattr(cls, name)):
            raise InterfaceError(
                f"{where} is {with_article(name_of(type(attribute)))}; {interface.__qualname__} has a method there"
            )
        if function is None:
            continue
        its = f"the method of {interface.__qualname__}"
        if name in streams:
            _refuse_no_stream(where, its, function, awaited=is_awaitable(declared))
            continue
        if is_awaitable(declared) and not is_awaitable(function):
            raise InterfaceError(f"{where} is not async, and {its} is; write async def")
        if is_async(function) and not is_awaitable(declared):
            raise InterfaceError(f"{where} is async, and {its} is not; write def")
        if is_generator(function):
            raise InterfaceError(
                f"{where} is a generator, and {its} gives no stream, as -> Iterator[...] says; return a list"
            )


def _refuse_no_stream(where: str, its: str, function: FunctionType, *, awaited: bool) -> None:
    """Refuses what stands in the place of a method that gives a stream, and gives none."""
    if is_async(function) and not awaited:
        raise InterfaceError(f"{where} is async, and {its} is not; write def")
    if is_generator(function) and is_async(function) is not awaited:
        raise InterfaceError(f"{where} is a generator, and {its} gives an AsyncIterator; write async def")
    if is_async(function) and not is_generator(function):
        raise InterfaceError(f"{where} is awaited, and {its} is not, but its items; yield them, or write def")
