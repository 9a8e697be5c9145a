"""That a bridge's name is its own: each answers at a subject of its name, and asks there before it takes that name.

It is a help to operators, and protects nobody: what is answered there is not sealed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from capmarshal._bridge_engine.engine import EngineError, NobodyThere, NoConnection, NotAllowed, Unanswered

if TYPE_CHECKING:
    from capmarshal._bridge_engine.engine import Engine, Stop

# Seconds in which another one answers, and this one itself.
_WITHIN = 1.0
_OWN_WITHIN = 5.0
# Seconds for which another connection is waited for, where one is lost meanwhile; and between two looks at it.
_CONNECTED_WITHIN = 10.0
_LOOKING = 0.05


class NameTaken(EngineError):
    """Another bridge of that name runs."""


async def claim(engine: Engine, name: str) -> Stop:
    """Answers by a name from here on, until that is stopped.

    Args:
        engine: borrowed.
        name: of a bridge.

    Raises:
        NameTaken: another one answers by it.
        NotAllowed: that name is not this bridge's, as the engine has it.
        EngineError: the engine does not bring this one what is sent to that name; or can't be asked.
    """
    subject = f"cm.{name}.alive"
    try:
        await _ask(engine, subject, _WITHIN)
    except NotAllowed:
        raise
    except (NobodyThere, Unanswered):
        # Nobody; or one that was lost with its machine, of which its node has not heard yet.
        pass
    else:
        raise NameTaken(f"a bridge named {name!r} runs already: each has a name of its own")
    stop = await engine.serve(subject, _answer)
    try:
        await _ask(engine, subject, _OWN_WITHIN)
    except NotAllowed:
        await stop()
        raise
    except (NobodyThere, Unanswered):
        await stop()
        raise EngineError(
            f"the engine does not let this bridge be called as {name!r}: do the permissions of its user there have "
            "another name?"
        ) from None
    except BaseException:
        await stop()
        raise
    return stop


async def _ask(engine: Engine, subject: str, within: float) -> None:
    """Calls; where its node is lost meanwhile once more, as soon as there is a connection to another one."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _CONNECTED_WITHIN
    while True:
        begun = loop.time()
        try:
            await engine.call(subject, b"", within=within)
            return
        except NotAllowed:
            raise
        except (NoConnection, Unanswered) as error:
            if loop.time() > until or (isinstance(error, Unanswered) and loop.time() >= begun + within):
                raise
        await asyncio.sleep(_LOOKING)


async def _answer(_question: bytes) -> bytes:
    return b""
