"""Output of notebook cells, as HTML and as text, for light and dark pages."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shown:
    """A cell's output: as HTML, and as text for other places."""

    text: str
    markup: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.markup


def note(text: str) -> Shown:
    """Return a sentence for the page."""
    return Shown(text, f"<p>{html.escape(text)}</p>")


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Shown:
    """Return a table: floats to three places, line breaks as ↵, everything else as it is.

    >>> table(("word", "p"), [("sun", 0.25), ("rain", 0.75)])
    word  p
    sun   0.250
    rain  0.750
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (headings, *cells)
    ]
    head = "".join(f"<th {LEFT}>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td {LEFT}>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in cells
    )
    markup = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return Shown("\n".join(lines), markup)


LEFT = "style='text-align:left;vertical-align:top'"
"""Notebooks align tables right; words read better aligned left."""


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("\n", "↵ ")
