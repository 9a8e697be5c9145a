"""What has come home with a call that goes on: of a stream, in both colours, and of one whose method is awaited."""

from __future__ import annotations

import contextvars
import gc
import itertools
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

import capmarshal as cm
import loops
from capmarshal import aio
from capmarshal._capabilities import homecoming
from patience import until


class Page(cm.Interface):
    @cm.method
    def title(self) -> str: ...


class Index(cm.Interface):
    @cm.method
    def first(self, pages: list[Page]) -> Page: ...

    @cm.method
    def each(self, pages: list[Page]) -> Iterator[Page]: ...

    @cm.method
    def selves(self, count: int) -> Iterator[Index]: ...

    @cm.method
    def tell_each(self, pages: list[Page], index: cm.Capability) -> Iterator[str]: ...

    @cm.method
    def tell_at_end(self, page: Page, index: cm.Capability) -> Iterator[int]: ...

    @cm.method
    def keep(self, page: Page) -> None: ...

    @cm.method
    def keep_each(self, pages: Iterator[Page]) -> None: ...

    @cm.method
    def give_each(self, pages: list[Page], index: cm.Capability) -> None: ...


class PageServer(Page):
    def title(self):
        return "Contents"


class IndexServer(Index):
    def __init__(self):
        self.kept, self.contexts = [], []

    def first(self, pages):
        self.contexts.append(contextvars.copy_context())
        return pages[0]

    def each(self, pages):
        self.contexts.append(contextvars.copy_context())
        yield from pages

    def selves(self, count):
        for _ in range(count):
            yield self

    def tell_each(self, pages, index):
        for page in pages:
            index.cast(Index).keep(page)
            yield "told"

    def tell_at_end(self, page, index):
        try:
            yield from itertools.count()
        finally:
            index.cast(Index).keep(page)

    def keep(self, page):
        self.kept.append(page)

    def keep_each(self, pages):
        self.kept += pages

    def give_each(self, pages, index):
        def each():
            self.contexts.append(contextvars.copy_context())
            yield from pages

        index.cast(Index).keep_each(each())


@pytest.fixture(params=["managed", "unmanaged"])
def site(request):
    """An entrypoint, a page that it serves, whether that has a capability besides or not, and an index."""
    with cm.Entrypoint("site") as entrypoint:
        page = PageServer()
        if request.param == "managed":
            entrypoint.manage(page)
        yield entrypoint, page, entrypoint.manage(IndexServer()).cast(Index)


def is_revoked(page):
    with pytest.raises(cm.Revoked, match="over"):
        page.title()
    return True


def test_items_are_the_capability_that_came(site):
    """Which are handed out when the call has long ended."""
    entrypoint, page, index = site
    granted = entrypoint.grant(page)
    stream = index.each([granted.cast(Page)] * 40)
    items = [next(stream)]
    assert items[0].title() == "Contents"
    entrypoint.revoke(granted, "over")
    items += stream
    assert len(items) == 40
    assert all(map(is_revoked, items))


@pytest.mark.parametrize("managed", [True, False])
def test_items_that_are_the_object_itself_are_no_more_than_the_grant(managed):
    """Of a stream that was begun by a grant: no more can be called of it, and it ends with that."""
    with cm.Entrypoint("site") as entrypoint:
        target = IndexServer()
        if managed:
            entrypoint.manage(target)
        granted = entrypoint.grant(target, only=(Index.selves,))
        stream = granted.cast(Index).selves(40)
        items = [next(stream), next(stream)]
        again = next(items[0].selves(1))
        with pytest.raises(cm.UnknownMethod, match="only"):
            again.keep(granted.cast(Page))
        entrypoint.revoke(granted, "over")
        for item in (*items, again):
            with pytest.raises(cm.Revoked, match="over"):
                next(item.selves(1))
        until(lambda: not entrypoint._service.grants._in_force)


def test_arguments_of_calls_are_the_capability_that_came(site):
    """Those that the stream makes, of another entrypoint's object."""
    entrypoint, page, index = site
    with cm.Entrypoint("elsewhere") as elsewhere:
        other, granted = IndexServer(), entrypoint.grant(page)
        assert list(index.tell_each([granted.cast(Page)] * 2, elsewhere.manage(other))) == ["told"] * 2
        assert [cm.capability(each) for each in other.kept] == [granted] * 2
        entrypoint.revoke(granted, "over")
        assert all(map(is_revoked, other.kept))
        other.kept.clear()


