"""An object that is served here, and a proxy of it: every call goes by sockets, as between processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from capmarshal._entrypoint import Entrypoint
from capmarshal._testing.interfaces import checked

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from capmarshal._server.entrypoint import AnyEntrypoint

T = TypeVar("T")

# Seconds that a call may take: a test that would hang fails.
CALL_TIMEOUT = 30.0
LABEL = "tested"


class Pair(Generic[T]):
    """What :func:`pair` makes: a block, of ``with`` or ``async with``, which gives the proxy."""

    __slots__ = ("_interface", "_make", "_served", "_target", "_timeout")

    def __init__(self, target: Any, interface: Any, timeout: float | None, options: dict[str, Any]) -> None:
        self._interface = checked(target, interface)
        self._target = target
        self._timeout = timeout
        self._make = {"label": LABEL, **options}
        self._served: Entrypoint | AbstractAsyncContextManager[Any] | None = None

    def _proxy(self, served: AnyEntrypoint[Any]) -> T:
        proxy: T = served.manage(self._target).cast(self._interface, timeout=self._timeout)
        return proxy

    def __enter__(self) -> T:
        served = Entrypoint(**self._make)
        try:
            proxy = self._proxy(served)
            served.__enter__()
        except BaseException:
            served.close()
            raise
        self._served = served
        return proxy

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        served, self._served = self._served, None
        if isinstance(served, Entrypoint):
            served.__exit__(kind, error, traceback)

    async def __aenter__(self) -> T:
        # It needs anyio, which not everybody has.
        from capmarshal import aio

        served = aio.Entrypoint(**self._make)
        try:
            proxy = self._proxy(served)
            await served.__aenter__()
        except BaseException:
            served.close()
            raise
        self._served = served
        return proxy

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        served, self._served = self._served, None
        if served is not None and not isinstance(served, Entrypoint):
            await served.__aexit__(kind, error, traceback)


@overload
def pair(target: T, interface: None = None, *, timeout: float | None = CALL_TIMEOUT, **options: Any) -> Pair[T]: ...


@overload
def pair(
    target: object, interface: Callable[..., T], *, timeout: float | None = CALL_TIMEOUT, **options: Any
) -> Pair[T]: ...


def pair(target: object, interface: Any = None, *, timeout: float | None = CALL_TIMEOUT, **options: Any) -> Pair[Any]:
    """Serves an object, by a thread of this process, and gives a proxy of it: a block.

    Calls of the proxy go by sockets, as from another process: arguments and results are checked, sent and decoded, and
    what a call is lent is closed when it ends.  The test has the object itself, too, and may look into it.

    ``with pair(server) as proxy`` where calls block; ``async with pair(server) as proxy``, in asyncio, uvloop or trio,
    where they are awaited.

    Args:
        target: the object, of a class derived from an :class:`capmarshal.Interface`.
        interface: what the proxy is of; None: the interface that its class is derived from, if there is one only.
        timeout: seconds that each call of the proxy may take: what would hang is a CallTimeout.  None: no limit.
        options: of the entrypoint, as ``label=``, ``max_bytes=`` or ``limits=``.

    Raises:
        TypeError: it is no such object, or has several interfaces.
        InterfaceError: its interface cannot work, or has the other colour.
    """
    return Pair(target, interface, timeout, options)
