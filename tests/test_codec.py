"""Arguments and results to payload and table, and back: here the test plays the kernel, and duplicates descriptors."""

import contextlib
import dataclasses
import enum
import fcntl
import gc
import io
import os
import socket
import tempfile
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import capmarshal as cm
from capmarshal._capabilities.capability import open_door_of
from capmarshal._capabilities.door import home_of
from capmarshal._capabilities.space import space
from capmarshal._descriptors import reaper as _reaper
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._protocol import wire as _wire
from capmarshal._typed import codec as _codec
from capmarshal._typed.files import open_received
from capmarshal._typed.incoming import Incoming
from capmarshal._typed.method import Method
from capmarshal._typed.outgoing import Outgoing

PATIENCE = 30.0

# What a payload that is no good may raise; everything else would be a crash of the server.
BAD = (ValueError, TypeError, OverflowError, RecursionError, cm.StaleCapability)


class Thing(cm.Interface):
    """Something to have capabilities of."""

    @cm.method
    def use(self) -> None: ...


class ThingServer(Thing):
    def use(self) -> None: ...


class Other(cm.Interface):
    @cm.method
    def use(self) -> None: ...


def _open_now():
    """How many descriptors this process has, once everything on its way to be closed is."""
    assert _reaper.wait(PATIENCE)
    count = 0
    for number in range(128):
        with contextlib.suppress(OSError):
            fcntl.fcntl(number, fcntl.F_GETFD)
            count += 1
    return count


def _nothing_left(before):
    """That as many descriptors are open as before; a full garbage collection only where it makes a difference."""
    if _open_now() != before:
        gc.collect()
    assert _open_now() == before


def _identity(file):
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _world():
    """Files and capabilities to send: two entrypoints of this process, and one that stands for another's."""
    with contextlib.ExitStack() as stack:
        entrypoints = [cm.Entrypoint(label) for label in ("one", "two")]
        for entrypoint in entrypoints:
            stack.callback(entrypoint.close)
        capabilities = [entrypoint.manage(ThingServer()) for entrypoint in entrypoints for _ in range(2)]
        server, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(server)
        server.bind("\0capmarshal/foreign/" + os.urandom(8).hex())
        with cm.Descriptor(client.detach()) as descriptor:
            door = space.receive_door(descriptor, None)
        capabilities += [space.receive(door, bytes([number]) * 16) for number in (1, 2)]
        files = [stack.enter_context(cm.Descriptor(os.memfd_create(f"test-{i}"))) for i in range(4)]
        yield files, capabilities


def _transfer(value, annotation):
    """The kernel's part: what arrives when ``value`` is sent to an ``annotation``, and the table it came out of."""
    outgoing = Outgoing()
    payload = _codec.encode(value, outgoing)
    record = _wire.unpack(_wire.pack_reply(1, outgoing.entries, len(outgoing.numbers), payload))
    incoming = Incoming(record.entries, DescriptorList.dup_of(outgoing.numbers))
    try:
        return _codec.decoder_for(annotation)(record.payload, incoming), incoming
    except BaseException:
        incoming.close_all()
        raise


@contextlib.contextmanager
def _table(capabilities):
    """An Incoming of three plain descriptors, of a pipe and a memfd, and one entry for each capability."""
    outgoing = Outgoing()
    read_end, write_end = os.pipe()
    memfd = os.memfd_create("test")
    with cm.Descriptor(read_end) as reader, cm.Descriptor(write_end) as writer, cm.Descriptor(memfd) as file:
        for one in (reader, writer, file, *capabilities):
            outgoing.add(one)
        incoming = Incoming(outgoing.entries, DescriptorList.dup_of(outgoing.numbers))
    try:
        yield incoming
    finally:
        incoming.close_all()


# ---------------------------------------------------------------------------------------------------- round trips

# Where a value holds a file or a capability: which one; the number is taken modulo those there are.
File = dataclasses.make_dataclass("File", ["number"], frozen=True)
Cap = dataclasses.make_dataclass("Cap", ["number", "of"], frozen=True)

leaves = st.one_of(
    st.tuples(st.just(int), st.integers(-(2**63), 2**64 - 1)),
    st.tuples(st.just(str), st.text(max_size=8)),
    st.tuples(st.just(bytes), st.binary(max_size=8)),
    st.tuples(st.just(float), st.floats(allow_nan=False)),
    st.tuples(st.just(bool), st.booleans()),
    st.tuples(st.just(cm.Descriptor), st.builds(File, st.integers(0, 99))),
    st.tuples(st.just(io.BufferedReader), st.builds(File, st.integers(0, 99))),
    st.tuples(st.just(cm.Capability), st.builds(Cap, st.integers(0, 99), st.just("capability"))),
    st.tuples(st.just(Thing), st.builds(Cap, st.integers(0, 99), st.sampled_from(["proxy", "managed"]))),
)


