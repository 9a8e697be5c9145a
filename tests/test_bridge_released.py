"""What crossed two bridges and is not held any more leaves nothing in either: neither counts nor descriptors."""

import random
import threading

import pytest

import bridge_hosts
import capmarshal as cm
import forwarding
import nats_servers
from forwarding import Desk, DeskServer, Page, PageServer
from patience import PATIENCE, until

SOME, MANY, GIVEN_UP = 100, 1_000, 150
# Seconds for which a bridge has what was mentioned lately: for so long it is waited that nothing stays.
HELD_FOR = 2.0


@pytest.fixture
def near_and_far(tmp_path):
    with (
        nats_servers.nodes(tmp_path) as nodes,
        bridge_hosts.hosts(nodes, "near", "far", held_for=HELD_FOR) as both,
    ):
        yield both


def nothing_stays(near, far, pass_some):
    """Both have as many descriptors, imports and exports after many have passed as after a few, some time later."""

    def had():
        return [
            (host.host.descriptors(), {what: count for of in host.host.counts().values() for what, count in of.items()})
            for host in (near, far)
        ]

    def settled():
        return all(sum(of.values()) == 1 for _, of in had())

    # What is made once: channels; and what waits for answers, since one of so many is not there at once.
    pass_some(SOME)
    until(settled)
    before = had()
    pass_some(MANY)
    until(lambda: had() == before)


def test_a_thousand_capabilities_of_the_other_machine(near_and_far):
    """Let go of in any order, and some of them mentioned again meanwhile."""
    near, far = near_and_far
    with cm.Entrypoint("desk") as entrypoint:
        desk = near.host.connect(far.host.export(entrypoint.manage(DeskServer()))).cast(Desk)

        def pass_some(many):
            pages = [desk.page(str(number)) for number in range(many)]
            assert far.host.counts()["near"]["exported"] == many + 1
            random.Random(1).shuffle(pages)
            while pages:
                again = desk.same(pages[0])
                assert cm.capability(desk.same(pages[0])) is cm.capability(again)
                assert again.title() == pages[0].title()
                del pages[-10:]

        nothing_stays(near, far, pass_some)


def test_a_thousand_capabilities_of_this_machine(near_and_far):
    """As arguments of calls that are answered."""
    near, far = near_and_far
    with cm.Entrypoint("desk") as entrypoint, cm.Entrypoint("pages") as mine:
        desk = near.host.connect(far.host.export(entrypoint.manage(DeskServer()))).cast(Desk)

        def pass_some(many):
            for number in range(many):
                page = mine.manage(PageServer(str(number)))
                assert cm.capability(desk.same(page.cast(Page))) is page

        nothing_stays(near, far, pass_some)


class _SlowPage(PageServer):
    """One page at a time is asked for its title: until it may tell, nobody is told any."""

    def __init__(self, go_on):
        super().__init__("slow")
        self._go_on = go_on

    def title(self):
        assert self._go_on.wait(PATIENCE)
        return super().title()


@pytest.mark.parametrize("kept", [True, False])
def test_what_calls_that_are_given_up_have_carried(near_and_far, kept):
    """At any moment, by their deadlines; of a server in a process of its own.  No garbage collector comes."""
    near, far = near_and_far
    for host in (near, far):
        host.host.collect_nothing()

    def counts():
        return [host.host.counts() for host in (near, far)]

    with forwarding.row(("desk", "asyncio")) as (served, _), cm.Entrypoint("pages") as mine:
        desk = near.host.connect(far.host.export(served)).cast(Desk)
        until(lambda: not far.host.counts()["near"]["calls"])
        before, go_on, slow, given_up = counts(), threading.Event(), None, 0
        for _ in range(GIVEN_UP):
            if not kept or slow is None:
                slow = mine.manage(_SlowPage(go_on))
            # Whose deadline it is that was over first, the desk's or the caller's, is nobody's business.
            try:
                with cm.timeout(random.random() / 20):
                    desk.title_of(slow.cast(Page))
            except (cm.CallTimeout, cm.RemoteError):
                given_up += 1
        assert given_up == GIVEN_UP
        go_on.set()
        assert desk.title_of(mine.manage(PageServer("the last")).cast(Page)) == "the last"
        del slow
        until(lambda: counts() == before)
