"""Streams as arguments where the server, the client or a signal handler does not behave (`test_streams_passed.py`)."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import sys
import threading
import traceback
import types
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest

import by_hand
import capmarshal as cm
import loops
from capmarshal._capabilities.capability import capability_behind
from capmarshal._typed import stream
from counted import ENDLESS, Lines, wait_for_streams_to_end
from interrupting import Interrupting
from left_behind import open_numbers
from patience import PATIENCE, until
from waiting_thread import polls

# What all holders of one stream may have.
CHANNELS = 32
PACKAGE = Path(cm.__file__).parent
PASSING = [PACKAGE / "_client/passing.py", PACKAGE / "_server/passed_streams.py", PACKAGE / "_typed/stream.py"]
# Where it is looked which arguments are streams, or as the first of these is called: none is taken yet.
LOOKING = ("invoke_with_streams call", "__init__ call", "__init__ c_return", "_find call", "_find c_return")
MAKING = [PACKAGE / f"_server/{name}.py" for name in ("entrypoint", "grants", "streams", "service", "starting")]


class Text(cm.Interface):
    @cm.method
    def count(self, lines: Iterator[str]) -> int: ...

    @cm.method
    def first(self, lines: Iterator[str]) -> str: ...

    @cm.method
    def files(self, files: Iterator[cm.Descriptor]) -> int: ...

    @cm.method
    def both(self, first: Iterator[str], second: Iterator[str], third: Iterator[str]) -> int: ...


class AwaitedText(cm.Interface):
    @cm.method
    async def count(self, lines: AsyncIterator[str]) -> int: ...


class TextServer(Text):
    def count(self, lines):
        return sum(1 for _ in lines)

    def first(self, lines):
        return next(lines)

    def files(self, files):
        count = 0
        for file in files:
            file.close()
            count += 1
        return count

    def both(self, first, second, third): ...


class Pull(cm.Interface):
    """What a stream is on the wire."""

    @cm.method
    def next(self, at_most: int) -> tuple[list[str], bool]: ...


class PulledText(cm.Interface):
    """As the other side of :class:`Text` may be: it pulls as it likes, or is pulled from."""

    @cm.method
    def count(self, lines: Pull) -> int: ...


class PullingServer(PulledText):
    def __init__(self, act):
        self.act = act

    def count(self, lines):
        return self.act(lines) or 0


@pytest.fixture(autouse=True)
def _all_have_ended():
    """Before descriptors are counted."""
    yield
    wait_for_streams_to_end()


@pytest.fixture
def lines():
    return Lines()


@contextlib.contextmanager
def given_to(act):
    """A proxy of a server that does this with what it is given."""
    with cm.Entrypoint("text") as entrypoint:
        yield entrypoint.manage(PullingServer(act)).cast(Text)


# What a server does.


@pytest.mark.parametrize(("at_most", "came"), [(-1, 1), (0, 1), (1, 1), (1000, 1000), (1 << 62, 5000)])
def test_how_many_a_server_wants(lines, at_most, came):
    """At least one, and no more than go together."""
    seen = []

    def act(pull):
        items, ended = pull.next(at_most)
        seen.append((len(items), ended))

    with given_to(act) as proxy:
        proxy.count(lines(ENDLESS if at_most < 5000 else 5000))
        ((count, ended),) = seen
        assert not ended or came == 5000
        assert 1 <= count <= came
        until(lambda: lines.closed == 1)


def test_a_server_that_never_pulls(lines):
    """Nothing is made, and what is given is closed all the same."""
    given = lines()
    assert next(given) == "line 0"
    with given_to(lambda pull: None) as proxy:
        assert proxy.count(given) == 0
        until(lambda: lines.closed == 1)
        assert lines.made == 1


def test_a_server_that_calls_what_is_not_there(lines):
    """There is one method, and nothing else that a stream could be asked."""

    class Other(cm.Interface):
        @cm.method
        def end(self) -> None: ...

    def act(pull):
        with pytest.raises(cm.UnknownMethod, match=r"end\(\) is not among what this grant lets call"):
            cm.capability(pull).cast(Other).end()

    with given_to(act) as proxy:
        assert proxy.count(lines()) == 0


def test_a_server_that_holds_it_for_ever(lines, fork):
    """It costs its client what it has, until the server has gone; and a call that fails ends it whoever holds it."""
    held = []
    with given_to(held.append) as proxy:
        proxy.count(lines())
        (pull,) = held
        assert pull.next(1) == (["line 0"], False)
        assert not lines.closed

        def fails(pull):
            held.append(pull)
            raise OSError("no")

        def client():
            with given_to(fails) as other:
                mine = lines()
                next(mine)
                with pytest.raises(cm.RemoteError):
                    other.count(mine)
                until(lambda: lines.closed == 1)
                with pytest.raises(cm.Disconnected):
                    held[-1].next(1)

        fork(client).result()
        del pull
        held.clear()
        until(lambda: lines.closed == 1)


def hold_channels(pull):
    """Makes many channels to a stream and keeps them; True once few are left."""
    channels = [by_hand.knock(capability_behind(pull)) for _ in range(3 * CHANNELS)]
    until(lambda: sum(map(is_open, channels)) <= CHANNELS)
    # Those that are left are served.
    return any(is_open(channel) for channel in channels)


def is_open(channel):
    poll = select.poll()
    poll.register(channel, 0)
    return not poll.poll(0)


def test_a_holder_makes_many_channels(lines, fork):
    """A stream costs its giver few descriptors, so that the holders of some do not fill its table."""
    held = []
    with given_to(held.append) as proxy:
        proxy.count(lines())
        assert fork(partial(hold_channels, held[0])).result()
        held.clear()


@loops.each_loop
def test_a_holder_makes_many_channels_of_one_in_an_event_loop(loop, fork):
    held = []

    async def lines():
        while True:
            yield "line"

    async def main(proxy):
        await proxy.count(lines())
        child = await anyio.to_thread.run_sync(fork, partial(hold_channels, held[0]))
        assert await anyio.to_thread.run_sync(child.result)
        held.clear()

    with given_to(held.append) as proxy:
        loops.run(loop, main, capability_behind(proxy).cast(AwaitedText))


def test_two_who_pull_at_once(lines):
    """Each item goes to one of them."""
    seen = []

    def act(pull):
        def take():
            for _ in range(50):
                seen.extend(pull.next(3)[0])

        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

    with given_to(act) as proxy:
        proxy.count(lines())
    assert sorted(seen) == sorted(set(seen))
    assert len(seen) >= 100


# What a client does.


class Numbers:
    """What a stream is pulled from; counts what it was asked for."""

    def __init__(self):
        self.asked = 0

    def next(self, at_most):
        self.asked += at_most
        return list(range(self.asked - at_most, self.asked)), False


def interposed(act, at, other):
    """What an act gives, or Closed, with another between two of its lines in the module of streams; and that one's."""
    results, left = [], [at]

    def result_of(function):
        try:
            return function()
        except cm.Closed:
            return cm.Closed

    def trace(frame, event, _):
        if frame.f_code.co_filename != stream.__file__:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == -1:
                # As another thread would: this is not traced.
                results.append(result_of(other))
        return trace

    sys.settrace(trace)
    try:
        mine = result_of(act)
    finally:
        sys.settrace(None)
    return (mine, *results)


