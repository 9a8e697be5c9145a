"""Typed interfaces: what is declared is what can be called, and the annotations are the check."""

import abc
import collections
import contextlib
import dataclasses
import enum
import functools
import inspect
import io
import logging
import os
import re
import socket
import subprocess
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Optional, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import badge_of, open_door_of
from capmarshal._client.knocking import exchange
from capmarshal._protocol import faults as _faults
from capmarshal._protocol import wire as _wire
from capmarshal._typed.method import methods_of

PATIENCE = 30.0


@contextlib.contextmanager
def _serve(*targets, interface=None):
    """Proxies of objects that one entrypoint serves: of one object as such, of several as a tuple."""
    with cm.Entrypoint("test") as entrypoint, cm.timeout(PATIENCE):
        proxies = tuple(entrypoint.manage(target).cast(interface or type(target).__mro__[1]) for target in targets)
        yield proxies if len(proxies) > 1 else proxies[0]


def _raw_call(capability, method, payload=b"\x90"):
    """What comes back for a CALL that no proxy would make; an exception if it is a FAIL."""
    with cm.timeout(PATIENCE):
        answer, _ = exchange(open_door_of(capability), by_hand.key(badge_of(capability), method), payload, [], [])
    if isinstance(answer, _wire.Fail):
        return _faults.to_exception(answer.payload, [], "raw")
    return msgspec.msgpack.decode(answer.payload)


class Echo(cm.Interface):
    """Gives back what it is given."""

    @cm.method
    def echo(self, value: Any) -> Any:
        """The same again."""

    def twice(self, value):
        """Of the interface, but not remote: it runs where it is called."""
        return [self.echo(value), self.echo(value)]

    @property
    def shorthand(self):
        return self.echo("shorthand")

    kind = "echo"


class EchoServer(Echo):
    def __init__(self):
        self.helped = False

    def echo(self, value: Any) -> Any:
        return value

    def helper(self) -> str:
        self.helped = True
        return "secret"

    def __call__(self) -> str:
        self.helped = True
        return "secret"


@pytest.fixture
def log():
    """What the library logs: (level, message, all of it with the traceback) for each record.

    Strings only: pytest would keep the records, and with them the frames of the serving thread and all that is in them.
    """

    lines = []

    def keep(record):
        lines.append((record.levelname, record.getMessage(), logging.Formatter().format(record)))
        return False

    logger = logging.getLogger("capmarshal")
    logger.addFilter(keep)
    yield lines
    logger.removeFilter(keep)


# ------------------------------------------------------------------------------------------ what can be called


@pytest.mark.parametrize(
    "name",
    [
        b"helper",
        b"twice",
        b"shorthand",
        b"kind",
        b"__call__",
        b"__init__",
        b"__class__",
        b"__reduce__",
        b"_capability",
        b"",
        b"\xff\xfe",
        b"echo\0",
        b" echo",
        b"ECHO",
        b"Echo.echo",
        "écho".encode(),
        b"echo" * 10_000,
    ],
    ids=lambda name: repr(name[:20]),
)
def test_only_declared_methods_can_be_called_remotely(name):
    """A helper of the server's, a dunder, a name of odd bytes: UnknownMethod, nothing runs, and the server goes on."""
    target = EchoServer()
    with _serve(target) as proxy:
        error = _raw_call(cm.capability(proxy), name, msgspec.msgpack.encode([]))
        assert type(error) is cm.UnknownMethod
        assert "EchoServer" in str(error)
        assert len(str(error)) < 500
        assert not target.helped
        assert proxy.echo("still there") == "still there"


def test_a_server_that_forgets_a_method_is_refused():
    """As by abc: TypeError when the object is made, naming the method."""

    class Forgetful(Echo):
        pass

    with pytest.raises(TypeError, match="echo"):
        Forgetful()


def test_an_interface_itself_cannot_be_made():
    """It has no methods to serve."""
    with pytest.raises(TypeError, match="abstract"):
        Echo()


def test_an_abstract_method_that_is_not_remote_is_an_interface_error():
    """A proxy could not have it: said when the interface is first used."""

    class Half(cm.Interface):
        @cm.method
        def remote(self) -> None: ...

        @abc.abstractmethod
        def local(self) -> None: ...

    with _serve(EchoServer()) as proxy, pytest.raises(cm.InterfaceError, match=r"Half: local abstract"):
        cm.capability(proxy).cast(Half)


@pytest.mark.parametrize(
    "wrong", [int, object, Echo.echo, EchoServer(), "Echo", None, cm.Capability, io.BufferedReader]
)
def test_cast_takes_an_interface(wrong):
    """Anything else is a TypeError that says so."""
    with _serve(EchoServer()) as proxy, pytest.raises(TypeError, match="cast to an Interface"):
        cm.capability(proxy).cast(wrong)


def test_cast_to_another_interface_shows_at_the_first_call():
    """Nothing is sent by cast(); the server then knows no such method."""

    class Other(cm.Interface):
        @cm.method
        def other(self) -> None: ...

    with _serve(EchoServer()) as proxy:
        other = cm.capability(proxy).cast(Other)
        with pytest.raises(cm.UnknownMethod, match=r"EchoServer has no remote method 'other'") as caught:
            other.other()
        assert str(caught.value).startswith("test_cast_to_another_interface_shows_at_the_first_call.")
        assert "Other.other, entrypoint 'test': EchoServer" in str(caught.value)
        assert str(caught.value).endswith(": the server may be older, or another")
        assert other == proxy


# ------------------------------------------------------------------------------------------------- signatures


class Signatures(cm.Interface):
    @cm.method
    def many(self, a: int, /, b: int, c: int = 3, *, d: int, e: int = 5) -> list[int]:
        """All kinds of parameters."""

    @cm.method
    def only(self, a: int, b: int = 2, /) -> list[int]: ...
    @cm.method
    def keyword(self, *, a: int = 1, b: int) -> list[int]: ...
    @cm.method
    def nothing(self) -> None: ...
    @cm.method
    def mangled(self, __x: int, class_: int = 0) -> list[int]: ...  # noqa: PYI063
    @cm.method
    def renamed(this, self: int, proxy: int, called: int, arguments: int) -> list[int]: ...  # noqa: N805
    @cm.method
    def defaults(self, a: list[int] = [1], b: dict[str, int] = {}, c: str | None = None) -> list[Any]: ...  # noqa: B006


class SignaturesServer(Signatures):
    def many(self, a: int, /, b: int, c: int = 33, *, d: int, e: int = 55) -> list[int]:
        return [a, b, c, d, e]

    def only(self, a: int, b: int = 22, /) -> list[int]:
        return [a, b]

    def keyword(self, *, a: int = 11, b: int) -> list[int]:
        return [a, b]

    def nothing(self) -> None:
        return None

    def mangled(self, __x: int, class_: int = 0) -> list[int]:  # noqa: PYI063
        return [__x, class_]

    def renamed(this, self: int, proxy: int, called: int, arguments: int) -> list[int]:  # noqa: N805
        return [self, proxy, called, arguments]

    def defaults(self, a: list[int] = [2], b: dict[str, int] = {}, c: str | None = "") -> list[Any]:  # noqa: B006
        return [a, b, c]


