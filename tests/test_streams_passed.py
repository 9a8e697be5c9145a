"""Streams as arguments, of calls that block: served by who calls, pulled by the method, closed when nobody can pull."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

import by_hand
import capmarshal as cm
import loops
from capmarshal import aio
from capmarshal._capabilities.capability import capability_behind
from capmarshal._client import taken
from counted import ENDLESS, Lines, threads_of_streams, wait_for_streams_to_end
from left_behind import open_numbers
from patience import PATIENCE, until
from waiting_thread import polls


class Text(cm.Interface):
    @cm.method
    @cm.raises(KeyError)
    def count(self, lines: Iterator[str], most: int = ENDLESS) -> int: ...

    @cm.method
    def grep(self, lines: Iterator[str], word: str) -> Iterator[str]: ...

    @cm.method
    def hold(self, lines: Iterator[str], keep: bool) -> str: ...

    @cm.method
    def take(self, how_many: int) -> list[str]: ...

    @cm.method
    def drop(self) -> None: ...

    @cm.method
    def files(self, files: Iterator[cm.Descriptor], most: int) -> list[int]: ...

    @cm.method
    def lists(
        self, first: Iterator[int], second: Iterator[int] | None = None, *, third: Iterator[int] | None = None
    ) -> list[list[int]]: ...


class TextServer(Text):
    def __init__(self):
        self.held = []

    def count(self, lines, most=ENDLESS):
        count = 0
        for _ in lines:
            count += 1
            if count == most:
                break
        return count

    def grep(self, lines, word):
        for line in lines:
            if word in line:
                yield line

    def hold(self, lines, keep):
        first = next(lines)
        self.held.append(cm.keep(lines) if keep else lines)
        return first

    def take(self, how_many):
        return [next(self.held[-1]) for _ in range(how_many)]

    def drop(self):
        self.held.clear()

    def files(self, files, most):
        numbers = []
        for file in files:
            with file:
                numbers.append(os.fstat(file.fileno()).st_ino)
            if len(numbers) == most:
                break
        return numbers

    def lists(self, first, second=None, *, third=None):
        return [list(each) if each is not None else [] for each in (first, second, third)]


class AsyncText(cm.Interface):
    """Of the other colour, by hand: a twin keeps its annotations."""

    @cm.method
    @cm.raises(KeyError)
    async def count(self, lines: AsyncIterator[str], most: int = ENDLESS) -> int: ...

    @cm.method
    def grep(self, lines: AsyncIterator[str], word: str) -> AsyncIterator[str]: ...


class AsyncTextServer(AsyncText):
    async def count(self, lines, most=ENDLESS):
        count = 0
        async for _ in lines:
            count += 1
            if count == most:
                break
        return count

    async def grep(self, lines, word):
        async for line in lines:
            if word in line:
                yield line


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def text(request):
    """A proxy, and the object behind it."""
    with cm.Entrypoint("text") as entrypoint:
        target = TextServer()
        yield entrypoint.manage(target).cast(Text), target
        target.drop()
    # pytest still holds it when the descriptors are counted.
    request.node.funcargs.pop("text")


@pytest.fixture(autouse=True)
def _all_have_ended():
    """Before descriptors are counted."""
    yield
    wait_for_streams_to_end()


def test_a_stream_may_be_made_of_a_stream(text, lines):
    """What is passed may take from what pulls from another one that is passed: each has a thread of its own."""
    proxy, _ = text
    with cm.Entrypoint("other") as entrypoint:
        other = entrypoint.manage(TextServer()).cast(Text)
        with cm.timeout(PATIENCE):
            inner = other.grep(lines(2000), "9")
            found = list(proxy.grep((line.upper() for line in inner), "LINE 1"))
    assert found == [f"LINE {number}" for number in range(2000) if "9" in str(number) and str(number)[0] == "1"]
    lines.end()


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 5000])
def test_all_items_come_whatever_their_number(text, lines, count):
    """None, one, and about as many as are fetched at first; made in another thread than the caller's."""
    proxy, _ = text
    assert proxy.count(lines(count)) == count
    assert lines.closed == 1
    assert threading.get_ident() not in lines.threads
    assert list(proxy.grep(lines(count), "7")) == [f"line {n}" for n in range(count) if "7" in str(n)]