@pytest.mark.parametrize("which", ["fetches", "passes on"])
def test_a_thread_passes_on_what_another_one_begins_to_take(which):
    """Either it is passed on and nothing was fetched, or the other has its items: wherever they meet, none is lost."""
    at = 0
    while True:
        source = Numbers()
        met = stream.Stream(source)
        acts = [lambda met=met: next(met), lambda met=met: stream.source_of(met)]
        if which == "passes on":
            acts.reverse()
        results = interposed(acts[0], at, acts[1])
        if len(results) == 1:
            break
        fetched, passed = results if which == "fetches" else reversed(results)
        if passed is source:
            assert (fetched, source.asked) == (cm.Closed, 0)
        else:
            assert (fetched, passed) == (0, None)
            assert next(met) == 1
        at += 1
    assert at > 5


class Badly(Pull):
    def __init__(self, answer):
        self.answer = answer

    def next(self, at_most):
        return self.answer(at_most)


@pytest.fixture
def pulled(request):
    """A function that has a stream of ours taken from by a server of lines; what that has raised."""
    with cm.Entrypoint("text") as served, cm.Entrypoint("bad") as bad:
        proxy = served.manage(TextServer()).cast(PulledText)

        def by(answer):
            target = Badly(answer)
            bad.manage(target)
            with pytest.raises(cm.Error) as raised:
                proxy.count(target)
            bad.dissolve(target)
            return str(raised.value)

        yield by
    request.node.funcargs.pop("pulled")