def test_every_kind_of_parameter_arrives_in_its_place():
    """Positional-only, either, with defaults, keyword-only; what is not given is the server's own default."""
    with _serve(SignaturesServer()) as proxy:
        assert proxy.many(1, 2, d=4) == [1, 2, 33, 4, 55]
        assert proxy.many(1, b=2, c=30, d=4, e=50) == [1, 2, 30, 4, 50]
        assert proxy.only(1) == [1, 22]
        assert proxy.only(1, 7) == [1, 7]
        assert proxy.keyword(b=9) == [11, 9]
        assert proxy.nothing() is None
        assert proxy.mangled(1) == [1, 0]
        assert proxy.renamed(1, 2, 3, 4) == [1, 2, 3, 4]
        assert proxy.defaults() == [[2], {}, ""]
        assert proxy.defaults([1], c=None) == [[1], {}, None]


@given(
    st.sampled_from(["many", "only", "keyword", "nothing"]),
    st.lists(st.integers(0, 9), max_size=4),
    st.dictionaries(st.sampled_from("abcdefx"), st.integers(0, 9), max_size=4),
)
def test_arguments_are_bound_by_python_itself(name, positional, keywords):
    """Too many, missing or unknown ones are the TypeError that the declared function raises, and nothing is sent."""
    declared = inspect.signature(getattr(Signatures, name))
    proxy = _offline(Signatures)
    try:
        declared.bind(None, *positional, **keywords)
    except TypeError:
        with pytest.raises(TypeError) as local:
            getattr(Signatures, name)(None, *positional, **keywords)
        with pytest.raises(TypeError) as remote:
            getattr(proxy, name)(*positional, **keywords)
        assert str(remote.value) == str(local.value)
        assert not isinstance(remote.value, cm.Error)
    else:
        with pytest.raises(cm.Disconnected):
            getattr(proxy, name)(*positional, **keywords)


def _offline(interface):
    """A proxy whose server is gone: whatever would be sent is Disconnected."""
    entrypoint = cm.Entrypoint("gone")
    capability = entrypoint.manage(EchoServer())
    entrypoint.close()
    return capability.cast(interface)


def test_a_proxy_has_the_signature_and_the_docstring_of_the_declared_method():
    """help(), an editor and a checker see what the interface says."""
    proxy = _offline(Signatures)
    for name in ("many", "only", "keyword", "mangled", "defaults"):
        declared = getattr(Signatures, name)
        assert inspect.signature(getattr(proxy, name)) == inspect.signature(declared.__get__(object()))
        assert getattr(proxy, name).__doc__ == declared.__doc__
        assert getattr(proxy, name).__name__ == name
        assert getattr(proxy, name).__qualname__ == f"Signatures.{name}"
        assert getattr(proxy, name).__module__ == __name__
        assert typing.get_type_hints(getattr(proxy, name)) == typing.get_type_hints(declared)


class Base(cm.Interface):
    @cm.method
    def first(self) -> str: ...
    @cm.method
    def second(self, value: int) -> str: ...


class Derived(Base):
    @cm.method
    def second(self, value: int | str) -> str: ...
    @cm.method
    def third(self) -> str: ...


class Mixed(Derived, Echo):
    pass


class MixedServer(Mixed):
    def first(self) -> str:
        return "first"

    def second(self, value: int | str) -> str:
        return f"second {value}"

    def third(self) -> str:
        return "third"

    def echo(self, value: Any) -> Any:
        return value


def test_interfaces_inherit_and_override():
    """A proxy of each of the interfaces has its methods; an overriding declaration is the one that counts."""
    with _serve(MixedServer(), interface=Mixed) as proxy:
        assert [proxy.first(), proxy.second("x"), proxy.third(), proxy.echo(1)] == ["first", "second x", "third", 1]
        base = cm.capability(proxy).cast(Base)
        assert not hasattr(base, "third")
        assert base.first() == "first"
        assert cm.capability(proxy).cast(Derived).second("x") == "second x"
        assert cm.capability(proxy).cast(Echo).echo(1) == 1


def test_what_the_server_accepts_is_what_its_own_interface_says():
    """A proxy of the wider interface is refused by a server of the narrower one."""

    class BaseServer(Base):
        def first(self) -> str:
            return "first"

        def second(self, value: int) -> str:
            return "second"

    with _serve(BaseServer(), interface=Derived) as proxy:
        with pytest.raises(cm.ArgumentError, match=r"Base\.second, arguments: .*`value`"):
            proxy.second("x")
        with pytest.raises(cm.UnknownMethod):
            proxy.third()


def test_annotations_may_be_strings(monkeypatch):
    """As with ``from __future__ import annotations``, and they may name what is defined later."""
    module = types.ModuleType("strings")
    monkeypatch.setitem(sys.modules, "strings", module)
    source = """
        from __future__ import annotations
        import io, dataclasses, capmarshal as cm
        from typing import Optional

        class Strings(cm.Interface):
            @cm.method
            def read(self, file: io.BufferedReader, box: Box) -> Optional[Box]: ...
            @cm.method
            def me(self, other: Strings | None = None) -> Strings | None: ...

        @dataclasses.dataclass
        class Box:
            inner: Box | None
            of: Strings | None

        class Server(Strings):
            def read(self, file: io.BufferedReader, box: Box) -> Optional[Box]:
                return Box(box, self) if file.read() else None

            def me(self, other: Strings | None = None) -> Strings | None:
                return other
    """
    exec(compile(textwrap.dedent(source), "strings", "exec", dont_inherit=True), vars(module))
    with _serve(module.Server()) as proxy, _memory_file(b"x") as file:
        box = proxy.read(file, module.Box(None, proxy))
        assert box == module.Box(module.Box(None, proxy), proxy)
        assert proxy.me(proxy) == proxy
        assert proxy.me() is None
        assert typing.get_type_hints(proxy.me)["return"] == module.Strings | None


# ------------------------------------------------------------------------- capabilities as arguments and results


@dataclasses.dataclass
class Box:
    of: Echo
    name: str = ""


class Parcel(msgspec.Struct):
    of: Echo | None
    untyped: cm.Capability | None = None


class Carrier(cm.Interface):
    """Takes capabilities in every way, and gives them back."""

    @cm.method
    def plain(self, one: Echo) -> Echo: ...
    @cm.method
    def optional(self, one: Echo | None = None) -> Echo | None: ...
    @cm.method
    def several(self, those: list[Echo]) -> list[Echo]: ...
    @cm.method
    def named(self, those: dict[str, Echo]) -> dict[str, Echo]: ...
    @cm.method
    def box(self, box: Box) -> Box: ...
    @cm.method
    def parcel(self, parcel: Parcel) -> Parcel: ...
    @cm.method
    def pair(self, pair: tuple[Echo, int]) -> tuple[Echo, int]: ...
    @cm.method
    def untyped(self, one: cm.Capability) -> cm.Capability: ...
    @cm.method
    def annotated(self, one: Annotated[Echo, "a note"]) -> Annotated[Echo, "a note"]: ...
    @cm.method
    def ask(self, one: Echo, value: int) -> int: ...


