"""What leaves with a reply: closed before it or after it, and what happens where that cannot be at once."""

from __future__ import annotations

import array
import io
import os
import select
import socket
import threading

import pytest

import by_hand
import capmarshal as cm
import matrix
from capmarshal._descriptors import reaper
from capmarshal._protocol import wire as _wire
from slow_closing import number_has_seals

PATIENCE = by_hand.PATIENCE
NO_BADGE = _wire.NO_BADGE


class Desk(cm.Interface):
    @cm.method
    def take(self, files: list[cm.Descriptor]) -> int: ...

    @cm.method
    def give(self, kind: str, count: int) -> list[cm.Descriptor]: ...

    @cm.method
    def swap(self, file: cm.Descriptor, kind: str) -> cm.Descriptor: ...

    @cm.method
    def keep(self, files: list[cm.Descriptor], which: int) -> list[cm.Descriptor]: ...

    @cm.method
    def close_one(self, files: list[cm.Descriptor]) -> list[cm.Descriptor]: ...

    @cm.method
    def fork(self, file: cm.Descriptor) -> cm.Descriptor: ...

    @cm.method
    def same_number(self, file: cm.Descriptor) -> cm.Descriptor: ...

    @cm.method
    def of_socket(self, sock: socket.socket) -> cm.Descriptor: ...

    @cm.method
    def of_dataspace(self, space: cm.Dataspace) -> list[cm.Descriptor]: ...

    @cm.method
    def of_writer(self, file: io.BufferedWriter) -> cm.Descriptor: ...

    @cm.method
    def of_capability(self, what: cm.Capability) -> cm.Descriptor: ...

    @cm.method
    def of_reader(self, file: io.BufferedReader, how: str) -> list[cm.Descriptor]: ...

    @cm.method
    def unlink(self, file: io.BufferedReader) -> int: ...


def _made(kind):
    if kind == "memfd":
        return cm.Descriptor(os.memfd_create("left"))
    # What may block when it is closed.
    one, other = os.pipe()
    os.close(other)
    return cm.Descriptor(one)


class DeskServer(Desk):
    def __init__(self):
        self.kept = []
        self.path = None
        self.readers = threading.Semaphore(0)

    def take(self, files):
        return len(files)

    def give(self, kind, count):
        return [_made(kind) for _ in range(count)]

    def swap(self, file, kind):
        return _made(kind)

    def keep(self, files, which):
        self.kept.append(cm.keep(files[which]))
        return files

    def close_one(self, files):
        files[0].close()
        return files[1:]

    def fork(self, file):
        # The child goes on as its parent would, and ends: what leaves is closed there, and not sent.
        if os.fork() == 0:
            os._exit(0)
        os.wait()
        return file

    def same_number(self, file):
        return cm.Descriptor(file.detach())

    def of_socket(self, sock):
        return _made("memfd")

    def of_dataspace(self, space):
        return [_made("memfd"), _made("memfd")]

    def of_writer(self, file):
        file.write(b"written")
        return _made("memfd")

    def of_capability(self, what):
        return _made("memfd")

    def of_reader(self, file, how):
        self.readers.release()
        if how == "read":
            return [_made("memfd") for _ in range(20)]
        raw = file if how == "close" else file.detach()
        if how == "return":
            # A mistake, as it has an owner; the result is a copy of it all the same.
            return [cm.Descriptor(raw.fileno())]
        if how == "close":
            raw.close()
        return [_made("memfd")]

    def unlink(self, file):
        self.path.unlink()
        return 1


@pytest.fixture
def desk():
    """A proxy of it, and its entrypoint and server."""
    held = [cm.Entrypoint("desk"), DeskServer()]
    with held[0], cm.timeout(PATIENCE):
        proxy = held[0].manage(held[1]).cast(Desk)
        yield proxy
        cm.capability(proxy).close()
        for each in held[1].kept:
            each.close()
    held.clear()


def _at_end(reader):
    """Whether nobody has the other end, at once: arguments are closed before the answer leaves."""
    return bool(select.select([reader], [], [], 0)[0]) and os.read(reader.fileno(), 1) == b""


def test_arguments_are_closed_before_the_answer_whatever_they_are(desk):
    """What closes on the spot, what does not, and both together."""
    for _ in range(3):
        with by_hand.pipe() as (reader, writer), _made("memfd") as memfd:
            mine = cm.Descriptor.dup_of(writer)
            writer.close()
            assert desk.take([memfd, mine]) == 2
            mine.close()
            assert _at_end(reader)


@pytest.mark.parametrize("kind", ["memfd", "pipe"])
@pytest.mark.parametrize("count", [1, 2, 253])
def test_results_are_closed_when_they_are_sent(desk, open_descriptors, kind, count):
    """Before the channel is read again: the next call finds none of them open."""
    desk.give(kind, 0)
    before = open_descriptors()
    for _ in range(3):
        for each in desk.give(kind, count):
            each.close()
        assert desk.take([]) == 0
        assert open_descriptors() == before


@pytest.mark.parametrize("kind", ["memfd", "pipe"])
def test_an_argument_goes_and_a_result_comes(desk, identity, kind):
    """Each is closed in its time."""
    with _made("memfd") as file, by_hand.pipe() as (reader, writer):
        for _ in range(3):
            with desk.swap(file, kind) as other:
                assert identity(other) != identity(file)
        mine = cm.Descriptor.dup_of(writer)
        writer.close()
        desk.swap(mine, kind).close()
        mine.close()
        assert _at_end(reader)


