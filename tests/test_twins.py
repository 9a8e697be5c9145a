"""Twins, and the colours of interfaces: `cm.awaitable`, `cm.blocking`, what mixes them, and who serves which."""

import dataclasses
import functools
import inspect
import io
import re
from typing import Generic, Self, TypeVar

import anyio
import pytest

import capmarshal as cm
from capmarshal import aio
from capmarshal._typed.interface import check_manageable
from capmarshal._typed.method import methods_of
from declared import Echo, EchoServer, offline
from loops import each_loop, run
from patience import PATIENCE

T = TypeVar("T")
U = TypeVar("U")


class Busy(Exception):
    pass


class Host(cm.Interface):
    @cm.method
    @cm.raises(Busy, KeyError)
    def read(self, path: str, /, start: int = 0, *, fold: bool = False) -> "Page | None":
        """Reads a page."""

    @cm.method
    def look(self, file: io.BufferedReader) -> Self: ...


class Page(cm.Interface):
    @cm.method
    def text(self) -> str: ...


class Derived(Host): ...


class AsyncHost(cm.Interface):
    read = cm.awaitable(Host.read)
    look = cm.awaitable(Derived.look)


class HostAgain(cm.Interface):
    read = cm.blocking(AsyncHost.read)


class ByHand(cm.Interface):
    @cm.method
    @cm.raises(Busy)
    async def read(self, path: str, *, fold: bool = False) -> bytes:
        """Reads a page."""


class BlockingByHand(cm.Interface):
    read = cm.blocking(ByHand.read)


def _method(interface, name=b"read"):
    return methods_of(interface)[name]


@pytest.mark.parametrize(
    ("twin", "original", "awaited"),
    [(AsyncHost, Host, True), (HostAgain, AsyncHost, False), (BlockingByHand, ByHand, False)],
)
def test_a_twin_is_declared_as_its_original_is(twin, original, awaited):
    """Wire name, parameters, defaults, annotations, declared errors and docstring; but for its colour."""
    its, method = _method(original), _method(twin)
    assert (method.awaitable, its.awaitable) == (awaited, not awaited)
    assert method.wire_name == its.wire_name == b"read"
    assert [(p.name, p.kind, p.default) for p in method.parameters] == [
        (p.name, p.kind, p.default) for p in its.parameters
    ]
    assert method.raises == its.raises != ()
    assert method.function.__annotations__ == its.function.__annotations__
    assert twin.read.__doc__ == original.read.__doc__ == "Reads a page."
    assert inspect.signature(twin.read) == inspect.signature(original.read)
    assert inspect.iscoroutinefunction(twin.read) is awaited
    assert method.where == f"{twin.__name__}.read"


def test_a_twin_takes_the_arguments_and_results_of_its_original():
    """The result of `async def` is what it returns, no coroutine; annotations are read where the original stands."""
    for interface in (AsyncHost, HostAgain, Host):
        method = _method(interface)
        payload = method.encode_data_arguments(("path",))
        assert method.decode_data_arguments(payload) == ("path",)
        assert not method.result_is_data
    assert _method(ByHand).decode_data_result(_method(BlockingByHand).encode_data_result(b"text")) == b"text"


def test_a_twin_is_abstract_as_its_original_is():
    """A server that forgets it is refused by Python."""
    with pytest.raises(TypeError, match=r"abstract.*\bread\b"):
        type("Forgetful", (AsyncHost,), {"look": Host.look})()


class Box(cm.Interface, Generic[T]):
    @cm.method
    def swap(self, value: T) -> list[T]: ...


class AsyncBox(cm.Interface, Generic[T]):
    swap = cm.awaitable(Box[T].swap)


class AsyncNumbers(AsyncBox[int]): ...


def test_twins_of_generic_interfaces_are_generic():
    """Their type variables are those of the same names, whoever says what they stand for."""
    decode = methods_of(AsyncNumbers)[b"swap"].decode_data_arguments
    assert decode(b"\x91\x05") == (5,)
    with pytest.raises(Exception, match="Expected `int`, got `str`"):
        decode(b"\x91\xa15")


class Unknown(cm.Interface, Generic[U]):
    swap = cm.awaitable(Box[U].swap)


def test_a_type_variable_that_twins_do_not_have_stands_for_nothing():
    """Of `Box[U].swap`, Python tells only that it is `Box.swap`."""
    capability = cm.capability(offline(Echo))
    for interface in (Unknown, Unknown[int]):
        with pytest.raises(cm.InterfaceError, match=r"swap, parameter value: what T stands for is not known of a twin"):
            capability.cast(interface)