class CarrierServer(Carrier):
    def __init__(self):
        self.saw = []

    def _same(self, value):
        self.saw.append(value)
        return value

    plain = several = named = box = parcel = pair = untyped = annotated = _same

    def optional(self, one: Echo | None = None) -> Echo | None:
        return self._same(one)

    def ask(self, one: Echo, value: int) -> int:
        return one.echo(value)


@pytest.mark.parametrize("of", ["proxy", "managed object"])
@pytest.mark.parametrize("home", ["the same entrypoint", "another entrypoint"])
def test_an_interface_in_an_annotation_takes_a_proxy_or_a_managed_object(of, home):
    """In lists, dicts, dataclasses, Structs, tuples: what comes back is a proxy of the same capability."""
    target, carrier = EchoServer(), CarrierServer()
    with cm.Entrypoint("one") as one, cm.Entrypoint("two") as two, cm.timeout(PATIENCE):
        capability = (one if home == "the same entrypoint" else two).manage(target)
        proxy = one.manage(carrier).cast(Carrier)
        thing = capability.cast(Echo) if of == "proxy" else target
        expected = capability.cast(Echo)
        assert proxy.plain(thing) == expected
        # In the handler of its own entrypoint it is the object itself.
        assert (carrier.saw[-1] is target) == (home == "the same entrypoint")
        assert proxy.optional(thing) == expected
        assert proxy.optional(None) is None
        assert proxy.optional() is None
        assert proxy.several([thing, thing]) == [expected, expected]
        assert proxy.several([]) == []
        assert proxy.named({"x": thing}) == {"x": expected}
        assert proxy.box(Box(thing, "name")) == Box(expected, "name")
        assert proxy.parcel(Parcel(thing)) == Parcel(expected)
        assert proxy.parcel(Parcel(None)) == Parcel(None)
        assert proxy.parcel(Parcel(None, capability)).untyped is capability
        assert proxy.pair((thing, 7)) == (expected, 7)
        assert proxy.untyped(thing) is capability
        assert proxy.untyped(capability) is capability
        assert proxy.annotated(thing) == expected
        assert proxy.ask(thing, 7) == 7
        assert proxy.ask(capability, 7) == 7
        carrier.saw.clear()


@pytest.mark.parametrize("place", ["plain", "several", "named", "box", "parcel"])
def test_an_unmanaged_object_is_a_type_error_that_says_to_manage_it(place):
    """And which parameter it was given for."""
    target = EchoServer()
    value = {
        "plain": target,
        "several": [target],
        "named": {"x": target},
        "box": Box(target),
        "parcel": Parcel(target),
    }[place]
    with pytest.raises(TypeError, match=rf"Carrier\.{place}, argument `.*EchoServer.*not managed.*manage\(\)"):
        getattr(_offline(Carrier), place)(value)


def test_a_capability_where_data_are_due_is_refused():
    """Its index in the table would pass for an int; the server sees neither."""

    class Counter(cm.Interface):
        @cm.method
        def count(self, number: int) -> int: ...

    class CounterServer(Counter):
        def count(self, number: int) -> int:
            return number

    with _serve(CounterServer()) as proxy:
        with pytest.raises(cm.ArgumentError, match=r"Counter\.count"):
            proxy.count(proxy)
        assert proxy.count(3) == 3


def test_capability_gives_the_untyped_one():
    """Of a proxy or a managed object; of anything else it is a TypeError."""
    target = EchoServer()
    with pytest.raises(TypeError, match="not managed"):
        cm.capability(target)
    with cm.Entrypoint("test") as entrypoint:
        capability = entrypoint.manage(target)
        assert cm.capability(target) is capability
        assert cm.capability(capability.cast(Echo)) is capability
        assert capability.local is target
    for wrong in (1, None, Echo, object()):
        with pytest.raises(TypeError, match="capability"):
            cm.capability(wrong)


def test_what_is_managed_is_a_servers_object():
    """A proxy, a capability, data or a class are refused."""
    with _serve(EchoServer()) as proxy, cm.Entrypoint("test") as entrypoint:
        for wrong in (proxy, cm.capability(proxy), 1, None, Echo, EchoServer):
            with pytest.raises(TypeError, match="server's object"):
                entrypoint.manage(wrong)


# -------------------------------------------------------------------------------------------------- proxies


def test_proxies_compare_and_hash_by_capability():
    """Two casts of one capability are equal, whatever the interface; of another they are not."""
    with _serve(EchoServer(), EchoServer()) as (one, other):
        again = cm.capability(one).cast(Echo)
        assert one is not again
        assert one == again
        assert hash(one) == hash(again)
        assert one != other
        assert one != cm.capability(one)
        assert one != 1
        assert {one, again, other} == {one, other}


def test_a_proxy_is_an_instance_of_its_interface():
    """Of its bases too, and of nothing else; it is nobody's server."""
    with _serve(MixedServer(), interface=Mixed) as proxy:
        assert isinstance(proxy, Mixed)
        assert isinstance(proxy, Base)
        assert isinstance(proxy, Echo)
        assert isinstance(proxy, cm.Interface)
        assert not isinstance(proxy, MixedServer)
        assert type(proxy).__name__ == "Mixed"
        assert type(proxy).__module__ == __name__


def test_the_repr_of_a_proxy_says_what_it_calls():
    """Interface and entrypoint; not the badge."""
    with _serve(EchoServer()) as proxy:
        assert repr(proxy).startswith("<Echo proxy of <Capability test ")
        assert badge_of(cm.capability(proxy)).hex() not in repr(proxy)


def test_helper_methods_of_the_interface_work_on_a_proxy():
    """They run at the caller and may call; class attributes and properties are there too."""
    with _serve(EchoServer()) as proxy:
        assert proxy.twice(7) == [7, 7]
        assert proxy.shorthand == "shorthand"
        assert proxy.kind == "echo"


def test_proxy_classes_are_made_once():
    """Casting again costs no new class."""
    with _serve(EchoServer()) as proxy:
        assert type(cm.capability(proxy).cast(Echo)) is type(proxy)


# --------------------------------------------------------------------------------- interfaces that cannot work


def _with_method(**namespace):
    """An interface of one remote method, m."""
    return type("Broken", (cm.Interface,), {"m": cm.method(namespace.pop("m")), **namespace})


class Foreign:
    """A class that nobody knows how to send."""


def _untyped(self, x) -> None: ...
def _no_result(self, x: int): ...
def _arguments(self, *x: int) -> None: ...
def _keywords(self, **x: int) -> None: ...
def _everything(*x: int) -> None: ...
def _no_self() -> None: ...
def _only_keyword(*, x: int) -> None: ...
async def _generator(self) -> int:
    yield 1