def _branches(children):
    @st.composite
    def sequence(draw):
        kind, value = draw(children)
        return list[kind], [value] * draw(st.integers(0, 3))

    @st.composite
    def mapping(draw):
        kind, value = draw(children)
        return dict[str, kind], dict.fromkeys(draw(st.sets(st.text(max_size=3), max_size=3)), value)

    @st.composite
    def record(draw):
        fields = draw(st.lists(children, max_size=3))
        names = [f"field{i}" for i in range(len(fields))]
        members = [(name, kind) for name, (kind, _) in zip(names, fields, strict=True)]
        if draw(st.booleans()):
            made = msgspec.defstruct("Made", members)
        else:
            made = dataclasses.make_dataclass("Made", members)
        return made, made(*[value for _, value in fields])

    @st.composite
    def optional(draw):
        kind, value = draw(children)
        return kind | None, draw(st.sampled_from([value, None]))

    @st.composite
    def pair(draw):
        one, other = draw(children), draw(children)
        return tuple[one[0], other[0]], (one[1], other[1])

    return st.one_of(sequence(), mapping(), record(), optional(), pair())


typed_values = st.recursive(leaves, _branches, max_leaves=8)


def _fields(record):
    if isinstance(record, msgspec.Struct):
        return record.__struct_fields__
    return [field.name for field in dataclasses.fields(record)]


def _filled(value, files, capabilities):
    """The value with real files and capabilities in it."""
    match value:
        case File(number):
            return files[number % len(files)]
        case Cap(number, of):
            capability = capabilities[number % len(capabilities)]
            if of == "capability":
                return capability
            return capability.local if of == "managed" and capability.local else capability.cast(Thing)
        case list() | tuple():
            return type(value)(_filled(part, files, capabilities) for part in value)
        case dict():
            return {name: _filled(part, files, capabilities) for name, part in value.items()}
    if isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value):
        return type(value)(*[_filled(getattr(value, name), files, capabilities) for name in _fields(value)])
    return value


def _check(sent, came):
    """That what came is what was sent."""
    match sent:
        case cm.Descriptor():
            assert came.fileno() != sent.fileno()
            assert _identity(came) == _identity(sent)
        case cm.Capability():
            assert came is sent
        case Thing():
            assert cm.capability(came) is cm.capability(sent)
        case list() | tuple():
            assert type(came) is type(sent)
            for one, other in zip(sent, came, strict=True):
                _check(one, other)
        case dict():
            assert came.keys() == sent.keys()
            for name, part in sent.items():
                _check(part, came[name])
        case _ if isinstance(sent, msgspec.Struct) or dataclasses.is_dataclass(sent):
            assert type(came) is type(sent)
            for name in _fields(sent):
                _check(getattr(sent, name), getattr(came, name))
        case _:
            assert (type(came), came) == (type(sent), sent)


@given(typed_values)
def test_any_nested_value_comes_back_as_it_was_sent(typed):
    """Lists, dicts, tuples, Structs, dataclasses and None of data, files and capabilities; each file is that file."""
    before = _open_now()
    with _world() as (files, capabilities):
        value = _filled(typed[1], files, capabilities)
        came, incoming = _transfer(value, typed[0])
        incoming.close_rest()
        _check(value, came)
        incoming.close_all()
    del value, came, incoming, capabilities, files
    _nothing_left(before)


def test_two_ends_of_a_pipe_arrive_as_themselves():
    """Reader and writer are not mixed up: what is written to the one comes out of the other."""
    read_end, write_end = os.pipe()
    with cm.Descriptor(read_end) as reader, cm.Descriptor(write_end) as writer:
        value = {"out": writer, "in": [reader]}
        came, incoming = _transfer(value["out"], io.BufferedWriter)
        came.write(b"through")
        came.close()
        incoming.close_all()
        (arrived,), incoming = _transfer(value["in"], list[io.BufferedReader])
        writer.close()
        assert arrived.read() == b"through"
        incoming.close_all()


class Lister(cm.Interface):
    """Lists of descriptors among other things."""

    @cm.method
    def take(
        self, first: cm.Descriptor, some: list[cm.Descriptor], number: int, *, others: list[cm.Descriptor]
    ) -> list[cm.Descriptor]: ...

    @cm.method
    def lists(self, some: list[cm.Descriptor], others: list[cm.Descriptor]) -> tuple[int, list[cm.Descriptor]]: ...