class Server(Host):
    def read(self, path, /, start=0, *, fold=False):
        return None

    def look(self, file):
        return self


def test_what_is_no_declared_method_has_no_twin():
    """At once, in words that say what was passed."""
    proxy = offline(Echo)
    for make in (cm.awaitable, cm.blocking):
        for wrong in (
            Server.read,
            Server().read,
            proxy.echo,
            Host,
            len,
            None,
            property(lambda self: 5),
            Server.__init__,
        ):
            with pytest.raises(cm.InterfaceError, match=rf"{make.__name__}\(\) makes the twin of a method .*not of"):
                make(wrong)


def test_what_is_of_that_colour_already_has_no_twin_of_it():
    """Twins included."""
    for wrong in (ByHand.read, AsyncHost.read):
        with pytest.raises(cm.InterfaceError, match=rf"awaitable\({wrong.__qualname__}\): it is awaited already"):
            cm.awaitable(wrong)
    for wrong in (Host.read, BlockingByHand.read):
        with pytest.raises(cm.InterfaceError, match=rf"blocking\({wrong.__qualname__}\): it blocks already"):
            cm.blocking(wrong)


def test_a_twin_in_the_class_of_its_original_is_refused():
    """It would have both colours."""
    with pytest.raises(cm.InterfaceError, match=r"awaitable\(read\): the method's own interface is not there yet"):

        class Both(cm.Interface):
            @cm.method
            def read(self) -> None: ...

            aread = cm.awaitable(read)


def test_a_twin_bears_the_name_of_its_original():
    """Under which its calls travel: a server would not know another."""

    class Renamed(cm.Interface):
        fetch = cm.awaitable(Host.read)

    with pytest.raises(cm.InterfaceError, match=r"Renamed\.fetch: a twin .*: Host\.read"):
        methods_of(Renamed)


def test_a_method_that_is_declared_under_two_names_has_a_twin_under_each():
    class Store(cm.Interface):
        @cm.method
        def fetch(self) -> int: ...

        get = fetch

    class AsyncStore(cm.Interface):
        fetch = cm.awaitable(Store.fetch)
        get = cm.awaitable(Store.get)

    assert {*methods_of(AsyncStore)} == {b"fetch", b"get"}


class Own(cm.Interface):
    @cm.method
    def one(self) -> None: ...
    @cm.method
    async def two(self) -> None: ...


class Inherited(Host):
    @cm.method
    async def more(self) -> None: ...


class Redeclared(Page):
    text = cm.awaitable(Page.text)


class OfTwo(AsyncHost, Page): ...


@pytest.mark.parametrize(
    ("mixed", "words"),
    [
        (Own, r"Own\.one is blocking, and .*Own\.two awaitable.*`two = capmarshal\.blocking\(.*Own\.two\)`"),
        (Inherited, r"Host\.read is blocking, and .*Inherited\.more awaitable.*capmarshal\.blocking\("),
        (Redeclared, r"Page\.text is blocking, and .*Redeclared\.text awaitable.*"),
        (OfTwo, r"Page\.text is blocking, and .*AsyncHost\.read awaitable.*`read = capmarshal\.blocking\("),
    ],
)
def test_an_interface_of_both_colours_is_refused_when_it_is_first_used(mixed, words):
    """By cast() and by manage(), its own and its inherited methods; names one of each, and what to write."""
    capability = cm.capability(offline(Echo))
    with pytest.raises(cm.InterfaceError, match=rf"{mixed.__name__} has methods of both colours: .*{words}"):
        capability.cast(mixed)
    server = type("Server", (mixed,), dict.fromkeys(mixed.__abstractmethods__, lambda self: None))
    with cm.Entrypoint("test") as entrypoint, pytest.raises(cm.InterfaceError, match=words):
        entrypoint.manage(server())


class Empty(cm.Interface): ...


def test_an_interface_without_methods_has_no_colour():
    """It is cast to, and managed, anywhere."""
    assert cm.capability(offline(Echo)).cast(Empty)
    with cm.Entrypoint("test") as entrypoint:
        assert entrypoint.manage(Empty())
    check_manageable(Empty(), "awaitable")


class PageServer(ByHand):
    async def read(self, path, *, fold=False):
        if path == "busy":
            raise Busy(path)
        return f"{path} {fold}".encode()


def test_an_entrypoint_manages_blocking_interfaces_only():
    """And that of event loops awaitable ones only; the error says where it would be managed, and what a twin is."""
    with cm.Entrypoint("test") as entrypoint:
        for _ in range(2):
            with pytest.raises(cm.InterfaceError) as told:
                entrypoint.manage(PageServer())
            assert str(told.value) == (
                "PageServer is awaitable, as ByHand.read is declared: capmarshal.aio.Entrypoint manages it, and "
                "capmarshal.Entrypoint one of the twin interface, which has `read = capmarshal.blocking(ByHand.read)`"
            )
        entrypoint.manage(EchoServer())