def test_who_takes_three_of_many(text, lines):
    """Pulled: no more is made than is asked for at once, and the generator is closed when the call has ended."""
    proxy, _ = text
    assert proxy.count(lines(), 3) == 3
    lines.end()
    assert lines.made <= 32
    until(lambda: not threads_of_streams())


def test_a_result_has_what_it_is_made_of(text, lines):
    """The argument of a method that gives a stream is closed with that."""
    proxy, _ = text
    found = proxy.grep(lines(), "9")
    assert next(found) == "line 9"
    assert not lines.closed
    found.close()
    lines.end()


def test_a_call_may_have_several_and_none_where_that_is_declared(text):
    """By position and by name, and None where that will do."""
    proxy, _ = text
    assert proxy.lists(iter([1, 2])) == [[1, 2], [], []]
    assert proxy.lists(iter([1]), iter([2, 3]), third=iter([4])) == [[1], [2, 3], [4]]
    assert proxy.lists(first=iter([1]), second=None, third=iter(range(100))) == [[1], [], list(range(100))]


@pytest.mark.parametrize(("kind", "raised"), [(KeyError, KeyError), (ValueError, cm.RemoteError)])
def test_errors_of_what_iterates(text, lines, kind, raised, caplog):
    """Arrive at the method where they belong, as themselves if it declares them; and go on from there as its own."""
    proxy, target = text

    def seen(lines, most=ENDLESS):
        taken = []
        try:
            for line in lines:
                taken.append(line)  # noqa: PERF402
        except raised:
            return len(taken)
        return -1

    with pytest.raises(raised, match="mine"):
        proxy.count(lines(20, kind))
    lines.end()
    target.count = seen
    assert proxy.count(lines(20, kind)) == 20
    del target.count
    # The errors that were logged know the frames in which they were raised.
    caplog.clear()


def test_what_is_kept_outlives_the_call(text, lines, caplog):
    """Until it is dropped; and what is not kept is closed with the call, which whoever goes on is told."""
    proxy, _ = text
    assert proxy.hold(lines(), keep=True) == "line 0"
    assert proxy.take(30) == [f"line {number}" for number in range(1, 31)]
    assert not lines.closed
    proxy.drop()
    lines.end()
    assert proxy.hold(lines(), keep=False) == "line 0"
    lines.end(2)
    with pytest.raises(cm.RemoteError, match="the stream was closed with the call that it came with"):
        proxy.take(1)
    caplog.clear()


def test_each_costs_seven_descriptors_where_it_is_served_and_two_where_it_is_held(text, lines):
    """A hundred of them, both in this process, until they end; the first call makes what stays, beside its stream."""
    proxy, _ = text
    assert proxy.hold(lines(), keep=True) == "line 0"
    before = len(open_numbers())
    for _ in range(100):
        proxy.hold(lines(), keep=True)
    assert len(open_numbers()) - before == (7 + 2) * 100
    assert len(threads_of_streams()) == 101
    proxy.drop()
    lines.end(101)
    until(lambda: not threads_of_streams())
    until(lambda: len(open_numbers()) < before)


def test_descriptors_are_the_methods_own(text):
    """What it takes it closes; what was fetched and not taken is closed with the stream."""
    proxy, _ = text

    def memfds(how_many):
        for _ in range(how_many):
            with cm.Descriptor(os.memfd_create("test", os.MFD_CLOEXEC)) as file:
                yield file

    assert len(set(proxy.files(memfds(300), 1000))) == 300
    assert len(proxy.files(memfds(300), 3)) == 3


# Passing on.


def test_a_stream_that_is_passed_on(text, lines):
    """What was a result, and is as it came, is handed on itself: its receiver pulls from where it comes from."""
    proxy, _ = text
    stream = proxy.grep(lines(100), "line")
    assert len(threads_of_streams()) == 1
    with cm.Entrypoint("other") as entrypoint:
        other = entrypoint.manage(TextServer()).cast(Text)
        found = other.grep(stream, "5")
        assert next(found) == "line 5"
        # That of the lines, unless they have all been taken.
        assert len(threads_of_streams()) <= 1
        assert len(list(found)) == 18
    with pytest.raises(cm.Closed, match="the stream was passed on"):
        next(stream)
    lines.end()
    with pytest.raises(cm.Closed, match="the stream was passed on"):
        proxy.count(stream)