def _passed(method, arguments, incoming_of):
    """What decode_arguments() makes of what encode_arguments() gives."""
    outgoing = Outgoing()
    payload = memoryview(method.encode_arguments(method.given(*arguments), outgoing))
    incoming = incoming_of(outgoing.entries, DescriptorList.dup_of(outgoing.numbers))
    by_position, by_name = method.decode_arguments(payload, incoming)
    return [*by_position, *by_name.values()], incoming


@pytest.mark.parametrize("sizes", [(0, 0), (1, 0), (0, 1), (3, 4), (200, 100), (253, 0), (254, 1)], ids=str)
@pytest.mark.parametrize("name", ["take", "lists"])
def test_lists_of_descriptors_arrive_in_order(identity, sizes, name):
    """Each in its own place, whatever stands beside it, and however many there are."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(cm.Descriptor(os.memfd_create("test"))) for _ in range(sum(sizes) + 1)]
        some, others = files[1 : sizes[0] + 1], files[sizes[0] + 1 :]
        method = Method(Lister, name, getattr(Lister, name))
        arguments = (files[0], some, 7, others) if name == "take" else (some, others)
        came, incoming = _passed(method, arguments, Incoming)
        stack.callback(incoming.close_all)
        assert len(came) == len(arguments)
        for sent, arrived in zip(arguments, came, strict=True):
            if isinstance(sent, list):
                assert list(map(identity, arrived)) == list(map(identity, sent))
        assert len({each.fileno() for part in came if isinstance(part, list) for each in part}) == sum(sizes)
        incoming.close_rest()
        # The call still owns them: a method may do with its list what it likes.
        came[-1].clear()
        incoming.close_all()
        assert _reaper.wait(30)
        assert all(each.closed for part in came if isinstance(part, list) for each in part)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ([0, 0], r"used twice - at `some\[1\]`"),
        ([0, 5], r"no index into a table of 2 - at `some\[1\]`"),
        ([0, -1], r"no index into a table of 2 - at `some\[1\]`"),
        ([1, 0, 2], r"no index into a table of 2 - at `some\[2\]`"),
        ([0, 1, 2], r"no index into a table of 2 - at `some\[2\]`"),
        ([0, True], r"at `some\[1\]`"),
        ([0, 1.0], r"at `some\[1\]`"),
        ([0], "where the interface says data"),
        ([], "where the interface says data"),
        (0, "at `some`"),
        (None, "at `some`"),
    ],
    ids=str,
)
def test_a_list_of_wrong_indices_is_refused_by_its_place(wrong, why):
    """The error names the parameter and the place in it; all that came are closed."""
    method = Method(Lister, "lists", Lister.lists)
    with cm.Descriptor(os.memfd_create("test")) as file:
        descriptors = DescriptorList.dup_of([file.fileno()] * 2)
        numbers = descriptors.numbers()
        incoming = Incoming([_wire.Entry(0, _wire.NO_BADGE), _wire.Entry(1, _wire.NO_BADGE)], descriptors)
        with pytest.raises(cm.ArgumentError, match=why):
            method.decode_arguments(memoryview(msgspec.msgpack.encode([wrong, []])), incoming)
        incoming.close_all()
        for number in numbers:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)


def test_one_descriptor_in_two_lists_is_refused():
    """A second list cannot take what the first has; nor can a parameter of its own."""
    method = Method(Lister, "lists", Lister.lists)
    with cm.Descriptor(os.memfd_create("test")) as file:
        for lists in ([[0, 1], [1]], [[0, 1], [0, 1]], [[1], [0, 1]]):
            incoming = Incoming(_wire.PLAIN[:2], DescriptorList.dup_of([file.fileno()] * 2))
            with pytest.raises(cm.ArgumentError, match="used twice - at `others"):
                method.decode_arguments(memoryview(msgspec.msgpack.encode(lists)), incoming)
            incoming.close_all()
        method = Method(Lister, "take", Lister.take)
        incoming = Incoming(_wire.PLAIN[:2], DescriptorList.dup_of([file.fileno()] * 2))
        with pytest.raises(cm.ArgumentError, match=r"used twice - at `some\[0\]`"):
            method.decode_arguments(memoryview(msgspec.msgpack.encode({"": [0, [0, 1], 7], "others": []})), incoming)
        incoming.close_all()


def test_a_list_of_descriptors_takes_no_capability():
    """In a list as anywhere, what is due is what must come."""
    with _world() as (_, capabilities), _table(capabilities[:1]) as incoming:
        with pytest.raises(msgspec.ValidationError, match=r"a capability came where .* - at `\$\[3\]`"):
            _codec.decoder_for(list[cm.Descriptor])(memoryview(msgspec.msgpack.encode([0, 1, 2, 3])), incoming)


def test_anything_with_a_descriptor_may_be_in_a_list(identity, tmp_path):
    """Files and sockets beside descriptors; what is closed, or no file, is refused by its name."""
    method = Method(Lister, "lists", Lister.lists)
    with cm.Descriptor(os.memfd_create("test")) as file, open(tmp_path / "file", "wb") as writer:
        came, incoming = _passed(method, ([file, writer, file], [file]), Incoming)
        assert [identity(each) for part in came for each in part] == [identity(f) for f in (file, writer, file, file)]
        incoming.close_all()
        closed = file.dup()
        closed.close()
        with pytest.raises(cm.Closed) as caught:
            method.encode_arguments(([file], [file, closed]), Outgoing())
        assert caught.value.__notes__ == ["Lister.lists, argument `others`"]
        with pytest.raises(cm.ArgumentError, match=r"argument `some`: `object`"):
            method.encode_arguments(([file, object()], []), Outgoing())


def test_capabilities_of_one_door_share_a_slot():
    """Six capabilities of three doors take three descriptors; a plain descriptor has one of its own, each time."""
    with _world() as (files, capabilities):
        outgoing = Outgoing()
        _codec.encode([*capabilities, *capabilities, files[0], files[0]], outgoing)
        assert len(outgoing.entries) == 14
        assert len(outgoing.numbers) == 5


def test_the_same_capability_twice_is_the_same_object():
    """Received twice in one message, or in two, it is one object on one descriptor."""
    with _world() as (_, capabilities):
        before = _open_now()
        first, incoming = _transfer([capabilities[4]] * 2, list[cm.Capability])
        incoming.close_rest()
        second, incoming = _transfer(capabilities[4], cm.Capability)
        incoming.close_rest()
        assert first[0] is first[1] is second is capabilities[4]
        _nothing_left(before)


def test_sets_of_capabilities_travel():
    """A capability can be hashed, so a set of them is a value like any other."""
    with _world() as (_, capabilities):
        came, incoming = _transfer(set(capabilities), set[cm.Capability])
        incoming.close_rest()
        assert came == set(capabilities)


def test_more_capabilities_than_a_table_holds_are_refused():
    """They share a descriptor, but the table has 65534 lines: one more is a ValueError."""
    with _world() as (_, capabilities):
        outgoing = Outgoing()
        _codec.encode([capabilities[0]] * 65534, outgoing)
        assert len(_wire.pack_reply(1, outgoing.entries, 1, b"")) > 65535
        with pytest.raises(ValueError, match="65534"):
            _codec.encode([capabilities[0]] * 65535, Outgoing())


# ------------------------------------------------------------------------------------------------- what is refused

ANNOTATIONS = (
    Any,
    int,
    cm.Descriptor,
    cm.Capability,
    Thing,
    Thing | None,
    socket.socket,
    io.BufferedReader | None,
    list[cm.Descriptor],
    list[Thing],
    dict[str, io.BufferedWriter],
    dict[int, list[cm.Capability]],
    tuple[Thing, cm.Descriptor, str],
    msgspec.defstruct("Both", [("file", cm.Descriptor), ("thing", Thing | None, None)]),
)
DECODERS = [(annotation, _codec.decoder_for(annotation)) for annotation in ANNOTATIONS]

indices = st.one_of(
    st.integers(0, 9), st.integers(-(2**63), 2**64 - 1), st.booleans(), st.floats(), st.none(), st.text(max_size=2)
)
hostile_values = st.recursive(
    indices,
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.sampled_from(["file", "thing", "x"]) | st.integers(0, 99), children, max_size=3)
    ),
    max_leaves=6,
)
hostile_payloads = st.binary(max_size=40) | hostile_values.map(msgspec.msgpack.encode)


@given(st.sampled_from(DECODERS), hostile_payloads)
def test_any_payload_decodes_or_is_a_bad_argument(decoder, payload):
    """Arbitrary bytes, and arbitrary values as indices; and everything that came is closed afterwards."""
    before = _open_now()
    with _world() as (_, capabilities), _table(capabilities) as incoming, contextlib.suppress(*BAD):
        decoder[1](memoryview(payload), incoming)
    del capabilities, incoming
    _nothing_left(before)


@given(st.lists(st.integers(0, 3), max_size=6))
def test_an_entry_is_used_once(indices):
    """A payload that names one entry twice would give one descriptor two owners: it is refused."""
    decoder = _codec.decoder_for(list[cm.Descriptor])
    with _table([]) as incoming:
        payload = memoryview(msgspec.msgpack.encode(indices))
        if len(set(indices)) == len(indices) and max(indices, default=0) < 3:
            assert len(decoder(payload, incoming)) == len(indices)
        else:
            with pytest.raises(msgspec.ValidationError, match=r"used twice|no index"):
                decoder(payload, incoming)


@pytest.mark.parametrize("index", [-1, 3, 2**64 - 1, True, False, 1.0, "1", b"1", None, [1], {"1": 1}])
def test_only_an_int_in_range_is_an_index(index):
    """Not True, not 1.0, not -1; and the error names the place, but shows nothing that the peer chose at length."""
    with _table([]) as incoming, pytest.raises(msgspec.ValidationError, match=r"\$\[1\]"):
        _codec.decoder_for(list[cm.Descriptor])(memoryview(msgspec.msgpack.encode([0, index])), incoming)


def test_what_stands_at_an_index_is_not_repeated_in_the_error():
    """A megabyte where an index is due does not come back as an error of four megabytes."""
    payload = memoryview(msgspec.msgpack.encode(bytes(1 << 20)))
    with _table([]) as incoming, pytest.raises(msgspec.ValidationError) as caught:
        _codec.decoder_for(cm.Descriptor)(payload, incoming)
    assert len(str(caught.value)) < 200


def test_a_capability_is_no_file_and_a_file_no_capability():
    """The kind of the entry must be what the annotation says, whatever the descriptor would do."""
    with _world() as (_, capabilities):
        with _table(capabilities[:1]) as incoming, pytest.raises(ValueError, match=r"capability came.*Descriptor"):
            _codec.decoder_for(cm.Descriptor)(memoryview(b"\3"), incoming)
        with _table(capabilities[:1]) as incoming, pytest.raises(ValueError, match=r"plain descriptor came.*Thing"):
            _codec.decoder_for(Thing)(memoryview(b"\0"), incoming)


@pytest.mark.parametrize(
    ("annotation", "index", "why"),
    [
        (io.BufferedWriter, 0, "open for writing is due; what came is a pipe open for reading only"),
        (io.BufferedReader, 1, "open for reading is due; what came is a pipe open for writing only"),
        (socket.socket, 2, "a socket is due; what came is a memfd"),
    ],
)
def test_a_file_of_the_wrong_kind_is_refused(annotation, index, why):
    """The reading end of a pipe is no writer, the writing end no reader, a memfd no socket."""
    with _table([]) as incoming, pytest.raises(ValueError, match=why):
        _codec.decoder_for(annotation)(memoryview(bytes([index])), incoming)


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="there is no tmpfs at /dev/shm")
def test_a_file_of_tmpfs_is_not_called_a_memfd():
    """Though it has seals as one has."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        before = _open_now()
        with pytest.raises(ValueError, match="a socket is due; what came is a file open for both ways"):
            _transfer(file, socket.socket)
        _nothing_left(before)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDONLY | os.O_DIRECTORY, os.O_PATH])
