"""What ``capmarshal demo`` runs: ``sha256sum`` by three processes that hold nothing but capabilities.

The *broker* spawns a *digest server* and a *client*.  The server announces its ``Digest`` to the broker: a capability
as an argument.  The client asks the broker for it: a capability as a result.  From there on the two talk with each
other directly: the client opens files, and the server, which never sees a path, reads them.
"""
