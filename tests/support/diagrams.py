"""Pictures of the documentation that are drawn from the code: run as a program, it writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from capmarshal._protocol import states
from capmarshal._protocol.states import Event, State

DOCS = Path(__file__).parents[2] / "docs"

# Of each state's box, the left upper corner.
PLACES = {
    State.IDLE: (40, 130),
    State.REFUSED: (40, 210),
    State.RECEIVING: (290, 130),
    State.QUEUED: (290, 210),
    State.RUNNING: (520, 70),
    State.HANDLED: (740, 70),
    State.CLOSING: (740, 140),
    State.SENDING: (520, 210),
    State.AWAITING_GO: (520, 265),
    State.AWAITING_ROOM: (520, 320),
    State.SETTLING: (290, 360),
}
WIDTH, HEIGHT = 140, 34

TAKING = (State.IDLE, State.REFUSED)
ANSWERING = (
    *(State.RUNNING, State.HANDLED, State.CLOSING),
    *(State.SENDING, State.AWAITING_GO, State.AWAITING_ROOM),
)
# Of each box around several, what is written above it, and where it is.
GROUPS = {
    TAKING: ("a call may come", (20, 100, 180, 160)),
    ANSWERING: ("an answer is due", (500, 40, 400, 330)),
}


@dataclass
class Arrow:
    """One of the picture.

    Args:
        sources: the states that it begins at: one, or a group.
        path: of SVG.
        words: and where they are written.
        steps: what happens, and to which state that leads.
    """

    sources: tuple[State, ...]
    path: str
    words: tuple[str, int, int]
    steps: dict[Event, State]


ARROWS = [
    Arrow(TAKING, "M200 118 L520 84", ("CALL", 345, 94), {Event.CALL: State.RUNNING}),
    Arrow(TAKING, "M200 140 L290 140", ("BEGIN", 245, 135), {Event.BEGIN: State.RECEIVING}),
    Arrow(TAKING, "M200 227 L290 227", ("QUEUE", 245, 222), {Event.QUEUE: State.QUEUED}),
    Arrow((State.QUEUED,), "M360 210 L360 164", ("ADMIT", 390, 192), {Event.ADMIT: State.RECEIVING}),
    Arrow((State.RECEIVING,), "M430 140 L520 96", ("CALL", 470, 138), {Event.CALL: State.RUNNING}),
    Arrow((State.RECEIVING,), "M290 156 L180 156", ("ABANDON", 245, 171), {Event.ABANDON: State.IDLE}),
    Arrow((State.RUNNING,), "M660 87 L740 87", ("HANDLE", 700, 81), {Event.HANDLE: State.HANDLED}),
    Arrow((State.RUNNING,), "M620 104 L740 152", ("RAN", 660, 140), {Event.RAN: State.CLOSING}),
    Arrow((State.HANDLED,), "M810 104 L810 140", ("RAN", 832, 126), {Event.RAN: State.CLOSING}),
    Arrow(ANSWERING, "M810 282 L660 227", ("FULL", 735, 240), {Event.FULL: State.SENDING}),
    Arrow(ANSWERING, "M810 282 L660 282", ("PART", 710, 277), {Event.PART: State.AWAITING_GO}),
    Arrow(ANSWERING, "M810 282 L660 337", ("TOO_MANY", 755, 332), {Event.TOO_MANY: State.AWAITING_ROOM}),
    Arrow(ANSWERING, "M540 370 L540 377 L430 377", ("SETTLE", 475, 391), {Event.SETTLE: State.SETTLING}),
    Arrow(ANSWERING, "M500 290 L110 290 L110 244", ("SENT_EARLY", 390, 284), {Event.SENT_EARLY: State.REFUSED}),
    Arrow(ANSWERING, "M500 320 L8 320 L8 147 L40 147", ("SENT", 370, 314), {Event.SENT: State.IDLE}),
    Arrow((State.AWAITING_GO,), "", ("of AWAITING_GO, also ABANDON", 370, 335), {Event.ABANDON: State.IDLE}),
    Arrow((State.SETTLING,), "M290 368 L130 368 L130 244", ("SENT_EARLY", 220, 363), {Event.SENT_EARLY: State.REFUSED}),
    Arrow((State.SETTLING,), "M290 384 L8 384 L8 147 L40 147", ("SENT", 220, 399), {Event.SENT: State.IDLE}),
]

STYLE = (
    ":root{--text:#222222;--line:#555555;--ground:#ffffff;--box:#e8f1fa;--group:#f6f6f6;}"
    "@media(prefers-color-scheme:dark){:root{--text:#dddddd;--line:#aaaaaa;--ground:#161616;--box:#1d3448;--group:#222222;}}"
    "text{font:13px sans-serif;fill:var(--text);text-anchor:middle}.word{font-size:12px}"
    ".box{fill:var(--box);stroke:var(--line)}.group{fill:var(--group);stroke:var(--line);stroke-dasharray:4 3}"
    ".arrow{fill:none;stroke:var(--line);marker-end:url(#head)}.head{fill:var(--line)}"
)


def steps_drawn():
    """(state, event, next state) of all arrows."""
    return {
        (source, event, after) for arrow in ARROWS for source in arrow.sources for event, after in arrow.steps.items()
    }


def states_as_svg():
    """What a channel may be in, and how it comes there; END, which is possible everywhere, is one line of words."""
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 30 920 400" role="img">',
        f"<title>The states of a channel</title><style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="head" d="M0 0 L8 4 L0 8 z"/></marker></defs>',
        '<rect y="30" width="920" height="400" style="fill:var(--ground)"/>',
    ]
    for words, (x, y, width, height) in GROUPS.values():
        lines += [
            f'<rect class="group" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>',
            f'<text x="{x + width // 2}" y="{y + 18}">{words}</text>',
        ]
    for arrow in ARROWS:
        words, x, y = arrow.words
        if arrow.path:
            lines.append(f'<path class="arrow" d="{arrow.path}"/>')
        lines.append(f'<text class="word" x="{x}" y="{y}">{words}</text>')
    for state, (x, y) in PLACES.items():
        lines += [
            f'<rect class="box" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            f'<text x="{x + WIDTH // 2}" y="{y + 22}">{state.name}</text>',
        ]
    lines += [
        '<circle class="head" cx="810" cy="282" r="4"/>',
        '<text class="word" x="846" y="300">each of these</text>',
        '<text class="word" x="460" y="420">END leads from each state to ENDED, which nothing leaves</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def document():
    """The page: the theory of operation as it stands above the table, the picture, and what the events are."""
    events = "\n".join(f"| {event.name} | {event.value} |" for event in Event)
    title, _, theory = states.__doc__.partition("\n\nThe table is data")[0].partition("\n\n")
    return (
        f"# {title.removesuffix('.')}\n\n{theory}\n\n![the states, and how one comes after another](states.svg)\n\n"
        f"| event | what happens |\n|---|---|\n{events}\n\n"
        "Drawn from `capmarshal/_protocol/states.py` by `python tests/support/diagrams.py`.\n"
    )


if __name__ == "__main__":
    (DOCS / "states.svg").write_text(states_as_svg(), encoding="utf-8")
    (DOCS / "states.md").write_text(document(), encoding="utf-8")
