"""The block of an entrypoint, in which a task of its own serves it: in event loops of any kind, by a task group.

A failure of the service cancels the block, and is raised where it is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from capmarshal._async_server.driver import raise_signal

if TYPE_CHECKING:
    from capmarshal._async_server.serving import AwaitedService
    from capmarshal._server.session import Session


class Block:
    """One that was entered.

    Args:
        service: of the entrypoint.
        session: claimed for it.
    """

    def __init__(self, service: AwaitedService, session: Session) -> None:
        self._service = service
        self._session = session
        self._failure: BaseException | None = None
        self._name = f"capmarshal {service.label}"

    async def enter(self) -> None:
        """Begins to serve."""
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._serve, name=self._name)

    async def _serve(self) -> None:
        try:
            await self._service.serve_session(self._session)
        except GeneratorExit:
            # Its event loop is gone, and no longer has a class of its own.
            raise
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - raised where the block is left
            self._failure = error
            self._failed()

    def _failed(self) -> None:
        self._group.cancel_scope.cancel()

    async def leave(self, error: BaseException | None, seconds: float) -> bool | None:
        """Ends the service, and waits for that.

        Args:
            error: that the block is left by.
            seconds: that calls have to end; none where the block is cancelled.

        Returns:
            What ``__aexit__`` does.
        """
        try:
            swallowed = await self._leave(error, seconds)
        except BaseExceptionGroup as group:
            raise_signal(group)
            raise
        finally:
            self._service.end(self._session)
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            # Its traceback has this frame.
            del failure
        return swallowed

    async def _leave(self, error: BaseException | None, seconds: float) -> bool | None:
        cancelled = anyio.get_cancelled_exc_class()
        if not isinstance(error, cancelled):
            try:
                await self._service.depart(seconds)
            except (cancelled, KeyboardInterrupt, SystemExit) as cut:
                # What a signal brings in trio comes here, and the task group is left whatever that is.
                if not await self._cut(cut):
                    raise
            else:
                await self._wait()
            return None
        return await self._cut(error)

    async def _wait(self) -> None:
        await self._group.__aexit__(None, None, None)

    async def _cut(self, error: BaseException) -> bool | None:
        """Ends the service at once, and waits for that; whether the cancellation is over with it."""
        self._service.close_at_once()
        return await self._group.__aexit__(type(error), error, error.__traceback__)
