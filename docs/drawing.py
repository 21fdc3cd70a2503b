"""A pen for the course's figures: SVG in one style, readable on light and on dark pages.

Colours are classes, so that one style sheet inside each file serves both schemes. A card behind
the drawing keeps it readable where a page's theme differs from the system's.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field

LIGHT = {
    "page": "#ffffff",
    "line": "#8a96a3",
    "ink": "#1d2733",
    "soft": "#5b6875",
    "plain": "#eef1f4",
    "blue": "#cfe6f5",
    "green": "#d3eddb",
    "orange": "#fbe2c8",
    "red": "#f7d3d3",
    "violet": "#e3dbf6",
}
DARK = {
    "page": "#15191e",
    "line": "#7f8b98",
    "ink": "#e8edf2",
    "soft": "#aab5c0",
    "plain": "#2a3139",
    "blue": "#1d4a66",
    "green": "#1f5234",
    "orange": "#6b4413",
    "red": "#6b2727",
    "violet": "#483a75",
}


def _colours(scheme: dict[str, str]) -> str:
    fills = "".join(f".{name}{{fill:{value}}}" for name, value in scheme.items())
    return (
        f"{fills}.stroke{{stroke:{scheme['line']}}}.strong{{stroke:{scheme['ink']}}}"
        f".tip{{fill:{scheme['line']}}}"
    )


STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-size:14px}"
    ".small{font-size:12px}.big{font-size:16px;font-weight:600}.mono{font-family:monospace}"
    ".none{fill:none}.stroke,.strong{stroke-width:1.4}.dash{stroke-dasharray:5 4}"
    f"{_colours(LIGHT)}@media(prefers-color-scheme:dark){{{_colours(DARK)}}}"
)


@dataclass
class Pen:
    """A drawing of ``width`` by ``height`` pixels; ``alt`` says in words what it shows."""

    name: str
    width: int
    height: int
    alt: str
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, look: str = "ink", anchor: str = "middle"):
        """Write one line, its baseline at ``y``."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" class="{look}" text-anchor="{anchor}">'
            f"{html.escape(words)}</text>"
        )

    def lines(self, x: float, y: float, words: str, look: str = "ink", anchor: str = "middle"):
        """Write several lines, 18 pixels apart."""
        for row, line in enumerate(words.split("\n")):
            self.text(x, y + 18 * row, line, look, anchor)

    def box(
        self, x: float, y: float, w: float, h: float, words: str = "", fill: str = "plain",
        look: str = "ink", edge: str = "stroke",
    ):  # fmt: skip
        """Draw a rounded box with its text in the middle."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6" class="{fill} {edge}"/>'
        )
        rows = words.split("\n")
        first = y + h / 2 + 5 - 9 * (len(rows) - 1)
        for row, line in enumerate(rows):
            if line:
                self.text(x + w / 2, first + 18 * row, line, look)

    def circle(self, x: float, y: float, r: float, words: str = "", fill: str = "plain"):
        """Draw a circle with its text in the middle."""
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" class="{fill} stroke"/>')
        if words:
            self.text(x, y + 5, words)

    def line(self, *points: tuple[float, float], look: str = "stroke", arrow: bool = False):
        """Draw a line through points, with a tip at its end if ``arrow``."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = ' marker-end="url(#tip)"' if arrow else ""
        self.parts.append(f'<polyline points="{path}" class="none {look}"{end}/>')

    def arrow(self, *points: tuple[float, float], look: str = "stroke"):
        """Draw an arrow through points."""
        self.line(*points, look=look, arrow=True)

    def svg(self) -> str:
        """Return the drawing as a file's text."""
        alt = html.escape(self.alt)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}"'
            f' width="{self.width}" height="{self.height}" role="img" aria-label="{alt}">\n'
            f"<style>{STYLE}</style>\n"
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
            ' markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" class="tip"/></marker>'
            "</defs>\n"
            f'<rect x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="10"'
            ' class="page stroke"/>\n' + "\n".join(self.parts) + "\n</svg>\n"
        )
