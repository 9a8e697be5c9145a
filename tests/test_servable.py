"""What may be served, and stand for a capability: servers' classes, decorators in odd places, and what pretends."""

import contextlib
import fractions
import functools
import re
import typing
from unittest import mock

import pytest

import capmarshal as cm
from patience import PATIENCE


class Store(cm.Interface):
    @cm.method
    @cm.raises(KeyError)
    def get(self, key: str) -> int: ...
    @cm.method
    def pass_on(self, store: "Store | None", anything: typing.Any = None) -> "Store | None": ...


class StoreServer(Store):
    def get(self, key):
        return {"one": 1}[key]

    def pass_on(self, store, anything=None):
        return store


@contextlib.contextmanager
def serving():
    with cm.Entrypoint("test") as entrypoint, cm.timeout(PATIENCE):
        yield entrypoint


async def _coroutine(self, key): ...
def _generator(self, key):
    yield 1


async def _both(self, key):
    yield 1


@pytest.mark.parametrize(
    ("defined", "words"),
    [
        (_coroutine, "is async, and the method of Store is not"),
        (_both, "is async"),
        (staticmethod(_coroutine), "is async"),
        (_generator, "is a generator.*return a list"),
        (property(lambda self: 5), "is a property; Store has a method there"),
        (functools.cached_property(lambda self: 5), "is a functools.cached_property; Store has a method"),
        (None, "is a NoneType; Store has a method"),
        ("one", "is a str; Store has a method"),
        (1, "is an int; Store has a method"),
    ],
)
def test_a_servers_class_that_cannot_answer_is_refused_when_it_is_managed(defined, words):
    """Each call would fail, or be answered with what is no result."""
    with serving() as entrypoint:
        broken = type("Broken", (StoreServer,), {"get": defined})
        for _ in range(2):
            with pytest.raises(cm.InterfaceError, match=rf"Broken\.get {words}"):
                entrypoint.manage(broken())


@pytest.mark.parametrize(
    "defined",
    [
        lambda self, key: 5,
        staticmethod(lambda key: 5),
        classmethod(lambda cls, key: 5),
        functools.partialmethod(lambda self, number, key: number, 5),
        functools.cache(lambda self, key: 5),
    ],
)
def test_what_can_be_called_as_the_method_serves(defined):
    """However it is made."""
    with serving() as entrypoint:
        server = type("Server", (StoreServer,), {"get": defined})
        assert entrypoint.manage(server()).cast(Store).get("x") == 5


class Named(cm.Interface):
    """What has a body and no @method runs where it is called, by what is remote."""

    @cm.method
    def name(self) -> str: ...

    def greeting(self):
        return f"hello {self.name()}"

    @property
    def length(self):
        return len(self.name())

    @functools.cached_property
    def first(self):
        return self.name()[0]

    def _polite(self):
        return True

    @staticmethod
    def known(name):
        return name == "spam"

    @classmethod
    def of(cls, *arguments):
        return cls(*arguments)


class NamedServer(Named):
    def name(self):
        return "spam"


@pytest.mark.parametrize("name", ["greeting", "length", "first"])
@pytest.mark.parametrize("in_a_base", [False, True])
def test_a_server_overrides_nothing_that_a_proxy_runs_itself(name, in_a_base):
    """A client would have the interface's own, and never know."""
    own = {name: lambda self: "the server's"}
    base = type("Base", (), own if in_a_base else {})
    server = type("Server", (base, NamedServer), {} if in_a_base else own)
    words = (
        rf"^{'Base' if in_a_base else 'Server'}\.{name} would never be called by a client: Named\.{name} is not "
        "declared with @method, so that on a proxy it runs in the caller's process; declare it, or let the server's "
    )
    with serving() as entrypoint:
        for _ in range(2):
            with pytest.raises(cm.InterfaceError, match=words):
                entrypoint.manage(server())


