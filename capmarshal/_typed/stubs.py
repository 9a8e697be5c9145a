"""Stubs: functions that only say what a method is like, and which a forgotten @method leaves on a proxy.

A call of one would do nothing at the caller's, and never reach the server.
"""

from __future__ import annotations

import functools
from types import FunctionType
from typing import Any

# Compiled by the Python that compiled the program, in all the ways in which a stub is written.
_WAYS = """
def f(self): ...
def f(self): "text"
def f(self):
    "text"
    ...
def f(self):
    "text"
    pass
def f(self): return
def f(self): raise NotImplementedError
def f(self): raise NotImplementedError()
def f(self): raise NotImplementedError("words")
def f(self):
    "text"
    raise NotImplementedError
def f(self):
    "text"
    raise NotImplementedError()
def f(self):
    "text"
    raise NotImplementedError("words")
"""


def _shape(function: FunctionType) -> tuple[Any, ...]:
    """What tells a function from others but for its parameters and its texts."""
    code = function.__code__
    return code.co_code, code.co_names, tuple(type(constant) for constant in code.co_consts)


@functools.cache
def _shapes() -> frozenset[tuple[Any, ...]]:
    shapes = set()
    for way in _WAYS.replace("\ndef", "\n\ndef").split("\n\n")[1:]:
        for kind in ("", "async "):
            scope: dict[str, Any] = {}
            exec(compile(kind + way, "<stub>", "exec", dont_inherit=True), scope)  # noqa: S102 - a text of our own
            shapes.add(_shape(scope["f"]))
    return frozenset(shapes)


def function_in(attribute: Any) -> FunctionType | None:
    """The function that an attribute of a class is, or is made of: a property, a static or a class method."""
    if isinstance(attribute, property):
        attribute = attribute.fget
    elif isinstance(attribute, functools.cached_property):
        attribute = attribute.func
    elif isinstance(attribute, (staticmethod, classmethod)):
        attribute = attribute.__func__
    return attribute if isinstance(attribute, FunctionType) else None


def is_stub(attribute: Any) -> bool:
    """Whether an attribute of a class is a function whose body does nothing: only ``...``, ``pass`` or a docstring.

    One that only raises NotImplementedError is a stub too.
    """
    function = function_in(attribute)
    return function is not None and _shape(function) in _shapes()