def test_a_stream_that_was_taken_from_is_passed_on(text, lines):
    """The rest of it is served here: to another server, for a thread that waits for its own items waits for itself."""
    proxy, _ = text
    stream = proxy.grep(lines(100), "line")
    assert next(stream) == "line 0"
    with cm.Entrypoint("other") as entrypoint, cm.timeout(PATIENCE):
        assert entrypoint.manage(TextServer()).cast(Text).count(stream) == 99
    lines.end()


def test_an_argument_may_be_passed_on(lines, fork):
    """Through three processes, pulled by the last from the first."""

    class PasserServer(TextServer):
        def __init__(self, other):
            super().__init__()
            self.other = other

        def grep(self, lines, word):
            return self.other.grep(lines, word)

        def count(self, lines, most=ENDLESS):
            return self.other.count((line.upper() for line in lines), most)

    parent, child = by_hand.socket.socketpair(by_hand.socket.AF_UNIX, by_hand.socket.SOCK_SEQPACKET)

    def serve():
        with cm.Entrypoint("last") as entrypoint:
            cm.send_capability(child, entrypoint.manage(TextServer()))
            child.recv(1)

    with parent, child:
        last = fork(serve)
        other = cm.receive_capability(parent, timeout=PATIENCE).cast(Text)

        def pass_on():
            with cm.Entrypoint("middle") as entrypoint:
                cm.send_capability(child, entrypoint.manage(PasserServer(other)))
                child.recv(1)

        middle = fork(pass_on)
        proxy = cm.receive_capability(parent, timeout=PATIENCE).cast(Text)
        with cm.timeout(PATIENCE):
            assert len(list(proxy.grep(lines(1000), "5"))) == 271
            assert proxy.count(lines(1000)) == 1000
            assert proxy.count(lines(), 3) == 3
        lines.end(3)
        parent.send(b"x")
        parent.send(b"x")
        last.result()
        middle.result()


def test_a_method_that_calls_its_own_entrypoint(text, lines):
    """It runs in place, in the thread that serves it; what it passes has a thread of its own."""
    proxy, target = text
    target.count = lambda lines, most=ENDLESS: len(list(proxy.grep((line for line in lines), "1")))
    assert proxy.count(lines(100)) == 19
    target.count = lambda lines, most=ENDLESS: len(list(proxy.grep(lines, "1")))
    assert proxy.count(lines(100)) == 19
    del target.count
    lines.end(2)


def test_a_deep_grant_takes_streams_as_arguments(lines):
    """A stream may be an argument of what hands no stream out."""
    with cm.Entrypoint("text") as entrypoint:
        proxy = entrypoint.grant(TextServer(), deep=True).cast(Text)
        assert proxy.count(lines(100)) == 100
        lines.end()


# What ends it.


ENDS = {
    "raises": cm.RemoteError,
    "expired": cm.CallTimeout,
    # The method has the same deadline, and may find first that it has passed.
    "slow": cm.CallTimeout,
    "stale": cm.StaleCapability,
    "gone": cm.Disconnected,
    "closed": cm.Closed,
    "argument": cm.ArgumentError,
    "colour": cm.ArgumentError,
}


