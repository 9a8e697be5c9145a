"""What is called where a peer carries bytes: requests for msgspec, laid out as its performance tips say.

https://jcristharif.com/msgspec/perf-tips.html: encoders and decoders are kept, structs are arrays, types are declared.
"""

import msgspec


class Add(msgspec.Struct, array_like=True, tag=0, gc=False):
    """``add(a, b)``."""

    a: int
    b: int


class Inode(msgspec.Struct, array_like=True, tag=1, gc=False):
    """``inode(file)``; the descriptor travels beside it."""


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Add | Inode).decode
decode_result = msgspec.msgpack.Decoder(int).decode
