"""What a server's class has in the place of a declared method: which arguments it wants, and what it calls them."""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any

from capmarshal._kernel.errors import InterfaceError
from capmarshal._typed.colour import refuse_blocking_in
from capmarshal._typed.parameters import Parameter, parameters_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capmarshal._typed.declaration import Declaration

_REST = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class Implementation:
    """A method as a class has it: the declaration itself, or what a server has in its place.

    Args:
        declared: the method, as its interface declares it.
        name: of the method.
        cls: the class.

    Attributes:
        required: the parameters that must be given, each with its place; None for those that are given by name only.
        names: what it calls the parameters that it calls otherwise, by their declared names.
    """

    def __init__(self, declared: Declaration, name: str, cls: type) -> None:
        self._declared = declared
        self._where = f"{cls.__qualname__}.{name}"
        # Of what is no plain function nobody knows: it is called as declared.
        told = _parameters_in(cls, name)
        self._parameters = declared.parameters if told is None else told
        self._positional = [p for p in self._parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.required = [
            (None if p.kind is p.KEYWORD_ONLY else place, p.name)
            for place, p in enumerate(self._parameters)
            if p.default is p.empty and p.kind not in _REST
        ]
        both = zip(declared.parameters, self._positional, strict=False)
        self.names = {p.name: own.name for p, own in both if p.kind is p.POSITIONAL_OR_KEYWORD and own.name != p.name}

    def refuse_misfit(self) -> None:
        """Refuses a server's method that cannot be called with all that its interface says.

        Raises:
            InterfaceError: it cannot; names the parameter.
        """
        for place, parameter in enumerate(self._declared.parameters):
            if not self._takes(parameter, place):
                raise self._misfit(f"cannot take `{parameter.name}`")
        given = {p.name for p in self._declared.parameters if p.kind is p.KEYWORD_ONLY}
        count = len(self._declared.parameters) - len(given)
        for needed, name in self.required:
            if name not in given and (needed is None or needed >= count):
                raise self._misfit(f"wants `{name}`, which nobody can give")

    def refuse_blocking(self) -> None:
        """Refuses an awaited method that takes an interface whose calls block.

        Raises:
            InterfaceError: it does; names the parameter, and says what to write.
        """
        declared = self._declared
        both = zip(declared.parameters, declared.annotations, declared.data, strict=True)
        for parameter, annotation, is_data in both if declared.awaitable else ():
            if not is_data:
                refuse_blocking_in(annotation, f"{declared.where}, parameter {parameter.name}")

    def _takes(self, parameter: Parameter, place: int) -> bool:
        kinds = [p.kind for p in self._parameters]
        if parameter.kind is not parameter.KEYWORD_ONLY:
            return place < len(self._positional) or Parameter.VAR_POSITIONAL in kinds
        by_name = [p.name for p in self._parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        return parameter.name in by_name or Parameter.VAR_KEYWORD in kinds

    def _misfit(self, words: str) -> InterfaceError:
        return InterfaceError(f"{self._where} {words}, as {self._declared.where} is declared")


def _parameters_in(cls: type, name: str) -> Sequence[Parameter] | None:
    """The parameters of what a class has there, without the one for the object; None if it does not tell them."""
    attribute: Any = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    function = attribute.__func__ if isinstance(attribute, staticmethod) else attribute
    if not isinstance(function, FunctionType):
        return None
    try:
        parameters = parameters_of(function)
    except (ValueError, TypeError) as error:
        words = f"{cls.__qualname__}.{name}: a decorator hides the parameters: {error}"
        raise InterfaceError(words) from error
    if isinstance(attribute, staticmethod):
        return parameters
    # One that takes all of them takes the object too.
    return parameters[1:] if parameters and parameters[0].kind not in _REST else parameters
