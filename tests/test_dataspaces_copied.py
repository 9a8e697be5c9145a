"""Dataspaces that cross a bridge: an equal one is made where they arrive, or none, and nothing is left of that."""

import asyncio
import contextlib
import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import capmarshal as cm
import loops
import nats_servers
from capmarshal._bridge.dataspaces import copied, described
from capmarshal._bridge.fetching import Window
from capmarshal._bridge.lending import Lender
from capmarshal._bridge_engine.engine import NoConnection
from capmarshal._bridge_engine.nats_engine import NatsEngine
from capmarshal._bridge_link.messages import Described
from capmarshal._bridge_link.sealing import Direction, Label, Seal
from capmarshal._bridge_link.tokens import Token
from patience import PATIENCE


def run(program, *arguments):
    """In a loop of asyncio."""
    return loops.run("asyncio", program, *arguments)


def copy_of(dataspace, most=1 << 30, **options):
    """Described, lent, and made anew in this process."""
    lender = Lender()
    number = lender.lend(dataspace)
    said = msgspec.msgpack.encode(described(dataspace))

    async def ask(offset, size):
        return lender.chunk(number, offset, size)

    try:
        return run(lambda: copied(msgspec.msgpack.decode(said, type=Described), ask, most, **options))
    finally:
        lender.end_all()


def refuse(description, most=1 << 30):
    """What is raised for a description, for which nothing is asked and no memory taken."""
    before = memories()

    async def ask(_offset, _size):
        raise AssertionError("it was asked for")

    async def program():
        with pytest.raises(cm.Error) as raised:
            await copied(description, ask, most)
        return raised.value

    error = run(program)
    assert memories() == before
    return error