def test_what_has_a_body_and_is_not_declared_runs_where_it_is_called():
    """A derived interface may have another one; and a server what no proxy has called, or what is its own business."""

    class Polite(Named):
        @cm.method
        def title(self) -> str: ...

        def greeting(self):
            return f"hello {self.title()} {self.name()}"

    class PoliteServer(NamedServer, Polite):
        def title(self):
            return "Mr."

        def _polite(self):
            return False

        known = staticmethod(lambda name: False)
        of = classmethod(lambda cls: cls())
        more = staticmethod(lambda: 5)

    with serving() as entrypoint:
        served = entrypoint.manage(PoliteServer.of())
        proxy = served.cast(Polite)
        assert (proxy.greeting(), proxy.length, proxy.first) == ("hello Mr. spam", 4, "s")
        assert served.cast(Named).greeting() == "hello spam"


def test_method_once_more_at_the_server_is_no_harm():
    """What it defines is no longer abstract; a stub of a derived interface is, and what is declared anew counts."""
    with serving() as entrypoint:

        class Again(Store):
            @cm.method
            @cm.raises(LookupError)
            def get(self, key: str) -> int:
                return 7

            @cm.method
            def pass_on(self, store: Store | None, anything: typing.Any = None) -> Store | None:
                return store

        class Wider(Store):
            @cm.method
            def get(self, key: "str | int") -> int: ...

        assert entrypoint.manage(Again()).cast(Store).get("x") == 7
        with pytest.raises(TypeError, match="abstract"):
            type("Server", (Wider,), {"pass_on": StoreServer.pass_on})()


@pytest.mark.parametrize(
    ("wrapped", "kind"),
    [
        (property(lambda self: 5), "property"),
        (staticmethod(lambda: 5), "staticmethod"),
        (classmethod(lambda cls: 5), "classmethod"),
        (functools.partial(lambda self: 5), "functools.partial"),
        (functools.cached_property(lambda self: 5), "functools.cached_property"),
    ],
)
def test_method_on_what_is_no_function_says_what_it_is(wrapped, kind):
    """At once, where it is declared."""
    with pytest.raises(cm.InterfaceError, match=f"plain function that takes self, not a {kind}"):
        cm.method(wrapped)


@pytest.mark.parametrize("wrap", [property, staticmethod, classmethod, functools.cached_property, functools.cache])
def test_what_stands_on_method_and_makes_no_function_is_refused_at_first_use(wrap):
    """By its name, whichever way round they stand."""
    with serving() as entrypoint:

        class Broken(cm.Interface):
            m = wrap(cm.method(lambda self: None))

        with pytest.raises(cm.InterfaceError, match=r"Broken\.m: a remote method is a plain function, not a .*\w"):
            entrypoint.manage(StoreServer()).cast(Broken)


def test_raises_may_stand_over_method_or_under_it():
    """They mark the same function."""
    with serving() as entrypoint:

        class Other(cm.Interface):
            @cm.raises(KeyError)
            @cm.method
            def get(self, key: str) -> int: ...

        class Server(Other):
            get = StoreServer.get

        for server, interface in ((StoreServer(), Store), (Server(), Other)):
            with pytest.raises(KeyError):
                entrypoint.manage(server).cast(interface).get("two")


def test_a_lambda_is_a_function_without_annotations():
    """It is refused for that, under the name that it was given."""
    with serving() as entrypoint:

        class Broken(cm.Interface):
            m = cm.method(lambda self, x: x)

        with pytest.raises(cm.InterfaceError, match=r"Broken\.m: parameter x has no annotation"):
            entrypoint.manage(StoreServer()).cast(Broken)


# ------------------------------------------------------------------------------------------------- what pretends to be