def _foreign(self, x: Foreign) -> None: ...
def _foreign_inside(self, x: dict[str, list[Foreign]]) -> None: ...
def _foreign_result(self) -> Foreign: ...
def _union(self, x: Echo | int) -> None: ...
def _union_of_two(self, x: Echo | Base) -> None: ...
def _union_inside(self, x: list[Echo | str]) -> None: ...
def _union_with_none(self, x: Echo | int | None) -> None: ...
def _union_of_files(self, x: io.BufferedReader | socket.socket) -> None: ...
def _union_of_capabilities(self, x: cm.Capability | bytes) -> None: ...
def _union_result(self) -> Echo | int: ...
def _unknown(self, x: "Nowhere") -> None: ...  # noqa: F821
def _any_file(self, x: typing.IO[bytes]) -> None: ...
def _text_file(self, x: io.TextIOWrapper) -> None: ...
def _memory(self, x: io.BytesIO) -> None: ...
def _callable(self, x: Callable[[], None]) -> None: ...
def _no_type(self, x: 5) -> None: ...  # a value where a type is due
def _complex(self, x: complex) -> None: ...


@dataclasses.dataclass
class Unresolved:
    x: "Nowhere"  # noqa: F821


def _unresolved_inside(self, x: Unresolved) -> None: ...


BROKEN = [
    (_untyped, "parameter x has no annotation"),
    (_no_result, "-> None"),
    (_arguments, "take a list"),
    (_keywords, "take a list or a dict"),
    (_everything, "self"),
    (_no_self, "self"),
    (_only_keyword, "self"),
    (_generator, "async generators"),
    (_foreign, "Foreign"),
    (_foreign_inside, "Foreign"),
    (_foreign_result, "result.*Foreign"),
    (_union, "[Uu]nion"),
    (_union_of_two, "[Uu]nion"),
    (_union_inside, "[Uu]nion"),
    (_union_with_none, "[Uu]nion"),
    (_union_of_files, "[Uu]nion"),
    (_union_of_capabilities, "[Uu]nion"),
    (_union_result, "result.*[Uu]nion"),
    (_unknown, "Nowhere"),
    (_unresolved_inside, "Nowhere"),
    (_any_file, "IO"),
    (_text_file, "TextIOWrapper"),
    (_memory, "BytesIO"),
    (_callable, "allable"),
    (_no_type, "m"),
    (_complex, "complex"),
]


@pytest.mark.parametrize(("function", "why"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_an_interface_that_cannot_work_says_so_when_it_is_first_used(function, why):
    """InterfaceError, from cast() and from manage(), that names the method; the class itself can be made."""
    broken = _with_method(m=function)
    server = type("Server", (broken,), {"m": lambda self: None})
    capability = cm.capability(_offline(Echo))
    for _ in range(2):
        with pytest.raises(cm.InterfaceError, match=rf"Broken\.m\b.*{why}"):
            capability.cast(broken)
    with cm.Entrypoint("test") as entrypoint, pytest.raises(cm.InterfaceError, match=rf"Broken\.m\b.*{why}"):
        entrypoint.manage(server())


@pytest.mark.parametrize(
    "wrong", [staticmethod(_no_self), classmethod(_untyped), property(_untyped), functools.partial(_foreign, x=1), int]
)
def test_only_a_plain_function_is_declared_as_a_method(wrong):
    """Anything else is refused where it is declared; @cm.method stands closest to the function."""
    with pytest.raises(cm.InterfaceError, match="plain function"):
        cm.method(wrong)


def test_a_decorator_on_top_must_leave_a_function():
    """One that keeps a function's marks, and makes it something else, is refused at first use."""

    class Cached(cm.Interface):
        m = functools.cache(cm.method(_foreign_result))

    with pytest.raises(cm.InterfaceError, match=r"Cached\.m.*plain function"):
        cm.capability(_offline(Echo)).cast(Cached)


def test_a_method_cannot_have_a_name_that_proxies_need():
    """It would make the proxies of that interface useless."""
    with pytest.raises(cm.InterfaceError, match=r"Broken\._capability"):
        type("Broken", (cm.Interface,), {"_capability": cm.method(lambda self: None)})


def test_optional_is_the_one_union_that_is_allowed():
    """X | None of each that stands for a capability or a descriptor; unions of data are msgspec's business."""

    class Allowed(cm.Interface):
        @cm.method
        def m(
            self,
            a: Echo | None,
            b: cm.Capability | None,
            c: Optional[io.BufferedReader],  # noqa: UP045 - as older code writes it
            d: None | socket.socket,  # noqa: RUF036 - as some write it
            e: list[cm.Descriptor | None] | None,
            f: int | str | None,
        ) -> Echo | None: ...

    assert _offline(Allowed)


@pytest.mark.parametrize("container", [dict, list, tuple, set, frozenset, str, bytes, int, collections.OrderedDict])
def test_a_container_cannot_be_an_interface(container):
    """msgspec would send its contents where the capability is meant."""
    with pytest.raises(cm.InterfaceError, match="container"):
        type("Wrong", (Echo, container), {})


def test_a_dataclass_cannot_be_an_interface():
    """Nor a server's class, made so or inherited."""
    with pytest.raises(cm.InterfaceError, match="dataclass"):

        @dataclasses.dataclass
        class Wrong(Echo):
            x: int = 0

    with pytest.raises(cm.InterfaceError, match="dataclass"):
        dataclasses.dataclass(slots=True)(type("Wrong", (EchoServer,), {"__annotations__": {"x": int}, "x": 0}))

    @dataclasses.dataclass
    class Data:
        x: int = 0

    with pytest.raises(cm.InterfaceError, match="dataclass"):
        type("Wrong", (Data, Echo), {})


def test_an_attrs_class_cannot_be_an_interface():
    """By its mark, set on the class, in its body (as with slots), or inherited."""

    class Plain(Echo):
        pass

    with pytest.raises(cm.InterfaceError, match="attrs"):
        Plain.__attrs_attrs__ = ()
    with pytest.raises(cm.InterfaceError, match="attrs"):
        type("Wrong", (Echo,), {"__attrs_attrs__": ()})
    with pytest.raises(cm.InterfaceError, match="attrs"):
        type("Wrong", (type("Data", (), {"__attrs_attrs__": ()}), Echo), {})


def test_a_struct_cannot_be_an_interface():
    """Their metaclasses do not even mix."""
    with pytest.raises(TypeError):
        type("Wrong", (Echo, msgspec.Struct), {})


@pytest.mark.parametrize("wrong", [KeyError("x"), BaseException, KeyboardInterrupt, int, "KeyError", None])
def test_raises_takes_exception_classes(wrong):
    """Of those that ``except Exception`` catches."""
    with pytest.raises(TypeError, match="exception classes"):
        cm.raises(KeyError, wrong)


def test_a_generic_interface_is_cast_as_such():
    """A type variable in an annotation is any data."""
    T = TypeVar("T")

    class Store(cm.Interface, Generic[T]):
        @cm.method
        def get(self, default: T) -> T: ...

    class StoreServer(Store[int]):
        def get(self, default: int) -> int:
            return default

    with _serve(StoreServer(), interface=Store) as proxy:
        assert proxy.get(7) == 7


# ---------------------------------------------------------------------------------------- the annotations check


class Colour(enum.Enum):
    RED = "red"


class Checked(cm.Interface):
    @cm.method
    def take(self, number: int, words: list[str], *, colour: Colour = Colour.RED, box: Box | None = None) -> str: ...
    @cm.method
    def liar(self, what: str) -> int: ...


class CheckedServer(Checked):
    def take(self, number: int, words: list[str], *, colour: Colour = Colour.RED, box: Box | None = None) -> str:
        return f"{number} {words} {colour}"

    def liar(self, what: str) -> int:
        closed = cm.Descriptor(os.memfd_create("test"))
        closed.close()
        return {"str": "x", "float": 1.5, "none": None, "object": object(), "closed": closed, "self": self}[what]


def test_every_annotation_is_decoded_as_what_it_says():
    """An Enum arrives as an Enum."""
    with _serve(CheckedServer()) as proxy:
        assert proxy.take(1, ["x"]) == "1 ['x'] Colour.RED"


@pytest.mark.parametrize(
    ("arguments", "keywords", "parameter"),
    [
        (("1", []), {}, "number"),
        ((1.5, []), {}, "number"),
        ((True, []), {}, "number"),
        ((None, []), {}, "number"),
        ((1, "x"), {}, "words"),
        ((1, [1]), {}, r"words\[0\]"),
        ((1, ["x", None]), {}, r"words\[1\]"),
        ((1, []), {"colour": "blue"}, "colour"),
        ((1, []), {"box": {"of": 9, "name": ""}}, r"box\.of"),
        ((1, []), {"box": {}}, "box"),
    ],
)
def test_an_argument_of_the_wrong_type_is_refused_by_the_server(arguments, keywords, parameter):
    """ArgumentError with method, parameter and the place within; the server's method never sees it."""
    with _serve(CheckedServer()) as proxy:
        with pytest.raises(cm.ArgumentError, match=rf"^Checked\.take, argument.*: .*`{parameter}`$"):
            proxy.take(*arguments, **keywords)
        assert proxy.take(1, [])


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ([1], "`words` missing, for which the server has no default"),
        ([], "`number`, `words` missing"),
        ({}, "`number`, `words` missing"),
        ({"": [1], "colour": "red"}, "`words` missing"),
        ([1, [], "red"], "3 came by position, and the server knows 2"),
        ({"": [1, []], "other": 1}, "the server knows no parameter 'other' that is given by name"),
        ({"": [1, []], "colour": 1}, "- at `colour`"),
        ({"": [1, []], "colour": "green"}, "- at `colour`"),
        ({"": [1, [[]]]}, "- at `words[0]`"),
        ({"": 1}, "Expected `array`"),
        ({1: 1}, "Expected `str`"),
        (1, "Expected `array`"),
        (None, "Expected `array`"),
        (b"", "Expected `array`"),
    ],
    ids=str,
)
def test_the_wrong_arguments_from_a_remote_are_refused(payload, words):
    """A client without our proxies can send anything: it is answered, and the server goes on."""
    with _serve(CheckedServer()) as proxy:
        error = _raw_call(cm.capability(proxy), b"take", msgspec.msgpack.encode(payload))
        assert type(error) is cm.ArgumentError
        assert str(error).startswith("Checked.take, arguments: ")
        assert words in str(error)
        assert proxy.take(1, [])


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=30), min_size=1, max_size=10))
def test_any_payload_at_all_is_answered(payloads):
    """And the server goes on."""
    with _serve(CheckedServer()) as proxy:
        for payload in payloads:
            error = _raw_call(cm.capability(proxy), b"take", payload)
            assert isinstance(error, (cm.ArgumentError, str))
        assert proxy.take(1, [])


