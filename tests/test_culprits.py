"""What cannot be sent is named by its parameter, whatever it raises, and is asked and touched once."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os

import pytest

import by_hand
import capmarshal as cm
import matrix
from patience import PATIENCE

TOO_BIG = 2**31


class Sink(cm.Interface):
    @cm.method
    def take(self, one: cm.Descriptor, two: cm.Descriptor) -> None: ...

    @cm.method
    def write(self, one: cm.Descriptor, out: io.BufferedWriter) -> None: ...

    @cm.method
    def group(self, things: dict[str, cm.Descriptor], *, named: cm.Descriptor | None = None) -> None: ...

    @cm.method
    def give(self) -> cm.Descriptor: ...


class SinkServer(Sink):
    def take(self, one, two):
        pass

    def write(self, one, out):
        pass

    def group(self, things, *, named=None):
        pass

    def give(self):
        return Numbered(TOO_BIG)


class Numbered:
    """Has a fileno() that gives something, or raises it, and counts how often it was asked."""

    def __init__(self, answer):
        self._answer = answer
        self.asked = 0

    def fileno(self):
        self.asked += 1
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def close(self):
        pass


@pytest.fixture
def capability():
    with by_hand.serving(SinkServer()) as made, cm.timeout(PATIENCE):
        yield made
        made.close()


@pytest.fixture
def sink(capability):
    return capability.cast(Sink)


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), KeyError("no"), OSError(5, "no"), cm.CallTimeout("no", ran="no")], ids=repr
)
def test_whatever_a_fileno_raises_has_a_note(sink, error):
    """It is raised as it is, and says whose it was; asked is once, for a second answer may be another."""
    bad = Numbered(error)
    with by_hand.temporary() as file:
        for call in (
            lambda: sink.take(file, bad),
            lambda: sink.take(bad, file),
            lambda: sink.group({"a": file, "b": bad}),
            lambda: sink.group({}, named=bad),
        ):
            bad.asked = 0
            with pytest.raises(type(error)) as caught:
                call()
            assert caught.value is error
            assert bad.asked == 1
    notes = [note for note in error.__notes__ if note.startswith("Sink.")]
    assert notes == [
        "Sink.take, argument `two`",
        "Sink.take, argument `one`",
        "Sink.group, argument `things`",
        "Sink.group, argument `named`",
    ]


def test_a_device_that_is_full(sink):
    """A writer that cannot be flushed raises what that raises."""
    with open("/dev/full", "wb") as out, by_hand.temporary() as file:
        out.write(b"pending")
        with pytest.raises(OSError, match="No space left") as caught:
            sink.write(file, out)
        assert caught.value.__notes__ == ["Sink.write, argument `out`"]
        with contextlib.suppress(OSError):
            out.close()


def test_a_pipe_that_nobody_reads(sink):
    with by_hand.pipe() as (reader, writer), by_hand.temporary() as file:
        out = open(os.dup(writer.fileno()), "wb")
        out.write(b"pending")
        reader.close()
        with pytest.raises(BrokenPipeError) as caught:
            sink.write(file, out)
        assert caught.value.__notes__ == ["Sink.write, argument `out`"]
        with contextlib.suppress(OSError):
            out.close()


@pytest.mark.parametrize("number", [TOO_BIG, 2**64])
def test_a_number_that_is_no_int_of_c(sink, number):
    with by_hand.temporary() as file:
        with pytest.raises(cm.ArgumentError, match=rf"^Sink\.take, argument `two`: {number} is no descriptor"):
            sink.take(file, Numbered(number))
        with pytest.raises(TypeError, match="no descriptor"):
            cm.Descriptor.dup_of(Numbered(number))
        with pytest.raises(ValueError, match="an int of C"):
            cm.Descriptor(number)


def test_a_result_with_such_a_number_fails_that_call(sink, caplog):
    """And does not end the channel: its caller was Disconnected."""
    # A log record that pytest keeps would keep what is in its traceback.
    caplog.set_level(logging.CRITICAL, "capmarshal")
    with pytest.raises(cm.Error, match=r"Sink\.give, result: \d+ is no descriptor") as caught:
        sink.give()
    assert not isinstance(caught.value, cm.Disconnected)


@pytest.mark.parametrize("thing", [io.BufferedReader, io.FileIO], ids=repr)
def test_a_class_is_no_file(sink, thing):
    with (
        by_hand.temporary() as file,
        pytest.raises(cm.ArgumentError, match=r"argument `two`: the class .* itself is no file: pass an object of it"),
    ):
        sink.take(file, thing)


def test_a_file_that_is_nowhere(sink):
    """What its tell() says is no place in a file."""

    class Nowhere(io.FileIO):
        pass

    class Reader(io.BufferedReader):
        def tell(self):
            return -5

    with by_hand.temporary(b"abc") as file, Reader(Nowhere(os.dup(file.fileno()))) as reader:
        with pytest.raises(cm.ArgumentError, match=r"argument `two`: its tell\(\) says -5"):
            sink.take(file, reader)


@matrix.calls_within_calls
def test_one_that_makes_failing_calls_itself(sink):
    """Each is made once: asked again at every depth, ten of them were two to the power of ten."""

    class Nested(Numbered):
        def fileno(self):
            self.asked += 1
            if self._answer is None:
                raise RuntimeError("the innermost")
            sink.group({"inner": self._answer})

    chain = [Nested(None)]
    while len(chain) < 10:
        chain.append(Nested(chain[-1]))
    with pytest.raises(RuntimeError, match="the innermost"):
        sink.group({"outer": chain[-1]})
    assert [each.asked for each in chain] == [1] * len(chain)


def test_what_the_kernel_refuses_is_found_without_asking_again(sink):
    """Its number was another file's by the second time."""

    class Closing(Numbered):
        def fileno(self):
            self.asked += 1
            # Where no other descriptor comes to be.
            number = fcntl.fcntl(self._answer, fcntl.F_DUPFD, 700)
            os.close(number)
            return number

    with by_hand.temporary() as file:
        closed = Closing(file.fileno())
        with pytest.raises(cm.ArgumentError, match=r"argument `two` cannot be sent: its descriptor is not open"):
            sink.take(file, closed)
        assert closed.asked == 1
