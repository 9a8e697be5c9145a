"""`confine()` where threads serve: they pause, and others go on, bound as all else (`_child/pausing`)."""

import codecs
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import capmarshal as cm
from capmarshal._child import pausing
from capmarshal._kernel.deadline import ahead, seconds_until
from capmarshal._server.service import Service
from confined import confines
from interrupting import Interrupting
from patience import PATIENCE

pytestmark = confines
PACKAGE = Path(cm.__file__).parent


class Work(cm.Interface):
    """What a process serves that confines itself."""

    @cm.method
    def double(self, value: int) -> int: ...

    @cm.method
    def first_line(self, path: str) -> str: ...

    @cm.method
    def wait(self) -> str: ...


class WorkServer(Work):
    """``wait`` ends when ``may_end`` says so, by itself."""

    def __init__(self, may_end=lambda: True):
        self.may_end = may_end
        self.waits = threading.Event()

    def double(self, value):
        return value * 2

    def first_line(self, path):
        try:
            with open(path) as file:
                return file.readline()
        except OSError as error:
            return type(error).__name__

    def wait(self):
        self.waits.set()
        _until(self.may_end)
        return "ended"


class Meeting(cm.Interface):
    """Where such a process and its client meet."""

    @cm.method
    def bring(self, work: cm.Capability) -> None: ...

    @cm.method
    def await_calls(self) -> int: ...

    @cm.method
    def begin(self, lines: Iterator[str]) -> str: ...

    @cm.method
    def go_on_until(self, line: str) -> None: ...


class MeetingServer(Meeting):
    """Its client calls all the time, in a thread of its own."""

    def __init__(self):
        self.made, self.wrong, self.brought = 0, [], threading.Event()
        self.kept = None

    def bring(self, work):
        self.work = work.cast(Work)
        self.brought.set()

    def await_calls(self):
        now = self.made
        _until(lambda: self.made >= now + 20 or self.wrong)
        return self.made - now

    def begin(self, lines):
        self.kept = cm.keep(lines)
        return next(self.kept)

    def go_on_until(self, line):
        while next(self.kept) != line:
            pass
        self.kept.close()

    def call(self):
        """What the client does until the server has gone."""
        assert self.brought.wait(PATIENCE)
        while not self.wrong:
            try:
                with cm.timeout(PATIENCE):
                    if self.work.double(self.made) != self.made * 2:
                        self.wrong.append("another call's answer")
            except cm.Error as error:
                self.wrong.append(f"{type(error).__name__}: {error}")
            self.made += 1


def _until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _told_to_pause(entrypoint):
    return entrypoint._service._server._pausing


def _confined(**options):
    with cm.timeout(PATIENCE):
        cm.confine(cm.Confinement(**options))


def _not_confined(**options):
    with pytest.raises(cm.NotConfined) as raised:
        _confined(**options)
    # As an ordinary process is.
    assert subprocess.run(["true"], check=False).returncode == 0
    return str(raised.value)


def test_who_calls_all_the_time_notices_nothing(fork):
    """From another process: before, while and after, each call is answered; what is served then opens nothing."""
    target = MeetingServer()
    with cm.Entrypoint("meeting") as entrypoint:
        meeting = entrypoint.manage(target).cast(Meeting)

        def act():
            with cm.timeout(PATIENCE), cm.Entrypoint("work") as ep:
                work = ep.manage(WorkServer())
                meeting.bring(work)
                lines = [work.cast(Work).first_line("/etc/passwd")]
                calls = [meeting.await_calls()]
                _confined()
                calls.append(meeting.await_calls())
                lines.append(work.cast(Work).first_line("/etc/passwd"))
                return calls, lines, [thread.name for thread in threading.enumerate()]

        client = threading.Thread(target=target.call)
        client.start()
        try:
            calls, (before, after), threads = fork(act, ordinary=True).result()
        finally:
            target.brought.set()
            client.join()
    assert min(calls) >= 20
    assert before not in ("", "PermissionError")
    assert after == "PermissionError"
    assert threads == ["MainThread", "capmarshal work"]
    # When the server had gone.
    (wrong,) = target.wrong
    assert wrong.startswith("Disconnected")


