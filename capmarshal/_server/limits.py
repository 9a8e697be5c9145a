"""What clients may cost a server, as its author says it."""

from __future__ import annotations

import msgspec

from capmarshal._kernel.numbers import check_whole


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the clients of an entrypoint may cost it.

    Each maximum is one over all clients.  Of each, one user's processes together may have ``user_share``, and one
    process ``process_share``.  When a maximum is reached, the user with most, and of its processes the one with most,
    gives way to whoever has less than its fair share.

    Attributes:
        channels: open at a time; None: three quarters of the descriptor table (the soft RLIMIT_NOFILE).  This process's
            own are counted, and not refused: what they are for may be what its other calls wait for.  Who has so much
            of the table, together with what waits to be closed for it, gets no more until that is closed.
        unread_bytes: of answers that wait for their readers; None: four times the entrypoint's ``max_bytes``.
        unread_descriptors: sent in answers and not received; None: three quarters of the soft RLIMIT_NOFILE, which is
            what the kernel lets this user have in flight.
        begun_bytes: of long calls that are on their way in; and again of all that run, in an event loop's entrypoint;
            None: four times ``max_bytes``.
        begun_descriptors: likewise; None: four times ``max_descriptors``.
        doors: of other entrypoints, that came as capabilities and are held; None: half of the descriptor table.
        grants: of objects that nobody manages and methods have returned, streams among them, while anybody can reach
            them, and of grants that a socket's ``for_client`` has given; not of those that a method called
            :meth:`Entrypoint.grant` for; None: a quarter of the descriptor table.  Above that, the call whose result is
            one more fails (:class:`TooLarge`).  This process's own calls are not counted.
        closing: descriptors that came and wait to be closed, where closing them can block; None: a quarter of the
            descriptor table.  Above that, no knock is taken of a user whose refused ones have brought more than a few.
        user_share: of each of these, and of the calls that an event loop's entrypoint runs at a time, for the processes
            of one user; above 0, at most 1.
        process_share: likewise for one process.  Of the calls, one that has its share begins more as long as a quarter
            stays free, of all and of its user's: of ``concurrency=100``, a process alone has 57 running, of which its
            share is 33.  Where calls wait for long, as long polls do, let it be greater.

    Raises:
        ValueError: a share that is none, or a maximum below 1.
        TypeError: no number, or a maximum that is not whole.
    """

    channels: int | None = None
    unread_bytes: int | None = None
    unread_descriptors: int | None = None
    begun_bytes: int | None = None
    begun_descriptors: int | None = None
    doors: int | None = None
    grants: int | None = None
    closing: int | None = None
    user_share: float = 3 / 4
    process_share: float = 1 / 3

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name.endswith("_share"):
                wrong = f"{name} is a part of the whole, above 0 and at most 1, not {value!r}"
                if not isinstance(value, (int, float)):
                    raise TypeError(wrong)
                if not 0 < value <= 1:
                    raise ValueError(wrong)
            elif value is not None:
                check_whole(value, f"{name} is a whole number, 1 or more, or None, not {value!r}", 1)
