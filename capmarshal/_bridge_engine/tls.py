"""Whom a connection to a node trusts, and who this is to it: files of certificates, as operators have them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files in PEM, read anew for each connection, so that one that was replaced before it expired is used.

    Attributes:
        ca: certificates of the authorities that nodes' certificates may be of; None: those that this machine trusts.
        certificate: this one's own, for nodes that ask for one, with those that lead from it to an authority.
        key: its key, where that is in another file; not encrypted: nobody is there to be asked for its passphrase.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = field(default=None, repr=False)
    key: str | Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ValueError("a key is of a certificate: name that, too")

    def context(self) -> ssl.SSLContext:
        """Of TLS 1.2 at least; a node's certificate, and the name in it, are looked at.

        Raises:
            OSError: a file can't be read.
            ValueError: it is no such file.
        """
        if self.ca is None:
            made = ssl.create_default_context()
        else:
            try:
                made = ssl.create_default_context(cafile=self.ca)
            except ssl.SSLError as error:
                raise ValueError(f"{self.ca} has no certificates: {error.reason or error}") from None
            except OSError as error:
                raise _named(error, self.ca) from None
        if self.certificate is not None:
            try:
                made.load_cert_chain(self.certificate, self.key, _no_passphrase)
            except ssl.SSLError as error:
                place = self.certificate if self.key is None else f"{self.certificate} and {self.key}"
                raise ValueError(f"{place} are no certificate and its key: {error.reason or error}") from None
            except OSError as error:
                raise _named(error, self.certificate, self.key) from None
        return made


def _no_passphrase() -> NoReturn:
    # OpenSSL would ask for it at the terminal.
    raise ValueError("the key of a bridge's certificate is encrypted: give it one that is not")


def _named(error: OSError, *paths: str | Path | None) -> OSError:
    """The same with the path, which OpenSSL leaves out."""
    return type(error)(error.errno, error.strerror, " or ".join(str(path) for path in paths if path is not None))
