"""What a call does with descriptors, sizes and time: who owns what when it ends, and where the limits are."""

from __future__ import annotations

import io
import os
import time

import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.capability import open_door_of
from capmarshal._protocol.faults import Code
from capmarshal._typed.incoming import Owned

pytestmark = pytest.mark.usefixtures("quiet_log")

PATIENCE = by_hand.PATIENCE


class Files(cm.Interface):
    @cm.method
    def work(self, how: str, out: io.BufferedWriter) -> None: ...

    @cm.method
    def kept(self) -> int: ...

    @cm.method
    def read(self, file: io.BufferedReader) -> bytes: ...

    @cm.method
    def result(self, how: str) -> io.BufferedWriter: ...

    @cm.method
    def mixed(self, file: cm.Descriptor, what: cm.Capability | None, more: list[cm.Descriptor]) -> int: ...

    @cm.method
    def through(self, target: Files, how: str, out: io.BufferedWriter) -> None: ...


class Declared(Exception):
    pass


class FilesServer(Files):
    def __init__(self):
        self.files = []

    def work(self, how, out):
        if how == "keep":
            self.files.append(cm.keep(out))
        elif how == "raise":
            raise ValueError(how)
        elif how == "write":
            out.write(b"written")
        elif how == "close":
            out.close()

    def kept(self):
        count = len(self.files)
        while self.files:
            self.files.pop().close()
        return count

    def read(self, file):
        return file.read()

    def result(self, how):
        reading, writing = os.pipe()
        self.reader = io.FileIO(reading)
        file = io.BufferedWriter(io.FileIO(writing, "w"))
        if how == "keep":
            self.files.append(cm.keep(file))
        elif how == "argument error":
            return [file]
        return file

    def mixed(self, file, what, more):
        return 1 + (what is not None) + len(more)

    def through(self, target, how, out):
        target.work(how, out)


@pytest.fixture
def server():
    return FilesServer()


@pytest.fixture
def files(server):
    with by_hand.serving(server) as capability, cm.timeout(PATIENCE):
        yield capability.cast(Files)
    capability.close()


@pytest.mark.parametrize("how", ["return", "raise", "close", "write"])
def test_a_call_closes_its_arguments_and_the_caller_keeps_what_it_lent(files, how):
    """Whatever the method does, when its call has ended the caller's is the only one."""
    with by_hand.pipe() as (reader, writer):
        try:
            files.work(how, writer)
        except cm.RemoteError:
            assert how == "raise"
        assert os.fstat(writer.fileno())
        writer.close()
        assert by_hand.at_end(reader) == (b"written" if how == "write" else b"")


def test_what_a_method_wrote_is_there_when_the_caller_has_its_answer(files):
    """No close and no flush of the method's own is needed."""
    with by_hand.temporary() as file:
        files.work("write", file)
        assert os.pread(file.fileno(), 100, 0) == b"written"


def test_what_a_method_keeps_stays_open(files):
    """keep() takes an argument out of the call; the method's object closes it when it likes."""
    with by_hand.pipe() as (reader, writer):
        files.work("keep", writer)
        writer.close()
        os.set_blocking(reader.fileno(), False)
        assert reader.read(1) is None
        assert files.kept() == 1
        by_hand.at_end(reader)


def test_a_result_is_the_callers_alone(files, server):
    """The server's own is closed when the answer is sent, unless it keeps it."""
    for how in ("give", "keep"):
        with files.result(how) as out:
            out.write(b"mine")
        with server.reader as reader:
            if how == "keep":
                assert reader.read(4) == b"mine"
                assert files.kept() == 1
                by_hand.at_end(reader)
            else:
                assert by_hand.at_end(reader) == b"mine"


def test_a_result_that_is_not_what_the_interface_says_is_closed(files, server):
    """The caller is told, and nobody holds it."""
    with pytest.raises(cm.RemoteError, match=r"Files\.result, result: a list where io\.BufferedWriter is due"):
        files.result("argument error")
    with server.reader as reader:
        by_hand.at_end(reader)


def test_keep_is_for_methods():
    """Outside of a call there is nothing to keep from."""
    with by_hand.temporary() as file, pytest.raises(RuntimeError, match="server methods"):
        cm.keep(file)


def test_arguments_of_a_call_that_is_refused_are_closed(files, server):
    """Unknown method, wrong arguments, stale object: the descriptors that came do not stay."""
    capability = cm.capability(files)

    class Other(cm.Interface):
        @cm.method
        def unknown(self, file: cm.Descriptor) -> None: ...

        @cm.method
        def work(self, how: cm.Descriptor, out: cm.Descriptor) -> None: ...

        @cm.method
        def mixed(self, file: cm.Descriptor, what: cm.Capability, more: cm.Descriptor) -> int: ...

    other = capability.cast(Other)
    for call, error in [
        (lambda file: other.unknown(file), cm.UnknownMethod),
        (lambda file: other.work(file, file), cm.ArgumentError),
        (lambda file: other.mixed(file, capability, file), cm.ArgumentError),
    ]:
        with by_hand.pipe() as (reader, writer):
            with pytest.raises(error):
                call(writer)
            writer.close()
            by_hand.at_end(reader)


