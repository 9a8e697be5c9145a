"""Descriptors and messages, as mypy and pyright see them.  Never run: test_typing.py has both check it."""

from __future__ import annotations

import io
import socket
from typing import assert_type

import capmarshal as cm


def opened(descriptor: cm.Descriptor, mode: str) -> None:
    """open() says what it gives, by the mode."""
    assert_type(descriptor.open(), io.BufferedReader)
    assert_type(descriptor.open("rb"), io.BufferedReader)
    assert_type(descriptor.open("wb"), io.BufferedWriter)
    assert_type(descriptor.open("ab"), io.BufferedWriter)
    assert_type(descriptor.open("r+b"), io.BufferedRandom)
    assert_type(descriptor.open("rb+"), io.BufferedRandom)
    assert_type(descriptor.open("r"), io.TextIOWrapper)
    assert_type(descriptor.open("w", encoding="latin-1"), io.TextIOWrapper)
    assert_type(descriptor.open("a"), io.TextIOWrapper)
    assert_type(descriptor.open("r+"), io.TextIOWrapper)
    assert_type(descriptor.open(mode), io.BufferedReader | io.BufferedWriter | io.BufferedRandom | io.TextIOWrapper)
    with descriptor.open("rb") as file:
        assert_type(file, io.BufferedReader)
        assert_type(file.read(), bytes)
    with descriptor.open("r") as text:
        assert_type(text.read(), str)


def owned(descriptor: cm.Descriptor) -> None:
    with descriptor as entered:
        assert_type(entered, cm.Descriptor)
    assert_type(descriptor.dup(), cm.Descriptor)
    assert_type(cm.Descriptor.dup_of(0), cm.Descriptor)
    assert_type(descriptor.socket(), socket.socket)
    assert_type(descriptor.detach(), int)
    assert_type(descriptor.fileno(), int)
    assert_type(descriptor.closed, bool)
    cm.Descriptor("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cm.Descriptor.dup_of("file")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def messages(sock: socket.socket, file: io.BufferedReader) -> None:
    cm.Message(b"bytes", [file, 3, sock]).send(sock, timeout=1.0)
    cm.Message([b"two", bytearray(b"parts"), memoryview(b"x")]).send(sock.fileno())
    with cm.Message.receive(sock, 1.0) as message:
        assert_type(message, cm.Message)
        assert_type(message.data, bytes)
        assert_type(message.take(0), cm.Descriptor)
    cm.Message("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cm.Message(b"", ["path"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
