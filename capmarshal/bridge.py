"""Bridges: the same capabilities from another machine.

A :class:`Bridge` exports capabilities of its machine by tokens, and makes what tokens of other bridges stand for
capabilities of its own: what they carry between them an engine carries, which is NATS.  Needs nats-py, cryptography and
anyio, which the extra `bridge` brings.
"""

from capmarshal._bridge.alive import NameTaken
from capmarshal._bridge.bridge import Bridge
from capmarshal._bridge.reaching import NotReached
from capmarshal._bridge_engine.engine import EngineClosed, EngineError, NotAllowed
from capmarshal._bridge_engine.login import Login
from capmarshal._bridge_engine.nats_engine import NatsEngine
from capmarshal._bridge_engine.tls import Tls
from capmarshal._bridge_link.tokens import Token

__all__ = [
    "Bridge",
    "EngineClosed",
    "EngineError",
    "Login",
    "NameTaken",
    "NatsEngine",
    "NotAllowed",
    "NotReached",
    "Tls",
    "Token",
]

for _name in __all__:
    # Where it is to be had, not where it is written.
    globals()[_name].__module__ = __name__
del _name
