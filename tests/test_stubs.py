"""A function that does nothing and is not declared with @method is a mistake in an interface, and none in a server."""

import functools
import sys
import textwrap
import typing

import pytest

import capmarshal as cm
from capmarshal._typed.stubs import is_stub
from patience import PATIENCE

STUBS = """
def f(self, x: int = 3, *, y=5): ...
;
def f(self): "text"
;
def f(self):
    '''text

    of several lines'''
    ...
;
def f(self):
    # a comment
    pass
;
def f(self, a, b, c, d): return None
;
def f(self):
    '''text'''
    return
;
def f(self): raise NotImplementedError
;
def f(self): raise NotImplementedError("derive from this")
;
def f(self):
    '''text'''
    raise NotImplementedError("derive from this")
;
async def f(self): ...
;
async def f(self): raise NotImplementedError()
;
f = property(lambda self: None)
;
@property
def f(self): '''text'''
;
@staticmethod
def f(): ...
;
@classmethod
def f(cls): pass
;
@functools.cached_property
def f(self): ...
"""

BODIES = """
def f(self): return 1
;
def f(self): return 1000
;
def f(self):
    '''text'''
    return 5
;
def f(self):
    '''text'''
    return "text"
;
def f(self): return "text"
;
def f(self): return self
;
def f(self): return ...
;
def f(self): return ()
;
def f(self): yield
;
def f(self): raise KeyError
;
def f(self): raise KeyError("text")
;
def f(self): print()
;
async def f(self): return 1
;
@property
def f(self): return self.x
;
f = 5
;
f = None
;
f = print
;
@functools.cache
def f(self): ...
;
class f: ...
"""


def _attributes(source):
    """What each of the definitions makes of f in a class."""
    for part in source.strip().split("\n;\n"):
        scope = {"functools": functools}
        exec("class C:\n" + textwrap.indent(part, "    "), scope)
        yield pytest.param(vars(scope["C"])["f"], id=" ".join(part.split())[:40])


@pytest.mark.parametrize("attribute", list(_attributes(STUBS)))
def test_a_body_that_does_nothing_makes_a_stub(attribute):
    """However it is written."""
    assert is_stub(attribute)


@pytest.mark.parametrize("attribute", list(_attributes(BODIES)))
def test_a_body_of_any_kind_makes_none(attribute):
    """Nor is one what is no function."""
    assert not is_stub(attribute)


def test_a_stub_that_is_being_traced_is_one():
    """Under a debugger or when coverage is measured, by the means of whichever Python."""

    def stub(self):
        """Text."""

    def body(self):
        return 5

    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        stub(None)
        assert is_stub(stub)
        assert not is_stub(body)
    finally:
        sys.settrace(before)
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is not None:
        tool = monitoring.PROFILER_ID
        monitoring.use_tool_id(tool, "test")
        try:
            for function in (stub, body):
                events = monitoring.events.LINE | monitoring.events.INSTRUCTION | monitoring.events.PY_RETURN
                monitoring.set_local_events(tool, function.__code__, events)
                function(None)
            assert is_stub(stub)
            assert not is_stub(body)
        finally:
            monitoring.free_tool_id(tool)


class Declared(cm.Interface):
    @cm.method
    def echo(self, value: int) -> int: ...


class Forgot(Declared):
    @cm.method
    def other(self) -> None: ...
    def forgotten(self) -> int: ...


class Alone(cm.Interface):
    def forgotten(self) -> int: ...


class Derived(Declared):
    def forgotten(self) -> int: ...


class Overrides(Declared):
    @cm.method
    def other(self) -> None: ...
    def echo(self, value: "int | str") -> "int | str": ...


class Property(Declared):
    @property
    def forgotten(self) -> int: ...


def _capability():
    with cm.Entrypoint("gone") as entrypoint:
        return entrypoint.manage(Server())


class Server(Declared):
    """It does nothing in many ways, of which each is its own."""

    def echo(self, value):
        pass

    def close(self):
        """Nothing to do."""

    @property
    def state(self): ...


@pytest.mark.parametrize(
    ("interface", "name"),
    [
        (Forgot, "Forgot.forgotten"),
        (Alone, "Alone.forgotten"),
        (Derived, "Derived.forgotten"),
        (Overrides, "Overrides.echo"),
        (Property, "Property.forgotten"),
    ],
)
def test_a_stub_in_an_interface_is_refused_when_it_is_first_used(interface, name):
    """Its calls would do nothing where they are made, and the server's method would never run."""
    for _ in range(2):
        with pytest.raises(cm.InterfaceError, match=rf"{name} does nothing, and is not declared with @method"):
            _capability().cast(interface)


def test_a_server_of_such_an_interface_is_refused():
    """As soon as it is managed, also where it defines what that does not declare: no client could call it."""

    class Forgetful(Forgot):
        def echo(self, value):
            return value

        def other(self): ...

    class Defines(Forgetful):
        def forgotten(self):
            return 5

    with cm.Entrypoint("test") as entrypoint:
        with pytest.raises(cm.InterfaceError, match=r"Forgot\.forgotten does nothing"):
            entrypoint.manage(Forgetful())
        with pytest.raises(cm.InterfaceError, match=r"Defines\.forgotten would never be called by a client"):
            entrypoint.manage(Defines())


def test_helpers_private_stubs_and_a_server_that_does_nothing_are_none():
    """What an interface defines for its callers is useful, and what a server's class does is its own affair."""

    class Helpful(Declared):
        def twice(self, value: int) -> int:
            return self.echo(self.echo(value))

        def _hook(self): ...

        @property
        def zero(self):
            return self.echo(0)

        @typing.overload
        def more(self, value: int) -> int: ...
        @typing.overload
        def more(self, value: str) -> str: ...
        def more(self, value):
            return value

    class Base(Helpful):
        """Not yet a server, since echo is missing."""

        def opened(self) -> None:
            """To be overridden by those who want to know."""

    class HelpfulServer(Base):
        def echo(self, value):
            return value + 1

    with cm.Entrypoint("test") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(HelpfulServer()).cast(Helpful)
        assert [proxy.twice(1), proxy.zero, proxy.more("x")] == [3, 1, "x"]
        assert not entrypoint.manage(Server()).closed
