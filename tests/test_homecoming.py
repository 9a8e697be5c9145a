"""What has come home goes out again as it came, and ends with that (`_capabilities/homecoming`), whoever holds it."""

from __future__ import annotations

import dataclasses
import gc

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities import homecoming
from patience import until


class Page(cm.Interface):
    @cm.method
    def title(self) -> str: ...


class Taker(cm.Interface):
    @cm.method
    def take(self, page: Page) -> None: ...

    @cm.method
    def take_all(self, pages: list[Page]) -> None: ...


class Denied(Exception):
    """An error that knows an object."""

    def __init__(self, page):
        super().__init__(page, [page])
        self.page = page


@dataclasses.dataclass
class Found:
    """Pages within other things."""

    best: Page
    others: dict[str, list[Page]]


class Index(cm.Interface):
    @cm.method
    def first(self, pages: list[Page]) -> Page: ...

    @cm.method
    def untyped(self, page: Page) -> cm.Capability: ...

    @cm.method
    def found(self, found: Found) -> Found: ...

    @cm.method
    def give(self, page: Page, taker: Taker) -> None: ...

    @cm.method
    def give_within(self, page: Page, taker: Taker) -> None: ...

    @cm.method
    def give_own(self, taker: Taker) -> None: ...

    @cm.method
    def have_given(self, page: Page, taker: Taker) -> None: ...

    @cm.method
    @cm.raises(Denied)
    def deny(self, page: Page) -> None: ...

    @cm.method
    def keep(self, page: Page) -> None: ...

    @cm.method
    def kept(self) -> Page: ...

    @cm.method
    def block(self, page: Page, started: cm.Descriptor, go: cm.Descriptor) -> Page: ...


class PageServer(Page):
    def title(self):
        return "Contents"


class IndexServer(Index):
    def __init__(self):
        self.page = self.me = None

    def first(self, pages):
        return pages[0]

    def untyped(self, page):
        assert cm.capability(page) is cm.capability(page)
        return cm.capability(page)

    def found(self, found):
        return found

    def give(self, page, taker):
        taker.take(page)

    def give_within(self, page, taker):
        taker.take_all([page])

    def give_own(self, taker):
        taker.take(self.page)

    def have_given(self, page, taker):
        assert page is self.page
        self.me.give_own(taker)

    def deny(self, page):
        raise Denied(page)

    def keep(self, page):
        self.page = page

    def kept(self):
        return self.page

    def block(self, page, started, go):
        by_hand.AwaitingWorker.block(by_hand.AwaitingWorker(), started, go)
        return page


class TakerServer(Taker):
    def __init__(self):
        self.taken = []

    def take(self, page):
        self.taken.append(page)

    def take_all(self, pages):
        self.taken += pages


class Site:
    """An index, and a page of the same entrypoint."""

    def __init__(self, entrypoint):
        self.entrypoint = entrypoint
        self.page, self.server = PageServer(), IndexServer()
        self.index = entrypoint.manage(self.server).cast(Index)

    def granted(self):
        return self.entrypoint.grant(self.page, label="reader")


@pytest.fixture
def site():
    with cm.Entrypoint("site") as entrypoint:
        yield Site(entrypoint)


@pytest.fixture
def taker():
    """What another entrypoint serves, and a proxy of that."""
    with cm.Entrypoint("elsewhere") as entrypoint:
        target = TakerServer()
        yield target, entrypoint.manage(target).cast(Taker)
        target.taken.clear()


@pytest.fixture(params=["managed", "unmanaged"])
def page(request, site):
    """Whether the object has a capability besides: what it would go out by, or as an object that goes by itself."""
    if request.param == "managed":
        site.entrypoint.manage(site.page)


def is_revoked(page):
    with pytest.raises(cm.Revoked, match="over"):
        page.title()
    return True


def test_a_result_is_the_capability_that_came(site, page):
    """Alone, within other things, and as a capability: it is the one that came, and revoked with it."""
    granted = site.granted()
    given = granted.cast(Page)
    index, found = site.index, Found(given, {"": [given]})
    returned = [index.first([given]), index.untyped(given).cast(Page)]
    echo = index.found(found)
    returned += [echo.best, *echo.others[""]]
    assert [cm.capability(one) for one in returned] == [granted] * 4
    assert [one.title() for one in returned] == ["Contents"] * 4
    site.entrypoint.revoke(granted, "over")
    assert all(map(is_revoked, returned))


