"""What a peer has written, where errors, answers and the log repeat it: short, and nothing that a terminal obeys."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket

import msgspec
import pytest

import by_hand
import capmarshal as cm
from capmarshal._capabilities.identity import peer_name
from capmarshal._kernel.errors import printable, shortened
from capmarshal._protocol import faults

LONG = 100_000
# Of an answer that says what is wrong with a call.
SHORT = 5000


@dataclasses.dataclass
class Order:
    item: str

    def __post_init__(self):
        if self.item.startswith("bad"):
            raise ValueError(f"no such item: {self.item}")


class Shop(by_hand.Work):
    @cm.method
    def order(self, order: Order, *, count: int = 1) -> None: ...


class ShopServer(by_hand.Worker, Shop):
    def order(self, order, *, count=1):
        pass


ARGUMENTS = {
    "name of a parameter": {"\x01" * LONG: 1},
    "field": [{"item": "a", "x" * LONG: 1}],
    "its own check": [{"item": "bad" + "\n" * LONG}],
    "its own check, by name": {"order": {"item": "bad" + "\n" * LONG}},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_answer_does_not_repeat_all_of_it(name, caplog):
    with by_hand.serving(ShopServer()) as capability, by_hand.knock(capability) as near:
        by_hand.send(near, by_hand.call(capability, b"order", msgspec.msgpack.encode(ARGUMENTS[name])))
        fault = by_hand.answer(near)[0]
        capability.close()
    assert fault.code == faults.Code.ARGUMENT
    assert " characters left out) ..." in fault.message
    assert len(fault.message) < SHORT
    # Nor does the log, of which such errors are written with a traceback: the cause has them all.
    assert len("".join(logging.Formatter().format(record) for record in caplog.records)) < 5 * SHORT


def test_any_message_of_a_fail_is_bounded():
    payload = faults.encode(faults.Fault(faults.Code.ARGUMENT, "z" * LONG))
    assert len(payload) < 2 * 10_000


def test_the_end_is_kept_which_says_where():
    words = shortened("a" * LONG + " - at `$.x`")
    assert len(words) < SHORT
    assert words.startswith("aaa")
    assert words.endswith(" - at `$.x`")
    assert shortened("short") == "short"


def test_a_name_that_a_stranger_gave_is_printable():
    """In reprs, errors and logs: it is whatever was bound."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.bind(f"\0capmarshal/evil\n\x1b[2Jü\u202e/{os.urandom(8).hex()}".encode())
        assert peer_name(far.fileno()).startswith("capmarshal/evil\\n\\x1b[2Jü\\u202e/")


def test_what_is_printable_is_as_it_is():
    assert printable("grüße, 世界") == "grüße, 世界"
    assert printable("a\nb\x00") == "a\\nb\\x00"