def test_more_than_was_asked_for_is_refused_and_so_are_no_items_that_are_not_the_last(pulled, caplog):
    """As what breaks the protocol."""
    assert "17 items of a stream came where 1 to 16 were due" in pulled(lambda most: (["x"] * (most + 1), False))
    assert "0 items of a stream came" in pulled(lambda _: ([], False))
    caplog.clear()


@pytest.mark.parametrize("answer", [None, 5, ([1], False), ("x", "y"), [], (["x"], 3)])
def test_what_is_no_items_is_refused(pulled, answer, caplog):
    """The method is told, as it would be of any answer."""
    assert "ArgumentError" in pulled(lambda _: answer)
    caplog.clear()


@pytest.mark.parametrize("by", ["the caller", "the method"])
def test_a_client_that_never_gives_an_item(by, caplog):
    """The deadline of the call bounds the method, or one of its own."""
    go_on = threading.Event()

    def waits(_most):
        go_on.wait(PATIENCE)
        return [], True

    class BoundedServer(TextServer):
        def count(self, lines):
            with cm.timeout(0.05):
                return super().count(lines)

    served = TextServer() if by == "the caller" else BoundedServer()
    with cm.Entrypoint("text") as entrypoint, cm.Entrypoint("bad") as bad:
        proxy = entrypoint.manage(served).cast(PulledText)
        with pytest.raises(cm.Error) as raised, cm.timeout(0.05 if by == "the caller" else PATIENCE):
            proxy.count(bad.manage(Badly(waits)).cast(Pull))
        assert "no answer in" in str(raised.value)
        del raised
        # The server takes other calls again.
        with cm.timeout(PATIENCE):
            assert entrypoint.manage(served).cast(Text).first(iter(["x"])) == "x"
        go_on.set()
    caplog.clear()


def test_what_is_no_stream_at_all_is_refused(caplog):
    """An object without such a method; and a descriptor."""

    class Nothing(cm.Interface):
        @cm.method
        def nothing(self) -> None: ...

    class NothingServer(Nothing):
        def nothing(self): ...

    class Wrong(cm.Interface):
        @cm.method
        def count(self, lines: cm.Capability) -> int: ...

    class WrongFile(cm.Interface):
        @cm.method
        def count(self, lines: cm.Descriptor) -> int: ...

    with cm.Entrypoint("text") as entrypoint, cm.Entrypoint("bad") as bad:
        capability = entrypoint.manage(TextServer())
        with pytest.raises(cm.RemoteError, match="no remote method"):
            capability.cast(Wrong).count(bad.manage(NothingServer()))
        with (
            cm.Descriptor(os.memfd_create("x")) as file,
            pytest.raises(cm.ArgumentError, match="a plain descriptor came"),
        ):
            capability.cast(WrongFile).count(file)
    caplog.clear()


def test_files_that_are_not_taken_are_closed(caplog):
    """Of a batch that has one wrong item."""
    with cm.Entrypoint("text") as entrypoint:
        proxy = entrypoint.manage(TextServer()).cast(Text)

        def wrong():
            for _ in range(3):
                yield cm.Descriptor(os.memfd_create("x"))
            yield "no file"

        for _ in range(3):
            with pytest.raises(cm.RemoteError, match="ArgumentError"):
                proxy.files(wrong())
    # The errors that were logged know the frames in which they were raised.
    caplog.clear()


class Leaving:
    """Iterates, and ends the program as it is closed."""

    def __iter__(self):
        return self

    def __next__(self):
        return "x"

    def close(self):
        raise SystemExit(3)