def test_a_mock_of_an_interface_is_not_one():
    """It says that it is an instance of what it mocks; managed or passed, it is told apart."""
    with serving() as entrypoint:
        proxy = entrypoint.manage(StoreServer()).cast(Store)
        for spec in (Store, StoreServer, type(proxy), cm.Capability, cm.Descriptor):
            pretends = mock.Mock(spec=spec)
            with pytest.raises(TypeError, match="can be managed, not <Mock"):
                entrypoint.manage(pretends)
            with pytest.raises(TypeError, match=r"unittest\.mock\.Mock stands for no capability"):
                cm.capability(pretends)
            with pytest.raises(cm.ArgumentError, match=r"Store\.pass_on, argument `store`"):
                proxy.pass_on(pretends)


def test_what_stands_for_an_object_is_not_taken_for_it():
    """To dissolve a proxy or a capability would revoke nothing, and not say so."""
    with serving() as entrypoint:
        server = StoreServer()
        capability = entrypoint.manage(server)
        proxy = capability.cast(Store)
        for stands in (proxy, capability):
            with pytest.raises(
                TypeError,
                match=r"can be dissolved, not <.*, which stands for one, here or elsewhere: `local`",
            ):
                entrypoint.dissolve(stands)
            with pytest.raises(
                TypeError,
                match=r"can be managed, not <.*, which stands for one, here or elsewhere: `local`",
            ):
                entrypoint.manage(stands)
        with pytest.raises(TypeError, match=r"dissolved, not <class .*, of which there is to be an object first"):
            entrypoint.dissolve(StoreServer)
        with pytest.raises(TypeError, match=r"^the class .*StoreServer stands for no capability: pass a proxy"):
            cm.capability(StoreServer)
        assert capability.local is server


def test_a_capability_has_no_methods_of_its_object_and_says_who_has():
    """Its proxy."""
    with serving() as entrypoint:
        capability = entrypoint.manage(StoreServer())
        words = r"^'Capability' object has no attribute 'get': it is a proxy that has methods, and cast\("
        with pytest.raises(AttributeError, match=words) as caught:
            capability.get("key")
        assert (caught.value.name, caught.value.obj) == ("get", capability)
        assert not hasattr(capability, "__len__")


def test_cast_to_what_is_no_interface_says_so():
    """The class of a proxy, a protocol, an instance, a container of interfaces."""
    with serving() as entrypoint:
        capability = entrypoint.manage(StoreServer())
        proxy = capability.cast(Store)
        with pytest.raises(TypeError, match=r"cast to an Interface, not to .*the class of its proxies"):
            capability.cast(type(proxy))
        for wrong in (proxy, StoreServer(), list[Store], typing.Protocol, typing.SupportsInt, Store | None, mock.Mock):
            with pytest.raises(TypeError, match="cast to an Interface, not to"):
                capability.cast(wrong)


def test_an_object_of_another_interface_that_comes_home_is_named_once():
    """With an article and a module."""
    with serving() as entrypoint:

        class Other(cm.Interface): ...

        class OtherServer(Other): ...

        proxy, other = entrypoint.manage(StoreServer()).cast(Store), OtherServer()
        entrypoint.manage(other)
        module = re.escape(__name__)
        with pytest.raises(
            cm.ArgumentError, match=rf"home is a {module}\.\S*OtherServer, not a {module}\.Store - at `store`"
        ):
            proxy.pass_on(other)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (fractions.Fraction(1, 2), "`fractions.Fraction` objects cannot be sent"),
        (1j, "`complex` objects cannot be sent"),
        ([{"x": object()}], "`object` objects cannot be sent"),
        (memoryview(b"abcd")[::2], "contiguous"),
        ({"x": memoryview(b"abcd")[::-1]}, "contiguous"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_parameter(value, words):
    """And by the module that it comes from: numpy has a bool too."""
    with serving() as entrypoint:
        proxy = entrypoint.manage(StoreServer()).cast(Store)
        with pytest.raises(cm.ArgumentError, match=rf"Store\.pass_on, argument `anything`: .*{words}"):
            proxy.pass_on(None, value)