def test_what_cannot_be_read_is_no_reader(tmp_path, flags):
    """A directory is open for reading, but is no file; an O_PATH descriptor is not open at all."""
    with cm.Descriptor(os.open(tmp_path, flags)) as directory:
        before = _open_now()
        with pytest.raises(ValueError, match=r"is due; what came is a (directory|mere path \(O_PATH\))(?!:)"):
            _transfer(directory, io.BufferedReader)
        _nothing_left(before)


@pytest.mark.parametrize("mode", ["rb", "wb"])
def test_a_number_that_somebody_closed_is_said_to_be_closed(mode):
    """And not to be a mere path, whose bit a negative number has."""
    descriptor = cm.Descriptor(os.memfd_create("closed"))
    os.close(descriptor.fileno())
    with pytest.raises(cm.ArgumentError, match="what came is a descriptor that is closed"):
        open_received(descriptor, mode)
    descriptor.detach()


def _listener():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind("\0test-" + os.urandom(8).hex())
    sock.listen()
    return sock


@pytest.mark.parametrize(
    "make",
    [
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET),
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        lambda: cm.Descriptor(os.memfd_create("test")),
        _listener,
    ],
    ids=["unconnected", "datagrams", "tcp", "memfd", "listener"],
)
def test_only_the_client_end_of_a_door_makes_a_capability(make):
    """Whatever else comes with a badge is refused, and closed."""
    before = _open_now()
    with make() as wrong:
        incoming = Incoming([_wire.Entry(0, b"b" * 16)], DescriptorList.of([cm.Descriptor.dup_of(wrong)]))
        with pytest.raises(ValueError, match="capability came with"):
            _codec.decoder_for(cm.Capability)(memoryview(b"\0"), incoming)
        incoming.close_all()
    _nothing_left(before)


