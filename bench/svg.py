"""What the charts share: light or dark as the reader's system is, on a background of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

# Light and dark of each line or bar: of the palette of Okabe and Ito, told apart also by the colour-blind.
_COLOURS = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8c42"),
    ("#007a5a", "#2fc79b"),
    ("#a8497f", "#e59ac6"),
    ("#555555", "#bbbbbb"),
]


def _style() -> str:
    def rules(text: str, faint: str, ground: str, colours: Sequence[str]) -> str:
        fixed = f".ground{{fill:{ground}}}text{{fill:{text}}}.grid{{stroke:{faint}}}.whisker{{stroke:{text}}}"
        return fixed + "".join(
            f".line{i}{{stroke:{colour}}}.dot{i},.bar{i},text.name{i}{{fill:{colour}}}"
            for i, colour in enumerate(colours)
        )

    light = rules("#222222", "#dddddd", "#ffffff", [light for light, _ in _COLOURS])
    dark = rules("#dddddd", "#3a3a3a", "#161616", [dark for _, dark in _COLOURS])
    return (
        "text{font:13px sans-serif}.title{font-size:16px;font-weight:bold}.small{font-size:12px}"
        ".line{fill:none;stroke-width:2.2;stroke-linejoin:round}.leader{fill:none;stroke-width:1;stroke-dasharray:1 3}"
        f"{light}@media(prefers-color-scheme:dark){{{dark}}}"
    )


def text(x: float, y: float, words: str, anchor: str = "start", css: str = "") -> str:
    """Words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(words)}</text>'


def path(points: Sequence[tuple[float, float]], css: str) -> str:
    """Straight lines from point to point."""
    return f'<path class="{css}" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'


def picture(width: int, height: int, left: int, title: str, subtitle: str, parts: Sequence[str]) -> str:
    """The whole of it, with two lines above everything."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title)}</title><style>{_style()}</style>",
            f'<rect class="ground" width="{width}" height="{height}"/>',
            text(left, 28, title, css="title"),
            text(left, 50, subtitle, css="small"),
            *parts,
            "</svg>",
            "",
        ]
    )
