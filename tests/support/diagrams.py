"""Diagrams of the documentation that are drawn from the code: run as a program, it writes them."""

from pathlib import Path

from capmarshal._protocol import states
from capmarshal._protocol.states import TRANSITIONS, Event, State

DOCUMENT = Path(__file__).parents[2] / "docs" / "states.md"


def states_as_mermaid():
    """The table of states as Mermaid draws it; END, which is possible everywhere, is left out."""
    arrows = {}
    for state, line in TRANSITIONS.items():
        for event, after in line.items():
            if event is not Event.END:
                arrows.setdefault((state, after), []).append(event.name)
    lines = ["stateDiagram-v2", f"    [*] --> {State.IDLE.name}"]
    lines += [f"    {state.name} --> {after.name}: {', '.join(names)}" for (state, after), names in arrows.items()]
    return "\n".join(["```mermaid", *lines, "```"])


def document():
    """The page: the theory of operation as it stands above the table, the diagram, and what the events are."""
    events = "\n".join(f"| {event.name} | {event.value} |" for event in Event)
    theory = states.__doc__.partition("\n\nThe table is data")[0]
    return (
        f"# {theory}\n\n{states_as_mermaid()}\n\n| event | what happens |\n|---|---|\n{events}\n\n"
        "Drawn from `capmarshal/_protocol/states.py` by `python tests/support/diagrams.py`.\n"
    )


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