def test_a_result_through_a_grant_is_the_capability_that_came(site, page):
    """Deep or not, of the index: what its holder has brought is no part of it, and ends as it would have."""
    granted = site.granted()
    for deep in (False, True):
        index = site.entrypoint.grant(site.server, deep=deep)
        returned = index.cast(Index).first([granted.cast(Page)])
        assert cm.capability(returned) is granted
        site.entrypoint.revoke(index)
        assert returned.title() == "Contents"
    site.entrypoint.revoke(granted, "over")
    assert is_revoked(returned)


@pytest.mark.parametrize("how", [Index.give, Index.give_within])
def test_an_argument_of_a_call_that_the_method_makes_is_the_capability_that_came(site, page, taker, how):
    """By what the holder chose to have it given to."""
    target, proxy = taker
    granted = site.granted()
    getattr(site.index, how.__name__)(granted.cast(Page), proxy)
    (taken,) = target.taken
    assert taken.title() == "Contents"
    site.entrypoint.revoke(granted, "over")
    assert is_revoked(taken)
    assert homecoming.here.get() is None


def test_a_call_within_that_call_has_its_own(site, taker):
    """What has come home with the outer one is nothing to it: the object that it has is the server's to hand out."""
    target, proxy = taker
    managed = site.entrypoint.manage(site.page)
    site.server.page, site.server.me = site.page, site.index
    granted = site.granted()
    site.index.have_given(granted.cast(Page), proxy)
    site.entrypoint.revoke(granted, "over")
    assert [cm.capability(taken) for taken in target.taken] == [managed]
    site.server.me = None


def test_of_two_capabilities_the_first_goes_out(site):
    """Their holder has both."""
    one, other, managed = site.granted(), site.granted(), site.entrypoint.manage(site.page)
    for ways in ([one, other], [managed, one], [other, managed]):
        assert cm.capability(site.index.first([way.cast(Page) for way in ways])) is ways[0]


@pytest.mark.parametrize("end", ["revoke", "dissolve"])
def test_what_ends_while_the_call_is_in_progress_is_over_in_the_answer(site, page, end):
    """It is answered: by what is over already."""
    granted = site.granted()
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        blocking = by_hand.Concurrent(site.index.block, granted.cast(Page), began, going)
        assert started.read(1) == b"."
        if end == "revoke":
            site.entrypoint.revoke(granted, "over")
        else:
            site.entrypoint.dissolve(site.page)
        go.close()
        late = blocking.outcome()
    with pytest.raises(cm.Revoked):
        late.title()


def test_a_managed_object_that_is_dissolved_meanwhile_is_stale(site):
    """It is not served anew for having been returned."""
    managed = site.entrypoint.manage(site.page)
    with by_hand.pipe() as (started, began), by_hand.pipe() as (going, go):
        blocking = by_hand.Concurrent(site.index.block, managed.cast(Page), began, going)
        assert started.read(1) == b"."
        site.entrypoint.dissolve(site.page)
        go.close()
        with pytest.raises(cm.StaleCapability):
            blocking.outcome()


def test_an_error_has_no_capability(site, page):
    """Whatever it knows: of what is no data there is the text."""
    with pytest.raises(Denied) as caught:
        site.index.deny(site.granted().cast(Page))
    assert not hasattr(caught.value, "page")
    assert {type(argument) for argument in caught.value.args} == {str}


def test_what_the_server_keeps_is_the_object(site, page):
    """Beyond the call it is the server's own, to hand out as any other: docs/authority.md says so."""
    granted = site.granted()
    site.index.keep(granted.cast(Page))
    site.entrypoint.revoke(granted, "over")
    assert site.index.kept().title() == "Contents"


def test_it_holds_what_came_no_longer_than_the_call(site):
    """The grant ends when nobody else has it."""
    gone = []
    granted = site.entrypoint.grant(site.page, unreachable=gone.append)
    assert site.index.first([granted.cast(Page)]) == granted.cast(Page)
    assert not gone
    del granted
    gc.collect()
    until(lambda: gone)


def test_one_that_this_process_does_not_hold_goes_out_as_it_came(site, page, fork):
    """The server keeps no client end of a grant: what came is enough."""
    granted = [site.granted()]
    with by_hand.pipe() as (dropped, drop):

        def echo():
            drop.close()
            by_hand.at_end(dropped)
            return cm.capability(site.index.first([granted[0].cast(Page)])) is granted[0]

        child = fork(echo)
        granted.clear()
        gc.collect()
        drop.close()
        assert child.result()
