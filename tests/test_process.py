"""What becomes of a process's own in a forked child: one routine, in one order."""

import os

import capmarshal as cm
from capmarshal._descriptors.private import Private, make_epoll_set, make_event
from capmarshal._descriptors.process import Process, process


class Part:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def in_child(self):
        self.log.append(self.name)


class Closed(Part):
    def __init__(self, name, log, epoll):
        super().__init__(name, log)
        self.epoll = epoll


def test_a_child_goes_from_the_bottom_up_and_closes_epoll_descriptors_first():
    """Who keeps things by number finds their descriptors closed."""
    log, made = [], Process()
    private = [Closed(f"private {number}", log, epoll=False) for number in range(5)]
    epolls = [Closed(f"epoll {number}", log, epoll=True) for number in range(3)]
    for each in (*private[:3], *epolls, *private[3:]):
        made.privates.add(each)
    made.mounts, made.reaper, made.space = (Part(name, log) for name in ("mounts", "reaper", "space"))
    entrypoint = Part("entrypoint", log)
    made.entrypoints.add(entrypoint)
    with made.lock:
        made.lock.acquire()
        made._in_child()
    assert {name[:5] for name in log[:3]} == {"epoll"}
    assert {name[:7] for name in log[3:8]} == {"private"}
    assert log[8:] == ["mounts", "reaper", "space", "entrypoint"]


def test_this_process_has_all_its_parts(fork):
    """They are there when the package is imported, and the lock is free in a child."""
    assert None not in (process.reaper, process.mounts, process.space)
    with cm.Entrypoint("one") as entrypoint:
        assert entrypoint._service in process.entrypoints
        epoll, event = make_epoll_set(), make_event()
        assert {epoll, event} <= set(process.privates)

        def child():
            numbers = {private.number for private in process.privates if isinstance(private, Private)}
            free = process.lock.acquire(blocking=False)
            return epoll.number, event.number, len(numbers - {-1}), free, entrypoint.closed

        # Its own mountinfo is the one that it has.
        assert fork(child).result() == (-1, -1, 1, True, True)
        epoll.close()
        event.close()


def test_without_a_reaper_a_full_table_is_full_at_once():
    """As while the package is being imported."""
    assert Process().make_with_room(lambda: -7) == -7
    assert os.getpid()
