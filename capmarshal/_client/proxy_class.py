"""Classes of proxies, made of an interface: each method a function with the parameters of the declared one.

Python itself binds the arguments, at a fortieth of the cost of ``inspect.Signature.bind``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from capmarshal._capabilities.capability import Proxy
from capmarshal._kernel.errors import InterfaceError
from capmarshal._typed.arguments import NOT_GIVEN
from capmarshal._typed.marks import defined_by
from capmarshal._typed.method import methods_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from capmarshal._typed.method import Method


def _proxy_method(
    called: Method, invoke: Callable[..., Any], stream: Callable[..., Any], passing: Callable[..., Any]
) -> Callable[..., Any]:
    """A function with the parameters of the declared one, that makes the call by ``invoke``.

    Args:
        called: the method.
        invoke: as :func:`class_by` takes it.
        stream: likewise.
        passing: likewise.
    """
    called.will_be_called()
    is_awaited = called.awaitable and not called.gives_stream
    if called.stream_arguments:
        invoke = passing(invoke)
    if called.gives_stream:
        invoke = partial(stream, invoke)
    scope: dict[str, Any] = {
        "_capmarshal_invoke": invoke,
        "_capmarshal_called": called,
        "_capmarshal_given": called.given,
        "_capmarshal_not_given": NOT_GIVEN,
    }
    signature, seen_keyword = [called.receiver], False
    positional_only = False
    for parameter in called.parameters:
        if positional_only and parameter.kind is not parameter.POSITIONAL_ONLY:
            signature.append("/")
        positional_only = parameter.kind is parameter.POSITIONAL_ONLY
        if parameter.kind is parameter.KEYWORD_ONLY and not seen_keyword:
            signature.append("*")
            seen_keyword = True
        default = "" if parameter.default is parameter.empty else "=_capmarshal_not_given"
        signature.append(f"{parameter.name}{default}")
    if positional_only:
        signature.append("/")
    values = "".join(f"{parameter.name}, " for parameter in called.parameters)
    arguments = f"({values})"
    optional = [parameter.name for parameter in called.parameters if parameter.default is not parameter.empty]
    if seen_keyword:
        arguments = f"_capmarshal_given({values})"
    elif optional:
        all_given = " and ".join(f"{name} is not _capmarshal_not_given" for name in optional)
        arguments = f"({values}) if {all_given} else _capmarshal_given({values})"
    kind, answer = ("async def", "await ") if is_awaited else ("def", "")
    head = f"{kind} {called.name}({', '.join(signature)}):"
    source = f"{head}\n    return {answer}_capmarshal_invoke({called.receiver}, _capmarshal_called, {arguments})\n"
    exec(compile(source, f"<proxy of {called.where}>", "exec"), scope)  # noqa: S102 - names of parameters, no data
    made: Callable[..., Any] = scope[called.name]
    made.__doc__ = called.function.__doc__
    made.__qualname__ = called.where
    made.__annotations__ = called.function.__annotations__
    made.__module__ = called.function.__module__
    # Whoever evaluates annotations that are strings needs the globals of the declaration.
    made.__wrapped__ = called.function  # type: ignore[attr-defined]  # as functools.wraps does
    return made


def _refuse_server(interface: type[Any]) -> None:
    """Refuses a class that defines what it declares: a proxy of it would have methods that run here.

    Raises:
        InterfaceError: it is one; names the interface.
    """
    defined = defined_by(interface)
    if defined:
        declared = {called.name: called.where.rpartition(".")[0] for called in methods_of(interface).values()}
        its_own = ", ".join(sorted({declared[name] for name in defined}))
        words = f"{interface.__qualname__} defines {', '.join(defined)}, as a server does"
        raise InterfaceError(f"{words}; cast to the interface: {its_own}")


def class_by(
    interface: type[Any], invoke: Callable[..., Any], stream: Callable[..., Any], passing: Callable[..., Any]
) -> type[Any]:
    """A class of proxies for an interface: a subclass of it, with every remote method a call.

    Args:
        interface: the class.
        invoke: makes a call of a proxy, of a method, with arguments; awaited where the interface is awaitable.
        stream: makes what iterates over the result of such a call, of ``invoke`` and what that takes.
        passing: makes what makes such a call with streams among its arguments, of ``invoke``.

    Raises:
        InterfaceError: it has abstract methods that are not remote, or one is declared in a way that cannot work.
    """
    _refuse_server(interface)
    body: dict[str, Any] = {
        called.name: _proxy_method(called, invoke, stream, passing) for called in methods_of(interface).values()
    }
    body["__module__"] = interface.__module__
    metaclass: Any = type(interface)
    made = metaclass(interface.__name__, (Proxy, interface), body)
    if made.__abstractmethods__:
        missing = ", ".join(sorted(made.__abstractmethods__))
        raise InterfaceError(f"{interface.__qualname__}: {missing} abstract, but not declared with @method")
    return made  # type: ignore[no-any-return]  # made by a metaclass that is known at run time only
