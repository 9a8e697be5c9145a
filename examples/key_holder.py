"""Signs for its clients, who never have the key: each has a grant of its own, which ends when it is misused.

    python key_holder.py

It starts two clients, one after the other.  The first signs in the other's name: it is refused, and can sign nothing
any more.  The second notices nothing of that.
"""

import hmac
import os
import sys
from collections.abc import Callable

import capmarshal as cm


class Keys(cm.Interface):
    """What can be done with the key."""

    @cm.method
    @cm.raises(PermissionError)
    def sign(self, line: str) -> bytes:
        """The signature of a line, which begins with the name of the client that signs it."""

    @cm.method
    def verify(self, line: str, signature: bytes) -> bool:
        """Whether a line was signed here."""

    @cm.method
    def replace(self) -> None:
        """Has another key from now on: no signature from before is good any more.  Not granted to clients."""


class KeysServer(Keys):
    """Has the key.

    Args:
        misused: told of a client that signs in another's name.
    """

    def __init__(self, misused: Callable[[str], object]) -> None:
        self._misused = misused
        self.replace()

    def sign(self, line: str) -> bytes:
        """See :meth:`Keys.sign`."""
        client = cm.caller().label
        if not line.startswith(f"{client}: "):
            self._misused(client)
            raise PermissionError(f"{client} signs as {client}")
        return hmac.digest(self._key, line.encode(), "sha256")

    def verify(self, line: str, signature: bytes) -> bool:
        """See :meth:`Keys.verify`."""
        return hmac.compare_digest(hmac.digest(self._key, line.encode(), "sha256"), signature)

    def replace(self) -> None:
        """See :meth:`Keys.replace`."""
        self._key = os.urandom(32)


def serve() -> int:
    """Starts the clients, each with a grant; whether all went well."""
    granted: dict[str, cm.Capability] = {}
    with cm.Entrypoint("keys") as entrypoint:
        keys = KeysServer(lambda client: entrypoint.revoke(granted[client], "it has signed in another's name"))
        for client in ("forger", "baker"):
            granted[client] = entrypoint.grant(keys, label=client, only=(Keys.sign, Keys.verify))
            status = cm.spawn([sys.executable, __file__, client], parent=granted[client]).wait()
            if status:
                return status
    return 0


def attempt(what: str, call: Callable[[], object]) -> None:
    """Calls, and prints what came of it."""
    try:
        print(f"{what}: {call()}")
    except (PermissionError, cm.Error) as error:
        print(f"{what}: {type(error).__name__}: {error}")


def be_client(name: str) -> None:
    """Does what one of them does."""
    keys = cm.parent().cast(Keys)
    line = f"{name}: 3 loaves"
    signature = keys.sign(line)
    attempt(f"{name} signs", lambda: keys.verify(line, signature))
    if name == "forger":
        attempt("forger replaces the key", keys.replace)
        attempt("forger signs as baker", lambda: keys.sign("baker: 300 loaves"))
        attempt("forger signs again", lambda: keys.sign(line))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        be_client(sys.argv[1])
    else:
        sys.exit(serve())
