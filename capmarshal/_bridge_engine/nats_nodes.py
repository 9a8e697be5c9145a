"""The nodes of an engine: those that it was given, and those that these have told of."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from urllib.parse import SplitResult


class Nodes:
    """Their addresses, as ``nats://host:port``."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """Those that are given.

        Raises:
            ValueError: there is none; or one is no address, or has credentials in it.
        """
        self._given = [checked_address(address) for address in addresses]
        if not self._given:
            raise ValueError("an engine needs the address of one node at least")
        self._told: list[str] = []
        # Whether they are to encrypt, by what was given.
        self.encrypt: bool = any(urlsplit(address).scheme == "tls" for address in addresses)

    @property
    def all(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys([*self._given, *self._told]))

    def tell(self, places: Iterable[str]) -> None:
        """One of them says which others there are, each as ``host:port``."""
        self._told = [f"nats://{place}" for place in places]

    def name_in_certificate(self, address: str) -> str | None:
        """What stands in a node's certificate: where others have told of it by its number, the first node's name."""
        host = urlsplit(address).hostname
        return urlsplit(self._given[0]).hostname if address in self._told and _is_number(host) else host


def checked_address(address: str) -> str:
    """The address of a node, as it is connected to.

    Raises:
        ValueError: it is none, or has credentials in it.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("nats", "tls") or not parts.hostname:
        raise ValueError("a node's address is nats://HOST:PORT, or tls://HOST:PORT")
    if "@" in parts.netloc:
        raise ValueError("a node's address has no credentials in it: nodes that are found later would not get them")
    if not _has_port(parts):
        # Not which: what stands there may be a secret, of credentials that are written badly.
        raise ValueError(
            "a node's address is nats://HOST:PORT, and the port, if there is one, a number from 1 to 65535"
        )
    return f"nats://{parts.netloc}"


def _has_port(parts: SplitResult) -> bool:
    """Whether there is one, or none is said."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def _is_number(host: str | None) -> bool:
    try:
        ipaddress.ip_address(host or "")
    except ValueError:
        return False
    return True
