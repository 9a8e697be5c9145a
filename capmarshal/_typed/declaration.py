"""The declaration of a remote method, read: what its signature and its annotations say.

They are read once, when the interface is first used, so that they may name what is defined after it.
"""

from __future__ import annotations

import typing
from types import FunctionType
from typing import TYPE_CHECKING, Any

import msgspec

from capmarshal._capabilities.capability import Capability, Delegable
from capmarshal._kernel.errors import InterfaceError
from capmarshal._protocol.wire import METHOD_MAX
from capmarshal._typed.parameters import Parameter, is_async, parameters_of
from capmarshal._typed.records import refuse_lossy, walk
from capmarshal._typed.table import DESCRIPTOR_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a declaration leaves on its function: that it can be called remotely, and the errors that it raises on purpose.
REMOTE = "__capmarshal_method__"
RAISES = "__capmarshal_raises__"


class Declaration:
    """What one method of an interface is declared to take and to return.

    Args:
        interface: that declares it.
        name: of the function.
        function: as declared.

    Raises:
        InterfaceError: it is declared in a way that cannot work.

    Attributes:
        where: interface and method, for people.
        function: as given.
        raises: the declared errors.
        receiver: what the declaration calls ``self``.
        parameters: the others, in their order.
        arguments, result: their types, as the annotations say; that of the arguments is a tuple.
        arguments_are_data, result_is_data: no capability and no descriptor can be in them.
    """

    def __init__(self, interface: type, name: str, function: Any) -> None:
        self.where = f"{interface.__qualname__}.{name}"
        if len(name.encode()) > METHOD_MAX:
            raise InterfaceError(f"{interface.__qualname__}: a method's name of more than {METHOD_MAX} bytes")
        if not isinstance(function, FunctionType):
            raise InterfaceError(f"{self.where}: a remote method is a plain function")
        if is_async(function):
            raise InterfaceError(f"{self.where}: async methods are not supported yet")
        self.function = function
        self.raises: Sequence[type[Exception]] = getattr(function, RAISES, ())
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except (NameError, TypeError, AttributeError) as error:
            raise InterfaceError(f"{self.where}: an annotation cannot be understood: {error}") from error
        receiver, self.parameters = _receiver_and_rest(function)
        if receiver is None:
            raise InterfaceError(f"{self.where}: there is no parameter for the object itself; begin with self")
        self.receiver = receiver
        for parameter in self.parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise InterfaceError(
                    f"{self.where}: {parameter} has no fixed place in a message; take a list or a dict"
                )
            if parameter.name not in hints:
                raise InterfaceError(f"{self.where}: parameter {parameter.name} has no annotation")
        if "return" not in hints:
            raise InterfaceError(f"{self.where}: the result has no annotation; write -> None if there is none")
        annotations = [hints[parameter.name] for parameter in self.parameters]
        self.arguments: Any = tuple[tuple(annotations)]  # type: ignore[misc]  # made at run time
        self.result = hints["return"]
        custom = [
            self._custom_types(annotation, f"parameter {parameter.name}")
            for parameter, annotation in zip(self.parameters, annotations, strict=True)
        ]
        self.arguments_are_data = not any(custom)
        self.result_is_data = not self._custom_types(self.result, "result")

    def _custom_types(self, annotation: Any, of: str) -> list[type]:
        """What an annotation has in it that is no data.

        Raises:
            InterfaceError: nothing that fits it can be sent.
        """
        custom: list[type] = []
        try:
            for node in walk(msgspec.inspect.type_info(annotation)):
                if isinstance(node, msgspec.inspect.CustomType):
                    _refuse_foreign(node)
                    custom.append(node.cls)
                refuse_lossy(node)
        except (TypeError, ValueError, NameError, AttributeError) as error:
            raise InterfaceError(f"{self.where}, {of}: {error}") from error
        return custom


def declared_in(cls: type) -> dict[str, tuple[type, Any]]:
    """The functions that a class and its bases declare as remote methods, by name, each with the class that does."""
    return {
        name: (base, function)
        for base in reversed(cls.__mro__)
        for name, function in vars(base).items()
        if getattr(function, REMOTE, False)
    }


def _receiver_and_rest(function: FunctionType) -> tuple[str | None, list[Parameter]]:
    """What a method calls its object, if it has a place for it, and its other parameters."""
    parameters = parameters_of(function)
    if not parameters or parameters[0].kind not in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
        return None, parameters
    return parameters[0].name, parameters[1:]


def _refuse_foreign(node: msgspec.inspect.CustomType) -> None:
    """Refuses a class that neither msgspec nor capmarshal knows how to send.

    Raises:
        TypeError: it is one.
    """
    if node.cls not in (Capability, *DESCRIPTOR_TYPES) and not issubclass(node.cls, Delegable):
        raise TypeError(
            f"{node.cls.__qualname__} is neither data, nor an Interface, nor one of Capability, Descriptor, "
            "Dataspace, io.BufferedReader, io.BufferedWriter, socket.socket"
        )
