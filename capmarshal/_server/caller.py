"""Who calls: what the kernel says of the process, and what this one calls the grant that it calls by."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from capmarshal._server.clients import Channel
    from capmarshal._server.grant import Grant


class Caller(msgspec.Struct, frozen=True):
    """Who calls a method, or has connected to a service: a process, as the kernel tells.

    Of a call it is the process that knocked at the door (SCM_CREDENTIALS), of a connection the one that made it
    (SO_PEERCRED, unix(7)).  It may have ended, and its number may be another's by now.  For logs and quotas: what
    somebody may do is what he holds.

    Attributes:
        pid: of the process; 0 if it lives in another pid namespace, or where a filter hides it.
        uid: of its user; 4294967295 where a filter hides it.
        gid: of its group; likewise.
        label: of the grant that it calls by; empty where it calls by none, and of a connection.
    """

    pid: int
    uid: int
    gid: int
    label: str = ""


def own_caller(grant: Grant | None) -> Caller:
    """This process, which makes a call inline, by a grant or by none."""
    return Caller(os.getpid(), os.getuid(), os.getgid(), grant.label if grant is not None else "")


def caller_by(channel: Channel | None) -> Caller:
    """Who calls by a channel; None: this process, by none."""
    if channel is None:
        return own_caller(None)
    peer = channel.peer
    return Caller(peer.pid, peer.uid, channel.gid, channel.grant.label if channel.grant is not None else "")
