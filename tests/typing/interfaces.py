"""Typed interfaces, as mypy and pyright see them.  Never run: test_typing.py has both check it.

Where a line is wrong on purpose, it ignores the one error that it must make; an ignore that is not needed is an error.
"""

from __future__ import annotations

import io
import socket
import subprocess
from typing import Any, assert_type

import capmarshal as cm


class NotFound(Exception):
    pass


class Digest(cm.Interface):
    @cm.method
    def sha256(self, file: io.BufferedReader) -> str: ...

    @cm.method
    @cm.raises(NotFound, KeyError)
    def by_name(self, name: str, *, fold: bool = False) -> list[str]: ...

    @cm.raises(NotFound)
    @cm.method
    def other(self, digest: Digest | None = None) -> Digest | None: ...

    @cm.method
    def log(self, sink: io.BufferedWriter, peer: socket.socket, rest: cm.Descriptor) -> None: ...

    @cm.method
    def untyped(self, capability: cm.Capability) -> cm.Capability: ...

    def twice(self, file: io.BufferedReader) -> list[str]:
        return [self.sha256(file)] * 2


class DigestServer(Digest):
    def sha256(self, file: io.BufferedReader) -> str:
        assert_type(cm.keep(file), io.BufferedReader)
        return file.read().hex()

    def by_name(self, name: str, *, fold: bool = False) -> list[str]:
        return [name.lower() if fold else name]

    def other(self, digest: Digest | None = None) -> Digest | None:
        return digest

    def log(self, sink: io.BufferedWriter, peer: socket.socket, rest: cm.Descriptor) -> None: ...

    def untyped(self, capability: cm.Capability) -> cm.Capability:
        return capability


class Forgetful(Digest):
    def sha256(self, file: io.BufferedReader) -> str:
        return ""


class Wrong(DigestServer):
    def sha256(self, file: str) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return file


def proxies(capability: cm.Capability, file: io.BufferedReader) -> None:
    digest = capability.cast(Digest)
    assert_type(digest, Digest)
    assert_type(digest.sha256(file), str)
    assert_type(capability.cast(Digest).sha256(file), str)
    assert_type(capability.cast(Digest, timeout=2.0), Digest)
    capability.cast(Digest, timeout="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(digest.twice(file), list[str])
    assert_type(cm.capability(digest), cm.Capability)
    assert_type(digest.untyped(capability), cm.Capability)
    assert_type(cm.parent().cast(Digest), Digest)
    digest.sha256("path")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    digest.sha256()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    digest.sha512  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # noqa: B018
    capability.sha256  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # noqa: B018
    capability.cast("Digest")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cm.capability(file)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def decorated(digest: Digest) -> None:
    """raises() keeps the method's type, on either side of method."""
    assert_type(digest.by_name("x", fold=True), list[str])
    assert_type(digest.other(digest), Digest | None)
    digest.by_name(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    digest.by_name("x", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    digest.other("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cm.raises("NotFound")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cm.raises(KeyboardInterrupt)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def servers(entrypoint: cm.Entrypoint) -> None:
    server = DigestServer()
    assert_type(entrypoint.manage(server), cm.Capability)
    entrypoint.dissolve(server)
    Forgetful()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    Digest()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    entrypoint.manage(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with cm.Entrypoint("label") as entered:
        assert_type(entered, cm.Entrypoint)
    assert_type(server.other(server), Digest | None)


def kept(file: io.BufferedWriter, sock: socket.socket, descriptor: cm.Descriptor) -> None:
    assert_type(cm.keep(file), io.BufferedWriter)
    assert_type(cm.keep(sock), socket.socket)
    assert_type(cm.keep(descriptor), cm.Descriptor)


def children(capability: cm.Capability) -> None:
    assert_type(cm.parent(), cm.Capability)
    process = cm.spawn(["program", "argument"], parent=capability, stdout=subprocess.PIPE)
    assert_type(process, subprocess.Popen[Any])
    cm.spawn(["program"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cm.spawn(["program"], parent=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def handovers(sock: socket.socket, server: DigestServer) -> None:
    cm.send_capability(sock, server, timeout=2.0)
    cm.send_capability(sock.fileno(), cm.receive_capability(sock, timeout=2.0).cast(Digest))
    assert_type(cm.receive_capability(sock), cm.Capability)
    cm.send_capability(sock, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Board(cm.Interface):
    @cm.method
    def subscribe(self, changed: cm.Signal) -> list[cm.Signal | None]: ...


def signals(board: Board, entrypoint: cm.Entrypoint) -> None:
    with cm.SignalReceiver() as receiver:
        assert_type(receiver, cm.SignalReceiver)
        assert_type(receiver.wait(2.0), int)
        assert_type(receiver.fileno(), int)
        assert_type(board.subscribe(receiver.signal), list[cm.Signal | None])
    sent = entrypoint.on_signal(lambda: None)
    assert_type(sent, cm.Signal)
    sent.send()
    assert_type(cm.capability(sent).cast(cm.Signal), cm.Signal)
    cm.wait_gone(sent)
    board.subscribe(receiver)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    entrypoint.on_signal(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sent.send(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def granted(ep: cm.Entrypoint, server: DigestServer) -> None:
    def told(gone: Digest) -> None:
        print(gone)

    assert_type(ep.grant(server, only={Digest.sha256}, unreachable=told), cm.Capability)
    ep.grant(server, unreachable=lambda gone: assert_type(gone, DigestServer))
    ep.grant(server, unreachable=len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def deadlines() -> None:
    with cm.timeout(2.0) as limit:
        assert_type(limit, cm.timeout)
    cm.wait_gone(cm.parent(), timeout=2.0)
    cm.wait_gone(cm.parent().cast(Digest))
    cm.wait_gone(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(cm.parent().gone, bool)
    with cm.timeout(None):
        assert_type(cm.remaining(), float)
    cm.timeout("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors() -> None:
    try:
        cm.parent()
    except cm.Disconnected as error:
        if error.ran == "no":
            pass
        if error.ran == "perhaps":  # type: ignore[comparison-overlap]  # pyright: ignore[reportUnnecessaryComparison]
            pass
    except cm.RemoteError as error:
        assert_type(error.type, str)
        assert_type(error.message, str)
    except cm.DescriptorsLost as error:
        assert_type(error.data, bytes)
        assert_type(error.errno, int | None)
