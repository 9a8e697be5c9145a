"""The calls of a soak: drawn at random, made by a proxy of either colour, and each answer looked at."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os

import capmarshal as cm

# How many of each kind there are among a hundred.
KINDS = {"text": 58, "reverse": 12, "ask": 9, "child": 6, "make": 5, "blob": 1, "fail": 5, "slow": 4}
MEBIBYTE, FILES = 1 << 20, 64
# Of so many calls, one is cut off: within so many seconds.
CUT_OFF, CUT_WITHIN = 0.08, 0.004


@dataclasses.dataclass(frozen=True)
class Call:
    """A call to be made: ``cut`` says how it is cut off, or is "", and ``after`` in how many seconds."""

    kind: str
    number: int
    server: str
    cut: str
    after: float


def draw(randomly, servers, cuts):
    """A call at random."""
    return Call(
        randomly.choices(list(KINDS), list(KINDS.values()))[0],
        randomly.randrange(1 << 40),
        randomly.choice(servers),
        randomly.choice(cuts) if randomly.random() < CUT_OFF else "",
        CUT_WITHIN * randomly.random() ** 2,
    )


def path_of(directory, number):
    """One of the files that clients pass."""
    return f"{directory}/file-{number}"


def content_of(number):
    """What is in it."""
    return f"{number}, ".encode() * number**2 * 4


async def _result(of):
    # What a blocking proxy gives is the result itself: nothing is awaited then.
    return await of if inspect.isawaitable(of) else of


def expect(call, answer, right):
    """Fails where the answer is not the right one."""
    if answer != right:
        raise AssertionError(f"{call} gave {str(answer)[:200]!r}, not {str(right)[:200]!r}")


class Calls:
    """Makes calls.

    Args:
        children: the interface in the colour of the proxies.
        own: a capability that adds ``adds``.
        directory: where files are.
    """

    def __init__(self, children, own, adds, directory):
        self._children, self._own, self._adds, self._directory = children, own, adds, directory

    async def make(self, call, proxy):
        """Makes one of the kind, and looks at the answer; what it raises that it should not is raised."""
        try:
            await getattr(self, f"_{call.kind}")(call, proxy, call.number)
        except cm.CallTimeout:
            if not call.cut:
                raise
        except cm.RemoteError:
            # What the server calls in its turn has the same deadline, and the server may be the first to say so.
            if not (call.cut and call.kind == "ask"):
                raise

    async def _text(self, call, proxy, number):
        expect(call, await _result(proxy.text(number, "häuser")), f"häuser {2 * number}")

    async def _reverse(self, call, proxy, number):
        content = content_of(number % FILES)
        # A file object from the first: Ctrl-C may come wherever it wants to.
        with open(path_of(self._directory, number % FILES), "rb") as file:
            with await _result(proxy.reverse(file)) as back:
                expect(call, os.pread(back.fileno(), len(content) + 1, 0), content[::-1])

    async def _ask(self, call, proxy, number):
        expect(call, await _result(proxy.ask(self._own, number)), number + self._adds)

    async def _child(self, call, proxy, number):
        child = (await _result(proxy.child(number))).cast(self._children)
        expect(call, await _result(child.add(number)), number % 16 + number)

    async def _make(self, call, proxy, number):
        child = (await _result(proxy.make(number))).cast(self._children)
        # So many may have been made meanwhile that the server has dissolved it.
        with contextlib.suppress(cm.StaleCapability):
            expect(call, await _result(child.add(1)), number + 1)

    async def _blob(self, call, proxy, number):
        data = (b"%d," % number) * (MEBIBYTE // 8)
        expect(call, await _result(proxy.blob(data[:MEBIBYTE])), data[:MEBIBYTE])

    async def _fail(self, call, proxy, number):
        try:
            await _result(proxy.fail(number, bool(number % 2)))
        except LookupError as error:
            expect(call, str(error), f"no {number}")
        except cm.RemoteError as error:
            expect(call, f"bad {number}" in str(error), True)
        else:
            raise AssertionError(f"{call} raised nothing")

    async def _slow(self, call, proxy, number):
        expect(call, await _result(proxy.slow(number, number % 3 / 1000)), number)