@pytest.mark.parametrize("what", ["str", "float", "none"])
def test_results_are_checked_too(what):
    """What the server says is a claim: the client gets what the interface promises, or an ArgumentError."""
    with (
        _serve(CheckedServer()) as proxy,
        pytest.raises(cm.ArgumentError, match=r"^Checked\.liar, result: Expected `int`"),
    ):
        proxy.liar(what)


@pytest.mark.parametrize("what", ["str", "float", "none"])
def test_a_result_that_is_not_what_the_interface_says_is_in_the_servers_log(what, log):
    """Who has written the method is not who calls it."""
    with _serve(CheckedServer()) as proxy:
        for _ in range(3):
            with pytest.raises(cm.ArgumentError, match=r"^Checked\.liar, result: Expected `int`"):
                proxy.liar(what)
    whom = f"process {os.getpid()} (user {os.getuid()})"
    (line,) = [message for _, message, _ in log]
    said = "Checked.liar returned what its interface does not say: Expected `int`, got `"
    assert line.startswith(f"test: {whom}: {said}")


@dataclasses.dataclass
class Size:
    width: int


class Silent(cm.Interface):
    @cm.method
    def hush(self, what: str | None) -> None: ...
    @cm.method
    def quiet(self, what: None) -> None: ...
    @cm.method
    def counts(self, size: Size) -> dict[str, int]: ...


class SilentServer(Silent):
    def hush(self, what):
        return cm.Descriptor(os.memfd_create("test")) if what == "open" else what

    def counts(self, size):
        return [1]

    def quiet(self, what):
        raise AssertionError


def test_none_is_called_so_and_not_as_json_has_it(log):
    """Of a method that is to return nothing, and does, it is said how it is declared: to its caller, and in the log."""
    words = "Expected `None`, got `str`: it is declared -> None"
    with _serve(SilentServer()) as proxy:
        proxy.hush(None)
        with pytest.raises(cm.ArgumentError, match=f"^Silent.hush, result: {words}\n"):
            proxy.hush("null")
        with pytest.raises(cm.ArgumentError, match=r"^Silent.quiet, arguments: Expected `None`, got `str` - at `what`"):
            proxy.quiet("null")
        with pytest.raises(cm.ArgumentError, match=r"arguments: Expected `str \| None`, got `int` - at `what`$"):
            proxy.hush(1)
        with pytest.raises(cm.RemoteError, match=r"Silent\.hush, result: .* where None is due"):
            proxy.hush("open")
    told = [message.partition("Silent.")[2] for _, message, _ in log]
    assert told == [f"hush returned what its interface does not say: {words}", "hush raised"]


def test_a_record_is_not_called_an_object():
    """Which is JSON's word for it, and to Python anything is one."""
    with _serve(SilentServer()) as proxy:
        with pytest.raises(cm.ArgumentError, match="Expected `record or dict`, got `int` - at `size`"):
            proxy.counts(5)
        with pytest.raises(cm.ArgumentError, match="result: Expected `record or dict`, got `array`"):
            proxy.counts(Size(1))


