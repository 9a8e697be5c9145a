"""Certificates for tests: an authority, and who it vouches for."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def _named(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Authority:
    """Issues certificates; all files are in one directory.

    Attributes:
        path: of its own certificate.
    """

    def __init__(self, directory, name="authority"):
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._certificate = self._issue(self._name, self._key, [], True, 1)
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name, *names, days=1):
        """Paths of a certificate, and of its key: of a server of these names or numbers, or of a client.

        Args:
            name: whose it is, and what the files are called.
            names: by which others connect to it.
            days: until it expires; fewer than 0: it has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(_named(name), key, names, False, days)
        paths = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        paths[1].chmod(0o600)
        return paths

    def context(self, client=None):
        """What a client believes in: this authority; ``client`` are the paths of its own certificate."""
        made = ssl.create_default_context(cafile=str(self.path))
        if client is not None:
            made.load_cert_chain(*client)
        return made

    def _issue(self, name, key, names, is_authority, days):
        until = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        made = (
            x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(until - dt.timedelta(days=10))
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
            made = made.add_extension(alternatives, critical=False)
        if not is_authority:
            # Nodes of a cluster are clients of each other, too.
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
            made = made.add_extension(usage, critical=False)
        return made.sign(self._key, hashes.SHA256())