def test_a_capability_comes_home_as_the_object_itself():
    """To the handler of its own entrypoint it is the object; to anybody else of the process a proxy."""
    target = ThingServer()
    entrypoint = cm.Entrypoint("home")
    try:
        capability = entrypoint.manage(target)
        outgoing = Outgoing()
        outgoing.add(capability)
        for home, expected in ((home_of(open_door_of(capability)), target), (None, capability.cast(Thing))):
            incoming = Incoming(outgoing.entries, DescriptorList.dup_of(outgoing.numbers), home=home)
            came = _codec.decoder_for(Thing)(memoryview(b"\0"), incoming)
            incoming.close_rest()
            assert came == expected
            assert (came is target) == (home is not None)
        incoming = Incoming(
            outgoing.entries,
            DescriptorList.dup_of(outgoing.numbers),
            home=home_of(open_door_of(capability)),
        )
        with pytest.raises(ValueError, match=r"ThingServer, not a .*Other"):
            _codec.decoder_for(Other)(memoryview(b"\0"), incoming)
        incoming.close_all()
    finally:
        entrypoint.close()


def test_a_forged_badge_of_our_own_is_stale():
    """A badge that our own entrypoint never gave out is refused when it is received, not when it is called."""
    with _world() as (_, capabilities):
        number = open_door_of(capabilities[0]).number
        incoming = Incoming([_wire.Entry(0, b"guessed!" * 2)], DescriptorList.of([cm.Descriptor.dup_of(number)]))
        with pytest.raises(cm.StaleCapability):
            _codec.decoder_for(cm.Capability)(memoryview(b"\0"), incoming)
        incoming.close_all()