class Found(cm.Interface):
    @cm.method
    def found(self, what: str) -> Sequence[int] | None: ...


class FoundServer(Found):
    def found(self, what):
        return {"none": None, "list": [1], "tuple": (1, 2), "words": ["x"], "text": "x"}[what]


def test_a_result_is_looked_at_where_it_is_of_a_new_class(log):
    """Of a good one of a class those that come later are not: they cost nothing, and their clients look at them."""
    method = methods_of(FoundServer)[b"found"]
    with _serve(FoundServer()) as proxy:
        assert [proxy.found(what) for what in ("none", "list", "tuple", "none")] == [None, [1], [1, 2], None]
        assert method.known_results == {type(None), list, tuple}
        assert not log
        for what in ("words", "text", "text"):
            with pytest.raises(cm.ArgumentError, match=r"result: Expected"):
                proxy.found(what)
    assert method.known_results == {type(None), list, tuple}
    assert [message.partition("returned ")[2] for _, message, _ in log] == [
        "what its interface does not say: Expected `array | None`, got `str`"
    ]


@pytest.mark.parametrize("what", ["object", "closed"])
def test_a_result_that_cannot_be_sent_is_the_servers_error(what, log):
    """The client learns that it is not its own fault, the server logs it, and goes on."""
    with _serve(CheckedServer()) as proxy:
        with pytest.raises(cm.RemoteError, match=r"Checked\.liar, result: "):
            proxy.liar(what)
        assert proxy.take(1, [])
    whom = f"process {os.getpid()} (user {os.getuid()})"
    assert [message for _, message, _ in log] == [f"test: {whom}: Checked.liar raised"]


def test_a_capability_as_result_where_data_are_due_is_refused(log):
    """As among the arguments, by its sender; the error is the server's own."""
    with _serve(CheckedServer()) as proxy, pytest.raises(cm.RemoteError, match=r"Checked\.liar, result: .* int is due"):
        proxy.liar("self")
    assert "where int is due" in log[0][2]


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ((object(), []), "number"),
        ((1, [object()]), "words"),
        ((1, []), None),
        ((1j, []), "number"),
        ((2**64, []), "number"),
        ((1, ["\udcff"]), "words"),
        ((Foreign(), []), "number"),
    ],
)
def test_an_argument_that_cannot_be_sent_names_the_parameter(arguments, parameter):
    """ArgumentError before anything is sent."""
    proxy = _offline(Checked)
    if parameter is None:
        with pytest.raises(cm.Disconnected):
            proxy.take(*arguments)
        return
    with pytest.raises(cm.ArgumentError, match=rf"^Checked\.take, argument `{parameter}`: "):
        proxy.take(*arguments)


# -------------------------------------------------------------------------------------------------- errors


class OwnError(Exception):
    pass


class OwnLookup(OwnError, KeyError):
    pass


class Demanding(Exception):
    """Its __init__ wants something else than its args."""

    def __init__(self, *, reason):
        super().__init__(f"because of {reason}")
        self.reason = reason


class Failing(cm.Interface):
    @cm.method
    @cm.raises(OwnError, KeyError, OSError, Demanding)
    def fail(self, how: str) -> None: ...

    @cm.raises(ZeroDivisionError)
    @cm.method
    def divide(self, a: int, b: int) -> float: ...


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no text either")


ERRORS = {
    "own": lambda: OwnError("text", 7, [b"x"], None),
    "subclass": lambda: OwnLookup("text"),
    "key": lambda: KeyError("name"),
    "os": lambda: FileNotFoundError(2, "No such file or directory", "/secret/path"),
    "demanding": lambda: Demanding(reason="tests"),
    "unpicklable": lambda: OwnError(lambda: None),
    "undeclared": lambda: ValueError("some text"),
    "declared with a path": lambda: OSError(2, "No such file or directory", "/secret/path"),
    "speechless": Speechless,
    "surrogate": lambda: ValueError("\udcff"),
    "group": lambda: ExceptionGroup("several", [ValueError(1), KeyError(2)]),
}


class FailingServer(Failing):
    def fail(self, how: str) -> None:
        make = ERRORS[how]
        raise make()

    def divide(self, a: int, b: int) -> float:
        return a / b


@pytest.mark.parametrize(
    ("how", "kind", "args"),
    [
        ("own", OwnError, ("text", 7, [b"x"], None)),
        ("subclass", OwnError, ("text",)),
        ("key", KeyError, ("name",)),
        ("os", FileNotFoundError, (2, "No such file or directory")),
        ("declared with a path", FileNotFoundError, (2, "No such file or directory")),
        ("demanding", Demanding, ("because of tests",)),
    ],
)
def test_a_declared_error_arrives_as_itself_with_a_note(how, kind, args, log):
    """Class and args, and where it was raised; it is no surprise, so the server does not log it."""
    with _serve(FailingServer()) as proxy:
        with pytest.raises(kind) as caught:
            proxy.fail(how)
        assert type(caught.value) is kind
        assert caught.value.args == args
        assert caught.value.__notes__[-1] == "raised by the server, in Failing.fail, entrypoint 'test'"
        assert "secret" not in str(caught.value)
        with pytest.raises(ZeroDivisionError):
            proxy.divide(1, 0)
        assert proxy.divide(1, 2) == 0.5
    assert not log


def test_a_declared_error_whose_args_cannot_travel_arrives_with_its_text():
    """The class is what the interface promises."""
    with _serve(FailingServer()) as proxy, pytest.raises(OwnError, match="lambda"):
        proxy.fail("unpicklable")


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("undeclared", "ValueError", "some text"),
        ("speechless", "Speechless", "cannot be had"),
        ("surrogate", "ValueError", "udcff"),
        ("group", "ExceptionGroup", "several"),
    ],
)
def test_an_undeclared_error_arrives_as_type_and_message_and_is_logged(how, kind, message, log):
    """No traceback and no path of the server's reaches the client; the server's log has both; and it goes on."""
    with _serve(FailingServer()) as proxy:
        with pytest.raises(cm.RemoteError) as caught:
            proxy.fail(how)
        assert caught.value.type == kind
        assert message in caught.value.message
        assert caught.value.__cause__ is None
        assert "Traceback" not in str(caught.value)
        assert __file__ not in str(caught.value)
        assert proxy.divide(1, 2) == 0.5
    ((level, text, everything),) = log
    # With its traceback, where its text is not printable.
    first = text.partition("\n")[0]
    assert (level, first) == ("ERROR", f"test: process {os.getpid()} (user {os.getuid()}): Failing.fail raised")
    assert "Traceback" in everything
    assert "raise make()" in everything
    assert kind in everything