def test_what_is_kept_stays_and_the_rest_leaves(desk, identity):
    """Also when all of them are results."""
    files = [_made("memfd") for _ in range(3)]
    for which in (0, 2):
        back = desk.keep(files, which)
        assert list(map(identity, back)) == list(map(identity, files))
        for each in back:
            each.close()
    back = desk.close_one(files)
    assert list(map(identity, back)) == list(map(identity, files))[1:]
    with desk.same_number(files[0]) as same, desk.fork(files[1]) as forked:
        assert (identity(same), identity(forked)) == (identity(files[0]), identity(files[1]))
    for each in [*back, *files]:
        each.close()


@matrix.one_call_a_channel
def test_a_reply_for_which_there_is_no_room_waits_with_what_leaves_with_it():
    """Its client reads nothing for a while: each descriptor comes in the end, and only once."""
    count = 0
    with cm.Entrypoint("full") as entrypoint, _made("memfd") as file:
        capability = entrypoint.manage(DeskServer())
        with by_hand.knock(capability) as near:
            near.setblocking(False)
            before = os.fstat(file.fileno())
            for number in range(1, 400):
                record = by_hand.call(
                    capability,
                    method=b"swap",
                    payload=b"\x92\x00\xa5memfd",
                    entries=[(0, NO_BADGE)],
                    descriptors=1,
                    id=number,
                )
                try:
                    near.sendmsg(
                        [record],
                        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))],
                    )
                except BlockingIOError:
                    break
                count = number
            assert count > 1
            near.settimeout(PATIENCE)
            for number in range(1, count + 1):
                reply, descriptors = by_hand.answer(near)
                assert reply.id == number
                assert len(descriptors) == 1
                assert os.fstat(descriptors[0]).st_ino != before.st_ino
                os.close(descriptors[0])
        capability.close()


@matrix.one_call_a_channel
def test_replies_count_as_unread_until_they_are_received():
    """More than its share does not lie there for a client; it gets the rest as it receives."""
    limits = cm.Limits(unread_descriptors=64)
    with cm.Entrypoint("counted", limits=limits) as entrypoint, cm.timeout(PATIENCE):
        capability = entrypoint.manage(DeskServer())
        with by_hand.knock(capability) as near:
            near.settimeout(PATIENCE)
            payload = b"\x92\xa5memfd\x08"
            records = [by_hand.call(capability, method=b"give", payload=payload, id=number) for number in range(1, 100)]
            sending = by_hand.Concurrent(lambda: [near.send(record) for record in records])
            for number in range(1, 100):
                reply, descriptors = by_hand.answer(near)
                assert (reply.id, len(descriptors)) == (number, 8)
                for each in descriptors:
                    os.close(each)
            sending.outcome()
        capability.close()


def test_a_result_beside_an_argument_of_any_kind(desk):
    """Not all arguments can be asked whether they are closed, nor all that can be answer."""
    with by_hand.pipe() as (reader, writer), cm.Dataspace.from_buffer(b"data") as space, socket.socket() as sock:
        desk.of_socket(sock).close()
        for each in desk.of_dataspace(space):
            each.close()
        desk.of_capability(cm.capability(desk)).close()
        desk.of_writer(writer).close()
        assert os.read(reader.fileno(), 64) == b"written"
        writer.close()
        for file in (reader, _made("memfd")):
            for how in ("read", "close", "detach", "return"):
                for each in desk.of_reader(file, how):
                    assert os.fstat(each.fileno())
                    each.close()
            file.close()


@matrix.one_call_a_channel
def test_what_does_not_leave_with_the_reply_is_counted_once():
    """An argument that has to be closed elsewhere: its client may leave as much unread as any other."""
    server = DeskServer()
    limits = cm.Limits(unread_descriptors=64, user_share=1, process_share=1)
    with cm.Entrypoint("counted", limits=limits) as entrypoint:
        capability = entrypoint.manage(server)
        with by_hand.knock(capability) as near, by_hand.pipe() as (reader, _):
            near.settimeout(PATIENCE)
            for number in (1, 2, 3):
                record = by_hand.call(
                    capability,
                    method=b"of_reader",
                    payload=b"\x92\x00\xa4read",
                    entries=[(0, NO_BADGE)],
                    descriptors=1,
                    id=number,
                )
                by_hand.send(near, record, [reader.fileno()])
            for _ in range(3):
                # The second is run when the first is answered, though nobody has received that.
                assert server.readers.acquire(timeout=PATIENCE)
            for number in (1, 2, 3):
                reply, descriptors = by_hand.answer(near)
                assert isinstance(reply, _wire.Reply), reply
                assert (reply.id, len(descriptors)) == (number, 20)
                for each in descriptors:
                    os.close(each)
        capability.close()


@matrix.leaves_with_its_reply
@pytest.mark.parametrize("another", [False, True])
def test_a_file_that_loses_its_name_while_a_method_has_it_is_closed_elsewhere(tmp_path, monkeypatch, another):
    """To free a large one takes long, and its close may be the last; not that of one that has another name."""
    elsewhere, close = [], reaper.close

    def note(things, *arguments, **by_name):
        elsewhere.extend(type(thing) for thing in things)
        return close(things, *arguments, **by_name)

    path, server = tmp_path / "file", DeskServer()
    path.touch()
    with cm.Entrypoint("desk") as entrypoint, cm.timeout(PATIENCE), path.open("rb") as file:
        if number_has_seals(file.fileno()):
            pytest.skip("the directory for tests is on tmpfs, where it is as a memfd")
        proxy = entrypoint.manage(server).cast(Desk)
        proxy.take([])
        server.path = path
        if another:
            (tmp_path / "other").hardlink_to(path)
        monkeypatch.setattr(reaper, "close", note)
        assert proxy.unlink(file) == 1
        monkeypatch.undo()
        cm.capability(proxy).close()
    assert elsewhere == [] if another else io.BufferedReader in elsewhere
