"""Whom a connection to a node trusts: files that are read, and refused by their names."""

import ssl

import pytest
from cryptography.hazmat.primitives import serialization

from capmarshal._bridge_engine.tls import Tls
from certificates import Authority


@pytest.fixture
def authority(tmp_path):
    """One that has issued nothing."""
    return Authority(tmp_path)


def test_it_looks_at_certificates_and_at_the_names_in_them(authority):
    """Of the authorities that it was given, or else of those of the machine; in TLS 1.2 at least."""
    for made in (Tls(ca=authority.path).context(), Tls().context()):
        assert made.verify_mode == ssl.CERT_REQUIRED
        assert made.check_hostname
        assert made.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert len(Tls(ca=authority.path).context().get_ca_certs()) == 1


def test_files_are_read_when_they_are_needed(authority):
    """Each time: what was replaced is used, and what is away is named."""
    certificate, key = authority.issue("client")
    tls = Tls(ca=authority.path, certificate=certificate, key=key)
    tls.context()
    for path in (authority.path, certificate, key):
        saved = path.read_bytes()
        path.unlink()
        with pytest.raises(FileNotFoundError, match=path.name):
            tls.context()
        path.write_bytes(saved)
    tls.context()


def test_certificate_and_key_may_be_in_one_file(authority, tmp_path):
    """As some tools write them."""
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in authority.issue("client")))
    Tls(ca=authority.path, certificate=both).context()


def test_what_is_no_certificate_or_not_of_that_key_is_named(authority, tmp_path):
    """And nothing of what is in it."""
    certificate, key = authority.issue("client")
    _, other = authority.issue("other")
    text = tmp_path / "text"
    text.write_text("-----BEGIN CERTIFICATE-----\nsecret\n")
    for tls, words in (
        (Tls(ca=text), f"{text} has no certificates"),
        (Tls(ca=key), f"{key} has no certificates"),
        (Tls(certificate=text), f"{text} are no certificate and its key"),
        (Tls(certificate=certificate), f"{certificate} are no certificate and its key"),
        (Tls(certificate=certificate, key=other), f"{certificate} and {other} are no certificate and its key"),
    ):
        with pytest.raises(ValueError, match=words) as raised:
            tls.context()
        assert "secret" not in str(raised.value)
    with pytest.raises(ValueError, match="a key is of a certificate: name that, too"):
        Tls(key=key)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(authority, tmp_path):
    """OpenSSL would ask at the terminal, and a bridge would wait there."""
    certificate, key = authority.issue("client")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    with pytest.raises(ValueError, match="the key of a bridge's certificate is encrypted: give it one that is not"):
        Tls(ca=authority.path, certificate=certificate, key=key).context()


def test_it_shows_nothing_but_whom_it_trusts():
    """Where it is printed."""
    assert repr(Tls(ca="ca.pem", certificate="c.pem", key="k.pem")) == "Tls(ca='ca.pem')"