def test_a_call_in_progress_is_waited_for(fork):
    """And answered; what came meanwhile is answered after it."""

    def act():
        with cm.timeout(PATIENCE), cm.Entrypoint("work") as ep:
            target = WorkServer(lambda: _told_to_pause(ep))
            work = ep.manage(target)
            child = os.fork()
            if child == 0:
                called = work.cast(Work)
                os._exit(0 if called.wait() == "ended" and called.double(4) == 8 else 1)
            assert target.waits.wait(PATIENCE)
            _confined()
            return os.waitpid(child, 0)[1]

    assert fork(act, ordinary=True).result() == 0


def test_a_call_that_does_not_end_makes_it_refuse(fork):
    """By name; nothing was changed, that call is answered when it ends, and all others are."""

    def act():
        end = threading.Event()
        target = WorkServer(end.is_set)
        with cm.timeout(PATIENCE), cm.Entrypoint("busy") as busy, cm.Entrypoint("idle") as idle:
            work, other = busy.manage(target), idle.manage(WorkServer()).cast(Work)
            child = os.fork()
            if child == 0:
                os._exit(0 if work.cast(Work).wait() == "ended" else 1)
            assert target.waits.wait(PATIENCE)
            with cm.timeout(0.3):
                words = _not_confined()
            doubled = other.double(2)
            end.set()
            return words, doubled, os.waitpid(child, 0)[1], work.cast(Work).double(3), other.first_line("/etc/passwd")

    words, doubled, status, again, line = fork(act, ordinary=True).result()
    assert words.endswith("the entrypoint 'busy' runs Work.wait, which has not ended in time")
    assert (doubled, status, again) == (4, 0, 6)
    assert line not in ("", "PermissionError")


def test_what_is_missing_leaves_all_served(fork):
    """A path that is not there is told when the threads have ended: others go on."""

    def act():
        with cm.timeout(PATIENCE), cm.Entrypoint("work") as ep:
            work = ep.manage(WorkServer()).cast(Work)
            with pytest.raises(FileNotFoundError):
                _confined(read=["/nonexistent"])
            return work.double(2), work.first_line("/etc/passwd") != "PermissionError"

    assert fork(act, ordinary=True).result() == (4, True)


def test_what_serves_a_call_of_another_goes_on_for_that(fork):
    """A call that waits for an entrypoint which is paused already would not end."""

    def act():
        with cm.timeout(PATIENCE), cm.Entrypoint("outer") as outer, cm.Entrypoint("inner") as inner:
            work = inner.manage(WorkServer()).cast(Work)

            class Calls(WorkServer):
                def double(self, value):
                    self.waits.set()
                    _until(lambda: _told_to_pause(inner) or _told_to_pause(outer))
                    return work.double(value)

            target = Calls()
            capability = outer.manage(target)
            child = os.fork()
            if child == 0:
                os._exit(0 if capability.cast(Work).double(3) == 6 else 1)
            assert target.waits.wait(PATIENCE)
            _confined()
            return os.waitpid(child, 0)[1], work.first_line("/etc/passwd")

    assert fork(act, ordinary=True).result() == (0, "PermissionError")


class _Fake:
    """What serves in a thread, as `pausing` sees it, and pauses where ``may_pause`` lets it."""

    doing = "it does something"

    def __init__(self, noted, name, may_pause=lambda: True, failure=None):
        self.noted, self.name, self.may_pause, self.failure = noted, name, may_pause, failure
        self.thread = threading.main_thread()

    def check_may_pause(self):
        pass

    def pause(self, deadline):
        if self.may_pause():
            self.noted.append(f"{self.name} pauses")
            self.thread = None
            return True
        self.noted.append(f"{self.name} does not")
        return False

    def resume(self):
        self.noted.append(f"{self.name} goes on")
        self.thread = threading.main_thread()
        if self.failure:
            raise self.failure

    def __repr__(self):
        return self.name


@pytest.fixture
def serving(monkeypatch):
    """serving(fake, ...): has these be what there is."""

    def served(*fakes):
        monkeypatch.setattr(pausing, "served_in_threads", lambda: [each for each in fakes if each.thread])

    return served