@pytest.mark.parametrize("how", ENDS)
def test_a_call_that_fails_ends_its_streams(lines, how, caplog):
    """However it does, whoever has them; also one that has begun before, of which nothing is taken."""
    go_on = threading.Event()
    given = lines(error=None)
    assert next(given) == "line 0"

    def slow():
        with contextlib.closing(given):
            yield from ("1", "2")
            go_on.wait(PATIENCE)
            yield "3"

    with cm.Entrypoint("text") as entrypoint:
        target = TextServer()
        proxy = entrypoint.manage(target).cast(Text)

        def raises(lines, most=ENDLESS):
            target.held.append(cm.keep(lines))
            next(lines)
            raise ValueError("no")

        if how == "raises":
            target.count = raises
        if how == "stale":
            entrypoint.dissolve(target)
        if how == "gone":
            entrypoint.close()
        if how == "closed":
            capability_behind(proxy).close()
        call = {
            "argument": lambda: proxy.lists(iter([1]), given, third=[1]),
            "colour": lambda: proxy.lists(given, lines.awaited()),
            "slow": lambda: proxy.count(slow()),
        }.get(how, lambda: proxy.count(given))
        with pytest.raises(ENDS[how]) as raised, cm.timeout({"expired": 0, "slow": 0.1}.get(how, PATIENCE)):
            call()
        assert how == "raises" or type(raised.value) is ENDS[how]
        # Its traceback has the arguments; and that they are ended does not wait for it to go.
        go_on.set()
        lines.end()
        del raised
        target.held.clear()
        target.__dict__.pop("count", None)
    caplog.clear()


def test_a_call_that_fails_does_not_end_what_it_hands_on(text, lines):
    """A stream that another server gave is that one's: it ends when nobody has it, here or there."""
    proxy, target = text

    def raises(lines, most=ENDLESS):
        target.held.append(cm.keep(lines))
        # As declared, so that the log does not keep it, and the frame that has the stream.
        raise KeyError("no")

    with cm.Entrypoint("other") as entrypoint:
        stream = entrypoint.manage(TextServer()).cast(Text).grep(lines(), "line")
        target.count = raises
        with pytest.raises(KeyError, match="no"):
            proxy.count(stream)
        assert proxy.take(100) == [f"line {number}" for number in range(100)]
        with pytest.raises(cm.Closed, match="the stream was passed on"):
            next(stream)
        assert not lines.closed
        proxy.drop()
        lines.end()
    del target.count


def test_whoever_finds_first_that_time_is_up(text, lines, caplog):
    """The caller has one error for its own deadline; what the method raised for that is known as its cause."""
    proxy, target = text
    go_on = threading.Event()
    raised, seconds = [], [0.05]

    def waits():
        yield "line 0"
        go_on.wait(2 * PATIENCE)

    def calls(given, seconds):
        # Runs in place: there is nobody but the method to find it.
        try:
            with cm.timeout(seconds):
                list(proxy.lists(given))
        except (cm.CallTimeout, cm.RemoteError) as error:
            raised.append((type(error), str(error), getattr(error, "ran", ""), type(error.__cause__)))

    def within(lines, most=ENDLESS):
        calls(waits(), seconds[0])
        while raised[-1][2] == "no":
            # The machine is busy: the time was over before the method had begun.
            raised.clear()
            seconds[0] *= 2
            calls(waits(), seconds[0])
        calls(lines, PATIENCE)
        return 0

    def lists(first, second=None, *, third=None):
        try:
            return [list(first)]
        except cm.Error:
            raise OSError(5, "mine") from None

    target.count, target.lists = within, lists
    assert proxy.count(lines(1, KeyError)) == 0
    go_on.set()
    where = "Text.lists, entrypoint 'text'"
    words = (
        f"{where}: no result in time (the deadline of cm.timeout({seconds[0]})); the method ran, and raised RemoteError"
    )
    assert raised == [
        (cm.CallTimeout, words, "maybe", cm.RemoteError),
        (cm.RemoteError, "OSError: [Errno 5] mine", "", type(None)),
    ]
    del target.count, target.lists
    caplog.clear()


def test_ctrl_c_while_what_iterates_waits(text, lines, caplog):
    """Who takes the items, for whom the whole server waits, is told at once, and not when the next one is made."""
    proxy, _ = text
    go_on = threading.Event()

    def waits():
        with contextlib.closing(lines(1)) as given:
            yield from given
            # Before that it would interrupt nothing.
            until(lambda: polls(threading.main_thread()))
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            go_on.wait(4 * PATIENCE)
            yield "line 1"

    with pytest.raises(KeyboardInterrupt), cm.timeout(2 * PATIENCE):
        proxy.count(waits())
    with cm.timeout(PATIENCE):
        assert proxy.lists(iter([1])) == [[1], [], []]
    assert not go_on.is_set()
    go_on.set()
    caplog.clear()


