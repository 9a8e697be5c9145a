# What is a single step to Python, compiled from csrc/py_*.c, which say what each does.

import io
from collections.abc import Sequence
from typing import TypeVar

from capmarshal._kernel.native import CData, Taken

class Owner:
    _number: int
    def close(self) -> None: ...

_T = TypeVar("_T", bound=Owner)
_O = TypeVar("_O")

def numbers_in(owners: list[_T], kind: type[_T], /) -> list[int] | None: ...
def move_out(owners: list[_T], kind: type[_T], memory: CData, /) -> None: ...
def move_in(owners: list[_T], kind: type[_T], memory: CData, /) -> None: ...
def move_to_reader(memory: CData, raw: type[io.FileIO], kind: type[io.BufferedReader], /) -> io.BufferedReader: ...
def closing(number: int, mounts: CData, /) -> int: ...
def reads_own_file(number: int, mounts: CData, /) -> int: ...
def call(
    channel: int,
    caller: CData,
    key: bytes,
    body: bytes,
    lines: int,
    numbers: Sequence[int],
    inbox: CData,
    deadline: int,
    owner: _O,
    /,
) -> bytes | tuple[bytes, _O] | int: ...
def reply_wait(turn: CData, payload: bytes | None, deadline: int, /) -> Taken | int: ...