@each_loop
def test_an_entrypoint_of_an_event_loop_manages_awaitable_interfaces_only(loop):
    """And what has no colour; twins are called from both."""

    async def managed():
        async with aio.Entrypoint("test") as entrypoint:
            for _ in range(2):
                with pytest.raises(cm.InterfaceError) as told:
                    entrypoint.manage(EchoServer())
                assert str(told.value) == (
                    "EchoServer is blocking, as Echo.echo is declared: capmarshal.Entrypoint manages it, and "
                    "capmarshal.aio.Entrypoint one of the twin interface, "
                    "which has `echo = capmarshal.awaitable(Echo.echo)`"
                )
            entrypoint.manage(Empty())
            capability = entrypoint.manage(PageServer())
            assert await capability.cast(ByHand).read("spam", fold=True) == b"spam True"
            with pytest.raises(Busy, match="busy"):
                await capability.cast(ByHand).read("busy")
            return await anyio.to_thread.run_sync(capability.cast(BlockingByHand).read, "spam")

    assert run(loop, managed) == b"spam False"


async def _async_generator(self, path, *, fold=False):
    yield 1


@pytest.mark.parametrize(
    ("defined", "words"),
    [
        (lambda self, path, *, fold=False: b"", "is not async, and the method of ByHand is; write async def"),
        (staticmethod(lambda path, *, fold=False: b""), "is not async"),
        (_async_generator, "is a generator, and the method of ByHand gives no stream"),
        (property(lambda self: 5), "is a property; ByHand has a method there"),
    ],
)
def test_what_serves_an_awaitable_method_is_async(defined, words):
    """Or it would run while the loop stands still, and its result could not be awaited."""
    server = type("Server", (ByHand,), {"read": defined})
    for _ in range(2):
        with pytest.raises(cm.InterfaceError, match=re.escape(f"Server.read {words}")):
            check_manageable(server(), "awaitable")


def test_what_a_decorator_makes_of_a_coroutine_function_serves():
    """As long as it says what it wraps; of what is no plain function nobody knows."""
    wrapped = functools.wraps(PageServer.read)(lambda self, path, *, fold=False: PageServer.read(self, path))
    for defined in (wrapped, functools.partialmethod(PageServer.read)):
        check_manageable(type("Server", (ByHand,), {"read": defined})(), "awaitable")


def test_a_server_of_a_twin_takes_what_the_original_is_declared_with():
    """Which pyright does not check of what is derived."""

    class Deaf(AsyncHost):
        async def read(self, path, /, start=0):
            return None

        async def look(self, file):
            return self

    class Greedy(AsyncHost):
        async def read(self, path, /, start=0, *, fold=False, more):
            return None

        async def look(self, file):
            return self

    class Blocking(AsyncHost):
        def read(self, path, /, start=0, *, fold=False):
            return None

        async def look(self, file):
            return self

    for server, words in (
        (Deaf, "cannot take `fold`, as AsyncHost.read is declared"),
        (Greedy, "wants `more`, which nobody can give"),
        (Blocking, "is not async, and the method of AsyncHost is"),
    ):
        with pytest.raises(cm.InterfaceError, match=re.escape(f"{server.__name__}.read {words}")):
            check_manageable(server(), "awaitable")


class BlockingServer(BlockingByHand):
    def read(self, path, *, fold=False):
        if path == "busy":
            raise Busy(path)
        return f"{path} {fold}".encode()


def test_a_blocking_twin_is_called_and_served_as_any_interface():
    """The declared errors of its original arrive as themselves."""
    with cm.Entrypoint("test") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(BlockingServer()).cast(BlockingByHand)
        assert proxy.read("spam", fold=True) == b"spam True"
        with pytest.raises(Busy, match="busy"):
            proxy.read("busy")
        assert inspect.signature(type(proxy).read) == inspect.signature(ByHand.read)
        assert type(proxy).read.__doc__ == "Reads a page."


class Shelf(cm.Interface):
    @cm.method
    def put(self, page: Page) -> Page: ...


class TwinShelf(cm.Interface):
    """By a twin, whose annotations stay its original's."""

    put = cm.awaitable(Shelf.put)


class AsyncPage(cm.Interface):
    text = cm.awaitable(Page.text)


@dataclasses.dataclass
class Sheet:
    number: int
    pages: "list[Page | None]"