def test_one_end_that_raises_keeps_no_other_from_being_made(lines):
    """What it raises is not hidden, and knows what the call has failed for."""
    with cm.Entrypoint("text") as entrypoint:
        proxy = entrypoint.manage(TextServer()).cast(Text)
        before, behind = lines(), lines()
        for wrong in ((before, Leaving(), 5), (Leaving(), behind, 5)):
            for given in (before, behind):
                next(given, None)
            with pytest.raises(SystemExit) as raised:
                proxy.both(*wrong)
            assert isinstance(raised.value.__context__, cm.ArgumentError)
        assert lines.closed == 2
        del raised


# A full descriptor table.


def test_a_table_without_room_for_it_fails_the_call_and_no_more(fork):
    """Whichever of its descriptors finds none: the call fails, and what was to be passed is closed."""

    def swept():
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with cm.Entrypoint("text") as entrypoint:
            proxy = entrypoint.manage(TextServer()).cast(Text)
            assert proxy.first(iter(["x"])) == "x"
            for room in range(100):
                lines = Lines()
                given = lines()
                next(given)
                # What served the last one gives no room to this one.
                wait_for_streams_to_end()
                most = max(open_numbers()) + 1
                full = [os.dup(0) for _ in range(most - len(open_numbers()))]
                resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_numbers()) + 1 + room, hard))
                try:
                    proxy.first(given)
                    raised = False
                except (cm.Error, OSError):
                    raised = True
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
                    for number in full:
                        os.close(number)
                until(lambda lines=lines: lines.closed == 1)
                if not raised:
                    return room
        return None

    # Seven where it is served, and two where it is taken from.
    assert fork(swept).result() == 7 + 2


# Ctrl-C.


def test_ctrl_c_while_it_waits(fork):
    """In a call whose generator waits: it is closed as soon as it goes on, and the next call works."""

    def interrupted():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        go_on, lines = threading.Event(), Lines()

        def given():
            with contextlib.closing(lines()) as inner:
                yield next(inner)
                # The main thread of a process has its number.
                until(lambda: polls(types.SimpleNamespace(native_id=os.getpid())))
                os.kill(os.getpid(), signal.SIGINT)
                go_on.wait(PATIENCE)
                yield from inner

        with cm.Entrypoint("text") as entrypoint:
            proxy = entrypoint.manage(TextServer()).cast(Text)
            # With a deadline it waits in ppoll(2).
            with pytest.raises(KeyboardInterrupt), cm.timeout(PATIENCE):
                proxy.count(given())
            go_on.set()
            until(lambda: lines.closed == 1)
            assert proxy.first(iter(["x"])) == "x"
        return True

    assert fork(interrupted).result()


def none_is_taken(interrupting, error):
    """Whether what this has raised came before a call has taken any stream; its own frame is the last."""
    *_, (frame, _), _ = traceback.walk_tb(error.__traceback__)
    _, event = interrupting.where.split()
    at = f"{frame.f_code.co_name} {event}"
    return frame.f_code.co_filename == str(PASSING[0]) and at in LOOKING


@pytest.mark.parametrize("files", [PASSING, MAKING], ids=["passing", "making"])
def test_ctrl_c_between_two_steps(files, fork):
    """Of a call with a stream: it is closed, and all that served it is, wherever it comes once the call has begun."""

    def swept():
        at = 0
        with cm.Entrypoint("text") as entrypoint:
            proxy = entrypoint.manage(TextServer()).cast(Text)
            assert proxy.first(iter(["x"])) == "x"
            while True:
                lines = Lines()
                given = lines()
                next(given)
                interrupting, untaken = Interrupting(at, KeyboardInterrupt, files), False
                try:
                    with interrupting:
                        proxy.first(given)
                except KeyboardInterrupt as error:
                    untaken = none_is_taken(interrupting, error)
                gc.collect()
                if untaken:
                    # Its caller's still.
                    assert not lines.closed
                    given.close()
                until(lambda lines=lines: lines.closed == 1)
                wait_for_streams_to_end()
                if not interrupting.where:
                    return at
                at += 1

    assert fork(swept).result() > 10