def test_one_that_waits_for_another_comes_first(serving):
    """And no other is paused when it is asked again."""
    noted = []
    called = _Fake(noted, "called")
    serving(called, _Fake(noted, "calls", lambda: called.thread is not None))
    paused = []
    pausing.pause_all(paused, ahead(PATIENCE))
    first = ["called pauses", "calls does not", "calls goes on", "called goes on"]
    assert noted == [*first, "calls pauses", "called pauses"]
    pausing.resume_all(paused)
    assert noted[6:] == ["called goes on", "calls goes on"]
    assert paused == []


def test_two_that_are_busy_pause_where_each_call_ends(serving):
    """Also if they begin another one whenever they go on: who comes second is given more each time."""

    class Busy(_Fake):
        def pause(self, deadline):
            self.may_pause = lambda: seconds_until(deadline) > 0.3
            return super().pause(deadline)

    noted = []
    serving(Busy(noted, "a"), Busy(noted, "b"))
    paused = []
    pausing.pause_all(paused, ahead(1.0))
    assert noted.count("a does not") + noted.count("b does not") == 2
    assert [each.name for each in paused] == ["a", "b"]


def test_all_go_on_where_one_cannot(serving):
    """It is told when each has been tried."""
    noted = []
    fakes = [_Fake(noted, "a"), _Fake(noted, "b", failure=cm.KernelError(11, "no thread")), _Fake(noted, "c")]
    serving(*fakes)
    paused = []
    pausing.pause_all(paused, ahead(PATIENCE))
    with pytest.raises(cm.KernelError, match="no thread"):
        pausing.resume_all(paused)
    assert noted[3:] == ["c goes on", "b goes on", "a goes on"]


def test_all_go_on_where_a_signal_handler_raises_something(serving):
    """That is what is told; and the one it has interrupted is tried again."""
    noted = []
    interrupted = _Fake(noted, "b", failure=KeyboardInterrupt())
    fakes = [_Fake(noted, "a"), interrupted, _Fake(noted, "c", failure=cm.KernelError(11, "no thread"))]
    serving(*fakes)
    paused = []
    pausing.pause_all(paused, ahead(PATIENCE))
    with pytest.raises(KeyboardInterrupt):
        pausing.resume_all(paused)
    assert noted[3:] == ["c goes on", "b goes on", "a goes on"]
    interrupted.failure = None
    pausing.resume_all(paused)
    assert noted[6:] == ["b goes on"]
    assert paused == []


_RESUMING = [PACKAGE / "_server/service.py", PACKAGE / "_server/starting.py", PACKAGE / "_child/pausing.py"]


def test_ctrl_c_between_two_steps_of_going_on_leaves_one_thread(monkeypatch):
    """Which serves: also where the one that was started has not begun to, when it is done a second time."""
    may_begin = threading.Event()
    serve_on = Service._serve_on

    def begin_late(self, session):
        assert may_begin.wait(PATIENCE)
        serve_on(self, session)

    monkeypatch.setattr(Service, "_serve_on", begin_late)
    at, before = 0, pausing.others()
    while True:
        may_begin.clear()
        with cm.Entrypoint("paused") as ep:
            work = ep.manage(WorkServer()).cast(Work)
            paused = []
            pausing.pause_all(paused, ahead(PATIENCE))
            assert paused == [ep._service]
            interrupting = Interrupting(at, KeyboardInterrupt, _RESUMING)
            with contextlib.suppress(KeyboardInterrupt), interrupting:
                pausing.resume_all(paused)
            pausing.resume_all(paused)
            may_begin.set()
            with cm.timeout(PATIENCE):
                assert work.double(1) == 2, interrupting.where
            _until(lambda: pausing.others() == before)
            assert ep._service.thread is not None, interrupting.where
        if not interrupting.where:
            break
        at += 1
    assert at > 10


def test_what_may_not_be_paused_is_left_as_it_is():
    """Where a signal handler has interrupted what starts its thread: that is not taken for done."""
    with cm.Entrypoint("starting") as ep:
        service = ep._service
        service._starter = threading.get_ident()
        paused = []
        with pytest.raises(cm.NotConfined, match="by a signal handler that interrupts"):
            pausing.pause_all(paused, ahead(PATIENCE))
        pausing.resume_all(paused)
        assert service._starter == threading.get_ident()
        service._starter = None