class SheetShelf(cm.Interface):
    @cm.method
    async def put(self, sheet: Sheet) -> None: ...


class AsyncShelf(cm.Interface):
    @cm.method
    async def put(self, page: AsyncPage | None, any: cm.Capability) -> Page: ...


@pytest.mark.parametrize(("interface", "name"), [(TwinShelf, "page"), (SheetShelf, "sheet")])
def test_an_awaited_method_is_given_no_proxies_that_block(interface, name):
    """The likeliest mistake with a twin: by whoever calls back, the loop would wait for itself."""

    class Server(interface):
        async def put(self, page):
            raise NotImplementedError

    for _ in range(2):
        with pytest.raises(cm.InterfaceError) as told:
            check_manageable(Server(), "awaitable")
        assert str(told.value) == (
            f"{interface.__name__}.put, parameter {name}: calls of Page block, and would stop the event loop that the "
            "method runs in. A twin keeps the annotations of its original: declare the method by hand, as async def, "
            "with the awaitable twin of Page in its place, or with capmarshal.Capability: its cast() gives a proxy of "
            "either colour"
        )
    # Whoever calls it may have either.
    assert cm.capability(offline(Echo)).cast(interface)


def test_an_awaited_method_takes_what_is_awaited_and_what_has_no_colour():
    """And returns what it likes: that is the caller's."""

    class Server(AsyncShelf):
        async def put(self, page, any):
            raise NotImplementedError

    check_manageable(Server(), "awaitable")


class Book(cm.Interface):
    @cm.method
    def page(self, number: int) -> Page: ...


class TwinBook(cm.Interface):
    page = cm.awaitable(Book.page)


class AwaitedPage(AsyncPage):
    async def text(self):
        return "spam"


class TwinBookServer(TwinBook):
    async def page(self, number):
        return AwaitedPage() if number else PageServerHere()


@each_loop
def test_what_a_twins_server_returns_is_of_its_own_colour(loop):
    """As the loop can serve it; whoever calls has what its own interface says, or casts."""

    def blocks(book):
        with cm.timeout(PATIENCE):
            assert book.cast(Book).page(1).text() == "spam"
            with pytest.raises(cm.RemoteError, match=r"page, result: PageServerHere is blocking, .* manages it, and"):
                book.cast(Book).page(0)

    async def main():
        async with aio.Entrypoint("book") as entrypoint:
            book = entrypoint.manage(TwinBookServer())
            await anyio.to_thread.run_sync(blocks, book)
            page = await book.cast(TwinBook).page(1)
            assert await anyio.to_thread.run_sync(page.text) == "spam"
            assert await cm.capability(page).cast(AsyncPage).text() == "spam"

    run(loop, main)


class PageServerHere(Page):
    def text(self):
        return "spam"


class MixedShelf(cm.Interface):
    @cm.method
    def put(self, page: AsyncPage) -> None: ...


class MixedShelfServer(MixedShelf):
    def put(self, page):
        raise NotImplementedError


def test_an_object_of_the_other_colour_that_comes_home():
    """The error says that its colour is what is wrong, and what to do; where it is another object, it does so too."""
    words = []
    with cm.Entrypoint("test") as entrypoint, cm.timeout(PATIENCE):
        shelf = entrypoint.manage(MixedShelfServer())
        for wrong in (entrypoint.manage(PageServerHere()), shelf):
            with pytest.raises(cm.ArgumentError) as caught:
                shelf.cast(MixedShelf).put(wrong.cast(AsyncPage))
            words.append(str(caught.value).partition("the object that came home is ")[2].replace(f"{__name__}.", ""))
    of_colour, other = words
    assert of_colour == (
        "a PageServerHere, not a AsyncPage: PageServerHere is blocking, and AsyncPage awaitable; a twin keeps the "
        "annotations of its original: declare the method by hand, with the blocking interface in place of AsyncPage - "
        "at `page`"
    )
    assert other.startswith("a MixedShelfServer, not a AsyncPage: MixedShelfServer is blocking")


class ShelfServer(Shelf):
    def put(self, page):
        return page


def test_an_object_of_another_class_that_comes_home():
    """Of the same colour: nothing is said of that."""
    with cm.Entrypoint("test") as entrypoint, cm.timeout(PATIENCE):
        shelf = entrypoint.manage(ShelfServer())
        with pytest.raises(cm.ArgumentError) as caught:
            shelf.cast(Shelf).put(shelf.cast(Page))
    assert str(caught.value).replace(f"{__name__}.", "").endswith("home is a ShelfServer, not a Page - at `page`")