def test_the_text_of_an_undeclared_oserror_has_no_path(log):
    """The path is the server's own affair."""

    class Undeclared(cm.Interface):
        @cm.method
        def open(self) -> None: ...

    class UndeclaredServer(Undeclared):
        def open(self) -> None:
            raise NotADirectoryError(20, "Not a directory", "/secret/path")

    with _serve(UndeclaredServer()) as proxy, pytest.raises(cm.RemoteError) as caught:
        proxy.open()
    assert str(caught.value) == "NotADirectoryError: [Errno 20] Not a directory"
    assert "/secret/path" in log[0][2]


# ------------------------------------------------------------------------------------- files, sockets, descriptors


def _memory_file(content=b""):
    """A file in memory, open for both, at its start."""
    file = os.fdopen(os.memfd_create("test"), "w+b")
    file.write(content)
    file.seek(0)
    return file


class Files(cm.Interface):
    @cm.method
    def read(self, file: io.BufferedReader) -> bytes: ...
    @cm.method
    def write(self, file: io.BufferedWriter, data: bytes) -> None: ...
    @cm.method
    def say(self, sock: socket.socket, data: bytes) -> str: ...
    @cm.method
    def identity(self, file: cm.Descriptor) -> tuple[int, int]: ...
    @cm.method
    def maybe(self, file: io.BufferedReader | None = None) -> bytes | None: ...
    @cm.method
    def copy(self, source: io.BufferedReader, *, target: io.BufferedWriter) -> int: ...
    @cm.method
    def reader(self) -> io.BufferedReader: ...
    @cm.method
    def pipe(self) -> tuple[io.BufferedReader, io.BufferedWriter]: ...
    @cm.method
    def sockets(self) -> dict[str, socket.socket]: ...
    @cm.method
    def mixed(self, file: cm.Descriptor, echo: Echo, other: cm.Descriptor) -> tuple[cm.Descriptor, Echo]: ...


class FilesServer(Files):
    def read(self, file: io.BufferedReader) -> bytes:
        assert type(file) is io.BufferedReader
        return file.read()

    def write(self, file: io.BufferedWriter, data: bytes) -> None:
        assert type(file) is io.BufferedWriter
        file.write(data)

    def say(self, sock: socket.socket, data: bytes) -> str:
        sock.sendall(data)
        return repr(sock.family)

    def identity(self, file: cm.Descriptor) -> tuple[int, int]:
        status = os.fstat(file.fileno())
        return status.st_dev, status.st_ino

    def maybe(self, file: io.BufferedReader | None = None) -> bytes | None:
        return None if file is None else file.read()

    def copy(self, source: io.BufferedReader, *, target: io.BufferedWriter) -> int:
        return target.write(source.read())

    def reader(self) -> io.BufferedReader:
        return _memory_file(b"from the server")

    def pipe(self) -> tuple[io.BufferedReader, io.BufferedWriter]:
        read_end, write_end = os.pipe()
        return os.fdopen(read_end, "rb"), os.fdopen(write_end, "wb")

    def sockets(self) -> dict[str, socket.socket]:
        return dict(zip(("here", "there"), socket.socketpair(), strict=True))

    def mixed(self, file: cm.Descriptor, echo: Echo, other: cm.Descriptor) -> tuple[cm.Descriptor, Echo]:
        return other, echo


CONTENT = b"first line\nsecond line\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("mode", ["rb", "r", "r+b", "r+", "a+b", "a+", "unbuffered"])
def test_a_file_open_for_reading_is_read_from_where_the_program_is(path, mode):
    """Whatever object holds it: the server reads on after the first line."""
    options = {"buffering": 0} if mode == "unbuffered" else {} if "b" in mode else {"encoding": "utf-8"}
    with _serve(FilesServer()) as proxy, path.open("rb" if mode == "unbuffered" else mode, **options) as file:
        file.seek(0)
        file.readline()
        assert proxy.read(file) == b"second line\n"
        assert not file.closed


@pytest.mark.parametrize("mode", ["wb", "w", "ab", "a", "r+b", "w+", "unbuffered"])
def test_a_file_open_for_writing_is_written_behind_what_the_program_wrote(path, mode):
    """Mine first, then the server's: all of it is in the file when the call returns."""
    options = {"buffering": 0} if mode == "unbuffered" else {} if "b" in mode else {"encoding": "utf-8"}
    with _serve(FilesServer()) as proxy, path.open("wb" if mode == "unbuffered" else mode, **options) as file:
        file.write("mine " if isinstance(file, io.TextIOBase) else b"mine ")
        proxy.write(file, b"theirs")
        assert b"mine theirs" in path.read_bytes()


@pytest.mark.parametrize(
    ("mode", "method", "word"), [("wb", "read", "reading"), ("ab", "read", "reading"), ("rb", "write", "writing")]
)
def test_a_file_in_the_wrong_mode_is_an_argument_error(path, mode, method, word):
    """It names method and argument, what is due, and what came."""
    arguments = (b"",) if method == "write" else ()
    with _serve(FilesServer()) as proxy, path.open(mode) as file:
        with pytest.raises(
            cm.ArgumentError,
            match=rf"^Files\.{method}, arguments: a file open for {word} is due; what came is .* - at `file`$",
        ):
            getattr(proxy, method)(file, *arguments)
        assert proxy.maybe() is None


def test_an_argument_by_keyword_is_named_too(path):
    """Of two files, the error says which."""
    wrong = pytest.raises(
        cm.ArgumentError, match=r"Files\.copy.*writing is due; what came is a file open for reading only - at `target`$"
    )
    with _serve(FilesServer()) as proxy, path.open("rb") as file, wrong:
        proxy.copy(file, target=file)


def test_a_socket_where_a_file_is_due_is_a_file_and_a_file_no_socket(path):
    """A socket can be read; but what is no socket is no socket.socket."""
    ours, theirs = socket.socketpair()
    with _serve(FilesServer()) as proxy, ours, theirs, path.open("rb") as file:
        ours.sendall(b"through")
        ours.shutdown(socket.SHUT_WR)
        assert proxy.read(theirs) == b"through"
        with pytest.raises(
            cm.ArgumentError, match=r"Files\.say, .*a socket is due; what came is a file .* - at `sock`"
        ):
            proxy.say(file, b"")


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_a_socket_arrives_as_a_socket(family):
    """With its family, and connected to what it was connected to."""
    with contextlib.ExitStack() as stack:
        if family == socket.AF_UNIX:
            ours, theirs = socket.socketpair()
        else:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ours = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
            theirs, _ = listener.accept()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        proxy = stack.enter_context(_serve(FilesServer()))
        assert proxy.say(theirs, b"hello") == repr(family)
        ours.settimeout(PATIENCE)
        assert ours.recv(100) == b"hello"


