"""The parameters of a function, the same as inspect tells them."""

from __future__ import annotations

import functools
import inspect

import pytest

from capmarshal._typed.parameters import Parameter, is_async, is_awaitable, is_generator, parameters_of


def nothing(): ...
def plain(self, a, b=2): ...
def only_positional(self, a, b=1, /): ...
def half(self, a, /, b, c="c"): ...
def only_keywords(self, *, a, b=None, c): ...
def the_rest(self, a, *rest, key=1, **more): ...
def all_kinds(self, a, /, b, c=3, *rest, d, e=5, **more): ...
def just_keywords(**more): ...


def with_locals(self, a, *, b=0):
    local = a
    return lambda: (local, b)


@functools.wraps(all_kinds)
def decorated(*args, **kwargs): ...


def told(self): ...


told.__signature__ = inspect.signature(half)


def looped(self): ...


looped.__wrapped__ = looped

FUNCTIONS = [
    nothing,
    plain,
    only_positional,
    half,
    only_keywords,
    the_rest,
    all_kinds,
    just_keywords,
    with_locals,
    decorated,
    told,
]


def by_inspect(function):
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, int(p.kind), "none" if p.default is p.empty else p.default) for p in parameters]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_same_as_inspect(function):
    """Name, kind and default of each, in order."""
    found = parameters_of(function)
    assert [(p.name, p.kind, "none" if p.default is p.empty else p.default) for p in found] == by_inspect(function)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_written_as_declared(function):
    """With its stars; without the rest, which nobody is told of."""
    expected = [str(p.replace(default=p.empty)) for p in inspect.signature(function).parameters.values()]
    assert [str(parameter) for parameter in parameters_of(function)] == expected


def test_one_that_wraps_itself_is_no_endless_loop():
    with pytest.raises(ValueError, match="wrapper loop"):
        parameters_of(looped)


async def coroutine(self): ...


async def asynchronous_generator(self):
    yield 1


def generator(self):
    yield 1


@pytest.mark.parametrize("function", [coroutine, asynchronous_generator, generator, plain])
def test_async_and_generators_same_as_inspect(function):
    assert is_async(function) == (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function))
    assert is_generator(function) == (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function))


def test_what_wraps_a_coroutine_function_is_awaited_as_that_is():
    """As functools.wraps leaves it; one that wraps itself is no endless loop."""
    assert [is_awaitable(function) for function in (coroutine, plain, generator, 5)] == [True, False, False, False]
    assert is_awaitable(functools.wraps(functools.wraps(coroutine)(lambda self: coroutine(self)))(lambda self: None))
    assert not is_awaitable(functools.wraps(plain)(lambda self: coroutine(self)))
    assert not is_awaitable(looped)


@pytest.mark.parametrize(
    "kind", ["POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "VAR_POSITIONAL", "KEYWORD_ONLY", "VAR_KEYWORD"]
)
def test_kinds_are_those_of_inspect(kind):
    assert getattr(Parameter, kind) == int(getattr(inspect.Parameter, kind))