def test_a_call_that_fails_while_closing_what_iterates_waits(text, caplog):
    """Likewise."""
    proxy, target = text
    closes, go_on = threading.Event(), threading.Event()

    def slow_to_close():
        try:
            while True:
                yield "line"
        finally:
            closes.set()
            go_on.wait(2 * PATIENCE)

    def raises(lines, most=ENDLESS):
        target.held.append(cm.keep(lines))
        next(lines)
        raise ValueError("no")

    target.count = raises
    with pytest.raises(cm.RemoteError, match="no"):
        proxy.count(slow_to_close())
    assert closes.wait(PATIENCE)
    with pytest.raises(cm.RemoteError, match="Disconnected"), cm.timeout(PATIENCE):
        proxy.take(1000)
    assert not go_on.is_set()
    go_on.set()
    del target.count
    caplog.clear()


def test_a_server_that_is_killed_lets_go_of_the_stream(lines, fork):
    """While it pulls."""
    parent, child = by_hand.socket.socketpair(by_hand.socket.AF_UNIX, by_hand.socket.SOCK_SEQPACKET)

    def serve():
        with cm.Entrypoint("text") as entrypoint:
            cm.send_capability(child, entrypoint.manage(TextServer()))
            child.recv(1)

    with parent, child:
        server = fork(serve)
        proxy = cm.receive_capability(parent, timeout=PATIENCE).cast(Text)

        def killed_by():
            with contextlib.closing(lines()) as inner:
                yield next(inner)
                os.kill(server.pid, signal.SIGKILL)
                yield from inner

        with pytest.raises(cm.Disconnected):
            proxy.count(killed_by())
        lines.end()


def test_a_client_that_is_killed_ends_the_stream_for_who_kept_it(text, lines, fork, caplog):
    """Whoever has kept its stream is told."""
    proxy, _ = text

    def client():
        proxy.hold(lines(), keep=True)
        os.kill(os.getpid(), signal.SIGKILL)

    child = fork(client)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(cm.RemoteError, match="Disconnected"):
        proxy.take(1000)
    caplog.clear()


def test_a_forked_child_has_no_part_in_it(text, lines, fork):
    """The parent's streams are the parent's, and go on; and a child passes its own."""
    proxy, _ = text
    assert proxy.hold(lines(), keep=True) == "line 0"

    def child():
        assert not threads_of_streams()
        return proxy.count(iter(["1", "2"]))

    assert fork(child).result() == 2
    assert len(proxy.take(100)) == 100
    proxy.drop()
    lines.end()


# What is no stream.


def test_what_is_no_iterator_is_refused_and_the_error_says_what_to_pass(text, lines):
    """Before anything is sent."""
    proxy, _ = text

    async def coroutine(): ...

    forgotten = coroutine()
    for value, words in (
        (["1"], r"a list where an iterator is due: pass iter\(...\) of it"),
        ("text", r"a str where an iterator is due: iter\(\[...\]\) of it has it as one item"),
        (lines, "a .*Lines where an iterator is due: a generator that yields the items is one"),
        (lines.awaited, "a method where an iterator is due: call it, for what it yields"),
        (lines.awaited(), "an async_generator where an iterator is due: its items are awaited"),
        (forgotten, "a coroutine where an iterator is due: await it"),
        (None, r"None where .*: where there may be none, it is annotated Iterator\[...\] \| None"),
        (5, "an int where an iterator is due"),
    ):
        with pytest.raises(cm.ArgumentError, match=rf"Text.count, argument `lines`: {words}"):
            proxy.count(value)
    forgotten.close()


def test_one_iterator_for_two_parameters(text, lines):
    """Is refused, and closed: two threads would take from it, which a generator lets only one do at a time."""
    proxy, _ = text
    for call in (
        lambda given: proxy.lists(given, given),
        lambda given: proxy.lists(given, None, third=given),
        lambda given: proxy.lists(first=given, second=given),
    ):
        given = lines()
        next(given)
        closed = lines.closed
        with pytest.raises(cm.ArgumentError, match=r"lists, arguments `first` and `(second|third)`: the same iterator"):
            call(given)
        assert lines.closed == closed + 1
    # One that is equal is another one.
    assert proxy.lists(iter(range(3)), iter(range(3))) == [[0, 1, 2], [0, 1, 2], []]