def test_a_reader_is_sent_from_where_it_was_read_to(files):
    """tell() is honoured though the reader has read ahead."""
    with open(os.memfd_create("read"), "w+b") as made:
        made.write(b"0123456789")
        made.seek(0)
        with open(os.dup(made.fileno()), "rb") as reader:
            assert reader.read(4) == b"0123"
            assert files.read(reader) == b"456789"


def test_files_and_capabilities_stand_in_any_order(files):
    """A file before a capability, and after it, and nothing in the place of one."""
    capability = cm.capability(files)
    with by_hand.temporary() as file:
        assert files.mixed(file, capability, [file, file]) == 4
        assert files.mixed(file, None, [file]) == 2


@pytest.mark.parametrize("how", ["return", "raise", "write"])
def test_a_call_to_an_object_of_the_same_entrypoint_runs_at_once(how, server):
    """It does not wait for its own thread; the same rules of ownership hold, and errors are the same."""
    with cm.Entrypoint("inline") as entrypoint, cm.timeout(PATIENCE), by_hand.pipe() as (reader, writer):
        outer = FilesServer()
        proxy = entrypoint.manage(outer).cast(Files)
        inner = entrypoint.manage(server).cast(Files)
        try:
            proxy.through(inner, how, writer)
        except cm.RemoteError as error:
            assert how == "raise"
            assert "raise" in str(error)
        writer.close()
        assert by_hand.at_end(reader) == (b"written" if how == "write" else b"")


class Home(cm.Interface):
    @cm.method
    def name(self, who: Home | None) -> str: ...

    @cm.method
    def relay(self, via: Home, who: Home) -> str: ...

    @cm.method
    @cm.raises(Declared)
    def fail(self) -> None: ...

    @cm.method
    def call_fail(self, who: cm.Capability) -> str: ...


class HomeServer(Home):
    def __init__(self):
        self.seen = []

    def name(self, who):
        self.seen.append(who)
        return type(who).__name__

    def relay(self, via, who):
        return via.name(who)

    def fail(self):
        raise Declared("as declared", 7)

    def call_fail(self, who):
        try:
            who.cast(Home).fail()
        except Declared as error:
            return str(error.args)
        return "nothing"


def test_what_comes_home_is_the_object_itself_in_its_own_entrypoint_only():
    """The handler of the same entrypoint gets the object, another one of the same process a proxy."""
    with cm.Entrypoint("home") as home, cm.Entrypoint("away") as away, cm.timeout(PATIENCE):
        here, there = HomeServer(), HomeServer()
        mine, theirs = home.manage(here).cast(Home), away.manage(there).cast(Home)
        assert mine.name(mine) == "HomeServer"
        assert here.seen == [here]
        assert theirs.name(mine) == "Home"
        assert there.seen == [mine]
        assert mine.relay(theirs, mine) == "Home"
        assert mine.name(None) == "NoneType"
        here.seen.clear()
        there.seen.clear()


def test_a_declared_error_of_an_inline_call_is_itself():
    """The method catches what the interface declares, with its arguments."""
    with cm.Entrypoint("home") as home, cm.timeout(PATIENCE):
        one, two = home.manage(HomeServer()), home.manage(HomeServer())
        assert one.cast(Home).call_fail(two) == "('as declared', 7)"


def test_more_descriptors_than_one_record_carries_travel():
    """As arguments and as results; beyond the entrypoint's maximum they are refused, and nothing is lost after."""
    with by_hand.serving() as capability, cm.timeout(PATIENCE):
        proxy = capability.cast(by_hand.Work)
        made = [by_hand.temporary(b"%d" % number) for number in range(254)]
        try:
            assert proxy.count(made) == 254
            with pytest.raises(
                cm.TooLarge, match=r"Work\.count, entrypoint .served.: arguments with 1270 descriptors;.*1024"
            ):
                proxy.count(made * 5)
        finally:
            for file in made:
                file.close()
        ends = proxy.pipes(254)
        assert len({os.fstat(end.fileno()).st_ino for end in ends}) == 127
        for end in ends:
            end.close()
        assert proxy.double(1) == 2


def test_a_call_that_is_too_large_is_told():
    """As an argument and as a result: the error names the limit, and the channel lives on."""
    with by_hand.serving() as capability, cm.timeout(PATIENCE):
        proxy = capability.cast(by_hand.Work)
        assert proxy.size(bytes(300_000)) == 300_000
        assert len(proxy.blob(300_000)) == 300_000
        (channel,) = open_door_of(capability).idle
        for _ in range(2):
            with pytest.raises(cm.TooLarge, match=r"arguments of 680\d{5} bytes; .* 67108864"):
                proxy.size(bytes(68_000_000))
            with pytest.raises(cm.TooLarge, match=r"a result of 680\d{5} bytes; .* 67108864"):
                proxy.blob(68_000_000)
            assert proxy.double(1) == 2
        assert list(open_door_of(capability).idle) == [channel]