def memories():
    """The numbers of all dataspaces that are open here."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if "capmarshal-dataspace" in str(link.readlink()):
                found.add(int(link.name))
    return found


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 100_000, 3_000_000])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_copy_is_like_the_original(size, sealed):
    """As many bytes, the same ones, and sealed if that is; it can be handed over like any other."""
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    with cm.Dataspace.create(size) as original:
        original.write(data)
        if sealed:
            original.seal()
        with copy_of(original) as copy:
            assert (copy.size, copy.shape, copy.format, copy.sealed) == (size, (size,), "B", sealed)
            assert bytes(copy.view()) == data
            assert not os.path.sameopenfile(copy.fileno(), original.fileno())
            if sealed:
                # Looks at seals and pages, as who receives it does.
                cm.Dataspace.receive(cm.Descriptor(os.dup(copy.fileno()))).close()
            else:
                copy.write(data)


@given(
    arrays.arrays(
        st.sampled_from(["?", "b", "B", "h", "H", "i", "I", "l", "L", "e", "f", "d", "F", "D"]).map(np.dtype),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    st.integers(1, 100),
)
def test_an_array_stays_one(array, chunk):
    """Of any format and shape, with no item, and with none around it."""
    with cm.Dataspace.from_buffer(array) as original, copy_of(original, chunk=chunk) as copy:
        assert (copy.format, copy.shape) == (array.dtype.char, array.shape)
        assert np.asarray(copy).tobytes() == array.tobytes()


NAUGHT = [
    (Described(-1, sealed=True), "less than nothing"),
    (Described(4, sealed=True, format="b", shape=(-2, -2)), "less than nothing"),
    (Described(8, sealed=True, format="d", shape=(2,)), r"of the shape \(2,\), format 'd', in 8 bytes"),
    (Described(16, sealed=True, format="d", shape=(1,)), r"of the shape \(1,\), format 'd', in 16 bytes"),
    (Described(8, sealed=True, format="O", shape=(1,)), "of the format 'O'"),
    (Described(8, sealed=True, format="", shape=(1,)), "a format of 0 letters"),
    (Described(8, sealed=True, format="d" * 1000, shape=(1,)), "a format of 1000 letters"),
    (Described(1, sealed=True, format="b", shape=(1,) * 65), "65 dimensions"),
    (Described(0, sealed=True, format="d", shape=(0, 1 << 62)), "of the shape"),
    (Described(0, sealed=True, format="d", shape=(1 << 32, 1 << 32)), "of the shape"),
    (Described(4, sealed=True, shape=(4,)), "no format of its items"),
]


@pytest.mark.parametrize(("description", "words"), NAUGHT)
def test_a_description_of_what_can_not_be_is_refused(description, words):
    """Before anything is done; in words that are short, whatever it says."""
    error = refuse(description)
    assert isinstance(error, cm.ArgumentError)
    with pytest.raises(cm.ArgumentError, match=words):
        raise error
    assert len(str(error)) < 250


def test_more_than_the_most_is_refused():
    """And so many are taken."""
    with pytest.raises(cm.TooLarge, match="a dataspace came of 1,001 bytes, and 1,000 are taken of one at most"):
        raise refuse(Described(1001, sealed=True), most=1000)
    with cm.Dataspace.from_buffer(bytes(1000)) as original:
        copy_of(original, most=1000).close()
    assert isinstance(refuse(Described(1 << 62, sealed=True)), cm.TooLarge)


def test_what_this_machine_has_no_memory_for_is_refused():
    """However much is allowed."""
    for size in (1 << 50, 1 << 70):
        assert isinstance(refuse(Described(size, sealed=True), most=1 << 80), cm.KernelError)


@given(
    st.builds(
        Described,
        st.integers(-10, 40),
        st.booleans(),
        st.none() | st.text(max_size=2),
        st.tuples() | st.tuples(st.integers(-3, 9)) | st.tuples(st.integers(-3, 9), st.integers(-3, 9)),
    )
)
def test_any_description_makes_what_it_says_or_an_error_of_ours(description):
    """No other error, and no other dataspace."""

    async def ask(_offset, size):
        return b"x" * size

    async def program():
        try:
            made = await copied(description, ask, 1000)
        except cm.ArgumentError:
            return
        with made:
            assert described(made) in (description, Described(description.size, description.sealed))
            assert bytes(made.view()) == b"x" * description.size

    run(program)


@pytest.mark.parametrize("how", ["error", "short", "cancelled", "given up"])
def test_where_fetching_fails_there_is_no_dataspace(how):
    """However: it is closed at once."""
    before = memories()

    async def program():
        asked = asyncio.Event()

        async def ask(_offset, size):
            asked.set()
            if how == "cancelled":
                await asyncio.Event().wait()
            if how == "given up":
                raise NoConnection("no connection")
            if how == "error":
                raise RuntimeError("refused")
            return bytes(size - 1)

        task = asyncio.create_task(copied(Described(10, sealed=True), ask, 10, give_up=lambda: True))
        await asked.wait()
        if how == "cancelled":
            assert memories() != before
            task.cancel()
        kinds = {"short": cm.ProtocolError, "given up": NoConnection, "error": RuntimeError}
        with pytest.raises(kinds.get(how, asyncio.CancelledError)) as raised:
            await task
        # While what was raised is there.
        assert memories() == before
        assert raised.value

    run(program)


def test_memory_is_taken_for_what_has_come():
    """Who announces a gigabyte and sends a byte costs a page of it."""
    before = memories()

    async def program():
        seen = []

        async def ask(_offset, size):
            [number] = memories() - before
            seen.append(os.fstat(number).st_blocks * 512)
            if len(seen) == 3:
                raise RuntimeError("enough")
            return bytes(size)

        with pytest.raises(RuntimeError):
            await copied(Described(1 << 30, sealed=True), ask, 1 << 30, window=Window(1), chunk=1 << 16)
        assert seen == [0, 1 << 16, 2 << 16]

    run(program)


MIB = 1 << 20
SIZE = 100 * MIB
# How much its receiver may need beside it: some bodies that are on their way, and what is made of them.
BESIDE = 16 * MIB

# What a bridge will do of it, by hand: each ask and each chunk sealed, and answers that are none dropped.
RECEIVER = """
import asyncio, hashlib, os, struct, sys
import msgspec
from capmarshal._bridge.dataspaces import copied
from capmarshal._bridge_link.messages import Described
from capmarshal._bridge_engine.nats_engine import NatsEngine
from capmarshal._bridge_link.sealing import Direction, Label, NotGenuine, Seal
from capmarshal._bridge_link.tokens import Token

