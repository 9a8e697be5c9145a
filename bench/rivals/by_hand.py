"""What one would write by hand for this one service: records on a SEQPACKET socket, with msgspec.

https://docs.python.org/3/library/socket.html: ``sendmsg`` and ``recvmsg``, as the examples there have them for
descriptors; msgspec's performance tips, see _records.py.  Every record may carry a descriptor.  No capabilities, no
deadline, no second client at the same time, no answer to a bad request.
"""

import os
import socket
from array import array

from bench.rivals import client
from bench.rivals.records import Add, Inode, decode_request, decode_result, encode

_RECORD_MAX = 4096
_ROOM = socket.CMSG_SPACE(array("i", [0]).itemsize)


def serve(directory: str) -> None:
    """In the server's process: answers until standard input ends."""
    client.end_with_input()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(client.path(directory))
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                _answer(connection)


def _answer(connection: socket.socket) -> None:
    while True:
        record, ancillary, _, _ = connection.recvmsg(_RECORD_MAX, _ROOM, socket.MSG_CMSG_CLOEXEC)
        if not record:
            return
        match decode_request(record):
            case Add(a, b):
                result = a + b
            case Inode():
                [(_, _, data)] = ancillary
                [number] = array("i", data)
                result = os.fstat(number).st_ino
                os.close(number)
        connection.sendmsg([encode(result)])


def connect(directory: str) -> client.Client:
    """A client of that server."""
    near = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.connect(client.path(directory))

    def add(a: int, b: int) -> int:
        near.sendmsg([encode(Add(a, b))])
        return decode_result(near.recvmsg(_RECORD_MAX, _ROOM, socket.MSG_CMSG_CLOEXEC)[0])

    def inode(number: int) -> int:
        near.sendmsg([encode(Inode())], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [number]))])
        return decode_result(near.recvmsg(_RECORD_MAX, _ROOM, socket.MSG_CMSG_CLOEXEC)[0])

    return client.Client(add, near.close, inode)