# Time.


def test_an_expired_call_is_not_run():
    """What waited in the queue until its deadline is not begun after it."""
    worker = by_hand.Worker()
    with by_hand.serving(worker) as capability:
        with by_hand.busy(capability), pytest.raises(cm.CallTimeout), cm.timeout(0.05):
            capability.cast(by_hand.Work).double(1)
        with cm.timeout(PATIENCE):
            assert capability.cast(by_hand.Work).double(2) == 4
        # block() and the second double().
        assert worker.calls == 2


def test_the_wait_in_the_queue_counts():
    """A call with time left when it was sent, and none when it is read, is answered as expired."""
    with by_hand.serving() as capability, by_hand.knock(capability) as near:
        now = time.monotonic_ns()
        near.send(by_hand.call(capability, left=1_000_000, sent=now - 2_000_000))
        assert by_hand.failure(near) is Code.EXPIRED
        near.send(by_hand.call(capability, left=10**12, sent=now))
        assert bytes(by_hand.answer(near)[0].payload) == b"\x2a"
        for left, sent in ((0, now), (0, 0), (1, (1 << 64) - 1), ((1 << 64) - 2, 0), ((1 << 63), now)):
            near.send(by_hand.call(capability, left=left, sent=sent))
            by_hand.answer(near)


class Nested(cm.Interface):
    @cm.method
    def call(self, other: Nested | None, depth: int) -> int: ...


class NestedServer(Nested):
    def __init__(self):
        self.left = []

    def call(self, other, depth):
        from capmarshal._kernel import deadline as _deadline

        self.left.append(_deadline.current.get() - time.monotonic_ns())
        return depth if other is None else other.call(None, depth + 1)


def test_a_nested_call_inherits_what_is_left():
    """The deadline of the outermost caller holds in the innermost method."""
    one, two = NestedServer(), NestedServer()
    with cm.Entrypoint("one") as first, cm.Entrypoint("two") as second:
        outer, inner = first.manage(one).cast(Nested), second.manage(two).cast(Nested)
        with cm.timeout(PATIENCE):
            assert outer.call(inner, 1) == 2
            assert outer.call(None, 1) == 1
        assert 0 < two.left[0] < one.left[0] < PATIENCE * 1e9
        assert outer.call(inner, 1) == 2
        assert two.left[1] > 1e18


class Cycle(cm.Interface):
    @cm.method
    def round(self, other: Cycle, home: Cycle) -> int: ...


class CycleServer(Cycle):
    def round(self, other, home):
        return other.round(home, other)


def test_a_cycle_between_entrypoints_ends_by_deadline():
    """Two that wait for each other do so no longer than their caller does, and serve on."""
    with cm.Entrypoint("one") as first, cm.Entrypoint("two") as second:
        one, two = first.manage(CycleServer()).cast(Cycle), second.manage(CycleServer()).cast(Cycle)
        worker = by_hand.Worker()
        plain = first.manage(worker).cast(by_hand.Work)
        # The first one's proxy comes home as an object of its own: it is the second that calls back.
        with pytest.raises(cm.Error), cm.timeout(0.2):
            one.round(two, one)
        with cm.timeout(PATIENCE):
            assert plain.double(2) == 4


def test_an_entrypoint_that_nobody_serves_is_left_at_the_deadline():
    """Again and again, on the same channel; served later, it answers what has not expired."""
    entrypoint = cm.Entrypoint("unserved")
    worker = by_hand.Worker()
    capability = entrypoint.manage(worker)
    for _ in range(3):
        with pytest.raises(cm.CallTimeout), cm.timeout(0.02):
            capability.cast(by_hand.Work).double(1)
    with entrypoint, cm.timeout(PATIENCE):
        assert capability.cast(by_hand.Work).double(1) == 2
    assert worker.calls == 1
    capability.close()


def test_no_time_at_all_is_told_at_once():
    """timeout(0), and one that has passed: the call is not sent."""
    with by_hand.serving(worker := by_hand.Worker()) as capability:
        for seconds in (0, 1e-9):
            with pytest.raises(cm.CallTimeout) as caught, cm.timeout(seconds):
                capability.cast(by_hand.Work).double(1)
            assert caught.value.ran == "no"
        assert worker.calls == 0


def test_what_is_taken_over_is_all_that_there_is():
    """Also of what is added to it one day."""
    one, other = Owned(), Owned()
    for name in Owned.__slots__:
        setattr(other, name, object())
    one.take(other)
    assert [name for name in Owned.__slots__ if getattr(one, name) is not getattr(other, name)] == []