token = Token.parse(sys.stdin.readline())
there, back = Seal(token, Direction.TO_EXPORTER), Seal(token, Direction.TO_IMPORTER)

async def copy(engine, number, said):
    async def ask(offset, size):
        call, answers = os.urandom(16), []

        def accept(body):
            try:
                label, chunk = back.open(body)
            except NotGenuine:
                return False
            if label.call == call:
                answers.append(chunk)
            return label.call == call

        body = there.seal(Label(1, call, bytes(16)), struct.pack("<QQQ", number, offset, size))
        await engine.call(token.subject, body, within=20, accept=accept)
        return answers[0]

    return await copied(msgspec.json.decode(said, type=Described), ask, 1 << 30)

def most():
    # Not ru_maxrss, which is also that of whoever this process was forked by.
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

async def main():
    engine = await NatsEngine.connect([sys.argv[1]])
    try:
        # What is had once, however much is copied.
        (await copy(engine, 1, sys.argv[2])).close()
        before = most()
        with await copy(engine, 2, sys.argv[3]) as made:
            grown = most() - before
            digest = hashlib.sha256()
            for offset in range(0, made.size, 1 << 20):
                digest.update(os.pread(made.fileno(), 1 << 20, offset))
            print(made.size, made.format, *made.shape, made.sealed, digest.hexdigest(), grown)
    finally:
        await engine.close(within=0)

asyncio.run(main())
"""


@pytest.mark.usefixtures("freed_memory_is_given_back")
def test_a_large_one_crosses_between_processes_and_needs_no_memory_beside_it(tmp_path):
    """100 MiB through a node of NATS, each body sealed: the receiver has the dataspace, and a few chunks beside it."""
    token = Token.new("host")
    there, back = Seal(token, Direction.TO_EXPORTER), Seal(token, Direction.TO_IMPORTER)
    lender = Lender()
    piece = np.arange(MIB // 8 + 1, dtype="d").tobytes()[1 : MIB + 1]
    digest = hashlib.sha256()

    async def serve(body):
        label, asked = there.open(body)
        return back.seal(Label(2, label.call, label.lease), lender.chunk(*struct.unpack("<QQQ", asked)))

    async def program(node):
        engine = await NatsEngine.connect([node.address])
        try:
            await engine.serve(token.subject, serve)
            receiver = await asyncio.create_subprocess_exec(
                *[sys.executable, "-P", "-W", "error", "-c", RECEIVER, node.address, *said],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            try:
                out, _ = await receiver.communicate(token.reveal().encode() + b"\n")
            except BaseException:
                receiver.kill()
                await receiver.wait()
                raise
            return receiver.returncode, out.decode().split()
        finally:
            await engine.close(within=0)

    with nats_servers.nodes(tmp_path) as [node]:
        with cm.Dataspace.create((SIZE // MIB, MIB // 8), "d") as large, cm.Dataspace.from_buffer(bytes(MIB)) as small:
            for number in range(SIZE // MIB):
                # No two pieces are the same.
                data = struct.pack("<Q", number) + piece[8:]
                large.write(data, number * MIB)
                digest.update(data)
            large.seal()
            said = [msgspec.json.encode(described(each)).decode() for each in (small, large)]
            assert [lender.lend(small), lender.lend(large)] == [1, 2]
        code, words = loops.run("asyncio", program, node, seconds=PATIENCE)
        lender.end_all()
    assert code == 0
    assert words[:-1] == [str(SIZE), "d", str(SIZE // MIB), str(MIB // 8), "True", digest.hexdigest()]
    assert int(words[-1]) < BESIDE