@pytest.mark.parametrize("how", ["closed", "dropped", "revoked", "as its service ends"])
def test_arguments_of_calls_of_a_stream_that_is_ended(how):
    """Those that it makes as it is closed before its last item, whoever does that."""
    with cm.Entrypoint("elsewhere") as elsewhere, cm.Entrypoint("site") as home:
        other = IndexServer()
        granted, begun_by = home.grant(PageServer()), home.grant(IndexServer())
        stream = begun_by.cast(Index).tell_at_end(granted.cast(Page), elsewhere.manage(other))
        assert next(stream) == 0
        if how == "closed":
            stream.close()
        elif how == "dropped":
            del stream
        elif how == "revoked":
            home.revoke(begun_by)
        else:
            home.close()
        until(lambda: other.kept)
        assert cm.capability(other.kept.pop()) == granted


def test_items_of_a_stream_that_is_an_argument_are_the_capability_that_came(site):
    """Of a call that the method makes; what iterates runs in a thread of its own."""
    entrypoint, page, index = site
    with cm.Entrypoint("elsewhere") as elsewhere:
        other, granted = IndexServer(), entrypoint.grant(page)
        index.give_each([granted.cast(Page)] * 2, elsewhere.manage(other))
        assert [cm.capability(each) for each in other.kept] == [granted] * 2
        entrypoint.revoke(granted, "over")
        assert all(map(is_revoked, other.kept))
        other.kept.clear()


def test_it_holds_what_came_as_long_as_it_can_be_reached(site):
    """And the grant ends then, of which nobody has anything else."""
    entrypoint, page, index = site
    gone = []
    granted = entrypoint.grant(page, unreachable=gone.append)
    stream = index.each([granted.cast(Page)] * 2)
    assert next(stream) == granted.cast(Page)
    del granted
    gc.collect()
    assert next(stream).title() == "Contents"
    assert not gone
    del stream
    gc.collect()
    until(lambda: gone)


@pytest.mark.parametrize("what", ["call", "stream", "stream that is closed", "stream that is an argument"])
def test_what_outlives_a_call_does_not_hold_what_came(what):
    """A context that was copied in it, as a thread may have one; nor that of a stream that is over."""
    gone = []
    with cm.Entrypoint("site") as site, cm.Entrypoint("elsewhere") as elsewhere:
        target, other = IndexServer(), IndexServer()
        index, granted = site.manage(target).cast(Index), site.grant(PageServer(), unreachable=gone.append)
        pages = [granted.cast(Page)] * 2
        if what == "call":
            assert index.first(pages) == pages[0]
        elif what == "stream":
            assert list(index.each(pages)) == pages
        elif what == "stream that is closed":
            stream = index.each(pages)
            assert next(stream) == pages[0]
            stream.close()
        else:
            index.give_each(pages, elsewhere.manage(other))
            other.kept.clear()
        del granted, pages
        gc.collect()
        until(lambda: gone)
        assert len(target.contexts) == 1


class AsyncPage(cm.Interface):
    @cm.method
    async def title(self) -> str: ...


class AsyncIndex(cm.Interface):
    @cm.method
    async def first(self, pages: list[AsyncPage]) -> AsyncPage: ...

    @cm.method
    async def give(self, page: AsyncPage, index: cm.Capability) -> None: ...

    @cm.method
    async def keep(self, page: AsyncPage) -> None: ...

    @cm.method
    async def keep_each(self, pages: AsyncIterator[AsyncPage]) -> None: ...

    @cm.method
    async def give_each(self, pages: list[AsyncPage], index: cm.Capability) -> None: ...

    @cm.method
    def selves(self, count: int) -> AsyncIterator[AsyncIndex]: ...

    @cm.method
    def each(self, pages: list[AsyncPage]) -> AsyncIterator[AsyncPage]: ...

    @cm.method
    def tell_each(self, pages: list[AsyncPage], index: cm.Capability) -> AsyncIterator[str]: ...

    @cm.method
    def tell_at_end(self, page: AsyncPage, index: cm.Capability) -> AsyncIterator[int]: ...


class AsyncPageServer(AsyncPage):
    async def title(self):
        return "Contents"


class AsyncIndexServer(AsyncIndex):
    def __init__(self):
        self.kept = []
        self.contexts = []
        self.told = anyio.Event()

    async def first(self, pages):
        # As of a timer, or of a task that goes on.
        self.contexts.append(contextvars.copy_context())
        await anyio.sleep(0)
        return pages[0]

    async def give(self, page, index):
        await index.cast(AsyncIndex).keep(page)

    async def keep(self, page):
        self.kept.append(page)

    async def keep_each(self, pages):
        self.kept += [page async for page in pages]

    async def give_each(self, pages, index):
        async def each():
            self.contexts.append(contextvars.copy_context())
            for page in pages:
                yield page

        await index.cast(AsyncIndex).keep_each(each())

    async def selves(self, count):
        for _ in range(count):
            yield self

    async def each(self, pages):
        self.contexts.append(contextvars.copy_context())
        for page in pages:
            yield page

    async def tell_each(self, pages, index):
        for page in pages:
            await index.cast(AsyncIndex).keep(page)
            yield "told"

    async def tell_at_end(self, page, index):
        try:
            for each in itertools.count():
                yield each
        finally:
            with anyio.CancelScope(shield=True):
                await index.cast(AsyncIndex).keep(page)
                self.told.set()