@pytest.mark.parametrize("value", [object(), {1j}, [object()], {"x": lambda: None}], ids=repr)
def test_what_is_no_data_is_a_type_error(value):
    """An object that has no descriptor, and is no capability, cannot be sent."""
    with pytest.raises(TypeError, match="cannot be sent"):
        _codec.encode(value, Outgoing())


def test_a_hook_outside_of_a_call_does_nothing():
    """The encoder and decoders know their record by the call; on their own they refuse what is no data."""
    with cm.Descriptor(os.memfd_create("test")) as file, pytest.raises(TypeError, match="cannot be sent"):
        _codec._encode_hook(file)
    with pytest.raises(TypeError, match="received here"):
        _codec._decode_hook(cm.Descriptor, 0)


# --------------------------------------------------------------------------------- what a method makes of all that


class Taker(cm.Interface):
    @cm.method
    def take(self, anything: Any) -> Any: ...
    @cm.method
    def views(self, view: memoryview, raw: msgspec.Raw, text: str) -> list[bytes]: ...
    @cm.method
    def number(self, n: int, *, name: str = "") -> int: ...


class TakerServer(Taker):
    def take(self, anything):
        return anything

    def views(self, view, raw, text):
        return []

    def number(self, n, *, name=""):
        return n


class Filer(cm.Interface):
    @cm.method
    def file(self, anything: cm.Descriptor) -> None: ...


TAKE = Method(Taker, "take", Taker.take)
FILE = Method(Filer, "file", Filer.file)


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_deep_nesting_is_a_bad_argument_on_the_way_out():
    """A list in a list, a million times, is an ArgumentError at the client that names the parameter.

    Python 3.14 lets the stack decide, which has room for 100,000.
    """
    with pytest.raises(cm.ArgumentError, match=r"Taker\.take.*anything"):
        TAKE.encode_arguments((_nested(1_000_000),), Outgoing())


@pytest.mark.parametrize("depth", [10_000, 30_000, 100_000])
def test_deep_nesting_is_a_result_or_a_bad_argument_whoever_finds_it_too_deep(depth):
    """Client and server need not agree: their stacks differ."""
    with cm.Entrypoint("nested") as entrypoint, cm.timeout(PATIENCE):
        taker = entrypoint.manage(TakerServer()).cast(Taker)
        try:
            value = taker.take(_nested(depth))
        except cm.ArgumentError as error:
            assert str(error).startswith("Taker.take")
        else:
            assert len(value) == 1


@pytest.mark.parametrize("part", [b"\x91", b"\x81\x01", b"\x81\xa1x"], ids=["arrays", "maps of int", "maps of str"])
def test_deep_nesting_is_a_bad_argument_on_the_way_in(part):
    """A hostile payload of the same kind is an ArgumentError, not the RecursionError of msgspec's."""
    payload = memoryview(b"\x91" + part * 100_000 + b"\x00")
    with pytest.raises(cm.ArgumentError, match=r"Taker\.take, arguments: maximum recursion depth"):
        TAKE.decode_arguments(payload, Incoming([], DescriptorList()))
    with pytest.raises(cm.ArgumentError, match=r"Taker\.take, result: maximum recursion depth"):
        TAKE.decode_result(payload, Incoming([], DescriptorList()))