ENDS_AFTER_ITS_CALL = """
import signal, sys, threading
from collections.abc import Iterator
import capmarshal as cm

class Text(cm.Interface):
    @cm.method
    def hold(self, lines: Iterator[str], keep: bool) -> str: ...
    @cm.method
    def count(self, lines: Iterator[str], most: int = 1) -> int: ...

def lines(how):
    try:
        yield from map(str, range(100))
        if how == "waits":
            # What ends the call comes when this waits, and not before.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            threading.Event().wait()
    finally:
        print("closed", flush=True)

text, how = cm.parent().cast(Text), sys.argv[1]
if how == "fails":
    try:
        text.count(lines(how), -1)
    except cm.RemoteError:
        pass
elif how == "waits":
    try:
        text.count(lines(how), 1000)
    except KeyboardInterrupt:
        pass
else:
    text.hold(lines(how), how == "held")
"""


@pytest.mark.parametrize(("how", "printed"), [("ends", 1), ("fails", 1), ("held", 0), ("waits", 0)])
def test_a_program_that_ends_right_after_its_call(text, how, printed, caplog):
    """What was passed is closed before that, unless somebody holds it or it waits."""
    proxy, target = text

    def raises(lines, most=ENDLESS):
        if most < 0:
            # Else nothing would be there to be closed.
            next(lines)
            raise ValueError("no")
        return TextServer.count(target, lines, most)

    target.count = raises
    for _ in range(5):
        command = [sys.executable, "-P", "-c", ENDS_AFTER_ITS_CALL, how]
        child = cm.spawn(command, parent=capability_behind(proxy), stdout=subprocess.PIPE, text=True)
        out, _ = child.communicate(timeout=PATIENCE)
        assert (child.returncode, out) == (0, "closed\n" * printed)
        target.held.clear()
    del target.count
    caplog.clear()


TAKEN = r"argument `\w+`: this iterator was taken by an earlier call of Text.{}, .*: make a new one for each call"


def test_an_iterator_that_another_call_has_taken(text, lines, caplog):
    """Is refused, however that has ended: a retry would give nothing, and say nothing."""
    proxy, _ = text
    for given, call in (
        (lines(20), lambda given: proxy.count(given)),
        (lines(20, ValueError), lambda given: proxy.count(given)),
        (lines(), lambda given: proxy.lists(given, [1])),
        (lines(), lambda given: proxy.lists(given, given)),
    ):
        with contextlib.suppress(cm.Error):
            call(given)
        with pytest.raises(cm.ArgumentError, match=TAKEN.format("(count|lists)")):
            proxy.grep(given, "1")
    # The rest of a stream is such a one, too.
    with cm.Entrypoint("other") as entrypoint:
        rest = entrypoint.manage(TextServer()).cast(Text).grep(lines(50), "line")
        next(rest)
        assert proxy.count(rest) == 49
        with pytest.raises(cm.ArgumentError, match=TAKEN.format("count")):
            proxy.count(rest)
    # What has no weak references is not known.
    numbers = iter([1, 2])
    assert proxy.lists(numbers) == [[1, 2], [], []]
    assert proxy.lists(numbers) == [[], [], []]
    caplog.clear()


def test_an_iterator_that_another_call_takes_just_now(text, lines):
    """The second call is refused, and the first goes on; and nothing is known of what nobody has any more."""
    proxy, _ = text
    given = lines(100)
    assert proxy.hold(given, keep=True) == "line 0"
    with pytest.raises(cm.ArgumentError, match=TAKEN.format("hold")):
        proxy.lists(iter([1]), given)
    assert proxy.take(99) == [f"line {number}" for number in range(1, 100)]
    key = id(given)
    proxy.drop()
    lines.end()
    assert key in taken._taken
    del given
    until(lambda: key not in taken._taken)