async def is_revoked_awaited(page):
    with pytest.raises(cm.Revoked, match="over"):
        await page.title()


@loops.each_loop
@pytest.mark.parametrize("managed", [True, False])
def test_awaited_methods_hand_out_the_capability_that_came(loop, managed):
    """In results, in items, and in arguments of calls that methods and streams make."""

    async def main():
        async with aio.Entrypoint("site") as site, aio.Entrypoint("elsewhere") as elsewhere:
            page, other = AsyncPageServer(), AsyncIndexServer()
            index, there = site.manage(AsyncIndexServer()).cast(AsyncIndex), elsewhere.manage(other)
            if managed:
                site.manage(page)
            granted = site.grant(page)
            given = granted.cast(AsyncPage)
            pages = [await index.first([given]), *[item async for item in index.each([given] * 3)]]
            await index.give(given, there)
            assert [told async for told in index.tell_each([given], there)] == ["told"]
            await index.give_each([given] * 2, there)
            pages += other.kept
            assert [cm.capability(each) for each in pages] == [granted] * 8
            site.revoke(granted, "over")
            for each in pages:
                await is_revoked_awaited(each)
            other.kept.clear()

    loops.run(loop, main)


@loops.each_loop
def test_awaited_items_that_are_the_object_itself_are_no_more_than_the_grant(loop):
    """As those of a generator that blocks."""

    async def main():
        async with aio.Entrypoint("site") as site:
            target = AsyncIndexServer()
            site.manage(target)
            granted = site.grant(target, only=(AsyncIndex.selves,))
            items = [item async for item in granted.cast(AsyncIndex).selves(3)]
            with pytest.raises(cm.UnknownMethod, match="only"):
                await items[0].keep(granted.cast(AsyncPage))
            site.revoke(granted, "over")
            for item in items:
                with pytest.raises(cm.Revoked, match="over"):
                    await anext(item.selves(1))

    loops.run(loop, main)


@loops.each_loop
@pytest.mark.parametrize("how", ["closed", "dropped", "revoked"])
def test_awaited_calls_of_a_stream_that_is_ended(loop, how):
    """As where methods block."""

    async def main():
        async with aio.Entrypoint("site") as site, aio.Entrypoint("elsewhere") as elsewhere:
            target, other = AsyncIndexServer(), AsyncIndexServer()
            granted, begun_by = site.grant(AsyncPageServer()), site.grant(target)
            stream = begun_by.cast(AsyncIndex).tell_at_end(granted.cast(AsyncPage), elsewhere.manage(other))
            assert await anext(stream) == 0
            if how == "closed":
                await stream.aclose()
            elif how == "dropped":
                del stream
            else:
                site.revoke(begun_by)
            with anyio.fail_after(30):
                await target.told.wait()
            assert cm.capability(other.kept.pop()) == granted

    loops.run(loop, main)


@loops.each_loop
@pytest.mark.parametrize("what", ["call", "stream", "stream that is closed", "stream that is an argument"])
def test_what_outlives_an_awaited_call_does_not_hold_what_came(loop, what):
    """A context that was copied in it, as each timer and each task has one; nor that of a stream that is over."""

    async def main():
        gone = anyio.Event()
        target = AsyncIndexServer()
        async with aio.Entrypoint("site") as site, aio.Entrypoint("elsewhere") as elsewhere:
            index, other = site.manage(target).cast(AsyncIndex), AsyncIndexServer()
            granted = site.grant(AsyncPageServer(), unreachable=lambda _: gone.set())
            pages = [granted.cast(AsyncPage)] * 2
            if what == "call":
                assert await index.first(pages) == pages[0]
            elif what == "stream":
                assert [page async for page in index.each(pages)] == pages
            elif what == "stream that is closed":
                stream = index.each(pages)
                assert await anext(stream) == pages[0]
                await stream.aclose()
            else:
                await index.give_each(pages, elsewhere.manage(other))
                other.kept.clear()
            del granted, pages
            gc.collect()
            await gone.wait()
            assert target.contexts.pop()[homecoming.here].way_of(target) is None

    loops.run(loop, main)
