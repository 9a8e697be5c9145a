"""What it means that a node refuses something, and what to do: in words for who runs it."""

from __future__ import annotations

import re
import ssl
import time
from typing import TYPE_CHECKING

from .credentials import Credentials
from .tls import Tls

if TYPE_CHECKING:
    from .login import Login

# What a node says of a subject; nats-py has made it lower-case.
_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"')
# 128 random bits: a token, an engine, or a call.
_RANDOM = re.compile(r"(?<=\.)[0-9a-f]{32}(?=\.|$)")

# verify_code of OpenSSL (x509_vfy.h).
_UNKNOWN_AUTHORITY = {18, 19, 20, 21}
_OTHER_NAME = {62, 64}
_NOT_YET, _EXPIRED = 9, 10


def explain(error: Exception, login: Login, waited: float) -> str:
    """Why a node can't be used, and what to do about it; it shows no secret.

    Args:
        error: what connecting to it has raised.
        login: who this is.
        waited: seconds until then.
    """
    if isinstance(error, TimeoutError) and getattr(error, "errno", None) is None:
        # asyncio's has no words, and nats-py's says no more.
        return (
            f"it was silent for {waited:.0f} s: is that its port for clients, is a firewall before it, or does it "
            "stand still? One with handshake_first waits for TLS, and says nothing before that"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        said, meant = f"certificate verify failed: {error.verify_message}", _of_its_certificate(error, login)
    elif isinstance(error, ssl.SSLError):
        said, meant = f"{error.reason or error}", _of_ours(error.reason or "", login)
    else:
        said, meant = str(error) or type(error).__name__, _of_its_words(error, login)
    return f"{said}: {meant}" if meant else said


def denied(words: str) -> tuple[str, str] | None:
    """("publish" or "subscription", the subject in lower case) where that is what a node refuses."""
    found = _DENIED.search(words)
    return None if found is None else (found[1], found[2])


def general(subject: str) -> str:
    """A subject as a permission would have it: what is random in it is any word."""
    return _RANDOM.sub("*", re.sub("^_inbox(?=[.])", "_INBOX", subject))


def missing(verb: str, subject: str) -> str:
    """Which permission a bridge needs for what was refused."""
    allowed = general(subject)
    if verb == "subscription":
        return f'its user may not subscribe to "{allowed}": give it the permission to'
    words = f'its user may not publish to "{allowed}": give it the permission to'
    if allowed.startswith("_INBOX."):
        words += "; allow_responses ends with its time, and with the connection by which a call came"
    return words


def _of_its_certificate(error: ssl.SSLCertVerificationError, login: Login) -> str:
    if error.verify_code in _UNKNOWN_AUTHORITY:
        ca = login.tls.ca if isinstance(login.tls, Tls) else None
        whom = f"in {ca}" if ca is not None else "that is trusted here"
        return f"it is of no authority {whom}: Tls(ca=...) names the file of the one that has issued it"
    if error.verify_code in _OTHER_NAME:
        return "connect to the node by a name that its certificate is for, or have this one in it"
    if error.verify_code == _EXPIRED:
        return "the node needs a new one"
    if error.verify_code == _NOT_YET:
        return "is the clock of this machine, or that of who has issued it, wrong?"
    return ""


def _of_ours(reason: str, login: Login) -> str:
    """What the node says of the certificate of this one, as an alert (RFC 8446, 6)."""
    own = login.tls.certificate if isinstance(login.tls, Tls) else None
    if own is None:
        asked = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "HANDSHAKE_FAILURE")
        return "it asks for a certificate: Tls(certificate=..., key=...) is that" if reason.endswith(asked) else ""
    if reason.endswith("UNKNOWN_CA"):
        return f"{own} is of no authority that is in the node's ca_file"
    if reason.endswith("CERTIFICATE_EXPIRED"):
        return f"{own} has expired: have it issued anew; it is read for each connection"
    return f"it does not take {own}" if "CERTIFICATE" in reason else ""


def _of_its_words(error: Exception, login: Login) -> str:
    said = str(error).lower()
    if "authorization violation" in said or "authentication expired" in said:
        return _of_the_user(login)
    if "maximum connections exceeded" in said:
        return "its max_connections, or that of the account, is too low"
    if "expecting info" in said:
        return "is that its port for clients? One with handshake_first waits for TLS, and says nothing before that"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        # Its words may be lost: it closes with what was sent to it unread.
        return "perhaps it does not let this user in"
    return ""


def _of_the_user(login: Login) -> str:
    if login.credentials is not None:
        try:
            own = Credentials(login.credentials)
        except (OSError, ValueError) as error:
            return str(error)
        if own.expires is not None and own.expires <= time.time():
            when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(own.expires))
            return f"{login.credentials} has expired at {when}: have it made anew; it is read for each connection"
        return f"it does not know the user {own.public} of {login.credentials}, or lets nobody in by a key"
    if login.user is not None:
        return f"it does not know the user {login.user!r}, or that has another password"
    return "it lets nobody in without a login"
