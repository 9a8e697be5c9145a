"""What a bridge exports and imports, and what changes of that when it is told anew."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import capmarshal as cm
from capmarshal import aio
from capmarshal._bridge_command.token_files import NoToken, kept, read

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from capmarshal._bridge.bridge import Bridge
    from capmarshal._bridge_command.settings import Export, Import
    from capmarshal._bridge_link.tokens import Token

_logger = logging.getLogger("capmarshal")


# Seconds that a service has to hand over what is exported, before it is said that it does not.
_FINDING = 3.0


class NotDone(Exception):
    """Something can't be exported or imported; the message says why."""


@dataclass(frozen=True)
class _Exported:
    path: Path
    token: Token


class Duties:
    """All of one bridge."""

    def __init__(self, bridge: Bridge) -> None:
        """None yet; the bridge is borrowed."""
        self._bridge = bridge
        # By the files of their tokens.
        self._exported: dict[Path, _Exported] = {}
        # By the paths of their sockets.
        self._imported: dict[Path, Import] = {}
        self._trying: set[asyncio.Task[None]] = set()

    async def export_anew(self, export: Export) -> Token:
        """Exports a service by a new token, which is kept nowhere.

        Raises:
            NotDone: it can't be exported.
        """
        return await self._export(export.path)

    async def take(self, exports: Iterable[Export], imports: Iterable[Import]) -> None:
        """Exports those whose tokens are kept in files, and imports; what else was exported so is revoked.

        Raises:
            NotDone: one can't be; others may have been.
        """
        wanted = {export.token_file.absolute(): export.path.absolute() for export in exports if export.token_file}
        tokens = {file: self._kept(file) for file in wanted}
        for file, exported in tuple(self._exported.items()):
            if wanted.get(file) != exported.path or tokens[file] != exported.token:
                del self._exported[file]
                await self._bridge.revoke(exported.token, "it is not exported any more")
                _logger.info("%s is not exported any more, by the token in %s", exported.path, file)
        for file, path in wanted.items():
            if file not in self._exported:
                self._exported[file] = _Exported(path, await self._export(path, tokens[file]))
                _logger.info("%s is exported, by the token in %s", path, file)
        for each in imports:
            self._import(each)
        gone = self._imported.keys() - {each.path.absolute() for each in imports}
        for path in gone:
            _logger.warning("%s stays where it is until this bridge ends", path)

    def stop_trying(self) -> None:
        """Whether what is exported, and what is imported, is there is not asked any more."""
        for task in self._trying:
            task.cancel()

    def _kept(self, file: Path) -> Token:
        try:
            token = kept(file, self._bridge.name)
        except NoToken as error:
            raise NotDone(str(error)) from None
        return token

    async def _export(self, path: Path, token: Token | None = None) -> Token:
        path = path.absolute()
        try:
            if path.exists() and not path.is_socket():
                raise NotDone(f"{path} can't be exported: it is no socket of a service's, and none can be made there")
            token = await self._bridge.export(path, token=token)
        except (cm.Error, ValueError, OSError) as error:
            raise NotDone(f"{path} can't be exported: {error}") from None
        self._begin_trying(self._find(path))
        return token

    def _import(self, one: Import) -> None:
        path = one.path.absolute()
        before = self._imported.get(path)
        if before is not None:
            if before != one:
                _logger.warning("%s is as it was until this bridge ends", path)
            return
        try:
            token = read(one.token) if isinstance(one.token, Path) else one.token
            self._bridge.listen(path, token, mode=one.mode)
        except (cm.Error, ValueError, NoToken) as error:
            raise NotDone(f"{path} can't be imported: {error}") from None
        self._imported[path] = one
        self._begin_trying(self._try(path, token))

    def _begin_trying(self, trying: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(trying)
        self._trying.add(task)
        task.add_done_callback(self._trying.discard)

    async def _find(self, path: Path) -> None:
        """Says at once what else only other machines would hear: a service may come later."""
        try:
            await aio.connect(path, timeout=_FINDING)
        except (cm.Error, OSError) as error:
            _logger.warning("%s: no service is there yet: %s", path, error)

    async def _try(self, path: Path, token: Token) -> None:
        """Says at once what else only those would hear of who connect."""
        try:
            await self._bridge.connect(token)
        except cm.Error as error:
            _logger.warning("%s: %s", path, error)
        else:
            _logger.info("%s leads to what %s has exported", path, token.exporter)