@pytest.mark.parametrize(
    "header", [b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"], ids=["array", "map", "bin", "str", "ext"]
)
def test_an_announced_length_costs_nothing(header):
    """Four thousand million elements, of which none follows, are a bad argument at once."""
    with pytest.raises(cm.ArgumentError):
        TAKE.decode_arguments(memoryview(b"\x91" + header + b"\xff\xff\xff\xff"), Incoming([], DescriptorList()))


@given(hostile_payloads)
def test_a_method_raises_argument_error_and_nothing_else(payload):
    """Whatever the payload, the dispatcher sees the arguments, an ArgumentError or a StaleCapability."""
    for method in (TAKE, Method(Taker, "views", Taker.views), Method(Taker, "number", Taker.number)):
        with contextlib.suppress(cm.ArgumentError, cm.StaleCapability):
            method.decode_arguments(memoryview(payload), Incoming([], DescriptorList()))
        with contextlib.suppress(cm.ArgumentError, cm.StaleCapability):
            method.decode_result(memoryview(payload), Incoming([], DescriptorList()))


class Odd(enum.Enum):
    ONE = "one"


@dataclasses.dataclass
class Picky:
    """A class of the user's, that does not take everything."""

    error: str

    def __post_init__(self):
        raise {"KeyError": KeyError, "OSError": OSError, "ZeroDivisionError": ZeroDivisionError}[self.error]("no")


class Taster(cm.Interface):
    @cm.method
    def odd(self, first: str, second: Odd) -> Odd: ...
    @cm.method
    def picky(self, picky: Picky) -> Picky: ...
    @cm.method
    def data(self, number: int, anything: Any, words: list[str]) -> int: ...


@pytest.mark.parametrize("words", ["`$[99]", "`$[1]`", " - at `$[99]`", "x - at `$[7].x` - at `$[0]`"])
def test_what_a_peer_writes_into_an_error_is_not_taken_for_a_place(words):
    """Text of the peer's that looks like msgspec's name of a place neither breaks the error nor misleads."""
    method = Method(Taster, "odd", Taster.odd)
    payload = memoryview(msgspec.msgpack.encode(["", words]))
    with pytest.raises(cm.ArgumentError) as caught:
        method.decode_arguments(payload, Incoming([], DescriptorList()))
    assert str(caught.value) == f"Taster.odd, arguments: Invalid enum value '{words}' - at `second`"
    with pytest.raises(cm.ArgumentError):
        method.decode_result(memoryview(msgspec.msgpack.encode(words)), Incoming([], DescriptorList()))


@pytest.mark.parametrize("error", ["KeyError", "OSError", "ZeroDivisionError"])
def test_a_class_that_raises_while_it_is_decoded_makes_a_bad_argument(error):
    """__post_init__ may raise anything for what a peer sends: the call is answered, and the server lives."""
    method = Method(Taster, "picky", Taster.picky)
    with pytest.raises(cm.ArgumentError, match=error):
        method.decode_arguments(memoryview(msgspec.msgpack.encode([{"error": error}])), Incoming([], DescriptorList()))
    with pytest.raises(cm.ArgumentError, match=error):
        method.decode_result(memoryview(msgspec.msgpack.encode({"error": error})), Incoming([], DescriptorList()))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_file_where_data_are_due_is_refused(place):
    """Its index alone would pass for an int: the sender sends none, and a table that nothing uses is no good."""
    method = Method(Taster, "data", Taster.data)
    with cm.Descriptor(os.memfd_create("test")) as file:
        arguments = [7, 7, []]
        arguments[place] = [file] if place == 2 else file
        name = method.parameters[place].name
        with pytest.raises(cm.ArgumentError, match=rf"^Taster\.data, argument `{name}`: a.* is due$"):
            method.encode_arguments(tuple(arguments), Outgoing())
        outgoing = Outgoing()
        payload = memoryview(_codec.encode(arguments, outgoing))
        for decode in (method.decode_arguments, method.decode_result):
            incoming = Incoming(outgoing.entries, DescriptorList.of([cm.Descriptor.dup_of(file)]))
            with pytest.raises(cm.ArgumentError, match=r"Taster\.data"):
                decode(payload if decode == method.decode_arguments else memoryview(b"\0"), incoming)
            incoming.close_all()


def test_decoded_data_never_aliases_the_receive_buffer():
    """A memoryview or Raw that a method keeps reads the same after the next call has used the buffer again."""

    class Keeper(Taker):
        kept: tuple = ()

        def take(self, anything: Any) -> Any:
            return None

        def views(self, view: memoryview, raw: msgspec.Raw, text: str) -> list[bytes]:
            before, self.kept = self.kept, (view, raw, text)
            return [bytes(part, "utf-8") if isinstance(part, str) else bytes(part) for part in before]

        def number(self, n: int, *, name: str = "") -> int:
            return n

    with cm.Entrypoint("keeper") as entrypoint, cm.timeout(PATIENCE):
        proxy = entrypoint.manage(Keeper()).cast(Taker)
        raw = msgspec.Raw(msgspec.msgpack.encode("first raw"))
        proxy.views(memoryview(b"first view"), raw, "first text")
        proxy.take(bytes(100_000))
        assert proxy.views(memoryview(b"x" * 10), raw, "") == [b"first view", bytes(raw), b"first text"]


# ----------------------------------------------------------------------------------------------- bringing files along


def _came(file):
    """What the receiver of ``file`` reads."""
    came, _ = _transfer(file, io.BufferedReader)
    with came:
        return came.read()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes("erste Zeile äöü\nsecond\nthird\n".encode())
    return path


@pytest.mark.parametrize("mode", ["rb", "r", "r+b", "r+", "a+b"])
def test_a_reader_is_sent_where_the_program_is_in_it(path, mode):
    """What the file object has read ahead is not lost: the receiver reads from tell() on, text or bytes."""
    with path.open(mode, **({} if "b" in mode else {"encoding": "utf-8"})) as file:
        file.seek(0)
        file.readline()
        assert _came(file) == b"second\nthird\n"


def test_an_unbuffered_file_is_sent_where_it_is(path):
    """It has no position but the kernel's."""
    with path.open("rb", buffering=0) as file:
        file.read(16)
        assert _came(file) == path.read_bytes()[16:]


@pytest.mark.parametrize("mode", ["wb", "w", "ab", "w+b", "w+", "r+"])
def test_a_writer_is_flushed_before_it_is_sent(path, mode):
    """What was written before stands in the file when the receiver has it."""
    with path.open(mode, **({} if "b" in mode else {"encoding": "utf-8"})) as file:
        file.write("mine " if "b" not in mode else b"mine ")
        came, _ = _transfer(file, io.BufferedWriter)
        assert b"mine " in path.read_bytes()
        with came:
            came.write(b"theirs")
    assert b"mine theirs" in path.read_bytes()


@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile, tempfile.SpooledTemporaryFile])
def test_a_temporary_file_is_sent_with_what_was_written(make):
    """Those of tempfile are wrappers, or no file yet: they are flushed and positioned like any other."""
    with make() as file:
        file.write(b"first\nsecond\n")
        file.seek(0)
        file.readline()
        assert _came(file) == b"second\n"
        with _transfer(file, cm.Descriptor)[0] as came:
            assert os.pread(came.fileno(), 100, 0) == b"first\nsecond\n"


