"""What the three processes may ask of each other."""

from __future__ import annotations

import io  # noqa: TC003 - read when the interface is first used

import capmarshal as cm


class Digest(cm.Interface):
    """Computes checksums of open files; served by the digest server."""

    @cm.method
    @cm.raises(OSError)
    def sha256(self, file: io.BufferedReader) -> str:
        """Reads the file from where it stands to its end.

        Returns:
            The checksum in hexadecimal digits.

        Raises:
            OSError: it cannot be read.
        """


class Registry(cm.Interface):
    """Where the digest server says that it is ready; served by the broker, and all that it gives to this child."""

    @cm.method
    def announce(self, digest: Digest) -> None:
        """Offers a service to whom the broker thinks fit."""


class Services(cm.Interface):
    """Where the client gets what it needs; served by the broker, and all that it gives to this child."""

    @cm.method
    def digest(self) -> Digest:
        """The service that was announced."""

    @cm.method
    def done(self) -> None:
        """Says that the client has its results: until this returns, everybody is there to be looked at."""