def test_declarations_of_streams_that_cannot_work_are_refused():
    """When the interface is first used."""

    class Awaited(cm.Interface):
        @cm.method
        def take(self, numbers: AsyncIterator[int]) -> None: ...

    class Blocks(cm.Interface):
        @cm.method
        async def take(self, numbers: Iterator[int]) -> None: ...

    class Within(cm.Interface):
        @cm.method
        def take(self, numbers: list[Iterator[int]]) -> None: ...

    class Unsendable(cm.Interface):
        @cm.method
        def take(self, numbers: Iterator[object]) -> None: ...

    class Twin(cm.Interface):
        count = cm.awaitable(Text.count)

    class StreamsTwin(cm.Interface):
        grep = cm.awaitable_stream(Text.grep)

    class BlockingTwin(cm.Interface):
        count = cm.blocking(AsyncText.count)

    for interface, words in (
        (Awaited, r"parameter numbers: an AsyncIterator, where its calls are not awaited, and take an Iterator\[...\]"),
        (Blocks, r"parameter numbers: an Iterator, where its calls are awaited, and take an AsyncIterator\[...\]"),
        (Within, "parameter numbers: .* a stream is an argument or a result by itself"),
        (Unsendable, "parameter numbers: object may be anything"),
        (Twin, r"parameter lines: a twin keeps .* declare the method by hand, with AsyncIterator\[...\]"),
        (StreamsTwin, r"declare the method by hand, with AsyncIterator\[...\]"),
        (BlockingTwin, r"declare the method by hand, with Iterator\[...\]"),
    ):
        with by_hand.Impostor() as impostor, pytest.raises(cm.InterfaceError, match=words):
            impostor.capability.cast(interface)


# Across the colours.


@contextlib.contextmanager
def served_in(colour):
    """The capability of a server of a colour, in a thread."""
    if colour == "blocking":
        with cm.Entrypoint("text") as entrypoint:
            yield entrypoint.manage(TextServer())
        return
    begun, over, made = threading.Event(), [], []

    async def serve():
        async with aio.Entrypoint("text") as entrypoint:
            made.append(entrypoint.manage(AsyncTextServer()))
            over.append(anyio.Event())
            begun.set()
            await over[0].wait()

    async def finish():
        over[0].set()

    with anyio.from_thread.start_blocking_portal(**loops.LOOPS[colour]) as portal:
        serving = portal.start_task_soon(serve)
        assert begun.wait(PATIENCE)
        yield made.pop()
        portal.call(finish)
        serving.result(PATIENCE)


COLOURS = ("blocking", *loops.LOOPS)


@pytest.mark.parametrize("server", COLOURS)
@pytest.mark.parametrize("client", COLOURS)
def test_every_colour_takes_from_every_other(client, server, lines):
    """All, as an argument of a stream too, and three of many."""
    with served_in(server) as capability:
        if client == "blocking":
            proxy = capability.cast(Text)
            assert proxy.count(lines(100)) == 100
            assert len(list(proxy.grep(lines(1000), "5"))) == 271
            assert proxy.count(lines(), 3) == 3
        else:

            async def call():
                proxy = capability.cast(AsyncText)
                assert await proxy.count(lines.awaited(100)) == 100
                found = [line async for line in proxy.grep(lines.awaited(1000), "5")]
                assert len(found) == 271
                assert await proxy.count(lines.awaited(), 3) == 3

            loops.run(client, call)
        lines.end(3)


def test_an_error_of_what_iterates_is_the_caller_s(text, caplog):
    """And says how it would arrive as itself, also where the method lets it through."""

    def lines():
        yield "line"
        raise ValueError("mine")

    with pytest.raises(cm.RemoteError, match="RemoteError: ValueError: mine") as caught:
        text[0].count(lines())
    advice, its, server = caught.value.__notes__
    assert advice == "the interface does not declare it: with @raises(ValueError) it would arrive as itself"
    assert its.startswith("raised by the caller's iterator, in Text.count.lines, items, ")
    assert server.startswith("raised by the server, in Text.count, ")
    # Tracebacks refer to what was open.
    caplog.clear()


def test_a_wrong_item_is_the_caller_s(text, caplog):
    with pytest.raises(cm.RemoteError, match=r"Expected `str`, got `int` - at `item`"):
        text[0].count(iter([1]))
    until(lambda: "Text.count raised" in caplog.text)
    assert "the caller's iterator returned it, where the interface here says something else" in caplog.text
    caplog.clear()