def test_a_text_file_in_the_middle_of_an_iteration_is_refused(path):
    """Python itself cannot tell its position then; sent anyway, the receiver would miss what was read ahead."""
    with path.open(encoding="utf-8") as file:
        next(file)
        with pytest.raises(cm.ArgumentError, match=r"anything.*telling position"):
            FILE.encode_arguments((file,), Outgoing())


def test_a_file_of_proc_that_has_been_read_from_is_refused():
    """The kernel has no end of it to seek from, so what was read ahead would be lost: an ArgumentError that says so."""
    with open("/proc/self/status", "rb") as file:
        file.readline()
        with pytest.raises(cm.ArgumentError, match=r"anything.*where the program is in the file"):
            FILE.encode_arguments((file,), Outgoing())


@pytest.mark.parametrize("make", [io.BytesIO, io.StringIO])
def test_a_file_in_memory_is_refused(make):
    """It has a fileno() that says that there is none."""
    with make() as file, pytest.raises(cm.ArgumentError, match=r"anything.*has no descriptor"):
        FILE.encode_arguments((file,), Outgoing())


def test_an_object_with_fileno_and_nothing_else_is_sent():
    """It need not be a file."""

    class Holder:
        def __init__(self, number):
            self.number = number

        def fileno(self):
            return self.number

    with cm.Descriptor(os.memfd_create("test")) as memfd:
        came, _ = _transfer(Holder(memfd.fileno()), cm.Descriptor)
        with came:
            assert _identity(came) == _identity(memfd)


@pytest.mark.parametrize("answer", ["3", None, True, 1.0])
def test_a_fileno_that_gives_no_int_is_refused(answer):
    """As is one that gives anything but a number."""

    class Wrong:
        def fileno(self):
            return answer

    with pytest.raises(cm.ArgumentError, match="anything"):
        FILE.encode_arguments((Wrong(),), Outgoing())