def test_a_stream_that_is_an_argument_goes_on(fork):
    """What makes its items is bound then."""
    with cm.Entrypoint("meeting") as entrypoint:
        meeting = entrypoint.manage(MeetingServer()).cast(Meeting)

        def act():
            def lines():
                while True:
                    yield WorkServer().first_line("/etc/passwd")

            with cm.timeout(PATIENCE):
                first = meeting.begin(lines())
                _confined()
                # Some may be on their way.
                meeting.go_on_until("PermissionError")
                return first

        assert fork(act, ordinary=True).result() not in ("", "PermissionError")


def test_a_stream_whose_item_is_never_made_makes_it_refuse(fork):
    """By name, as a call; it goes on after that."""
    with cm.Entrypoint("meeting") as entrypoint:
        meeting = entrypoint.manage(MeetingServer()).cast(Meeting)

        def act():
            waits, end = threading.Event(), threading.Event()

            def lines():
                yield "x" * 200_000
                waits.set()
                _until(end.is_set)
                while True:
                    yield "went on"

            with cm.timeout(PATIENCE):
                first = meeting.begin(lines())
                child = os.fork()
                if child == 0:
                    meeting.go_on_until("went on")
                    os._exit(0)
                assert waits.wait(PATIENCE)
                with cm.timeout(0.3):
                    words = _not_confined()
                end.set()
                return len(first), words, os.waitpid(child, 0)[1]

        size, words, status = fork(act, ordinary=True).result()
    assert (size, status) == (200_000, 0)
    assert "the entrypoint 'stream of Meeting.begin" in words


@pytest.mark.parametrize("closes", [False, True], ids=["interrupted", "closed"])
def test_a_signal_meanwhile_leaves_nothing_unserved(fork, closes):
    """What Ctrl-C interrupts is taken back; what is closed then is closed."""

    def act():
        with cm.timeout(PATIENCE), cm.Entrypoint("work") as ep:

            def interrupts():
                if not _told_to_pause(ep):
                    return False
                os.kill(os.getpid(), signal.SIGINT)
                return True

            heard = []
            if closes:
                signal.signal(signal.SIGINT, lambda *_: heard.append(ep.close()))
            target = WorkServer(interrupts)
            capability = ep.manage(target)
            child = os.fork()
            if child == 0:
                work = capability.cast(Work)
                os._exit(0 if work.wait() == "ended" else 1)
            assert target.waits.wait(PATIENCE)
            if closes:
                _confined()
                return os.waitpid(child, 0)[1], heard, ep.closed
            with pytest.raises(KeyboardInterrupt):
                _confined()
            return os.waitpid(child, 0)[1], capability.cast(Work).double(2)

    assert fork(act, ordinary=True).result() == ((0, [None], True) if closes else (0, 4))


def test_threads_are_left_for_what_it_serves(fork):
    """And where that is so, the new ones are counted as its others."""
    # The child may not import that.
    codecs.lookup("ascii")

    def act():
        with cm.timeout(PATIENCE), cm.Entrypoint("work") as ep:
            work = ep.manage(WorkServer()).cast(Work)
            with pytest.raises(ValueError, match="serves in 1 of its own, and needs 3"):
                _confined(threads=2)
            _confined(threads=3, missing=["threads"])
            return work.double(2), work.first_line("/etc/passwd")

    assert fork(act, ordinary=True).result() == (4, "PermissionError")


def test_memory_is_left_for_its_threads(fork):
    """One that finds none dies before it serves, and nobody would hear of that: it is refused, and all is served."""

    def act():
        with cm.timeout(PATIENCE), cm.Entrypoint("work") as ep:
            work = ep.manage(WorkServer()).cast(Work)
            words = _not_confined(memory=64 << 20)
            doubled, needed = work.double(2), int(words.split()[-1])
            # Its new threads may have their memory elsewhere.
            _confined(memory=needed + (200 << 20))
            return words, doubled, work.double(3), work.first_line("/etc/passwd")

    words, *rest = fork(act, ordinary=True).result()
    assert "memory=67108864 is too little" in words
    assert rest == [4, 6, "PermissionError"]
