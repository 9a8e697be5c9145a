"""The tests of client and server in every colour: which tests these are, and which have a meaning in one colour only.

Run by hand: ``pytest --client=asyncio --server=trio tests/test_death.py``.
"""

from __future__ import annotations

import functools
import re

import pytest

COLOURS = ("blocking", "asyncio", "uvloop", "trio")

# What a test file has in it whose tests call or serve, themselves or by a helper; and one that runs loops by itself.
CALLS = re.compile(r"\b(Entrypoint|by_hand|parts_by_hand|served|declared|services|capability)\b")
OWN_LOOPS = re.compile(r"^(import|from) (anyio|loops)\b|^from capmarshal(\._async_client)? import aio\b", re.MULTILINE)

# These are left out, though their tests call and serve.
LEFT_OUT = {
    "what they are about has no colour: declarations, and what travels, without a call": (
        "annotations_refused array_layout codec declarations errors identity inbox names parts private process "
        "protocol_document rebuilt ring room socket_file wire"
    ),
    "they are about the package, or run programs that have a colour of their own": (
        "activation asyncio_watch bench bench_neighbours bench_peers call child child_handover completion "
        "authority_programs confine confined confined_attacks confinement_programs confining debugging "
        "demo_processes describe doctor "
        "example_of_a_c_client example_of_plugins example_of_services example_of_snippets examples exit imports "
        "inspect inspect_hostile launcher layers readme sandboxes services"
    ),
    "they go from one step to the next of code that blocks": (
        "entering_interrupted grants_interrupted listening_interrupted signals_between_steps "
        "signals_while_serving streams_interrupted waiting_interrupted"
    ),
    "they are about the thread that serves, and what signals are to it": (
        "confine_serving escapes_by_signal service signals"
    ),
    "they are about what a thread iterates over; other colours are tested beside them": "streams_passed_hostile",
}
_LEFT_OUT = frozenset(f"test_{name}" for names in LEFT_OUT.values() for name in names.split())

# Tests, and cases of tests, that have a meaning in some colours only bear one of these, which say why.
Only = functools.partial(pytest.mark.blocking)
signals_end_loops = Only("client or server", "what a signal handler raises ends the loop that it interrupts")
loop_is_kept = Only("server", "its method keeps the loop from running in which another thread's close() is awaited")
one_call_a_channel = Only("server", "who sends another call on a channel has given up the one that runs there")
thread_of_its_own = Only("server", "a thread that serves goes on, whatever is thrown into it; a loop ends")
begins_a_round_later = Only("server", "methods begin when the turns of a round are over, and trio shuffles them")
forked_with_its_loop = Only("server", "a loop that is forked within a method is in the child, too")
side_by_side = Only("server", "methods that run beside each other have made answers before the first is found unread")
takes_one_call = Only("server", "while a method waits its thread takes no call; a loop does")
leaves_with_its_reply = Only(
    "server", "nothing of a call that runs beside others leaves with its reply: an answer closes it"
)
runs_inline = Only("server", "what a thread calls of its own entrypoint runs inline; in a loop it goes by a channel")
ends_at_the_deadline = Only("server", "what a method awaits is cancelled at its caller's deadline")
trio_keeps_deadlines = Only("server", "of those that are over trio keeps a thousand", also=("asyncio", "uvloop"))
trio_keeps_results = Only("client", "trio keeps what its run has returned", also=("asyncio", "uvloop"))
streams_are_awaited = Only("server", "a generator that blocks is no stream in a loop")
awaits_what_it_gets = Only("server", "a loop awaits what is given to it, where a thread says that it does not")
says_how_to_serve = Only("server", "a loop's entrypoint is entered by async with")
calls_within_calls = Only("client", "what calls while a call is made would enter a loop within a loop")


def add_options(parser):
    """--client and --server: the colours of the run."""
    for side in ("client", "server"):
        parser.addoption(f"--{side}", choices=COLOURS, default="blocking", help=f"the colour of each {side}")


def configure(config):
    """Registers the mark, and paints."""
    config.addinivalue_line(
        "markers",
        "blocking(where, reason, also): has a meaning where that, client or server, is blocking, or one of these",
    )
    client, server = config.getoption("client"), config.getoption("server")
    if (client, server) != ("blocking", "blocking"):
        import colours

        colours.paint(client, server)


def select(config, items):
    """Leaves out what makes no calls, and skips what has no meaning in these colours."""
    sides = {side: config.getoption(side) for side in ("client", "server")}
    if set(sides.values()) == {"blocking"}:
        return
    calls = {path: _calls(path) for path in {item.path for item in items}}
    left_out = [item for item in items if not calls[item.path]]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if calls[item.path]]
    for item in items:
        for mark in item.iter_markers("blocking"):
            where, reason = mark.args
            only = ("blocking", *mark.kwargs.get("also", ()))
            if any(sides[side] not in only for side in where.split(" or ")):
                item.add_marker(pytest.mark.skip(reason=f"{', '.join(only)} {where} only: {reason}"))


def _calls(path):
    if path.stem in _LEFT_OUT:
        return False
    text = path.read_text(encoding="utf-8")
    return CALLS.search(text) is not None and OWN_LOOPS.search(text) is None