def test_pipes_and_anything_with_fileno_can_be_sent(path):
    """A pipe's end, an object that has nothing but fileno(), a Descriptor, standard streams of a child."""

    class Pathless:
        def __init__(self, number):
            self.number = number

        def fileno(self):
            return self.number

    read_end, write_end = os.pipe()
    with _serve(FilesServer()) as proxy, cm.Descriptor(read_end) as reader, cm.Descriptor(write_end) as writer:
        proxy.write(Pathless(writer.fileno()), b"through the pipe")
        writer.close()
        assert proxy.read(reader) == b"through the pipe"
        status = path.stat()
        with cm.Descriptor(os.open(path, os.O_PATH)) as handle:
            assert proxy.identity(handle) == (status.st_dev, status.st_ino)
        child = subprocess.Popen([sys.executable, "-c", "print('from the child')"], stdout=subprocess.PIPE)
        with child:
            assert proxy.read(child.stdout) == b"from the child\n"
            assert child.wait(PATIENCE) == 0


def test_files_are_results_too():
    """They are the caller's; the server keeps nothing of them, unless it says so."""
    with _serve(FilesServer()) as proxy:
        with proxy.reader() as file:
            assert file.read() == b"from the server"
        reader, writer = proxy.pipe()
        with reader:
            with writer:
                writer.write(b"round")
            assert reader.read() == b"round"
        sockets = proxy.sockets()
        with sockets["here"] as here, sockets["there"] as there:
            here.sendall(b"across")
            assert there.recv(100) == b"across"


def test_files_and_capabilities_mix_in_any_order(path):
    """A capability between two files: each arrives where it belongs."""
    target = EchoServer()
    with (
        cm.Entrypoint("other") as other,
        _serve(FilesServer()) as proxy,
        path.open("rb") as file,
        _memory_file() as last,
    ):
        echo = other.manage(target).cast(Echo)
        came, again = proxy.mixed(file, echo, last)
        with came:
            assert os.fstat(came.fileno()).st_ino == os.fstat(last.fileno()).st_ino
        assert again == echo


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.open("rb"),
        lambda path: path.open(encoding="utf-8"),
        lambda path: path.open("rb", buffering=0),
        lambda path: socket.socket(),
        lambda path: cm.Descriptor(os.open(path, os.O_RDONLY)),
    ],
    ids=["file", "text file", "raw file", "socket", "Descriptor"],
)
def test_a_closed_file_is_a_clear_error(path, make):
    """Nothing is sent, and the error says what is closed and which argument it is."""
    with make(path) as file:
        pass
    with pytest.raises(cm.Closed, match="closed") as caught:
        _offline(Files).read(file)
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "Files.read, argument `file`" in told


def test_a_closed_capability_as_argument_is_a_clear_error():
    """As a closed file is."""
    with cm.Entrypoint("test") as entrypoint:
        capability = entrypoint.manage(EchoServer())
        capability.close()
        with pytest.raises(cm.Closed, match="closed") as caught:
            _offline(Carrier).plain(capability)
        assert caught.value.__notes__ == ["Carrier.plain, argument `one`"]


@pytest.mark.parametrize("wrong", ["path", 3, b"x", None, object(), EchoServer()])
def test_what_is_no_file_is_an_argument_error(wrong):
    """A path is not a file, and a number is not one either; the error names the parameter."""
    with _serve(FilesServer()) as proxy, pytest.raises(cm.ArgumentError, match=r"Files\.read, .*`file`"):
        proxy.read(wrong)


# ------------------------------------------------------------------------------------------ with another process

BANK = """
import io
import capmarshal as cm


class Broke(Exception):
    pass


class Account(cm.Interface):
    @cm.method
    @cm.raises(Broke)
    def draw(self, amount: int) -> int: ...


class Bank(cm.Interface):
    @cm.method
    def open(self, name: str, *, log: io.BufferedWriter) -> Account: ...
    @cm.method
    def merge(self, accounts: list[Account]) -> Account: ...
    @cm.method
    def crash(self) -> None: ...
"""

CUSTOMER = """
import io, os, sys
sys.path.insert(0, sys.argv[1])
import capmarshal as cm
from bank import Account, Bank, Broke

with cm.timeout(30), open(sys.argv[2], "wb") as log:
    bank = cm.parent().cast(Bank)
    log.write(b"customer ")
    first, second = bank.open("first", log=log), bank.open("second", log=log)
    assert isinstance(first, Account) and first != second
    assert first.draw(60) == 40
    try:
        first.draw(60)
    except Broke as broke:
        assert broke.args == ("first", 40), broke.args
        assert "Account.draw" in broke.__notes__[0]
    merged = bank.merge([first, second])
    assert merged.draw(120) == 20
    assert bank.merge([merged]) == merged
    try:
        bank.crash()
    except cm.RemoteError as error:
        assert str(error) == "ZeroDivisionError: division by zero", error
    try:
        bank.open(7, log=log)
    except cm.ArgumentError as error:
        assert "Bank.open" in str(error) and "`name`" in str(error), error
    # One door, however many capabilities; one channel; the log; standard streams.
    sockets = [n for n in os.listdir("/proc/self/fd") if int(n) > 2 and n != str(log.fileno())]
    listing = [os.readlink(f"/proc/self/fd/{n}") for n in sockets if os.path.exists(f"/proc/self/fd/{n}")]
    assert sum(target.startswith("socket:") for target in listing) == 2, listing
print("served")
"""


def test_an_interface_between_processes(tmp_path, log):
    """A child that was given one capability opens accounts, passes them on, and gets errors as they are declared."""
    (tmp_path / "bank.py").write_text(BANK)
    bank = types.ModuleType("bank")
    exec(compile(BANK, "bank", "exec"), vars(bank))

    class AccountServer(bank.Account):
        def __init__(self, name, balance):
            self.name, self.balance = name, balance

        def draw(self, amount: int) -> int:
            if amount > self.balance:
                raise bank.Broke(self.name, self.balance)
            self.balance -= amount
            return self.balance

    class BankServer(bank.Bank):
        def __init__(self, entrypoint):
            self.manage = entrypoint.manage

        def open(self, name: str, *, log: io.BufferedWriter) -> bank.Account:
            log.write(name.encode() + b" ")
            account = AccountServer(name, 100)
            self.manage(account)
            return account

        def merge(self, accounts: list[bank.Account]) -> bank.Account:
            # They have come home as the objects that they are.
            assert all(type(account) is AccountServer for account in accounts)
            if len(accounts) == 1:
                return accounts[0]
            merged = AccountServer("merged", sum(account.balance for account in accounts))
            self.manage(merged)
            return merged

        def crash(self) -> None:
            1 / 0  # noqa: B018

    journal = tmp_path / "journal"
    with cm.Entrypoint("bank") as entrypoint:
        child = cm.spawn(
            [sys.executable, "-P", "-c", CUSTOMER, tmp_path, journal],
            parent=entrypoint.manage(BankServer(entrypoint)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        out, errors = child.communicate(timeout=PATIENCE)
    assert (out, errors, child.returncode) == ("served\n", "", 0)
    assert journal.read_bytes() == b"customer first second "
    ((_, message, _),) = log
    assert re.fullmatch(r"bank: process \d+ \(user \d+\): Bank\.crash raised", message)
