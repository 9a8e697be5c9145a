# What owns descriptors, compiled from csrc/py_owner.c, which says what each does.

import io
from typing import TypeVar

from capmarshal._kernel.native import CData

class Owner:
    _number: int
    def close(self) -> None: ...

_T = TypeVar("_T", bound=Owner)

def numbers_in(owners: list[_T], kind: type[_T], /) -> list[int] | None: ...
def move_out(owners: list[_T], kind: type[_T], memory: CData, /) -> None: ...
def move_in(owners: list[_T], kind: type[_T], memory: CData, /) -> None: ...
def move_to_reader(memory: CData, raw: type[io.FileIO], kind: type[io.BufferedReader], /) -> io.BufferedReader: ...
