"""Objects among the items of a stream that is an argument: they are what they would be as arguments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

import capmarshal as cm
import loops
from patience import PATIENCE


class Item(cm.Interface):
    @cm.method
    def name(self) -> str: ...


class ItemServer(Item):
    def name(self):
        return "item"


class Shop(cm.Interface):
    @cm.method
    def take(self, items: Iterator[Item]) -> int: ...

    @cm.method
    def names(self) -> list[str]: ...


class ShopServer(Shop):
    def __init__(self):
        self.taken = []

    def take(self, items):
        self.taken.extend(items)
        return len(self.taken)

    def names(self):
        return [item.name() for item in self.taken]


class AsyncShop(cm.Interface):
    names = cm.awaitable(Shop.names)

    @cm.method
    async def take(self, items: AsyncIterator[Item]) -> int: ...


async def each(*items):
    for item in items:
        yield item


@pytest.fixture(params=["blocking", *loops.LOOPS])
def give(request):
    """Gives a shop items in a stream, from a client of either colour."""
    with cm.Entrypoint("shop") as entrypoint:
        shop = entrypoint.manage(ShopServer())

        def take(*items):
            if request.param == "blocking":
                return shop.cast(Shop, timeout=PATIENCE).take(iter(items))

            async def main():
                return await shop.cast(AsyncShop, timeout=PATIENCE).take(each(*items))

            return loops.run(request.param, main)

        yield take, shop.cast(Shop, timeout=PATIENCE)
        shop.local.taken.clear()
    request.node.funcargs.pop("give")


def test_what_nobody_manages_is_refused(give, caplog):
    """It would go with the stream; those before it have come, and both sides' logs say what is wrong."""
    take, shop = give
    words = "ItemServer object is not managed"
    with cm.Entrypoint("items") as items, pytest.raises(cm.RemoteError, match=words):
        take(items.manage(ItemServer()), ItemServer())
    assert len(cm.capability(shop).local.taken) == 1
    assert [record.name for record in caplog.records if words in record.exc_text] == ["capmarshal"] * 2
    caplog.clear()


def test_what_is_managed_lives_on(give):
    """An object, its capability's proxy, and another one's grant, when the stream has ended."""
    take, shop = give
    with cm.Entrypoint("items") as items:
        first, second, third = ItemServer(), ItemServer(), ItemServer()
        items.manage(first)
        assert take(first, items.manage(second).cast(Item), items.grant(third).cast(Item)) == 3
        assert shop.names() == ["item"] * 3
